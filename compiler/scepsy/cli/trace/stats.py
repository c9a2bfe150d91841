"""`scepsy trace stats`: what a recorded workflow demands, and its confidence intervals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from pydantic import ValidationError
from rich.console import Console

from scepsy.cli.options import output_option
from scepsy.demand import from_trace
from scepsy.demand.summary import summary_of
from scepsy.documents import API_VERSION
from scepsy.documents.canonical_yaml import emit
from scepsy.documents.command_results import failure_of
from scepsy.documents.trace_statistics import TraceStatistics
from scepsy.errors import ScepsyError
from scepsy.report.trace_page import page
from scepsy.report.trace_statistics import examine
from scepsy.report.trace_terminal import WIDTH, show_trace
from scepsy.repository.single_file import checked_target, write_at_once
from scepsy.traces.trace import Trace
from scepsy.traces.trace_reader import read_trace


@click.command("stats")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write a page with pictures.")
@click.option(
    "--summary", type=click.Path(path_type=Path), metavar="FILE", help="Also write a small TraceSummary to commit."
)
@output_option("TraceStatistics")
def command(file: Path, html: Path | None, summary: Path | None, output: str) -> None:
    """Show the demand per execution in FILE, its confidence intervals, and how much executions differ."""
    try:
        statistics = _examined(file, html, summary, output)
    except ScepsyError as error:
        if output == "json":
            _print_json(TraceStatistics(api_version=API_VERSION, error=failure_of(error)))
        raise
    if output == "json":
        _print_json(statistics)


def _examined(file: Path, html: Path | None, summary: Path | None, output: str) -> TraceStatistics:
    page_to = checked_target(html, "--html", [file]) if html is not None else None
    summary_to = checked_target(summary, "--summary", [file]) if summary is not None else None
    trace, digest = read_trace(file, str(file))
    written = []
    if summary_to is not None:
        write_at_once(summary_to, _summary(trace, summary_to, file, digest))
        written.append(f"Wrote {summary_to}; use it in a Workflow: demand: {{summary: …}}")
    examined = examine(trace, file.name, digest)
    if page_to is not None:
        write_at_once(page_to, page(examined).encode())
        written.append(f"Wrote {page_to}")
    if output == "text":
        show_trace(_console(), examined)
        for line in written:
            click.echo(line)
    return examined.statistics


def _summary(trace: Trace, target: Path, file: Path, digest: str) -> bytes:
    """Return the text of a trace's summary, named as the file that holds it.

    Raises:
        ScepsyError: a name in the trace cannot stand in a document, or no call takes any time.
    """
    try:
        return emit(summary_of(target.stem, trace, from_trace(trace), digest).plain())
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        where, what = ".".join(map(str, wrong["loc"])), wrong["msg"].removeprefix("Value error, ")
        hint = "call LLMs by the workflow's names: scepsy trace import --llm MODEL=NAME"
        raise ScepsyError(f"cannot summarise {file}: {where}: {what}", hint) from error
    except ValueError as error:
        raise ScepsyError(f"cannot summarise {file}: {error}") from error


def _console() -> Console:
    # A plot that is cut or stretched is misleading: at most WIDTH columns, and those always in a pipe.
    console = Console(highlight=False)
    return Console(highlight=False, width=min(console.width, WIDTH) if sys.stdout.isatty() else WIDTH)


def _print_json(result: TraceStatistics) -> None:
    # Names come from strangers: a lone surrogate in one of them is no UTF-8, but an escape.
    text = json.dumps(result.plain(), indent=2, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())
