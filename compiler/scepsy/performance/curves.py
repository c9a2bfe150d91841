"""R(k) from a few points: nondecreasing in k, with an interval (section 2.2 of the model).

Latency rises with the calls that run. Where measured points fall, neighbours are pooled (isotonic regression by pooling
adjacent violators) in logarithms, each weighted by its 95 % interval, so that an outlier moves its block only by its
weight; with a running maximum one high outlier would win.

Between the points R(k) is linear in k. Steps of an engine are affine in k over wide ranges, so that is exact there; on
the 1232 points that can be held out of the shipped profiles it errs by 2.7 % in the mean (leaving gaps of a factor of
four), less than monotone cubics in k, √k or log k and than anything linear in log k (3.0 to 13 %;
`python -m benchmarks held_out`).

The interval at k is the larger of two readings of the points around it (their own intervals, and how far they scatter
in their block), and of what interpolation may miss: a point left out of its neighbours' line tells how much R bends
there, a quarter of which remains in the middle of a gap of half the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

UNKNOWN_INTERVAL = 0.05
"""Assumed 95 % interval of a measured point without one: the precision at which the runner stops."""
_LEAST_INTERVAL = 0.002


@dataclass(frozen=True)
class Fit:
    """R at the points.

    Attributes:
        values: nondecreasing.
        interval: half the width of the 95 % interval ÷ R, each from its own and its block's points.
    """

    values: Array
    interval: Array


def pooled(values: Array, intervals: Array) -> Fit:
    """Return the nondecreasing values that are nearest in logarithms, weighted by 1 ÷ interval².

    Args:
        values: (P,) greater than zero.
        intervals: (P,) half the width of the 95 % interval ÷ value.
    """
    intervals = np.maximum(intervals, _LEAST_INTERVAL)
    if not (np.diff(values) < 0).any():
        return Fit(values, intervals)
    logs, weights = np.log(values), intervals**-2.0
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(logs.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, heavier, more = blocks.pop()
            mean = (mean * total + before * heavier) / (total + heavier)
            total, count = total + heavier, count + more
        blocks.append((mean, total, count))
    sizes = [count for _, _, count in blocks]
    fitted = np.repeat([mean for mean, _, _ in blocks], sizes)
    width = np.repeat([total**-0.5 for _, total, _ in blocks], sizes)
    block = np.repeat(np.arange(len(blocks)), sizes)
    # Points that scatter by more than their intervals widen the interval: the usual factor of weighted means.
    excess = np.bincount(block, weights * (logs - fitted) ** 2 * 1.96**2) / np.maximum(1, np.array(sizes) - 1)
    width = width * np.sqrt(np.maximum(1.0, excess))[block]
    return Fit(np.exp(fitted), width)


def bends(ks: Array, fit: Fit) -> Array:
    """Return how far each point lies from the line between its neighbours, beyond what noise explains; ends have none.

    Args:
        ks: (P,) rising.
        fit: R at the points.
    """
    found = np.zeros(len(ks))
    if len(ks) < 3:
        return found
    left, middle, right = fit.values[:-2], fit.values[1:-1], fit.values[2:]
    part = (ks[1:-1] - ks[:-2]) / (ks[2:] - ks[:-2])
    line = left + part * (right - left)
    noise = np.hypot(fit.interval[1:-1], np.maximum((1 - part) * fit.interval[:-2], part * fit.interval[2:]))
    found[1:-1] = np.sqrt(np.maximum(0.0, (line / middle - 1) ** 2 - noise**2))
    return found


def curve(ks: Array, fit: Fit, last: int) -> Array:
    """Return R(k) for k = 1 … last: constant before the first point, linear in k between points.

    Args:
        ks: (P,) rising.
        fit: R at the points.
        last: the last k, at most the last point's.
    """
    return np.asarray(np.interp(np.arange(1, last + 1, dtype=float), ks, fit.values))


def interval(ks: Array, fit: Fit, last: int) -> Array:
    """Return half the width of the 95 % interval of `curve` ÷ R(k), for k = 1 … last."""
    k = np.arange(1, last + 1, dtype=float)
    at_points: Array = np.interp(k, ks, fit.interval)
    if len(ks) < 2:
        return at_points
    after = np.clip(np.searchsorted(ks, k), 1, len(ks) - 1)
    low, high = ks[after - 1], ks[after]
    place = np.clip((k - low) / (high - low), 0.0, 1.0)
    bend = bends(ks, fit)
    between = np.maximum(bend[after - 1], bend[after])
    return np.asarray(np.hypot(at_points, 4 * place * (1 - place) * between / 4))


def half_width(interval: float | None, *, estimated: bool) -> float:
    """Return the relative 95 % interval of a point; the same for all estimates."""
    if estimated:
        return UNKNOWN_INTERVAL
    return UNKNOWN_INTERVAL if interval is None or not math.isfinite(interval) else interval
