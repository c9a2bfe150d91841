"""A `torch` with two GPUs that copy nothing, for the neighbour; it fails as it is told to by the variable FAKE_TORCH.

What the neighbour was given goes to the folder FAKE_TORCH_SEEN, for the tests to look at.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

int32 = "int32"
_TOLD = json.loads(os.environ.get("FAKE_TORCH", "{}"))
_began = time.monotonic()


def zeros(count: int, *, dtype: str, device: str) -> str:
    """Give a buffer, which is its device's name."""
    if _TOLD.get("memory"):
        raise RuntimeError("CUDA out of memory. Tried to allocate 256.00 MiB.")
    assert (count, dtype) == (64 << 20, int32)
    return device


def zeros_like(buffer: str) -> str:
    """Give another one."""
    return buffer


def add(here: str, one: int, *, out: str) -> None:
    """Put a copy into the queue."""
    assert (here, one) == (out, 1)


class _Event:
    def __init__(self, *, blocking: bool) -> None:
        assert blocking

    def record(self) -> None:
        """Put it into the queue."""

    def synchronize(self) -> None:
        """Wait for it: a batch takes 50 ms."""
        time.sleep(0.05)
        if "dies_after" in _TOLD and time.monotonic() - _began > _TOLD["dies_after"]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


class cuda:  # noqa: N801 - its name in torch
    """The GPUs."""

    Event = _Event

    @staticmethod
    def is_available() -> bool:
        """Tell whether there is one."""
        return not _TOLD.get("no_gpu")

    @staticmethod
    def device_count() -> int:
        """Tell how many there are."""
        return 2

    @staticmethod
    def set_device(device: str) -> None:
        """Use one."""


if seen := os.environ.get("FAKE_TORCH_SEEN"):
    own: dict[str, Any] = {"environment": dict(os.environ), "pids": [os.getpid()], "arguments": sys.argv[1:]}
    (Path(seen) / "neighbour.json").write_text(json.dumps(own))
