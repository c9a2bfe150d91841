"""The fewest GPUs that meet the targets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from scepsy.allocation.cutting_planes import solve
from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.problem import build_problem
from scepsy.demand import Demand
from scepsy.documents import Workflow
from scepsy.performance import Catalog
from scepsy.placement import Inventory

_EFFORT = 200_000
"""Options that each search may evaluate. What a search finds is feasible; that it finds nothing proves nothing."""
_ORDERS = 6
"""Orders of products that are tried."""


def fewest_gpus(
    workflows: Mapping[str, Workflow], demands: Mapping[str, Demand], catalog: Catalog, inventory: Inventory
) -> int:
    """Return the fewest GPUs on which all rates and latency objectives are met; they must be met on all GPUs.

    GPUs are removed from the smallest domains first; of several products, from one after the other, in every order.
    """

    def feasible(stock: Inventory) -> bool:
        if not stock.domains:
            return False
        try:
            solve(build_problem(workflows, demands, catalog, stock), stock, _EFFORT)
        except Infeasible:
            return False
        return True

    def reduced(order: Iterable[str]) -> int:
        stock = inventory
        for product in order:
            low, high = -1, stock.gpus(product)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if feasible(stock.limited(product, middle)) else (middle, high)
            stock = stock.limited(product, high)
        return sum(stock.gpus(product) for product in stock.domains)

    orders = itertools.islice(itertools.permutations(inventory.products), _ORDERS)
    return min(reduced(order) for order in orders)
