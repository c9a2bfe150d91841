"""Packing fractions of GPUs: the fewest GPU sets that hold instances of given shares and bandwidths.

An instance draws m of the bandwidth on average, and is assumed to have m + r while it runs. A set of instances fits if
the shares sum to at most 1 and each finds what it was assumed to have beside the others' averages:

    Σ m + max r ≤ 1

Three relaxations bound the number of sets from below. As the shares φ of a set sum to at most 1, max r ≥ Σ φ·r: what a
set holds of m + φ·r is at most 1 (`volume`). Of two instances max r ≥ (r₁ + r₂)/2: no two with m + r/2 above one half
share a set (`halved`). And over all sets together, Σ m + max r is at most their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from scepsy.performance.curves import Array

WHOLE = 10
"""Tenths of a GPU."""
SEARCH_LIMIT = 4_000
"""Steps of the exact search before it gives up; the compiler then reports a gap instead of a proof."""
_MOST_BINS = 150
"""Packings of more sets are left to first-fit decreasing: the exact search goes one level deeper per set."""
SLACK = 1e-9
"""Forgiven to rounding."""


class Undecided(Exception):
    """The exact search gave up: the parts may or may not fit."""


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """An instance that takes part of a GPU set.

    Attributes:
        tenths: share of each GPU, 1 … 9.
        bandwidth: part of each card's memory bandwidth that it draws on average.
        llm: whose instance it is.
        reserve: part that it must be left on top of that; bandwidth + reserve ≤ 1.
    """

    tenths: int
    bandwidth: float
    llm: str
    reserve: float = 0.0

    @property
    def size(self) -> Size:
        """What it takes."""
        return self.tenths, self.bandwidth, self.reserve


Size = tuple[int, float, float]
"""Tenths, bandwidth and reserve of a part, or of what a set holds: the sums and the largest reserve."""
Number = TypeVar("Number", float, Array)


def volume(bandwidth: Number, reserve: Number, share: Number) -> Number:
    """Return what a part takes at least of the bandwidth of its set."""
    return bandwidth + reserve * share


def halved(bandwidth: Number, reserve: Number) -> Number:
    """Return what of two parts must sum to at most 1, so that they can share a set."""
    return bandwidth + reserve / 2


def joined(content: Size, part: Size) -> Size | None:
    """Return what a set holds with one more part; None if they do not fit together."""
    units, width, reserve = content[0] + part[0], content[1] + part[1], max(content[2], part[2])
    return (units, width, reserve) if units <= WHOLE and width + reserve <= 1 + SLACK else None


def fewest_bins(parts: Sequence[Part], at_most: int) -> tuple[list[list[Part]], bool] | None:
    """Pack parts into as few GPU sets as possible, at most `at_most`.

    First-fit decreasing, and an exact search where that is above the lower bound.

    Returns:
        the content of each set, and whether fewer are impossible; None if they do not fit.

    Raises:
        Undecided: nothing was found within the search limit.
    """
    ordered = sorted(parts, key=lambda p: (-p.tenths, -p.bandwidth, -p.reserve, p.llm))
    bound = lower_bound(ordered)
    if bound > at_most:
        return None
    packed = _first_fit(ordered)
    budget = _Budget(SEARCH_LIMIT if len(packed) <= _MOST_BINS else 0)
    for fewer in range(bound, min(at_most + 1, len(packed))):
        try:
            better = _exact(ordered, fewer, budget)
        except Undecided:
            if len(packed) > at_most:
                raise
            return packed, False
        if better is not None:
            return better, True
    return (packed, True) if len(packed) <= at_most else None


@dataclass
class _Budget:
    """Steps that are left to a search."""

    left: int

    def spend(self) -> None:
        """Take a step.

        Raises:
            Undecided: there is none left.
        """
        self.left -= 1
        if self.left < 0:
            raise Undecided


def lower_bound(parts: Sequence[Part]) -> int:
    """Return how many sets the parts need at least: by their sums, and because no two above one half share a set."""
    units = sum(p.tenths for p in parts)
    wide = sum(halved(p.bandwidth, p.reserve) > 0.5 + SLACK for p in parts)
    drawn = math.fsum(p.bandwidth for p in parts) + max((p.reserve for p in parts), default=0.0)
    width = max(drawn, math.fsum(volume(p.bandwidth, p.reserve, p.tenths / WHOLE) for p in parts))
    large = sum(2 * p.tenths > WHOLE for p in parts)
    return max(math.ceil(units / WHOLE), math.ceil(width - SLACK * (1 + len(parts))), large, wide)


def _first_fit(parts: Sequence[Part]) -> list[list[Part]]:
    """First-fit decreasing; among sets with room one without the same LLM is preferred, so that replicas spread."""
    bins: list[list[Part]] = []
    held: list[Size] = []
    for part in parts:
        fits = {i: both for i, content in enumerate(held) if (both := joined(content, part.size)) is not None}
        if fits:
            chosen = min(fits, key=lambda i: (any(p.llm == part.llm for p in bins[i]), i))
            bins[chosen].append(part)
            held[chosen] = fits[chosen]
        else:
            bins.append([part])
            held.append(part.size)
    return bins


def _exact(parts: Sequence[Part], at_most: int, budget: _Budget) -> list[list[Part]] | None:
    """Fill one set after another: the largest part left is in the next set, with some of the others.

    Parts of equal size are interchangeable, so states are counts per size; states known to fail are remembered.
    """
    sizes = sorted({p.size for p in parts}, reverse=True)
    counts = tuple(sum(p.size == size for p in parts) for size in sizes)
    failed: set[tuple[int, tuple[int, ...]]] = set()

    def fill(left: tuple[int, ...], bins_left: int) -> list[list[int]] | None:
        if not any(left):
            return []
        units = sum(n * size[0] for n, size in zip(left, sizes, strict=True))
        width = sum(n * volume(size[1], size[2], size[0] / WHOLE) for n, size in zip(left, sizes, strict=True))
        if units > WHOLE * bins_left or width > bins_left + SLACK * len(parts) or (bins_left, left) in failed:
            return None
        budget.spend()
        first = next(i for i, n in enumerate(left) if n)
        for content in _fillings(left, sizes, first, budget):
            rest = list(left)
            for i in content:
                rest[i] -= 1
            done = fill(tuple(rest), bins_left - 1)
            if done is not None:
                return [content, *done]
        failed.add((bins_left, left))
        return None

    solution = fill(counts, at_most)
    if solution is None:
        return None
    stock = {size: [p for p in parts if p.size == size] for size in sizes}
    return [[stock[sizes[i]].pop(0) for i in content] for content in solution]


def _fillings(left: tuple[int, ...], sizes: list[Size], first: int, budget: _Budget) -> list[list[int]]:
    """Return the contents of a set with one part of size `first` that can take no further part, fullest first."""
    found: list[list[int]] = []

    def extend(content: list[int], start: int, held: Size, rest: list[int]) -> None:
        budget.spend()
        maximal = True
        for i in range(len(sizes)):
            both = joined(held, sizes[i]) if rest[i] else None
            if both is not None:
                maximal = False
                if i >= start:
                    rest[i] -= 1
                    extend([*content, i], i, both, rest)
                    rest[i] += 1
        if maximal:
            found.append(content)

    rest = list(left)
    rest[first] -= 1
    extend([first], first, sizes[first], rest)
    return sorted(found, key=lambda content: (-sum(sizes[i][0] for i in content), content))
