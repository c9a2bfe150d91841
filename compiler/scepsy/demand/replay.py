"""Which calls a profiling job replays: a sample of a trace, or synthetic ones if there is no trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scepsy.demand.job_calls import MOST_CALLS, JobCalls
from scepsy.demand.recorded_calls import recorded_calls
from scepsy.demand.statistics import LlmDemand
from scepsy.demand.synthetic_calls import synthetic_calls
from scepsy.demand.workflow_demand import demand_of
from scepsy.documents import Llm, Workspace, contained
from scepsy.errors import ScepsyError
from scepsy.performance import Mix
from scepsy.performance.mix import Calls
from scepsy.traces.trace_reader import read_trace


def replayed_as(llm: Llm, demand: LlmDemand, trace: str | None) -> Calls:
    """Return the calls to an LLM as the provenance of a Profile identifies them.

    Args:
        llm: the LLM.
        demand: how it is called.
        trace: digest of the trace that has the calls; None if there is none, so that a job replays synthetic calls.
    """
    mix = Mix(demand.input.mean, demand.output.mean, demand.cached.mean)
    return Calls(llm.model, llm.name, trace if trace is not None else synthetic_calls(demand, llm.name).digest, mix)


def calls_of(workspace: Workspace, workflow: str, llm: str, most: int = MOST_CALLS) -> JobCalls:
    """Return the calls of a workflow to one of its LLMs, for a job.

    Args:
        workspace: the project.
        workflow: the workflow's name.
        llm: the LLM's name in it.
        most: number of calls, about; fewer if they do not fit into a job.

    Raises:
        DocumentError: the trace or summary cannot be read, or has no such calls.
        ScepsyError: a trace's prefix hashes are not lists of strings.
    """
    loaded = workspace.workflows[workflow]
    source = loaded.document.spec.demand
    if source.traces is None:
        demand, _ = demand_of(workspace, loaded)
        return synthetic_calls(demand.llms[llm], llm, most)
    path = contained(workspace.root, source.traces, (workspace.directory / loaded.source.file.name).parent)
    name = workspace.relative(path)
    trace, digest = read_trace(path, name, [entry.name for entry in loaded.document.spec.llms])
    if llm not in trace.llms:
        raise ScepsyError(f'no call in {name} goes to "{llm}"', "record a call, or remove the LLM")
    return recorded_calls(trace, path, llm, digest, most)


def note_of(request: Mapping[str, Any]) -> str:
    """Return the note of a Profile about the calls that were replayed, beside that of the runner; may be empty.

    Args:
        request: the annotation of the Workflow.
    """
    if request.get("calls") == "made":
        return (
            f"The replayed calls were not recorded: {request.get('replayed')} calls were made up with the group sizes "
            f"and token counts that the demand of workflow {request.get('workflow')} states, and what a prefix cache "
            "held as one beginning that all prompts have in common. Closed loop of k of them in flight, then groups of "
            "them at Poisson times; prompts are random tokens."
        )
    if request.get("replayed") != request.get("of"):
        return (
            f"{request.get('replayed')} of the {request.get('of')} recorded calls were replayed: whole groups, chosen "
            "so that mean tokens and group sizes are those of all."
        )
    return ""
