"""The compiler: documents → demand, performance → pipeline → allocation → placement → Plan.

Pure: everything is read before, and written after. One call compiles all workflows of a project onto one cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scepsy import __version__
from scepsy.allocation import (
    OBJECTIVE,
    Infeasible,
    Problem,
    Replanned,
    Solution,
    build_problem,
    fewest_gpus,
    remedy,
    replan,
    solve,
)
from scepsy.demand import Demand, as_observed, demand_of, quantile_factors
from scepsy.demand.replay import replayed_as
from scepsy.demand.stability import stability_of
from scepsy.demand.stability import warnings as stability_warnings
from scepsy.documents import (
    API_VERSION,
    Cluster,
    Diagnostic,
    DocumentError,
    Loaded,
    ObservedWorkflow,
    Plan,
    Workflow,
    Workspace,
    did_you_mean,
)
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
from scepsy.documents.units import Si, format_duration, format_rate
from scepsy.documents.workflow import OBSERVED, Target
from scepsy.performance import Catalog, ServiceTimes
from scepsy.performance.memory import MIB
from scepsy.performance.mix import SAME_MIX, Calls
from scepsy.performance.share_scaling import INTERPOLATED
from scepsy.pipeline import CALL_GRAPH, SUM, Caller, LlmOutcome, WorkflowOutcome, predict
from scepsy.placement import Inventory, inventory_of, largest_group, running, schedule
from scepsy.placement import name as name_instances


@dataclass(frozen=True)
class Inputs:
    """Everything that one compilation reads, checked.

    Attributes:
        workflows: by name, an observed target rate looked up.
        demands: by workflow, as recorded or stated.
        planned: by workflow, the demand to plan for: that of heavy executions where the document says so.
        catalog: the profiles.
        cluster: the cluster.
        inventory: its GPUs.
        digests: of every input file.
    """

    workflows: Mapping[str, Workflow]
    demands: Mapping[str, Demand]
    planned: Mapping[str, Demand]
    catalog: Catalog
    cluster: Cluster
    inventory: Inventory
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Compilation:
    """A plan, and the values behind it for those who want to explain it.

    Attributes:
        plan: the plan; its `files` are filled in by the caller who renders them.
        inputs: what it was made from.
        solution: the allocation.
        outcomes: per workflow what the predictor says.
        replanned: what was kept of the plan in force; None for a first plan.
    """

    plan: Plan
    inputs: Inputs
    solution: Solution
    outcomes: Mapping[str, WorkflowOutcome]
    replanned: Replanned | None = None


def gather(workspace: Workspace, cluster: str) -> Inputs:
    """Collect and check what one compilation needs.

    Raises:
        DocumentError: traces are wrong, or documents do not fit together.
        ScepsyError: there is no such cluster.
    """
    target = workspace.cluster(cluster)
    project = workspace.project.document.spec
    profiles = [p.document for p in workspace.profiles.values()]
    catalog = Catalog(profiles, project.engine.version, _revisions(workspace))
    replayed = {p.spec.model for p in profiles if p.spec.provenance.trace_digest is not None}
    inventory = inventory_of(target.document)
    demands: dict[str, Demand] = {}
    workflows: dict[str, Workflow] = {}
    calls: list[Calls] = []
    digests = _relevant(workspace, target, inventory)
    observed = workspace.observed_in(cluster)
    problems: list[Diagnostic] = []
    if not inventory.domains:
        missing = workspace.missing.get(cluster)
        what = f"every GPU of the cluster is reserved{' or missing' if missing else ''}"
        hint = f"free one{f', or remove {missing.source.file.name} if they are back' if missing else ''}"
        raise DocumentError([target.problem(("spec", "nodes"), what, hint)])
    for name, workflow in workspace.workflows.items():
        problems.extend(_check_models(workflow, target.document, catalog, inventory))
        try:
            stated, read = demand_of(workspace, workflow)
            seen = observed.get(name)
            demands[name] = stated if seen is None else as_observed(stated, seen.document)
            digests.update(read)
            trace = next(iter(read.values())) if workflow.document.spec.demand.traces is not None else None
            llms = [llm for llm in workflow.document.spec.llms if llm.model in replayed]
            calls.extend(replayed_as(llm, demands[name].llms[llm.name], trace) for llm in llms)
            problems.extend(_check_lengths(workflow, demands[name], catalog))
            workflows[name] = _at_rate(workflow, stated, seen)
        except DocumentError as error:
            problems.extend(error.diagnostics)
    if problems:
        raise DocumentError(problems)
    planned = {name: _planned(workflows[name], demand) for name, demand in demands.items()}
    catalog = catalog.with_calls(calls)
    return Inputs(workflows, demands, planned, catalog, target.document, inventory, dict(sorted(digests.items())))


def _revisions(workspace: Workspace) -> dict[str, set[str | None]]:
    """Return by model the revisions that LLMs pin; None among them where one pins none."""
    pinned: dict[str, set[str | None]] = {}
    for workflow in workspace.workflows.values():
        for llm in workflow.document.spec.llms:
            pinned.setdefault(llm.model, set()).add(llm.revision)
    return pinned


def _at_rate(loaded: Loaded[Workflow], demand: Demand, observed: Loaded[ObservedWorkflow] | None) -> Workflow:
    """Return the workflow with the rate to plan for: the larger of its target and what drift detection saw.

    A target of `observed` is what drift detection saw, else what the trace shows.

    Raises:
        DocumentError: nothing was observed.
    """
    workflow = loaded.document
    target = workflow.spec.target.rate
    seen = observed.document.spec.rate if observed is not None else None
    if target != OBSERVED:
        return workflow if seen is None or seen <= target else _with_rate(workflow, seen)
    if seen is not None:
        return _with_rate(workflow, seen)
    where = ("spec", "target", "rate")
    if demand.recorded is None:
        message = "statistics do not know the observed rate"
        raise DocumentError([loaded.problem(where, message, "give a rate such as 4/s, or a trace")])
    arrivals = demand.recorded.arrivals
    if isinstance(arrivals, str):
        raise DocumentError(
            [loaded.problem(where, f"the rate was not observed: {arrivals}", "give a rate such as 4/s")]
        )
    return _with_rate(workflow, float(f"{arrivals.rate:.4g}"))


def _with_rate(workflow: Workflow, rate: float) -> Workflow:
    spec = workflow.spec.model_copy(update={"target": Target(rate=Si(rate))})
    return workflow.model_copy(update={"spec": spec})


def _planned(workflow: Workflow, demand: Demand) -> Demand:
    quantile = workflow.spec.demand.quantile
    if quantile is None or demand.recorded is None:
        return demand
    return demand.times(quantile_factors(demand.recorded, quantile))


def compile_plan(workspace: Workspace, cluster: str, previous: Sequence[Plan] = ()) -> Compilation:
    """Compile all workflows onto one cluster.

    Args:
        workspace: the project.
        cluster: the cluster.
        previous: the plan in force, then earlier ones that may not have been applied in full; none for a first plan.

    Raises:
        DocumentError: the documents are wrong or do not fit together.
        Infeasible: no allocation sustains the targets; says what would.
    """
    inputs = gather(workspace, cluster)
    inventory = inputs.inventory
    problem = build_problem(inputs.workflows, inputs.planned, inputs.catalog, inventory)
    try:
        solution = solve(problem, inventory)
    except Infeasible as error:
        message, hint = remedy(error, inputs.workflows, inputs.planned, inputs.catalog, inventory)
        raise Infeasible(error.problem, error.table, f'cluster "{cluster}": {message}', hint) from error
    replanned: Replanned | None = None
    if previous:
        before = previous[0].spec
        still = running(before.instances, {llm.name: llm.product for llm in before.llms}, inventory)
        settings = workspace.project.document.spec.replanning
        replanned = replan(solution, inventory, before.instances, still, settings.tolerance, settings.minimum_gain)
        solution = replanned.solution
    outcomes = predict(solution.outcomes, problem.makespans)
    plan = _plan(workspace, inputs, solution, outcomes, previous)
    return Compilation(plan, inputs, solution, outcomes, replanned)


def _relevant(workspace: Workspace, cluster: Loaded[Cluster], inventory: Inventory) -> dict[str, str]:
    """Return the digests of the inputs that bear on this cluster.

    Files that hold nothing but other clusters, or profiles of models that nobody calls or of GPU products that may not
    be used here, do not: a plan should change only when something that it rests on did.
    """
    called = {llm.model for w in workspace.workflows.values() for llm in w.document.spec.llms}
    bearing = {cluster.source.file.name}
    observed = workspace.observed_in(cluster.document.metadata.name)
    bearing |= {o.source.file.name for name, o in observed.items() if name in workspace.workflows}
    bearing |= {m.source.file.name for name, m in workspace.missing.items() if name == cluster.document.metadata.name}
    bearing |= {
        p.source.file.name
        for p in workspace.profiles.values()
        if p.document.spec.model in called and p.document.spec.product in inventory.products
    }
    every = [c.source.file.name for c in workspace.clusters.values()]
    every += [p.source.file.name for p in workspace.profiles.values()]
    every += [o.source.file.name for o in workspace.observed.values()]
    every += [m.source.file.name for m in workspace.missing.values()]
    idle = set(every) - bearing
    left_out = {workspace.relative(workspace.directory / name) for name in idle}
    return {path: value for path, value in workspace.inputs.items() if path not in left_out}


def _check_models(
    workflow: Loaded[Workflow], cluster: Cluster, catalog: Catalog, inventory: Inventory
) -> list[Diagnostic]:
    """Every LLM has a usable profile for a product of the cluster, of an allowed degree that divides its heads."""
    problems = []
    for index, llm in enumerate(workflow.document.spec.llms):
        where = ("spec", "llms", index)
        if llm.model not in catalog.models:
            hint = did_you_mean(llm.model, catalog.models) + "; or add a Profile of it"
            problems.append(
                workflow.problem((*where, "model"), f"no profile for the model {llm.model}", hint.strip("; "))
            )
            continue
        architecture = catalog.architecture(llm.model)
        for i, tp in enumerate(llm.tensor_parallel):
            if architecture.attention_heads % tp:
                message = f"tensor parallelism {tp} does not divide the model's {architecture.attention_heads} heads"
                problems.append(workflow.problem((*where, "tensorParallel", i), message))
        if llm.max_model_len and llm.max_model_len > architecture.context_length:
            message = f"maxModelLen is above the model's context length of {architecture.context_length:,} tokens"
            problems.append(workflow.problem((*where, "maxModelLen"), message))
        degrees = {tp for product in inventory.products for tp in catalog.degrees(llm.model, product, llm.revision)}
        if not degrees:
            outdated = catalog.outdated(llm.model, llm.revision, inventory.products)
            stale = "; ".join(f"profile {name} is stale: {reason}" for name, reason in outdated)
            message = f"{llm.model} is not profiled on a GPU of cluster {cluster.metadata.name}"
            has = ", ".join(catalog.products(llm.model, llm.revision)) or "none that is usable"
            hint = f"profiled on: {has}; the cluster has: {', '.join(inventory.products)}"
            if stale:
                hint = f"{hint}; {stale}; {_MEASURE}"
            problems.append(workflow.problem((*where, "model"), message, hint))
        elif llm.tensor_parallel and not degrees & set(llm.tensor_parallel):
            message = f"none of the tensor-parallel degrees is profiled; profiled: {sorted(degrees)}"
            problems.append(workflow.problem((*where, "tensorParallel"), message))
    return problems


def _check_lengths(workflow: Loaded[Workflow], demand: Demand, catalog: Catalog) -> list[Diagnostic]:
    """The longest call that the demand shows must be allowed, or the engine would refuse it."""
    problems = []
    for index, llm in enumerate(workflow.document.spec.llms):
        longest = demand.llms[llm.name].longest
        if llm.model not in catalog.models:
            continue
        limit = llm.max_model_len or catalog.architecture(llm.model).context_length
        if longest > limit:
            key = "maxModelLen" if llm.max_model_len else "name"
            message = f"calls have up to {longest:,.0f} tokens, but {limit:,} are allowed"
            problems.append(workflow.problem(("spec", "llms", index, key), message, f"allow {math.ceil(longest):,}"))
    return problems


def _plan(
    workspace: Workspace,
    inputs: Inputs,
    solution: Solution,
    outcomes: Mapping[str, WorkflowOutcome],
    previous: Sequence[Plan],
) -> Plan:
    problem = solution.problem
    arranged, change = _arranged(solution, previous, inputs.inventory)
    project = workspace.project.document.spec
    cluster = inputs.cluster
    free, largest = largest_group(inputs.inventory, solution.placed)
    return Plan(
        api_version=API_VERSION,
        kind="Plan",
        metadata=Metadata(name=cluster.metadata.name),
        spec=PlanSpec(
            compiler=f"scepsy {__version__}",
            cluster=cluster.metadata.name,
            namespace=project.namespace,
            sharing=cluster.spec.sharing,
            engine_image=project.engine.image,
            workflows=tuple(_workflow(inputs, problem, name, outcome) for name, outcome in outcomes.items()),
            llms=tuple(_llm(inputs, outcome) for outcome in solution.outcomes),
            instances=arranged,
            change=change,
            free=FreeGpus(gpus=free, largest_tensor_parallel=largest, reserved=inputs.inventory.reserved),
            fewest_gpus=_fewest(inputs),
            proof=Proof(
                objective=OBJECTIVE,
                predictor=CALL_GRAPH if any(d.recorded for d in inputs.demands.values()) else SUM,
                lower_bound=_rounded(solution.lower_bound),
                achieved=_rounded(solution.achieved),
                gap=_rounded(solution.gap),
                unplaced_bound=_rounded(solution.unplaced_bound),
                candidates=solution.tried,
            ),
            warnings=tuple(_warnings(workspace, inputs, solution)),
            inputs=dict(inputs.digests),
        ),
    )


def _arranged(
    solution: Solution, previous: Sequence[Plan], inventory: Inventory
) -> tuple[tuple[Instance, ...], Change | None]:
    """Name the placed instances, put their start in order, and say what changes against the plan in force."""
    olds = [plan.spec.instances for plan in previous]
    in_force = olds[0] if olds else ()
    taken = {item.name for old in olds for item in old}
    named = name_instances(solution.placed, in_force, taken, inventory)
    if previous and [i.model_copy(update={"wave": 0}) for i in in_force] == named:
        return in_force, previous[0].spec.change
    order = schedule(named, olds)
    arranged = tuple(item.model_copy(update={"wave": order.wave[item.name]}) for item in named)
    if not previous:
        return arranged, None
    unchanged = {i.name for i in arranged if i in in_force}
    earlier = previous[0].spec.change.circles if previous[0].spec.change else ()
    carried = tuple(circle for circle in earlier if set(circle) <= unchanged)
    before = {item.name: (item.node, item.gpus, item.share) for item in in_force}
    now = {item.name: (item.node, item.gpus, item.share) for item in named}
    return arranged, Change(
        started=tuple(n for n in now if n not in before),
        moved=tuple(n for n in now if n in before and now[n] != before[n]),
        removed=tuple(n for n in before if n not in now),
        circles=(*carried, *order.circles),
    )


def _rounded(value: float) -> float:
    """Round to what the objective's resolution supports, so that the last bits of a sum are not in the file."""
    return round(value, 6)


def _workflow(inputs: Inputs, problem: Problem, name: str, outcome: WorkflowOutcome) -> PlannedWorkflow:
    spec, recorded = inputs.workflows[name].spec, inputs.demands[name].recorded
    quantiles = {f"p{100 * quantile:g}": Si(seconds) for quantile, seconds in outcome.quantiles.items()}
    return PlannedWorkflow(
        name=name,
        target=spec.target,
        priority=spec.priority,
        objective=spec.objective,
        demand=_heavy(inputs, name),
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


def _heavy(inputs: Inputs, name: str) -> HeavyDemand | None:
    quantile = inputs.workflows[name].spec.demand.quantile
    if quantile is None:
        return None
    mean, planned = inputs.demands[name].llms, inputs.planned[name].llms
    factors = {llm: max(1.0, float(f"{planned[llm].calls / mean[llm].calls:.4g}")) for llm in mean}
    return HeavyDemand(quantile=quantile, factors=factors)


def _fewest(inputs: Inputs) -> FewestGpus | None:
    """Say what planning for heavy executions costs, where the documents ask for it."""
    if all(workflow.spec.demand.quantile is None for workflow in inputs.workflows.values()):
        return None
    planned, mean = (
        fewest_gpus(inputs.workflows, demands, inputs.catalog, inputs.inventory)
        for demands in (inputs.planned, inputs.demands)
    )
    # What carries the heavy demand carries the mean.
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


def _warnings(workspace: Workspace, inputs: Inputs, solution: Solution) -> list[str]:
    """What a reviewer should know: what is estimated, not pinned, not enforced, or beyond what was profiled."""
    project = workspace.project.document.spec
    warnings: list[str] = []
    used = {name for outcome in solution.outcomes for times in outcome.model.times for name in times.profiles}
    warnings.extend(message for name, message in sorted(inputs.catalog.warnings.items()) if name in used)
    called = {outcome.load.llm.model for outcome in solution.outcomes}
    stale = inputs.catalog.stale_for(called, inputs.inventory.products)
    warnings.extend(f"{reason}; it is not used ({_MEASURE})" for reason in stale)
    for outcome in solution.outcomes:
        for caller, times in zip(outcome.load.callers, outcome.model.times, strict=True):
            warnings.extend(_of_calls(outcome.load.name, caller, times))
    warnings.extend(warning for outcome in solution.outcomes for warning in _mixed_calls(outcome))
    unpinned = sorted({o.load.llm.model for o in solution.outcomes if o.load.llm.revision is None})
    if unpinned:
        warnings.append(f"the revision of {', '.join(unpinned)} is not pinned (spec.llms[].revision)")
    warnings.extend(_of_shares(solution.outcomes))
    for name, image in (("engine", project.engine.image), ("gateway", project.gateway.image)):
        if "@sha256:" not in image:
            warnings.append(f"the {name} image {image} is not pinned by a digest (spec.{name}.image in scepsy.yaml)")
    warnings.extend(_of_observed(workspace, inputs))
    for name, workflow in inputs.workflows.items():
        warnings.extend(_of_demand(name, workflow, inputs.demands[name]))
    return warnings


def _of_observed(workspace: Workspace, inputs: Inputs) -> list[str]:
    """Say in what the plan follows what drift detection saw, and not what people wrote."""
    found = []
    for name, loaded in workspace.observed_in(inputs.cluster.metadata.name).items():
        if name not in inputs.workflows:
            continue
        seen, where = loaded.document.spec, f"as observed ({loaded.source.file.name})"
        stated = workspace.workflows[name].document.spec.target.rate
        if seen.rate is not None and inputs.workflows[name].spec.target.rate != stated:
            against = "" if stated == OBSERVED else f", above the target of {format_rate(stated)}"
            found.append(f"{name}: planned for {format_rate(seen.rate)} {where}{against}")
        called = [own.llm for own in seen.llms if own.llm in inputs.demands[name].llms]
        if called:
            found.append(f"{name}: calls of {', '.join(called)} are {where}")
        if inputs.demands[name].recorded is not None and any(own.calls is not None for own in seen.llms):
            found.append(f"{name}: calls per execution are {where}; the path of an execution stays as it was recorded")
    cluster = inputs.cluster.metadata.name
    missing = workspace.missing.get(cluster)
    if missing is not None:
        nodes = workspace.clusters[cluster].document.spec.nodes
        there = {node.name for node in nodes} | {gpu.uuid for node in nodes for gpu in node.gpus}
        gone = [*missing.document.spec.missing_nodes, *missing.document.spec.missing_gpus]
        without = ", ".join(name for name in gone if name in there)
        found += [f"planned without {without}, as observed ({missing.source.file.name})"] if without else []
    return found


_MEASURE = "scepsy profile plan lists what to measure"


def _of_calls(llm: str, caller: Caller, times: ServiceTimes) -> list[str]:
    """Warn of figures that are not those of the caller's calls, and of measurements that are so no longer."""
    found = [
        f"{llm} for {caller.workflow}: profile {name} is stale: {reason}; an estimate is used in its place ({_MEASURE})"
        for name, reason in times.unused
    ]
    if times.stale is not None:
        found.append(
            f"{llm} for {caller.workflow}: profile {times.profile} is stale: {times.stale}; it is used for want of"
            f" another, its figures carried over to these calls ({_MEASURE})"
        )
    elif times.rescaled > SAME_MIX:
        base = times.series_mix
        found.append(
            f"{llm} for {caller.workflow}: calls of {caller.mix.computed:.0f} computed prompt and"
            f" {caller.mix.output:.0f} output tokens are predicted from a series for {base.computed:.0f} and"
            f" {base.output:.0f} in profile {times.profile}"
        )
    return found


def _of_shares(outcomes: Sequence[LlmOutcome]) -> list[str]:
    """Warn of shares that were not measured, by the way in which their figures were found."""
    ways: dict[str, list[str]] = {}
    for outcome in outcomes:
        for way in dict.fromkeys(times.share_model for times in outcome.model.times):
            if way is not None:
                ways.setdefault(way, []).append(outcome.load.name)
    return [
        f"shares of {', '.join(sorted(names))} are {way}, not measured"
        if way.startswith(INTERPOLATED)
        else f"shares of {', '.join(sorted(names))} rest on the model {way}, not on a measurement"
        for way, names in ways.items()
    ]


def _uncertainty(outcome: LlmOutcome) -> float | None:
    """Return how far R may be off at the number of calls that an instance runs in the mean; None if not measured."""
    callers = outcome.load.callers
    flying = sum(c.calls * seconds for c, seconds in zip(callers, outcome.latency, strict=True)) / outcome.replicas
    k = min(max(1, round(flying)), outcome.model.limit)
    known = [times.uncertainty for times in outcome.model.times if times.uncertainty is not None]
    return max(round(float(own[k - 1]), 4) for own in known) if len(known) == len(callers) else None


_BURSTY = 1.5
"""Index of dispersion from which on arrivals are called bursty: the queueing model assumes 1."""


def _of_demand(name: str, workflow: Workflow, demand: Demand) -> list[str]:
    """Warn of a demand that is a weak basis: few executions, executions that differ widely, bursts."""
    quantiles = workflow.spec.objective.quantiles
    recorded = demand.recorded
    if recorded is None:
        return [
            f"{name}: the p{100 * q:g} objective is not enforced: statistics know means only,"
            " give a trace (spec.demand.traces)"
            for q in quantiles
        ]
    found = [f"{name}: {note}" for note in recorded.notes]
    found += [
        f"{name}: the p{100 * q:g} objective rests on {len(recorded.graphs)} executions;"
        f" record at least {5 / (1 - q):.0f}"
        for q in quantiles
        if len(recorded.graphs) * (1 - q) < 5 - 1e-9
    ]
    stability = stability_of(recorded.llms, recorded.calls, recorded.spent)
    unstable = stability_warnings(stability, name)
    if stability.stable is False and workflow.spec.demand.quantile is None:
        unstable.append(f"{name}: spec.demand.quantile, such as 0.9, plans for its heavy executions")
    found += unstable
    if not isinstance(recorded.arrivals, str) and recorded.arrivals.dispersion > _BURSTY:
        arrivals = recorded.arrivals
        found.append(
            f"{name}: executions arrive in bursts (index of dispersion {arrivals.dispersion:.3g} in windows of"
            f" {format_duration(arrivals.window)}); predictions assume Poisson arrivals"
        )
    return found


def _mixed_calls(outcome: LlmOutcome) -> list[str]:
    """Warn where short single calls share an LLM with groups of long ones: the queue model is too optimistic there."""
    calls = [(c, float(own[0])) for c, own in zip(outcome.load.callers, outcome.model.seconds, strict=True)]
    return [
        f"{outcome.load.name}: calls of {a.workflow} share it with groups of longer calls of {b.workflow};"
        " their latency may be up to twice what is predicted"
        for a, short in calls
        for b, long in calls
        if long > 1.5 * short and max(size for size, _ in b.demand.groups) > max(size for size, _ in a.demand.groups)
    ]
