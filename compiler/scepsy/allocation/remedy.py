"""What would make an infeasible problem feasible: more GPUs, or a lower rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from scepsy.allocation.cutting_planes import solve
from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.options import OptionTable, option_tables
from scepsy.allocation.problem import beyond_reach, build_problem
from scepsy.demand import Demand
from scepsy.documents import Workflow
from scepsy.documents.units import format_duration, format_rate
from scepsy.performance import Catalog
from scepsy.pipeline import loads
from scepsy.placement import Inventory

MOST_EXTRA = 512
"""So many more GPUs of one product are considered."""
_EFFORT = 200_000
"""Options that each of the many searches here may look at; what they find is certain, that there is nothing is not."""
_RATE_STEPS = 12
"""Bisection steps for the highest rate; the answer is within 1/4000 of the target."""


def remedy(
    error: Infeasible,
    workflows: Mapping[str, Workflow],
    demands: Mapping[str, Demand],
    catalog: Catalog,
    inventory: Inventory,
) -> tuple[str, str]:
    """Return a message and a hint: why nothing fits, how many GPUs are missing, and which rate would work."""
    never = [table for table in error.problem.tables if not table.models]
    if never:
        return _too_large(never[0])
    unreachable = _unreachable_bound(error, workflows)
    if unreachable:
        return unreachable

    def feasible(stock: Inventory, factor: float) -> bool:
        try:
            solve(build_problem(workflows, demands, catalog, stock, factor), stock, _EFFORT)
        except Infeasible:
            return False
        return True

    ways = []
    for product in inventory.products:
        extra = _fewest(lambda n, p=product: feasible(inventory.extended(p, n), 1.0))  # type: ignore[misc]
        if extra is not None:
            ways.append(f"{extra} more {product}")
    factor = _highest(lambda f: feasible(inventory, f))
    if factor is not None:
        rates = [f"{name} at most {_floored(w.spec.target.per_second * factor)}" for name, w in workflows.items()]
        ways.append(", ".join(rates) + ("" if len(rates) == 1 else " (all rates lowered alike)"))
    targets = ", ".join(f"{name} {format_rate(w.spec.target.per_second)}" for name, w in workflows.items())
    bounds = " within their latency objectives" if error.problem.bounds else ""
    found = "no allocation sustains" if error.proven else "no allocation was found that sustains"
    message = f"{found} {targets}{bounds}"
    if not ways:
        return _hopeless(message, workflows, demands, catalog, inventory)
    return f"{message}: needs " + ", or ".join(ways), "lower spec.target.rate, add GPUs, or free reserved ones"


def _too_large(table: OptionTable) -> tuple[str, str]:
    """An LLM that no shape of the cluster can hold, whatever the rate."""
    reasons = [f"{shape}: {reason}" for shape, reason in table.excluded if shape.tenths == 10]
    message = f'the LLM "{table.load.name}" ({table.load.llm.model}) fits no GPU group of the cluster'
    return message + "".join(f"\n    {reason}" for reason in reasons), (
        "use larger GPUs or a higher tensor-parallel degree (profile it, and name its NVLink domain), "
        "or lower maxModelLen"
    )


def _unreachable_bound(error: Infeasible, workflows: Mapping[str, Workflow]) -> tuple[str, str] | None:
    """A bound that is not kept even if every LLM had its fastest option, or the workflow the cluster to itself."""
    problem = error.problem
    anyway = [(bound, least, "even if every LLM had its fastest option") for bound, least in beyond_reach(problem)]
    alone = [
        (bound, problem.least[bound.workflow], "with the whole cluster to itself")
        for bound in problem.bounds
        if bound.quantile is None
        and problem.makespans[bound.workflow].linear  # else the least is known from above only
        and bound.seconds < problem.least[bound.workflow] < float("inf")
    ]
    for bound, seconds, even in alone + anyway:
        name = bound.workflow
        what = "mean" if bound.quantile is None else f"p{100 * bound.quantile:g}"
        rate = format_rate(workflows[name].spec.target.per_second)
        shown = format_duration(seconds)
        if shown == format_duration(bound.seconds):
            shown = f"{seconds:.7g}s"
        return (
            f"{name} cannot reach a {what} latency of {format_duration(bound.seconds)} at {rate}:"
            f" {even} it has {shown} at least",
            f"raise objective.{what}, lower the rate, or use faster GPUs",
        )
    return None


def _hopeless(
    message: str,
    workflows: Mapping[str, Workflow],
    demands: Mapping[str, Demand],
    catalog: Catalog,
    inventory: Inventory,
) -> tuple[str, str]:
    """Neither more GPUs nor a lower rate would help: name the LLMs that have no option, or what each needs at least."""
    tables = option_tables(loads(workflows, demands, 1e-6), catalog, inventory)
    barred = [t.load.name for t in tables if not len(t.units)]
    if barred:
        names = ", ".join(barred)
        hint = f"{names}: one call alone takes more than an instance has, see its tokens and maxModelLen"
        return f"{message}, at whatever rate, because of {names}", hint
    least = ", ".join(f"{t.load.name} {min(t.units) / 10:g}" for t in tables)
    tried = f"{message}, with up to {MOST_EXTRA} more GPUs of one product or down to a millionth of the rates"
    return tried, f"smallest GPU shares per LLM: {least}"


def _fewest(works: Callable[[int], bool]) -> int | None:
    """Return the smallest n ≥ 1 that works, by doubling and bisection; None beyond MOST_EXTRA."""
    high = 1
    while not works(high):
        if high >= MOST_EXTRA:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def _highest(works: Callable[[float], bool]) -> float | None:
    """Return nearly the largest factor below 1 that works; None if none down to a millionth does."""
    low, high = 0.1, 1.0
    while not works(low):
        if low < 1e-6:
            return None
        low, high = low / 10, low
    for _ in range(_RATE_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def _floored(rate: float) -> str:
    """Write a rate with three digits, rounded down: what is promised must work."""
    seconds = next((s for s in (1.0, 60.0, 3600.0) if rate * s >= 0.1), 3600.0)
    step = 10.0 ** (math.floor(math.log10(rate * seconds)) - 2)
    return format_rate(math.floor(rate * seconds / step) * step / seconds)
