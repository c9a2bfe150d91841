"""`scepsy trace record`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import click

from scepsy.documents.units import option_duration
from scepsy.errors import ScepsyError
from scepsy.traces.recorder import Address, Settings, Summary, parse_listen, parse_upstreams, record


def run(listen: str, upstreams: Sequence[str], output: Path, idle_gap: str, store_text: bool) -> None:
    """Forward and record until a signal stops it, then print what was recorded.

    Args:
        listen: `HOST:PORT`.
        upstreams: `LLM=URL`, or `URL` for all other LLMs.
        output: the trace file, which is appended to.
        idle_gap: a duration such as `30s`.
        store_text: whether prompts and completions are stored.

    Raises:
        ScepsyError: an argument is wrong, the port is in use, the file cannot be written, or calls were not recorded.
    """
    gap = option_duration(idle_gap, "--idle-gap")
    settings = Settings(parse_listen(listen), parse_upstreams(upstreams), output, gap, store_text)
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
