"""Predicts latency and capacity at the observed load: with the committed allocation, and after a recompile.

The predictor is the compiler's. The path of an execution stays the same, so that only the latencies of LLMs change with
the load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.allocation import Infeasible, build_problem, fewest_gpus, solve
from scepsy.compilation import Inputs
from scepsy.demand import Demand
from scepsy.documents import Plan
from scepsy.documents.plan import PlannedLlm
from scepsy.drift.call_changes import Change, changed_demands, load_of
from scepsy.drift.finding import Impact, WorkflowPrediction
from scepsy.performance.curves import Array
from scepsy.pipeline import (
    InstanceModel,
    LlmLoad,
    LlmOutcome,
    Shape,
    WorkflowOutcome,
    capped,
    evaluate,
    instance_model,
    loads,
    makespans_of,
    predict,
)

ALIKE = "assumed: executions come more or less often, in every workflow that calls the LLM alike"
"""The assumption about a load of which only totals are known."""
SAME_PATH = "assumed: other numbers of calls per execution change the load, not the path of an execution"
"""The assumption about executions that call more or less often: counts do not show what waits for what."""


def model_of(inputs: Inputs, planned: PlannedLlm, load: LlmLoad) -> InstanceModel | str:
    """Return an instance as the Plan has it, or why it cannot serve these calls.

    Args:
        inputs: what the Plan is compiled from.
        planned: the LLM in the Plan.
        load: its calls.
    """
    card = inputs.inventory.card.get(planned.product)
    if card is None:
        return f"the cluster has no {planned.product}"
    shape = Shape(planned.product, planned.tp, round(planned.share * 10))
    if planned.tp not in inputs.catalog.degrees(planned.model, planned.product):
        return f"no usable profile of {planned.model} with TP {planned.tp} on {planned.product}"
    model = instance_model(load, shape, inputs.catalog, card)
    if isinstance(model, str) or planned.bandwidth is None or planned.bandwidth >= model.bandwidth:
        return model
    return capped(model, load, inputs.catalog, [planned.bandwidth])[0]


def call_seconds(inputs: Inputs, planned: PlannedLlm, factors: Sequence[float], change: Change) -> Array | str:
    """Return the mean latency of a call of one LLM at multiples of its planned load, or why it is not known.

    For a group of calls it is the latency of the last one.

    Args:
        inputs: what the Plan is compiled from.
        planned: the LLM.
        factors: (F,) multiples of the planned load.
        change: how calls differ otherwise.

    Returns:
        (F,) seconds, infinite beyond saturation.
    """
    base = load_of(inputs, planned.name, change)
    if base is None:
        return "no workflow calls this LLM"
    model = model_of(inputs, planned, base)
    if isinstance(model, str):
        return model
    latencies = []
    share = [caller.calls / base.calls for caller in base.callers]
    for factor in factors:
        load = replace(base, callers=tuple(replace(c, rate=c.rate * factor) for c in base.callers))
        result = evaluate(load, [model], np.zeros(1, dtype=np.int64), np.array([planned.replicas], dtype=np.int64))
        latencies.append(sum(s * float(each) for s, each in zip(share, result.latency[:, 0], strict=True)))
    return np.array(latencies)


@dataclass(frozen=True)
class _Outcomes:
    """The LLMs of the committed allocation under a changed load.

    Attributes:
        served: of LLMs that serve; latency 1 if saturated.
        missing: by LLM, why it cannot serve.
        saturated: LLMs whose queue grows without bound.
    """

    served: Sequence[LlmOutcome]
    missing: Mapping[str, str]
    saturated: frozenset[str]


def cost_of(inputs: Inputs, plan: Plan, change: Change) -> Impact:
    """Predict all workflows with the committed allocation.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        change: how calls and instances differ.
    """
    demands = changed_demands(inputs.planned, change)
    outcomes = _outcomes(inputs, plan, demands, change)
    llms = {name: {llm.name for llm in workflow.spec.llms} for name, workflow in inputs.workflows.items()}
    broken = [name for name in inputs.workflows if llms[name] & set(outcomes.missing)]
    whole = [name for name in inputs.workflows if name not in broken]
    stuck = {name for name in inputs.workflows if llms[name] & outcomes.saturated}
    predictions = _predictions(inputs, demands, outcomes.served, whole, stuck, change)
    predictions += tuple(WorkflowPrediction(name, _rate(inputs, name, change), None, 0.0) for name in broken)
    notes = [f"{llm}: {reason}" for llm, reason in outcomes.missing.items()]
    notes += [f"{llm} is saturated: its queue grows without bound" for llm in sorted(outcomes.saturated)]
    if change.calls:
        notes.append(ALIKE)
    if change.per_execution:
        notes.append(SAME_PATH)
    return Impact(predictions, _gpus(plan), "; ".join(notes))


def _outcomes(inputs: Inputs, plan: Plan, demands: Mapping[str, Demand], change: Change) -> _Outcomes:
    """Evaluate the LLMs of the committed allocation."""
    planned = {llm.name: llm for llm in plan.spec.llms}
    served: list[LlmOutcome] = []
    missing: dict[str, str] = {}
    saturated: set[str] = set()
    for load in loads(inputs.workflows, demands):
        llm = planned.get(load.name)
        model = model_of(inputs, llm, load) if llm is not None else "it is not in the plan"
        if llm is None or isinstance(model, str):
            missing[load.name] = str(model)
            continue
        slower = change.seconds.get(load.name, 1.0)
        model = replace(model, seconds=model.seconds * slower, work=model.work * slower)
        replicas = change.replicas.get(load.name, llm.replicas)
        if replicas < 1:
            missing[load.name] = "no instance of it is left"
            continue
        result = evaluate(load, [model], np.zeros(1, dtype=np.int64), np.array([replicas], dtype=np.int64))
        latency = tuple(float(x) for x in result.latency[:, 0])
        if result.utilisation[0] >= 1 or not all(map(math.isfinite, latency)):
            saturated.add(load.name)
            latency = tuple(1.0 for _ in latency)
        served.append(
            LlmOutcome(load, model, replicas, latency, float(result.utilisation[0]), float(result.bandwidth[0]))
        )
    return _Outcomes(served, missing, frozenset(saturated))


def _predictions(
    inputs: Inputs,
    demands: Mapping[str, Demand],
    outcomes: Sequence[LlmOutcome],
    names: Sequence[str],
    stuck: set[str],
    change: Change,
) -> tuple[WorkflowPrediction, ...]:
    """Predict the workflows whose LLMs all serve; those with a saturated LLM have no latency."""
    kept = []
    for outcome in outcomes:
        callers = [i for i, caller in enumerate(outcome.load.callers) if caller.workflow in names]
        if callers:
            kept.append(_only(outcome, callers))
    predicted = predict(kept, {name: makespans_of(demands[name]) for name in names}) if kept and names else {}
    return tuple(_workflow(inputs, name, predicted[name], change, stuck=name in stuck) for name in names)


def _workflow(
    inputs: Inputs, name: str, outcome: WorkflowOutcome, change: Change, *, stuck: bool = False
) -> WorkflowPrediction:
    # Demands express more executions as more calls of each, so that fewer fit: converted back to executions here.
    rate = _rate(inputs, name, change)
    factor = rate / inputs.workflows[name].spec.target.per_second
    latency = None if stuck or not math.isfinite(outcome.latency) else outcome.latency
    return WorkflowPrediction(name, rate, latency, max(0.0, outcome.capacity * factor))


def _rate(inputs: Inputs, name: str, change: Change) -> float:
    """Return a workflow's rate; load that no workflow explains counts by the called LLM whose load rose most."""
    workflow = inputs.workflows[name]
    factor = max((change.calls.get(llm.name, 1.0) for llm in workflow.spec.llms), default=1.0)
    return workflow.spec.target.per_second * factor * change.executions.get(name, 1.0)


def _only(outcome: LlmOutcome, callers: Sequence[int]) -> LlmOutcome:
    """Return an outcome for some of its callers."""
    if len(callers) == len(outcome.load.callers):
        return outcome
    load = replace(outcome.load, callers=tuple(outcome.load.callers[i] for i in callers))
    model = outcome.model
    chosen = list(callers)
    cut = replace(
        model, seconds=model.seconds[chosen], work=model.work[chosen], times=tuple(model.times[i] for i in chosen)
    )
    return replace(outcome, load=load, model=cut, latency=tuple(outcome.latency[i] for i in callers))


def _gpus(plan: Plan) -> float:
    return round(sum(len(instance.gpus) * instance.share for instance in plan.spec.instances), 1)


def gain_of(after: Inputs) -> Impact:
    """Predict the best allocation, compiled in memory.

    Whether instances may stay where they are is ignored. Slower engines and missing instances do not count: a compile
    rests on the profiles, and places every instance.

    Args:
        after: what the next Plan would be compiled from.
    """
    problem = build_problem(after.workflows, after.planned, after.catalog, after.inventory)
    try:
        solution = solve(problem, after.inventory)
    except Infeasible as error:
        return Impact(note=f"no allocation can serve it: {error.message}")
    outcomes = predict(solution.outcomes, problem.makespans)
    predictions = tuple(_workflow(after, name, outcome, Change()) for name, outcome in outcomes.items())
    gpus = round(sum(placed.tenths * len(placed.gpus) for placed in solution.placed) / 10, 1)
    return Impact(predictions, gpus)


def fewest_note(inputs: Inputs, change: Change) -> str:
    """Return on how few GPUs the observed load would fit, if no load is above the planned one; else nothing."""
    if not change.load or max(change.load) >= 1:
        return ""
    demands = changed_demands(inputs.planned, change)
    fewest = fewest_gpus(inputs.workflows, demands, inputs.catalog, inputs.inventory)
    return f"the observed load fits on {fewest} GPUs"
