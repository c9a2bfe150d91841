"""How calls differ from the planned ones, as factors, and the loads that follow.

If workflows are known, their executions come more or less often, or call more or less often. If only the load of an LLM
is known, its calls become more or less frequent, for every workflow alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scepsy.compilation import Inputs
from scepsy.demand import Demand, longer
from scepsy.pipeline import LlmLoad, loads


@dataclass(frozen=True)
class Change:
    """Factors by which calls differ from the Plan's: by LLM unless stated otherwise; 1 where missing.

    Attributes:
        calls: of calls per second, beyond what `executions` and `per_execution` explain.
        input: of prompt tokens per call, cached ones included.
        output: of generated tokens per call.
        seconds: of the time that a call takes at the same load.
        replicas: running instances, of LLMs that lack some.
        executions: by workflow, of executions per second.
        per_execution: by workflow and LLM, of calls per execution.
    """

    calls: Mapping[str, float] = field(default_factory=dict)
    input: Mapping[str, float] = field(default_factory=dict)
    output: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    executions: Mapping[str, float] = field(default_factory=dict)
    per_execution: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether anything is different."""
        return bool(self.load or self.input or self.output or self.seconds or self.replicas)

    @property
    def load(self) -> tuple[float, ...]:
        """All factors of how many calls there are."""
        return (*self.calls.values(), *self.executions.values(), *self.per_execution.values())


def changed_demands(demands: Mapping[str, Demand], change: Change) -> dict[str, Demand]:
    """Return demands whose calls are more frequent, and longer, by a change."""
    demands_then = {}
    for name, demand in demands.items():
        # More executions are more calls at the same rate: impact.py turns them into executions again.
        often = change.executions.get(name, 1.0)
        each = {llm: change.calls.get(llm, 1.0) * change.per_execution.get((name, llm), 1.0) for llm in demand.llms}
        more = demand.times({llm: often * factor for llm, factor in each.items()})
        demands_then[name] = longer(more, change.input, change.output)
    return demands_then


def load_of(inputs: Inputs, llm: str, change: Change) -> LlmLoad | None:
    """Return the load on one LLM; None if no workflow calls it."""
    every = loads(inputs.workflows, changed_demands(inputs.planned, change))
    return next((load for load in every if load.name == llm), None)
