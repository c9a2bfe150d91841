"""Which GPUs NVLink connects, from the output of `nvidia-smi` on the nodes.

A topology file has a part per node: a line `node: NAME`, then the output of `nvidia-smi -L` and `nvidia-smi topo -m`
there, in any order. The first maps indices to UUIDs, the second says how each pair is connected; `NV18` is a bond of
18 links. Without the first, a matrix can be used only if all pairs are connected, or none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scepsy.errors import ScepsyError

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NODE = re.compile(r"[#=\s]*node\s*[:/]\s*([a-z0-9][-a-z0-9.]*)[\s:=]*", re.IGNORECASE)
_LISTED = re.compile(r"GPU ([0-9]+): .*\(UUID: (GPU-[A-Za-z0-9-]+)\)\s*")
_COLUMN = re.compile(r"GPU([0-9]+)")
_LINK = re.compile(r"NV[0-9]+")
_MOST = 64


@dataclass(frozen=True, slots=True)
class Links:
    """How the GPUs of a node are connected.

    Attributes:
        uuids: by index; empty where `nvidia-smi -L` is missing.
        count: how many GPUs the matrix has.
        groups: indices of GPUs of which each pair has a link; no GPU is in two, none is alone.
        cut: whether there are links between groups too: overlapping sets cannot all be domains.
    """

    uuids: tuple[str, ...]
    count: int
    groups: tuple[tuple[int, ...], ...]
    cut: bool = False

    def domains(self, gpus: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
        """Return the groups as indices into a list of GPUs; None if the GPUs cannot be identified.

        Args:
            gpus: UUIDs in the order of the Cluster document.
        """
        if not self.groups:
            return ()
        if not self.uuids:
            everything = tuple(range(self.count))
            return (everything,) if self.groups == (everything,) and len(gpus) == self.count else None
        at = {uuid: index for index, uuid in enumerate(gpus)}
        found = (sorted(at[self.uuids[i]] for i in group if self.uuids[i] in at) for group in self.groups)
        return tuple(sorted(tuple(group) for group in found if len(group) > 1))


def read_topology(text: str, name: str) -> dict[str, Links]:
    """Read a topology file.

    Args:
        text: its content.
        name: the file, for messages.

    Returns:
        Per node, how its GPUs are connected.

    Raises:
        ScepsyError: a line is invalid; names it.
    """
    parts: dict[str, list[tuple[int, str]]] = {}
    current: list[tuple[int, str]] | None = None
    for number, line in enumerate(_ANSI.sub("", text).splitlines(), 1):
        header = _NODE.fullmatch(line)
        if header:
            if header[1] in parts:
                raise ScepsyError(f"{name}:{number}: node {header[1]} appears twice", "keep one of them")
            current = parts[header[1]] = []
        elif current is not None:
            current.append((number, line))
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ScepsyError(
                f"{name}:{number}: expected a line `node: NAME` first",
                "write `node: NAME`, then the output of nvidia-smi -L and nvidia-smi topo -m on that node",
            )
    if not parts:
        raise ScepsyError(f"{name} has no line `node: NAME`", "see docs/clusters.md for the format")
    return {node: _links(lines, f"{name}: node {node}") for node, lines in parts.items()}


def _links(lines: list[tuple[int, str]], where: str) -> Links:
    listed: dict[int, str] = {}
    columns: list[int] = []
    rows: dict[int, list[str]] = {}
    for number, line in lines:
        entry = _LISTED.fullmatch(line.strip())
        words = line.split()
        if entry:
            listed[int(entry[1])] = entry[2]
        elif not columns and words and _COLUMN.fullmatch(words[0]) and (len(words) < 2 or words[1] != "X"):
            for word in words:
                if not (match := _COLUMN.fullmatch(word)):
                    break
                columns.append(int(match[1]))
        elif columns and words and (match := _COLUMN.fullmatch(words[0])):
            cells = words[1 : 1 + len(columns)]
            if len(cells) < len(columns):
                raise ScepsyError(
                    f"{where}, line {number}: the row has fewer columns than the header", "copy the whole output"
                )
            rows[int(match[1])] = cells
    count = len(columns)
    if not count:
        raise ScepsyError(f"{where} has no matrix", "add the output of nvidia-smi topo -m")
    if columns != list(range(count)) or sorted(rows) != columns or count > _MOST:
        raise ScepsyError(
            f"{where}: the matrix lacks a row or a column of a GPU, counted from 0", "copy the whole output"
        )
    if listed and sorted(listed) != columns:
        raise ScepsyError(
            f"{where}: nvidia-smi -L lists {len(listed)} GPUs, nvidia-smi topo -m has {count}",
            "run both at the same time, outside of containers that see only some GPUs",
        )
    linked = {(i, j) for i in columns for j in columns if i != j and _LINK.fullmatch(rows[i][j])}
    lone = next(((i, j) for i, j in sorted(linked) if (j, i) not in linked), None)
    if lone:
        raise ScepsyError(
            f"{where}: GPU{lone[0]} has a link to GPU{lone[1]}, but not the reverse", "copy the whole output"
        )
    groups = _groups(count, linked)
    inside = sum(len(group) * (len(group) - 1) for group in groups)
    uuids = tuple(listed[i] for i in columns) if listed else ()
    return Links(uuids, count, groups, inside != len(linked))


def _groups(count: int, linked: set[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Split GPUs greedily into groups in which each pair has a link.

    Fully connected GPUs are one group; a hybrid cube mesh (eight V100) gives both quads.
    """
    left = list(range(count))
    groups = []
    while left:
        group: list[int] = []
        for i in left:
            if all((i, j) in linked for j in group):
                group.append(i)
        left = [i for i in left if i not in group]
        if len(group) > 1:
            groups.append(tuple(group))
    return tuple(groups)
