"""The one base of every error that Scepsy reports to a person."""

from __future__ import annotations


class ScepsyError(Exception):
    """Something that the user can cause and fix; the CLI prints it and exits with 1.

    Args:
        message: what is wrong, and what was expected.
        hint: what to do next, one sentence; empty when the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


def printable(text: str) -> str:
    """Return `text` with control characters escaped, so that a terminal shows what the text holds."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text).replace("\t", " ")
