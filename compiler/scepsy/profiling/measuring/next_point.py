"""Which point to measure next: concurrencies until throughput stops rising, rates until saturation is bracketed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from scepsy.errors import ScepsyError

BRACKET = 1.10
"""The search ends when the rate at which the queue grew is at most so many times that at which it did not."""
MOST_RATES = 12
"""So many rates are tried at most: a bracket that does not close by then does not close."""

_RISES = 1.03
"""Throughput that is not this much above the best before has stopped rising."""
_FIRST = (0.5, 0.85, 1.1)
"""The first rates as parts of the throughput of the closed loop, which is where saturation is expected."""


def next_concurrency(throughput: Mapping[int, float | None], most: int, sure: bool = True) -> int | None:
    """Return the next number of calls to keep in flight; None if the curve is complete.

    Args:
        throughput: calls per second of the points so far, by concurrency; None for points that failed.
        most: largest concurrency, the engine's limit.
        sure: whether the last point is precise; if not, throughput has stopped rising when two did not raise it.
    """
    if not throughput:
        return 1
    ordered = [throughput[k] for k in sorted(throughput)]
    if len(ordered) > 1 and ordered[-1] is None and ordered[-2] is None:
        return None
    good = [value for value in ordered if value is not None]
    still = [value < _RISES * max(good[:i]) for i, value in enumerate(good) if i]
    if ordered[-1] is not None and still and still[-1] and (sure or still[-2:] == [True, True]):
        return None
    last = max(throughput)
    return None if last >= most else min(2 * last, most)


def bracket(outcomes: Mapping[float, bool | None]) -> tuple[float | None, float | None]:
    """Return the highest rate known to be sustained, and the lowest known not to be.

    Args:
        outcomes: rates tried, and whether the queue stayed as it was; None for points that failed.
    """
    high = min((rate for rate, stable in outcomes.items() if stable is False), default=None)
    low = max((rate for rate, stable in outcomes.items() if stable and (high is None or rate < high)), default=None)
    return low, high


def next_rate(outcomes: Mapping[float, bool | None], expected: float) -> float | None:
    """Return the next rate to try, by bisection in proportion; None if saturation is bracketed, or cannot be.

    The first rates lie at 0.5, 0.85 and 1.1 times the expected one. Beyond a rate at which requests failed nothing is
    tried: what the engine refuses it does not sustain, though its queue did not grow.

    Args:
        outcomes: rates tried, and whether the queue stayed as it was; None for points that failed.
        expected: calls per second.

    Raises:
        ScepsyError: the expected rate is not positive.
    """
    if expected <= 0:
        raise ScepsyError("the expected rate must be positive")
    if len(outcomes) >= MOST_RATES:
        return None
    low, high = bracket(outcomes)
    failed = min((rate for rate, stable in outcomes.items() if stable is None), default=None)
    ceiling = min((rate for rate in (high, failed) if rate is not None), default=None)
    for part in _FIRST:
        rate = part * expected
        if (low is None or rate > low * BRACKET) and (ceiling is None or rate * BRACKET < ceiling):
            return rate
    if low is None:
        # Nothing was sustained; a thousandth of what was expected is not worth the search.
        return ceiling / 2 if ceiling is not None and ceiling > expected / 1000 else None
    if ceiling is None:
        return low * 1.5
    return math.sqrt(low * ceiling) if ceiling > low * BRACKET else None
