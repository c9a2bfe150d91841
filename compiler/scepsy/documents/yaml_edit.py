"""Changes to single places of a YAML text; every other byte stays as it is.

A round trip through a YAML library keeps most comments and some of the layout. Here nothing is rewritten but what
changes: the parser says where each value stands, and edits replace, remove or insert text there. Whoever edits parses
the result again and compares it with what was meant: layouts that this module misjudges end as an error, not as damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ruamel.yaml import YAML
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

_REST = re.compile(r"[ \t]*,?[ \t]*(#[^\n]*)?(\r?\n|\Z)")
"""What may stand behind the last value of a line."""


@dataclass(slots=True)
class Span:
    """A value and where its text stands.

    Attributes:
        start: index of its first character, an anchor or tag included.
        end: index behind its last character.
        column: of the first character.
        flow: whether it is written with brackets, or is a scalar.
        value: text of a scalar; None for others.
        items: of a sequence.
        keys: of a mapping, in their order.
        values: of a mapping, as many as keys.
    """

    start: int
    end: int
    column: int
    flow: bool = True
    value: str | None = None
    items: list[Span] = field(default_factory=list)
    keys: list[Span] = field(default_factory=list)
    values: list[Span] = field(default_factory=list)

    def get(self, key: str) -> Span | None:
        """Return the value of a key; None if there is none."""
        return next((value for k, value in zip(self.keys, self.values, strict=True) if k.value == key), None)

    def parts(self) -> list[Span]:
        """Return its items, or its entries as spans from key to value."""
        if self.items:
            return self.items
        return [Span(k.start, max(k.end, v.end), k.column) for k, v in zip(self.keys, self.values, strict=True)]


def spans(text: str) -> list[Span]:
    """Return the root of every document of a text that the reader of documents accepts, empty documents too."""
    events = YAML(typ="safe").parse(text)
    return [_span(next(events), events) for event in events if isinstance(event, DocumentStartEvent)]


def _span(event: NodeEvent, events: Iterator[NodeEvent]) -> Span:
    made = Span(event.start_mark.index, event.end_mark.index, event.start_mark.column)
    if isinstance(event, ScalarEvent):
        made.value = event.value
    elif isinstance(event, SequenceStartEvent):
        made.flow = bool(event.flow_style)
        while not isinstance(child := next(events), SequenceEndEvent):
            made.items.append(_span(child, events))
        _close(made, child, made.items)
    elif isinstance(event, MappingStartEvent):
        made.flow = bool(event.flow_style)
        while not isinstance(child := next(events), MappingEndEvent):
            made.keys.append(_span(child, events))
            made.values.append(_span(next(events), events))
        _close(made, child, [*made.keys, *made.values])
    else:
        assert isinstance(event, AliasEvent)  # noqa: S101 - the parser yields no other event here
    return made


def _close(made: Span, end: NodeEvent, inside: Sequence[Span]) -> None:
    """Set the end: of a block, behind its last value; the parser only reports where the next one begins."""
    made.end = end.end_mark.index if made.flow else max((child.end for child in inside), default=made.start)


class Editor:
    """Collects edits of a text, then makes them all at once; they may not overlap.

    Args:
        text: the text.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self._edits: list[tuple[int, int, int, str]] = []

    def result(self) -> str:
        """Return the edited text."""
        parts, at = [], 0
        for start, end, _, new in sorted(self._edits):
            parts += [self.text[at:start], new]
            at = max(at, end)
        return "".join([*parts, self.text[at:]])

    def replace(self, span: Span, new: str) -> None:
        """Write another value in one line; the quotes of a scalar stay."""
        old = self.text[span.start : span.end]
        if span.value is not None and old[:1] in ("'", '"') and "'" not in new and '"' not in new:
            new = f"{old[0]}{new}{old[0]}"
        start = span.start
        if not span.flow and span.parts():
            # A block begins on a new line: back to the colon.
            start -= len(self.text[: span.start]) - len(self.text[: span.start].rstrip())
            new = f" {new}"
        self._edit(start, span.end, new)

    def change(self, whole: Span, gone: Sequence[int], added: Sequence[str | Sequence[str]] = ()) -> None:
        """Remove parts of a sequence or mapping, and append others.

        Args:
            whole: the sequence or mapping.
            gone: positions of items or entries.
            added: new ones, each as it is written with brackets, or as lines of a block; without dashes.
        """
        parts = whole.parts()
        if whole.flow:
            self._change_flow(whole, parts, set(gone), [text for text in added if isinstance(text, str)])
            return
        for i in gone:
            start = self._first(whole, parts[i])
            if self.text[self._line_start(start) : start].strip() and i + 1 < len(parts):
                self._edit(start, self._first(whole, parts[i + 1]), "")  # behind a dash: the next takes its place
            else:
                self._edit(self._line_start(start), self._line_end(parts[i].end), "")
        if added:
            at = self._line_end(parts[-1].end)
            dash = "- " if whole.items else ""
            lines = []
            for block in added:
                first, *rest = [block] if isinstance(block, str) else block
                column = whole.column if whole.items else parts[0].column
                lines.append(" " * column + dash + first)
                lines += [" " * (column + len(dash)) + line for line in rest]
            text = "".join(line + self.newline for line in lines)
            if at == len(self.text) and not self.text.endswith("\n"):
                text = self.newline + text.removesuffix(self.newline)
            self._edit(at, at, text)

    def _change_flow(self, whole: Span, parts: list[Span], gone: set[int], added: list[str]) -> None:
        kept = [i for i in range(len(parts)) if i not in gone]
        if not kept:
            inner = whole.start + self.text[whole.start : whole.end].index("[" if self._is_list(whole) else "{") + 1
            start, end = (parts[0].start, parts[-1].end) if parts else (inner, inner)
            self._edit(start, end, ", ".join(added))
            return
        for i in sorted(gone):
            part, line = parts[i], self._line_start(parts[i].start)
            rest = _REST.match(self.text, part.end)
            if not self.text[line : part.start].strip() and rest and line > whole.start:
                self._edit(line, rest.end(), "")  # whole lines, with their comment
            elif i < kept[-1]:
                self._edit(part.start, parts[i + 1].start, "")
            else:
                self._edit(parts[i - 1].end, part.end, "")
        if not added:
            return
        last = parts[kept[-1]]
        line = self._line_start(last.start)
        pad = self.text[line : last.start]
        rest = _REST.match(self.text, last.end)
        if not pad.strip() and rest and line > whole.start:
            comma = self.text.find(",", last.end, rest.end()) if "#" not in rest[0].partition(",")[0] else -1
            if comma < 0:
                self._edit(last.end, last.end, ",")
            self._edit(rest.end(), rest.end(), f",{self.newline}".join(f"{pad}{text}" for text in added) + self.newline)
        else:
            self._edit(last.end, last.end, "".join(f", {text}" for text in added))

    def _is_list(self, whole: Span) -> bool:
        return self.text[whole.end - 1] == "]"

    def _first(self, whole: Span, part: Span) -> int:
        """Return where the line with the dash of an item, or the key of an entry, is."""
        if not whole.items:
            return part.start
        at = part.start
        while True:
            line = self._line_start(at)
            dash = line + whole.column
            if self.text[dash : dash + 1] == "-" and dash <= part.start:
                return dash
            if line <= whole.start:
                return whole.start
            at = line - 1

    def _line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def _line_end(self, at: int) -> int:
        """Return the index behind the end of a line."""
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def _edit(self, start: int, end: int, new: str) -> None:
        self._edits.append((start, end, len(self._edits), new))
