"""Latency and capacity of workflows under an allocation (section 2.3 of the model)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.demand import Demand, Graph, Makespans, Step
from scepsy.performance.curves import Array
from scepsy.pipeline.instance import InstanceModel
from scepsy.pipeline.load import LlmLoad

SUM = "aggregate-llm-pipeline/mean-sum"
"""Mean latency as the sum over LLMs; overlap of calls of different LLMs is unknown."""
CALL_GRAPH = "aggregate-llm-pipeline/call-graph"
"""Latency of every recorded execution as the longest path through its call graph."""
QUANTILES = (0.5, 0.95, 0.99)
"""Percentiles that are predicted if enough executions were recorded."""


def makespans_of(demand: Demand) -> Makespans:
    """Return the makespans of recorded executions; for statistics, of one mean execution, one LLM after the other."""
    recorded = demand.recorded
    if recorded is not None:
        return recorded.makespans
    path = demand.path
    after = itertools.chain([()], ((i,) for i in itertools.count()))
    steps = tuple(
        Step(llm, 0.0, seconds, after=ends) for (llm, seconds), ends in zip(path.steps.items(), after, strict=False)
    )
    return Makespans([Graph(steps, path.outside)], dict.fromkeys(path.steps, 1.0))


def quantile_of(seconds: Array, quantile: float) -> Array:
    """Return the least latency that the fraction `quantile` of the executions does not exceed, over the first axis."""
    return np.asarray(np.quantile(seconds, quantile, axis=0, method="inverted_cdf"))


@dataclass(frozen=True)
class LlmOutcome:
    """One LLM under an allocation.

    Attributes:
        load: the LLM and its callers.
        model: the shape of its instances, and their bandwidth cap.
        replicas: how many there are.
        latency: per caller, seconds until a group of its calls has ended.
        utilisation: load ÷ capacity.
        bandwidth: part of the GPU's memory bandwidth that one instance draws on average.
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
        latency: L[w], mean over executions, seconds.
        quantiles: percentiles of it over executions; empty for statistics, which have none.
        outside: part of the latency that is outside LLMs, seconds.
        capacity: rate of this workflow at which an LLM is saturated while the others keep theirs, executions per
            second; never itself feasible.
        parts: per LLM its part of the latency on the (mean critical) path, seconds.
        calls: per LLM ℓ, seconds of a call, or of a group of calls.
        bottleneck: the LLM that limits the capacity.
    """

    latency: float
    quantiles: dict[float, float]
    outside: float
    capacity: float
    parts: dict[str, float]
    calls: dict[str, float]
    bottleneck: str


def predict(outcomes: Sequence[LlmOutcome], makespans: Mapping[str, Makespans]) -> dict[str, WorkflowOutcome]:
    """Predict every workflow.

    The capacity counts work, not calls: with s the seconds of an instance that a call costs at saturation,
    T[w] = min_m (r[m] − Σ_{v≠w} λ[v]·n[v,m]·s[v,m]) ÷ (n[w,m]·s[w,m]). For callers with equal calls that is the
    paper's formula.

    Args:
        outcomes: every LLM.
        makespans: per workflow, the makespans of its executions.
    """
    calls: dict[str, dict[str, float]] = {name: {} for name in makespans}
    capacity: dict[str, tuple[float, str]] = dict.fromkeys(makespans, (math.inf, ""))
    for outcome in outcomes:
        callers = outcome.load.callers
        work = [c.demand.calls * float(s) for c, s in zip(callers, outcome.model.work, strict=True)]
        used = [c.rate * w for c, w in zip(callers, work, strict=True)]
        for i, caller in enumerate(callers):
            name = outcome.load.name
            calls[caller.workflow][name] = outcome.latency[i]
            rate = (outcome.replicas - (math.fsum(used) - used[i])) / work[i]
            capacity[caller.workflow] = min(capacity[caller.workflow], (rate, name))
    return {name: _outcome(spans, calls[name], capacity[name]) for name, spans in makespans.items()}


def _outcome(makespans: Makespans, calls: dict[str, float], capacity: tuple[float, str]) -> WorkflowOutcome:
    latency = np.array([calls[llm] for llm in makespans.llms])
    seconds = makespans.seconds(latency[None, :])[:, 0]
    path = makespans.path(latency)
    # A percentile with less than one execution above it is only the maximum.
    known = [quantile for quantile in QUANTILES if makespans.executions * (1 - quantile) >= 1 - 1e-9]
    return WorkflowOutcome(
        latency=float(seconds.mean()),
        quantiles={quantile: float(quantile_of(seconds, quantile)) for quantile in known},
        outside=path.outside,
        capacity=capacity[0],
        parts={llm: path.steps[llm] * calls[llm] for llm in calls},
        calls=calls,
        bottleneck=capacity[1],
    )
