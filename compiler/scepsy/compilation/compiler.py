"""The compiler: documents → demand, performance → pipeline → allocation → placement → Plan.

Pure: everything is read before, and written after. One call compiles all workflows of a project onto one cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scepsy.allocation import Infeasible, Replanned, Solution, build_problem, feasibility_hint, replan, solve
from scepsy.compilation.inputs import Inputs, collect_inputs
from scepsy.compilation.plan_document import plan_document
from scepsy.documents import Plan, Workspace
from scepsy.pipeline import WorkflowOutcome, predict
from scepsy.placement import running


@dataclass(frozen=True)
class Compilation:
    """A plan, and the values that explain it.

    Attributes:
        plan: the plan; its `files` are filled in by the caller who renders them.
        inputs: what it was compiled from.
        solution: the allocation.
        outcomes: per workflow its prediction.
        replanned: what was kept of the plan in force; None for a first plan.
    """

    plan: Plan
    inputs: Inputs
    solution: Solution
    outcomes: Mapping[str, WorkflowOutcome]
    replanned: Replanned | None = None


def compile_plan(workspace: Workspace, cluster: str, previous: Sequence[Plan] = ()) -> Compilation:
    """Compile all workflows onto one cluster.

    Args:
        workspace: the project.
        cluster: the cluster.
        previous: the plan in force, then earlier ones that may not be fully applied; empty for a first plan.

    Raises:
        DocumentError: the documents are wrong or do not fit together.
        Infeasible: no allocation sustains the targets; the message says what would.
    """
    inputs = collect_inputs(workspace, cluster)
    inventory = inputs.inventory
    problem = build_problem(inputs.workflows, inputs.planned, inputs.catalog, inventory)
    try:
        solution = solve(problem, inventory)
    except Infeasible as error:
        message, hint = feasibility_hint(error, inputs.workflows, inputs.planned, inputs.catalog, inventory)
        raise Infeasible(error.problem, error.table, f'cluster "{cluster}": {message}', hint) from error
    replanned: Replanned | None = None
    if previous:
        before = previous[0].spec
        still = running(before.instances, {llm.name: llm.product for llm in before.llms}, inventory)
        settings = workspace.project.document.spec.replanning
        replanned = replan(solution, inventory, before.instances, still, settings.tolerance, settings.minimum_gain)
        solution = replanned.solution
    outcomes = predict(solution.outcomes, problem.makespans)
    plan = plan_document(workspace, inputs, solution, outcomes, previous)
    return Compilation(plan, inputs, solution, outcomes, replanned)
