"""Templates → Kubernetes objects, in a language so small that every template ends.

A project may replace shipped templates, and its templates may come from an untrusted pull request. So a template can
look values up, choose and repeat, and nothing else: no calls, no assignments, no macros, no arithmetic; repetitions and
sizes are counted. And no value can break out of its place: in YAML each is written as a JSON value, in the gateway's
configuration only as a plain token. Shipped templates live under the same rules.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from jinja2 import StrictUndefined, Template, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from scepsy.documents import Diagnostic, DocumentError, Position, did_you_mean
from scepsy.documents.yaml_source import SourceFile, parse, read_bytes

OBJECTS: Mapping[str, tuple[str, str]] = {
    "configmap-gateway.yaml.j2": ("v1", "ConfigMap"),
    "deployment-engine.yaml.j2": ("apps/v1", "Deployment"),
    "deployment-gateway.yaml.j2": ("apps/v1", "Deployment"),
    "poddisruptionbudget.yaml.j2": ("policy/v1", "PodDisruptionBudget"),
    "podmonitor.yaml.j2": ("monitoring.coreos.com/v1", "PodMonitor"),
    "resourceclaim.yaml.j2": ("resource.k8s.io/v1", "ResourceClaim"),
    "service-engine.yaml.j2": ("v1", "Service"),
    "service-gateway.yaml.j2": ("v1", "Service"),
    "service-llm.yaml.j2": ("v1", "Service"),
}
"""The template of each object: the only apiVersion and kind that it may render."""
GATEWAY = "haproxy.cfg.j2"
"""The template of the gateway's configuration, a text."""

MAX_SOURCE = 256 * 1024
"""Largest override in bytes."""
MAX_OUTPUT = 2 * 1024 * 1024
"""Longest rendered text in characters; a ConfigMap holds 1 MiB."""
MAX_STEPS = 100_000
"""Most repetitions of loops while one text is rendered."""
MAX_JOINED = 64 * 1024
"""Longest string that `~` makes."""

_TOKEN = re.compile(r"[A-Za-z0-9._:/*\[\]-]+")
_FILTERS = ("default", "items", "length", "lower", "sort", "string", "upper")
_LOOP = ("first", "index", "index0", "last")
_ALLOWED: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For),
    *(nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.CondExpr, nodes.Filter, nodes.Test),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Concat, nodes.Tuple, nodes.Keyword),
)


class Templates:
    """The shipped templates, single ones replaced by a project's.

    Args:
        overrides: a directory with files named as shipped templates; hidden files in it are ignored.

    Raises:
        DocumentError: a file there matches no shipped template, or cannot be read.
    """

    def __init__(self, overrides: Path | None = None) -> None:
        self._overrides = _overrides(overrides) if overrides is not None else {}
        self._yaml = _Environment(_as_json)
        self._tokens = _Environment(_as_token)
        self._compiled: dict[str, Template] = {}

    def object(self, template: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Render one Kubernetes object as plain data.

        Args:
            template: a name in `OBJECTS`.
            values: plain values; `name` and `namespace` say which object it must be.

        Raises:
            DocumentError: the template is wrong, or renders anything but exactly that one object.
        """
        file = self._source(template)
        text = self._render(self._yaml, file, template, values)
        rendered = SourceFile(f"{file.name} (as rendered)", text.encode())
        sources = parse(rendered)
        api_version, kind = OBJECTS[template]
        if len(sources) != 1 or not isinstance(sources[0].root.value, dict):
            problem = f"rendered {len(sources)} documents, expected one {kind}"
            raise DocumentError([Diagnostic(Position(file.name), problem, "one file holds one object")])
        source = sources[0]
        plain = cast(dict[str, Any], source.root.plain())
        problems = [
            source.diagnostic(path, f"{'.'.join(path)} is {_found(plain, path)!r}, expected {expected!r}")
            for path, expected in (
                (("apiVersion",), api_version),
                (("kind",), kind),
                (("metadata", "name"), values["name"]),
                (("metadata", "namespace"), values["namespace"]),
            )
            if _found(plain, path) != expected
        ]
        if problems:
            raise DocumentError(problems)
        return plain

    def text(self, values: Mapping[str, Any]) -> str:
        """Render the gateway's configuration.

        Raises:
            DocumentError: the template is wrong, or a value is no plain token.
        """
        return self._render(self._tokens, self._source(GATEWAY), GATEWAY, values)

    def _source(self, name: str) -> SourceFile:
        if name in self._overrides:
            return self._overrides[name]
        return SourceFile(name, importlib.resources.files("scepsy.templates").joinpath(name).read_bytes())

    def _render(self, environment: _Environment, file: SourceFile, name: str, values: Mapping[str, Any]) -> str:
        try:
            if name not in self._compiled:
                self._compiled[name] = environment.template(file)
            return environment.fill(self._compiled[name], values)
        except Exception as error:
            # Anything: an untrusted template can also crash Jinja2's and Python's compilers.
            known = error.lineno if isinstance(error, TemplateSyntaxError | _Refused) else None
            line = known or _line(error, file.name) or 1
            message = str(error) or type(error).__name__
            raise DocumentError([Diagnostic(file.position(line, 1), f"the template fails: {message}")]) from error


class _Refused(Exception):
    """A template that goes beyond the language or its limits."""

    def __init__(self, message: str, lineno: int | None = None) -> None:
        super().__init__(message)
        self.lineno = lineno


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2 cut down to look-ups, choices and counted repetitions."""

    def __init__(self, finalize: Any) -> None:
        super().__init__(
            undefined=StrictUndefined,
            finalize=finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.globals = {}
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.filters |= {"_counted": self._counted, "_joined": _joined}
        self.steps = 0

    def template(self, file: SourceFile) -> Template:
        tree = self.parse(file.data.decode("utf-8-sig"), file.name)
        _check(tree)
        code = self.compile(_Counting().visit(tree), file.name, file.name)
        return self.template_class.from_code(self, code, {})

    def fill(self, template: Template, values: Mapping[str, Any]) -> str:
        self.steps = 0
        parts: list[str] = []
        length = 0
        for part in template.generate(values):
            parts.append(part)
            length += len(part)
            if length > MAX_OUTPUT:
                raise _Refused(f"the text grows beyond {MAX_OUTPUT:,} characters")
        return "".join(parts)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look up a key; attributes of Python objects do not exist here."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up a key of a mapping, or an item of a list."""
        if isinstance(obj, Mapping) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        if isinstance(obj, list | tuple) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        if isinstance(obj, LoopContext) and argument in _LOOP:
            return getattr(obj, argument)
        return self.undefined(obj=obj, name=argument)

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise _Refused(f"its loops repeat more than {MAX_STEPS:,} times")
            yield item


class _Counting(NodeTransformer):
    """Routes loops and concatenations through the filters that count."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - the visitor's naming
        self.generic_visit(node)
        node.iter = _filter(cast(nodes.Expr, node.iter), "_counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - the visitor's naming
        self.generic_visit(node)
        return _filter(nodes.Tuple(node.nodes, "load", lineno=node.lineno), "_joined")


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _check(node: nodes.Node) -> None:
    """Refuse every construct that is not of the small language, whether it would run or not."""
    if not isinstance(node, _ALLOWED) or (isinstance(node, nodes.For) and node.recursive):
        allowed = "only look-ups, {% if %}, {% for %}, comparisons, '~' and a few filters are"
        raise _Refused(f"{type(node).__name__.lower()} is not allowed in a template: {allowed}", node.lineno)
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        raise _Refused(f'no filter "{node.name}"; there are {", ".join(_FILTERS)}', node.lineno)
    for child in node.iter_child_nodes():
        _check(child)


def _joined(parts: Iterable[Any]) -> str:
    texts = [str(part) for part in parts]
    if sum(map(len, texts)) > MAX_JOINED:
        raise _Refused(f"'~' makes a string of more than {MAX_JOINED:,} characters")
    return "".join(texts)


def _as_json(value: Any) -> Any:
    """Write a value as JSON that is YAML too: nothing in it can end the place where it stands."""
    if isinstance(value, Undefined):
        return str(value)  # raises, and says which name is missing
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_as_json(str(key))}: {_as_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_as_json(item) for item in value) + "]"
    if isinstance(value, str):
        # Unlike JSON, YAML has no surrogate pairs: characters beyond U+FFFF need its own long form.
        return "".join(c if ord(c) < 0x10000 else f"\\U{ord(c):08X}" for c in _quoted(value))
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value, allow_nan=False)
    raise _Refused(f"a {type(value).__name__} cannot be written")


def _quoted(text: str) -> str:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise _Refused("a text holds half of a surrogate pair")
    return "".join(
        c if ord(c) >= 0x10000 or " " <= c <= "~" else f"\\u{ord(c):04X}" for c in json.dumps(text, ensure_ascii=False)
    )


def _as_token(value: Any) -> Any:
    """Write a value that cannot end a word of HAProxy's configuration."""
    if isinstance(value, Undefined):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not _TOKEN.fullmatch(str(value)):
        raise _Refused(f"{value!r:.80} is no plain token")
    return str(value)


def _overrides(directory: Path) -> dict[str, SourceFile]:
    """Read the templates of a project."""
    shipped = [*OBJECTS, GATEWAY]
    files: dict[str, SourceFile] = {}
    problems: list[Diagnostic] = []
    if not directory.is_dir():
        raise DocumentError([Diagnostic(Position(str(directory)), "no such directory", "see paths.templates")])
    for path in sorted(directory.iterdir()):
        name = f"{directory.name}/{path.name}"
        if path.name.startswith("."):
            continue
        if path.name not in shipped:
            hint = did_you_mean(path.name, shipped)
            problems.append(Diagnostic(Position(name), "no shipped template of this name", hint))
        elif path.is_symlink():
            problems.append(Diagnostic(Position(name), "is a symbolic link", "put the file itself here"))
        else:
            try:
                files[path.name] = SourceFile(name, read_bytes(path, name, MAX_SOURCE))
            except DocumentError as error:
                problems.extend(error.diagnostics)
    if problems:
        raise DocumentError(problems)
    return files


def _found(plain: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        plain = plain.get(key) if isinstance(plain, dict) else None
    return plain


def _line(error: BaseException, filename: str) -> int | None:
    """Return the template line in which an error arose; Jinja2 rewrites tracebacks to template lines."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == filename:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
