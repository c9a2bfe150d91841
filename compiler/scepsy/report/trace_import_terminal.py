"""What `scepsy trace import` prints: what was read and skipped, what is estimated, and the next step."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from scepsy.documents import Llm
from scepsy.documents.diagnostics import did_you_mean, printable
from scepsy.traces.call import ESTIMABLE, Call
from scepsy.traces.importers.import_files import Imported

_UNIX = 1e8
"""Seconds above this are a Unix time (after 1973); below, a clock that starts with the execution."""


@dataclass(frozen=True)
class TraceProject:
    """The project that a trace is imported into.

    Attributes:
        directory: where `scepsy.yaml` lies, a real path.
        root: top of the repository, or `directory` where there is none.
        llms: what the workflow calls; None if the project has no such workflow.
        others: the names of the workflows that it has.
        document: where the workflow's document lies, or would.
        traces: the trace that it names, if any.
    """

    directory: Path
    root: Path
    llms: tuple[Llm, ...] | None
    others: tuple[str, ...]
    document: Path
    traces: str | None


def import_lines(
    imported: Imported, calls: Sequence[Call], target: Path, workflow: str, project: TraceProject | None
) -> Iterator[str]:
    """Yield what was read, what was not, and what to do next, line by line.

    Args:
        imported: what was imported from the files.
        calls: its calls, by the names of LLMs.
        target: the file that was written.
        workflow: the workflow's name.
        project: the project, if there is one.
    """
    rows = [
        (
            printable(str(f.path)),
            f.format,
            many(f.calls, "call"),
            many(f.executions, "execution"),
            _period(f.first, f.last),
        )
        for f in imported.files
    ]
    yield from _table("Read", rows)
    tokens: dict[str, list[float]] = {}
    for call in calls:
        sums = tokens.setdefault(call.model, [0, 0, 0, 0])
        for i, count in enumerate((1, call.input_tokens, call.cached_tokens, call.output_tokens)):
            sums[i] += count
    units = ("calls", "input tokens", "of them cached", "output tokens")
    by_llm = [
        (printable(m), *(f"{n:.0f} {w}" for n, w in zip(s, units, strict=True))) for m, s in sorted(tokens.items())
    ]
    yield from _table("LLMs", by_llm)
    yield from _table("Skipped", [(f"{count}", printable(reason)) for reason, count in by_count(imported.skipped)])
    for note in (*imported.notes, *_notes(calls, workflow, project)):
        yield f"note: {printable(note)}"
    executions = len({call.execution for call in calls})
    yield f"Wrote {target}: {many(len(calls), 'call')} of {many(executions, 'execution')}"
    yield f"Next: {_next_step(target, workflow, project)}"


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows with aligned columns; numbers at the beginning of a cell are aligned by their last digit."""
    if not rows:
        return
    yield f"{title}:"
    digits = [
        max(len(cell.split(" ")[0]) if cell[:1].isdigit() else 0 for cell in column)
        for column in zip(*rows, strict=True)
    ]
    lined = [
        [
            " " * (d - len(cell.split(" ")[0])) + cell if cell[:1].isdigit() else cell
            for cell, d in zip(row, digits, strict=True)
        ]
        for row in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*lined, strict=True)]
    for row in lined:
        yield "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _period(first: float | None, last: float | None) -> str:
    """Write when calls were made, or how long they took where the clock is not Unix time."""
    if first is None or last is None:
        return ""
    if first < _UNIX or last > 4e9:
        return f"{last - first:.1f} s"
    begin, end = (datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S") for t in (first, last))
    return f"{begin} … {end if end[:10] != begin[:10] else end[11:]} UTC"


def by_count(reasons: Counter[str]) -> list[tuple[str, int]]:
    """Return reasons with their counts, the most frequent first."""
    return sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))


def _notes(calls: Sequence[Call], workflow: str, project: TraceProject | None) -> list[str]:
    """Return notes on what was estimated, what failed, and why names were kept."""
    notes = []
    words = dict(
        zip(ESTIMABLE, ("the execution", "the end", "input tokens", "output tokens", "cached tokens"), strict=True)
    )
    for name, what in words.items():
        count = sum(name in call.estimated for call in calls)
        if count:
            notes.append(f"{what} of {count} of {len(calls)} calls {_estimated_how(name)}")
    failed = sum(call.error is not None for call in calls)
    if failed:
        notes.append(f"{failed} calls failed: they are in the trace, but not in the demand")
    if project is None:
        notes.append("no project found here, so models keep their names")
    elif project.llms is None:
        near = did_you_mean(workflow, list(project.others)) if project.others else ""
        notes.append(
            f'the project has no workflow "{workflow}" yet, so models keep their names' + (f" ({near})" if near else "")
        )
    return notes


def _estimated_how(name: str) -> str:
    """Return how a field is estimated."""
    return {
        "execution": "is estimated",
        "end": "is estimated, from the seconds per output token of others",
        "cachedTokens": "are estimated, from the blocks that earlier calls had",
    }.get(name, "are estimated, from the mean of the model's other calls or the length of the texts")


def _next_step(target: Path, workflow: str, project: TraceProject | None) -> str:
    """Return the next step: to name the trace in the workflow's document, unless that is done."""
    if project is None or not target.is_relative_to(project.root):
        named = f"demand: {{traces: ../traces/{target.name}}}"
        return f"copy it to traces/ of the project, and give the workflow {workflow} in its spec  {named}"
    path = PurePosixPath(os.path.relpath(target, project.document.parent)).as_posix()
    shown = PurePosixPath(os.path.relpath(project.document, project.directory)).as_posix()
    if project.traces is not None and os.path.normpath(project.traces) == path:
        return f"scepsy compile; {shown} already names this trace"
    return f"in spec of {shown} write  demand: {{traces: {path}}}"


def many(count: int, what: str) -> str:
    """Return a count with its noun, in the plural if it is not 1."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
