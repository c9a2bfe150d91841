"""Importing profiles: results of `vllm bench serve`, and of the sweeps that run it, as series of a Profile."""

from scepsy.profiling.importing.load_kinds import Closed, Open, kind_of
from scepsy.profiling.importing.result_files import Left, ResultFile, read_files
from scepsy.profiling.importing.series import Imported, Origin, series_of
from scepsy.profiling.importing.vllm_bench import Result, result_of

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
