"""What plots of a trace show: a typical execution, and distributions over executions, as numbers."""

from __future__ import annotations

import numpy as np

from scepsy.demand.per_execution import Totals
from scepsy.traces.trace import Floats, Ints, Trace

LOGARITHMIC = 30
"""Spans whose longest is so many times the 5th percentile are shown on a logarithmic scale."""


def typical(span: Floats) -> int:
    """Return the execution whose length is the median; (E,) seconds."""
    return int(np.argsort(span, kind="stable")[(len(span) - 1) // 2])


def calls_of(trace: Trace, execution: int) -> slice:
    """Return where the calls of an execution lie in the columns of its trace."""
    first, last = np.searchsorted(trace.execution, [execution, execution + 1])
    return slice(int(first), int(last))


def concurrency(trace: Trace, execution: int, llm: int, cells: int) -> Floats:
    """Return how many calls of an LLM run in each of so many equal parts of an execution, on average.

    The seconds that calls have run until t are Σ (t - start) over those that have begun, less Σ (t - end) over those
    that have ended; a cell holds the difference between its edges.
    """
    calls = calls_of(trace, execution)
    of_llm = trace.llm[calls] == llm
    began, ended = float(trace.began[execution]), float(trace.ended[execution])
    edges = np.linspace(0.0, ended - began, cells + 1)

    def seconds(times: Floats) -> Floats:
        ordered = np.sort(times - began)
        number = np.searchsorted(ordered, edges)
        return np.asarray(edges * number - np.concatenate([[0.0], np.cumsum(ordered)])[number])

    run = seconds(trace.start[calls][of_llm]) - seconds(trace.end[calls][of_llm])
    # Rounding of long sums must not look like a call.
    mean = np.diff(run) * cells / (ended - began)
    return np.where(mean > 1e-6, mean, 0.0)


def shares_of(totals: Totals, llm: int) -> Floats:
    """Return the share of an LLM in the LLM time of each execution that has any."""
    spent = totals.spent.sum(axis=1)
    timed = spent > 0
    return np.asarray(totals.spent[timed, llm] / spent[timed])


def binned(shares: Floats, bins: int) -> Ints:
    """Count shares in equal bins from 0 to 1."""
    return np.bincount(np.minimum((shares * bins).astype(np.int64), bins - 1), minlength=bins)


def spans_binned(span: Floats, bins: int) -> tuple[Floats, Ints]:
    """Count lengths in bins, equal ones or, where lengths differ much, of equal ratio.

    Returns:
        edges (bins + 1,) and counts (bins,).
    """
    edges = spans_edges(span, bins)
    return edges, np.histogram(np.clip(span, edges[0], edges[-1]), edges)[0]


def spans_edges(span: Floats, bins: int) -> Floats:
    """Return edges of bins for lengths; what lies below the first belongs to the first bin."""
    low, high = float(np.quantile(span, 0.05)), float(span.max())
    if low > 0 and high / low >= LOGARITHMIC:
        least = max(float(span.min()), low / 100)
        return np.geomspace(least, high, bins + 1)
    least = float(span.min())
    if high - least <= 1e-9 * max(1.0, high):
        return np.linspace(max(0.0, least - 0.5), least + 0.5, bins + 1)
    return np.linspace(0.0 if least < 0.5 * high else least, high, bins + 1)
