"""The best allocation that can be placed, latencies being sums over LLMs or makespans of call graphs.

A makespan is convex in the latencies of the LLMs, so a tangent bounds it from below, and a mean of tangents too. Each
round enumerates allocations along the mean of the tangents so far, best first, leaves out those that a single tangent
rules out, and evaluates the others by their true makespans; then it adds a tangent at the best of them (Kelley's
cutting planes, with the exact enumeration of sums instead of a linear program). It ends when no allocation is left that
could be better: the best allocation is then proven optimal.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scepsy.allocation.bandwidth_caps import with_best_caps
from scepsy.allocation.best_first import EFFORT, Candidate, Enumeration, Limit
from scepsy.allocation.branch_and_place import Solution, placed_or_none, solve_linear
from scepsy.allocation.dynamic_program import best_rows, suffix_values
from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.problem import RESOLUTION, Problem
from scepsy.demand import CriticalPath
from scepsy.pipeline.instance import Ints
from scepsy.placement import Inventory, Placed, Undecided

ROUNDS = 24
"""Rounds at most; each adds up to two tangents."""
BATCH = 48
"""Allocations that are evaluated together."""
EXCHANGES = 2_000
"""Allocations that are evaluated to improve one that was not proven optimal."""
BOUND_WEIGHTS = (1.0, 4.0, 16.0, 64.0, 256.0)
"""Weights that a workflow gets, one after the other, while one of its latencies exceeds its bound."""


def solve(problem: Problem, inventory: Inventory, effort: int = EFFORT) -> Solution:
    """Return the best allocation that can be placed.

    Args:
        problem: the problem.
        inventory: the GPUs.
        effort: options that the search may evaluate; each fallback gets a part of it.

    Raises:
        Infeasible: there is none, or none was found; the error says which.
    """
    first = solve_linear(problem, inventory, effort)
    return with_best_caps(first if problem.linear else _Search(problem, inventory, effort).run(first), inventory)


@dataclass
class _Best:
    """The best allocation so far."""

    objective: int
    units: int
    rows: tuple[int, ...]
    placed: tuple[Placed, ...]


@dataclass
class _Search:
    """One search by tangents.

    Attributes:
        problem: the problem.
        inventory: the GPUs.
        effort: options that all enumerations together may evaluate.
        best: the best allocation that keeps all bounds and can be placed.
        objectives: of every allocation that was evaluated.
        unsettled: least objective of an allocation for which it is undecided whether it can be placed.
        paths: the tangents.
        relaxed: allocations, found without regard to placement, at which tangents were added.
    """

    problem: Problem
    inventory: Inventory
    effort: int
    best: _Best | None = None
    objectives: dict[tuple[int, ...], int] = field(default_factory=dict)
    unsettled: int | None = None
    paths: list[Mapping[str, CriticalPath]] = field(default_factory=list)
    relaxed: set[tuple[int, ...]] = field(default_factory=set)

    def run(self, first: Solution) -> Solution:
        """Return the best allocation, given the one that is best along the problem's own tangents."""
        self.evaluate([first.rows])
        self.search_within_bounds()
        self.paths = [self.problem.paths, self.problem.tangents(self.best.rows if self.best else first.rows)]
        lower = round(first.lower_bound / RESOLUTION) - self.problem.slack
        nothing_left = False
        for _ in range(ROUNDS):
            known = len(self.paths)
            bound = self.round()
            if bound is None:
                nothing_left = True
                break
            lower = max(lower, bound)
            if self.best is not None and lower >= self.best.objective - self.problem.slack:
                nothing_left = True  # equal within rounding
                break
            if len(self.paths) == known:  # the next round would be the same
                break
        if self.best is None:
            raise Infeasible(self.problem, None, proven=nothing_left and self.unsettled is None)
        if nothing_left:
            lower = self.best.objective
        else:
            self.exchange()
        self.spare()
        return self.solution(first, lower)

    def round(self) -> int | None:
        """Evaluate the next allocations along the mean of the tangents, and add tangents at them.

        Returns:
            a lower bound of the objective of all other allocations; None if none is left that could be better.
        """
        linear = self.problem.along(_mean(self.paths))
        limits: list[Limit] = []
        if self.best is not None:
            most = self.best.objective - 1 + self.problem.slack
            cuts = [self.problem.along(path) for path in self.paths]
            limits = [Limit(cut.cost, most - cut.constant) for cut in cuts]
        search = Enumeration(linear, self.inventory, limits=limits, effort=self.effort // ROUNDS)
        new = [c.rows for c in itertools.islice((c for c in search.run() if c.rows not in self.objectives), BATCH)]
        self.evaluate(new)
        if search.bound is None:
            return None
        bound = linear.constant + search.bound - self.problem.slack
        if not new:
            # The enumeration reached no allocation within its effort. A tangent at the optimum without regard to
            # placement raises the bound all the same.
            suffixes = suffix_values(linear.tables, linear.cost, linear.capacity)
            rows = best_rows(linear.tables, linear.cost, suffixes)
            least = suffixes.best()
            if rows is None or least is None:
                return None
            new = [] if tuple(rows) in self.relaxed else [tuple(rows)]
            self.relaxed.update(new)
            bound = max(bound, linear.constant + least - self.problem.slack)
        points = {new[0], min(new, key=lambda rows: self.objectives.get(rows, 0))} if new else set()
        self.paths.extend(self.problem.tangents(rows) for rows in sorted(points))
        return bound

    def exchange(self) -> None:
        """Improve the best allocation if the search ended early: one LLM takes the units that another gives up."""
        assert self.best is not None  # noqa: S101
        left = EXCHANGES
        improved = True
        while improved and left > 0:
            improved = False
            rows = self.best.rows
            cost = self.problem.along(self.problem.tangents(rows)).cost
            tries = []
            for taker, giver in itertools.permutations(range(len(rows)), 2):
                more, less = self.neighbour(taker, rows, cost, 1), self.neighbour(giver, rows, cost, -1)
                if more is not None and less is not None:
                    gain = int(cost[taker][more] - cost[taker][rows[taker]])
                    loss = int(cost[giver][less] - cost[giver][rows[giver]])
                    changed = list(rows)
                    changed[taker], changed[giver] = more, less
                    tries.append((gain + loss, tuple(changed)))
            tries.sort()
            for at in range(0, min(len(tries), left), BATCH):
                before = self.best.objective
                self.evaluate([changed for _, changed in tries[at : at + BATCH]])
                left -= BATCH
                if self.best.objective < before:
                    improved = True
                    break

    def neighbour(self, t: int, rows: tuple[int, ...], cost: Sequence[Ints], direction: int) -> int | None:
        """Return the best option of one LLM that takes the next more units, or the next fewer."""
        units = self.problem.tables[t].units
        current = units[rows[t]]
        others = np.flatnonzero(units > current if direction > 0 else units < current)
        if not len(others):
            return None
        nearest = units[others].min() if direction > 0 else units[others].max()
        same = others[units[others] == nearest]
        return int(same[int(cost[t][same].argmin())])

    def search_within_bounds(self) -> None:
        """Search for an allocation that keeps the bounds by giving more weight to the workflows that have bounds."""
        for factor in BOUND_WEIGHTS:
            if self.best is not None:
                return
            heavy = {bound.workflow for bound in self.problem.bounds}
            weight = {n: w * (factor if n in heavy else 1.0) for n, w in self.problem.weight.items()}
            weighed = replace(self.problem, weight=weight).along(self.problem.paths)
            search = Enumeration(weighed, self.inventory, effort=self.effort // (2 * len(BOUND_WEIGHTS)))
            self.evaluate([candidate.rows for candidate in itertools.islice(search.run(), BATCH)])

    def evaluate(self, allocations: Iterable[tuple[int, ...]]) -> None:
        """Compute the true objective of allocations, and keep the best of them that can be placed."""
        new = [rows for rows in allocations if rows not in self.objectives]
        if not new:
            return
        objectives, kept = self.problem.evaluated(new)
        self.objectives.update(zip(new, objectives.tolist(), strict=True))
        for i in np.argsort(objectives, kind="stable").tolist():
            units = sum(int(t.units[row]) for t, row in zip(self.problem.tables, new[i], strict=True))
            if kept[i] and self.improves(int(objectives[i]), units):
                self.take(new[i], int(objectives[i]), units)

    def improves(self, objective: int, units: int) -> bool:
        """Return whether an allocation is better than the best so far; ties go to fewer units."""
        return self.best is None or (objective, units) < (self.best.objective, self.best.units)

    def take(self, rows: tuple[int, ...], objective: int, units: int) -> None:
        """Keep an allocation as the best if it can be placed."""
        try:
            placed = placed_or_none(self.problem, Candidate(rows, objective, units), self.inventory)
        except Undecided:
            self.unsettled = objective if self.unsettled is None else min(self.unsettled, objective)
            return
        if placed is not None:
            self.best = _Best(objective, units, rows, tuple(placed))

    def spare(self) -> None:
        """Give back units without gain: an LLM that is on no critical path can have a smaller option."""
        assert self.best is not None  # noqa: S101
        for t, table in enumerate(self.problem.tables):
            rows, before = self.best.rows, self.best.units
            # An option that costs more along this tangent has a higher objective.
            cost = self.problem.along(self.problem.tangents(rows)).cost[t]
            smaller = np.flatnonzero((table.units < table.units[rows[t]]) & (cost <= cost[rows[t]]))
            smaller = smaller[np.argsort(table.units[smaller], kind="stable")]
            for at in range(0, len(smaller), BATCH):
                self.evaluate([(*rows[:t], int(row), *rows[t + 1 :]) for row in smaller[at : at + BATCH]])
                if self.best.units < before:
                    break

    def solution(self, first: Solution, lower: int) -> Solution:
        """Return the best allocation with the proven bounds."""
        assert self.best is not None  # noqa: S101
        if self.unsettled is not None:
            lower = min(lower, self.unsettled)
        return Solution(
            rows=self.best.rows,
            problem=self.problem.along(self.problem.tangents(self.best.rows)),
            placed=self.best.placed,
            lower_bound=min(lower, self.best.objective) * RESOLUTION,
            unplaced_bound=min(first.unplaced_bound, self.best.objective * RESOLUTION),
            achieved=self.best.objective * RESOLUTION,
            tried=first.tried + len(self.objectives),
        )


def _mean(paths: Sequence[Mapping[str, CriticalPath]]) -> dict[str, CriticalPath]:
    """Return the mean of tangents, which is also a lower bound."""
    mean = dict(paths[0])
    for count, path in enumerate(paths[1:], start=2):
        mean = {name: path[name].mixed(before, 1 / count) for name, before in mean.items()}
    return mean
