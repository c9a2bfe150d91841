"""Progress of a measurement on standard error: lines that stay, and a spinner on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console


@contextmanager
def measuring() -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """Yield two functions: one prints lines that stay, one shows what is being done now."""
    if not sys.stderr.isatty():
        yield log, log
        return
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as spinner:
        yield (
            lambda line: console.print(line, markup=False),
            lambda line: spinner.update(line.replace("[", r"\[")),
        )


def log(line: str) -> None:
    """Print to standard error; a closed standard error does not stop a measurement."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)
