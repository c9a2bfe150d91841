"""A busy neighbour: a program that draws memory bandwidth from the part of each GPU that is not measured."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from statistics import mean
from types import TracebackType
from typing import Any, Self, TypeVar

from scepsy.documents.units import significant
from scepsy.profiling.measuring import neighbour_program
from scepsy.profiling.measuring.child_process import Child, Ended
from scepsy.profiling.measuring.failures import TryAgain
from scepsy.profiling.measuring.server_configuration import ServerConfiguration
from scepsy.profiling.measuring.vllm_log import VllmLog

T = TypeVar("T")
Say = Callable[[str], None]

START_TIMEOUT = 300.0
"""Seconds in which the neighbour must run; torch imports for half a minute on a busy machine."""


class BusyNeighbour:
    """A program that keeps the rest of an engine's GPUs busy (`measuring.neighbour_program`), while its context lasts.

    Args:
        serving: the engine beside which it runs; both are clients of one MPS daemon.
        say: gets what it prints.
    """

    def __init__(self, serving: ServerConfiguration, say: Say) -> None:
        self.serving = serving
        self._log = VllmLog([os.environ.get("HF_TOKEN", "")], lambda line: say(f"neighbour: {line}"))
        self._ready = threading.Event()
        self._report = b""

    async def __aenter__(self) -> Self:
        # As a file, which loads nothing else of Scepsy; -P: nor what lies beside it, whose names torch may import.
        command = (sys.executable, "-P", neighbour_program.__file__)
        self._child = Child(command, {**os.environ, **self.serving.neighbour_environment()}, self._add)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._child.stop()

    async def ready(self) -> None:
        """Wait until the neighbour keeps all GPUs busy.

        Raises:
            TryAgain: it ended, or takes too long.
        """
        try:
            await asyncio.wait_for(self._child.beside(self._busy()), START_TIMEOUT)
        except Ended:
            await self._child.read()
            raise self._ended() from None
        except TimeoutError:
            raise TryAgain(f"the neighbour did not run within {START_TIMEOUT:g} s") from None

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something while the neighbour runs.

        Raises:
            TryAgain: it ended first.
        """
        try:
            return await self._child.beside(work)
        except Ended:
            await self._child.read()
            raise self._ended() from None

    def check(self) -> None:
        """Check that the neighbour still runs.

        Raises:
            TryAgain: it ended.
        """
        if self._child.status is not None:
            raise self._ended()

    async def stop(self) -> str:
        """Stop the neighbour, and return a sentence with the bandwidth that it drew."""
        await self._child.stop()
        other = round((1 - self.serving.share) * 100)
        kernel = f"Neighbours: a copy kernel on the other {other} % of the SMs"
        with contextlib.suppress(ValueError, KeyError, TypeError):
            rates = [float(rate) for rate in json.loads(self._report)["bytesPerSecond"]]
            if rates and min(rates) > 0:
                each = " of each GPU" if len(rates) > 1 else ""
                return f"{kernel} drew {significant(mean(rates) / 1e9, 3)} GB/s{each}."
        return f"{kernel} ran throughout; it reported no bandwidth."

    async def _busy(self) -> None:
        while not self._ready.is_set():
            await asyncio.sleep(0.1)

    def _ended(self) -> TryAgain:
        reason = f", {self._log.reason}" if self._log.reason else ""
        return TryAgain(f"the neighbour {self._child.how}{reason}: {_DISCARDED}")

    def _add(self, line: bytes) -> None:
        if line.strip() == neighbour_program.READY.encode():
            self._ready.set()
        elif line.startswith(b"{"):
            self._report = line
        else:
            self._log.add(line)


_DISCARDED = "what was measured since is not to be trusted, and was left out"
