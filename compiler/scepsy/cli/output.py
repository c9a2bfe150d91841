"""How commands print a result: as text, or as one versioned JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scepsy.errors import ScepsyError

if TYPE_CHECKING:
    from rich.console import Console

    from scepsy.documents.command_results import Failure
    from scepsy.documents.model import Document

R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., Any])


def output_option(kind: str) -> Callable[[C], C]:
    """Return the option `--output` of a command.

    Args:
        kind: what it prints as JSON.
    """
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help=f"How to print the result; json prints one versioned object (scepsy schema {kind}).",
    )


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
            from scepsy.documents.failure import failure_of

            print_json(failed(failure_of(error)))
        raise


def print_json(result: Document) -> None:
    """Print a result object."""
    click.echo(json.dumps(result.plain(), indent=2, ensure_ascii=False))


def console() -> Console:
    """Return where text is printed; tables must not depend on the width of a terminal that is not there."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)
