"""The calls to estimate for: usual or given mixes, those of a workflow, or recorded ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scepsy.demand import demand_of
from scepsy.documents import DocumentError, Loaded, Workflow, Workspace, contained, did_you_mean
from scepsy.errors import ScepsyError
from scepsy.profiling.estimating.mixes import STANDARD, Mix, equal_calls, parse_mix, recorded_calls
from scepsy.repository.partial_project import read_part
from scepsy.traces.trace import Trace
from scepsy.traces.trace_reader import read_trace


@dataclass(frozen=True)
class CallsToEstimate:
    """What to estimate.

    Attributes:
        mixes: per model the calls to estimate for.
        suffix: what the profiles' names end in.
        options: the options that name these calls, as the command in the document repeats them.
        trace_digest: digest of the trace that they were taken from.
    """

    mixes: dict[str, tuple[Mix, ...]]
    suffix: str = ""
    options: tuple[str, ...] = ()
    trace_digest: str | None = None


def calls_to_estimate(
    models: Sequence[str],
    mixes: Sequence[str],
    workflow: str | None,
    trace: Path | None,
    llm: str | None,
    project: Path,
) -> CallsToEstimate:
    """Return the calls to estimate for: those of a workflow, those of a trace to one LLM, or the given mixes.

    Args:
        models: ids of models; with a workflow none means all that it calls.
        mixes: as IN/OUT tokens; none means the usual ones.
        workflow: name of a workflow of the project.
        trace: file of recorded calls.
        llm: name of the LLM in the trace whose calls are taken.
        project: directory of the project.

    Raises:
        ScepsyError: there is no such workflow, model or LLM, or a file or a mix is not valid.
    """
    models = list(dict.fromkeys(models))
    if workflow is not None:
        return _of_workflow(models, workflow, project)
    if trace is not None and llm is not None:
        calls, digest = read_trace(trace, trace.name)
        mix = _recorded(calls, llm)
        return CallsToEstimate(dict.fromkeys(models, (mix,)), llm, ("--trace", trace.name, "--llm", llm), digest)
    parsed = tuple(parse_mix(text) for text in mixes) or STANDARD
    return CallsToEstimate(
        dict.fromkeys(models, parsed), "", tuple(word for text in mixes for word in ("--mix", text.strip()))
    )


def _of_workflow(models: Sequence[str], name: str, project: Path) -> CallsToEstimate:
    part = read_part(project, Workflow)
    # The project need not be complete: without profiles there is no complete one, and this makes them.
    workspace = Workspace(part.root, part.directory, part.project, part.documents, {}, {})
    if name not in workspace.workflows:
        if part.problems:
            raise DocumentError(part.problems)
        raise ScepsyError(f'there is no workflow "{name}"', did_you_mean(name, list(workspace.workflows)))
    loaded = workspace.workflows[name]
    called = [llm.model for llm in loaded.document.spec.llms]
    for model in models:
        if model not in called:
            raise ScepsyError(f'the workflow "{name}" does not call the model "{model}"', did_you_mean(model, called))
    by_llm, digest = _workflow_mixes(workspace, loaded)
    mixes = {
        model: tuple(by_llm[llm.name] for llm in loaded.document.spec.llms if llm.model == model)
        for model in models or dict.fromkeys(called)
    }
    return CallsToEstimate(mixes, name, ("--workflow", name), digest)


def _workflow_mixes(workspace: Workspace, loaded: Loaded[Workflow]) -> tuple[dict[str, Mix], str | None]:
    """Return the calls per LLM, as recorded where the workflow names a trace, and that trace's digest."""
    demand, _ = demand_of(workspace, loaded)
    source = loaded.document.spec.demand
    if source.traces is None:
        return {name: equal_calls(llm.input.mean, max(1.0, llm.output.mean)) for name, llm in demand.llms.items()}, None
    path = contained(workspace.root, source.traces, (workspace.directory / loaded.source.file.name).parent)
    trace, digest = read_trace(path, workspace.relative(path), [llm.name for llm in loaded.document.spec.llms])
    return {name: _recorded(trace, name) for name in trace.llms}, digest


def _recorded(trace: Trace, llm: str) -> Mix:
    if llm not in trace.llms:
        raise ScepsyError(f'no call of the trace goes to "{llm}"', did_you_mean(llm, list(trace.llms)))
    calls = np.flatnonzero(trace.llm == trace.llms.index(llm))
    return recorded_calls(trace.input[calls], trace.output[calls])
