"""Writes the Observed documents that a recompile plans with.

If the gateway counts workflows, their counts are used. Counters per LLM do not attribute calls to workflows. If only
these are known, the simplest explanation is taken: workflows that run more or less often, so that the
totals of as many LLMs as possible are explained (least absolute deviations); an LLM whose total is not, is called more
or less often per execution, by every workflow that calls it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np

from scepsy.compilation import Inputs
from scepsy.documents import API_VERSION, ObservedCluster, ObservedWorkflow, Workspace, contained, emit
from scepsy.documents.loading import Loaded
from scepsy.documents.model import Document, Metadata
from scepsy.documents.observed import ObservedClusterSpec, ObservedLlm, ObservedWorkflowSpec
from scepsy.documents.units import Si
from scepsy.documents.workflow import OBSERVED
from scepsy.documents.workspace import OBSERVED_CLUSTERS
from scepsy.drift.call_changes import Change
from scepsy.drift.change_detection import MARGIN
from scepsy.drift.lost_hardware import Missing, known_missing
from scepsy.errors import ScepsyError

_HEADER = b"# Written by scepsy drift --recompile. Remove this file to forget what it says.\n"
_INERTIA = 0.05
"""Weight of a workflow's rate staying as it is, against an LLM's total being explained: decides where both would do."""
_ROUNDS = 60
"""Rounds of reweighting; explanations of a handful of totals settle in ten."""
_SAME = 0.02
"""Part by which a value must differ to be written: less is not known."""

Files = dict[PurePosixPath, bytes | None]
"""New content of files relative to the repository; None where one goes."""


def rates_of(inputs: Inputs, change: Change) -> dict[str, float]:
    """Return by which factor every workflow runs more often than planned.

    What the gateway counted; else what explains the totals of LLMs best: r that minimises Σ_l |Σ_w share_lw r_w - f_l|
    + inertia Σ_w |r_w - 1|, with share_lw the part that workflow w has in the planned calls to LLM l, and f_l the
    factor by which these differ. Solved by iteratively reweighted least squares.
    """
    names = list(inputs.workflows)
    llms = sorted({llm for demand in inputs.planned.values() for llm in demand.llms})
    known = np.array([[_load(inputs, change, name, llm) for name in names] for llm in llms])
    share = known / np.maximum(known.sum(axis=1, keepdims=True), 1e-12)
    seen = np.array([change.calls.get(llm, 1.0) for llm in llms])
    loose = np.array([name not in change.executions for name in names])
    factor = np.ones(len(names))
    left = np.vstack([share[:, loose], np.eye(int(loose.sum()))])
    right = np.concatenate([seen - share[:, ~loose].sum(axis=1), np.ones(int(loose.sum()))])
    weight = np.concatenate([np.ones(len(llms)), np.full(int(loose.sum()), _INERTIA)])
    for _ in range(_ROUNDS if loose.any() else 0):
        root = np.sqrt(weight / np.maximum(np.abs(left @ factor[loose] - right), 1e-6))
        factor[loose] = np.linalg.lstsq(left * root[:, None], right * root, rcond=None)[0]
    found = np.maximum(factor, 0.01)
    return {name: change.executions.get(name, 1.0) * float(value) for name, value in zip(names, found, strict=True)}


def _load(inputs: Inputs, change: Change, workflow: str, llm: str) -> float:
    """Return the calls per second of a workflow to an LLM, as far as the gateway attributes them."""
    demand = inputs.planned[workflow].llms.get(llm)
    if demand is None:
        return 0.0
    often = change.executions.get(workflow, 1.0) * change.per_execution.get((workflow, llm), 1.0)
    return inputs.workflows[workflow].spec.target.per_second * demand.calls * often


def _calls_of(
    inputs: Inputs, change: Change, rates: Mapping[str, float], floors: Mapping[str, float]
) -> dict[tuple[str, str], float]:
    """Return by workflow and LLM the factor of calls per execution: what was counted, and what rates do not explain.

    Args:
        inputs: what was planned.
        change: how calls differ.
        rates: factors of executions.
        floors: the least factors that are planned for: targets. Below them, fewer executions do not count as more calls
            of each.
    """
    found = {}
    for llm in sorted({llm for demand in inputs.planned.values() for llm in demand.llms}):
        loads = {name: load for name in inputs.workflows if (load := _load(inputs, change, name, llm)) > 0}
        counted = {name: change.executions.get(name, 1.0) for name in loads}
        explained = sum(load * rates[name] / counted[name] for name, load in loads.items())
        planned = sum(load * max(rates[name], floors[name]) / counted[name] for name, load in loads.items())
        seen = change.calls.get(llm, 1.0) * sum(loads.values())
        beyond = seen / explained if seen < explained else max(1.0, seen / planned)
        if llm not in change.calls and abs(beyond - 1) <= MARGIN:
            beyond = 1.0  # nothing was found of it
        for name in loads:
            found[name, llm] = change.per_execution.get((name, llm), 1.0) * beyond
    return found


def observed_files(workspace: Workspace, inputs: Inputs, change: Change, missing: Missing, at: float) -> Files:
    """Return the Observed documents of a cluster and its workflows that change.

    Args:
        workspace: the project, with the Observed documents that there are.
        inputs: what the findings were compared with.
        change: how calls differ from that.
        missing: hardware that must not be used.
        at: Unix seconds.

    Raises:
        ScepsyError: a document is in a file with others.
    """
    moment = datetime.datetime.fromtimestamp(round(at), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    files: Files = {}
    if change.calls or change.executions or change.per_execution or change.input or change.output:
        rates = rates_of(inputs, change)
        calls = _calls_of(inputs, change, rates, {name: _floor(workspace, inputs, name) for name in rates})
        for name in inputs.workflows:
            files |= _workflow(workspace, inputs, name, change, rates[name], calls, moment)
    cluster = inputs.cluster.metadata.name
    if missing != known_missing(workspace, cluster):
        files |= _cluster(workspace, cluster, missing, moment)
    return files


def _workflow(
    workspace: Workspace,
    inputs: Inputs,
    name: str,
    change: Change,
    rate: float,
    calls: Mapping[tuple[str, str], float],
    moment: str,
) -> Files:
    """Return the document of one workflow: what is known already, overlaid with what is different now."""
    cluster = inputs.cluster.metadata.name
    loaded = workspace.observed.get((cluster, name))
    before = loaded.document if loaded is not None else None
    llms = []
    for llm, demand in sorted(inputs.demands[name].llms.items()):
        known = before.llm(llm) if before is not None else ObservedLlm(llm=llm)
        update = {
            key: _value(mean * factor)
            for key, mean, factor in (
                ("calls", demand.calls, calls.get((name, llm), 1.0)),
                ("input_tokens", demand.input.mean, change.input.get(llm, 1.0)),
                ("output_tokens", demand.output.mean, change.output.get(llm, 1.0)),
            )
            if abs(factor - 1) > _SAME and mean > 0
        }
        llms.append(known.model_copy(update=update))
    different = tuple(observed for observed in llms if observed != ObservedLlm(llm=observed.llm))
    seen = Si(before.spec.rate) if before is not None and before.spec.rate is not None else None
    if abs(rate - 1) > _SAME:
        seen = Si(_value(inputs.workflows[name].spec.target.per_second * rate))
    if seen is not None and seen <= _floor(workspace, inputs, name) * inputs.workflows[name].spec.target.per_second:
        seen = None  # the target is what is planned for
    if seen is None and not different:
        return {_place(workspace, loaded, ""): None} if loaded is not None else {}
    spec = ObservedWorkflowSpec(cluster=cluster, at=moment, rate=seen, llms=different)
    if before is not None and spec.model_copy(update={"at": before.spec.at}) == before.spec:
        return {}
    made = ObservedWorkflow(api_version=API_VERSION, kind="ObservedWorkflow", metadata=Metadata(name=name), spec=spec)
    file = f"{name}.yaml" if len(workspace.clusters) == 1 else f"{name}.{cluster}.yaml"
    return {_place(workspace, loaded, file): _text(made)}


def _floor(workspace: Workspace, inputs: Inputs, name: str) -> float:
    """Return the target of a workflow ÷ the rate that is planned for; 0 where the target is what was observed."""
    stated = workspace.workflows[name].document.spec.target.rate
    return 0.0 if stated == OBSERVED else float(stated) / inputs.workflows[name].spec.target.per_second


def _cluster(workspace: Workspace, name: str, missing: Missing, moment: str) -> Files:
    path = _place(workspace, workspace.missing.get(name), f"{OBSERVED_CLUSTERS}/{name}.yaml")
    if not missing:
        return {path: None}
    spec = ObservedClusterSpec(
        at=moment, missing_nodes=tuple(sorted(missing.nodes)), missing_gpus=tuple(sorted(missing.gpus))
    )
    made = ObservedCluster(api_version=API_VERSION, kind="ObservedCluster", metadata=Metadata(name=name), spec=spec)
    return {path: _text(made)}


def _place(
    workspace: Workspace, loaded: Loaded[ObservedWorkflow] | Loaded[ObservedCluster] | None, name: str
) -> PurePosixPath:
    """Return the file of a document, relative to the repository: where it is, or else where it belongs."""
    folder = workspace.project.document.spec.paths.observed
    relative = loaded.source.file.name if loaded is not None else f"{folder}/{name}"
    files = [o.source.file.name for o in workspace.observed.values()]
    files += [m.source.file.name for m in workspace.missing.values()]
    if files.count(relative) > (loaded is not None):
        raise ScepsyError(f"{relative} holds other documents too", "put each Observed document into a separate file")
    return PurePosixPath(workspace.relative(contained(workspace.root, relative, workspace.directory)))


def _text(document: Document) -> bytes:
    return _HEADER + emit(document.plain())


def _value(value: float) -> float:
    return float(f"{value:.4g}")
