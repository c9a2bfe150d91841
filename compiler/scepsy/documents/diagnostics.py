"""What is wrong where: positions in files, and the one error that carries many of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scepsy.errors import ScepsyError
from scepsy.errors import printable as printable  # noqa: PLC0414 - re-exported

_EXCERPT = 72
"""Characters of a line that are shown: with its number, they fit into a terminal of 80."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text file.

    Attributes:
        path: the file, relative to where the command runs or to the repository; shown as it is.
        line: 1-based line.
        column: 1-based column, in characters.
        text: the line itself, without its end; empty when it is not known.
    """

    path: str
    line: int = 1
    column: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One problem at one position.

    Attributes:
        position: where.
        message: what is wrong and what was expected, one line.
        hint: what to do next; empty when the message says it.
    """

    position: Position
    message: str
    hint: str = ""

    def __str__(self) -> str:
        # Names in a message are untrusted: a line break in one would forge a line in a log.
        lines = [printable(f"{self.position}: {self.message}")]
        if self.position.text.strip():
            number = str(self.position.line)
            text, caret = _excerpt(self.position.text, self.position.column - 1)
            lines.append(f"  {number} | {text}")
            if caret is not None:
                lines.append(f"  {' ' * len(number)} | {' ' * caret}^")
        if self.hint:
            lines.append(f"  {printable(self.hint)}")
        return "\n".join(lines)


def _excerpt(text: str, at: int) -> tuple[str, int | None]:
    """Return a line, or of a long one what is around a place, as it can be printed, and where the place is in it.

    Args:
        text: the line.
        at: 0-based index; there is no such place in it if that is beyond its end.
    """
    start = max(0, min(at - _EXCERPT // 2, len(text) - _EXCERPT))
    end = start + _EXCERPT
    before = ("…" if start else "") + printable(text[start:at])
    behind = printable(text[max(at, start) : end]) + ("…" if end < len(text) else "")
    return before + behind, len(before) if at < len(text) else None


class DocumentError(ScepsyError):
    """Problems in documents; all that one run found, in file order.

    Attributes:
        diagnostics: at least one.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(str(d) for d in self.diagnostics))


def did_you_mean(word: str, candidates: Sequence[str]) -> str:
    """Return `did you mean "x"?` for the candidate nearest to `word`, else the list of candidates."""
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if not near:
        folded = {c.lower(): c for c in candidates}
        near = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)
        near = [folded[n] for n in near]
    if near:
        return f'did you mean "{near[0]}"?'
    return f"expected one of: {', '.join(sorted(candidates))}" if candidates else ""
