"""Measuring a profile against a server that is up: R(k) in closed loop, recorded calls in open loop, saturation."""

from scepsy.profiling.measuring.architecture import architecture_of, read_config, vocabulary_of
from scepsy.profiling.measuring.calls import Workload, read_workload
from scepsy.profiling.measuring.engine import Engine
from scepsy.profiling.measuring.journal import Journal
from scepsy.profiling.measuring.runner import Measured, NoGoodPoint, Scope, measure, rehearse, series_of

__all__ = [
    "Engine",
    "Journal",
    "Measured",
    "NoGoodPoint",
    "Scope",
    "Workload",
    "architecture_of",
    "measure",
    "read_config",
    "read_workload",
    "rehearse",
    "series_of",
    "vocabulary_of",
]
