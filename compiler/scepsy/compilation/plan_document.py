"""The Plan document: an allocation, its predictions, and what changes against the plan in force."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scepsy.allocation import OBJECTIVE, Problem, Solution, fewest_gpus
from scepsy.compilation.inputs import Inputs
from scepsy.compilation.plan_warnings import plan_warnings
from scepsy.compilation.unchanged import compiler_name
from scepsy.documents import API_VERSION, Plan, Workspace
from scepsy.documents.model import Metadata
from scepsy.documents.plan import (
    Change,
    FewestGpus,
    FreeGpus,
    HeavyDemand,
    Instance,
    Latency,
    LatencyShare,
    LlmPrediction,
    PlannedLlm,
    PlannedWorkflow,
    PlanSpec,
    ProfileReference,
    Proof,
    WorkflowPrediction,
)
from scepsy.documents.units import Si
from scepsy.performance.memory import MIB
from scepsy.pipeline import CALL_GRAPH, SUM, LlmOutcome, WorkflowOutcome
from scepsy.placement import Inventory, largest_group, schedule
from scepsy.placement import name as name_instances


def plan_document(
    workspace: Workspace,
    inputs: Inputs,
    solution: Solution,
    outcomes: Mapping[str, WorkflowOutcome],
    previous: Sequence[Plan],
) -> Plan:
    """Return the Plan of an allocation; its `files` are empty until it is rendered.

    Args:
        workspace: the project.
        inputs: what was compiled.
        solution: the allocation.
        outcomes: per workflow its prediction.
        previous: the plan in force, then earlier ones that may not be fully applied; empty for a first plan.
    """
    problem = solution.problem
    instances, change = _instances(solution, previous, inputs.inventory)
    project = workspace.project.document.spec
    cluster = inputs.cluster
    free, largest = largest_group(inputs.inventory, solution.placed)
    spec = PlanSpec(
        compiler=compiler_name(),
        cluster=cluster.metadata.name,
        namespace=project.namespace,
        sharing=cluster.spec.sharing,
        engine_image=project.engine.image,
        workflows=tuple(_workflow(inputs, problem, name, outcome) for name, outcome in outcomes.items()),
        llms=tuple(_llm(inputs, outcome) for outcome in solution.outcomes),
        instances=instances,
        change=change,
        free=FreeGpus(gpus=free, largest_tensor_parallel=largest, reserved=inputs.inventory.reserved),
        fewest_gpus=_fewest_gpus(inputs),
        proof=Proof(
            objective=OBJECTIVE,
            predictor=CALL_GRAPH if any(d.recorded for d in inputs.demands.values()) else SUM,
            lower_bound=_rounded(solution.lower_bound),
            achieved=_rounded(solution.achieved),
            gap=_rounded(solution.gap),
            unplaced_bound=_rounded(solution.unplaced_bound),
            candidates=solution.tried,
        ),
        warnings=tuple(plan_warnings(workspace, inputs, solution)),
        inputs=dict(inputs.digests),
    )
    whole = spec.model_copy(update={"digest": spec.content_digest()})
    return Plan(api_version=API_VERSION, kind="Plan", metadata=Metadata(name=cluster.metadata.name), spec=whole)


def _instances(
    solution: Solution, previous: Sequence[Plan], inventory: Inventory
) -> tuple[tuple[Instance, ...], Change | None]:
    """Name the placed instances, set their sync waves, and list the changes against the plan in force."""
    olds = [plan.spec.instances for plan in previous]
    in_force = olds[0] if olds else ()
    taken = {item.name for old in olds for item in old}
    named = name_instances(solution.placed, in_force, taken, inventory)
    if previous and [i.model_copy(update={"wave": 0}) for i in in_force] == named:
        return in_force, previous[0].spec.change
    order = schedule(named, olds)
    instances = tuple(item.model_copy(update={"wave": order.wave[item.name]}) for item in named)
    if not previous:
        return instances, None
    unchanged = {i.name for i in instances if i in in_force}
    earlier = previous[0].spec.change.circles if previous[0].spec.change else ()
    carried = tuple(circle for circle in earlier if set(circle) <= unchanged)
    before = {item.name: (item.node, item.gpus, item.share) for item in in_force}
    now = {item.name: (item.node, item.gpus, item.share) for item in named}
    return instances, Change(
        started=tuple(n for n in now if n not in before),
        moved=tuple(n for n in now if n in before and now[n] != before[n]),
        removed=tuple(n for n in before if n not in now),
        circles=(*carried, *order.circles),
    )


def _rounded(value: float) -> float:
    """Round to the resolution of the objective, so that the last bits of a sum are not in the file."""
    return round(value, 6)


def _workflow(inputs: Inputs, problem: Problem, name: str, outcome: WorkflowOutcome) -> PlannedWorkflow:
    spec, recorded = inputs.workflows[name].spec, inputs.demands[name].recorded
    quantiles = {f"p{100 * quantile:g}": Si(seconds) for quantile, seconds in outcome.quantiles.items()}
    return PlannedWorkflow(
        name=name,
        target=spec.target,
        priority=spec.priority,
        objective=spec.objective,
        demand=_heavy_demand(inputs, name),
        predicted=WorkflowPrediction(
            latency=Latency(mean=Si(outcome.latency), **quantiles),
            capacity=Si(outcome.capacity),
            slowdown=round(outcome.latency / problem.least[name], 4),
            outside=Si(outcome.outside),
            llms=tuple(
                LatencyShare(llm=llm, latency=Si(outcome.parts[llm]), call=Si(outcome.calls[llm]))
                for llm in outcome.parts
            ),
            executions=len(recorded.graphs) if recorded is not None else None,
        ),
    )


def _heavy_demand(inputs: Inputs, name: str) -> HeavyDemand | None:
    quantile = inputs.workflows[name].spec.demand.quantile
    if quantile is None:
        return None
    mean, planned = inputs.demands[name].llms, inputs.planned[name].llms
    factors = {llm: max(1.0, float(f"{planned[llm].calls / mean[llm].calls:.4g}")) for llm in mean}
    return HeavyDemand(quantile=quantile, factors=factors)


def _fewest_gpus(inputs: Inputs) -> FewestGpus | None:
    """Return the fewest GPUs for the planned and for the mean demand, if a workflow plans for heavy executions."""
    if all(workflow.spec.demand.quantile is None for workflow in inputs.workflows.values()):
        return None
    planned, mean = (
        fewest_gpus(inputs.workflows, demands, inputs.catalog, inputs.inventory)
        for demands in (inputs.planned, inputs.demands)
    )
    # GPUs that carry the heavy demand carry the mean.
    return FewestGpus(planned=planned, mean=min(mean, planned))


def _llm(inputs: Inputs, outcome: LlmOutcome) -> PlannedLlm:
    model, llm = outcome.model, outcome.load.llm
    architecture = inputs.catalog.architecture(llm.model)
    times = model.times[0]
    return PlannedLlm(
        name=llm.name,
        workflows=tuple(caller.workflow for caller in outcome.load.callers),
        model=llm.model,
        revision=llm.revision,
        product=model.shape.product,
        tp=model.shape.tp,  # type: ignore[arg-type] # pydantic checks it
        share=model.shape.tenths / 10,
        bandwidth=round(model.bandwidth, 4) if model.shape.tenths < 10 else None,
        replicas=outcome.replicas,
        max_model_len=llm.max_model_len or architecture.context_length,
        max_num_seqs=model.limit,
        memory_per_gpu=model.memory.total,
        kv_cache_per_gpu=model.memory.kv_cache,
        weights=math.ceil(architecture.parameters * architecture.bytes_per_parameter / MIB) * MIB,
        pod_template=llm.pod_template,
        profile=ProfileReference(name=times.profile, source=times.source, share_model=times.share_model),
        predicted=LlmPrediction(
            load=Si(outcome.load.calls),
            utilisation=round(outcome.utilisation, 4),
            uncertainty=_uncertainty(outcome),
        ),
    )


def _uncertainty(outcome: LlmOutcome) -> float | None:
    """Return the relative 95 % interval of R at an instance's mean number of calls; None if not measured."""
    callers = outcome.load.callers
    in_flight = sum(c.calls * seconds for c, seconds in zip(callers, outcome.latency, strict=True)) / outcome.replicas
    k = min(max(1, round(in_flight)), outcome.model.limit)
    known = [times.uncertainty for times in outcome.model.times if times.uncertainty is not None]
    return max(round(float(interval[k - 1]), 4) for interval in known) if len(known) == len(callers) else None
