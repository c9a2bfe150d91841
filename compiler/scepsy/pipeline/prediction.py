"""Latency and capacity of workflows under an allocation (section 2.3 of the model)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scepsy.pipeline.instance import InstanceModel
from scepsy.pipeline.load import LlmLoad

PREDICTOR = "aggregate-llm-pipeline/mean-sum"
"""Mean latency as the sum over LLMs; it does not know which calls of different LLMs overlap."""


@dataclass(frozen=True)
class LlmOutcome:
    """One LLM under an allocation.

    Attributes:
        load: the LLM and its callers.
        model: the shape of its instances.
        replicas: how many there are.
        latency: per caller, seconds until a group of its calls has ended.
        utilisation: load ÷ capacity.
        bandwidth: part of the card's memory bandwidth that one instance draws on average.
    """

    load: LlmLoad
    model: InstanceModel
    replicas: int
    latency: tuple[float, ...]
    utilisation: float
    bandwidth: float


@dataclass(frozen=True)
class WorkflowOutcome:
    """One workflow under an allocation.

    Attributes:
        latency: L[w] = Σ_m steps · ℓ + time outside LLMs, seconds.
        capacity: rate of this workflow at which an LLM is saturated while the others keep theirs, executions per
            second; never itself feasible.
        parts: per LLM its part of the latency, seconds.
        calls: per LLM ℓ, seconds of a call, or of a group of calls.
        bottleneck: the LLM that limits the capacity.
    """

    latency: float
    capacity: float
    parts: dict[str, float]
    calls: dict[str, float]
    bottleneck: str


def predict(outcomes: Sequence[LlmOutcome], outside: Mapping[str, float]) -> dict[str, WorkflowOutcome]:
    """Predict every workflow.

    The capacity counts work, not calls: with s the seconds of an instance that a call costs at saturation,
    T[w] = min_m (r[m] − Σ_{v≠w} λ[v]·n[v,m]·s[v,m]) ÷ (n[w,m]·s[w,m]). For callers with equal calls that is the
    paper's formula.

    Args:
        outcomes: every LLM.
        outside: per workflow, seconds outside LLMs.
    """
    parts: dict[str, dict[str, float]] = {name: {} for name in outside}
    calls: dict[str, dict[str, float]] = {name: {} for name in outside}
    capacity: dict[str, tuple[float, str]] = dict.fromkeys(outside, (math.inf, ""))
    for outcome in outcomes:
        callers = outcome.load.callers
        work = [c.demand.calls * float(s) for c, s in zip(callers, outcome.model.work, strict=True)]
        used = [c.rate * w for c, w in zip(callers, work, strict=True)]
        for i, caller in enumerate(callers):
            name = outcome.load.name
            parts[caller.workflow][name] = caller.demand.steps * outcome.latency[i]
            calls[caller.workflow][name] = outcome.latency[i]
            rate = (outcome.replicas - (math.fsum(used) - used[i])) / work[i]
            capacity[caller.workflow] = min(capacity[caller.workflow], (rate, name))
    return {
        name: WorkflowOutcome(
            outside[name] + math.fsum(parts[name].values()),
            capacity[name][0],
            parts[name],
            calls[name],
            capacity[name][1],
        )
        for name in outside
    }
