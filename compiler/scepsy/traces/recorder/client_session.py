"""One client's connection: reads its requests in turn, chooses the server of each, and lets it be forwarded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scepsy.traces.recorder.call_recorder import CallRecorder, CallRecording
from scepsy.traces.recorder.connection import Connection
from scepsy.traces.recorder.connection_pool import Pool
from scepsy.traces.recorder.endpoints import Upstream, Upstreams
from scepsy.traces.recorder.execution_ids import ConnectionExecutions, execution_of
from scepsy.traces.recorder.forwarding import Forwarding, ForwardingFailed
from scepsy.traces.recorder.llm_request import LlmRequest, llm_request
from scepsy.traces.recorder.refusals import Refused, refusal
from scepsy.traces.recorder.requests import Request, read_request

_LINGER = 2.0
"""Seconds in which a refused client can read why, before its connection is closed."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sessions share.

    Attributes:
        upstreams: the server of each LLM.
        pools: the connections to each server.
        recorder: what writes the records.
        idle_gap: the longest pause within an execution, seconds, where only the connection tells executions apart.
        stopping: whether the recorder is shutting down.
    """

    upstreams: Upstreams
    pools: Mapping[Upstream, Pool]
    recorder: CallRecorder
    idle_gap: float
    stopping: Callable[[], bool]


class Session:
    """Serves one client connection.

    Args:
        client: the connection.
        shared: what all sessions share.
    """

    def __init__(self, client: Connection, shared: Shared) -> None:
        self._client = client
        self._shared = shared
        self._fallback = ConnectionExecutions(shared.idle_gap)
        self._task: asyncio.Task[None] | None = None
        self._cut: str | None = None
        self._forwarding = False
        self.idle = True
        """Whether it waits for the next request, or for the rest of it."""

    def start(self) -> asyncio.Task[None]:
        """Start serving."""
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
            while await self._turn() and not self._shared.stopping():
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
            self._shared.recorder.log.once("bug", f"error: a connection failed: {type(error).__name__}: {error}")
        finally:
            client.close()

    async def _turn(self) -> bool:
        """Serve one request, and return whether there may be another.

        Raises:
            Refused: the request cannot be read.
        """
        client, shared = self._client, self._shared
        self.idle = True
        try:
            request = await read_request(client)
        finally:
            self.idle = False
        if request is None:
            return False
        call = llm_request(request.head, request.line.target, request.content)
        upstream = shared.upstreams.first if call is None else shared.upstreams.of(call.model)
        if upstream is None:
            assert call is not None  # noqa: S101 — without a model there is always the first
            return await self._refuse(request, self._unknown(call.model))
        recording = None if call is None else self._recording(request, call)
        forwarding = Forwarding(
            client, request, shared.pools[upstream], upstream.authority, recording, shared.recorder.now
        )
        if client.ended:
            forwarding.fail("client disconnected")
            return False
        self._forwarding = True
        instead: Refused | None = None
        try:
            persists = await forwarding.run()
        except ForwardingFailed as failed:
            forwarding.fail(str(failed))
            instead = failed.response
        except asyncio.CancelledError:
            forwarding.fail(self._cut or "recorder stopped")
            raise
        except Exception:
            forwarding.fail("recorder failed")
            raise
        finally:
            self._forwarding = False
        if instead is not None:
            return not forwarding.started and await self._refuse(request, instead)
        await client.drained()
        return persists and not client.ended

    def _recording(self, request: Request, call: LlmRequest) -> CallRecording:
        return CallRecording(self._shared.recorder, call, execution_of(request.head), self._fallback, request.start)

    def _unknown(self, model: str) -> Refused:
        self._shared.recorder.summary.refused += 1
        shown, known = model[:80], ", ".join(self._shared.upstreams.named)
        self._shared.recorder.log.once(
            f"model {shown}", f'note: calls of the unknown model "{shown}" are refused with 404; known models: {known}'
        )
        return Refused(
            404, f'no upstream serves the model "{shown}"; known models: {known}', "model_not_found", "model"
        )

    async def _refuse(self, request: Request, refused: Refused) -> bool:
        """Respond in the server's place, and return whether the connection stays open."""
        self._client.write(refusal(refused, not request.persists, request.line.method != b"HEAD"))
        await self._client.drained()
        return request.persists

    async def _linger(self) -> None:
        """Read what a refused client still sends: closing at once would reset the connection before it has read why."""
        if self._client.transport.can_write_eof() and not self._client.ended:
            self._client.transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._client.receive():
                    pass
