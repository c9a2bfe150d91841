"""`scepsy explain`: where latency comes from, what limits the rate, and which alternatives there are."""

from __future__ import annotations

import itertools

from scepsy.allocation import Infeasible, OptionTable, Solution, build_problem, reweighed, solve
from scepsy.compilation import Compilation
from scepsy.documents import API_VERSION
from scepsy.documents.command_results import Alternative, Budget, ExplainResult, ShareOfLatency, WorkflowExplanation
from scepsy.pipeline import Shape
from scepsy.placement import Inventory, Undecided, place

ALTERNATIVES = 3
"""Next-best options per LLM."""
_EVALUATED = 60
"""Options of an LLM that are evaluated to find them, by cost and by latency."""


def explain(compilation: Compilation, workflow: str | None = None) -> ExplainResult:
    """Explain a compilation.

    Args:
        compilation: the compilation.
        workflow: only this workflow and the LLMs that it calls; None for all.
    """
    solution = compilation.solution
    problem = solution.problem
    names = [workflow] if workflow is not None else list(compilation.outcomes)
    llms = {c.name for n in names for c in compilation.inputs.workflows[n].spec.llms}
    return ExplainResult(
        api_version=API_VERSION,
        cluster=compilation.plan.metadata.name,
        objective=round(solution.achieved, 6),
        workflows=tuple(_workflow(compilation, name) for name in names),
        alternatives=tuple(
            alternative
            for i, table in enumerate(problem.tables)
            if table.load.name in llms
            for alternative in _alternatives(compilation, i)
        ),
        budgets=tuple(_budgets(compilation)),
    )


def _workflow(compilation: Compilation, name: str) -> WorkflowExplanation:
    outcome = compilation.outcomes[name]
    parts = {**outcome.parts, "": outcome.outside}
    return WorkflowExplanation(
        workflow=name,
        latency=outcome.latency,
        least=compilation.solution.problem.least[name],
        capacity=outcome.capacity,
        bottleneck=outcome.bottleneck,
        parts=tuple(
            ShareOfLatency(llm=llm, seconds=seconds, fraction=seconds / outcome.latency)
            for llm, seconds in sorted(parts.items(), key=lambda item: -item[1])
            if seconds > 0
        ),
    )


def _alternatives(compilation: Compilation, index: int) -> list[Alternative]:
    """Return the best other options of one LLM that fit into the units that are left, best objective first."""
    solution, problem = compilation.solution, compilation.solution.problem
    table, cost, row = problem.tables[index], problem.cost[index], solution.rows[index]
    spare = list(problem.capacity)
    for i, chosen in enumerate(solution.rows):
        if i != index:
            spare[int(problem.tables[i].product[chosen])] -= int(problem.tables[i].units[chosen])
    chosen_shape = _shape(table, row)
    fitting = [
        b
        for b in range(len(cost))
        if _shape(table, b) != chosen_shape and table.units[b] <= spare[int(table.product[b])]
    ]
    rows = solution.rows
    # An LLM on no critical path costs nothing along the tangent, so the fastest options are evaluated too.
    cheap = sorted(fitting, key=lambda b: (int(cost[b]), int(table.units[b]), b))[:_EVALUATED]
    fast = sorted(fitting, key=lambda b: (float(table.latency[:, b].sum()), int(table.units[b]), b))[:_EVALUATED]
    evaluated = list(dict.fromkeys(cheap + fast))
    if not evaluated:
        return []
    objectives, kept = problem.evaluated([(*rows[:index], b, *rows[index + 1 :]) for b in evaluated])
    ranked = sorted(
        (int(objective), int(table.units[b]), b)
        for b, objective, keeps in zip(evaluated, objectives, kept, strict=True)
        if keeps
    )
    # Of options that differ only in their bandwidth cap, the best that can be placed.
    best: list[tuple[int, bool]] = []
    by_shape: dict[tuple[Shape, int], list[int]] = {}
    for *_, b in ranked:
        by_shape.setdefault(_shape(table, b), []).append(b)
    for same in itertools.islice(by_shape.values(), ALTERNATIVES):
        placed = next((b for b in same if _placeable(compilation, solution, index, b)), None)
        best.append((same[0], False) if placed is None else (placed, True))
    return [
        Alternative(
            llm=table.load.name,
            option=f"{table.option(b).replicas} × {table.option(b).shape}",
            gpus=float(table.units[b]) / 10,
            objective=round(problem.objective((*rows[:index], b, *rows[index + 1 :])), 6),
            placeable=placeable,
        )
        for b, placeable in best
    ]


def _shape(table: OptionTable, row: int) -> tuple[Shape, int]:
    """Return the shape of the instances of an option, whatever their bandwidth cap, and how many there are."""
    return table.models[table.index[row]].shape, int(table.replicas[row])


def _placeable(compilation: Compilation, solution: Solution, index: int, row: int) -> bool:
    rows = [*solution.rows[:index], row, *solution.rows[index + 1 :]]
    requests = [table.request(r) for table, r in zip(solution.problem.tables, rows, strict=True)]
    try:
        return place(requests, compilation.inputs.inventory) is not None
    except Undecided:
        return False


def _budgets(compilation: Compilation) -> list[Budget]:
    """Return the objective of the best plan with one GPU less, and with one more on another node."""
    stock = compilation.inputs.inventory
    budgets = []
    for product in stock.products:
        for inventory in (stock.without_one(product), stock.extended(product, 1)):
            gpus = inventory.gpus(product) if product in inventory.domains else 0
            budgets.append(Budget(product=product, gpus=gpus, objective=_objective(compilation, inventory)))
    return budgets


def _objective(compilation: Compilation, inventory: Inventory) -> float | None:
    """Return the objective on another inventory, with the weights of this plan; None if the targets are not met."""
    inputs, problem = compilation.inputs, compilation.solution.problem
    if not inventory.domains:
        return None
    other = build_problem(inputs.workflows, inputs.planned, inputs.catalog, inventory)
    try:
        solution = solve(reweighed(other, problem), inventory)
    except Infeasible:
        return None
    return round(solution.achieved, 6)
