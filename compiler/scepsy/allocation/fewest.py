"""The fewest GPUs that meet the targets."""

from __future__ import annotations

from collections.abc import Mapping

from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.optimum import solve
from scepsy.allocation.problem import build_problem
from scepsy.demand import Demand
from scepsy.documents import Workflow
from scepsy.performance import Catalog
from scepsy.placement import Inventory

_EFFORT = 200_000
"""Options that each search may look at; what it finds is certain, that there is nothing is not."""


def fewest_gpus(
    workflows: Mapping[str, Workflow], demands: Mapping[str, Demand], catalog: Catalog, inventory: Inventory
) -> int | None:
    """Return the fewest GPUs of the inventory on which all rates and latency objectives were met; None if never.

    GPUs are taken away from the smallest domains first; where there are several products, from one after the other.
    """

    def feasible(stock: Inventory) -> bool:
        if not stock.domains:
            return False
        try:
            solve(build_problem(workflows, demands, catalog, stock), stock, _EFFORT)
        except Infeasible:
            return False
        return True

    if not feasible(inventory):
        return None
    for product in inventory.products:
        low, high = -1, inventory.gpus(product)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if feasible(inventory.limited(product, middle)) else (middle, high)
        inventory = inventory.limited(product, high)
    return sum(inventory.gpus(product) for product in inventory.domains)
