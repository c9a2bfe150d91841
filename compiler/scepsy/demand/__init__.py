"""Demand: how one execution of a workflow calls its LLMs, from recorded traces or from statistics.

Section 2.1 of the model: calls per execution, in-request parallelism, groups of calls that start together, tokens per
call, and the time outside LLMs.
"""

from scepsy.demand.statistics import Demand, LlmDemand, TokenUse, demand_of, from_calls, from_statistics
from scepsy.demand.traces import Call, read_trace

__all__ = [
    "Call",
    "Demand",
    "LlmDemand",
    "TokenUse",
    "demand_of",
    "from_calls",
    "from_statistics",
    "read_trace",
]
