"""Measuring a profile against a server that is up: R(k) in closed loop, recorded calls in open loop, saturation.

What talks to a server needs the package aiohttp, and is loaded when it is asked for: figures and shapes of models are
of use without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scepsy.profiling.measuring.architecture import architecture_of, read_config, vocabulary_of
from scepsy.profiling.measuring.workload import Workload, read_workload

if TYPE_CHECKING:
    from scepsy.profiling.measuring.journal import Journal
    from scepsy.profiling.measuring.runner import Measured, NoGoodPoint, Scope, measure, rehearse, series_of
    from scepsy.profiling.measuring.vllm_client import Engine

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

_LATER = {
    "Engine": "vllm_client",
    "Journal": "journal",
    **dict.fromkeys(("Measured", "NoGoodPoint", "Scope", "measure", "rehearse", "series_of"), "runner"),
}
"""Names, and the modules that they are in."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
