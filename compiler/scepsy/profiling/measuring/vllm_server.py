"""`vllm serve` as a child process, started as an instance of a Plan; it does not outlive Scepsy (`child_process`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import Self

from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import QUIET
from scepsy.profiling.measuring.child_process import Child, Ended
from scepsy.profiling.measuring.failures import DoesNotRun, NotUnderstood, TryAgain
from scepsy.profiling.measuring.server_configuration import ServerConfiguration
from scepsy.profiling.measuring.vllm_client import Engine
from scepsy.profiling.measuring.vllm_log import VllmLog

Say = Callable[[str], None]

_ENDING = 10.0
"""Seconds that an engine which failed a call may take to end and to log the reason."""
_VERSION_TIMEOUT = 300.0
"""Seconds for `vllm --version`; vLLM imports for half a minute on a busy machine."""


class VllmServer:
    """`vllm serve`, while its context lasts.

    Args:
        serving: its configuration.
        say: gets the lines of its log.

    Raises:
        ScepsyError: (on entering) `vllm` is not installed.
    """

    def __init__(self, serving: ServerConfiguration, say: Say) -> None:
        self.serving = serving
        self.key = secrets.token_urlsafe(32)
        self._log = VllmLog([self.key, os.environ.get("HF_TOKEN", "")], say)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        program = find_vllm()
        self._port = _free_port()
        environment = {"USER": "vllm", **os.environ, **self.serving.environment(), "VLLM_API_KEY": self.key}
        self._child = Child((program, "serve", *self.serving.arguments(self._port)), environment, self._log.add)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._child.stop()

    async def healthy(self, engine: Engine, seconds: float) -> None:
        """Wait until the server is healthy.

        Args:
            engine: a client of the server.
            seconds: how long at most.

        Raises:
            DoesNotRun: it ran out of GPU memory.
            NotUnderstood: it did not accept its command line.
            TryAgain: it ended for another reason.
            ScepsyError: it is not healthy after so many seconds.
        """
        try:
            await self._child.beside(engine.wait(seconds))
        except Ended:
            raise await self._verdict() from None

    async def verdict(self) -> ScepsyError | None:
        """Return why the server ended, after a failed call; None if it still runs."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._child.ended(), _ENDING)
            return await self._verdict()
        return None

    async def _verdict(self) -> ScepsyError:
        await self._child.read()
        log = self._log
        if log.foreign:
            return TryAgain(f"the GPU is in use by something else: {log.foreign}")
        if log.memory:
            longest = self.serving.max_model_len if log.too_long else None
            return DoesNotRun(f"out of memory: {log.memory}", longest)
        how = self._child.how
        message = f"vLLM {how}: {log.reason}" if log.reason else f"vLLM {how}, and logged no reason"
        return NotUnderstood(message) if self._child.status == 2 and "error: " in log.reason else TryAgain(message)


def find_vllm() -> str:
    """Return the path of the program `vllm`.

    Raises:
        ScepsyError: it is not installed.
    """
    program = shutil.which("vllm")
    if program is None:
        raise ScepsyError(
            "the program `vllm` is not installed",
            "run this in vLLM's image, pip install 'scepsy[profiling]', or measure a running server with --base-url",
        )
    return program


def engine_version() -> str:
    """Return the version that `vllm --version` prints; for an engine that never answered.

    Raises:
        ScepsyError: it prints no version.
    """
    try:
        done = subprocess.run(  # noqa: S603 - from PATH, no shell
            [find_vllm(), "--version"],
            env={**os.environ, **QUIET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_VERSION_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScepsyError(f"cannot run `vllm --version`: {error}") from error
    # Warnings may precede it.
    words = done.stdout.split()
    if done.returncode or not words:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise ScepsyError(f"`vllm --version` prints no version: {printable(last)[:300]}")
    return words[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
