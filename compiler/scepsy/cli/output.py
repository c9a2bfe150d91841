"""How commands print a result: as text, or as one versioned JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console

from scepsy.documents.command_results import Failure, failure_of
from scepsy.documents.model import Document
from scepsy.errors import ScepsyError

R = TypeVar("R")


def reporting(work: Callable[[], R], output: str, failed: Callable[[Failure], Any]) -> R:
    """Run `work`; with JSON output an error is printed as the result object too.

    Args:
        work: what to do.
        output: `text` or `json`.
        failed: the result object of an error.

    Raises:
        ScepsyError: as `work` does.
    """
    try:
        return work()
    except ScepsyError as error:
        if output == "json":
            print_json(failed(failure_of(error)))
        raise


def print_json(result: Document) -> None:
    """Print a result object."""
    click.echo(json.dumps(result.plain(), indent=2, ensure_ascii=False))


def console() -> Console:
    """Return where text is printed; tables must not depend on the width of a terminal that is not there."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)
