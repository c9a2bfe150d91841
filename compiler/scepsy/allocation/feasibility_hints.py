"""Why a problem is infeasible, and what would make it feasible: more GPUs, or a lower rate."""

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
"""Additional GPUs of one product that are considered at most."""
_EFFORT = 200_000
"""Options that each search here may evaluate. What a search finds is feasible; that it finds nothing proves nothing."""
_RATE_STEPS = 12
"""Bisection steps for the highest rate; the answer is within 1/4000 of the target."""


def feasibility_hint(
    error: Infeasible,
    workflows: Mapping[str, Workflow],
    demands: Mapping[str, Demand],
    catalog: Catalog,
    inventory: Inventory,
) -> tuple[str, str]:
    """Return a message and a hint: why nothing fits, how many GPUs are missing, and which rate is feasible."""
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
        ways.append(", ".join(rates) + ("" if len(rates) == 1 else " (all rates lowered by the same factor)"))
    targets = ", ".join(f"{name} {format_rate(w.spec.target.per_second)}" for name, w in workflows.items())
    bounds = " within their latency objectives" if error.problem.bounds else ""
    start = "no allocation sustains" if error.proven else "no allocation was found that sustains"
    message = f"{start} {targets}{bounds}"
    if not ways:
        return _hopeless(message, workflows, demands, catalog, inventory)
    return f"{message}: needs " + ", or ".join(ways), "lower spec.target.rate, add GPUs, or free reserved ones"


def _too_large(table: OptionTable) -> tuple[str, str]:
    """Return message and hint for an LLM that fits no GPU group of the cluster, at any rate."""
    reasons = [f"{shape}: {reason}" for shape, reason in table.excluded if shape.tenths == 10]
    message = f'the LLM "{table.load.name}" ({table.load.llm.model}) fits no GPU group of the cluster'
    return message + "".join(f"\n    {reason}" for reason in reasons), (
        "use larger GPUs, a higher tensor-parallel degree (with a profile and an NVLink domain of that size), "
        "or a lower maxModelLen"
    )


def _unreachable_bound(error: Infeasible, workflows: Mapping[str, Workflow]) -> tuple[str, str] | None:
    """Return message and hint for a latency objective that no allocation reaches; None if there is none."""
    problem = error.problem
    fastest = [(bound, least, "with the fastest option of every LLM") for bound, least in beyond_reach(problem)]
    alone = [
        (bound, problem.least[bound.workflow], "with the whole cluster to itself")
        for bound in problem.bounds
        if bound.quantile is None
        and problem.makespans[bound.workflow].linear  # else the least is known from above only
        and bound.seconds < problem.least[bound.workflow] < float("inf")
    ]
    for bound, seconds, condition in alone + fastest:
        name = bound.workflow
        what = "mean" if bound.quantile is None else f"p{100 * bound.quantile:g}"
        rate = format_rate(workflows[name].spec.target.per_second)
        shown = format_duration(seconds)
        if shown == format_duration(bound.seconds):
            shown = f"{seconds:.7g}s"
        return (
            f"{name} cannot reach a {what} latency of {format_duration(bound.seconds)} at {rate}:"
            f" {condition} it is at least {shown}",
            f"raise objective.{what}, lower spec.target.rate, or use faster GPUs",
        )
    return None


def _hopeless(
    message: str,
    workflows: Mapping[str, Workflow],
    demands: Mapping[str, Demand],
    catalog: Catalog,
    inventory: Inventory,
) -> tuple[str, str]:
    """Return message and hint if neither more GPUs nor a lower rate helps; they name the LLMs without options."""
    tables = option_tables(loads(workflows, demands, 1e-6), catalog, inventory)
    without_option = [t.load.name for t in tables if not len(t.units)]
    if without_option:
        names = ", ".join(without_option)
        hint = f"{names}: a single call exceeds the capacity of an instance; check its tokens and maxModelLen"
        return f"{message} at any rate, because of {names}", hint
    least = ", ".join(f"{t.load.name} {min(t.units) / 10:g}" for t in tables)
    tried = f"{message}, even with {MOST_EXTRA} more GPUs of one product, or at a millionth of the rates"
    return tried, f"fewest GPUs per LLM: {least}"


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
    """Return nearly the largest factor below 1 that works; None if no factor down to a millionth does."""
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
    """Format a rate with three digits, rounded down: the rate in the message must be feasible."""
    seconds = next((s for s in (1.0, 60.0, 3600.0) if rate * s >= 0.1), 3600.0)
    step = 10.0 ** (math.floor(math.log10(rate * seconds)) - 2)
    return format_rate(math.floor(rate * seconds / step) * step / seconds)
