"""From what was seen to the Observed documents that a compile plans with.

Where the gateway tells workflows apart, that is what they are made of. Counters per LLM do not say whose calls they
are: where only these are known, workflows are taken to run so much more or less often as explains the totals best, and
as little as possible off the plan; what that leaves unexplained of an LLM is taken as more or fewer calls per execution
of every workflow that calls it.
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
from scepsy.documents.workspace import OBSERVED_CLUSTERS
from scepsy.drift.missing import Missing, known_missing
from scepsy.drift.outlook import Change
from scepsy.errors import ScepsyError

_HEADER = b"# Written by scepsy drift --recompile. Remove this file to forget what it says.\n"
_STIFFNESS = 1e-3
"""Weight of a workflow's rate staying as planned, against an LLM's total being explained."""
_FIRM = 1e3
"""The same where the gateway knows the rate."""
_SAME = 0.02
"""Part by which a value must differ to be written: less is not known."""

Files = dict[PurePosixPath, bytes | None]
"""New content of files relative to the repository; None where one goes."""


def rates_of(inputs: Inputs, change: Change) -> dict[str, float]:
    """Return by which factor every workflow runs more often than planned.

    What the gateway counted, times what the totals of LLMs tell beyond that: least squares over the LLMs, each total
    counted in what is known of it, with a weight on the workflows' rates staying as they are.
    """
    names = list(inputs.workflows)
    llms = sorted({llm for demand in inputs.planned.values() for llm in demand.llms})
    known = np.array([[_load(inputs, change, name, llm) for name in names] for llm in llms])
    seen = np.array([change.calls.get(llm, 1.0) for llm in llms])
    stiff = np.sqrt([_FIRM if name in change.executions else _STIFFNESS for name in names])
    left = np.vstack([known / np.maximum(known.sum(axis=1, keepdims=True), 1e-12), np.diag(stiff)])
    found = np.linalg.lstsq(left, np.concatenate([seen, stiff]), rcond=None)[0]
    beyond = {name: max(0.01, float(value)) for name, value in zip(names, found, strict=True)}
    return {name: change.executions.get(name, 1.0) * factor for name, factor in beyond.items()}


def _load(inputs: Inputs, change: Change, workflow: str, llm: str) -> float:
    """Return the calls per second of a workflow to an LLM, as far as the gateway told them apart."""
    own = inputs.planned[workflow].llms.get(llm)
    if own is None:
        return 0.0
    often = change.executions.get(workflow, 1.0) * change.per_execution.get((workflow, llm), 1.0)
    return inputs.workflows[workflow].spec.target.per_second * own.calls * often


def _calls_of(inputs: Inputs, change: Change, rates: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """Return by workflow and LLM the factor of calls per execution: what was counted, and what rates do not explain."""
    found = {}
    for llm in sorted({llm for demand in inputs.planned.values() for llm in demand.llms}):
        loads = {name: _load(inputs, change, name, llm) for name in inputs.workflows}
        often = {name: rates[name] / change.executions.get(name, 1.0) for name in inputs.workflows}
        explained = sum(often[name] * load for name, load in loads.items())
        beyond = change.calls.get(llm, 1.0) * sum(loads.values()) / explained if explained > 0 else 1.0
        for name in (name for name, load in loads.items() if load > 0):
            found[name, llm] = change.per_execution.get((name, llm), 1.0) * beyond
    return found


def observed_files(workspace: Workspace, inputs: Inputs, change: Change, missing: Missing, at: float) -> Files:
    """Return the Observed documents of a cluster and of the workflows, where they are to change.

    Args:
        workspace: the project, with the Observed documents that there are.
        inputs: what the findings were judged against.
        change: how calls differ from that.
        missing: what of the cluster is not to be used.
        at: Unix seconds.

    Raises:
        ScepsyError: the documents lie in a file with others.
    """
    moment = datetime.datetime.fromtimestamp(round(at), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    files: Files = {}
    if change.calls or change.executions or change.per_execution or change.input or change.output:
        rates = rates_of(inputs, change)
        calls = _calls_of(inputs, change, rates)
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
    for llm, own in sorted(inputs.demands[name].llms.items()):
        known = before.llm(llm) if before is not None else ObservedLlm(llm=llm)
        update = {
            key: _value(mean * factor)
            for key, mean, factor in (
                ("calls", own.calls, calls.get((name, llm), 1.0)),
                ("input_tokens", own.input.mean, change.input.get(llm, 1.0)),
                ("output_tokens", own.output.mean, change.output.get(llm, 1.0)),
            )
            if abs(factor - 1) > _SAME and mean > 0
        }
        llms.append(known.model_copy(update=update))
    different = tuple(own for own in llms if own != ObservedLlm(llm=own.llm))
    seen = before.spec.rate if before is not None else None
    if abs(rate - 1) > _SAME:
        seen = Si(_value(inputs.workflows[name].spec.target.per_second * rate))
    if seen is None and not different:
        return {}
    spec = ObservedWorkflowSpec(cluster=cluster, at=moment, rate=seen, llms=different)
    if before is not None and spec.model_copy(update={"at": before.spec.at}) == before.spec:
        return {}
    made = ObservedWorkflow(api_version=API_VERSION, kind="ObservedWorkflow", metadata=Metadata(name=name), spec=spec)
    file = f"{name}.yaml" if len(workspace.clusters) == 1 else f"{name}.{cluster}.yaml"
    return {_place(workspace, loaded, file): _text(made)}


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
    if files.count(relative) > 1:
        raise ScepsyError(f"{relative} holds several documents", "give each a file of its own")
    return PurePosixPath(workspace.relative(contained(workspace.root, relative, workspace.directory)))


def _text(document: Document) -> bytes:
    return _HEADER + emit(document.plain())


def _value(value: float) -> float:
    return float(f"{value:.4g}")
