"""The best allocation that can be placed, with its certificate."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.options import OptionTable
from scepsy.allocation.problem import RESOLUTION, Problem
from scepsy.allocation.programme import suffix_values
from scepsy.allocation.search import Candidate, candidates, first_guess
from scepsy.pipeline import LlmOutcome
from scepsy.placement import Inventory, Placed, Undecided, place

MAX_CANDIDATES = 3000
"""Allocations that are tried in order of their objective. Beyond, shapes are restricted to those that pack without
waste, and the certificate reports the gap that is left."""


@dataclass(frozen=True)
class Solution:
    """An allocation, its placement and its certificate.

    Attributes:
        rows: per LLM, the row of its table in `problem`.
        problem: what was solved.
        placed: every instance.
        lower_bound: no allocation that can be placed has a smaller objective.
        unplaced_bound: the least objective without regard to placement.
        achieved: its objective.
        tried: allocations that were tried.
    """

    rows: tuple[int, ...]
    problem: Problem
    placed: tuple[Placed, ...]
    lower_bound: float
    unplaced_bound: float
    achieved: float
    tried: int

    @property
    def gap(self) -> float:
        """(achieved − lower bound) ÷ lower bound."""
        return (self.achieved - self.lower_bound) / self.lower_bound if self.lower_bound else 0.0

    @property
    def outcomes(self) -> list[LlmOutcome]:
        """What every LLM does."""
        return [table.outcome(row) for table, row in zip(self.problem.tables, self.rows, strict=True)]


def solve(problem: Problem, inventory: Inventory) -> Solution:
    """Return the best allocation that can be placed.

    Raises:
        Infeasible: there is none.
    """
    empty = [table for table in problem.tables if not len(table.index)]
    if empty:
        raise Infeasible(problem, empty[0])
    known = _known(problem, inventory)
    unplaced = suffix_values(problem.tables, problem.cost, problem.capacity).best()
    if unplaced is None:
        raise Infeasible(problem, None)
    bound, tried, proving = unplaced, 0, True
    for stage in (problem, _packable(problem)):
        for candidate in itertools.islice(candidates(stage, inventory, known), MAX_CANDIDATES):
            tried += 1
            # Candidates come in order: all cheaper ones have been refuted, as long as every refutation was exact.
            bound = candidate.cost if proving else bound
            try:
                placed = _placed(stage, candidate, inventory)
            except Undecided:
                proving, placed = False, None
            if placed is not None:
                return _solution(problem, _original(problem, stage, candidate), placed, (unplaced, bound, tried))
        proving = False
    if known is not None:
        placed = _placed(problem, known, inventory)
        return _solution(problem, known, placed or [], (unplaced, bound, tried))
    raise Infeasible(problem, None)


def _solution(problem: Problem, chosen: Candidate, placed: list[Placed], search: tuple[int, int, int]) -> Solution:
    """Put a solution together; `search` holds the unplaced bound, the proven bound, and how many were tried."""
    unplaced, bound, tried = search
    return Solution(
        rows=chosen.rows,
        problem=problem,
        placed=tuple(placed),
        lower_bound=(problem.constant + bound) * RESOLUTION,
        unplaced_bound=(problem.constant + unplaced) * RESOLUTION,
        achieved=(problem.constant + chosen.cost) * RESOLUTION,
        tried=tried,
    )


def _known(problem: Problem, inventory: Inventory) -> Candidate | None:
    """Return an allocation that can be placed, where one is found at once."""
    guess = first_guess(problem, inventory)
    try:
        return guess if guess is not None and _placed(problem, guess, inventory) is not None else None
    except Undecided:
        return None


def _placed(problem: Problem, candidate: Candidate, inventory: Inventory) -> list[Placed] | None:
    requests = [table.request(row) for table, row in zip(problem.tables, candidate.rows, strict=True)]
    return place(requests, inventory)


def _packable(problem: Problem) -> Problem:
    """Keep the options that always pack: shares that divide each other, and no more bandwidth than share."""
    tables, costs = [], []
    for table, cost in zip(problem.tables, problem.cost, strict=True):
        tenths = np.array([m.shape.tenths for m in table.models], dtype=np.int64)[table.index]
        keep = np.isin(tenths, (1, 5, 10)) & ((tenths == 10) | (table.bandwidth <= tenths / 10))
        tables.append(_only(table, keep))
        costs.append(cost[keep])
    return replace(problem, tables=tuple(tables), cost=tuple(costs))


def _only(table: OptionTable, keep: np.ndarray) -> OptionTable:
    return replace(
        table,
        index=table.index[keep],
        replicas=table.replicas[keep],
        product=table.product[keep],
        units=table.units[keep],
        latency=table.latency[:, keep],
        utilisation=table.utilisation[keep],
        bandwidth=table.bandwidth[keep],
    )


def _original(problem: Problem, stage: Problem, candidate: Candidate) -> Candidate:
    """Return the allocation in rows of the full tables that a candidate of restricted ones means."""
    if stage is problem:
        return candidate
    rows = []
    for full, part, row in zip(problem.tables, stage.tables, candidate.rows, strict=True):
        same = (full.index == part.index[row]) & (full.replicas == part.replicas[row])
        rows.append(int(np.flatnonzero(same)[0]))
    return replace(candidate, rows=tuple(rows))
