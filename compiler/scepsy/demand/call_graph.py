"""Call graphs: which calls of an execution waited for which, and how long executions take when calls get faster.

A call waited for the calls that its trace names as parents; if it names none, for those that had ended before it
began (an interval order), reduced transitively. Its latency is rescaled, the gap between it and what it waited for
(tools, orchestration) is kept. The last end of an execution is its makespan (section 2.3 of the model).

Calls of one LLM that start together, wait for the same and are waited for by the same are one step: its latency is that
of the group, as the queueing model predicts it.

A makespan is a maximum over paths of sums, so a convex function of the latencies of the LLMs. Its tangent at any point
is a lower bound everywhere, and a sum over LLMs: the critical paths at that point. So the search can work with graphs
and prove its result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.traces.trace import Floats, Ints, Trace

SKEW = 0.005
"""Seconds, or a tenth of a call if that is less, by which a call may end after one that waited for it begins: clocks
differ, and exports round starts and durations separately."""
WIDEST = 64
"""Calls that one call waits for at most; of more, those that ended last."""
MAX_CALLS = 5_000
"""Calls of an execution with a graph; larger executions are a sum over LLMs."""
SHORTEST = 1e-6
"""Seconds: a call that takes no time still ends after it began."""


@dataclass(frozen=True, slots=True)
class Step:
    """A call, or a group of calls that start together and are waited for together.

    Attributes:
        llm: its LLM's name.
        gap: seconds between the end of what it waited for, or the beginning of the execution, and its start.
        seconds: recorded time from its start until its last call ended.
        calls: how many calls it holds.
        after: the steps that it waited for, by position in the graph; all of them stand before it.
    """

    llm: str
    gap: float
    seconds: float
    calls: int = 1
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """The steps of one execution.

    Attributes:
        steps: each after those that it waited for.
        tail: seconds between the end of the last step and the end of the execution.
    """

    steps: tuple[Step, ...]
    tail: float = 0.0


@dataclass(frozen=True)
class CriticalPath:
    """Latency as a sum over LLMs: seconds outside them, and how often the latency of each counts.

    Attributes:
        outside: seconds.
        steps: per LLM.
    """

    outside: float
    steps: Mapping[str, float]

    def mixed(self, other: CriticalPath, part: float) -> CriticalPath:
        """Return `part` of this path and the rest of another."""
        return CriticalPath(
            part * self.outside + (1 - part) * other.outside,
            {llm: part * n + (1 - part) * other.steps[llm] for llm, n in self.steps.items()},
        )


def graphs_of(trace: Trace, group: Ints) -> tuple[Graph, ...]:
    """Return the call graph of every execution of a trace.

    Args:
        trace: the trace.
        group: (N,) the group of calls that started together, of each call.
    """
    first = np.searchsorted(trace.execution, np.arange(len(trace.executions) + 1))
    return tuple(
        _graph(trace, group, int(first[e]), int(first[e + 1]), float(trace.began[e]), float(trace.ended[e]))
        for e in range(len(trace.executions))
    )


def _graph(trace: Trace, group: Ints, low: int, high: int, began: float, ended: float) -> Graph:
    """Return the graph of the calls from `low` to `high`, which are those of one execution in order of start."""
    if high - low > MAX_CALLS:
        return _sum(trace, low, high, ended - began)
    start = trace.start[low:high] - began
    end = np.maximum(trace.end[low:high] - began, start + SHORTEST)
    waits = _waits(trace, low, start, end)
    members = _merged(group[low:high].tolist(), waits)
    step_of = {call: number for number, calls in enumerate(members) for call in calls}
    steps = []
    last = 0.0
    starts, ends = start.tolist(), end.tolist()
    for calls in members:
        after = tuple(sorted({step_of[c] for c in waits[calls[0]]}))
        ready = max((ends[c] for c in waits[calls[0]]), default=0.0)
        begins, stops = min(starts[c] for c in calls), max(ends[c] for c in calls)
        llm = trace.llms[trace.llm[low + calls[0]]]
        steps.append(Step(llm, max(0.0, begins - ready), stops - begins, len(calls), after))
        last = max(last, stops)
    return Graph(tuple(steps), max(0.0, ended - began - last))


def _sum(trace: Trace, low: int, high: int, span: float) -> Graph:
    """Return an execution as a chain of its LLMs, each with the time in which one of its calls ran."""
    steps: list[Step] = []
    ran = 0.0
    for m in np.unique(trace.llm[low:high]).tolist():
        calls = np.flatnonzero(trace.llm[low:high] == m) + low
        until = np.maximum.accumulate(trace.end[calls])
        before = np.append(-np.inf, until[:-1])
        busy = float(np.maximum(0.0, trace.end[calls] - np.maximum(trace.start[calls], before)).sum())
        steps.append(Step(trace.llms[m], 0.0, busy, len(calls), (len(steps) - 1,) if steps else ()))
        ran += busy
    return Graph(tuple(steps), max(0.0, span - ran))


def _waits(trace: Trace, low: int, start: Floats, end: Floats) -> list[tuple[int, ...]]:
    """Return for every call of an execution those that it waited for, by position; equal ones are the same object."""
    over = ended(start, end)
    waits = _by_times(start, over)
    parents = trace.parents
    if parents is None:
        return waits
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}
    for i in np.flatnonzero(parents.recorded[low : low + len(start)]).tolist():
        named = (parents.calls[parents.offsets[low + i] : parents.offsets[low + i + 1]] - low).tolist()
        # If a parent is missing or had not ended, the times decide.
        if all(0 <= p < i and over[p] <= start[i] for p in named):
            parents_of_call = tuple(sorted(set(named)))
            waits[i] = shared.setdefault(parents_of_call, parents_of_call)
    return waits


def ended(start: Floats, end: Floats) -> Floats:
    """Return when calls count as ended for those that may have waited for them: at most `SKEW` before their end."""
    over: Floats = np.maximum(start + SHORTEST, end - np.minimum(SKEW, 0.1 * (end - start)))
    return over


def _by_times(start: Floats, end: Floats) -> list[tuple[int, ...]]:
    """Return for every call those that had ended before it began, without those that others of them waited for.

    Of the calls that had ended by a time, one that ended before another of them began adds nothing.
    """
    by_end = np.argsort(end, kind="stable")
    ends = end[by_end]
    count = np.searchsorted(ends, start, side="right")
    latest_start = np.maximum.accumulate(start[by_end])
    known: dict[int, tuple[int, ...]] = {0: ()}
    for k in np.unique(count).tolist():
        if k:
            least = int(np.searchsorted(ends, latest_start[k - 1], side="right"))
            known[k] = tuple(by_end[max(least, k - WIDEST) : k].tolist())
    return [known[k] for k in count.tolist()]


def _merged(group: list[int], waits: list[tuple[int, ...]]) -> list[list[int]]:
    """Return the calls of each step, steps in order of their first call.

    Args:
        group: the group of each call.
        waits: what each call waited for.
    """
    followers: list[list[int]] = [[] for _ in group]
    sets = {id(wait): wait for wait in waits}
    for number, wait in enumerate(sets.values()):
        for call in wait:
            followers[call].append(number)
    steps: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
    for call, (number, wait) in enumerate(zip(group, waits, strict=True)):
        steps.setdefault((number, id(wait), tuple(followers[call])), []).append(call)
    return list(steps.values())


class Makespans:
    """Many graphs, laid out so that their makespans are computed together: E executions, N steps, M LLMs.

    Args:
        graphs: the graphs.
        recorded: per LLM, mean recorded seconds of a group of its calls, to which predicted latencies are relative.

    Attributes:
        llms: the LLMs, in the order of `recorded`.
        executions: E.
        linear: whether every execution is one chain, so that its makespan is a sum over LLMs.
    """

    def __init__(self, graphs: Sequence[Graph], recorded: Mapping[str, float]) -> None:
        self.llms = tuple(recorded)
        self.executions = len(graphs)
        self.linear = all(
            step.after == ((i - 1,) if i else ()) for graph in graphs for i, step in enumerate(graph.steps)
        )
        self._recorded = np.array([recorded[llm] for llm in self.llms])
        self._tail = np.array([graph.tail for graph in graphs])
        number = {llm: i for i, llm in enumerate(self.llms)}
        levels, sets, place = _levels(graphs)
        flat = [step for graph in graphs for step in graph.steps]
        execution = np.repeat(np.arange(len(graphs)), [len(graph.steps) for graph in graphs])
        order = np.argsort(levels, kind="stable")
        at = np.argsort(order)
        self._bounds = np.searchsorted(levels[order], np.arange(levels.max(initial=0) + 2))
        self._llm = np.array([number[step.llm] for step in flat], dtype=np.int64)[order]
        self._gap = np.array([step.gap for step in flat])[order]
        self._seconds = np.array([step.seconds for step in flat])[order]
        self._execution = execution[order]
        self._last = np.argsort(self._execution, kind="stable")
        self._first = np.searchsorted(self._execution[self._last], np.arange(len(graphs)))
        # What steps wait for: sets by level, those of a level one after the other.
        level_of = np.array([levels[list(members)].max() + 1 for members in sets], dtype=np.int64)
        by_level = np.argsort(level_of, kind="stable")
        self._set = np.append(np.argsort(by_level), -1)[place][order]
        ordered = [sets[s] for s in by_level]
        self._members = at[np.array([m for members in ordered for m in members], dtype=np.int64)]
        self._offsets = np.concatenate([[0], np.cumsum([len(members) for members in ordered])]).astype(np.int64)
        self._sets = np.searchsorted(level_of[by_level], np.arange(levels.max(initial=0) + 2))

    def seconds(self, latency: Floats) -> Floats:
        """Return the makespan of every execution for K choices of latencies.

        Args:
            latency: (K, M) seconds of a group of calls, per LLM.

        Returns:
            (E, K) seconds.
        """
        finish = self._finish(latency / self._recorded)
        return np.asarray(np.maximum.reduceat(finish[self._last], self._first, axis=0) + self._tail[:, None])

    def path(self, latency: Floats) -> CriticalPath:
        """Return the mean critical path at one choice of latencies, (M,) seconds; tangent to the mean makespan."""
        finish = self._finish((latency / self._recorded)[None, :])[:, 0]
        by_execution = finish[self._last]
        best = np.maximum.reduceat(by_execution, self._first)
        counts = np.diff(np.append(self._first, len(finish)))
        is_last = np.where(by_execution == np.repeat(best, counts), np.arange(len(finish)), len(finish))
        now = self._last[np.minimum.reduceat(is_last, self._first)]
        latest = self._latest(finish)
        outside = float(self._tail.sum())
        spent = np.zeros(len(self.llms))
        while len(now):
            outside += float(self._gap[now].sum())
            spent += np.bincount(self._llm[now], self._seconds[now], len(self.llms))
            now = self._set[now]
            now = latest[now[now >= 0]]
        steps = spent / self._recorded / self.executions
        return CriticalPath(outside / self.executions, dict(zip(self.llms, steps.tolist(), strict=True)))

    def _finish(self, scale: Floats) -> Floats:
        """Return when every step ends, (N, K) seconds, for (K, M) factors on the recorded times."""
        finish = np.zeros((len(self._llm), len(scale)))
        for level in range(len(self._bounds) - 1):
            low, high = self._bounds[level], self._bounds[level + 1]
            steps = slice(low, high)
            finish[steps] = self._gap[steps, None] + self._seconds[steps, None] * scale.T[self._llm[steps]]
            if level:
                s, t = self._sets[level], self._sets[level + 1]
                members = self._members[self._offsets[s] : self._offsets[t]]
                ready = np.maximum.reduceat(finish[members], self._offsets[s:t] - self._offsets[s], axis=0)
                finish[steps] += ready[self._set[steps] - s]
        return finish

    def _latest(self, finish: Floats) -> Ints:
        """Return the member of every set that ends last."""
        if not len(self._members):
            return np.zeros(0, dtype=np.int64)
        ends, starts = finish[self._members], self._offsets[:-1]
        last = np.repeat(np.maximum.reduceat(ends, starts), np.diff(self._offsets))
        position = np.where(ends == last, np.arange(len(ends)), len(ends))
        return np.asarray(self._members[np.minimum.reduceat(position, starts)])


def _levels(graphs: Sequence[Graph]) -> tuple[Ints, list[tuple[int, ...]], Ints]:
    """Return the level of every step, the distinct sets of steps that are waited for, and the set of each step or -1.

    Steps are numbered through all graphs. A step's level is the length of the longest chain before it.
    """
    levels: list[int] = []
    sets: list[tuple[int, ...]] = []
    place: list[int] = []
    for graph in graphs:
        base = len(levels)
        known: dict[tuple[int, ...], tuple[int, int]] = {(): (-1, 0)}
        for step in graph.steps:
            if step.after not in known:
                known[step.after] = (len(sets), 1 + max(levels[base + s] for s in step.after))
                sets.append(tuple(base + s for s in step.after))
            number, level = known[step.after]
            place.append(number)
            levels.append(level)
    return np.array(levels, dtype=np.int64), sets, np.array(place, dtype=np.int64)
