"""Importing profiles: results of benchmark tools as series of a Profile.

To add a tool, write `<tool>.py` with a `READER` (:class:`.benchmark_result.Reader`): how a JSON value of the tool is
recognised by its content, and how it becomes a :class:`.benchmark_result.Result`. Register it in `registry.py`, and
document it in docs/profiles.md. Which load a result had, pooling and intervals are the same for all tools.
"""

from scepsy.profiling.importing.benchmark_result import Result
from scepsy.profiling.importing.json_files import Left, ResultFile, read_files
from scepsy.profiling.importing.load_kinds import Closed, Open, kind_of
from scepsy.profiling.importing.runs import runs_of
from scepsy.profiling.importing.series import Imported, Origin, series_of

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
    "runs_of",
    "series_of",
]
