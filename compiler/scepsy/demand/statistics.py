"""Call statistics per workflow and LLM, from a trace or from a document."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from scepsy.demand.arrivals import Arrivals, arrivals_of
from scepsy.demand.call_graph import MAX_CALLS, CriticalPath, Graph, Makespans, graphs_of
from scepsy.demand.per_execution import Groups, Totals, groups_of, totals_of
from scepsy.documents.workflow import Statistics
from scepsy.traces.call import ESTIMABLE
from scepsy.traces.trace import Floats, Ints, Trace

GROUP_SIZES = 4
"""Distinct group sizes that the predictor uses; more are merged."""
MAX_GRAPH_CALLS = 50_000
"""Calls whose graphs are kept; of larger traces, an even sample of the executions by duration."""


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Tokens per call.

    Attributes:
        mean: mean over calls.
        max: maximum over calls; None if unknown.
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
        """Maximal tokens of one call, prompt and output; the means if no maximum is given."""
        return (self.input.max or self.input.mean) + (self.output.max or self.output.mean)


@dataclass(frozen=True, eq=False)
class Recorded:
    """Single executions, beyond the means over all of them.

    Attributes:
        executions: how many were recorded.
        llms: (M,) the columns below.
        calls: (E, M) calls per execution.
        spent: (E, M) seconds, durations of its calls.
        graphs: (E,) call graphs; of a large trace those of a sample, as are the rows above.
        group_seconds: (M,) mean seconds of a group of calls.
        arrivals: how executions arrive, or the reason why that is unknown.
        notes: warnings about the trace: failed calls, estimated values.
    """

    executions: int
    llms: tuple[str, ...]
    calls: Floats
    spent: Floats
    graphs: tuple[Graph, ...]
    group_seconds: tuple[float, ...]
    arrivals: Arrivals | str
    notes: tuple[str, ...] = ()

    @cached_property
    def makespans(self) -> Makespans:
        """How long the executions take, given the latencies of their LLMs."""
        return Makespans(self.graphs, dict(zip(self.llms, self.group_seconds, strict=True)))


@dataclass(frozen=True)
class Demand:
    """How one execution of a workflow runs.

    Attributes:
        outside: seconds outside LLM calls on the execution's path.
        llms: per LLM name.
        recorded: single executions; None for statistics written by hand.
    """

    outside: float
    llms: dict[str, LlmDemand]
    recorded: Recorded | None = None

    @property
    def path(self) -> CriticalPath:
        """The plain sum: one LLM after the other."""
        return CriticalPath(self.outside, {name: llm.steps for name, llm in self.llms.items()})

    def times(self, factors: Mapping[str, float]) -> Demand:
        """Return the demand with the calls per LLM multiplied by factors; the path of an execution stays."""
        llms = {
            name: replace(
                llm,
                calls=llm.calls * factors[name],
                groups=tuple((size, count * factors[name]) for size, count in llm.groups),
            )
            for name, llm in self.llms.items()
        }
        return replace(self, llms=llms)


def quantile_factors(recorded: Recorded, quantile: float) -> dict[str, float]:
    """Return per LLM the time that a heavy execution spends in it ÷ the mean time, at least 1.

    Args:
        recorded: the executions.
        quantile: such as 0.9: nine of ten executions spend less in the LLM. Factors below 1 are not used: the mean must
            be served.
    """
    heavy = np.quantile(recorded.spent, quantile, axis=0, method="inverted_cdf")
    factors = np.maximum(1.0, heavy / np.maximum(recorded.spent.mean(axis=0), 1e-12))
    return dict(zip(recorded.llms, factors.tolist(), strict=True))


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


def from_trace(trace: Trace) -> Demand:
    """Return the demand of recorded calls.

    Raises:
        ValueError: no call of an LLM takes any time.
    """
    groups = groups_of(trace)
    totals = totals_of(trace, groups)
    seconds = []
    llms = {}
    for m, name in enumerate(trace.llms):
        of_llm = groups.llm == m
        if not totals.busy[:, m].sum() > 0:
            raise ValueError(f'all calls to "{name}" have a duration of 0: start and end are equal')
        llms[name] = _llm_demand(trace, totals, groups.size[of_llm], m)
        seconds.append(float(groups.seconds[of_llm].mean()))
    return Demand(float(totals.outside.mean()), llms, _recorded(trace, groups, totals, tuple(seconds)))


def _llm_demand(trace: Trace, totals: Totals, sizes: Ints, m: int) -> LlmDemand:
    count, of_llm = len(trace.executions), trace.llm == m
    calls, busy, spent = (float(column[:, m].sum()) for column in (totals.calls, totals.busy, totals.spent))
    return LlmDemand(
        calls=calls / count,
        parallelism=spent / busy,
        steps=calls / count * busy / spent,
        groups=tuple((size, number / count) for size, number in _merged(Counter(sizes.tolist()))),
        input=_tokens(trace.input[of_llm]),
        output=_tokens(trace.output[of_llm]),
        cached=_tokens(trace.cached[of_llm]),
    )


def _tokens(values: Floats) -> TokenUse:
    return TokenUse(math.fsum(values.tolist()) / len(values), float(values.max()))


def _recorded(trace: Trace, groups: Groups, totals: Totals, group_seconds: tuple[float, ...]) -> Recorded:
    sample = sampled(totals.span, len(trace.executions) * MAX_GRAPH_CALLS // trace.calls)
    of = groups.of[np.isin(trace.execution, sample)]
    return Recorded(
        executions=len(trace.executions),
        llms=trace.llms,
        calls=totals.calls[sample],
        spent=totals.spent[sample],
        graphs=graphs_of(trace.only(sample), of),
        group_seconds=group_seconds,
        arrivals=arrivals_of(totals.began),
        notes=(
            *notes(trace.calls, sum(trace.failed.values()), {name: trace.estimates(name) for name in ESTIMABLE}),
            *_large(totals),
        ),
    )


def _large(totals: Totals) -> list[str]:
    large = int(np.count_nonzero(totals.calls.sum(axis=1) > MAX_CALLS))
    return [f"{large} executions of more than {MAX_CALLS:,} calls are predicted as a sum over LLMs"] if large else []


def notes(calls: int, failed: int, estimated: Mapping[str, int]) -> tuple[str, ...]:
    """Return warnings about the calls of a trace: failed ones, estimated values."""
    found = [f"{failed:,} of {calls + failed:,} calls of the trace failed and are left out"] if failed else []
    fields = [f"{field} of {count:,}" for field, count in estimated.items() if count]
    if fields:
        found.append(f"of {calls:,} calls of the trace, some values are estimated: {', '.join(fields)}")
    return tuple(found)


def sampled(span: Floats, most: int) -> Ints:
    """Return the indices of at most `most` executions that represent all of them: even quantiles of their length."""
    count = len(span)
    most = max(1, most)
    if count <= most:
        return np.arange(count)
    by_length = np.argsort(span, kind="stable")
    return np.sort(by_length[((np.arange(most) + 0.5) * count / most).astype(np.int64)])


def _merged(sizes: Counter[int]) -> list[tuple[int, float]]:
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
