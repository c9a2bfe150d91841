"""Importing profiles: results of `vllm bench serve`, and of the sweeps that run it, as series of a Profile."""

from scepsy.profiling.importing.curves import Imported, Origin, series_of
from scepsy.profiling.importing.kinds import Closed, Open, kind_of
from scepsy.profiling.importing.reading import Left, ResultFile, read_files
from scepsy.profiling.importing.result import Result, result_of

__all__ = [
    "Closed",
    "Imported",
    "Left",
    "Open",
    "Origin",
    "Result",
    "ResultFile",
    "kind_of",
    "read_files",
    "result_of",
    "series_of",
]
