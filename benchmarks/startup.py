"""CPU time of `scepsy --help` relative to importing click alone."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

PAIRS = 15


def _cpu(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    """Report the ratio, pair by pair."""
    scepsy, click = [sys.executable, "-m", "scepsy", "--help"], [sys.executable, "-c", "import click"]
    _cpu(scepsy), _cpu(click)
    pairs = [(_cpu(scepsy), _cpu(click)) for _ in range(PAIRS)]
    ratios = [a / b for a, b in pairs]
    print("Start-up: scepsy --help against python -c 'import click'")
    scepsy_ms, click_ms = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    print(f"  {scepsy_ms:.0f} ms against {click_ms:.0f} ms CPU")
    print(f"  ratio: min {min(ratios):.2f}, median {statistics.median(ratios):.2f}, max {max(ratios):.2f}")
