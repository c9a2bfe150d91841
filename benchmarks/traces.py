"""Statistics of traces of a million calls: CPU time and memory of the whole command."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

CALLS = 1_000_000
LIMIT_S, LIMIT_MB = 20.0, 500
SHAPES = {"100,000 executions of 10 calls": 100_000, "1,000,000 executions of 1 call": 1_000_000, "1 execution": 1}
MODELS = ("planner", "worker", "critic")


def write(path: Path, executions: int) -> None:
    """Write a trace of CALLS calls, the same every time: chains of calls, Poisson arrivals."""
    draw = random.Random(1)
    began = 1.7e9
    with path.open("w") as file:
        for e in range(executions):
            began += draw.expovariate(1.0)
            now = began
            for c in range(CALLS // executions):
                end = now + draw.expovariate(1.0)
                parent = f'"parent":"{c - 1}",' if c else ""
                file.write(
                    f'{{"execution":"run-{e}","id":"{c}",{parent}"model":"{MODELS[draw.randrange(3)]}",'
                    f'"start":{now:.6f},"end":{end:.6f},"inputTokens":{draw.randrange(4000)},'
                    f'"outputTokens":{draw.randrange(500)}}}\n'
                )
                now = end + 0.01


def main() -> None:
    """Measure the command on each shape, and its page on the first."""
    print(
        f"scepsy trace stats, {CALLS:,} calls: CPU seconds (limit {LIMIT_S:.0f}) and peak memory (limit {LIMIT_MB} MB)"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, executions in SHAPES.items():
            path = Path(folder, "trace.jsonl")
            write(path, executions)
            _measure(name, ["trace", "stats", str(path)])
            if executions == 100_000:
                _measure(f"{name}, --html", ["trace", "stats", str(path), "--html", str(Path(folder, "page.html"))])


def _measure(name: str, arguments: list[str]) -> None:
    """Run a command in a process whose only child it is, because peak memory is that of the largest child."""
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run([sys.executable, '-m', 'scepsy', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL);"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_utime + u.ru_stime, u.ru_maxrss)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    seconds, kilobytes = map(float, ran.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"  {name:44} {seconds:7.1f} s {kilobytes * unit / 1e6:7.0f} MB")
