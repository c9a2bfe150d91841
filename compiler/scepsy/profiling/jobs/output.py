"""Where the messages of jobs go: functions that the command line passes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from scepsy.profiling.jobs.results import Outcome

Print = Callable[[str], None]
ShowProgress = Callable[[Sequence[Outcome]], None]


@dataclass(frozen=True)
class Output:
    """Where messages go.

    Attributes:
        result: prints a line of the result.
        notice: prints a line that is not part of the result.
        progress: context in which a function shows the states of all points.
    """

    result: Print
    notice: Print
    progress: Callable[[], AbstractContextManager[ShowProgress]]
