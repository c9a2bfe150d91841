"""A neighbour of an engine that is measured: it copies memory on the rest of the GPUs until it is stopped.

    python -m scepsy.profiling.measuring.neighbour_program [--device cpu]

It is started beside the engine, as another client of the same MPS daemon, which allows it the rest of the SMs
(CUDA_MPS_ACTIVE_THREAD_PERCENTAGE). A kernel reads one buffer and writes another, both larger than any L2 cache (50 MB
on an H200, 126 MB on a B200), so that it is bound by memory bandwidth. It is a kernel and no `cudaMemcpy`, which may be
done without any SM, and so past the limit.

It prints `READY` when all GPUs are busy. On SIGTERM, or when its parent has gone, it ends with one line of JSON:

    {"bytesPerSecond": [780000000000], "seconds": 1800.2}

with what it read and wrote per second on each GPU since it was ready. Exit status 1: it cannot run, or no longer could.
It needs torch, which vLLM's image has, and nothing else of Scepsy.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import Any

READY = "the neighbour is busy"
"""The line that it prints when every GPU is."""
BUFFER = 256 << 20
"""Bytes of one of the two buffers on a GPU."""
CPU_BUFFER = 16 << 20
"""The same on a CPU."""
BATCH = 64
"""Copies that are put into a GPU's queue together; while they run the next ones are put in."""
_LOOK = 0.1
"""Seconds between two looks at whether to end."""


def main(words: Sequence[str] | None = None) -> int:
    """Copy until told to stop.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Keep the memory bandwidth of GPUs busy.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is for trying it out")
    device = parser.parse_args(words).device
    parent = os.getppid()
    # No threading.Event: its lock may be held by the very thread that a signal interrupts.
    told: list[int] = []

    def tell(number: int, frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    try:
        torch = _torch(device)
    except _Unable as error:
        _print(f"error: {error}", sys.stderr)
        return 1
    copies = [_Copy(torch, where, told) for where in _devices(torch, device)]
    for copy in copies:
        copy.start()
    ready = 0.0
    while not told and os.getppid() == parent and all(copy.is_alive() for copy in copies):
        if not ready and all(copy.runs.is_set() for copy in copies):
            ready = time.monotonic()
            for copy in copies:
                copy.count(ready)
            _print(READY)
        time.sleep(_LOOK)
    told.append(0)
    for copy in copies:
        copy.join()
    failed = next((copy.error for copy in copies if copy.error is not None), None)
    if failed is not None:
        _print(f"{type(failed).__name__}: {failed}", sys.stderr)
        return 1
    if ready:
        seconds = round(time.monotonic() - ready, 3)
        _print(json.dumps({"bytesPerSecond": [round(copy.rate) for copy in copies], "seconds": seconds}))
    return 0


class _Unable(Exception):
    """It cannot run here."""


def _torch(device: str) -> Any:
    """Import torch, which takes seconds, and must not be needed for anything else."""
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise _Unable(f"a busy neighbour needs torch, which vLLM's image has: {error}") from error
    if device == "cuda" and not torch.cuda.is_available():
        raise _Unable("torch finds no CUDA GPU (--device cpu only tries this program out)")
    return torch


def _devices(torch: Any, device: str) -> list[str]:
    return ["cpu"] if device == "cpu" else [f"cuda:{index}" for index in range(torch.cuda.device_count())]


class _Copy(threading.Thread):
    """Copies on one device, until told to stop.

    Args:
        torch: the module.
        device: the device, as torch names it.
        told: not empty when it is to stop.

    Attributes:
        runs: set when the first batch is done.
        error: what ended it before it was told to.
    """

    def __init__(self, torch: Any, device: str, told: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self.runs = threading.Event()
        self.error: Exception | None = None
        self._torch, self._device, self._told = torch, device, told
        self._cuda = device != "cpu"
        self._bytes = BUFFER if self._cuda else CPU_BUFFER
        self._done = self._before = 0
        self._since = self._until = 0.0

    def count(self, since: float) -> None:
        """Count from now on."""
        self._before, self._since = self._done, since

    @property
    def rate(self) -> float:
        """Bytes read and written per second, since it is counted; once it has ended."""
        seconds = self._until - self._since
        return 2 * self._bytes * (self._done - self._before) / seconds if seconds > 0 else 0.0

    def run(self) -> None:
        """Copy."""
        try:
            self._run()
        except Exception as error:
            # The main thread says it.
            self.error = error
        self._until = time.monotonic()

    def _run(self) -> None:
        torch = self._torch
        if self._cuda:
            torch.cuda.set_device(self._device)
        else:
            torch.set_num_threads(1)
        here = torch.zeros(self._bytes // 4, dtype=torch.int32, device=self._device)
        there = torch.zeros_like(here)
        # Two batches are in the queue at a time, so that the GPU never waits for this thread.
        queued: deque[Any] = deque()
        while not self._told:
            for _ in range(BATCH):
                torch.add(here, 1, out=there)
                here, there = there, here
            if self._cuda:
                # Blocking: waiting takes no core from the engine.
                event = torch.cuda.Event(blocking=True)
                event.record()
                queued.append(event)
                if len(queued) < 2:
                    continue
                queued.popleft().synchronize()
            self._done += BATCH
            self.runs.set()
        while queued:
            queued.popleft().synchronize()
            self._done += BATCH


def _print(line: str, file: Any = None) -> None:
    """Print at once; whoever reads it may have gone."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=file or sys.stdout, flush=True)


if __name__ == "__main__":
    status = main()
    # torch's own threads and CUDA's need no goodbye, which can take seconds.
    os._exit(status)
