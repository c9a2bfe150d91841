"""The one base of every error that Scepsy reports to a person."""

from __future__ import annotations


class ScepsyError(Exception):
    """Something that the user can cause and mend; the CLI prints it and exits with 1.

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
