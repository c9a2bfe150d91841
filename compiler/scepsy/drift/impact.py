"""What a drift costs, and what compiling again would give: predictions at the load that is seen.

The predictor is the compiler's own. Where workflows are known, their executions come more or less often, or call more
or less often; where only the load of an LLM is, its calls become more or less frequent, for every workflow alike. The
path of an execution stays as it is, so that only the LLMs' own latencies change with the load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scepsy.allocation import Infeasible, build_problem, fewest_gpus, solve
from scepsy.compilation import Inputs
from scepsy.demand import Demand, longer
from scepsy.documents import Plan
from scepsy.documents.plan import PlannedLlm
from scepsy.drift.finding import Outlook, WorkflowFigures
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

ALIKE = "taken as executions that come more or less often, in every workflow that calls the LLM alike"
"""What is assumed of a load of which only totals are known."""
BESIDE = "other numbers of calls per execution are taken to change the load, not the path of an execution"
"""What is assumed of executions that call more or less often: counts do not say what waits for what."""


@dataclass(frozen=True)
class Change:
    """How calls differ from the Plan's; factors, by LLM where nothing else is said, 1 where none is given.

    Attributes:
        calls: of calls per second, beyond what `executions` and `per_execution` explain.
        input: of prompt tokens per call, cached ones included.
        output: of generated tokens per call.
        seconds: of the time that a call takes at the same load.
        replicas: instances that are there, where not all are.
        executions: by workflow, of executions per second.
        per_execution: by workflow and LLM, of calls per execution.
    """

    calls: Mapping[str, float] = field(default_factory=dict)
    input: Mapping[str, float] = field(default_factory=dict)
    output: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    executions: Mapping[str, float] = field(default_factory=dict)
    per_execution: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether anything is different."""
        return bool(self.load or self.input or self.output or self.seconds or self.replicas)

    @property
    def load(self) -> tuple[float, ...]:
        """All factors of how many calls there are."""
        return (*self.calls.values(), *self.executions.values(), *self.per_execution.values())


def changed(demands: Mapping[str, Demand], change: Change) -> dict[str, Demand]:
    """Return demands with calls that are so much more frequent, and longer."""
    found = {}
    for name, demand in demands.items():
        # More executions are more calls at the same rate: `_rate` and `_workflow` turn them into executions again.
        often = change.executions.get(name, 1.0)
        each = {llm: change.calls.get(llm, 1.0) * change.per_execution.get((name, llm), 1.0) for llm in demand.llms}
        more = demand.times({llm: often * factor for llm, factor in each.items()})
        found[name] = longer(more, change.input, change.output)
    return found


def load_of(inputs: Inputs, llm: str, change: Change) -> LlmLoad | None:
    """Return the load on one LLM; None where no workflow calls it (any more)."""
    every = loads(inputs.workflows, changed(inputs.planned, change))
    return next((load for load in every if load.name == llm), None)


def model_of(inputs: Inputs, planned: PlannedLlm, load: LlmLoad) -> InstanceModel | str:
    """Return an instance as the Plan has it, or why it cannot serve such calls.

    Args:
        inputs: what the Plan is compiled from.
        planned: the LLM in the Plan.
        load: its calls.
    """
    card = inputs.inventory.card.get(planned.product)
    if card is None:
        return f"the cluster has no {planned.product} any more"
    shape = Shape(planned.product, planned.tp, round(planned.share * 10))
    if planned.tp not in inputs.catalog.degrees(planned.model, planned.product):
        return f"there is no profile of {planned.model} with TP {planned.tp} on {planned.product} that is usable"
    model = instance_model(load, shape, inputs.catalog, card)
    if isinstance(model, str) or planned.bandwidth is None or planned.bandwidth >= model.bandwidth:
        return model
    return capped(model, load, inputs.catalog, [planned.bandwidth])[0]


def call_seconds(inputs: Inputs, planned: PlannedLlm, factors: Sequence[float], change: Change) -> Array | str:
    """Return the mean latency of a call of one LLM at so many times its planned load, or why it is not known.

    Of a group of calls it is that of the last one.

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
        return "no workflow calls it any more"
    model = model_of(inputs, planned, base)
    if isinstance(model, str):
        return model
    found = []
    share = [caller.calls / base.calls for caller in base.callers]
    for factor in factors:
        load = replace(base, callers=tuple(replace(c, rate=c.rate * factor) for c in base.callers))
        result = evaluate(load, [model], np.zeros(1, dtype=np.int64), np.array([planned.replicas], dtype=np.int64))
        found.append(sum(s * float(own) for s, own in zip(share, result.latency[:, 0], strict=True)))
    return np.array(found)


def cost_of(inputs: Inputs, plan: Plan, change: Change) -> Outlook:
    """Predict all workflows with the committed allocation.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        change: how the world differs.
    """
    planned = {llm.name: llm for llm in plan.spec.llms}
    demands = changed(inputs.planned, change)
    outcomes: list[LlmOutcome] = []
    missing: dict[str, str] = {}
    saturated: set[str] = set()
    for load in loads(inputs.workflows, demands):
        own = planned.get(load.name)
        model = model_of(inputs, own, load) if own is not None else "it is not in the plan"
        if own is None or isinstance(model, str):
            missing[load.name] = str(model)
            continue
        slower = change.seconds.get(load.name, 1.0)
        model = replace(model, seconds=model.seconds * slower, work=model.work * slower)
        replicas = change.replicas.get(load.name, own.replicas)
        if replicas < 1:
            missing[load.name] = "no instance of it is left"
            continue
        result = evaluate(load, [model], np.zeros(1, dtype=np.int64), np.array([replicas], dtype=np.int64))
        latency = tuple(float(x) for x in result.latency[:, 0])
        if result.utilisation[0] >= 1 or not all(map(math.isfinite, latency)):
            saturated.add(load.name)
            latency = tuple(1.0 for _ in latency)
        outcomes.append(
            LlmOutcome(load, model, replicas, latency, float(result.utilisation[0]), float(result.bandwidth[0]))
        )
    calls = {name: {llm.name for llm in w.spec.llms} for name, w in inputs.workflows.items()}
    whole = [name for name in inputs.workflows if not calls[name] & set(missing)]
    stuck = {name for name, llms in calls.items() if llms & saturated}
    figures = _figures(inputs, demands, outcomes, whole, stuck, change)
    broken = tuple(
        WorkflowFigures(name, _rate(inputs, name, change), None, 0.0) for name in inputs.workflows if name not in whole
    )
    notes = [f"{llm}: {why}" for llm, why in missing.items()]
    notes += [f"{llm} is beyond saturation: its queue grows without bound" for llm in sorted(saturated)]
    if change.calls:
        notes.append(ALIKE)
    if change.per_execution:
        notes.append(BESIDE)
    return Outlook(figures + broken, _gpus(plan), "; ".join(notes))


def _figures(
    inputs: Inputs,
    demands: Mapping[str, Demand],
    outcomes: Sequence[LlmOutcome],
    names: Sequence[str],
    stuck: set[str],
    change: Change,
) -> tuple[WorkflowFigures, ...]:
    """Predict the workflows of which every LLM is there; those that are stuck have no latency."""
    kept = []
    for outcome in outcomes:
        own = [i for i, caller in enumerate(outcome.load.callers) if caller.workflow in names]
        if own:
            kept.append(_only(outcome, own))
    predicted = predict(kept, {name: makespans_of(demands[name]) for name in names}) if kept and names else {}
    return tuple(_workflow(inputs, name, predicted[name], change, stuck=name in stuck) for name in names)


def _workflow(
    inputs: Inputs, name: str, outcome: WorkflowOutcome, change: Change, *, stuck: bool = False
) -> WorkflowFigures:
    # Demands hold more executions as more calls of each, of which fewer fit: as executions, as many do.
    rate = _rate(inputs, name, change)
    factor = rate / inputs.workflows[name].spec.target.per_second
    latency = None if stuck or not math.isfinite(outcome.latency) else outcome.latency
    return WorkflowFigures(name, rate, latency, max(0.0, outcome.capacity * factor))


def _rate(inputs: Inputs, name: str, change: Change) -> float:
    """Return a workflow's rate; what no workflow explains is taken from the LLM that it calls whose load rose most."""
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


def gain_of(after: Inputs) -> Outlook:
    """Compile in memory.

    Whether instances may stay where they are is not looked at: this is the best that could be had. Slower engines and
    missing instances do not count: a compile rests on the profiles, and places every instance.

    Args:
        after: what the next Plan would be compiled from.
    """
    problem = build_problem(after.workflows, after.planned, after.catalog, after.inventory)
    try:
        solution = solve(problem, after.inventory)
    except Infeasible as error:
        return Outlook(note=f"no allocation carries it: {error.message}")
    outcomes = predict(solution.outcomes, problem.makespans)
    figures = tuple(_workflow(after, name, own, Change()) for name, own in outcomes.items())
    gpus = round(sum(placed.tenths * len(placed.gpus) for placed in solution.placed) / 10, 1)
    return Outlook(figures, gpus)


def fewest_note(inputs: Inputs, change: Change) -> str:
    """Say on how few GPUs the targets would be met, where there is less load than planned and no more of anything."""
    if not change.load or max(change.load) >= 1:
        return ""
    demands = changed(inputs.planned, change)
    fewest = fewest_gpus(inputs.workflows, demands, inputs.catalog, inputs.inventory)
    return f"the load that is seen would be met on {fewest} GPUs"
