"""`scepsy trace record`."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import click

from scepsy.cli.options import DURATION
from scepsy.errors import ScepsyError
from scepsy.traces.recorder import Address, Settings, Summary, parse_listen, parse_upstreams, record


@click.command("record")
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
    type=DURATION,
    default="30s",
    show_default=True,
    help="Fallback: a longer pause on a connection starts a new execution.",
)
@click.option("--store-text", is_flag=True, help="Store prompts and completions too; they may hold personal data.")
def command(listen: str, upstreams: tuple[str, ...], output: Path, idle_gap: float, store_text: bool) -> None:
    """Forward calls to OpenAI-compatible servers byte for byte, and write one line per call."""
    settings = Settings(parse_listen(listen), parse_upstreams(upstreams), output, idle_gap, store_text)
    summary = asyncio.run(record(settings, _log, lambda address: _log_start(address, settings)))
    _log(_summary(summary, output))
    if summary.lost:
        verb = "was" if summary.lost == 1 else "were"
        raise ScepsyError(f"{_count(summary.lost, 'call')} {verb} forwarded but could not be recorded in {output}")


def _log_start(address: Address, settings: Settings) -> None:
    _log(f"listening on http://{address}")
    for name, upstream in settings.upstreams.named.items():
        _log(f"forwarding {name} to {upstream}")
    if settings.upstreams.other is not None:
        _log(f"forwarding {'all others' if settings.upstreams.named else 'all LLMs'} to {settings.upstreams.other}")
    texts = ", with prompts and completions" if settings.store_text else ""
    _log(f"writing to {settings.output}{texts}; stop with Ctrl-C")


def _summary(summary: Summary, output: Path) -> str:
    parts = [f"{_count(len(summary.executions), 'execution')}", f"{summary.failed} failed"]
    if summary.estimated_tokens:
        parts.append(f"{summary.estimated_tokens} with estimated tokens")
    if summary.estimated_executions:
        parts.append(f"{summary.estimated_executions} with estimated execution")
    if summary.refused:
        parts.append(f"{summary.refused} refused: unknown model")
    if summary.lost:
        parts.append(f"{summary.lost} lost")
    return f"recorded {_count(summary.calls, 'call')} in {output}: {', '.join(parts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _log(line: str) -> None:
    """Print to standard error; a closed pipe must not keep calls from being forwarded."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)
