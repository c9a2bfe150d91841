"""The best allocation that can be placed where latencies are sums over LLMs, with its certificate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scepsy.allocation.annealing import anneal
from scepsy.allocation.best_first import EFFORT, Candidate, Enumeration, first_guess
from scepsy.allocation.dynamic_program import suffix_values
from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.options import OptionTable, only
from scepsy.allocation.problem import RESOLUTION, Problem, beyond_reach
from scepsy.allocation.relaxation import Relaxation, relax, use_of
from scepsy.performance.curves import Array
from scepsy.pipeline import LlmOutcome
from scepsy.pipeline.instance import Ints
from scepsy.placement import TP_SIZES, Inventory, Placed, Undecided, place

MAX_CANDIDATES = 2000
"""Allocations that one enumeration tries in order of their objective."""
CHAIN = 20_000
"""Moves of one chain of simulated annealing."""
_MOVES_PER_LLM = 1_000
"""Moves of one chain per LLM: few LLMs have few combinations, and the enumeration does the rest."""
_PER_MOVE = 250
"""What a move counts for, in options that are examined."""
_FIRST = 8
"""Part of the effort that goes into the first enumeration: one over this. It proves five LLMs on 16 GPUs."""
_QUICK = 32
"""Part of the effort that goes into an enumeration that is likely to end early: one over this."""
_FEW = 20_000
"""So many options left by the relaxation are enumerated with the whole effort."""


@dataclass(frozen=True)
class Solution:
    """An allocation, its placement and its certificate.

    Attributes:
        rows: per LLM, the row of its table in `problem`.
        problem: what was solved.
        placed: every instance.
        lower_bound: proven: no allocation that can be placed has a smaller objective.
        unplaced_bound: the least objective without regard to placement.
        achieved: its objective, by the makespans of the problem.
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
        """The outcome of every LLM."""
        return [table.outcome(row) for table, row in zip(self.problem.tables, self.rows, strict=True)]


def solve_linear(problem: Problem, inventory: Inventory, effort: int = EFFORT) -> Solution:
    """Return the allocation of least cost along the problem's tangents that can be placed.

    Best-first until one can be placed: it is then proven optimal. If that takes too long, the relaxation bounds the
    problem, simulated annealing finds allocations along its prices (those that pack by construction are the fallback),
    and what the bound leaves is enumerated once more. The gap to the proven bound is reported.

    Args:
        problem: the problem.
        inventory: the GPUs.
        effort: options that the search may evaluate; each of its steps gets a part of it.

    Raises:
        Infeasible: there is none, or none was found; the error says which.
    """
    empty = [table for table in problem.tables if not len(table.index)]
    if empty:
        raise Infeasible(problem, empty[0])
    if beyond_reach(problem):
        raise Infeasible(problem, None)
    unplaced = suffix_values(problem.tables, problem.cost, problem.capacity).best()
    if unplaced is None:
        raise Infeasible(problem, None)
    best = _known(problem, inventory)
    first = _enumerated(problem, inventory, best, effort // _FIRST)
    if first.found is not None:
        return _solution(problem, first.found, (unplaced, first.bound, first.tried))
    if first.exhausted and best is None:
        raise Infeasible(problem, None)
    # Too many to enumerate: a better bound, allocations along its prices, and an enumeration of what these leave.
    relaxation = relax(problem, inventory)
    if not relaxation.feasible:
        raise Infeasible(problem, None)
    starts = _annealed(problem, inventory, relaxation, effort)
    if not starts:
        starts = [*_packable(problem, inventory, effort), *_climbed(problem, inventory, effort // 4000)]
    if best is not None:
        starts.append(best)
    best = min(starts, key=_order, default=None)
    most = None if best is None else best[0].cost
    kept = [np.flatnonzero(_possible(relaxation, reduced, most)) for reduced in relaxation.reduced]
    left = effort if sum(map(len, kept)) <= _FEW else effort // _QUICK
    second = _enumerated(problem, inventory, best, left, kept)
    tried = first.tried + second.tried + len(starts)
    if second.found is not None:
        return _solution(problem, second.found, (unplaced, max(first.bound, second.bound), tried))
    if best is None:
        raise Infeasible(problem, None, proven=second.exhausted)
    bound = max(unplaced, first.bound, relaxation.bound, second.bound)
    return _solution(problem, best, (unplaced, min(bound, best[0].cost), tried))


Start = tuple[Candidate, list[Placed]]
"""An allocation and where its instances are."""


def _order(start: Start) -> tuple[int, int]:
    """Return what the best of several allocations has least of: cost, then units."""
    return start[0].cost, start[0].units


def _possible(relaxation: Relaxation, reduced: Array, most: int | None) -> npt.NDArray[np.bool_]:
    """Return which options of an LLM an allocation can have that costs at most so much."""
    return np.ones(len(reduced), dtype=bool) if most is None else relaxation.bound + reduced <= most + 1


@dataclass(frozen=True)
class _Enumerated:
    """What an enumeration found out.

    Attributes:
        found: the first allocation that could be placed; None if the enumeration ended before.
        bound: no allocation that can be placed costs less.
        exhausted: whether all allocations were refuted.
        tried: how many were tried.
    """

    found: Start | None
    bound: int
    exhausted: bool
    tried: int


def _enumerated(
    problem: Problem, inventory: Inventory, known: Start | None, effort: int, kept: Sequence[Ints] | None = None
) -> _Enumerated:
    """Try allocations in order of their cost until one can be placed.

    Args:
        problem: the problem.
        inventory: the GPUs.
        known: the best allocation so far; none that costs more is of interest.
        effort: options that may be examined.
        kept: per LLM the rows that matter; all of them if None.
    """
    part, start = problem, None if known is None else known[0]
    if kept is not None:
        tables = tuple(only(table, rows) for table, rows in zip(problem.tables, kept, strict=True))
        part = replace(problem, tables=tables, cost=tuple(c[rows] for c, rows in zip(problem.cost, kept, strict=True)))
    search = Enumeration(part, inventory, start, effort=effort)
    bound, tried, exact = 0, 0, True
    for candidate in itertools.islice(search.run(), MAX_CANDIDATES):
        tried += 1
        # Candidates come in order: all cheaper ones have been refuted, as long as every refutation was exact.
        bound = candidate.cost if exact else bound
        try:
            placed = placed_or_none(part, candidate, inventory)
        except Undecided:
            exact, placed = False, None
        if placed is not None:
            rows = candidate.rows
            if kept is not None:
                rows = tuple(int(of_table[row]) for of_table, row in zip(kept, rows, strict=True))
            # Where a cheaper one was left undecided, this one is the best that is known, with a gap.
            return _Enumerated((replace(candidate, rows=rows), placed), bound, False, tried)
    if exact and search.bound is not None:
        bound = max(bound, search.bound)
    return _Enumerated(None, bound, exact and search.bound is None, tried)


def _annealed(problem: Problem, inventory: Inventory, relaxation: Relaxation, effort: int) -> list[Start]:
    """Return the best allocation of every chain of simulated annealing that can be placed."""
    uses = [use_of(table, cost) for table, cost in zip(problem.tables, problem.cost, strict=True)]
    found: list[Start] = []
    moves = min(CHAIN, effort // _PER_MOVE, _MOVES_PER_LLM * len(problem.tables))
    for seed in range(max(1, effort // (CHAIN * _PER_MOVE))):
        for rows in anneal(uses, relaxation, inventory, seed, moves):
            cost = sum(int(costs[row]) for costs, row in zip(problem.cost, rows, strict=True))
            units = sum(int(table.units[row]) for table, row in zip(problem.tables, rows, strict=True))
            candidate = Candidate(rows, cost, units)
            placed = _attempt(problem, rows, inventory) if problem.bounded(rows) else None
            if placed is not None:
                found.append((candidate, placed))
                break
    return found


def _solution(problem: Problem, found: Start, search: tuple[int, int, int]) -> Solution:
    """Return a solution; `search` has the unplaced bound, the proven bound, and how many allocations were tried."""
    chosen, placed = found
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


def _known(problem: Problem, inventory: Inventory) -> Start | None:
    """Return an allocation that can be placed, where one is found at once."""
    guess = first_guess(problem, inventory)
    placed = None if guess is None else _attempt(problem, guess.rows, inventory)
    return None if guess is None or placed is None else (guess, placed)


def placed_or_none(
    problem: Problem, candidate: Candidate, inventory: Inventory, pinned: Sequence[Placed] = ()
) -> list[Placed] | None:
    """Place an allocation; None if that cannot be done.

    Args:
        problem: the problem.
        candidate: the allocation.
        inventory: the GPUs.
        pinned: instances of it that stay where they are.

    Raises:
        Undecided: the search ended before it was known whether it can be placed.
    """
    requests = [table.request(row) for table, row in zip(problem.tables, candidate.rows, strict=True)]
    return place(requests, inventory, pinned)


def _climbed(problem: Problem, inventory: Inventory, steps: int) -> list[tuple[Candidate, list[Placed]]]:
    """Return an allocation from the smallest one by giving one LLM after the other what can still be placed.

    Args:
        problem: the problem.
        inventory: the GPUs.
        steps: placements that may be tried.
    """
    starts = []
    for degrees in (*((tp,) for tp in TP_SIZES), TP_SIZES):
        smallest = [_smallest(table, cost, degrees) for table, cost in zip(problem.tables, problem.cost, strict=True)]
        placed = _attempt(problem, smallest, inventory)
        if placed is not None:
            starts.append((sum(int(c[r]) for c, r in zip(problem.cost, smallest, strict=True)), smallest, placed))
    if not starts:
        return []
    _, rows, best = min(starts, key=lambda start: start[:2])
    improved = True
    while improved and steps > 0:
        improved = False
        for i in sorted(range(len(rows)), key=lambda i: -int(problem.cost[i][rows[i]])):
            now = rows[i]
            better = [
                int(b) for b in np.argsort(problem.cost[i], kind="stable") if problem.cost[i][b] < problem.cost[i][now]
            ]
            # Halve the list towards what fits: options that cost less take more.
            while better and steps > 0:
                rows[i] = better[len(better) // 2]
                steps -= 1
                placed = _attempt(problem, rows, inventory)
                if placed is None:
                    better = better[len(better) // 2 + 1 :]
                else:
                    best, now, improved = placed, rows[i], True
                    better = better[: len(better) // 2]
            rows[i] = now
    candidate = Candidate(
        tuple(rows),
        sum(int(c[r]) for c, r in zip(problem.cost, rows, strict=True)),
        sum(int(t.units[r]) for t, r in zip(problem.tables, rows, strict=True)),
    )
    return [(candidate, best)] if problem.bounded(candidate.rows) else []


def _smallest(table: OptionTable, cost: Ints, degrees: tuple[int, ...]) -> int:
    """Return the smallest option, with bandwidth counted as share, preferably of some tensor-parallel degrees."""
    preferred = np.isin(np.array([m.shape.tp for m in table.models], dtype=np.int64)[table.index], degrees)
    _, charged = _charged(table, TP_SIZES, TENTHS)
    size = charged.units
    return int(np.lexsort((cost, size, ~preferred))[0])


def _attempt(problem: Problem, rows: Sequence[int], inventory: Inventory) -> list[Placed] | None:
    try:
        return placed_or_none(problem, Candidate(tuple(rows), 0, 0), inventory)
    except Undecided:
        return None


TENTHS = tuple(range(1, 11))
DIVISIBLE = (1, 5, 10)
"""Tenths that divide each other: instances of such sizes pack whenever their sum fits."""


def _packable(problem: Problem, inventory: Inventory, effort: int) -> list[tuple[Candidate, list[Placed]]]:
    """Return allocations that pack easily, with their places; the rows are those of the full tables.

    Every instance is charged for its bandwidth as if it were share, so that one dimension is left to pack; where that
    is not enough, 1, 5 or 10 tenths, and at last without tensor parallelism, where the sum alone decides.
    """
    found = []
    for degrees, sizes in ((TP_SIZES, TENTHS), (TP_SIZES, DIVISIBLE), ((1,), DIVISIBLE)):
        parts = [_charged(table, degrees, sizes) for table in problem.tables]
        rows, tables = [kept for kept, _ in parts], tuple(table for _, table in parts)
        if not all(len(kept) for kept in rows):
            continue
        cost = tuple(cost[kept] for cost, kept in zip(problem.cost, rows, strict=True))
        charged = replace(problem, tables=tables, cost=cost)
        guess = first_guess(charged, inventory)
        search = itertools.islice(Enumeration(charged, inventory, effort=effort // 4).run(), 50)
        for candidate in itertools.chain(search, [guess] if guess is not None else []):
            try:
                placed = placed_or_none(charged, candidate, inventory)
            except Undecided:
                continue
            if placed is not None:
                original = tuple(int(kept[row]) for kept, row in zip(rows, candidate.rows, strict=True))
                units = sum(int(t.units[row]) for t, row in zip(problem.tables, original, strict=True))
                options = {t.load.name: t.option(row) for t, row in zip(problem.tables, original, strict=True)}
                places = [replace(item, tenths=options[item.llm].shape.tenths) for item in placed]
                found.append((Candidate(original, candidate.cost, units), places))
                break
    return found


def _charged(table: OptionTable, degrees: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[Ints, OptionTable]:
    """Return the options of some tensor-parallel degrees, charged for their bandwidth too, in some sizes only.

    Returns:
        their rows in the table, and a table of them.
    """
    tp = np.array([m.shape.tp for m in table.models], dtype=np.int64)[table.index]
    # Where what all are assumed to draw while they run sums to at most 1, each has what it was assumed to.
    need = np.maximum(table.tenths, np.ceil(10 * (table.width + table.reserve) - 1e-9).astype(np.int64))
    charged = np.array(sizes)[np.searchsorted(sizes, np.minimum(need, 10))]
    keep = np.isin(tp, degrees)
    units, free = (tp * charged * table.replicas)[keep], np.zeros(int(keep.sum()))
    part = replace(only(table, keep), charged=charged[keep], units=units, bandwidth=free, reserve=free)
    return np.flatnonzero(keep), part
