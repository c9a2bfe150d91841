"""Allocations in order of their objective, best first.

The tables of the dynamic program are a perfect heuristic for best-first enumeration: placement tries allocations in
order until one can be placed, and has then refuted every better one.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scepsy.allocation.dynamic_program import NEVER, suffix_values
from scepsy.allocation.options import OptionTable
from scepsy.allocation.problem import Problem
from scepsy.performance.curves import Array
from scepsy.pipeline.instance import Ints
from scepsy.placement import TP_SIZES, Inventory, halved, volume

EFFORT = 10_000_000
"""Options that one enumeration may evaluate: a few seconds."""
FULL = 10**9
"""A GPU's memory bandwidth in the integers in which bandwidths are counted."""
SLACK = 10**4
"""Tolerance for rounding, in parts of FULL."""


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


@dataclass(frozen=True)
class Limit:
    """A bound on a second cost, beside the one that orders the candidates.

    Attributes:
        cost: per LLM, (B,) the second cost of each option.
        most: the greatest sum that is allowed.
    """

    cost: tuple[Ints, ...]
    most: int


def first_guess(problem: Problem, inventory: Inventory) -> Candidate | None:
    """Return a good allocation quickly: for one LLM after the other the best option; None if none is found."""
    search = Enumeration(problem, inventory)
    prefix, value = search.empty(), 0
    for _ in problem.tables:
        chosen, values = search.ordered(prefix)
        if not len(chosen):
            return None
        value = int(values[0])
        prefix = search.extended(prefix, int(chosen[0]))
    return search.candidate(prefix.rows, value)


class Enumeration:
    """Allocations in order of their objective, ties by units.

    Allocations are left out that break a workflow's latency bound, or that need more GPU sets than the domains of the
    inventory have, however well fractions pack.

    It is best-first over prefixes: a heap entry stands for the j-th best choice of the next LLM after a given prefix.

    The LLMs with the largest costs are decided first: options that do not pack then show early, where they rule out
    many allocations at once (tried: 76 instead of 3,300 prefixes for five LLMs on 16 GPUs).

    Args:
        problem: the problem.
        inventory: the GPUs.
        known: an allocation that can be placed; worse ones are left out, which saves time.
        limits: allocations that exceed one of them are left out.
        effort: options that may be evaluated.

    Attributes:
        left: options that may still be evaluated; below 0 the enumeration ends early.
        bound: no allocation that has not been yielded costs less; None once all have been.
    """

    def __init__(
        self,
        problem: Problem,
        inventory: Inventory,
        known: Candidate | None = None,
        limits: Sequence[Limit] = (),
        effort: int = EFFORT,
    ) -> None:
        self.left = effort
        self.bound: int | None = 0
        self.position = sorted(range(len(problem.tables)), key=lambda i: (-int(problem.cost[i].min(initial=NEVER)), i))
        problem = replace(
            problem,
            tables=tuple(problem.tables[i] for i in self.position),
            cost=tuple(problem.cost[i] for i in self.position),
        )
        self.problem = problem
        self.suffixes = suffix_values(problem.tables, problem.cost, problem.capacity)
        self.at_most = NEVER - 1 if known is None else known.cost * self.suffixes.scale + known.units
        self.heap: list[tuple[int, int, int, _Prefix, Ints, Ints]] = []
        self.order = itertools.count()
        bounds = sorted((bound.workflow, bound.seconds) for bound in problem.bounds if bound.quantile is None)
        # Per LLM, what each option adds to every sum that is bounded: latencies of workflows, and the second cost.
        self.adds = []
        for i, table in enumerate(problem.tables):
            added = [problem.path_latency(i, name) for name, _ in bounds]
            added += [limit.cost[self.position[i]].astype(float) for limit in limits]
            self.adds.append(np.stack(added) if added else np.zeros((0, len(table.index))))
        allowed = [seconds - problem.paths[name].outside + 1e-12 for name, seconds in bounds]
        self.allowed = np.array(allowed + [limit.most for limit in limits], dtype=float)
        # The least that the LLMs from i on can add, for pruning.
        self.least = [np.zeros(len(self.allowed))]
        for sums in reversed(self.adds):
            self.least.insert(0, self.least[0] + (sums.min(axis=1) if sums.shape[1] else np.inf))
        products = problem.tables[0].products if problem.tables else ()
        self.slots = np.array([[inventory.groups(p, size) * size for size in TP_SIZES] for p in products])
        self.sets = [_set_needs(table) for table in problem.tables]

    def run(self) -> Iterator[Candidate]:
        """Yield the allocations."""
        problem = self.problem
        if problem.tables:
            self.push(self.empty())
        while self.heap:
            self.bound = self.heap[0][0] // self.suffixes.scale
            if self.left < 0:
                return
            value, _, position, prefix, chosen, values = heapq.heappop(self.heap)
            if position + 1 < len(chosen):
                following = int(values[position + 1])
                heapq.heappush(self.heap, (following, next(self.order), position + 1, prefix, chosen, values))
            row = int(chosen[position])
            if len(prefix.rows) + 1 == len(problem.tables):
                yield self.candidate((*prefix.rows, row), value)
            else:
                self.push(self.extended(prefix, row))
        self.bound = None

    def candidate(self, rows: tuple[int, ...], value: int) -> Candidate:
        """Return a whole allocation, its LLMs in the order of the problem that was given."""
        given = [row for _, row in sorted(zip(self.position, rows, strict=True))]
        return Candidate(tuple(given), value // self.suffixes.scale, value % self.suffixes.scale)

    def empty(self) -> _Prefix:
        """Return the prefix of no LLM."""
        nothing = np.zeros((len(self.problem.capacity), len(TP_SIZES), 7), dtype=np.int64)
        return _Prefix((), 0, self.problem.capacity, np.zeros(len(self.allowed)), nothing)

    def extended(self, prefix: _Prefix, row: int) -> _Prefix:
        """Return the prefix with one more LLM decided."""
        i = len(prefix.rows)
        table = self.problem.tables[i]
        product, size, need = self.sets[i]
        units = int(table.units[row])
        left = tuple(c - units * (p == product[row]) for p, c in enumerate(prefix.left))
        needs = prefix.needs.copy()
        needs[product[row], size[row]] = _both(needs[product[row], size[row]], need[row])
        spent = prefix.spent + int(self.problem.cost[i][row]) * self.suffixes.scale + units
        return _Prefix((*prefix.rows, row), spent, left, prefix.latency + self.adds[i][:, row], needs)

    def push(self, prefix: _Prefix) -> None:
        """Put the best option of the next LLM after a prefix on the heap; it leads to the others."""
        chosen, values = self.ordered(prefix)
        if len(chosen):
            heapq.heappush(self.heap, (int(values[0]), next(self.order), 0, prefix, chosen, values))

    def ordered(self, prefix: _Prefix) -> tuple[Ints, Ints]:
        """Return the options of the next LLM after a prefix that can lead to a plan, best first, and their values."""
        i = len(prefix.rows)
        table = self.problem.tables[i]
        self.left -= len(table.index) + 100
        chosen = np.flatnonzero(table.units <= np.array(prefix.left)[table.product])
        product, units = table.product[chosen], table.units[chosen]
        at = tuple(
            (c - units * (product == p)) // g
            for p, (c, g) in enumerate(zip(prefix.left, self.suffixes.grain, strict=True))
        )
        value = prefix.spent + self.problem.cost[i][chosen] * self.suffixes.scale + units
        value += self.suffixes.values[i + 1][at]
        keep = value <= self.at_most
        if len(self.allowed):
            latency = prefix.latency[:, None] + self.adds[i][:, chosen] + self.least[i + 1][:, None]
            keep &= (latency <= self.allowed[:, None]).all(axis=0)
        chosen, value = chosen[keep], value[keep]
        fits = self.fits(prefix, i, chosen)
        chosen, value = chosen[fits], value[fits]
        order = np.argsort(value, kind="stable")
        return chosen[order], value[order]

    def fits(self, prefix: _Prefix, i: int, chosen: Ints) -> npt.NDArray[np.bool_]:
        """Return which options of LLM i fit into the domains beside the prefix, if fractions packed without waste."""
        product, size, need = (column[chosen] for column in self.sets[i])
        needs = np.repeat(prefix.needs[None], len(chosen), axis=0)
        at = np.arange(len(chosen)), product, size
        needs[at] = _both(needs[at], need)
        whole, tenths, large, wide, width, drawn, reserve = (needs[..., column] for column in range(7))
        drawn = np.maximum(width, drawn + reserve)
        shared = np.max([-(-tenths // 10), -(-(drawn - SLACK) // FULL), large, wide], axis=0)
        gpus = (whole + shared) * np.array(TP_SIZES)
        # A larger group takes several slots of a smaller size: all groups down to a size must fit into its slots.
        return np.asarray((np.cumsum(gpus, axis=2) <= self.slots).all(axis=(1, 2)))


@dataclass(frozen=True)
class _Prefix:
    """The first LLMs, decided.

    Attributes:
        rows: their options.
        spent: cost · scale + units.
        left: units left, per product.
        latency: the bounded sums so far.
        needs: (products, TP sizes, 7) instances on whole GPUs; of the others the tenths, how many have more than half
            of these and of the bandwidth (`bin_packing.halved`), so that no two of them fit together, and in parts of
            FULL the sum of `bin_packing.volume`, that of what they draw, and the largest reserve, which one set needs
            in addition.
    """

    rows: tuple[int, ...]
    spent: int
    left: tuple[int, ...]
    latency: Array
    needs: Ints


def _set_needs(table: OptionTable) -> tuple[Ints, Ints, Ints]:
    """Return per option its product, its TP size as an index, and what it adds to a prefix' `needs`."""
    if not len(table.index):
        return table.product, table.product, np.zeros((0, 7), dtype=np.int64)
    size = np.array([TP_SIZES.index(m.shape.tp) for m in table.models], dtype=np.int64)[table.index]
    tenths, width, reserve = table.tenths, table.width, table.reserve
    shared = np.where(tenths < 10, table.replicas, 0)
    sums = [
        table.replicas - shared,
        shared * tenths,
        shared * (2 * tenths > 10),
        shared * (halved(width, reserve) > 0.5 + SLACK / FULL),
        shared * np.rint(volume(width, reserve, tenths / 10) * FULL),
        shared * np.rint(width * FULL),
        (shared > 0) * np.rint(reserve * FULL),
    ]
    return table.product, size, np.stack(sums, axis=1).astype(np.int64)


def _both(needs: Ints, more: Ints) -> Ints:
    """Return the needs of two groups of instances together: sums, and the larger of the last column."""
    together = needs + more
    together[..., -1] = np.maximum(needs[..., -1], more[..., -1])
    return together
