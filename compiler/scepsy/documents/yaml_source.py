"""YAML text → plain values that remember where they stood.

The reader builds a tree from the parser's events, so that limits hold before memory is spent: a specification
may come from an untrusted pull request. It knows the YAML 1.2 core scalars (null, booleans, numbers, strings), no tags
and no merge keys; anchors and aliases work as long as what they expand to stays small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLStreamError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from scepsy.documents.diagnostics import Diagnostic, DocumentError, Position

MAX_BYTES = 4 * 1024 * 1024
"""Largest YAML file that is read; a profile with every measurement is far below it."""
MAX_NODES = 200_000
"""Most values in one file, aliases expanded."""
MAX_DEPTH = 60
"""Deepest nesting; Kubernetes objects stay below 20."""

_QUOTED = {"'", '"', "|", ">"}
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

Scalar = str | int | float | bool | None


@dataclass(slots=True)
class Node:
    """A value and where it stands.

    Attributes:
        line: 1-based line of the value's first character.
        column: 1-based column of it.
        value: a scalar, a list of nodes, or a dict of key → node.
        keys: for a mapping, where each key stands, as (line, column).
        size: how many values it holds, itself included.
    """

    line: int
    column: int
    value: Scalar | list[Node] | dict[str, Node]
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 1

    def plain(self) -> Any:
        """Return the value as plain Python data."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was read.

    Attributes:
        name: how the file is called in messages.
        data: its bytes, for digests.
    """

    name: str
    data: bytes

    def position(self, line: int, column: int) -> Position:
        """Return the position with the text of its line."""
        lines = self.data.decode("utf-8", "replace").split("\n")
        return Position(self.name, line, column, lines[line - 1].rstrip("\r") if 0 < line <= len(lines) else "")


@dataclass(frozen=True, slots=True)
class Source:
    """One YAML document of a file: the tree from which positions are looked up.

    Attributes:
        file: where it came from.
        root: its tree.
    """

    file: SourceFile
    root: Node

    def position(self, *location: str | int) -> Position:
        """Return where the value at `location` stands; for a missing key, where its parent stands.

        For a mapping entry that is the key, which is what a reader looks for.
        """
        node = self.root
        line, column = node.line, node.column
        for step in location:
            if isinstance(node.value, dict) and step in node.value:
                line, column = node.keys[str(step)]
                node = node.value[str(step)]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line, column = node.line, node.column
            else:
                break
        return self.file.position(line, column)

    def diagnostic(self, location: Sequence[str | int], message: str, hint: str = "") -> Diagnostic:
        """Return a diagnostic at `location`."""
        return Diagnostic(self.position(*location), message, hint)


def read_bytes(path: Path, name: str, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        DocumentError: the file is missing, not a regular file, unreadable or too large.
    """
    try:
        if not path.is_file():
            there = "is a directory" if path.is_dir() else "is not a regular file"
            problem = there if path.exists() else "no such file"
            raise DocumentError([Diagnostic(Position(name), problem)])
        size = path.stat().st_size
        if size > limit:
            message = f"the file has {size / 1e6:.1f} MB; at most {limit / 1e6:.1f} MB are read"
            raise DocumentError([Diagnostic(Position(name), message, "split it into several files")])
        with path.open("rb") as stream:
            return stream.read(limit + 1)
    except OSError as error:
        raise DocumentError([Diagnostic(Position(name), f"cannot be read: {error.strerror}")]) from error


def parse(file: SourceFile) -> list[Source]:
    """Parse the YAML documents of a file; empty documents are left out.

    Raises:
        DocumentError: not UTF-8, not YAML, or beyond the limits of this module.
    """
    try:
        text = file.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = file.data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        message = f"the file is not UTF-8: byte 0x{file.data[error.start]:02x}"
        raise DocumentError([Diagnostic(Position(file.name, line, column), message, "save it as UTF-8")]) from error
    try:
        return [Source(file, root) for root in _Composer(file).documents(text) if root.value is not None]
    except ReaderError as error:
        before_text = text[: error.position]
        line = before_text.count("\n") + 1
        column = len(before_text) - (before_text.rfind("\n") + 1) + 1
        message = f"the character {chr(error.character)!r} is not allowed in YAML"
        raise DocumentError([Diagnostic(file.position(line, column), message, "remove it")]) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        parts = [part for part in (error.context, error.problem) if part]
        raise DocumentError([Diagnostic(file.position(line, column), "not valid YAML: " + ", ".join(parts))]) from error
    except YAMLStreamError as error:
        raise DocumentError([Diagnostic(Position(file.name), f"not valid YAML: {error}")]) from error


class _Composer:
    """Builds nodes from parser events, within the limits."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.nodes = 0
        self.anchors: dict[str, Node] = {}

    def fail(self, event: NodeEvent, message: str, hint: str = "") -> DocumentError:
        position = self.file.position(event.start_mark.line + 1, event.start_mark.column + 1)
        return DocumentError([Diagnostic(position, message, hint)])

    def documents(self, text: str) -> Iterator[Node]:
        events = YAML(typ="safe").parse(text)
        for event in events:
            if isinstance(event, DocumentStartEvent):
                self.anchors = {}
                yield self.node(next(events), events, 0)

    def count(self, event: NodeEvent, size: int) -> None:
        self.nodes += size
        if self.nodes > MAX_NODES:
            raise self.fail(event, f"the file expands to more than {MAX_NODES:,} values", "use fewer aliases")

    def node(self, event: NodeEvent, events: Iterator[NodeEvent], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.fail(event, f"nested more than {MAX_DEPTH} levels deep")
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is None:
                raise self.fail(event, f'unknown alias "*{event.anchor}"', "define the anchor before its first use")
            self.count(event, target.size)
            return Node(line, column, target.value, target.keys, target.size)
        self.count(event, 1)
        if isinstance(event, ScalarEvent):
            node = Node(line, column, self.scalar(event))
        elif isinstance(event, SequenceStartEvent):
            node = self.sequence(event, events, depth)
        else:
            assert isinstance(event, MappingStartEvent)  # noqa: S101 - the parser yields no other event here
            node = self.mapping(event, events, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def sequence(self, event: SequenceStartEvent, events: Iterator[NodeEvent], depth: int) -> Node:
        self.untagged(event)
        items: list[Node] = []
        while not isinstance(child := next(events), SequenceEndEvent):
            items.append(self.node(child, events, depth + 1))
        size = 1 + sum(item.size for item in items)
        return Node(event.start_mark.line + 1, event.start_mark.column + 1, items, size=size)

    def mapping(self, event: MappingStartEvent, events: Iterator[NodeEvent], depth: int) -> Node:
        self.untagged(event)
        entries: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        while not isinstance(child := next(events), MappingEndEvent):
            if not isinstance(child, ScalarEvent):
                raise self.fail(child, "a key must be a plain string")
            key = child.value
            if key == "<<" and child.style not in _QUOTED:
                raise self.fail(child, "merge keys (<<) are not supported", "write the keys out")
            if key in entries:
                raise self.fail(child, f'the key "{key}" is given twice', f"first on line {keys[key][0]}")
            keys[key] = (child.start_mark.line + 1, child.start_mark.column + 1)
            entries[key] = self.node(next(events), events, depth + 1)
        size = 1 + sum(entry.size for entry in entries.values())
        return Node(event.start_mark.line + 1, event.start_mark.column + 1, entries, keys, size)

    def untagged(self, event: SequenceStartEvent | MappingStartEvent) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self.fail(event, f'the tag "{event.tag}" is not supported', "remove it")

    def scalar(self, event: ScalarEvent) -> Scalar:
        text: str = event.value
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise self.fail(event, f'the tag "{event.tag}" is not supported', "remove it")
        if event.tag is not None or event.style in _QUOTED:
            return text
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text) and len(text) < 20:
            return int(text)
        if _FLOAT.fullmatch(text) and len(text) < 40:
            return float(text)
        return text
