"""The allocation problem: tables of options, what each contributes to the objective, and latency bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scepsy.allocation.dynamic_program import best_rows, suffix_values
from scepsy.allocation.options import OptionTable, only, option_tables
from scepsy.demand import CriticalPath, Demand, Makespans
from scepsy.documents import Workflow
from scepsy.performance import Catalog
from scepsy.performance.curves import Array
from scepsy.pipeline import loads, makespans_of, quantile_of
from scepsy.pipeline.instance import Ints
from scepsy.placement import Inventory

OBJECTIVE = "mean slowdown: priority-weighted mean of latency / least latency of the workflow alone"
RESOLUTION = 1e-6
"""The objective is counted in these steps, so that sums are exact and equal on every machine, and ties stay ties."""

Rows = Sequence[int]
"""An allocation: per LLM the row of its table."""


@dataclass(frozen=True)
class Bound:
    """The upper bound of a workflow's latency.

    Attributes:
        workflow: its name.
        quantile: of its executions; None for the mean.
        seconds: the bound.
    """

    workflow: str
    quantile: float | None
    seconds: float


@dataclass(frozen=True)
class Problem:
    """A multiple-choice knapsack: one option per LLM, within the units of every product.

    The latency of a workflow is convex in the latencies of its LLMs. `paths` holds a tangent of each, so that `cost` is
    a sum over LLMs which no allocation's true objective is below; for a workflow without call graphs it is the latency
    itself.

    Attributes:
        tables: per LLM its options.
        capacity: per product, in the order of the tables' products, tenths of GPUs.
        makespans: per workflow, its latency.
        paths: per workflow, a tangent of its mean latency.
        least: per workflow L⁰, the least mean latency that it can have alone on this inventory, seconds.
        weight: per workflow, what a second of its latency adds to the objective.
        bounds: the enforced latency objectives.
        cost: per LLM, (B,) contribution of each option to the objective in steps of RESOLUTION, along `paths`.
        constant: part of the objective that no option changes, in steps.
    """

    tables: tuple[OptionTable, ...]
    capacity: tuple[int, ...]
    makespans: Mapping[str, Makespans]
    paths: Mapping[str, CriticalPath]
    least: Mapping[str, float]
    weight: Mapping[str, float]
    bounds: tuple[Bound, ...]
    cost: tuple[Ints, ...]
    constant: int

    @property
    def linear(self) -> bool:
        """Whether every latency is a sum, so that `cost` is exact and every bound is on a sum."""
        sums = all(makespans.linear for makespans in self.makespans.values())
        return sums and all(bound.quantile is None for bound in self.bounds)

    @property
    def slack(self) -> int:
        """Steps by which rounding may raise the sum of costs above the true objective."""
        return 0 if self.linear else len(self.tables) + 2

    def along(self, paths: Mapping[str, CriticalPath]) -> Problem:
        """Return the same problem with other tangents."""
        cost = tuple(
            np.rint(
                sum(
                    self.weight[caller.workflow] * paths[caller.workflow].steps[table.load.name] * table.latency[i]
                    for i, caller in enumerate(table.load.callers)
                )
                / RESOLUTION
            ).astype(np.int64)
            for table in self.tables
        )
        constant = round(sum(self.weight[name] * path.outside for name, path in paths.items()) / RESOLUTION)
        return replace(self, paths=paths, cost=cost, constant=constant)

    def tangents(self, rows: Rows) -> dict[str, CriticalPath]:
        """Return the critical paths of every workflow under an allocation."""
        latency = self._latency([rows])
        return {name: makespans.path(latency[name][0]) for name, makespans in self.makespans.items()}

    def seconds(self, allocations: Sequence[Rows]) -> dict[str, Array]:
        """Return per workflow the latency of its executions under K allocations, (E, K)."""
        latency = self._latency(allocations)
        return {name: makespans.seconds(latency[name]) for name, makespans in self.makespans.items()}

    def evaluated(self, allocations: Sequence[Rows]) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Return the true objective of K allocations, in steps, and whether they keep every bound."""
        seconds = self.seconds(allocations)
        objective = sum(self.weight[name] * latency.mean(axis=0) for name, latency in seconds.items())
        kept = np.ones(len(allocations), dtype=bool)
        for bound in self.bounds:
            kept &= reached(seconds[bound.workflow], bound.quantile) <= bound.seconds + 1e-12
        if self.linear:  # exactly the sum that the search minimises
            sums = [sum(int(c[row]) for c, row in zip(self.cost, rows, strict=True)) for rows in allocations]
            return np.array(sums, dtype=np.int64) + self.constant, kept
        return np.rint(np.asarray(objective) / RESOLUTION).astype(np.int64), kept

    def objective(self, rows: Rows) -> float:
        """Return the true objective of an allocation."""
        return float(self.evaluated([rows])[0][0]) * RESOLUTION

    def bounded(self, rows: Rows) -> bool:
        """Return whether an allocation keeps every bound."""
        return not self.bounds or bool(self.evaluated([rows])[1][0])

    def path_latency(self, table: int, workflow: str) -> Array:
        """Return what each option of a table adds to a workflow's latency along its tangent, (B,) seconds."""
        rows = self.tables[table]
        for i, caller in enumerate(rows.load.callers):
            if caller.workflow == workflow:
                latency: Array = self.paths[workflow].steps[rows.load.name] * rows.latency[i]
                return latency
        return np.zeros(len(rows.index))

    def _latency(self, allocations: Sequence[Rows]) -> dict[str, Array]:
        """Return per workflow the latencies of its LLMs, (K, M) in the order of its makespans."""
        chosen = np.array(allocations, dtype=np.int64).reshape(len(allocations), len(self.tables))
        latency: dict[str, dict[str, Array]] = {name: {} for name in self.makespans}
        for t, table in enumerate(self.tables):
            for i, caller in enumerate(table.load.callers):
                latency[caller.workflow][table.load.name] = table.latency[i][chosen[:, t]]
        return {name: np.stack([latency[name][llm] for llm in m.llms], axis=1) for name, m in self.makespans.items()}


def reached(seconds: Array, quantile: float | None) -> Array:
    """Return the mean of executions' latencies or a quantile of them, over the first axis."""
    return np.asarray(seconds.mean(axis=0)) if quantile is None else quantile_of(seconds, quantile)


def build_problem(
    workflows: Mapping[str, Workflow],
    demands: Mapping[str, Demand],
    catalog: Catalog,
    inventory: Inventory,
    factor: float = 1.0,
) -> Problem:
    """Build the problem for all workflows at `factor` times their target rates.

    If the load cannot be carried, tables may be empty and L⁰ infinite; the search then finds nothing.
    """
    tables = option_tables(loads(workflows, demands, factor), catalog, inventory)
    capacity = tuple(10 * inventory.gpus(product) for product in inventory.products)
    makespans = {name: makespans_of(demands[name]) for name in workflows}
    least: dict[str, float] = {}
    for name, workflow in workflows.items():
        alone = tables
        if len(workflows) > 1:
            alone = option_tables(loads({name: workflow}, {name: demands[name]}, factor), catalog, inventory, tables)
        least[name] = _least_latency(alone, capacity, name, makespans[name])
    total = sum(workflow.spec.priority for workflow in workflows.values())
    weight = {
        name: workflow.spec.priority / total / least[name] if np.isfinite(least[name]) else 0.0
        for name, workflow in workflows.items()
    }
    bounds = [bound for name, workflow in workflows.items() for bound in _bounds(name, workflow, demands[name])]
    problem = Problem(tuple(tables), capacity, makespans, {}, least, weight, tuple(bounds), (), 0)
    return within_bounds(problem).along(fastest_paths(problem.tables, makespans))


def reweighed(other: Problem, problem: Problem) -> Problem:
    """Return `other` with the weights and L⁰ of `problem`, so that their objectives can be compared."""
    return replace(other, least=problem.least, weight=problem.weight).along(other.paths)


def _bounds(name: str, workflow: Workflow, demand: Demand) -> list[Bound]:
    """Return the objectives that can be enforced: percentiles need recorded executions."""
    objective = workflow.spec.objective
    bounds = [] if objective.mean is None else [Bound(name, None, objective.mean)]
    if demand.recorded is not None:
        bounds += [Bound(name, quantile, seconds) for quantile, seconds in objective.quantiles.items()]
    return bounds


def _fastest(tables: Sequence[OptionTable], workflow: str, makespans: Makespans) -> Array:
    """Return the least latency that any option gives each LLM of a workflow, (M,); infinite where there is none."""
    least = dict.fromkeys(makespans.llms, np.inf)
    for table in tables:
        for i, caller in enumerate(table.load.callers):
            if caller.workflow == workflow:
                least[table.load.name] = float(table.latency[i].min(initial=np.inf))
    return np.array([least[llm] for llm in makespans.llms])


def fastest_paths(tables: Sequence[OptionTable], makespans: Mapping[str, Makespans]) -> dict[str, CriticalPath]:
    """Return the critical paths of every workflow with the fastest option of every LLM."""
    paths = {}
    for name, workflow_makespans in makespans.items():
        latency = _fastest(tables, name, workflow_makespans)
        paths[name] = workflow_makespans.path(np.where(np.isfinite(latency), latency, 1.0))
    return paths


def beyond_reach(problem: Problem) -> list[tuple[Bound, float]]:
    """Return the bounds that no allocation keeps, each with the latency at the fastest option of every LLM."""
    found = []
    for bound in problem.bounds:
        makespans = problem.makespans[bound.workflow]
        latency = _fastest(problem.tables, bound.workflow, makespans)
        if np.isfinite(latency).all():
            least = float(reached(makespans.seconds(latency[None, :]), bound.quantile)[0])
            if least > bound.seconds + 1e-12:
                found.append((bound, least))
    return found


def within_bounds(problem: Problem) -> Problem:
    """Leave out the options with which a bound cannot be kept, however fast the other LLMs are.

    A latency only rises when one of its LLMs gets slower, so the first option that breaks a bound rules out all slower
    ones. Bounds that no allocation keeps are left to the search, which raises an error.
    """
    unreachable = {bound for bound, _ in beyond_reach(problem)}
    tables = list(problem.tables)
    for bound in problem.bounds:
        makespans = problem.makespans[bound.workflow]
        latency = _fastest(problem.tables, bound.workflow, makespans)
        if bound in unreachable or not np.isfinite(latency).all():
            continue
        for t, table in enumerate(tables):
            for i, caller in enumerate(table.load.callers):
                if caller.workflow == bound.workflow and len(table.index):
                    most = _slowest(bound, makespans, latency, table.load.name, np.unique(table.latency[i]))
                    table = only(table, table.latency[i] <= most)  # noqa: PLW2901 - the next caller narrows it further
            tables[t] = table
    return replace(problem, tables=tuple(tables))


def _slowest(bound: Bound, makespans: Makespans, latency: Array, llm: str, choices: Array) -> float:
    """Return the largest of rising latencies of one LLM with which a bound can be kept; the smallest can."""
    m = makespans.llms.index(llm)
    low, high = 0, len(choices)
    while high - low > 1:
        middle = (low + high) // 2
        tried = latency.copy()
        tried[m] = choices[middle]
        kept = float(reached(makespans.seconds(tried[None, :]), bound.quantile)[0]) <= bound.seconds + 1e-12
        low, high = (middle, high) if kept else (low, middle)
    return float(choices[low])


_TANGENTS = 20
"""Tangents that are added at most to find the least latency of a workflow alone."""


def _least_latency(
    tables: Sequence[OptionTable], capacity: tuple[int, ...], workflow: str, makespans: Makespans
) -> float:
    """Return the least mean latency of one workflow within the capacity, seconds; inf if nothing fits.

    A sum is minimised exactly. With call graphs, tangents are added one after the other at the minimum of their mean;
    the least latency on the way is returned, which may be slightly above the true least.
    """
    paths = fastest_paths(tables, {workflow: makespans})
    alone = Problem(tuple(tables), capacity, {workflow: makespans}, paths, {}, {workflow: 1e3}, (), (), 0)
    best, mean = np.inf, paths[workflow]
    for count in range(1, 2 if alone.linear else _TANGENTS):
        linear = alone.along({workflow: mean})
        rows = best_rows(linear.tables, linear.cost, suffix_values(linear.tables, linear.cost, capacity))
        if rows is None:
            break
        best = min(best, float(alone.seconds([rows])[workflow].mean()))
        mean = alone.tangents(rows)[workflow].mixed(mean, 1 / (count + 1))
    return best
