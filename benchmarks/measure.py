"""Timing shared by the benchmarks: CPU time, several runs, minimum, median and maximum."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

RUNS = 9


def cpu_ms(work: Callable[[], object], runs: int = RUNS) -> list[float]:
    """Return the CPU milliseconds of several runs of `work`, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append((time.process_time() - start) * 1e3)
    return times


def row(name: str, times: list[float]) -> str:
    """Return a line with minimum, median and maximum."""
    return f"  {name:44} {min(times):9.1f} {statistics.median(times):9.1f} {max(times):9.1f}"


HEAD = f"  {'CPU milliseconds':44} {'min':>9} {'median':>9} {'max':>9}"
