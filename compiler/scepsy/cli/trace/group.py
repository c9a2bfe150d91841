"""`scepsy trace`: record, import, stats. Each command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path

import click

from scepsy.cli.output import output_option
from scepsy.traces.importers.registry import FORMATS


@click.group()
def trace() -> None:
    """Record the LLM calls of a workflow, import them from other tools, and see what they demand."""


@trace.command()
@click.option(
    "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", show_default=True, help="Where agents connect."
)
@click.option(
    "--upstream",
    "upstreams",
    metavar="[LLM=]URL",
    multiple=True,
    required=True,
    help="The server of an LLM, by the name that agents send as model; without LLM= the server of all others.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("trace.jsonl"),
    show_default=True,
    help="File to append to, one line per call.",
)
@click.option(
    "--idle-gap",
    metavar="DURATION",
    default="30s",
    show_default=True,
    help="Fallback: a longer pause on a connection starts a new execution.",
)
@click.option("--store-text", is_flag=True, help="Store prompts and completions too; they may hold personal data.")
def record(listen: str, upstreams: tuple[str, ...], output: Path, idle_gap: str, store_text: bool) -> None:
    """Forward calls to OpenAI-compatible servers byte for byte, and write one line per call."""
    from scepsy.cli.trace.record import run

    run(listen, upstreams, output, idle_gap, store_text)


@trace.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--workflow", metavar="NAME", required=True, help="The workflow that the calls belong to.")
@click.option(
    "--format",
    "format_",
    type=click.Choice([known.name for known in FORMATS]),
    help="The files' format; detected from their content if not given.",
)
@click.option("--llm", "llms", metavar="MODEL=NAME", multiple=True, help="Call the trace's MODEL by the LLM's NAME.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; traces/NAME.jsonl in the project if not given.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
def import_(
    files: tuple[Path, ...],
    workflow: str,
    format_: str | None,
    llms: tuple[str, ...],
    output: Path | None,
    force: bool,
    project: Path,
) -> None:
    """Turn exports of other tools into a trace of the workflow."""
    from scepsy.cli.trace.import_ import run

    run(files, workflow, format_, llms, output, force, project)


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write a page with pictures.")
@click.option(
    "--summary", type=click.Path(path_type=Path), metavar="FILE", help="Also write a small TraceSummary to commit."
)
@output_option("TraceStatistics")
def stats(file: Path, html: Path | None, summary: Path | None, output: str) -> None:
    """Say what FILE demands per execution, how sure that is, and how far executions differ."""
    from scepsy.cli.trace.stats import run

    run(file, html, summary, output)
