"""The Aggregate LLM Pipeline: demand and performance → latency and capacity of an allocation.

Section 2.3 of the model (the predictor of arXiv 2604.15186), for several workflows that may share LLMs.
"""

from scepsy.pipeline.instance import InstanceModel, Shape, evaluate, instance_model
from scepsy.pipeline.load import Caller, LlmLoad, loads
from scepsy.pipeline.prediction import PREDICTOR, LlmOutcome, WorkflowOutcome, predict

__all__ = [
    "PREDICTOR",
    "Caller",
    "InstanceModel",
    "LlmLoad",
    "LlmOutcome",
    "Shape",
    "WorkflowOutcome",
    "evaluate",
    "instance_model",
    "loads",
    "predict",
]
