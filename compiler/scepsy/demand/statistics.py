"""Call statistics per workflow and LLM, from calls or from a document."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scepsy.demand.traces import Call, read_trace
from scepsy.documents import Diagnostic, DocumentError, Loaded, PathEscapes, Position, Workflow, Workspace, contained
from scepsy.documents.source import SourceFile, read_bytes
from scepsy.documents.workflow import Statistics
from scepsy.documents.workspace import digest

TOGETHER = 0.050
"""Seconds: calls of one LLM that start within this time of the first of them form a group (a fan-out)."""
MAX_TRACE_BYTES = 1 << 30
"""Largest trace that is read."""
GROUP_SIZES = 4
"""Distinct group sizes that the predictor looks at; more are merged into so many."""


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Tokens per call.

    Attributes:
        mean: mean over calls.
        max: most that was seen; None if unknown.
    """

    mean: float
    max: float | None = None


@dataclass(frozen=True, slots=True)
class LlmDemand:
    """How one execution calls one LLM.

    Attributes:
        calls: n, mean calls per execution.
        parallelism: p, sum of call durations ÷ time in which at least one call runs.
        steps: n/p, how many times the latency of a call (or of a whole group) counts on the execution's path.
        groups: (size, mean number per execution) of groups of calls that start together.
        input: prompt tokens.
        output: generated tokens.
        cached: prompt tokens that the prefix cache holds.
    """

    calls: float
    parallelism: float
    steps: float
    groups: tuple[tuple[int, float], ...]
    input: TokenUse
    output: TokenUse
    cached: TokenUse

    @property
    def longest(self) -> float:
        """Most tokens of one call that are known of, prompt and output; the means where no maximum is given."""
        return (self.input.max or self.input.mean) + (self.output.max or self.output.mean)


@dataclass(frozen=True, slots=True)
class Demand:
    """How one execution of a workflow runs.

    Attributes:
        outside: seconds outside LLM calls on the execution's path.
        llms: per LLM name.
        executions: recorded executions behind the figures; None for statistics written by hand.
    """

    outside: float
    llms: dict[str, LlmDemand]
    executions: int | None = None


def demand_of(workspace: Workspace, loaded: Loaded[Workflow]) -> tuple[Demand, dict[str, str]]:
    """Return the demand of a workflow, and the digests of the files that were read for it.

    Raises:
        DocumentError: the trace cannot be read, is wrong, or never calls an LLM of the workflow.
    """
    source = loaded.document.spec.demand
    if source.statistics is not None:
        return from_statistics(source.statistics), {}
    where = ("spec", "demand", "traces")
    try:
        base = (workspace.directory / loaded.source.file.name).parent
        path = contained(workspace.root, source.traces or "", base)
    except PathEscapes as error:
        raise DocumentError([loaded.problem(where, error.message, error.hint)]) from error
    if not path.is_file():
        raise DocumentError([loaded.problem(where, f'there is no file "{source.traces}" beside this one')])
    name = workspace.relative(path)
    file = SourceFile(name, read_bytes(path, name, MAX_TRACE_BYTES))
    names = [llm.name for llm in loaded.document.spec.llms]
    calls = read_trace(file.data, name, names)
    called = {call.model for call in calls}
    missing = [
        loaded.problem(
            ("spec", "llms", index, "name"),
            f'no call of the trace goes to "{llm}"',
            f"record it in {name}, or remove it",
        )
        for index, llm in enumerate(names)
        if llm not in called
    ]
    if missing:
        raise DocumentError(missing)
    try:
        return from_calls(calls), {name: digest(file.data)}
    except ValueError as error:
        raise DocumentError([Diagnostic(Position(name), str(error))]) from error


def from_statistics(statistics: Statistics) -> Demand:
    """Return the demand that a document states."""
    llms = {}
    for entry in statistics.llms:
        parallelism = entry.parallelism if entry.parallelism is not None else entry.fan_out
        llms[entry.llm] = LlmDemand(
            entry.calls,
            parallelism,
            entry.calls / parallelism,
            _groups_of_mean_size(entry.calls, entry.fan_out),
            TokenUse(entry.input_tokens.mean, entry.input_tokens.max),
            TokenUse(entry.output_tokens.mean, entry.output_tokens.max),
            TokenUse(entry.cached_tokens.mean, entry.cached_tokens.max),
        )
    return Demand(statistics.outside, llms)


def _groups_of_mean_size(calls: float, size: float) -> tuple[tuple[int, float], ...]:
    """Split calls/size groups of mean `size` into groups of the two whole sizes around it."""
    count, low = calls / size, math.floor(size)
    high_part = size - low
    groups = [(low, count * (1 - high_part)), (low + 1, count * high_part)]
    return tuple((s, n) for s, n in groups if n > 1e-12)


def from_calls(calls: Sequence[Call]) -> Demand:
    """Return the demand of recorded calls.

    Raises:
        ValueError: no call takes any time.
    """
    executions: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        executions[call.execution].append(call)
    count = len(executions)
    outside = 0.0
    by_llm: dict[str, list[list[Call]]] = defaultdict(list)
    for execution in executions.values():
        outside += max(c.end for c in execution) - min(c.start for c in execution) - _busy(execution)
        of: dict[str, list[Call]] = defaultdict(list)
        for call in execution:
            of[call.model].append(call)
        for llm, own in of.items():
            by_llm[llm].append(sorted(own, key=lambda c: (c.start, c.end)))
    return Demand(outside / count, {llm: _llm_demand(llm, by_llm[llm], count) for llm in sorted(by_llm)}, count)


def _llm_demand(llm: str, executions: list[list[Call]], count: int) -> LlmDemand:
    calls = [call for execution in executions for call in execution]
    groups = [group for execution in executions for group in _groups(execution)]
    busy = sum(_busy(execution) for execution in executions)
    spent = sum(call.end - call.start for call in calls)
    if busy <= 0:
        raise ValueError(f'all calls to "{llm}" take no time: start and end are equal')
    sizes: dict[int, int] = defaultdict(int)
    for group in groups:
        sizes[len(group)] += 1
    return LlmDemand(
        calls=len(calls) / count,
        parallelism=spent / busy,
        steps=len(calls) / count * busy / spent,
        groups=tuple((size, number / count) for size, number in _merged(sizes)),
        input=_tokens([c.input_tokens for c in calls]),
        output=_tokens([c.output_tokens for c in calls]),
        cached=_tokens([c.cached_tokens for c in calls]),
    )


def _tokens(values: list[float]) -> TokenUse:
    return TokenUse(math.fsum(values) / len(values), max(values))


def _busy(calls: Iterable[Call]) -> float:
    """Return the length of the union of the calls' intervals, seconds."""
    total, until = 0.0, -math.inf
    for start, end in sorted((c.start, c.end) for c in calls):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _groups(calls: list[Call]) -> list[list[Call]]:
    """Split the calls of one execution to one LLM, in order of start, into groups that start together.

    A call that starts when another of the group has ended may have waited for it, so it is not of the group.
    """
    groups: list[list[Call]] = []
    first_end = 0.0
    for call in calls:
        together = groups and call.start - groups[-1][0].start <= TOGETHER
        if together and (call.start < first_end or call.start == groups[-1][0].start):
            groups[-1].append(call)
            first_end = min(first_end, call.end)
        else:
            groups.append([call])
            first_end = call.end
    return groups


def _merged(sizes: dict[int, int]) -> list[tuple[int, float]]:
    """Merge a histogram of group sizes into at most GROUP_SIZES sizes that hold about equally many calls each.

    The number of calls is kept: a merged size is the calls-per-group mean of its bin, rounded up, and its number of
    groups is the bin's calls ÷ that size.
    """
    ordered = sorted(sizes.items())
    if len(ordered) <= GROUP_SIZES:
        return [(size, float(number)) for size, number in ordered]
    total = sum(size * number for size, number in ordered)
    bins: list[list[tuple[int, int]]] = [[] for _ in range(GROUP_SIZES)]
    before = 0
    for size, number in ordered:
        bins[min(GROUP_SIZES - 1, before * GROUP_SIZES // total)].append((size, number))
        before += size * number
    merged = []
    for content in bins:
        if content:
            calls, groups = sum(s * n for s, n in content), sum(n for _, n in content)
            size = math.ceil(calls / groups)
            merged.append((size, calls / size))
    return merged
