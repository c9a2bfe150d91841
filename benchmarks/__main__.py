"""Run benchmarks by name, or all."""

from __future__ import annotations

import sys

from benchmarks import compilation, drift, estimates, held_out, recorder, replanning, search, startup, traces

ALL = {
    "search": search.main,
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
    """Run what is named on the command line, or everything."""
    for name in sys.argv[1:] or ALL:
        if name not in ALL:
            sys.exit(f"there is no benchmark {name}; there are: {', '.join(ALL)}")
        ALL[name]()
        print()


main()
