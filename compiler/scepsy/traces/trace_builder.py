"""Builds a Trace from records, with memory for numbers only."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from scepsy.traces.call import ESTIMABLE, Call, Execution
from scepsy.traces.trace import Floats, Ints, Parents, Trace

LONGEST = 1e8
"""Seconds, three years: an execution that seems longer mixes two clocks."""
_BIT = {name: 1 << i for i, name in enumerate(ESTIMABLE)}


class WrongRecord(ValueError):
    """A record that contradicts another one, or has impossible times.

    Attributes:
        number: which record, counted from 0 over calls and executions alike.
        earlier: the record that it contradicts; None if there is none.
    """

    def __init__(self, number: int, message: str, earlier: int | None = None) -> None:
        super().__init__(message)
        self.number = number
        self.earlier = earlier


class TraceBuilder:
    """Collects records as columns of numbers; 70 bytes a call.

    Attributes:
        records: how many records were added.
    """

    def __init__(self) -> None:
        self.records = 0
        self._names: dict[str, int] = {}
        self._llms: dict[str, int] = {}
        self._execution, self._llm, self._record = array("q"), array("q"), array("q")
        self._start, self._end = array("d"), array("d")
        self._input, self._output, self._cached = array("d"), array("d"), array("d")
        self._estimated = array("B")
        # An id is kept as its hash: 64 bits, so that two of a million ids fall together once in 10^7 traces.
        self._id, self._waits, self._parents = array("q"), array("q"), array("q")
        self._bounds: list[tuple[int, float, float, int]] = []
        self._failed: dict[str, int] = {}

    def add(self, record: Call | Execution) -> None:
        """Add a record."""
        if isinstance(record, Execution):
            self.add_execution(record.execution, record.start, record.end)
        elif record.error is not None:
            self.add_failed(record.execution, record.error)
        else:
            self.add_call(
                record.execution,
                record.model,
                (record.start, record.end),
                (record.input_tokens, record.output_tokens, record.cached_tokens),
                record.id,
                record.parents,
                record.estimated,
            )

    def add_execution(self, execution: str, start: float, end: float) -> None:
        """Add when an execution began and ended."""
        self._bounds.append((self._number(execution), start, end, self.records))
        self.records += 1

    def add_failed(self, execution: str, error: str) -> None:
        """Count a call that failed."""
        self._number(execution)
        self._failed[error] = self._failed.get(error, 0) + 1
        self.records += 1

    def add_call(
        self,
        execution: str,
        model: str,
        times: tuple[float, float],
        tokens: tuple[float, float, float],
        id_: str | None,
        parents: Sequence[str] | None,
        estimated: Sequence[str],
    ) -> None:
        """Add a call: `times` are start and end, `tokens` those of prompt, answer and cached prompt."""
        number = self._number(execution)
        self._execution.append(number)
        self._llm.append(self._llms.setdefault(model, len(self._llms)))
        self._record.append(self.records)
        self._start.append(times[0])
        self._end.append(times[1])
        self._input.append(tokens[0])
        self._output.append(tokens[1])
        self._cached.append(tokens[2])
        bits = 0
        for name in estimated:
            bits |= _BIT[name]
        self._estimated.append(bits)
        self._id.append(0 if id_ is None else hash((number, id_)))
        if parents is None:
            self._waits.append(-1)
        else:
            self._waits.append(len(parents))
            self._parents.extend(hash((number, parent)) for parent in parents)
        self.records += 1

    def _number(self, execution: str) -> int:
        return self._names.setdefault(execution, len(self._names))

    def trace(self) -> Trace:
        """Return what was collected.

        Raises:
            ValueError: there is no call.
            WrongRecord: an id occurs twice in an execution, or times are of two clocks.
        """
        if not self._start:
            failed = sum(self._failed.values())
            raise ValueError("every call of the trace failed" if failed else "the trace contains no calls")
        execution, llm = np.asarray(self._execution), np.asarray(self._llm)
        start, end, record = np.asarray(self._start), np.asarray(self._end), np.asarray(self._record)
        self._check_units(start, record)
        ids = np.asarray(self._id)
        _check_ids(ids, record)
        began, ended = self._bounded(execution, start, end, record)
        present = np.flatnonzero(np.isfinite(began))
        names = list(self._names)
        by_name = np.empty(len(names), dtype=np.int64)
        by_name[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        by_beginning = present[np.lexsort((by_name[present], began[present]))]
        number = np.full(len(names), -1)
        number[by_beginning] = np.arange(len(by_beginning))
        llms = sorted(self._llms)
        place = np.empty(len(llms), dtype=np.int64)
        place[[self._llms[name] for name in llms]] = np.arange(len(llms))
        execution, llm = number[execution], place[llm]
        order = np.lexsort((record, llm, end, start, execution))
        return Trace(
            executions=tuple(names[e] for e in by_beginning.tolist()),
            llms=tuple(llms),
            execution=execution[order],
            llm=llm[order],
            start=start[order],
            end=end[order],
            input=np.asarray(self._input)[order],
            output=np.asarray(self._output)[order],
            cached=np.asarray(self._cached)[order],
            estimated=np.asarray(self._estimated)[order],
            began=began[by_beginning],
            ended=ended[by_beginning],
            parents=self._resolved(ids, order),
            failed=dict(sorted(self._failed.items())),
        )

    def _check_units(self, start: Floats, record: Ints) -> None:
        """Times beyond the year 5000 are not in seconds."""
        late = np.flatnonzero(np.abs(start) > 1e11)
        if len(late):
            value, first = abs(start[late[0]]), int(record[late[0]])
            unit = "milliseconds" if value < 1e14 else "microseconds" if value < 1e17 else "nanoseconds"
            raise WrongRecord(first, f"start {value:.0f} seems to be in {unit}: times are in seconds")

    def _bounded(self, execution: Ints, start: Floats, end: Floats, record: Ints) -> tuple[Floats, Floats]:
        """Return beginning and end of every execution, infinite for those without a call that succeeded."""
        began, ended = np.full(len(self._names), np.inf), np.full(len(self._names), -np.inf)
        np.minimum.at(began, execution, start)
        np.maximum.at(ended, execution, end)
        for number, first, last, at in self._bounds:
            if np.isfinite(began[number]):
                if not -LONGEST < first - began[number] < LONGEST:
                    raise WrongRecord(at, "the execution and its calls are years apart: one clock per execution")
                began[number], ended[number] = min(began[number], first), max(ended[number], last)
        spans = (ended - began)[execution]
        wrong = np.flatnonzero(spans > LONGEST)
        if len(wrong):
            apart = wrong[np.argmax(start[wrong] - began[execution[wrong]])]
            years = spans[apart] / (365 * 86400)
            message = f"the calls of the execution are {years:.0f} years apart: one clock and one unit per execution"
            raise WrongRecord(int(record[apart]), message)
        return began, ended

    def _resolved(self, ids: Ints, order: Ints) -> Parents | None:
        """Return the parents as indices of sorted calls."""
        counts = np.asarray(self._waits)
        if (counts < 0).all():
            return None
        by_id = order.argsort()  # the place of each collected call
        sorter = ids.argsort(kind="stable")
        wanted = np.array(self._parents, dtype=np.int64)
        at = np.minimum(np.searchsorted(ids, wanted, sorter=sorter), len(ids) - 1)
        found = sorter[at]
        calls = np.where(ids[found] == wanted, by_id[found], -1) if len(wanted) else wanted
        lengths = np.maximum(counts, 0)
        first = np.concatenate([[0], np.cumsum(lengths)])
        offsets = np.concatenate([[0], np.cumsum(lengths[order])])
        # The lists of the sorted calls, one after the other.
        source = np.repeat(first[:-1][order] - offsets[:-1], lengths[order]) + np.arange(offsets[-1])
        return Parents(offsets, calls[source], (counts >= 0)[order])


def _check_ids(ids: Ints, record: Ints) -> None:
    """Check that no id occurs twice in its execution."""
    named = np.flatnonzero(ids)
    order = named[np.argsort(ids[named], kind="stable")]
    again = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(again):
        second = min(again.tolist(), key=lambda i: int(record[order[i + 1]]))
        earlier = int(record[order[second]])
        raise WrongRecord(int(record[order[second + 1]]), "duplicate call id", earlier)


def trace_of(records: Iterable[Call | Execution]) -> Trace:
    """Return the trace of records.

    Raises:
        ValueError: there is no call that succeeded.
        WrongRecord: an id occurs twice in an execution, or the clocks do not fit.
    """
    builder = TraceBuilder()
    for record in records:
        builder.add(record)
    return builder.trace()
