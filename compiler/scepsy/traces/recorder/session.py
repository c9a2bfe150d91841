"""One client's connection: its requests in turn, each forwarded to a server and its answer back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scepsy.traces.recorder.call_records import Recording, Scribe
from scepsy.traces.recorder.connection import Connection
from scepsy.traces.recorder.endpoints import Upstream, Upstreams
from scepsy.traces.recorder.executions import ByConnection, announced
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
from scepsy.traces.recorder.pool import Pool, Unreachable
from scepsy.traces.recorder.request_content import Question, question
from scepsy.traces.recorder.requests import Refused, Request, read_request, refusal

RETRY_WITHIN = 1.0
"""Seconds after which a request is not sent again.

A server may close a kept connection while a request is on its way; it has then not read the request, and its word
arrives at once. A server that read the request and then failed is not asked again.
"""

_LINGER = 2.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions share.

    Attributes:
        upstreams: the server of each LLM.
        pools: the connections to each server.
        scribe: what writes the records.
        idle_gap: the longest pause within an execution, seconds, where only the connection tells.
        stopping: whether the recorder ends.
    """

    upstreams: Upstreams
    pools: Mapping[Upstream, Pool]
    scribe: Scribe
    idle_gap: float
    stopping: Callable[[], bool]


class _Failed(Exception):
    """A server that gave no answer, or not all of it."""

    def __init__(self, reason: str, answer: Refused) -> None:
        super().__init__(reason)
        self.answer = answer


class Session:
    """Serves one client connection.

    Args:
        client: the connection.
        around: what all sessions share.
    """

    def __init__(self, client: Connection, around: Surroundings) -> None:
        self._client = client
        self._around = around
        self._fallback = ByConnection(around.idle_gap)
        self._task: asyncio.Task[None] | None = None
        self._cut: str | None = None
        self._forwarding = False
        self.idle = True
        """Whether the next request has not come yet, or not all of it."""

    def start(self) -> asyncio.Task[None]:
        """Begin to serve."""
        self._client.on_end = self._client_ended
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    def end(self, reason: str) -> None:
        """End the session; the call that is being forwarded is recorded as failed for a reason."""
        self._cut = reason
        if self._task is not None:
            self._task.cancel()

    def _client_ended(self) -> None:
        if self._forwarding:
            self.end("client disconnected")

    async def _run(self) -> None:
        client = self._client
        try:
            while await self._turn() and not self._around.stopping():
                pass
            client.close()
            await client.closed()
        except Refused as refused:
            client.write(refusal(refused, closes=True))
            await self._linger()
        except asyncio.CancelledError:
            if self._cut is None:
                raise
        except Exception as error:
            self._around.scribe.notices.once("bug", f"error: a connection fails: {type(error).__name__}: {error}")
        finally:
            client.close()

    async def _turn(self) -> bool:
        """Serve one request, and return whether there may be another.

        Raises:
            Refused: the request cannot be read.
        """
        client, around = self._client, self._around
        self.idle = True
        try:
            request = await read_request(client)
        finally:
            self.idle = False
        if request is None:
            return False
        asked = question(request.head, request.line.target, request.content)
        upstream = around.upstreams.first if asked is None else around.upstreams.of(asked.model)
        if upstream is None:
            assert asked is not None  # noqa: S101 — without a model there is always the first
            return await self._refuse(request, self._unknown(asked.model))
        recording = None if asked is None else self._recording(request, asked)
        exchange = _Exchange(client, request, around.pools[upstream], upstream.authority, recording, around.scribe.now)
        if client.ended:
            exchange.fail("client disconnected")
            return False
        self._forwarding = True
        answer: Refused | None = None
        try:
            persists = await exchange.run()
        except _Failed as failed:
            exchange.fail(str(failed))
            answer = failed.answer
        except asyncio.CancelledError:
            exchange.fail(self._cut or "recorder stopped")
            raise
        except Exception:
            exchange.fail("recorder failed")
            raise
        finally:
            self._forwarding = False
        if answer is not None:
            return not exchange.started and await self._refuse(request, answer)
        await client.drained()
        return persists and not client.ended

    def _recording(self, request: Request, asked: Question) -> Recording:
        return Recording(self._around.scribe, asked, announced(request.head), self._fallback, request.start)

    def _unknown(self, model: str) -> Refused:
        self._around.scribe.summary.refused += 1
        shown, known = model[:80], ", ".join(self._around.upstreams.named)
        self._around.scribe.notices.once(
            f"model {shown}", f'note: calls of the unknown model "{shown}" are refused with 404; known are: {known}'
        )
        return Refused(404, f'no upstream serves the model "{shown}"; known are: {known}', "model_not_found", "model")

    async def _refuse(self, request: Request, refused: Refused) -> bool:
        """Answer in the server's place, and return whether the connection goes on."""
        self._client.write(refusal(refused, not request.persists, request.line.method != b"HEAD"))
        await self._client.drained()
        return request.persists

    async def _linger(self) -> None:
        """Take what a refused client still sends: closing at once would reset the connection before it has read why."""
        if self._client.transport.can_write_eof() and not self._client.ended:
            self._client.transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._client.receive():
                    pass


class _Exchange:
    """One request on its way to a server, and the answer on its way back."""

    def __init__(
        self,
        client: Connection,
        request: Request,
        pool: Pool,
        authority: str,
        recording: Recording | None,
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
        """Whether the client has seen a part of the answer."""

    async def run(self) -> bool:
        """Forward, and return whether the client's connection goes on.

        Raises:
            _Failed: the server did not answer, or not to the end.
        """
        try:
            server, data = await self._ask()
            return await self._relay(server, data)
        except Unreachable as error:
            status, code = (504, "upstream_timeout") if error.timed_out else (502, "upstream_unreachable")
            reason = f"upstream unreachable: {error}"
            raise _Failed(reason, Refused(status, f"{reason} ({self._authority})", code)) from error
        except (Malformed, TooLarge) as error:
            raise self._failed(f"upstream's answer is not HTTP/1.1: {error}") from error

    def fail(self, reason: str) -> None:
        """Record the call as failed, and end the connections so that both sides notice."""
        if self._server is not None:
            self._server.abort()
        if self._recording is not None:
            self._recording.finish(reason)
        if self._until_close and self.started:
            self._client.fail()  # an orderly end would complete the answer

    async def _ask(self) -> tuple[Connection, bytes]:
        """Send the request, and return the connection with the first bytes of the answer."""
        head = with_host(self._request.head, self._authority)
        server = self._pool.kept()
        while True:
            fresh = server is None
            self._server = server = server or await self._pool.fresh()
            sent = self._now()
            server.write(head, self._request.body)
            if self._recording is not None:
                self._recording.study()
            data = await server.receive()
            if data:
                return server, data
            server.abort()
            if fresh or self._now() - sent > RETRY_WITHIN:
                raise self._failed("upstream closed the connection without an answer")
            server = None

    async def _relay(self, server: Connection, data: bytes) -> bool:
        """Forward the answer that begins with data."""
        client, request, recording = self._client, self._request, self._recording
        head, status, data = await self._final_head(server, data)
        body = response_body(head, status, request.line.method)
        self._until_close = body.until_close
        if recording is not None:
            recording.answered(status, head)
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
                raise self._failed("upstream ended in the middle of the answer")
            used, content = body.feed(data)
            client.write(data[:used])
        if recording is not None:
            recording.finish()
        stays = request.persists and persists(head, head.first.startswith(b"HTTP/1.1")) and not body.until_close
        if stays and used == len(data) and server.sent and not server.ended:
            self._pool.keep(server)
        else:
            server.abort()
        return stays

    async def _final_head(self, server: Connection, data: bytes) -> tuple[Head, int, bytes]:
        """Return the head of the answer, its status, and the bytes behind it; forward interim answers."""
        while True:
            while not (length := split_head(data)):
                more = await server.receive()
                if not more:
                    raise self._failed("upstream ended in the middle of the answer")
                data += more
            head, data = parse_head(data[:length]), data[length:]
            status = status_of(head)
            if status == 101:
                raise Malformed("it switches protocols")
            if status >= 200:
                return head, status, data
            # A client that has been told to continue is not told again.
            if not (status == 100 and self._request.continued):
                self._client.write(head.raw)

    def _failed(self, reason: str) -> _Failed:
        return _Failed(reason, Refused(502, f"{reason} ({self._authority})", "upstream_failed"))
