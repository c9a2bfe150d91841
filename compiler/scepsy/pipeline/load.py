"""The load on each LLM: which workflows call it, how often and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scepsy.demand import Demand, LlmDemand
from scepsy.documents import Llm, Workflow
from scepsy.performance import Mix


@dataclass(frozen=True)
class Caller:
    """One workflow as a caller of one LLM.

    Attributes:
        workflow: its name.
        rate: executions per second.
        demand: how one execution calls the LLM.
    """

    workflow: str
    rate: float
    demand: LlmDemand

    @property
    def calls(self) -> float:
        """Calls per second."""
        return self.rate * self.demand.calls

    @property
    def mix(self) -> Mix:
        """Mean tokens of its calls."""
        return Mix(self.demand.input.mean, self.demand.output.mean, self.demand.cached.mean)


@dataclass(frozen=True)
class LlmLoad:
    """One LLM and all its callers.

    Attributes:
        llm: how the workflows declare it; they agree.
        callers: in workflow order, at least one.
    """

    llm: Llm
    callers: tuple[Caller, ...]

    @property
    def name(self) -> str:
        """The LLM's name."""
        return self.llm.name

    @property
    def calls(self) -> float:
        """Λ, calls per second of all callers."""
        return sum(caller.calls for caller in self.callers)


def loads(workflows: Mapping[str, Workflow], demands: Mapping[str, Demand], factor: float = 1.0) -> list[LlmLoad]:
    """Return the load on every LLM, in name order, with all target rates multiplied by `factor`."""
    declared: dict[str, Llm] = {}
    callers: dict[str, list[Caller]] = {}
    for name, workflow in workflows.items():
        for llm in workflow.spec.llms:
            declared.setdefault(llm.name, llm)
            rate = workflow.spec.target.per_second * factor
            callers.setdefault(llm.name, []).append(Caller(name, rate, demands[name].llms[llm.name]))
    return [LlmLoad(declared[name], tuple(callers[name])) for name in sorted(declared)]
