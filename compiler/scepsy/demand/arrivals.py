"""How executions arrive: their rate, and how bursty they are, from when they began.

The rate is that of the whole time between the first and the last beginning. Pauses are part of that time: only the user
knows whether a night belongs to the workload, so `pauses_of` returns how long they were and the rate without them.

Burstiness is the index of dispersion of counts, the variance ÷ the mean of the number of arrivals in a window (Cox and
Lewis, The Statistical Analysis of Series of Events, 1966; Gusella, Characterizing the variability of arrival processes
with indexes of dispersion, IEEE J-SAC 9(2), 1991): 1 for Poisson arrivals, b for batches of b at random times, near 0
for a metronome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scepsy.traces.trace import Floats

FEWEST = 10
"""Executions below which arrivals are not estimated."""
PER_WINDOW = 5
"""Mean number of arrivals in a window of counts, at least."""
WINDOWS = 20
"""Windows of counts, at least."""
TOGETHER = 0.01
"""Arrivals closer than this part of the mean interval are one batch, if the dispersion is that of intervals."""
RARE = 20
"""One interval of so many may be a pause."""
_Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How executions arrived.

    Attributes:
        rate: executions per second.
        low: lower end of its 95 % interval.
        high: upper end of it.
        dispersion: variance ÷ mean of the number of arrivals in a window.
        window: seconds; the whole time if there are too few executions to count in windows.
        count: executions.
    """

    rate: float
    low: float
    high: float
    dispersion: float
    window: float
    count: int


@dataclass(frozen=True, slots=True)
class Pauses:
    """Intervals without an arrival that are too long to be chance.

    Attributes:
        count: how many there are.
        seconds: how long they are together.
        rate: executions per second in the rest of the time.
    """

    count: int
    seconds: float
    rate: float


def arrivals_of(began: Floats) -> Arrivals | str:
    """Estimate how executions arrive.

    The rate is (E - 1) ÷ (last - first beginning); where several begin at the first instant, they count as one. Its
    interval is that of a count whose variance is the dispersion times its mean, on the logarithmic scale, with the
    quantile of Student's t for the number of windows (or intervals) that the dispersion was estimated from. Simulated,
    it holds the true rate of 10 to 99 Poisson arrivals in 93 % of traces, and of 100 to 10,000 of them, or of 10 to 100
    batches of 10, in 95 to 97 %; where the rate itself changes slowly (20 times 25-fold in 1,000 arrivals), in 87 %.

    With at least PER_WINDOW x WINDOWS executions the dispersion is counted in the narrowest windows with a mean of
    PER_WINDOW arrivals; the interval of the rate also uses WINDOWS windows over the whole time, because slow
    changes count there, and takes the larger. With fewer executions it is the limit for long windows of batches with
    independent intervals: c² E[B] + Var[B] ÷ E[B], c being the intervals' coefficient of variation and B the size of a
    batch (Cox and Lewis, section 4.6; c² alone where nothing comes in batches).

    Args:
        began: (E,) seconds.

    Returns:
        The arrivals, or the reason why they cannot be estimated.
    """
    count = len(began)
    if count < FEWEST:
        executions = "1 execution is" if count == 1 else f"{count} executions are"
        return f"{executions} too few to estimate a rate (at least {FEWEST} are needed)"
    times = np.sort(began)
    _, sizes = np.unique(times, return_counts=True)
    if 2 * sizes.max() > count:
        return (
            f"{sizes.max():,} of {count:,} executions begin at the same instant: the trace has no common clock"
            " (use Unix time)"
        )
    length = float(times[-1] - times[0])
    arrived = count - np.searchsorted(times, times[0], side="right")
    rate = float(arrived) / length
    if not math.isfinite(rate):
        return "all executions begin within less than a microsecond: the trace has no common clock"
    if count >= PER_WINDOW * WINDOWS:
        number = count // PER_WINDOW
        dispersion, window = _of_counts(times, number), length / number
        spread, freedom = dispersion, number - 1
        coarse = _of_counts(times, WINDOWS)
        if coarse > dispersion:
            spread, freedom = coarse, WINDOWS - 1
    else:
        dispersion, freedom = _of_intervals(times)
        spread, window = dispersion, length
    factor = math.exp(_student(freedom) * math.sqrt(spread / float(arrived)))
    return Arrivals(rate, rate / factor, rate * factor, dispersion, window, count)


def pauses_of(began: Floats) -> Pauses | None:
    """Find pauses in arrivals, such as nights between recordings.

    A pause is an interval longer than (ln E + 7) times the mean of the shorter ones: among E Poisson arrivals the
    longest is, by chance, in one trace of a thousand (in one of sixty where E is 10). If more than one interval of
    twenty is that long, arrivals come in bursts, and the time between bursts is not a pause.

    Args:
        began: (E,) seconds.

    Returns:
        The pauses; None if there are none, or fewer than FEWEST executions.
    """
    if len(began) < FEWEST:
        return None
    gaps = np.sort(np.diff(np.sort(began)))
    # From the longest down: each is measured by the mean of the shorter ones.
    shorter = np.concatenate([[0.0], np.cumsum(gaps)[:-1]])
    mean = shorter / np.maximum(1, np.arange(len(gaps)))
    usual = gaps <= (math.log(len(began)) + 7) * mean
    first = len(gaps) - int(np.argmax(usual[::-1]))
    left = float(gaps[:first].sum())
    if first == len(gaps) or left <= 0 or len(gaps) - first > max(1, len(gaps) // RARE):
        return None
    return Pauses(len(gaps) - first, float(gaps[first:].sum()), first / left)


def _of_counts(times: Floats, number: int) -> float:
    """Return the variance ÷ the mean of the counts in so many equal windows; times in order."""
    edges = np.linspace(times[0], times[-1], number + 1)
    inner = np.searchsorted(times, edges[1:-1], side="right")
    counts = np.diff(np.concatenate([[np.searchsorted(times, times[0], side="right")], inner, [len(times)]]))
    return float(np.var(counts, ddof=1) / np.mean(counts))


def _of_intervals(times: Floats) -> tuple[float, int]:
    """Return the dispersion from intervals between batches, and its degrees of freedom; times in order."""
    apart = np.diff(times) > TOGETHER * (times[-1] - times[0]) / (len(times) - 1)
    heads = np.concatenate([[0], np.flatnonzero(apart) + 1])
    intervals = np.diff(times[heads])
    sizes = np.diff(np.concatenate([heads, [len(times)]]))
    freedom = max(1, len(intervals) - 1)
    squared = float(np.sum((intervals - intervals.mean()) ** 2) / freedom / intervals.mean() ** 2)
    return float(squared * sizes.mean() + np.var(sizes) / sizes.mean()), freedom


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t (Abramowitz and Stegun, 26.7.5)."""
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** (i + 1) for i, term in enumerate(terms))
