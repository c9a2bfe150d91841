"""The allocation problem: tables of options and what each contributes to the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.allocation.options import OptionTable, option_tables
from scepsy.allocation.programme import suffix_values
from scepsy.demand import Demand
from scepsy.documents import Workflow
from scepsy.performance import Catalog
from scepsy.performance.shares import Array
from scepsy.pipeline import loads
from scepsy.pipeline.instance import Ints
from scepsy.placement import Inventory

OBJECTIVE = "mean slowdown: priority-weighted mean of latency / least latency of the workflow alone"
RESOLUTION = 1e-6
"""The objective is counted in these steps, so that sums are exact, equal on every machine, and ties are ties."""


@dataclass(frozen=True)
class Problem:
    """A multiple-choice knapsack: one option per LLM, within the units of every product.

    Attributes:
        tables: per LLM its options.
        cost: per LLM, (B,) contribution of each option to the objective in steps of RESOLUTION.
        capacity: per product, in the order of the tables' products, tenths of GPUs.
        constant: part of the objective that no option changes, in steps.
        least: per workflow L⁰, the least latency that it alone could have on this inventory, seconds.
        bounds: per workflow with an enforced objective, its greatest mean latency, seconds.
        outside: per workflow, seconds outside LLMs.
        weight: per workflow, what a second of its latency adds to the objective.
    """

    tables: tuple[OptionTable, ...]
    cost: tuple[Ints, ...]
    capacity: tuple[int, ...]
    constant: int
    least: dict[str, float]
    bounds: dict[str, float]
    outside: dict[str, float]
    weight: dict[str, float]

    def path_latency(self, table: int, workflow: str) -> Array:
        """Return what each option of a table adds to a workflow's latency, (B,) seconds."""
        rows = self.tables[table]
        for i, caller in enumerate(rows.load.callers):
            if caller.workflow == workflow:
                latency: Array = caller.demand.steps * rows.latency[i]
                return latency
        return np.zeros(len(rows.index))

    def bounded(self, rows: Sequence[int]) -> bool:
        """Tell whether an allocation keeps every workflow's latency bound."""
        return all(
            self.outside[name] + sum(float(self.path_latency(i, name)[row]) for i, row in enumerate(rows)) <= bound
            for name, bound in self.bounds.items()
        )


def build_problem(
    workflows: Mapping[str, Workflow],
    demands: Mapping[str, Demand],
    catalog: Catalog,
    inventory: Inventory,
    factor: float = 1.0,
) -> Problem:
    """Build the problem for all workflows at `factor` times their target rates.

    Tables may come out empty, and L⁰ infinite, when the load cannot be carried; the search then finds nothing.
    """
    tables = option_tables(loads(workflows, demands, factor), catalog, inventory)
    capacity = tuple(10 * inventory.gpus(product) for product in inventory.products)
    least: dict[str, float] = {}
    for name, workflow in workflows.items():
        alone = tables
        if len(workflows) > 1:
            alone = option_tables(loads({name: workflow}, {name: demands[name]}, factor), catalog, inventory, tables)
        least[name] = demands[name].outside + _least_latency(alone, capacity)
    total = sum(workflow.spec.priority for workflow in workflows.values())
    weight = {
        name: workflow.spec.priority / total / least[name] if np.isfinite(least[name]) else 0.0
        for name, workflow in workflows.items()
    }
    bounds = {n: w.spec.objective.mean for n, w in workflows.items() if w.spec.objective.mean is not None}
    return weighed(tables, capacity, least, bounds, {n: demands[n].outside for n in workflows}, weight)


def weighed(
    tables: Sequence[OptionTable],
    capacity: tuple[int, ...],
    least: dict[str, float],
    bounds: dict[str, float],
    outside: dict[str, float],
    weight: dict[str, float],
) -> Problem:
    """Return the problem over `tables` in which a second of a workflow's latency counts its weight."""
    cost = tuple(
        np.rint(
            sum(
                weight[caller.workflow] * caller.demand.steps * table.latency[i]
                for i, caller in enumerate(table.load.callers)
            )
            / RESOLUTION
        ).astype(np.int64)
        for table in tables
    )
    constant = round(sum(weight[name] * outside[name] for name in outside) / RESOLUTION)
    return Problem(tuple(tables), cost, capacity, constant, least, bounds, outside, weight)


def reweighed(other: Problem, problem: Problem) -> Problem:
    """Return `other` with the weights and L⁰ of `problem`, so that their objectives can be compared."""
    return weighed(other.tables, other.capacity, problem.least, other.bounds, other.outside, problem.weight)


def _least_latency(tables: list[OptionTable], capacity: tuple[int, ...]) -> float:
    """Return the least Σ steps · latency of one workflow's tables within the capacity, seconds; inf if none fits."""
    nano = tuple(
        np.rint(1e9 * table.load.callers[0].demand.steps * table.latency[0]).astype(np.int64) for table in tables
    )
    value = suffix_values(tuple(tables), nano, capacity).best()
    return np.inf if value is None else value / 1e9
