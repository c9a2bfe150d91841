"""Bootstrap intervals of means over executions, which are ratios of sums.

Every mean of a demand is Σ numerator ÷ Σ denominator over executions: calls per execution, tokens per call, seconds
spent per second busy. So it is enough to draw executions again, with replacement, and to sum the same columns (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3: the percentile interval).

scipy.stats.bootstrap would draw the same, one statistic at a time; it is not worth a dependency of 100 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.traces.trace import Floats

RESAMPLES = 1_000
"""Resamples of the executions."""
BLOCKS = 2_000
"""Executions that are drawn one by one; more are first summed into this number of blocks."""
LEVEL = 0.95
"""The part of traces whose interval contains the true ratio."""
_SEED = 0x5CE95


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval that contains the true value in about 95 of 100 traces.

    Attributes:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


def ratio_intervals(ratios: Sequence[tuple[Floats, Floats]]) -> list[Interval | None]:
    """Return the intervals of ratios of sums.

    Executions are taken to be independent. Of more than BLOCKS the i-th goes to block i modulo BLOCKS, and blocks are
    drawn: the variance of the ratio is that of the sum of numerator - ratio x denominator, whose terms have no mean, so
    that the expected square of a block's sum is the sum of the squares of its executions.

    With few executions percentile intervals are too narrow: simulated with exponential values they contain the true
    mean in 79 % of traces of 5 executions, 88 % of 10, 90 % of 20, 93 % of 100, and 95 % of 10,000.

    The same columns give the same interval: indices come from the raw stream of PCG64, which numpy keeps (NEP 19), and
    the last digits, which depend on the order of a sum, are rounded away.

    Args:
        ratios: (numerator, denominator), each (E,); denominators are not negative.

    Returns:
        An interval each; None for a single execution, or if most resamples have a denominator of zero.
    """
    if not ratios or len(ratios[0][0]) < 2:
        return [None] * len(ratios)
    sums = np.stack([_blocks(column) for ratio in ratios for column in ratio], axis=1)
    drawn = _counts(len(sums)) @ sums
    with np.errstate(divide="ignore", invalid="ignore"):
        values = drawn[:, ::2] / drawn[:, 1::2]
    return [_interval(column) for column in values.T]


def _blocks(column: Floats) -> Floats:
    """Sum executions into at most BLOCKS blocks, in turn."""
    if len(column) <= BLOCKS:
        return column
    whole = len(column) // BLOCKS * BLOCKS
    sums = column[:whole].reshape(-1, BLOCKS).sum(axis=0)
    sums[: len(column) - whole] += column[whole:]
    return np.asarray(sums)


def _counts(size: int) -> Floats:
    """Return how often each of `size` rows is drawn, (RESAMPLES, size)."""
    raw = np.random.PCG64(_SEED).random_raw(RESAMPLES * size)
    # The upper half of the bits, scaled: a size of thousands is far from the 2^32 at which that would be uneven.
    index = ((raw >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32)
    row = np.repeat(np.arange(RESAMPLES), size)
    drawn = np.bincount(row * size + index.astype(np.int64), minlength=RESAMPLES * size)
    return drawn.reshape(RESAMPLES, size).astype(np.float64)


def _interval(values: Floats) -> Interval | None:
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values):
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(f"{low:.7g}"), float(f"{high:.7g}"))
