"""Files of any format → the calls and executions of the native one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from scepsy.errors import ScepsyError
from scepsy.traces.call import Call, Execution
from scepsy.traces.importers import agent_session, langfuse, langsmith, native, otlp
from scepsy.traces.importers.dependencies import waits
from scepsy.traces.importers.json_records import records
from scepsy.traces.importers.span import NESTED, TWICE, Skipped, Span, execution_of, innermost
from scepsy.traces.importers.token_estimates import completed

Item = Span | Call | Execution | Skipped

FORMATS: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "otlp": (otlp.matches, 'an object with "resourceSpans"'),
    "langsmith": (langsmith.matches, 'runs with "run_type"'),
    "langfuse": (langfuse.matches, 'observations with "traceId", "type" and "startTime"'),
    "agent-session": (agent_session.matches, 'an object with "requests" and "block_size"'),
    "native": (native.matches, 'lines with "execution", "start" and "end"'),
}
"""By name: how a record of each format is told, in this order, and what is looked for, in words."""

_LOOKED_AT = 100


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What came of one file.

    Attributes:
        path: the file.
        format: its format.
        calls: how many calls of it were imported.
        executions: how many executions they belong to.
        first: when the first of them began, seconds; None without calls.
        last: when the last of them ended.
    """

    path: Path
    format: str
    calls: int
    executions: int
    first: float | None
    last: float | None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What came of all files.

    Attributes:
        files: one each, in the order given.
        calls: sorted by the first start of their execution, the execution, start and id.
        executions: where a trace knows them, sorted likewise.
        skipped: how many records were not imported, by reason.
        notes: what else is worth knowing, one sentence each.
    """

    files: tuple[ReadFile, ...]
    calls: tuple[Call, ...]
    executions: tuple[Execution, ...]
    skipped: Counter[str]
    notes: tuple[str, ...]


def gather(paths: Sequence[Path], format_: str | None) -> Gathered:
    """Read files; a trace whose spans lie in several of them is put together.

    Args:
        paths: the files.
        format_: their format, a key of FORMATS; None to tell it from each file's first records.

    Raises:
        ScepsyError: a file cannot be read, is of no known format, or lacks token counts that cannot be estimated.
    """
    spans: dict[tuple[str, str], tuple[Span, int]] = {}
    calls: dict[tuple[str, object], tuple[Call, int]] = {}
    executions: dict[str, Execution] = {}
    skipped: Counter[str] = Counter()
    notes: list[str] = []
    formats = []
    for number, path in enumerate(paths):
        name, items = _items(path, format_)
        formats.append(name)
        units: Counter[str] = Counter()
        alike: Counter[Call] = Counter()
        for item in items:
            if isinstance(item, Skipped):
                skipped[item.reason] += 1
            elif isinstance(item, Span):
                units[item.unit] += bool(item.unit)
                key = (item.trace, item.id)
                skipped[TWICE] += key in spans
                # Of an observation that was exported twice, once before it ended, the whole one is kept.
                if key not in spans or (spans[key][0].end is None and item.end is not None):
                    spans[key] = (item, number)
            elif isinstance(item, Call):
                # Calls without an id may be alike in one file; those of another file are taken for the same ones.
                own = (item.execution, (item, alike[item]) if item.id is None else item.id)
                alike[item] += item.id is None
                skipped[TWICE] += own in calls
                calls.setdefault(own, (item, number))
            else:
                executions.setdefault(item.execution, item)
        notes += _mixed(path, units)
    found, known, nested = _from_spans([span for span, _ in spans.values()], [call for call, _ in calls.values()])
    skipped[NESTED] += nested
    skipped[TWICE] += sum((call.execution, call.id) in calls for call in found)
    found = [call for call in found if (call.execution, call.id) not in calls]
    executions = known | executions
    origin = {key: number for key, (_, number) in spans.items()}
    every = [(call, number) for call, number in calls.values()]
    every += [(call, origin[call.execution, call.id or ""]) for call in found]
    begins = _begins([call for call, _ in every])
    ordered = sorted((call for call, _ in every), key=lambda c: _order(begins, c.execution, c.start, c.id))
    kept = [e for e in executions.values() if e.execution in begins]
    return Gathered(
        tuple(
            _summary(p, f, [c for c, at in every if at == i])
            for i, (p, f) in enumerate(zip(paths, formats, strict=True))
        ),
        tuple(ordered),
        tuple(sorted(kept, key=lambda e: _order(begins, e.execution, e.start, None))),
        +skipped,
        tuple(notes),
    )


def _items(path: Path, format_: str | None) -> tuple[str, Iterator[Item]]:
    """Return a file's format and what is in it."""
    found = records(path)
    head = list(islice(found, _LOOKED_AT))
    name = format_ or _told(path, head)
    readers: dict[str, Callable[[Any], Iterable[Item]]] = {
        "otlp": otlp.spans,
        "langsmith": langsmith.spans,
        "langfuse": langfuse.spans,
        "agent-session": partial(agent_session.spans, name=_stem(path)),
        "native": native.calls,
    }
    return name, chain.from_iterable(
        [record] if isinstance(record, Skipped) else readers[name](record) for record in chain(head, found)
    )


def _told(path: Path, head: Sequence[Any]) -> str:
    """Tell a file's format from its first records."""
    for record in head:
        for name, (matches, _) in FORMATS.items():
            if isinstance(record, dict) and matches(record):
                return name
    looked = "\n".join(f"  {name:14} {what}" for name, (_, what) in FORMATS.items())
    seen = next((record for record in head if isinstance(record, dict)), None)
    keys = (
        f"; its first object has {', '.join(_short(key) for key in list(seen)[:6]) or 'no keys'}"
        if seen is not None
        else ""
    )
    raise ScepsyError(
        f"{path}: the format is not known{keys}. Looked for:\n{looked}",
        "name the format with --format if it is one of these",
    )


def _short(key: str) -> str:
    return '"' + "".join(c for c in key[:30] if c.isprintable()) + '"'


def _stem(path: Path) -> str:
    return path.name.split(".")[0].encode("utf-8", "replace").decode() or "session"


def _mixed(path: Path, units: Counter[str]) -> list[str]:
    """Say which units the times of a file have, if several."""
    if len(+units) < 2:
        return []
    said = ", ".join(f"{count} in {unit}" for unit, count in units.most_common())
    return [f"{path}: times are written in several units ({said} spans); each was read by its magnitude"]


def _from_spans(spans: Sequence[Span], others: Sequence[Call]) -> tuple[list[Call], dict[str, Execution], int]:
    """Return the calls and executions of spans, and how many spans were around others of the same call."""
    traces: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        traces[span.trace].append(span)
    nested = 0
    for trace, members in traces.items():
        traces[trace], dropped = innermost(members)
        nested += dropped
    known = [(c.model, c.input_tokens, c.output_tokens) for c in others if c.error is None]
    whole = completed([span for members in traces.values() for span in members], known)
    traces.clear()
    for span in whole:
        traces[span.trace].append(span)
    calls: list[Call] = []
    executions: dict[str, Execution] = {}
    for trace, members in traces.items():
        after = waits(members)
        calls += [_call(span, after.get(span.id)) for span in members if span.request]
        execution = execution_of(members)
        if execution:
            executions[trace] = execution
    return calls, executions, nested


def _call(span: Span, parents: tuple[str, ...] | None) -> Call:
    request = span.request
    assert request is not None  # noqa: S101 - the caller chose spans that are calls
    return Call(
        span.trace,
        request.model,
        span.start or 0.0,
        span.end or 0.0,
        request.input or 0.0,
        request.output or 0.0,
        request.cached,
        span.id,
        parents,
        request.first_token,
        request.operation,
        request.estimated,
        request.error,
    )


def _begins(calls: Iterable[Call]) -> dict[str, float]:
    """Return when the first call of each execution began."""
    begins: dict[str, float] = {}
    for call in calls:
        begins[call.execution] = min(call.start, begins.get(call.execution, call.start))
    return begins


def _order(begins: dict[str, float], execution: str, start: float, id_: str | None) -> tuple[float, str, float, str]:
    return begins[execution], execution, start, id_ or ""


def _summary(path: Path, format_: str, calls: Sequence[Call]) -> ReadFile:
    first, last = min((c.start for c in calls), default=None), max((c.end for c in calls), default=None)
    return ReadFile(path, format_, len(calls), len({c.execution for c in calls}), first, last)


def renamed(calls: Iterable[Call], names: dict[str, str]) -> list[Call]:
    """Return calls with the names of LLMs for their models."""
    return [replace(call, model=names[call.model]) for call in calls]
