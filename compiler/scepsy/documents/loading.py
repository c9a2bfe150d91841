"""Files → validated documents, every problem as a diagnostic at its position."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from scepsy.documents.cluster import Cluster
from scepsy.documents.diagnostics import Diagnostic, DocumentError, did_you_mean
from scepsy.documents.model import API_VERSION, Document
from scepsy.documents.observed import ObservedCluster, ObservedWorkflow
from scepsy.documents.plan import Plan
from scepsy.documents.profile import Profile
from scepsy.documents.project import Project
from scepsy.documents.trace_summary import TraceSummary
from scepsy.documents.workflow import Workflow
from scepsy.documents.yaml_source import Node, Source, SourceFile, parse, read_bytes

KINDS: dict[str, type[Document]] = {
    kind.__name__: kind
    for kind in (Project, Workflow, Cluster, Profile, TraceSummary, ObservedWorkflow, ObservedCluster, Plan)
}
"""Every kind of document by its name."""

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[D]):
    """A valid document and where it came from.

    Attributes:
        document: the document.
        source: its text, for positions.
    """

    document: D
    source: Source

    def problem(self, location: tuple[str | int, ...], message: str, hint: str = "") -> Diagnostic:
        """Return a diagnostic at `location` of this document."""
        return self.source.diagnostic(location, message, hint)


def load_file(path: Path, name: str, kind: type[D]) -> tuple[SourceFile, list[Loaded[D]], list[Diagnostic]]:
    """Load all documents of a file, each of which must be of `kind`.

    Returns:
        the file, the documents that are valid, and the problems of the others.
    """
    file = SourceFile(name, read_bytes(path, name))
    loaded: list[Loaded[D]] = []
    problems: list[Diagnostic] = []
    try:
        sources = parse(file)
    except DocumentError as error:
        return file, [], list(error.diagnostics)
    if not sources:
        problems.append(Diagnostic(file.position(1, 1), f"the file is empty; expected a {kind.__name__} document"))
    for source in sources:
        try:
            loaded.append(Loaded(validate(source, kind), source))
        except DocumentError as error:
            problems.extend(error.diagnostics)
    return file, loaded, problems


def validate(source: Source, kind: type[D]) -> D:
    """Turn one YAML document into a document of `kind`.

    Raises:
        DocumentError: with every problem of the document.
    """
    header = _header_problem(source, kind)
    if header is not None:
        raise DocumentError([header])
    try:
        return kind.model_validate(source.root.plain())
    except ValidationError as error:
        items = error.errors(include_url=False)
        raise DocumentError([_explain(source, kind, item) for item in items if not _follows(item, items)]) from error


def _follows(item: Any, items: list[Any]) -> bool:
    """Return whether a "too short" error only repeats that the list's entries are wrong."""
    depth = len(item["loc"])
    return item["type"] == "too_short" and any(
        len(other["loc"]) > depth and other["loc"][:depth] == item["loc"] for other in items
    )


def _header_problem(source: Source, kind: type[Document]) -> Diagnostic | None:
    """Check apiVersion and kind first: of a document of another kind, every further message would mislead."""
    root = source.root.value
    if not isinstance(root, dict):
        return source.diagnostic((), f"expected a {kind.__name__} document with apiVersion, kind, metadata and spec")
    for key, expected in (("apiVersion", API_VERSION), ("kind", kind.__name__)):
        node = root.get(key)
        if node is None:
            near = [k for k in root if k.lower() == key.lower()]
            if near:
                return source.diagnostic((near[0],), f'unknown key "{near[0]}"', f'did you mean "{key}"?')
            return source.diagnostic((), f'"{key}: {expected}" is missing', "add it as one of the first lines")
        if node.value != expected:
            hint = f"write {key}: {expected}"
            if key == "kind" and isinstance(node.value, str) and node.value in KINDS:
                hint = f"this directory holds {kind.__name__} documents; move the file to the one for {node.value}s"
            shown = str(node.plain())[:60]
            return source.diagnostic((key,), f'{key} is "{shown}", expected "{expected}"', hint)
    return None


def _explain(source: Source, kind: type[Document], error: Any) -> Diagnostic:
    """Return one pydantic error in the words of the document."""
    location = tuple(step for step in error["loc"] if not (isinstance(step, str) and step.startswith("[")))
    given = _at(source.root, location)
    match error["type"]:
        case "extra_forbidden":
            known = _keys(kind, location[:-1])
            return source.diagnostic(location, f'unknown key "{location[-1]}"', did_you_mean(str(location[-1]), known))
        case "missing":
            name = location[-1]
            present = given_keys(_at(source.root, location[:-1]))
            beside = f" (beside {', '.join(present[:4])})" if present else ""
            return source.diagnostic(location[:-1], f'the key "{name}" is missing{beside}', f"add {name}: …")
        case "literal_error":
            expected = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return source.diagnostic(
                location, f"{_shown(given)} is not allowed here", did_you_mean(str(error["input"]), expected)
            )
        case "value_error":
            return source.diagnostic(location, str(error["ctx"]["error"]))
        case "string_type":
            return source.diagnostic(location, f"expected a string, got {_shown(given)}", "put it in quotes")
        case "too_short":
            return source.diagnostic(location, "the list is empty; at least one entry is needed")
        case "model_type" | "dict_type":
            return source.diagnostic(location, f"expected a mapping (key: value), got {_shown(given)}")
        case "tuple_type" | "list_type":
            return source.diagnostic(location, f"expected a list (- item), got {_shown(given)}")
        case _:
            message = error["msg"].replace("Input should be", "expected").replace("Tuple", "the list")
            return source.diagnostic(location, f"{message}, got {_shown(given)}")


def _at(root: Node, location: tuple[str | int, ...]) -> Node | None:
    node: Node | None = root
    for step in location:
        if node is None:
            return None
        if isinstance(node.value, dict):
            node = node.value.get(str(step))
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            return None
    return node


def given_keys(node: Node | None) -> list[str]:
    """Return the keys of a mapping node, none for anything else."""
    return list(node.value) if node is not None and isinstance(node.value, dict) else []


def _shown(node: Node | None) -> str:
    if node is None or node.value is None:
        return "nothing"
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    if isinstance(node.value, str):
        return f'"{node.value[:60]}"'
    return f"the number {node.value}"


def _keys(kind: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that the model at `location` knows."""
    model: Any = kind
    for step in location:
        if isinstance(step, int):
            continue
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == step), None)
        model = _model_in(field.annotation) if field is not None else None
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model inside `X | None`, `tuple[X, ...]` and annotated forms of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
