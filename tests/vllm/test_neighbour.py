"""The neighbour of an engine that is measured, with the torch of vLLM: on a CPU, which only shows that it runs."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from scepsy.profiling.measuring import neighbour_program as neighbour


def start(python: Path, *words: str) -> subprocess.Popen[str]:
    """Start it as a job does, with a Python that has torch and nothing of Scepsy."""
    command = [python, "-P", neighbour.__file__, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_copies_until_it_is_told_to_end_and_says_how_much(python: Path) -> None:
    process = start(python, "--device=cpu")
    assert process.stdout is not None
    assert process.stdout.readline() == f"{neighbour.READY}\n"
    time.sleep(3)
    process.terminate()
    out, err = process.communicate(timeout=10)
    said = json.loads(out)
    (rate,) = said["bytesPerSecond"]
    assert (process.returncode, err) == (0, "")
    assert 3 <= said["seconds"] < 6
    # A core reads and writes 1 to 100 GB/s.
    assert 5e8 < rate < 5e11


def test_without_a_gpu_it_says_so(python: Path) -> None:
    process = start(python)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert err == "error: torch finds no CUDA GPU (--device cpu only tries this program out)\n"
