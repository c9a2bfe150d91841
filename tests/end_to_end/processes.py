"""Programs of a cluster as child processes that never outlive the tests."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Below the range from which Linux takes ports of outgoing connections, which could otherwise take one in between.
PORTS = range(20000, 32000)
_PR_SET_PDEATHSIG = 1


class ProgramEnded(Exception):
    """A program ended by itself."""


def eventually(
    ask: Callable[[], T | None],
    *,
    within: float,
    every: float = 0.1,
    why: Callable[[], str] | str = "it did not happen",
) -> T:
    """Ask until the answer is neither None nor False, and return it.

    Args:
        ask: the question.
        within: seconds after which to give up.
        every: seconds between two questions.
        why: what to say when giving up.

    Raises:
        AssertionError: the time is up.
    """
    end = time.monotonic() + within
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"after {within:g} s: {why if isinstance(why, str) else why()}")
        time.sleep(every)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback on which nothing listens, all different."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")


class Processes:
    """Child processes with a log each, stopped together, the last one started first.

    Each leads a process group of its own, so that Ctrl-C reaches pytest alone, which then stops them in order. Where
    pytest itself is killed, Linux kills them (PR_SET_PDEATHSIG).
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        atexit.register(self.stop)

    def start(self, name: str, *command: object, environment: Mapping[str, str] | None = None) -> None:
        """Start a program; its output goes to `<name>.log`."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment) if environment is not None else None,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs yet that could hold a lock
            )

    def alive(self) -> None:
        """Raise if one of them has ended.

        Raises:
            ProgramEnded: with the end of its log.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                tail = "\n".join(self.log(name).splitlines()[-15:])
                raise ProgramEnded(f"{name} ended with status {process.returncode}:\n{tail}")

    def ready(self, name: str, ask: Callable[[], object], within: float = 60) -> None:
        """Wait until a program answers.

        Args:
            name: the program, for the message.
            ask: returns something true when it does; may raise OSError before.
            within: seconds.
        """

        def answers() -> bool:
            self.alive()
            with contextlib.suppress(OSError):
                return bool(ask())
            return False

        eventually(answers, within=within, every=0.05, why=lambda: f"{name} is not ready:\n{self.log(name)[-2000:]}")

    def log(self, name: str) -> str:
        """Return what a program printed."""
        return (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def stop_one(self, name: str) -> None:
        """Stop one of them."""
        _stop(self._running.pop(name))

    def stop(self) -> None:
        """Stop all of them; safe to call again."""
        while self._running:
            _, process = self._running.popitem()
            _stop(process)
        atexit.unregister(self.stop)


def listens(port: int) -> Callable[[], bool]:
    """Return a question: does something listen on this port of loopback?"""

    def ask() -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    return ask


def _stop(process: subprocess.Popen[bytes], patience: float = 5) -> None:
    """End a process and its children: nothing in a test cluster is worth a long goodbye."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    # Children that ignored the first signal are in the same group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
