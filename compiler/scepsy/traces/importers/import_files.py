"""Files of any format → the calls and executions of the native one: read, merged, deduplicated, sorted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from scepsy.traces.call import Call, Execution
from scepsy.traces.importers.format import Item
from scepsy.traces.importers.json_records import records
from scepsy.traces.importers.registry import detected_format, format_named
from scepsy.traces.importers.span import NESTED, TWICE, Skipped, Span
from scepsy.traces.importers.span_calls import calls_of

_SNIFFED = 100
"""How many of a file's first records decide its format."""


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """What was imported from one file.

    Attributes:
        path: the file.
        format: the name of its format.
        calls: how many of its calls were imported.
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
class Imported:
    """What was imported from all files.

    Attributes:
        files: one each, in the order given.
        calls: sorted by the first start of their execution, the execution, start and id.
        executions: those that a trace records, sorted likewise.
        skipped: how many records were not imported, by reason.
        notes: what else is worth knowing, one sentence each.
    """

    files: tuple[ImportedFile, ...]
    calls: tuple[Call, ...]
    executions: tuple[Execution, ...]
    skipped: Counter[str]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Records:
    """The distinct records of all files, each span and call with the number of its file."""

    spans: dict[tuple[str, str], tuple[Span, int]] = field(default_factory=dict)
    calls: dict[tuple[str, object], tuple[Call, int]] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def add_file(self, items: Iterable[Item], file: int) -> Counter[str]:
        """Add a file's records, and return how many spans have times in each unit."""
        units: Counter[str] = Counter()
        alike: Counter[Call] = Counter()
        for item in items:
            if isinstance(item, Skipped):
                self.skipped[item.reason] += 1
            elif isinstance(item, Span):
                units[item.unit] += bool(item.unit)
                key = (item.trace, item.id)
                self.skipped[TWICE] += key in self.spans
                # Of an observation that was exported twice, once before it ended, the complete one is kept.
                if key not in self.spans or (self.spans[key][0].end is None and item.end is not None):
                    self.spans[key] = (item, file)
            elif isinstance(item, Call):
                # Calls without an id may be alike in one file; those of another file count as the same ones.
                call_key = (item.execution, (item, alike[item]) if item.id is None else item.id)
                alike[item] += item.id is None
                self.skipped[TWICE] += call_key in self.calls
                self.calls.setdefault(call_key, (item, file))
            else:
                self.executions.setdefault(item.execution, item)
        return units


def import_files(paths: Sequence[Path], format_: str | None) -> Imported:
    """Read files; a trace whose spans lie in several of them is put together.

    Args:
        paths: the files.
        format_: the name of their format; None to detect it from each file's first records.

    Raises:
        ScepsyError: a file cannot be read, is of no known format, or lacks token counts that cannot be estimated.
    """
    found = _Records()
    formats: list[str] = []
    notes: list[str] = []
    for number, path in enumerate(paths):
        name, items = _items(path, format_)
        formats.append(name)
        notes += _mixed_units(path, found.add_file(items, number))
    from_spans, span_executions, nested = calls_of(
        [span for span, _ in found.spans.values()], [call for call, _ in found.calls.values()]
    )
    skipped = found.skipped
    skipped[NESTED] += nested
    skipped[TWICE] += sum((call.execution, call.id) in found.calls for call in from_spans)
    from_spans = [call for call in from_spans if (call.execution, call.id) not in found.calls]
    file_of = {key: number for key, (_, number) in found.spans.items()}
    calls = list(found.calls.values())
    calls += [(call, file_of[call.execution, call.id or ""]) for call in from_spans]
    starts = _execution_starts([call for call, _ in calls])
    executions = [e for e in (span_executions | found.executions).values() if e.execution in starts]
    return Imported(
        tuple(
            _summary(path, name, [call for call, at in calls if at == number])
            for number, (path, name) in enumerate(zip(paths, formats, strict=True))
        ),
        tuple(sorted((call for call, _ in calls), key=lambda c: _order(starts, c.execution, c.start, c.id))),
        tuple(sorted(executions, key=lambda e: _order(starts, e.execution, e.start, None))),
        +skipped,
        tuple(notes),
    )


def _items(path: Path, format_: str | None) -> tuple[str, Iterator[Item]]:
    """Return the name of a file's format, and what is in the file."""
    values = records(path)
    head = list(islice(values, _SNIFFED))
    known = detected_format(path, head) if format_ is None else format_named(format_)
    name = path.name.split(".")[0].encode("utf-8", "replace").decode() or "session"
    return known.name, chain.from_iterable(
        [record] if isinstance(record, Skipped) else known.read(record, name) for record in chain(head, values)
    )


def _mixed_units(path: Path, units: Counter[str]) -> list[str]:
    """Return a note that names the units of a file's times, if there are several."""
    if len(+units) < 2:
        return []
    counts = ", ".join(f"{count} in {unit}" for unit, count in units.most_common())
    return [f"{path}: times are written in several units ({counts} spans); each was read by its magnitude"]


def _execution_starts(calls: Iterable[Call]) -> dict[str, float]:
    """Return when the first call of each execution began."""
    starts: dict[str, float] = {}
    for call in calls:
        starts[call.execution] = min(call.start, starts.get(call.execution, call.start))
    return starts


def _order(starts: Mapping[str, float], execution: str, start: float, id_: str | None) -> tuple[float, str, float, str]:
    return starts[execution], execution, start, id_ or ""


def _summary(path: Path, format_: str, calls: Sequence[Call]) -> ImportedFile:
    first, last = min((c.start for c in calls), default=None), max((c.end for c in calls), default=None)
    return ImportedFile(path, format_, len(calls), len({c.execution for c in calls}), first, last)


def renamed(calls: Iterable[Call], names: Mapping[str, str]) -> list[Call]:
    """Return calls with the names of LLMs in place of their models."""
    return [replace(call, model=names[call.model]) for call in calls]
