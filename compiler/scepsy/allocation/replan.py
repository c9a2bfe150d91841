"""Re-planning with few restarts: every instance that moves loads its model for minutes.

The plan in force stays while the best one gains less than a threshold (`replanning.minimumGain`). Above it, among the
allocations within a tolerance of the best, the one that starts the fewest instances is taken.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.allocation.bandwidth_caps import best_caps, shapes_of, with_best_caps, with_rows
from scepsy.allocation.best_first import Candidate, Enumeration, Limit
from scepsy.allocation.branch_and_place import Solution
from scepsy.allocation.options import OptionTable
from scepsy.allocation.problem import RESOLUTION, Problem
from scepsy.documents.plan import Instance
from scepsy.pipeline import Shape
from scepsy.pipeline.instance import Ints
from scepsy.placement import Inventory, Placed, Request, Undecided, place_around

_TANGENTS = 8
"""Tangents along which the tolerance is kept if latencies are not sums."""
_BEYOND = 20
"""Allocations truly beyond the tolerance, after which another tangent is added."""
MAX_CANDIDATES = 300
"""Allocations within the tolerance that are placed to see how many instances they start."""


@dataclass(frozen=True)
class Replanned:
    """A solution and the instances that it starts.

    Attributes:
        solution: the solution.
        kept: whether the plan in force was kept although it is not the best.
        gain: what the best allocation would gain over `solution`, as a fraction of the latter's objective.
        started: instances that start, or restart on other GPUs or with another shape.
        started_by_best: the same for the best allocation.
    """

    solution: Solution
    kept: bool
    gain: float
    started: int
    started_by_best: int


def replan(
    best: Solution,
    inventory: Inventory,
    previous: Sequence[Instance],
    running: Sequence[Instance],
    tolerance: float,
    minimum_gain: float,
) -> Replanned:
    """Return the solution to put in force instead of `best`.

    Args:
        best: the best allocation that can be placed.
        inventory: the GPUs.
        previous: the instances of the plan in force.
        running: those of them that can stay where they are.
        tolerance: fraction by which the objective may be worse than the best to spare moves.
        minimum_gain: fraction of its objective that the plan in force must lose before it is replaced.
    """
    problem = best.problem
    around = _placed(problem, best.rows, inventory, running)
    # The instances on the same GPUs determine the bandwidth that is left to each.
    here = best if around is None else with_best_caps(replace(best, placed=tuple(around)), inventory)
    least, started_by_best = min(best.achieved, here.achieved), _started(here.placed, running)

    def outcome(solution: Solution, kept: bool = False) -> Replanned:
        gain = (solution.achieved - least) / solution.achieved
        return Replanned(solution, kept, max(0.0, gain), _started(solution.placed, running), started_by_best)

    same = _in_force(problem, inventory, previous, running)
    if same is not None:
        solution = with_rows(best, *same)
        if started_by_best == 0 and len(here.placed) == len(running) and here.achieved <= solution.achieved:
            return outcome(here)  # the plan in force with the same bandwidth caps
        if solution.achieved <= best.achieved * (1 + minimum_gain):
            return outcome(solution, kept=solution.achieved > least)
    if started_by_best == 0:
        return outcome(here)
    found = _fewest_starts(best, inventory, running, tolerance)
    if found is None:
        return outcome(here)
    # With the bandwidth caps that the next compile would find for these places.
    same = best_caps(problem, inventory, shapes_of(found), found.placed)
    return outcome(with_rows(best, *same) if same is not None else found)


def _placed(
    problem: Problem, rows: Sequence[int], inventory: Inventory, running: Sequence[Instance]
) -> list[Placed] | None:
    try:
        return place_around(_requests(problem, rows), inventory, running)
    except Undecided:
        return None


def _requests(problem: Problem, rows: Sequence[int]) -> list[Request]:
    return [table.request(row) for table, row in zip(problem.tables, rows, strict=True)]


def _started(placed: Sequence[Placed], running: Sequence[Instance]) -> int:
    """Return how many placed instances are not running on those GPUs already."""
    there = Counter((i.llm, i.gpus, round(i.share * 10)) for i in running)
    wanted = Counter((p.llm, p.gpus, p.tenths) for p in placed)
    return sum((wanted - there).values())


def _in_force(
    problem: Problem, inventory: Inventory, previous: Sequence[Instance], running: Sequence[Instance]
) -> tuple[Candidate, list[Placed]] | None:
    """Return the plan in force as an allocation of today's problem, or None if it does not sustain today's load.

    The places of instances do not determine their bandwidth caps: the best caps for these places are taken.
    """
    if not previous or len(running) != len(previous):
        return None
    if {i.llm for i in previous} != {table.load.name for table in problem.tables}:
        return None
    shapes: dict[str, tuple[Shape, int]] = {}
    for llm in {i.llm for i in previous}:
        of_llm = [_shape(i, inventory) for i in previous if i.llm == llm]
        if len(set(of_llm)) != 1:
            return None
        shapes[llm] = of_llm[0], len(of_llm)
    pinned = [Placed(i.llm, i.node, i.gpus, round(i.share * 10)) for i in running]
    return best_caps(problem, inventory, shapes, pinned)


def _fewest_starts(
    best: Solution, inventory: Inventory, running: Sequence[Instance], tolerance: float
) -> Solution | None:
    """Return the allocation within the tolerance that starts the fewest instances; None if none was found."""
    problem = best.problem
    scale = 1 + sum(int(cost.max(initial=0)) for cost in problem.cost)
    there = Counter((i.llm, _shape(i, inventory)) for i in running)
    starts = [_starts(table, there) for table in problem.tables]
    weighed = replace(problem, cost=tuple(s * scale + cost for s, cost in zip(starts, problem.cost, strict=True)))
    most = int((best.achieved * (1 + tolerance)) / RESOLUTION + 1e-6) - problem.constant
    found: tuple[int, float, Solution] | None = None
    limits = [Limit(problem.cost, most)]
    for _ in range(_TANGENTS):
        search = Enumeration(weighed, inventory, limits=limits)
        beyond: list[tuple[int, ...]] = []
        for candidate in itertools.islice(search.run(), MAX_CANDIDATES):
            if found is not None and candidate.cost // scale >= found[0]:
                return found[2]
            solution = with_rows(best, candidate, ())
            if solution.achieved > best.achieved * (1 + tolerance) + RESOLUTION:
                beyond.append(candidate.rows)
                if len(beyond) == _BEYOND:
                    break
                continue
            placed = _placed(problem, candidate.rows, inventory, running)
            if placed is not None and problem.bounded(candidate.rows):
                started = _started(placed, running)
                if found is None or (started, solution.achieved) < found[:2]:
                    found = (started, solution.achieved, replace(solution, placed=tuple(placed)))
        if not beyond:
            break
        # A limit along one tangent admits allocations that are truly beyond the tolerance: add a tangent there.
        cut = problem.along(problem.tangents(beyond[0]))
        limits.append(Limit(cut.cost, most + problem.constant - cut.constant))
    return found[2] if found is not None else None


def _shape(instance: Instance, inventory: Inventory) -> Shape:
    """Return the shape of an instance whose GPUs are all there and of one product."""
    return Shape(inventory.product(instance.gpus[0]), len(instance.gpus), round(instance.share * 10))


def _starts(table: OptionTable, there: Mapping[tuple[str, Shape], int]) -> Ints:
    """Return per option how many instances it starts at least, given the running ones per LLM and shape."""
    kept = np.array([there.get((table.load.name, m.shape), 0) for m in table.models], dtype=np.int64)
    starts: Ints = np.maximum(table.replicas - kept[table.index], 0)
    return starts
