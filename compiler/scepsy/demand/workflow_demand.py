"""The demand of a workflow, from the trace, the summary or the statistics that its document names."""

from __future__ import annotations

import math
from pathlib import Path

from scepsy.demand.statistics import Demand, from_statistics, from_trace
from scepsy.demand.summary import from_summary
from scepsy.documents import Diagnostic, DocumentError, Loaded, PathEscapes, Position, Workflow, Workspace, contained
from scepsy.documents.loading import load_file
from scepsy.documents.trace_summary import TraceSummary
from scepsy.documents.workspace import digest
from scepsy.traces.trace_reader import read_trace


def demand_of(workspace: Workspace, loaded: Loaded[Workflow]) -> tuple[Demand, dict[str, str]]:
    """Return the demand of a workflow, and the digests of the files that were read for it.

    Raises:
        DocumentError: the trace or summary cannot be read, is invalid, or has no call of an LLM of the workflow.
    """
    source = loaded.document.spec.demand
    if source.statistics is not None:
        return from_statistics(source.statistics), {}
    key = "traces" if source.traces is not None else "summary"
    path = _file(workspace, loaded, key, source.traces or source.summary or "")
    name = workspace.relative(path)
    names = [llm.name for llm in loaded.document.spec.llms]
    if key == "traces":
        trace, sha256 = read_trace(path, name, names)
        _check_called(loaded, name, names, set(trace.llms))
        try:
            return from_trace(trace), {name: sha256}
        except ValueError as error:
            raise DocumentError([Diagnostic(Position(name), str(error))]) from error
    file, summaries, problems = load_file(path, name, TraceSummary)
    if problems:
        raise DocumentError(problems)
    if len(summaries) > 1:
        raise DocumentError([summaries[1].problem((), "a TraceSummary must be the only document of its file")])
    demand = from_summary(summaries[0])
    unknown = [
        summaries[0].problem(("spec", "llms", i, "llm"), f'the workflow has no LLM "{entry.llm}"')
        for i, entry in enumerate(summaries[0].document.spec.llms)
        if entry.llm not in names
    ]
    if unknown:
        raise DocumentError(unknown)
    _check_called(loaded, name, names, set(demand.llms))
    return demand, {name: digest(file.data)}


def length_problem(workflow: Loaded[Workflow], index: int, demand: Demand, context: float) -> Diagnostic | None:
    """Check that the longest call to an LLM is within its limit, above which the engine refuses calls.

    Args:
        workflow: the workflow.
        index: position of the LLM in `spec.llms`.
        demand: the demand of the workflow.
        context: context length of the model, in tokens; the limit where the LLM has no `maxModelLen`.
    """
    llm = workflow.document.spec.llms[index]
    limit, longest = llm.max_model_len or context, demand.llms[llm.name].longest
    if longest <= limit:
        return None
    key = "maxModelLen" if llm.max_model_len else "name"
    message = f"calls have up to {longest:,.0f} tokens; the limit is {limit:,}"
    raised = "raise maxModelLen to" if llm.max_model_len else "use a model with a context of"
    hint = f"{raised} at least {math.ceil(longest):,} tokens"
    return workflow.problem(("spec", "llms", index, key), message, hint)


def _file(workspace: Workspace, loaded: Loaded[Workflow], key: str, given: str) -> Path:
    where = ("spec", "demand", key)
    try:
        path = contained(workspace.root, given, (workspace.directory / loaded.source.file.name).parent)
    except PathEscapes as error:
        raise DocumentError([loaded.problem(where, error.message, error.hint)]) from error
    if not path.is_file():
        raise DocumentError([loaded.problem(where, f'no file "{given}", relative to this document')])
    return path


def _check_called(loaded: Loaded[Workflow], name: str, names: list[str], called: set[str]) -> None:
    """Check that every LLM of the workflow is called."""
    missing = [
        loaded.problem(
            ("spec", "llms", index, "name"), f'no call in {name} goes to "{llm}"', "record a call, or remove the LLM"
        )
        for index, llm in enumerate(names)
        if llm not in called
    ]
    if missing:
        raise DocumentError(missing)
