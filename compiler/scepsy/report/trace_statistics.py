"""The statistics of a trace: every mean with its interval, how much executions differ, and how they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scepsy.demand.arrivals import arrivals_of, pauses_of
from scepsy.demand.bootstrap import ratio_intervals
from scepsy.demand.call_graph import ended
from scepsy.demand.per_execution import Totals, groups_of, totals_of
from scepsy.demand.stability import Stability, stability_of, warnings
from scepsy.documents.model import API_VERSION
from scepsy.documents.trace_statistics import (
    ArrivalStatistics,
    Counted,
    Estimate,
    KindOfExecution,
    KindPart,
    LlmStatistics,
    ShareStatistics,
    SpanStatistics,
    TraceStatistics,
)
from scepsy.traces.call import ESTIMABLE
from scepsy.traces.trace import Floats, Trace


@dataclass(frozen=True)
class Examined:
    """A trace with all its statistics.

    Attributes:
        trace: the trace.
        totals: its sums.
        stability: how far its executions differ.
        statistics: the statistics that are reported.
    """

    trace: Trace
    totals: Totals
    stability: Stability
    statistics: TraceStatistics


def examine(trace: Trace, name: str, digest: str) -> Examined:
    """Return the statistics of a trace.

    Args:
        trace: the trace.
        name: its name in reports.
        digest: of its file.
    """
    totals = totals_of(trace, groups_of(trace))
    stability = stability_of(trace.llms, totals.calls, totals.spent)
    estimates = _estimates(totals)
    span = next(estimates)
    outside = next(estimates)
    arrivals = _arrivals(totals.began)
    count = len(trace.executions)
    median, late = np.quantile(totals.span, [0.5, 0.95])
    assert span is not None  # noqa: S101 - its denominator counts executions
    statistics = TraceStatistics(
        api_version=API_VERSION,
        trace=name,
        digest=digest,
        executions=count,
        calls=trace.calls,
        failed=tuple(Counted(what=reason, calls=calls) for reason, calls in trace.failed.items()),
        estimated=tuple(
            Counted(what=field, calls=trace.estimates(field)) for field in ESTIMABLE if trace.estimates(field)
        ),
        unknown_parents=_unknown_parents(trace),
        unended_parents=_unended_parents(trace),
        llms=tuple(_llm(name, m, estimates, stability) for m, name in enumerate(trace.llms)),
        outside=outside,
        span=SpanStatistics(mean=span, p50=_figure(median), p95=_figure(late)),
        variation=_figure(stability.variation),
        tail=_figure(stability.tail),
        stable=stability.stable,
        kinds=tuple(
            KindOfExecution(
                fraction=_figure(kind.fraction),
                llms=tuple(
                    KindPart(llm=llm, calls=_figure(calls), seconds=_figure(seconds))
                    for llm, calls, seconds in zip(trace.llms, kind.calls, kind.seconds, strict=True)
                ),
            )
            for kind in stability.kinds
        ),
        kinds_differ_in=stability.by,
        arrivals=None if isinstance(arrivals, str) else arrivals,
        arrivals_unknown=arrivals if isinstance(arrivals, str) else "",
        warnings=tuple(warnings(stability)),
    )
    return Examined(trace, totals, stability, statistics)


def _estimates(totals: Totals) -> Iterator[Estimate | None]:
    """Yield span, time outside LLMs, and the estimates of each LLM in turn."""
    count = len(totals.executions)
    one = np.ones(count)
    all_spent = totals.spent.sum(axis=1)
    ratios = [(totals.span, one), (totals.outside, one)]
    for m in range(len(totals.llms)):
        calls, spent = totals.calls[:, m], totals.spent[:, m]
        ratios += [(calls, one), (spent, totals.busy[:, m]), (calls, totals.groups[:, m]), (spent, calls)]
        ratios += [(tokens[:, m], calls) for tokens in (totals.input, totals.output, totals.cached)]
        ratios.append((spent, all_spent))
    for (numerator, denominator), interval in zip(ratios, ratio_intervals(ratios), strict=True):
        divisor = float(denominator.sum())
        if not divisor > 0:
            yield None
        else:
            mean = _figure(float(numerator.sum()) / divisor)
            # Rounding must not put a mean outside the interval of a constant.
            low, high = (min(interval.low, mean), max(interval.high, mean)) if interval else (None, None)
            yield Estimate(mean=mean, low=low, high=high)


def _llm(name: str, m: int, estimates: Iterator[Estimate | None], stability: Stability) -> LlmStatistics:
    calls, parallelism, group_size, seconds, inputs, outputs, cached, share = (next(estimates) for _ in range(8))
    spread = None
    if stability.known:
        of = stability.shares[m]
        spread = ShareStatistics(
            mean=_figure(of.mean),
            p10=_figure(of.p10),
            p90=_figure(of.p90),
            least=_figure(of.least),
            most=_figure(of.most),
            unstable=of.unstable,
        )
    assert calls and group_size and seconds and inputs and outputs and cached  # noqa: S101, PT018 - an LLM has calls
    return LlmStatistics(
        llm=name,
        calls=calls,
        parallelism=parallelism,
        group_size=group_size,
        seconds=seconds,
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=cached,
        share=share,
        spread=spread,
    )


def _arrivals(began: Floats) -> ArrivalStatistics | str:
    found = arrivals_of(began)
    if isinstance(found, str):
        return found
    pauses = pauses_of(began)
    return ArrivalStatistics(
        rate=_figure(found.rate),
        low=_figure(found.low),
        high=_figure(found.high),
        dispersion=_figure(found.dispersion),
        window=_figure(found.window),
        pauses=pauses.count if pauses else 0,
        pause_seconds=_figure(pauses.seconds) if pauses else 0.0,
        rate_without_pauses=_figure(pauses.rate) if pauses else None,
    )


def _unknown_parents(trace: Trace) -> int:
    """Return how many calls name a parent that is not in the trace."""
    if trace.parents is None:
        return 0
    missing = np.concatenate([[0], np.cumsum(trace.parents.calls < 0)])
    at = missing[trace.parents.offsets]
    return int(np.count_nonzero(at[1:] > at[:-1]))


def _unended_parents(trace: Trace) -> int:
    """Return how many calls name a parent that had not ended when they began; one of a cycle always does."""
    if trace.parents is None:
        return 0
    child = np.repeat(np.arange(len(trace.start)), np.diff(trace.parents.offsets))
    known = trace.parents.calls >= 0
    child, parent = child[known], trace.parents.calls[known]
    late = (parent >= child) | (ended(trace.start, trace.end)[parent] > trace.start[child])
    return len(np.unique(child[late]))


def _figure(value: float) -> float:
    """Round to seven digits: the last bits of a mean depend on the order of its sum."""
    return float(f"{value:.7g}")
