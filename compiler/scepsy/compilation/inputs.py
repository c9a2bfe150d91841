"""Everything that one compilation reads, from the documents of a workspace, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scepsy.compilation.profile_checks import length_problems, model_problems
from scepsy.demand import Demand, as_observed, demand_of, quantile_factors
from scepsy.demand.replay import replayed_as
from scepsy.documents import (
    Cluster,
    Diagnostic,
    DocumentError,
    Loaded,
    ObservedWorkflow,
    Workflow,
    Workspace,
)
from scepsy.documents.units import Si
from scepsy.documents.workflow import OBSERVED, Target
from scepsy.performance import Catalog
from scepsy.performance.mix import Calls
from scepsy.placement import Inventory, inventory_of


@dataclass(frozen=True)
class Inputs:
    """Everything that one compilation reads, checked.

    Attributes:
        workflows: by name, with the rate to plan for as their target.
        demands: by workflow, as recorded or stated.
        planned: by workflow, the demand to plan for: that of heavy executions if the document has a quantile.
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


def collect_inputs(workspace: Workspace, cluster: str) -> Inputs:
    """Collect and check everything that one compilation needs.

    Raises:
        DocumentError: a trace is invalid, or documents contradict each other.
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
    digests = _relevant_digests(workspace, target, inventory)
    observed = workspace.observed_in(cluster)
    problems: list[Diagnostic] = []
    if not inventory.domains:
        missing = workspace.missing.get(cluster)
        what = f"every GPU of the cluster is reserved{' or missing' if missing else ''}"
        hint = f"free a GPU{f', or delete {missing.source.file.name} if the GPUs are back' if missing else ''}"
        raise DocumentError([target.problem(("spec", "nodes"), what, hint)])
    for name, workflow in workspace.workflows.items():
        problems.extend(model_problems(workflow, target.document, catalog, inventory))
        try:
            stated, read = demand_of(workspace, workflow)
            observation = observed.get(name)
            demands[name] = stated if observation is None else as_observed(stated, observation.document)
            digests.update(read)
            trace = next(iter(read.values())) if workflow.document.spec.demand.traces is not None else None
            llms = [llm for llm in workflow.document.spec.llms if llm.model in replayed]
            calls.extend(replayed_as(llm, demands[name].llms[llm.name], trace) for llm in llms)
            problems.extend(length_problems(workflow, demands[name], catalog))
            workflows[name] = _at_rate(workflow, stated, observation)
        except DocumentError as error:
            problems.extend(error.diagnostics)
    if problems:
        raise DocumentError(problems)
    planned = {name: _planned(workflows[name], demand) for name, demand in demands.items()}
    catalog = catalog.with_calls(calls)
    return Inputs(workflows, demands, planned, catalog, target.document, inventory, dict(sorted(digests.items())))


def _revisions(workspace: Workspace) -> dict[str, set[str | None]]:
    """Return per model the revisions that LLMs pin, with None if an LLM pins none."""
    pinned: dict[str, set[str | None]] = {}
    for workflow in workspace.workflows.values():
        for llm in workflow.document.spec.llms:
            pinned.setdefault(llm.model, set()).add(llm.revision)
    return pinned


def _at_rate(loaded: Loaded[Workflow], demand: Demand, observed: Loaded[ObservedWorkflow] | None) -> Workflow:
    """Return the workflow with the rate to plan for: the larger of its target and the observed rate.

    A target of `observed` is the rate that `scepsy drift` observed, else that of the trace.

    Raises:
        DocumentError: the target is `observed`, and there is no observed rate.
    """
    workflow = loaded.document
    target = workflow.spec.target.rate
    rate = observed.document.spec.rate if observed is not None else None
    if target != OBSERVED:
        return workflow if rate is None or rate <= target else _with_rate(workflow, rate)
    if rate is not None:
        return _with_rate(workflow, rate)
    where = ("spec", "target", "rate")
    if demand.recorded is None:
        message = "there is no observed rate: spec.demand.statistics has no arrival times"
        raise DocumentError([loaded.problem(where, message, "set a rate such as 4/s, or use spec.demand.traces")])
    arrivals = demand.recorded.arrivals
    if isinstance(arrivals, str):
        raise DocumentError([loaded.problem(where, f"there is no observed rate: {arrivals}", "set a rate such as 4/s")])
    return _with_rate(workflow, float(f"{arrivals.rate:.4g}"))


def _with_rate(workflow: Workflow, rate: float) -> Workflow:
    spec = workflow.spec.model_copy(update={"target": Target(rate=Si(rate))})
    return workflow.model_copy(update={"spec": spec})


def _planned(workflow: Workflow, demand: Demand) -> Demand:
    quantile = workflow.spec.demand.quantile
    if quantile is None or demand.recorded is None:
        return demand
    return demand.times(quantile_factors(demand.recorded, quantile))


def _relevant_digests(workspace: Workspace, cluster: Loaded[Cluster], inventory: Inventory) -> dict[str, str]:
    """Return the digests of the inputs that are relevant for this cluster.

    Files are left out that hold only other clusters, profiles of models that no LLM uses, or profiles of GPU products
    that this cluster does not have: a plan should change only when one of its inputs does.
    """
    called = {llm.model for w in workspace.workflows.values() for llm in w.document.spec.llms}
    relevant = {cluster.source.file.name}
    observed = workspace.observed_in(cluster.document.metadata.name)
    relevant |= {o.source.file.name for name, o in observed.items() if name in workspace.workflows}
    relevant |= {m.source.file.name for name, m in workspace.missing.items() if name == cluster.document.metadata.name}
    relevant |= {
        p.source.file.name
        for p in workspace.profiles.values()
        if p.document.spec.model in called and p.document.spec.product in inventory.products
    }
    every = [c.source.file.name for c in workspace.clusters.values()]
    every += [p.source.file.name for p in workspace.profiles.values()]
    every += [o.source.file.name for o in workspace.observed.values()]
    every += [m.source.file.name for m in workspace.missing.values()]
    left_out = {workspace.relative(workspace.directory / name) for name in set(every) - relevant}
    return {path: value for path, value in workspace.inputs.items() if path not in left_out}
