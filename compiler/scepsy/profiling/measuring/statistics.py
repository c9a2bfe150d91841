"""What a row of measured latencies says: where its warm-up ends, how sure its mean is, and whether a queue grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scepsy.performance.curves import Array

PRECISION = 0.05
"""A point is measured until the 95 % interval of its mean latency is this part of the mean to either side."""
LEAST = 16
"""Fewest values that have an interval: two for each of eight batches."""

_BATCHES = {8: 2.365, 16: 2.131, 32: 2.040}
"""Numbers of batches, and the 97.5 % quantile of Student's t with one degree of freedom less."""


def warm_up(values: Sequence[float] | Array) -> int:
    """Return how many leading values belong to the warm-up, at most half of them.

    MSER-5 (White 1997; Franklin & White 2008): of all truncations by whole batches of five, the one after which the
    standard error of what is left is least.

    Args:
        values: latencies, in the order in which the calls ended.
    """
    batches = len(values) // 5
    if batches < 4:
        return 0
    means = np.asarray(values[: batches * 5], dtype=float).reshape(batches, 5).mean(axis=1)
    left = np.arange(batches, 0, -1)
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    errors = np.maximum(squares / left - (sums / left) ** 2, 0.0) / left
    return 5 * int(np.argmin(errors[: batches // 2 + 1]))


def interval(values: Sequence[float] | Array) -> float:
    """Return half the width of the 95 % interval of a mean, as a part of it, by batch means.

    Successive latencies resemble each other, so that the usual standard error is too small; the means of long batches
    hardly do (Law, Simulation Modeling and Analysis, chapter 9). How long is long enough is not known beforehand: of
    the intervals with 8, 16 and 32 batches the widest is taken.

    Args:
        values: at least `LEAST`, in the order in which the calls ended, the warm-up left out.

    Returns:
        Infinity for fewer values.
    """
    data = np.asarray(values, dtype=float)
    mean = float(data.mean()) if len(data) else 0.0
    if len(data) < LEAST or mean <= 0:
        return math.inf
    widest = 0.0
    for batches, quantile in _BATCHES.items():
        length = len(data) // batches
        if length >= 2:
            # The oldest values are left out where the division leaves a rest.
            means = data[-length * batches :].reshape(batches, length).mean(axis=1)
            widest = max(widest, quantile * float(means.std(ddof=1)) / math.sqrt(batches))
    return widest / mean


def falls_behind(due: float, completed: int, in_flight: Sequence[int] | Array, full: int) -> tuple[bool, bool]:
    """Tell whether calls arrive faster than an engine completes them, and whether that is certain.

    That calls in flight become more is no sign of it: near saturation their number wanders widely while nothing grows.
    But while an engine never has less to do than it can take at once, what it completes is its capacity, which varies
    little; and where it once had less to do, it kept up.

    Args:
        due: calls that arrive in the time in question on average, whether or not they did.
        completed: calls that were completed in it.
        in_flight: calls in flight in that time, as each arriving call found them.
        full: fewest calls in flight with which throughput is highest.

    Returns:
        Whether it seems so; and whether it is no chance: by two standard deviations of a Poisson number, which is more
        than what a full engine completes varies by.
    """
    behind = due - completed
    always_full = len(in_flight) > 0 and min(in_flight) >= full
    return always_full and behind > 0, always_full and behind > 2 * math.sqrt(max(due, 1.0))


def mean_in_flight(starts: Sequence[float], ends: Sequence[float], begin: float, end: float) -> float:
    """Return the mean number of calls in flight between two times.

    Args:
        starts: when calls were sent, seconds.
        ends: when they ended; infinity for those that did not.
        begin: seconds.
        end: seconds, later.
    """
    inside = np.minimum(np.asarray(ends), end) - np.maximum(np.asarray(starts), begin)
    return float(np.maximum(inside, 0.0).sum() / (end - begin))
