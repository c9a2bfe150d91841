"""The warnings of a Plan: what is estimated, not pinned, not enforced, observed, or beyond what was profiled.

The texts about unstable demand are those of `demand.stability`.
"""

from __future__ import annotations

from collections.abc import Sequence

from scepsy.allocation import Solution
from scepsy.compilation.inputs import Inputs
from scepsy.compilation.profile_checks import WHAT_TO_MEASURE
from scepsy.demand import Demand
from scepsy.demand.stability import stability_of
from scepsy.demand.stability import warnings as stability_warnings
from scepsy.documents import Workflow, Workspace
from scepsy.documents.units import format_duration, format_rate
from scepsy.documents.workflow import OBSERVED
from scepsy.performance import ServiceTimes
from scepsy.performance.mix import SAME_MIX
from scepsy.performance.share_scaling import INTERPOLATED
from scepsy.pipeline import Caller, LlmOutcome

_BURSTY = 1.5
"""Index of dispersion above which arrivals are called bursty: the queueing model assumes 1."""


def plan_warnings(workspace: Workspace, inputs: Inputs, solution: Solution) -> list[str]:
    """Return what a reviewer of the Plan should know, in a stable order."""
    project = workspace.project.document.spec
    warnings: list[str] = []
    used = {name for outcome in solution.outcomes for times in outcome.model.times for name in times.profiles}
    warnings.extend(message for name, message in sorted(inputs.catalog.warnings.items()) if name in used)
    called = {outcome.load.llm.model for outcome in solution.outcomes}
    stale = inputs.catalog.stale_for(called, inputs.inventory.products)
    warnings.extend(f"{reason}; it is not used ({WHAT_TO_MEASURE})" for reason in stale)
    for outcome in solution.outcomes:
        for caller, times in zip(outcome.load.callers, outcome.model.times, strict=True):
            warnings.extend(_profile_warnings(outcome.load.name, caller, times))
    warnings.extend(warning for outcome in solution.outcomes for warning in _mixed_calls(outcome))
    unpinned = sorted({o.load.llm.model for o in solution.outcomes if o.load.llm.revision is None})
    if unpinned:
        warnings.append(f"the revision of {', '.join(unpinned)} is not pinned (spec.llms[].revision)")
    warnings.extend(_share_warnings(solution.outcomes))
    for name, image in (("engine", project.engine.image), ("gateway", project.gateway.image)):
        if "@sha256:" not in image:
            warnings.append(f"the {name} image {image} is not pinned by a digest (spec.{name}.image in scepsy.yaml)")
    warnings.extend(_observed_warnings(workspace, inputs))
    for name, workflow in inputs.workflows.items():
        warnings.extend(_demand_warnings(name, workflow, inputs.demands[name]))
    return warnings


def _observed_warnings(workspace: Workspace, inputs: Inputs) -> list[str]:
    """Report where the plan follows observed documents of `scepsy drift` instead of the Workflows and the Cluster."""
    warnings = []
    for name, loaded in workspace.observed_in(inputs.cluster.metadata.name).items():
        if name not in inputs.workflows:
            continue
        observed, where = loaded.document.spec, f"as observed ({loaded.source.file.name})"
        target = workspace.workflows[name].document.spec.target.rate
        if observed.rate is not None and inputs.workflows[name].spec.target.rate != target:
            above = "" if target == OBSERVED else f", above the target of {format_rate(target)}"
            warnings.append(f"{name}: planned for {format_rate(observed.rate)} {where}{above}")
        called = [llm.llm for llm in observed.llms if llm.llm in inputs.demands[name].llms]
        if called:
            warnings.append(f"{name}: calls of {', '.join(called)} are {where}")
        if inputs.demands[name].recorded is not None and any(llm.calls is not None for llm in observed.llms):
            warnings.append(f"{name}: calls per execution are {where}; the call graph stays as recorded")
    cluster = inputs.cluster.metadata.name
    missing = workspace.missing.get(cluster)
    if missing is not None:
        nodes = workspace.clusters[cluster].document.spec.nodes
        known = {node.name for node in nodes} | {gpu.uuid for node in nodes for gpu in node.gpus}
        absent = [*missing.document.spec.missing_nodes, *missing.document.spec.missing_gpus]
        without = ", ".join(name for name in absent if name in known)
        warnings += [f"planned without {without}, as observed ({missing.source.file.name})"] if without else []
    return warnings


def _profile_warnings(llm: str, caller: Caller, times: ServiceTimes) -> list[str]:
    """Warn of stale profiles, and of predictions from a series with other calls than the caller's."""
    warnings = [
        f"{llm} for {caller.workflow}: profile {name} is stale: {reason}; an estimate is used instead"
        f" ({WHAT_TO_MEASURE})"
        for name, reason in times.unused
    ]
    if times.stale is not None:
        warnings.append(
            f"{llm} for {caller.workflow}: profile {times.profile} is stale: {times.stale}; there is no other, so it is"
            f" used, scaled to these calls ({WHAT_TO_MEASURE})"
        )
    elif times.rescaled > SAME_MIX:
        series = times.series_mix
        warnings.append(
            f"{llm} for {caller.workflow}: calls of {caller.mix.computed:.0f} computed prompt and"
            f" {caller.mix.output:.0f} output tokens are predicted from a series for {series.computed:.0f} and"
            f" {series.output:.0f} in profile {times.profile}"
        )
    return warnings


def _share_warnings(outcomes: Sequence[LlmOutcome]) -> list[str]:
    """Warn of GPU shares that were not measured, grouped by how their times were extrapolated or interpolated."""
    llms_by_model: dict[str, list[str]] = {}
    for outcome in outcomes:
        for share_model in dict.fromkeys(times.share_model for times in outcome.model.times):
            if share_model is not None:
                llms_by_model.setdefault(share_model, []).append(outcome.load.name)
    return [
        f"GPU shares of {', '.join(sorted(names))} are not measured: latencies are "
        + (share_model if share_model.startswith(INTERPOLATED) else f"extrapolated ({share_model})")
        for share_model, names in llms_by_model.items()
    ]


def _demand_warnings(name: str, workflow: Workflow, demand: Demand) -> list[str]:
    """Warn of a demand that is a weak basis: few executions, executions that differ widely, bursts."""
    quantiles = workflow.spec.objective.quantiles
    recorded = demand.recorded
    if recorded is None:
        return [
            f"{name}: the p{100 * q:g} objective is not enforced: statistics have means only;"
            " use a trace (spec.demand.traces)"
            for q in quantiles
        ]
    warnings = [f"{name}: {note}" for note in recorded.notes]
    warnings += [
        f"{name}: the p{100 * q:g} objective is based on {len(recorded.graphs)} executions;"
        f" record at least {5 / (1 - q):.0f}"
        for q in quantiles
        if len(recorded.graphs) * (1 - q) < 5 - 1e-9
    ]
    stability = stability_of(recorded.llms, recorded.calls, recorded.spent)
    warnings += stability_warnings(stability, name)
    if stability.stable is False and workflow.spec.demand.quantile is None:
        warnings.append(f"{name}: set spec.demand.quantile, such as 0.9, to plan for its heavy executions")
    if not isinstance(recorded.arrivals, str) and recorded.arrivals.dispersion > _BURSTY:
        arrivals = recorded.arrivals
        warnings.append(
            f"{name}: executions arrive in bursts (index of dispersion {arrivals.dispersion:.3g} in windows of"
            f" {format_duration(arrivals.window)}); predictions assume Poisson arrivals"
        )
    return warnings


def _mixed_calls(outcome: LlmOutcome) -> list[str]:
    """Warn if short single calls share an LLM with groups of longer calls: predictions are too fast there."""
    calls = [
        (caller, float(seconds[0])) for caller, seconds in zip(outcome.load.callers, outcome.model.seconds, strict=True)
    ]
    return [
        f"{outcome.load.name}: calls of {a.workflow} share it with groups of longer calls of {b.workflow};"
        f" the latency of {a.workflow} may be up to twice the prediction"
        for a, short in calls
        for b, long in calls
        if long > 1.5 * short and max(size for size, _ in b.demand.groups) > max(size for size, _ in a.demand.groups)
    ]
