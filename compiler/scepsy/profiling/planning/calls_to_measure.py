"""Whose calls are to be measured: every workflow's calls to each of its LLMs, and which of them one measurement serves.

An LLM's speed depends on the tokens of its calls, so calls of different sizes are measured apart, even of one model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scepsy.demand import Demand, demand_of, length_problem
from scepsy.demand.replay import replayed_as
from scepsy.documents import Architecture, Diagnostic, DocumentError, Llm, Loaded, Workflow, Workspace
from scepsy.performance import Mix
from scepsy.performance.mix import SAME_MIX, Calls, mix_factor


@dataclass(frozen=True)
class Role:
    """One workflow's calls to one of its LLMs.

    Attributes:
        workflow: the workflow's name.
        llm: the LLM.
        calls: the calls, as Profiles note that they were replayed.
        recorded: whether the calls were recorded.
    """

    workflow: str
    llm: Llm
    calls: Calls
    recorded: bool

    @property
    def mix(self) -> Mix:
        """Mean tokens of the calls."""
        return self.calls.mix


def roles_of(workspace: Workspace, architectures: Mapping[str, Architecture]) -> list[Role]:
    """Return the roles of all workflows.

    Args:
        workspace: the project.
        architectures: of the models that are known.

    Raises:
        DocumentError: traces or summaries are wrong, or calls are longer than their LLM allows.
    """
    roles: list[Role] = []
    problems: list[Diagnostic] = []
    for name, workflow in workspace.workflows.items():
        try:
            demand, read = demand_of(workspace, workflow)
        except DocumentError as error:
            problems.extend(error.diagnostics)
            continue
        problems.extend(_too_long(workflow, demand, architectures))
        trace = next(iter(read.values())) if workflow.document.spec.demand.traces is not None else None
        for llm in workflow.document.spec.llms:
            calls = replayed_as(llm, demand.llms[llm.name], trace)
            roles.append(Role(name, llm, calls, recorded=trace is not None))
    if problems:
        raise DocumentError(problems)
    return roles


def shared(roles: Iterable[Role]) -> list[tuple[Role, ...]]:
    """Return the roles in sets that one measurement serves; the first of a set is the one whose calls are replayed.

    Roles of one model share a measurement when their mixes are within `SAME_MIX` of the first's. The first is one that
    pins a revision, since those who pin none take any; then the one with the shortest calls allowed, since what its
    engine can hold decides which shapes serve anybody; then one with recorded calls.
    """
    ordered = sorted(
        roles,
        key=lambda role: (
            role.llm.model,
            role.llm.revision is None,
            role.llm.max_model_len or math.inf,
            not role.recorded,
            role.llm.name,
            role.workflow,
        ),
    )
    sets: list[list[Role]] = []
    for role in ordered:
        for members in sets:
            if _serves(members[0], role):
                members.append(role)
                break
        else:
            sets.append([role])
    return [tuple(members) for members in sets]


def _serves(first: Role, other: Role) -> bool:
    return (
        first.llm.model == other.llm.model
        and other.llm.revision in (None, first.llm.revision)
        and (first.llm.max_model_len or math.inf) <= (other.llm.max_model_len or math.inf)
        and mix_factor(first.mix, other.mix) <= SAME_MIX
    )


def _too_long(
    workflow: Loaded[Workflow], demand: Demand, architectures: Mapping[str, Architecture]
) -> list[Diagnostic]:
    """The longest call must be allowed, or the engine would refuse it hours later, on a GPU."""
    problems = []
    for index, llm in enumerate(workflow.document.spec.llms):
        architecture = architectures.get(llm.model)
        context = architecture.context_length if architecture else math.inf
        if problem := length_problem(workflow, index, demand, context):
            problems.append(problem)
    return problems
