"""A child process that does not outlive Scepsy.

It leads a process group, so that the processes it starts end with it: a shell in the group waits for the end of a pipe
that only Scepsy holds, and then kills the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL: no work of the process is needed after SIGTERM."""
_KEEPER = 'exec 3<&0; (trap "" TERM INT HUP; read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-'


class Ended(Exception):
    """The process ended before the work that needs it."""


class Child:
    """A running child process.

    Args:
        command: the program and its arguments.
        environment: its complete environment.
        add: gets every line that it prints, from a thread.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], add: Callable[[bytes], None]) -> None:
        self._add = add
        self._stopped = False
        self._process = subprocess.Popen(  # noqa: S603 - the shell gets no foreign text
            ("sh", "-c", _KEEPER, "sh", *command),  # noqa: S607 - from PATH
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(environment),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def how(self) -> str:
        """How it ended, as a phrase to follow its name."""
        status = self.status
        return "was killed" if status == -signal.SIGKILL else f"ended with status {status}"

    async def ended(self) -> None:
        """Wait until it has ended."""
        while self.status is None:
            await asyncio.sleep(0.1)

    async def read(self) -> None:
        """Wait until what it printed before its end is read; a process that left the group may hold the pipe open."""
        await asyncio.to_thread(self._reader.join, 1.0)

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something while the process runs.

        Raises:
            Ended: the process ended first; the work was cancelled.
        """
        working, ended = asyncio.create_task(work), asyncio.create_task(self.ended())
        try:
            await asyncio.wait((working, ended), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Ended
            return working.result()
        finally:
            working.cancel()
            ended.cancel()
            await asyncio.gather(working, ended, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the process and all that it started; further calls do nothing."""
        if self._stopped:
            return
        try:
            if self.status is None:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.ended(), GRACE)
        finally:
            self._stopped = True
            # Also when it ended by itself: others of its group may run. The keeper runs, so the id is not reused.
            self._signal(signal.SIGKILL)
            self._process.wait()
            # A process that left the group may hold the pipe open; the reader is a daemon thread and ends with Scepsy.
            self._reader.join(1.0)
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        with self._process.stdout as output:
            while line := output.readline(1 << 16):
                self._add(line)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
