"""Packing fractions of GPUs: the fewest GPU sets that hold instances of given shares and bandwidths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WHOLE = 10
"""Tenths of a GPU."""
SEARCH_LIMIT = 4_000
"""Steps of the exact search before it gives up; the compiler then reports a gap instead of a proof."""
_MOST_BINS = 150
"""Packings of more sets are left to first-fit decreasing: the exact search goes one level deeper per set."""
_SLACK = 1e-9


class Undecided(Exception):
    """The exact search gave up: the parts may or may not fit."""


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """An instance that takes part of a GPU set.

    Attributes:
        tenths: share of each GPU, 1 … 9.
        bandwidth: part of each card's memory bandwidth.
        llm: whose instance it is.
    """

    tenths: int
    bandwidth: float
    llm: str


def fewest_bins(parts: Sequence[Part], at_most: int) -> tuple[list[list[Part]], bool] | None:
    """Pack parts into as few GPU sets as possible, at most `at_most`.

    First-fit decreasing, and an exact search where that is above the lower bound.

    Returns:
        the content of each set, and whether fewer are impossible; None if they do not fit.

    Raises:
        Undecided: nothing was found within the search limit.
    """
    ordered = sorted(parts, key=lambda p: (-p.tenths, -p.bandwidth, p.llm))
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
    halves = sum(2 * p.tenths > WHOLE for p in parts), sum(p.bandwidth > 0.5 + _SLACK for p in parts)
    width = math.fsum(p.bandwidth for p in parts)
    return max(math.ceil(units / WHOLE), math.ceil(width - _SLACK * (1 + len(parts))), *halves)


def _first_fit(parts: Sequence[Part]) -> list[list[Part]]:
    """First-fit decreasing; among sets with room one without the same LLM is preferred, so that replicas spread."""
    bins: list[list[Part]] = []
    room: list[tuple[int, float]] = []
    for part in parts:
        fits = [i for i, (units, width) in enumerate(room) if part.tenths <= units and part.bandwidth <= width + _SLACK]
        if fits:
            chosen = min(fits, key=lambda i: (any(p.llm == part.llm for p in bins[i]), i))
            bins[chosen].append(part)
            room[chosen] = (room[chosen][0] - part.tenths, room[chosen][1] - part.bandwidth)
        else:
            bins.append([part])
            room.append((WHOLE - part.tenths, 1.0 - part.bandwidth))
    return bins


def _exact(parts: Sequence[Part], at_most: int, budget: _Budget) -> list[list[Part]] | None:
    """Fill one set after another: the largest part left is in the next set, with some of the others.

    Parts of equal size are interchangeable, so states are counts per size; states known to fail are remembered.
    """
    sizes = sorted({(p.tenths, p.bandwidth) for p in parts}, reverse=True)
    counts = tuple(sum((p.tenths, p.bandwidth) == size for p in parts) for size in sizes)
    failed: set[tuple[int, tuple[int, ...]]] = set()

    def fill(left: tuple[int, ...], bins_left: int) -> list[list[int]] | None:
        if not any(left):
            return []
        units = sum(n * size[0] for n, size in zip(left, sizes, strict=True))
        width = sum(n * size[1] for n, size in zip(left, sizes, strict=True))
        if units > WHOLE * bins_left or width > bins_left + _SLACK * len(parts) or (bins_left, left) in failed:
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
    stock = {size: [p for p in parts if (p.tenths, p.bandwidth) == size] for size in sizes}
    return [[stock[sizes[i]].pop(0) for i in content] for content in solution]


def _fillings(left: tuple[int, ...], sizes: list[tuple[int, float]], first: int, budget: _Budget) -> list[list[int]]:
    """Return the contents of a set with one part of size `first` that can take no further part, fullest first."""
    found: list[list[int]] = []

    def extend(content: list[int], start: int, units: int, width: float, rest: list[int]) -> None:
        budget.spend()
        maximal = True
        for i in range(len(sizes)):
            if rest[i] and sizes[i][0] <= units and sizes[i][1] <= width + _SLACK:
                maximal = False
                if i >= start:
                    rest[i] -= 1
                    extend([*content, i], i, units - sizes[i][0], width - sizes[i][1], rest)
                    rest[i] += 1
        if maximal:
            found.append(content)

    rest = list(left)
    rest[first] -= 1
    extend([first], first, WHOLE - sizes[first][0], 1.0 - sizes[first][1], rest)
    return sorted(found, key=lambda content: (-sum(sizes[i][0] for i in content), content))
