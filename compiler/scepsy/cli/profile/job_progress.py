"""What commands that run jobs print: results, notices, and the progress of all points."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from scepsy.profiling.jobs.following import counted
from scepsy.profiling.jobs.output import Output, ShowProgress
from scepsy.profiling.jobs.results import Outcome


def job_output() -> Output:
    """Return an output that prints results to standard output, all else to standard error."""
    return Output(click.echo, _notice, _progress)


def _notice(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _progress() -> Iterator[ShowProgress]:
    """Give a function that shows the states of all points: a bar on a terminal, else a line for each change."""
    if not sys.stderr.isatty():
        shown: dict[tuple[str, str], str] = {}

        def lines(outcomes: Sequence[Outcome]) -> None:
            for outcome in outcomes:
                for point in outcome.points:
                    key = (outcome.base, point.name)
                    if shown.get(key) != point.state:
                        shown[key] = point.state
                        reason = f": {point.reason}" if point.reason else ""
                        _notice(f"{outcome.base} {point.name}: {point.state}{reason}")

        yield lines
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("points"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def update(outcomes: Sequence[Outcome]) -> None:
            total = sum(len(outcome.points) for outcome in outcomes)
            over = sum(point.state not in ("waiting", "running") for o in outcomes for point in o.points)
            bar.update(task, total=total, completed=over, description=counted(outcomes))

        yield update
