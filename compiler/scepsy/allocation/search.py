"""The exact search: a min-plus dynamic programme, and candidates in order of their objective.

Table i of the programme holds, for every amount of units left of every product, the least cost with which LLMs i, i+1, …
can be served. Its first entry bounds every plan from below. The same tables are a perfect heuristic for enumerating
allocations best-first: placement tries them in order until one can be placed.

Costs are whole numbers; ties go to the allocation that takes fewer GPU units (cost · scale + units is what is minimised).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scepsy.allocation.options import OptionTable
from scepsy.allocation.problem import Problem
from scepsy.performance.shares import Array
from scepsy.pipeline.instance import Ints

NEVER = np.iinfo(np.int64).max // 4
"""Cost of what cannot be done."""
_STATES = 4_000_000
"""Most states of one table of the programme; products with more units are counted in coarser steps, which keeps the
tables a lower bound and the enumeration exact."""


@dataclass(frozen=True)
class Suffixes:
    """The tables of the programme.

    Attributes:
        values: per LLM i, the least cost · scale + units of LLMs i …, by units left per product; one more for none left.
        scale: weight of the cost against the units.
        grain: per product, units per step of the tables.
        capacity: per product, units.
    """

    values: tuple[Ints, ...]
    scale: int
    grain: tuple[int, ...]
    capacity: tuple[int, ...]

    def best(self, capacity: tuple[int, ...] | None = None) -> int | None:
        """Return the least cost within `capacity` (all, if not given), or None if nothing fits."""
        left = capacity if capacity is not None else self.capacity
        if any(c < 0 for c in left):
            return None
        value = int(self.values[0][tuple(c // g for c, g in zip(left, self.grain, strict=True))])
        return None if value >= NEVER else value // self.scale


@dataclass(frozen=True)
class Candidate:
    """One allocation.

    Attributes:
        rows: per LLM, the row of its table.
        cost: its objective in steps, the constant left out.
        units: tenths of GPUs that it takes.
    """

    rows: tuple[int, ...]
    cost: int
    units: int


def suffix_values(tables: tuple[OptionTable, ...], cost: tuple[Ints, ...], capacity: tuple[int, ...]) -> Suffixes:
    """Run the programme."""
    grain = _grain(tables, capacity)
    scale = sum(capacity) + 1
    steps = tuple(c // g for c, g in zip(capacity, grain, strict=True))
    values: list[Ints] = [np.zeros(tuple(s + 1 for s in steps), dtype=np.int64)]
    for table, own in zip(reversed(tables), reversed(cost), strict=True):
        following = values[0]
        best = np.full_like(following, NEVER)
        for product, step, least in _undominated(table, own * scale + table.units, grain):
            if step <= steps[product]:
                target = [slice(None)] * len(steps)
                source = [slice(None)] * len(steps)
                target[product] = slice(step, None)
                source[product] = slice(0, steps[product] + 1 - step)
                view = best[tuple(target)]
                np.minimum(view, following[tuple(source)] + least, out=view)
        values.insert(0, np.minimum(best, NEVER))
    return Suffixes(tuple(values), scale, grain, capacity)


def _grain(tables: tuple[OptionTable, ...], capacity: tuple[int, ...]) -> tuple[int, ...]:
    """Return units per step: what all options of a product are multiples of, coarser where tables would grow too large."""
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
        own = np.flatnonzero(table.product == product)
        steps = table.units[own] // g
        least = NEVER
        for i in np.lexsort((cost[own], steps)):
            if cost[own[i]] < least:
                least = int(cost[own[i]])
                yield product, int(steps[i]), least


def candidates(problem: Problem) -> Iterator[Candidate]:
    """Yield allocations in order of their objective, ties by units, until there are no more.

    Those that break a workflow's latency bound are left out.
    """
    suffixes = suffix_values(problem.tables, problem.cost, problem.capacity)
    return _enumerate(problem, suffixes)


def _enumerate(problem: Problem, suffixes: Suffixes) -> Iterator[Candidate]:
    """Best-first over prefixes: a node stands for the j-th best choice of the next LLM after a given prefix."""
    names = sorted(problem.bounds)
    adds = [
        np.stack([problem.path_latency(i, name) for name in names]) if names else np.zeros((0, len(table.index)))
        for i, table in enumerate(problem.tables)
    ]
    # Least latency that the LLMs from i on can add, for pruning by the bounds.
    least = [np.zeros(len(names))]
    for added in reversed(adds):
        least.insert(0, least[0] + (added.min(axis=1) if added.shape[1] else np.inf))
    allowed = np.array([problem.bounds[name] - problem.outside[name] for name in names]) + 1e-12
    order = itertools.count()
    heap: list[tuple[int, int, int, tuple[int, ...], Ints, Ints]] = []

    def push(rows: tuple[int, ...], spent: int, left: tuple[int, ...], latency: Array) -> None:
        i = len(rows)
        table = problem.tables[i]
        remaining = [np.full(len(table.index), c, dtype=np.int64) for c in left]
        for product in range(len(left)):
            remaining[product] -= np.where(table.product == product, table.units, 0)
        fits = np.all([r >= 0 for r in remaining], axis=0)
        if names:
            fits &= (latency[:, None] + adds[i] + least[i + 1][:, None] <= allowed[:, None]).all(axis=0)
        chosen = np.flatnonzero(fits)
        at = tuple(r[chosen] // g for r, g in zip(remaining, suffixes.grain, strict=True))
        value = spent + problem.cost[i][chosen] * suffixes.scale + table.units[chosen] + suffixes.values[i + 1][at]
        sort = np.argsort(value, kind="stable")
        chosen, value = chosen[sort], value[sort]
        chosen, value = chosen[value < NEVER], value[value < NEVER]
        if len(chosen):
            heapq.heappush(heap, (int(value[0]), next(order), 0, rows, chosen, value))

    if problem.tables:
        push((), 0, problem.capacity, np.zeros(len(names)))
    while heap:
        value, _, position, rows, chosen, values = heapq.heappop(heap)
        if position + 1 < len(chosen):
            heapq.heappush(heap, (int(values[position + 1]), next(order), position + 1, rows, chosen, values))
        extended = (*rows, int(chosen[position]))
        if len(extended) == len(problem.tables):
            yield Candidate(extended, value // suffixes.scale, value % suffixes.scale)
            continue
        spent = 0
        left = list(problem.capacity)
        latency = np.zeros(len(names))
        for i, row in enumerate(extended):
            table = problem.tables[i]
            spent += int(problem.cost[i][row]) * suffixes.scale + int(table.units[row])
            left[int(table.product[row])] -= int(table.units[row])
            latency += adds[i][:, row]
        push(extended, spent, tuple(left), latency)
