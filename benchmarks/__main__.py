"""Run benchmarks by name, or all."""

from __future__ import annotations

import sys

from benchmarks import (
    compilation,
    drift,
    estimates,
    held_out,
    large_allocation,
    recorder,
    replanning,
    search,
    startup,
    traces,
)

ALL = {
    "search": search.main,
    "large_allocation": large_allocation.main,
    "replanning": replanning.main,
    "compilation": compilation.main,
    "startup": startup.main,
    "recorder": recorder.main,
    "estimates": estimates.main,
    "held_out": held_out.main,
    "traces": traces.main,
    "drift": drift.main,
}


def main() -> None:
    """Run the benchmarks that are named on the command line, or all."""
    for name in sys.argv[1:] or ALL:
        if name not in ALL:
            sys.exit(f"unknown benchmark {name}; benchmarks: {', '.join(ALL)}")
        ALL[name]()
        print()


main()
