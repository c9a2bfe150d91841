"""Bounds how often executions are counted, if each of several gateway pods counts those that it sees.

Executions are counted in parts, by the hash of their names. Given how many there are, the counts of the parts are
multinomial with equal probabilities, however bursty the traffic is: hashes know nothing of time. An execution that is
counted m times is counted in one part. So the index of dispersion over parts is D = E[m²] ÷ E[m]: 1 if all are counted
once, 2 if all are counted twice. As m is a whole number, (m - 1)(m - 2) is not negative, hence E[m²] >= 3 E[m] - 2 and
E[m] <= 2 ÷ (3 - D): executions are counted at most so often on average.

This needs no agreement between pods, and no knowledge of how clients, ingresses and Services choose among them.
"""

from __future__ import annotations

import math

import numpy as np

from scepsy.drift.counters import Floats

SHORT, LONG = 5, 30
"""Minutes of the blocks in which parts are counted: what was read at full scrape resolution, and the rest."""
HOUR = 60
"""Minutes at the end of a stretch that are counted in short blocks, if read at full scrape resolution."""
EDGES = 1.1
"""Factor by which D may be larger than computed: samples do not fall on the edges of blocks, and what was counted
between two samples is spread evenly, so that parts differ less than they do. A tenth for blocks of five intervals."""
SURE = 3.0
"""Standard normal deviates: D lies between what is returned in 997 of 1,000 cases."""


def dispersion_of(parts: Floats, minutes: int, fine: int) -> tuple[float, float]:
    """Return the bounds of the dispersion over parts; (0, infinite) if nothing is known.

    Args:
        parts: (PARTS, T) executions per part and minute, the last one ending now.
        minutes: the checked stretch, up to now.
        fine: minutes at the end that were read at full scrape resolution.
    """
    recent = min(minutes, HOUR, fine) // SHORT * SHORT
    older = (minutes - recent) // LONG * LONG
    end = parts.shape[1] - recent
    squares, total, blocks = 0.0, 0.0, 0
    for stretch, size in ((parts[:, end:], SHORT), (parts[:, max(0, end - older) : end], LONG)):
        counts = stretch.reshape(len(parts), -1, size).sum(axis=2) if stretch.shape[1] else np.zeros((len(parts), 0))
        squares += float(((counts - counts.mean(axis=0)) ** 2).sum())
        total += float(counts.sum())
        blocks += int((counts.sum(axis=0) > 0).sum())
    if total <= 0:
        return 0.0, math.inf
    freedom = len(parts) - 1
    found = squares / (total * freedom / len(parts))
    # The variance of (count - mean)² of a Poisson count is 2 mean² + mean: χ² with somewhat fewer degrees of freedom.
    degrees = 2 / (2 / (blocks * freedom) + found / total)
    return found / _quantile(degrees, SURE), EDGES * found / _quantile(degrees, -SURE)


def _quantile(degrees: float, deviates: float) -> float:
    """Return a quantile of χ² ÷ its degrees of freedom (Wilson and Hilferty, PNAS 17, 1931)."""
    part = 2 / (9 * degrees)
    return float(max(1e-9, 1 - part + deviates * math.sqrt(part)) ** 3)


def most_often(dispersion: float, pods: float) -> float:
    """Return how often executions are counted on average, at most.

    Args:
        dispersion: D.
        pods: gateway pods, each of which counts an execution once.
    """
    return float(min(pods, 2 / (3 - dispersion) if dispersion < 3 else math.inf)) if dispersion > 1 else 1.0
