"""Sums per execution and LLM (calls, seconds, tokens), of which all means of a demand are ratios."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scepsy.traces.trace import Floats, Ints, Trace

TOGETHER = 0.050
"""Seconds: calls of one LLM that start within this time of the first of them form a group (a fan-out)."""


@dataclass(frozen=True)
class Totals:
    """Sums per execution and LLM, (E, M) where no other shape is given.

    Attributes:
        executions: (E,) ids, as in the trace.
        llms: (M,) names, sorted.
        calls: number of calls.
        groups: number of groups of calls that start together.
        spent: seconds, the durations of all calls.
        busy: seconds in which at least one call runs.
        input: prompt tokens.
        output: generated tokens.
        cached: cached prompt tokens.
        began: (E,) seconds, beginning of the execution on the clock of its trace.
        span: (E,) seconds from its beginning to its end.
        outside: (E,) seconds in which no call runs.
    """

    executions: tuple[str, ...]
    llms: tuple[str, ...]
    calls: Floats
    groups: Floats
    spent: Floats
    busy: Floats
    input: Floats
    output: Floats
    cached: Floats
    began: Floats
    span: Floats
    outside: Floats


@dataclass(frozen=True)
class Groups:
    """Calls of one LLM that start together, G groups.

    Attributes:
        of: (N,) the group of each call of the trace.
        execution: (G,) its execution.
        llm: (G,) its LLM.
        size: (G,) calls in it.
        seconds: (G,) from the first start to the last end.
    """

    of: Ints
    execution: Ints
    llm: Ints
    size: Ints
    seconds: Floats


def totals_of(trace: Trace, groups: Groups) -> Totals:
    """Return the sums of a trace."""
    executions, llms = len(trace.executions), len(trace.llms)
    cell = trace.execution * llms + trace.llm
    duration = trace.end - trace.start

    def per_cell(weights: Floats | None, of: Ints = cell) -> Floats:
        return np.bincount(of, weights, executions * llms).astype(float).reshape(executions, llms)

    order = np.lexsort((trace.start, cell))
    covered = _covered(trace.start[order], trace.end[order], cell[order])
    in_order = np.arange(trace.calls)
    busy = np.bincount(trace.execution, _covered(trace.start, trace.end, trace.execution)[in_order], executions)
    span = trace.ended - trace.began
    return Totals(
        executions=trace.executions,
        llms=trace.llms,
        calls=per_cell(None),
        groups=per_cell(None, groups.execution * llms + groups.llm),
        spent=per_cell(duration),
        busy=per_cell(covered, cell[order]),
        input=per_cell(trace.input),
        output=per_cell(trace.output),
        cached=per_cell(trace.cached),
        began=trace.began,
        span=span,
        outside=np.maximum(0.0, span - busy),
    )


def groups_of(trace: Trace) -> Groups:
    """Find the groups of calls that start together.

    A call that starts after another of the group has ended may have waited for it, so it is not part of the group.
    """
    order = np.lexsort((trace.end, trace.start, trace.llm, trace.execution))
    cell = (trace.execution * len(trace.llms) + trace.llm)[order]
    start, end = trace.start[order], trace.end[order]
    head = np.zeros(len(order), dtype=bool)
    head[0] = True
    # Most calls begin a group: they are of another execution or LLM, or far from the call before them.
    head[1:] = (cell[1:] != cell[:-1]) | (start[1:] - start[:-1] > TOGETHER)
    _split(head, start, end)
    number = np.cumsum(head) - 1
    of = np.empty(len(order), dtype=np.int64)
    of[order] = number
    first = np.flatnonzero(head)
    last_end = np.maximum.reduceat(end, first)
    return Groups(
        of=of,
        execution=trace.execution[order][first],
        llm=trace.llm[order][first],
        size=np.bincount(number),
        seconds=last_end - start[first],
    )


def _split(head: np.ndarray, start: Floats, end: Floats) -> None:
    """Begin further groups inside runs of calls that follow each other closely."""
    inside = np.flatnonzero(~head)
    first = first_end = 0.0
    previous = -1
    for i, s, e in zip(inside.tolist(), start[inside].tolist(), end[inside].tolist(), strict=True):
        if previous != i - 1:
            first, first_end = float(start[i - 1]), float(end[i - 1])
        if s - first <= TOGETHER and (s < first_end or s == first):
            first_end = min(first_end, e)
        else:
            head[i] = True
            first, first_end = s, e
        previous = i


def _covered(start: Floats, end: Floats, key: Ints) -> Floats:
    """Return the length that each interval adds to the union of the earlier ones of its key; sorted by key, start."""
    count = len(start)
    # A running maximum that restarts with every key: of ranks, which are exact integers.
    order = np.argsort(end, kind="stable")
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    block = np.concatenate([[0], np.cumsum(key[1:] != key[:-1])])
    until = end[order[np.maximum.accumulate(block * count + rank) - block * count]]
    before = np.concatenate([[-np.inf], until[:-1]])
    before[np.concatenate([[True], key[1:] != key[:-1]])] = -np.inf
    return np.asarray(np.maximum(0.0, end - np.maximum(start, before)))
