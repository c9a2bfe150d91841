"""The best bandwidth caps for instances that are placed.

Each instance on a shared GPU is planned with a cap on the memory bandwidth, so that others get the rest
(`performance.co_tenants`). Several choices of caps fit a placement, and a search that ends early may not have found the
best one. So a placement that is kept, that of the plan in force or of the search, gets the best caps; otherwise the
next compile would find them and change a plan that was just made.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scepsy.allocation.branch_and_place import Solution, placed_or_none
from scepsy.allocation.options import only
from scepsy.allocation.problem import RESOLUTION, Problem
from scepsy.allocation.search import Candidate, Enumeration
from scepsy.pipeline import Shape
from scepsy.placement import Inventory, Placed, Undecided

_MAX_CANDIDATES = 3_000
"""Allocations that are tried for one placement, best first."""


def with_best_caps(solution: Solution, inventory: Inventory) -> Solution:
    """Return a solution with the best bandwidth caps for its placement; itself if it has them.

    Args:
        solution: the solution.
        inventory: the GPUs.
    """
    found = best_caps(solution.problem, inventory, shapes_of(solution), solution.placed)
    better = with_rows(solution, *found) if found is not None else solution
    return better if better.achieved < solution.achieved else solution


def shapes_of(solution: Solution) -> dict[str, tuple[Shape, int]]:
    """Return per LLM the shape of its instances and how many there are."""
    tables = solution.problem.tables
    options = [table.option(row) for table, row in zip(tables, solution.rows, strict=True)]
    return {t.load.name: (option.shape, option.replicas) for t, option in zip(tables, options, strict=True)}


def with_rows(solution: Solution, candidate: Candidate, placed: Sequence[Placed]) -> Solution:
    """Return a solution with another allocation; the bounds that were proven stay."""
    problem = solution.problem
    achieved = problem.objective(candidate.rows)
    return replace(
        solution,
        rows=candidate.rows,
        problem=problem if problem.linear else problem.along(problem.tangents(candidate.rows)),
        placed=tuple(placed),
        achieved=achieved,
        lower_bound=min(solution.lower_bound, achieved),
    )


def best_caps(
    problem: Problem, inventory: Inventory, shapes: Mapping[str, tuple[Shape, int]], placed: Sequence[Placed]
) -> tuple[Candidate, list[Placed]] | None:
    """Return the best allocation of certain shapes that fits where the instances are.

    Args:
        problem: the problem.
        inventory: the GPUs.
        shapes: per LLM the shape of its instances and how many there are.
        placed: the instances, all of them.

    Returns:
        the allocation and the places; None if instances of these shapes do not sustain the load there.
    """
    same = []
    for table in problem.tables:
        shape, replicas = shapes[table.load.name]
        shaped = np.array([model.shape == shape for model in table.models], dtype=bool)
        same.append(shaped[table.index] & (table.replicas == replicas))
        if not same[-1].any():
            return None
    tables = tuple(only(table, keep) for table, keep in zip(problem.tables, same, strict=True))
    cost = tuple(costs[keep] for costs, keep in zip(problem.cost, same, strict=True))
    search = Enumeration(replace(problem, tables=tables, cost=cost), inventory)
    best: tuple[Candidate, list[Placed]] | None = None
    least = np.inf
    for candidate in itertools.islice(search.run(), _MAX_CANDIDATES):
        # The cost along a tangent is a lower bound of the objective: no later candidate can be better.
        if problem.constant + candidate.cost - problem.slack >= least:
            break
        rows = tuple(int(np.flatnonzero(keep)[row]) for keep, row in zip(same, candidate.rows, strict=True))
        objective = round(problem.objective(rows) / RESOLUTION)
        if objective >= least or not problem.bounded(rows):
            continue
        try:
            found = placed_or_none(problem, replace(candidate, rows=rows), inventory, placed)
        except Undecided:
            continue
        if found is not None:
            best, least = (replace(candidate, rows=rows), found), objective
    return best
