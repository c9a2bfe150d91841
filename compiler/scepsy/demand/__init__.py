"""Demand: how one execution of a workflow calls its LLMs, from recorded traces or from statistics.

Section 2.1 of the model: calls per execution, in-request parallelism, groups of calls that start together, tokens per
call, and the time outside LLMs; and of recorded executions the call graphs, how far they differ, and how they arrive.
"""

from scepsy.demand.call_graph import CriticalPath, Graph, Makespans, Step, graphs_of
from scepsy.demand.observed import as_observed, longer
from scepsy.demand.statistics import (
    Demand,
    LlmDemand,
    Recorded,
    TokenUse,
    from_statistics,
    from_trace,
    quantile_factors,
)
from scepsy.demand.workflow_demand import demand_of, length_problem

__all__ = [
    "CriticalPath",
    "Demand",
    "Graph",
    "LlmDemand",
    "Makespans",
    "Recorded",
    "Step",
    "TokenUse",
    "as_observed",
    "demand_of",
    "from_statistics",
    "from_trace",
    "graphs_of",
    "length_problem",
    "longer",
    "quantile_factors",
]
