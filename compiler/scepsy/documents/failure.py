"""Errors as part of a command's JSON output."""

from __future__ import annotations

from scepsy.documents.command_results import Failure, Problem
from scepsy.documents.diagnostics import DocumentError
from scepsy.errors import ScepsyError


def failure_of(error: ScepsyError) -> Failure:
    """Return an error as data, with single problems where it has them."""
    if not isinstance(error, DocumentError):
        return Failure(message=error.message, hint=error.hint)
    problems = tuple(
        Problem(path=d.position.path, line=d.position.line, column=d.position.column, message=d.message, hint=d.hint)
        for d in error.diagnostics
    )
    count = len(problems)
    return Failure(message=f"{count} problem{'s' * (count != 1)} in the documents", problems=problems)
