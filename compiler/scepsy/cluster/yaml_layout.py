"""A Cluster document as text: a new file, or an existing one edited in place.

The result of an edit is parsed again, and must equal the intended document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scepsy.documents import API_VERSION, Cluster, DocumentError, Gpu, Node, emit
from scepsy.documents.checks import check_cluster
from scepsy.documents.loading import Loaded, validate
from scepsy.documents.units import format_memory
from scepsy.documents.yaml_edit import Editor, Span, spans
from scepsy.documents.yaml_source import Source, SourceFile, parse
from scepsy.errors import ScepsyError
from scepsy.sharing import check_kubernetes_version

_HEADING = "# yaml-language-server: $schema=https://scepsy.dev/schemas/v1alpha1/cluster.json\n"
_NULLS = ("", "~", "null", "Null", "NULL")
_SIZE = re.compile(r"[0-9]+[KMGT]i")


def written(cluster: Cluster) -> bytes:
    """Return a document as a new file, with a line per GPU."""
    spec = cluster.spec
    lines = [
        f"apiVersion: {API_VERSION}",
        "kind: Cluster",
        "metadata:",
        f"  name: {_scalar(cluster.metadata.name)}",
        "spec:",
        f'  kubernetes: "{spec.kubernetes}"',
        f"  sharing: {spec.sharing}",
        "  nodes:",
    ]
    for node in spec.nodes:
        first, *rest = _node_lines(node)
        lines += [f"    - {first}", *(f"      {line}" for line in rest)]
    return (_HEADING + "".join(f"{line}\n" for line in lines)).encode()


def _node_lines(node: Node) -> list[str]:
    lines = [f"name: {_scalar(node.name)}", f"product: {_scalar(node.product)}", "gpus:"]
    lines += [f"  - {_gpu_text(gpu)}" for gpu in node.gpus]
    if node.nvlink_domains:
        lines.append(f"nvlinkDomains: {shown(node.nvlink_domains)}")
    if node.reserved:
        lines.append(f"reserved: {list(node.reserved)}")
    return lines


def _node_text(node: Node) -> str:
    parts = [f"name: {_scalar(node.name)}", f"product: {_scalar(node.product)}"]
    parts.append(f"gpus: [{', '.join(_gpu_text(gpu) for gpu in node.gpus)}]")
    if node.nvlink_domains:
        parts.append(f"nvlinkDomains: {shown(node.nvlink_domains)}")
    return "{" + ", ".join(parts) + "}"


def _gpu_text(gpu: Gpu, keys: Sequence[str] = ("uuid", "memory"), pad: str = "") -> str:
    values = gpu.plain()
    return f"{{{pad}{', '.join(f'{key}: {_scalar(values[key])}' for key in keys)}{pad}}}"


def _scalar(value: str) -> str:
    """Return a value as plain YAML; in quotes where a reader could take it for another type."""
    return value if _SIZE.fullmatch(value) else emit(value).decode().removesuffix("\n")


def rewritten(file: SourceFile, number: int, before: Cluster, after: Cluster) -> bytes:
    """Return a file with one document changed; everything else stays, byte for byte.

    Args:
        file: the file.
        number: which of its documents, empty ones not counted.
        before: the document now.
        after: the document to write.

    Raises:
        ScepsyError: the layout of the file cannot be edited safely.
        DocumentError: the new document is invalid, such as a `sharing` that the version of Kubernetes does not support.
    """
    if before == after:
        return file.data
    text = file.data.decode("utf-8-sig")
    roots = [root for root in spans(text) if root.value not in _NULLS]
    editor = Editor(text)
    try:
        _edit(editor, roots[number], before, after)
        edited = editor.result()
        bom = file.data[: len(file.data) - len(file.data.decode("utf-8-sig").encode())]
        new = SourceFile(file.name, bom + edited.encode())
        sources = parse(new)
        same = [source.root.plain() for source in parse(file)]
        result = validate(sources[number], Cluster)
        others = [source.root.plain() for i, source in enumerate(sources) if i != number]
        if result != after or others != same[:number] + same[number + 1 :]:
            raise ScepsyError("the edited file would not match the cluster")
    except (DocumentError, ScepsyError, IndexError, AttributeError) as error:
        raise ScepsyError(
            f"{file.name} has a layout that cannot be edited safely",
            "replace aliases (*name) by their values and lay out lists as in the examples, or make the changes by hand",
        ) from error
    loaded = Loaded(result, sources[number])
    problems = [*check_cluster(loaded), *check_kubernetes_version(loaded)]
    if problems:
        raise DocumentError(problems)
    return new.data


def checked(cluster: Cluster, name: str) -> bytes:
    """Return a new document as a file, checked like the documents of a project.

    Raises:
        DocumentError: it is invalid.
    """
    file = SourceFile(name, written(cluster))
    source: Source = parse(file)[0]
    loaded = Loaded(cluster, source)
    problems = [*check_cluster(loaded), *check_kubernetes_version(loaded)]
    if problems:
        raise DocumentError(problems)
    return file.data


def _edit(editor: Editor, root: Span, before: Cluster, after: Cluster) -> None:
    spec = _at(root, "spec")
    nodes = _at(spec, "nodes")
    now = {node.name: node for node in after.spec.nodes}
    gone = []
    for position, node in enumerate(before.spec.nodes):
        if node.name not in now:
            gone.append(position)
        elif node != now[node.name]:
            _edit_node(editor, nodes.items[position], node, now[node.name])
    known = {node.name for node in before.spec.nodes}
    new = [node for node in after.spec.nodes if node.name not in known]
    if gone or new:
        editor.change(nodes, gone, [_node_text(node) if nodes.flow else _node_lines(node) for node in new])
    # Last: additions at one place keep the order of the edits, and spec ends where its nodes end.
    if before.spec.kubernetes != after.spec.kubernetes:
        version = spec.get("kubernetes")
        if version is None:
            editor.change(spec, [], [f'kubernetes: "{after.spec.kubernetes}"'])
        else:
            editor.replace(version, after.spec.kubernetes)


def _edit_node(editor: Editor, span: Span, before: Node, after: Node) -> None:
    if before.product != after.product:
        editor.replace(_at(span, "product"), _scalar(after.product))
    gpus = _at(span, "gpus")
    index = {gpu.uuid: i for i, gpu in enumerate(after.gpus)}
    gone = [i for i, gpu in enumerate(before.gpus) if gpu.uuid not in index]
    for i, gpu in enumerate(before.gpus):
        if gpu.uuid in index and after.gpus[index[gpu.uuid]].memory != gpu.memory:
            editor.replace(_at(gpus.items[i], "memory"), _scalar(format_memory(after.gpus[index[gpu.uuid]].memory)))
    known = {gpu.uuid for gpu in before.gpus}
    new = [gpu for gpu in after.gpus if gpu.uuid not in known]
    if gone or new:
        editor.change(gpus, gone, [_like(editor, gpus.items[-1], gpu) for gpu in new])
    moves = new_indices(before, index)
    dropped: list[int] = []
    added: list[str] = []
    for key, old, wanted in (
        ("reserved", before.reserved, after.reserved),
        ("nvlinkDomains", before.nvlink_domains, after.nvlink_domains),
    ):
        _edit_indices(editor, span, key, old, wanted, moves, dropped, added)
    if dropped or added:
        editor.change(span, sorted(dropped), added)


def _like(editor: Editor, sibling: Span, gpu: Gpu) -> str | list[str]:
    """Return a GPU in the layout of the one beside it."""
    keys = [str(key.value) for key in sibling.keys]
    if sibling.flow:
        return _gpu_text(gpu, keys or ("uuid", "memory"), " " if editor.text[sibling.start + 1] == " " else "")
    values = gpu.plain()
    return [f"{key}: {_scalar(values[key])}" for key in keys]


def _edit_indices(
    editor: Editor,
    node: Span,
    key: str,
    old: tuple[Any, ...],
    wanted: tuple[Any, ...],
    moves: Mapping[int, int],
    dropped: list[int],
    added: list[str],
) -> None:
    """Rewrite a list of indices, or of lists of them; collect keys to drop or add."""
    nested = key == "nvlinkDomains"
    moved = tuple(tuple(moves[i] for i in d if i in moves) for d in old) if nested else tuple(moves.get(i) for i in old)
    left = tuple(item for item in moved if item not in ((), None))
    span = node.get(key)
    text = shown(wanted) if nested else str(list(wanted))
    if wanted == old:
        return
    if span is None:
        added.append(f"{key}: {text}")
    elif not wanted:
        dropped.append(next(i for i, entry in enumerate(node.keys) if entry.value == key))
    elif left != wanted:
        editor.replace(span, text)
    elif nested:
        gone = [i for i, domain in enumerate(moved) if not domain]
        for i, domain in enumerate(old):
            if i not in gone:
                _edit_list(editor, span.items[i], domain, moves)
        if gone:
            editor.change(span, gone)
    else:
        _edit_list(editor, span, old, moves)


def _edit_list(editor: Editor, span: Span, old: tuple[int, ...], moves: Mapping[int, int]) -> None:
    gone = [i for i, index in enumerate(old) if index not in moves]
    for i, index in enumerate(old):
        if index in moves and moves[index] != index:
            editor.replace(span.items[i], str(moves[index]))
    if gone:
        editor.change(span, gone)


def _at(span: Span, key: str) -> Span:
    found = span.get(key)
    if found is None:
        raise IndexError(key)
    return found


def new_indices(node: Node, index: Mapping[str, int]) -> dict[int, int]:
    """Return the new index of each remaining GPU of a node, by its old index."""
    return {i: index[gpu.uuid] for i, gpu in enumerate(node.gpus) if gpu.uuid in index}


def shown(domains: Iterable[Iterable[int]]) -> str:
    """Return NVLink domains as YAML: `[[0, 1], [2, 3]]`."""
    return "[" + ", ".join(f"[{', '.join(map(str, domain))}]" for domain in domains) + "]"
