"""The recorder as a whole: it listens, serves, and stops when everything is written."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scepsy.errors import ScepsyError
from scepsy.traces.recorder.call_recorder import CallRecorder, Summary
from scepsy.traces.recorder.client_session import Session, Shared
from scepsy.traces.recorder.connection import Connection
from scepsy.traces.recorder.connection_pool import Pool
from scepsy.traces.recorder.endpoints import Address, Upstreams
from scepsy.traces.recorder.log_once import LogOnce
from scepsy.traces.recorder.trace_file import TraceFile

GRACE = 5.0
"""Seconds for calls in flight to end after the first signal."""

_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recorder does.

    Attributes:
        listen: where clients connect.
        upstreams: where calls go.
        output: the trace file, which is appended to.
        idle_gap: the longest pause within an execution, seconds, where only the connection tells executions apart.
        store_text: whether prompts and completions are stored.
    """

    listen: Address
    upstreams: Upstreams
    output: Path
    idle_gap: float
    store_text: bool


async def record(settings: Settings, log: Callable[[str], None], ready: Callable[[Address], None]) -> Summary:
    """Forward and record until SIGINT or SIGTERM; calls in flight get GRACE seconds, or until a second signal.

    Args:
        settings: what the recorder does.
        log: prints a line to the operator.
        ready: called with the address once it listens; its port is the real one.

    Raises:
        ScepsyError: the file cannot be written, or the address cannot be used.
    """
    signals = _Signals()
    with signals.caught():
        recorder = await Recorder.started(settings, log)
        ready(recorder.address)
        await signals.first.wait()
        return await recorder.stop(signals.second)


class Recorder:
    """A recorder that listens.

    Attributes:
        address: where; its port is the real one.
    """

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        now = _clock()
        upstreams = settings.upstreams
        self._file = TraceFile(settings.output)
        self._recorder = CallRecorder(self._file, now, settings.store_text, LogOnce(log))
        self._pools = {upstream: Pool(upstream, now) for upstream in {*upstreams.named.values(), upstreams.first}}
        self._stopping = asyncio.Event()
        shared = Shared(upstreams, self._pools, self._recorder, settings.idle_gap, self._stopping.is_set)
        self._sessions: dict[asyncio.Task[None], Session] = {}
        self._accept: Callable[[], Connection] = lambda: _Client(now, shared, self._sessions)
        self._server: asyncio.Server | None = None
        self.address = settings.listen

    @classmethod
    async def started(cls, settings: Settings, log: Callable[[str], None]) -> Recorder:
        """Return a recorder that listens.

        Args:
            settings: what the recorder does.
            log: prints a line to the operator.

        Raises:
            ScepsyError: the file cannot be written, or the address cannot be used.
        """

        def accept() -> Connection:
            return recorder._accept()

        # The port first: a file created for a recorder that does not start would be mistaken for a trace.
        server = await _bound(settings.listen, accept)
        try:
            recorder = cls(settings, log)
        except ScepsyError:
            server.close()
            raise
        recorder._server = server
        _allow_many_files()
        with _listen_errors(settings.listen):
            await server.start_serving()
        host, port = server.sockets[0].getsockname()[:2]
        recorder.address = Address(host, port)
        return recorder

    async def stop(self, at_once: asyncio.Event | None = None) -> Summary:
        """Accept no more connections, close idle ones, wait up to GRACE seconds for calls in flight, close the file.

        Args:
            at_once: an event that cuts the wait short.
        """
        self._stopping.set()
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions.values()):
            if session.idle:
                session.end("recorder stopped")
        await _first_of(GRACE, self._ended(), (at_once or asyncio.Event()).wait())
        for session in list(self._sessions.values()):
            session.end("recorder stopped")
        await _first_of(1.0, self._ended())
        for pool in self._pools.values():
            pool.close()
        self._file.close()
        return self._recorder.summary

    async def _ended(self) -> None:
        """Wait until all sessions have ended."""
        if self._sessions:
            await asyncio.wait(list(self._sessions))


class _Client(Connection):
    """A client's connection, which starts its session once connected."""

    def __init__(self, now: Callable[[], float], shared: Shared, sessions: dict[asyncio.Task[None], Session]) -> None:
        super().__init__(now)
        self._shared = shared
        self._sessions = sessions

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        session = Session(self, self._shared)
        task = session.start()
        self._sessions[task] = session
        task.add_done_callback(self._sessions.pop)


class _Signals:
    """The first signal to stop, and the second."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM within the block."""
        loop = asyncio.get_running_loop()
        caught = (signal.SIGINT, signal.SIGTERM)
        for number in caught:
            loop.add_signal_handler(number, self._received)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    def _received(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _bound(address: Address, factory: Callable[[], Connection]) -> asyncio.Server:
    """Return a server that has bound the port, and accepts no connections yet."""
    with _listen_errors(address):
        return await asyncio.get_running_loop().create_server(
            factory, address.host, address.port, backlog=_BACKLOG, start_serving=False
        )


@contextlib.contextmanager
def _listen_errors(address: Address) -> Iterator[None]:
    """Report why an address cannot be used as a ScepsyError."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if "address already in use" in reason:
            raise ScepsyError(
                f"cannot listen on {address}: the port is in use", "choose another port with --listen"
            ) from error
        raise ScepsyError(f"cannot listen on {address}: {reason}") from error


def _clock() -> Callable[[], float]:
    """Return a clock in Unix seconds that never goes backwards: one wall clock reading, then the monotonic clock."""
    anchor = time.time() - time.monotonic()
    return lambda: anchor + time.monotonic()


async def _first_of(seconds: float, *events: Coroutine[Any, Any, object]) -> None:
    """Wait until one of several events, for some seconds at most."""
    tasks = [asyncio.ensure_future(event) for event in events]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each call in flight needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
