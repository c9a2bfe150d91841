"""Connections to one server, kept open between requests."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable

from scepsy.traces.recorder.connection import Connection
from scepsy.traces.recorder.endpoints import Upstream

CONNECT_TIMEOUT = 10.0
"""Seconds for name resolution, TCP and TLS together."""

MAX_IDLE = 4.0
"""Seconds after which an idle connection is not used again: uvicorn, and so vLLM, closes idle ones after five."""


class Unreachable(Exception):
    """A connection to a server could not be opened.

    Args:
        reason: why, as text.
        timed_out: whether it did not respond in time.
    """

    def __init__(self, reason: str, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class Pool:
    """The connections to one server; a request takes one and returns it.

    Args:
        upstream: the server.
        now: the clock.
    """

    def __init__(self, upstream: Upstream, now: Callable[[], float]) -> None:
        self._upstream = upstream
        self._now = now
        self._idle: list[tuple[float, Connection]] = []
        self._tls = ssl.create_default_context() if upstream.tls else None

    def kept(self) -> Connection | None:
        """Return the connection that was used last, if one can be used again."""
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.ended and not connection.waiting and self._now() - since < MAX_IDLE:
                return connection
            connection.abort()
        return None

    async def fresh(self) -> Connection:
        """Return a new connection.

        Raises:
            Unreachable: it cannot be opened.
        """
        host, port = self._upstream.address.host, self._upstream.address.port
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._now), host, port, ssl=self._tls, happy_eyeballs_delay=0.25
                )
        except TimeoutError as error:
            raise Unreachable(f"no connection within {CONNECT_TIMEOUT:g} s", True) from error
        except OSError as error:
            raise Unreachable(_reason(error), False) from error
        return connection

    def keep(self, connection: Connection) -> None:
        """Return a connection on which a response has ended, and close those that were idle for too long."""
        now = self._now()
        while self._idle and now - self._idle[0][0] >= MAX_IDLE:
            self._idle.pop(0)[1].abort()
        self._idle.append((now, connection))

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[1].abort()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    # asyncio puts the errors of several addresses into one text.
    number = error.errno or next((int(n) for n in re.findall(r"\[Errno (\d+)\]", str(error))), 0)
    return os.strerror(number).lower() if number else str(error)[:200]
