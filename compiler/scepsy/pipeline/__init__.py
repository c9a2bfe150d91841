"""The Aggregate LLM Pipeline: demand and performance → latency and capacity of an allocation.

Section 2.3 of the model (the predictor of arXiv 2604.15186), for several workflows that may share LLMs.
"""

from scepsy.pipeline.instance import InstanceModel, Shape, capped, evaluate, instance_model, shortage
from scepsy.pipeline.load import Caller, LlmLoad, loads
from scepsy.pipeline.prediction import (
    CALL_GRAPH,
    SUM,
    LlmOutcome,
    WorkflowOutcome,
    makespans_of,
    predict,
    quantile_of,
)

__all__ = [
    "CALL_GRAPH",
    "SUM",
    "Caller",
    "InstanceModel",
    "LlmLoad",
    "LlmOutcome",
    "Shape",
    "WorkflowOutcome",
    "capped",
    "evaluate",
    "instance_model",
    "loads",
    "makespans_of",
    "predict",
    "quantile_of",
    "shortage",
]
