"""Performance: latency and capacity of one instance of an LLM under load, and what fits into its memory.

Profiles hold R(k), the mean latency of a call while k calls run. From it follow the capacity of an instance, and the
latency of calls that arrive at random and in groups (section 2.2 of the model).
"""

from scepsy.performance.memory import InstanceMemory, fit
from scepsy.performance.mix import Mix
from scepsy.performance.profile_catalog import Catalog, ServiceTimes
from scepsy.performance.queueing import MAX_UTILISATION, Stream, latencies, rounds
from scepsy.performance.share_scaling import SHARE_MODEL

__all__ = [
    "MAX_UTILISATION",
    "SHARE_MODEL",
    "Catalog",
    "InstanceMemory",
    "Mix",
    "ServiceTimes",
    "Stream",
    "fit",
    "latencies",
    "rounds",
]
