"""One TCP or TLS connection: its bytes in order, backpressure both ways, and notice of its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

_READ_AHEAD = 256 * 1024

_TOGETHER = 1 << 16
"""Bytes up to which parts are sent as one."""


class Connection(asyncio.Protocol):
    """A connection to a client or to a server, read and written by one task.

    Args:
        now: the clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._lost = asyncio.get_running_loop().create_future()
        self._paused = False
        self._full = False
        self.arrived = 0.0
        """When the first of the bytes that `receive` returns next arrived."""
        self.ended = False
        """The other side sent its last byte, or disconnected."""
        self.reset = False
        """The connection was lost without an orderly end: what arrived may be incomplete."""
        self.on_end: Callable[[], None] | None = None
        """Called once when the connection ends."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport, once connected."""
        assert self._transport is not None  # noqa: S101 — asyncio calls connection_made before anything else
        return self._transport

    @property
    def waiting(self) -> bool:
        """Whether bytes arrived that `receive` has not returned yet."""
        return bool(self._chunks)

    @property
    def sent(self) -> bool:
        """Whether everything written has been handed to the kernel."""
        return self.transport.get_write_buffer_size() == 0

    async def receive(self) -> bytes:
        """Return what arrived, at least one byte; nothing when the connection has ended."""
        if not self._chunks and not self.ended:
            self._reading = asyncio.get_running_loop().create_future()
            try:
                await self._reading
            finally:
                self._reading = None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return data

    def give_back(self, data: bytes) -> None:
        """Let `receive` return data again, before what arrived later."""
        if data:
            self._chunks.insert(0, data)
            self._size += len(data)

    def write(self, *parts: bytes) -> None:
        """Send bytes; what the kernel does not accept at once is buffered."""
        # Not `writelines`: in Python 3.12 and 3.13.0 it neither pauses a fast writer nor ends after an empty part.
        if sum(map(len, parts)) <= _TOGETHER:
            parts = (b"".join(parts),)
        for part in parts:
            if part and not self.transport.is_closing():
                self.transport.write(part)

    async def drained(self) -> None:
        """Wait until the other side has read most of what was written, or disconnected."""
        if self._full and not self.ended:
            self._writing = asyncio.get_running_loop().create_future()
            try:
                await self._writing
            finally:
                self._writing = None

    async def closed(self) -> None:
        """Wait until the connection is closed, and everything written before that sent."""
        await asyncio.shield(self._lost)

    def close(self) -> None:
        """End the connection after everything written has been sent."""
        self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def fail(self) -> None:
        """End the connection so that the other side sees a reset rather than an orderly end (SO_LINGER of zero)."""
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it may be closed already
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.close()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 — TCP and TLS transports are
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Buffer the bytes, and stop reading when the buffer is full."""
        if not self._chunks:
            self.arrived = self._now()
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= _READ_AHEAD and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        _wake(self._reading)

    def eof_received(self) -> None:
        """Treat the end of what the other side sends as the end of the connection.

        A closed and a half-closed connection look alike; servers and proxies treat both as closed, so that an abandoned
        generation ends.
        """
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note how it ended."""
        self.reset = exc is not None and not self.ended
        self._end()
        _wake(self._lost)

    def pause_writing(self) -> None:
        """The other side reads more slowly than we write."""
        self._full = True

    def resume_writing(self) -> None:
        """It has read most of it."""
        self._full = False
        _wake(self._writing)

    def _end(self) -> None:
        first, self.ended = not self.ended, True
        _wake(self._reading)
        _wake(self._writing)
        if first and self.on_end is not None:
            self.on_end()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
