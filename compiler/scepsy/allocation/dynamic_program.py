"""The min-plus dynamic program behind the search.

Table i holds, for every amount of units left of every product, the least cost with which LLMs i, i+1, … can be served.
Its first table bounds every plan from below.

Costs are whole numbers; ties go to the allocation that takes fewer GPU units: cost · scale + units is minimised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scepsy.allocation.options import OptionTable
from scepsy.pipeline.instance import Ints

NEVER = np.iinfo(np.int64).max // 4
"""Cost of what is impossible."""
_STATES = 4_000_000
"""States of one table at most. Products with more units are counted in coarser steps, which keeps the tables a lower
bound and the enumeration exact."""


@dataclass(frozen=True)
class Suffixes:
    """The tables of the dynamic program.

    Attributes:
        values: per LLM i, the least cost · scale + units of LLMs i …, by units left per product; a last one of zeros.
        scale: weight of the cost against the units.
        grain: per product, units per step of the tables.
        capacity: per product, units.
    """

    values: tuple[Ints, ...]
    scale: int
    grain: tuple[int, ...]
    capacity: tuple[int, ...]

    def best(self) -> int | None:
        """Return the least cost within the capacity, or None if nothing fits."""
        value = int(self.values[0][tuple(c // g for c, g in zip(self.capacity, self.grain, strict=True))])
        return None if value >= NEVER else value // self.scale


def suffix_values(tables: tuple[OptionTable, ...], cost: tuple[Ints, ...], capacity: tuple[int, ...]) -> Suffixes:
    """Run the dynamic program."""
    grain = _grain(tables, capacity)
    scale = sum(capacity) + 1
    steps = tuple(c // g for c, g in zip(capacity, grain, strict=True))
    values: list[Ints] = [np.zeros(tuple(s + 1 for s in steps), dtype=np.int64)]
    for table, costs in zip(reversed(tables), reversed(cost), strict=True):
        following = values[0]
        best = np.full_like(following, NEVER)
        for product, step, least in _undominated(table, costs * scale + table.units, grain):
            if step <= steps[product]:
                target = [slice(None)] * len(steps)
                source = [slice(None)] * len(steps)
                target[product] = slice(step, None)
                source[product] = slice(0, steps[product] + 1 - step)
                view = best[tuple(target)]
                np.minimum(view, following[tuple(source)] + least, out=view)
        values.insert(0, np.minimum(best, NEVER))
    return Suffixes(tuple(values), scale, grain, capacity)


def best_rows(tables: tuple[OptionTable, ...], cost: tuple[Ints, ...], suffixes: Suffixes) -> list[int] | None:
    """Return the rows that reach the least cost within the capacity, ties by fewest units; None if nothing fits."""
    left = list(suffixes.capacity)
    rows = []
    for i, (table, costs) in enumerate(zip(tables, cost, strict=True)):
        fitting = np.flatnonzero(table.units <= np.array(left)[table.product])
        product, units = table.product[fitting], table.units[fitting]
        at = tuple((c - units * (product == p)) // g for p, (c, g) in enumerate(zip(left, suffixes.grain, strict=True)))
        value = costs[fitting] * suffixes.scale + units + suffixes.values[i + 1][at]
        if not len(value) or int(value.min()) >= NEVER:
            return None
        chosen = int(fitting[int(value.argmin())])
        left[int(table.product[chosen])] -= int(table.units[chosen])
        rows.append(chosen)
    return rows


def _grain(tables: tuple[OptionTable, ...], capacity: tuple[int, ...]) -> tuple[int, ...]:
    """Return units per step: what all options of a product are multiples of, coarser where tables grow too large."""
    grain = []
    for product, units in enumerate(capacity):
        used = [table.units[table.product == product] for table in tables]
        common = int(np.gcd.reduce(np.concatenate(used))) if any(len(u) for u in used) else max(1, units)
        grain.append(max(1, common))
    while np.prod([c // g + 1 for c, g in zip(capacity, grain, strict=True)]) > _STATES:
        widest = max(range(len(grain)), key=lambda p: capacity[p] // grain[p])
        grain[widest] *= 2
    return tuple(grain)


def _undominated(table: OptionTable, cost: Ints, grain: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Yield (product, steps, cost) of options that are cheaper than all of their product with fewer steps."""
    for product, g in enumerate(grain):
        options = np.flatnonzero(table.product == product)
        steps = table.units[options] // g
        order = np.lexsort((cost[options], steps))
        rising, least = steps[order], cost[options][order]
        cheaper = np.flatnonzero(least < np.minimum.accumulate(np.concatenate(([NEVER], least)))[:-1])
        for step, value in zip(rising[cheaper].tolist(), least[cheaper].tolist(), strict=True):
            yield product, step, value
