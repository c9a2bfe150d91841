"""Forwards one request to a server, and the response back, byte for byte."""

from __future__ import annotations

from collections.abc import Callable

from scepsy.traces.recorder.call_recorder import CallRecording
from scepsy.traces.recorder.connection import Connection
from scepsy.traces.recorder.connection_pool import Pool, Unreachable
from scepsy.traces.recorder.http1 import (
    Head,
    Malformed,
    TooLarge,
    parse_head,
    persists,
    response_body,
    split_head,
    status_of,
    with_host,
)
from scepsy.traces.recorder.refusals import Refused
from scepsy.traces.recorder.requests import Request

RETRY_WITHIN = 1.0
"""Seconds after which a request is not sent again.

A server may close a kept connection while a request is on its way; then it has not read the request, and the close
arrives at once. A request that a server read before it failed is not sent again.
"""


class ForwardingFailed(Exception):
    """A server sent no response, or not all of it.

    Args:
        reason: why, for the record.
        response: what to send to the client in the server's place.
    """

    def __init__(self, reason: str, response: Refused) -> None:
        super().__init__(reason)
        self.response = response


class Forwarding:
    """One request on its way to a server, and the response on its way back.

    Args:
        client: the connection of the request.
        request: the request.
        pool: the connections to the server.
        authority: the server's host and port, as the Host header names it.
        recording: the record of the call; None for a request that is no LLM call.
        now: the clock.
    """

    def __init__(
        self,
        client: Connection,
        request: Request,
        pool: Pool,
        authority: str,
        recording: CallRecording | None,
        now: Callable[[], float],
    ) -> None:
        self._client = client
        self._request = request
        self._pool = pool
        self._authority = authority
        self._recording = recording
        self._now = now
        self._server: Connection | None = None
        self._until_close = False
        self.started = False
        """Whether a part of the response was sent to the client."""

    async def run(self) -> bool:
        """Forward, and return whether the client's connection goes on.

        Raises:
            ForwardingFailed: the server sent no response, or not all of it.
        """
        try:
            server, data = await self._send()
            return await self._relay(server, data)
        except Unreachable as error:
            status, code = (504, "upstream_timeout") if error.timed_out else (502, "upstream_unreachable")
            reason = f"upstream unreachable: {error}"
            raise ForwardingFailed(reason, Refused(status, f"{reason} ({self._authority})", code)) from error
        except (Malformed, TooLarge) as error:
            raise self._failed(f"the upstream's response is not HTTP/1.1: {error}") from error

    def fail(self, reason: str) -> None:
        """Record the call as failed, and end the connections so that both sides notice."""
        if self._server is not None:
            self._server.abort()
        if self._recording is not None:
            self._recording.finish(reason)
        if self._until_close and self.started:
            self._client.fail()  # an orderly end would complete the response

    async def _send(self) -> tuple[Connection, bytes]:
        """Send the request, and return the connection with the first bytes of the response."""
        head = with_host(self._request.head, self._authority)
        server = self._pool.kept()
        while True:
            fresh = server is None
            self._server = server = server or await self._pool.fresh()
            sent = self._now()
            server.write(head, self._request.body)
            if self._recording is not None:
                self._recording.analyse_prompt()
            data = await server.receive()
            if data:
                return server, data
            server.abort()
            if fresh or self._now() - sent > RETRY_WITHIN:
                raise self._failed("upstream closed the connection without a response")
            server = None

    async def _relay(self, server: Connection, data: bytes) -> bool:
        """Forward the response that begins with data."""
        client, request, recording = self._client, self._request, self._recording
        head, status, data = await self._final_head(server, data)
        body = response_body(head, status, request.line.method)
        self._until_close = body.until_close
        if recording is not None:
            recording.start_response(status, head)
        self.started = True
        used, content = body.feed(data)
        client.write(head.raw, data[:used])
        while True:
            if recording is not None and content:
                recording.feed(content, server.arrived)
            if body.complete:
                break
            await client.drained()
            data = await server.receive()
            if not data:
                if body.until_close and not server.reset:
                    break
                raise self._failed("upstream closed the connection in the middle of the response")
            used, content = body.feed(data)
            client.write(data[:used])
        if recording is not None:
            recording.finish()
        keeps_open = request.persists and persists(head, head.first.startswith(b"HTTP/1.1")) and not body.until_close
        if keeps_open and used == len(data) and server.sent and not server.ended:
            self._pool.keep(server)
        else:
            server.abort()
        return keeps_open

    async def _final_head(self, server: Connection, data: bytes) -> tuple[Head, int, bytes]:
        """Return the head of the response, its status, and the bytes after it; forward interim responses."""
        while True:
            while not (length := split_head(data)):
                more = await server.receive()
                if not more:
                    raise self._failed("upstream closed the connection in the middle of the response")
                data += more
            head, data = parse_head(data[:length]), data[length:]
            status = status_of(head)
            if status == 101:
                raise Malformed("it switches protocols (101)")
            if status >= 200:
                return head, status, data
            # A client that was already sent 100 Continue does not get it again.
            if not (status == 100 and self._request.continued):
                self._client.write(head.raw)

    def _failed(self, reason: str) -> ForwardingFailed:
        return ForwardingFailed(reason, Refused(502, f"{reason} ({self._authority})", "upstream_failed"))
