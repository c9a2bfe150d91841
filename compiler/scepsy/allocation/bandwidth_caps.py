"""The best bandwidth caps for instances that are placed.

Each instance on a shared GPU is planned with a cap on the memory bandwidth, so that others get the rest
(`performance.co_tenants`). Several choices of caps fit a placement, and a search that ends early may not have found the
best one. So a placement that is kept, that of the plan in force or of the search, gets the best caps; otherwise the
next compile would find them and change a plan that was just made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from scepsy.allocation.best_first import Candidate, Enumeration
from scepsy.allocation.branch_and_place import Solution, placed_or_none
from scepsy.allocation.options import only
from scepsy.allocation.problem import RESOLUTION, Problem
from scepsy.pipeline import Shape
from scepsy.pipeline.instance import Ints
from scepsy.placement import Inventory, Placed, Undecided
from scepsy.placement.bin_packing import Size, joined

_MAX_CANDIDATES = 3_000
"""Allocations that are tried for one placement, best first."""
_EFFORT = 400_000
"""Options that the search for them may examine."""
_STEPS = 50_000
"""Steps of the exact search among the LLMs that share GPUs with each other."""


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
    if problem.linear and not problem.bounds:
        return _separately(problem, inventory, [np.flatnonzero(keep) for keep in same], placed)
    tables = tuple(only(table, keep) for table, keep in zip(problem.tables, same, strict=True))
    cost = tuple(costs[keep] for costs, keep in zip(problem.cost, same, strict=True))
    search = Enumeration(replace(problem, tables=tables, cost=cost), inventory, effort=_EFFORT)
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


def _separately(
    problem: Problem, inventory: Inventory, choices: Sequence[Ints], placed: Sequence[Placed]
) -> tuple[Candidate, list[Placed]] | None:
    """Return the best allocation where the objective is a sum: LLMs that share no GPUs do not matter to each other.

    Args:
        problem: the problem.
        inventory: the GPUs.
        choices: per LLM, its rows of the shape and the number that are placed.
        placed: all instances.
    """
    number = {table.load.name: i for i, table in enumerate(problem.tables)}
    sets: dict[tuple[str, ...], list[int]] = {}
    for item in placed:
        sets.setdefault(item.gpus, []).append(number[item.llm])
    rows: dict[int, int] = {}
    for llms in _components(len(choices), sets.values()):
        shared = [members for members in sets.values() if members[0] in llms]
        best = _best_rows(problem, choices, sorted(llms), shared)
        if best is None:
            return None
        rows |= best
    chosen = tuple(rows[i] for i in range(len(choices)))
    cost = sum(int(c[row]) for c, row in zip(problem.cost, chosen, strict=True))
    units = sum(int(t.units[row]) for t, row in zip(problem.tables, chosen, strict=True))
    candidate = Candidate(chosen, cost, units)
    try:
        found = placed_or_none(problem, candidate, inventory, placed)
    except Undecided:
        return None
    return None if found is None else (candidate, found)


def _components(count: int, sets: Iterable[Sequence[int]]) -> list[set[int]]:
    """Return the groups of LLMs that are connected by GPU sets that they share."""
    group = [{i} for i in range(count)]
    for members in sets:
        together = set().union(*(group[i] for i in members))
        for i in together:
            group[i] = together
    return [llms for i, llms in enumerate(group) if min(llms) == i]


def _best_rows(
    problem: Problem, choices: Sequence[Ints], llms: Sequence[int], sets: Sequence[Sequence[int]]
) -> dict[int, int] | None:
    """Return the cheapest rows of LLMs whose instances fit on their GPU sets; None if none was found.

    A depth-first search, the cheapest rows first; what is cut off costs no less than the best so far.
    """
    ordered = {i: choices[i][np.argsort(problem.cost[i][choices[i]], kind="stable")].tolist() for i in llms}
    # The LLMs in which most is at stake are decided first.
    order = sorted(llms, key=lambda i: (-_spread(problem.cost[i][choices[i]]), i))
    least = [0] * (len(order) + 1)
    for at in range(len(order) - 1, -1, -1):
        least[at] = least[at + 1] + int(problem.cost[order[at]][ordered[order[at]][0]])
    parts = {i: {row: problem.tables[i].request(row).part.size for row in ordered[i]} for i in llms}
    best: list[tuple[int, dict[int, int]]] = []
    steps = _STEPS

    def extend(at: int, spent: int, held: list[Size | None], rows: dict[int, int]) -> None:
        nonlocal steps
        if at == len(order):
            best[:] = [(spent, dict(rows))]
            return
        i = order[at]
        for row in ordered[i]:
            cost = spent + int(problem.cost[i][row])
            steps -= 1
            if steps < 0 or (best and cost + least[at + 1] >= best[0][0]):
                return
            now = _with(held, sets, i, parts[i][row])
            if now is not None:
                extend(at + 1, cost, now, {**rows, i: row})

    extend(0, 0, [None] * len(sets), {})
    return best[0][1] if best else None


def _spread(cost: Ints) -> int:
    return int(cost.max() - cost.min())


def _with(held: list[Size | None], sets: Sequence[Sequence[int]], llm: int, size: Size) -> list[Size | None] | None:
    """Return what the sets hold with the instances of one more LLM; None if one of them does not fit."""
    now = list(held)
    for s, members in enumerate(sets):
        for _ in range(members.count(llm)):
            before = now[s]
            both = size if before is None else joined(before, size)
            if both is None:
                return None
            now[s] = both
    return now
