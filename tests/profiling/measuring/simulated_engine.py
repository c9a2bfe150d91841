"""An engine whose R(k) is known: in virtual time, or as a real server that speaks vLLM's part of HTTP.

Processor sharing: with n calls running each of them progresses at 1/R(n) per second, at most K run, the others wait in
line. So R(k) is R(k) by construction, saturation is K/R(K), and for Poisson arrivals of single calls the latency has a
closed form (`scepsy.performance.queueing`), whatever the lengths of the calls.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import os
import random
import selectors
import sys
from collections import deque
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from scepsy.profiling.measuring.metrics import Snapshot
from scepsy.profiling.measuring.vllm_client import Answer, CallFailed

T = TypeVar("T")
BLOCK = 16
"""Tokens of a block of the prefix cache, as in vLLM."""


@dataclass(frozen=True)
class Behaviour:
    """What an engine does.

    Attributes:
        base: seconds of a call that has nothing beside it and the mean length.
        slope: seconds that each other running call adds: R(k) = base + slope · (k - 1).
        limit: K, most calls that run.
        mean_output: output tokens of a call of mean length; calls take time in proportion to theirs.
        slow_calls: so many first calls take three times as long: an engine that is still warming up.
        failing: part of the calls that get an HTTP 500.
        truncated: part of the streams that end in the middle.
        dies_after: calls after which the process ends.
        miscounts: whether usage says one token too few.
        key: API key that it asks for.
        model: what it serves.
        resets: whether /reset_prefix_cache is there.
        metrics: whether /metrics is there.
        unhealthy: seconds in which /health says 503.
        says: what it answers with the status 200 in place of what it should, by path.
    """

    base: float = 0.040
    slope: float = 0.005
    limit: int = 8
    mean_output: float = 8.0
    slow_calls: int = 0
    failing: float = 0.0
    truncated: float = 0.0
    dies_after: int = 0
    miscounts: bool = False
    key: str = ""
    model: str = "tiny"
    resets: bool = True
    metrics: bool = True
    unhealthy: float = 0.0
    says: dict[str, str] = field(default_factory=dict)

    def seconds(self, k: int) -> float:
        """Return R(k); beyond K calls wait for each other."""
        return (self.base + self.slope * (min(k, self.limit) - 1)) * max(1.0, k / self.limit)

    @property
    def capacity(self) -> float:
        """Calls per second at saturation."""
        return self.limit / self.seconds(self.limit)


class Simulated:
    """The engine, on the clock of the running event loop."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.does = behaviour
        self.calls = 0
        self.queries = self.hits = 0
        self.resets = 0
        self._loop = asyncio.get_running_loop()
        self._progress, self._since = 0.0, self._loop.time()
        self._targets: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._chance = random.Random(7)
        self._blocks: set[tuple[int, ...]] = set()

    async def run(self, prompt: list[int], output: int, first: asyncio.Future[None]) -> None:
        """Take as long as a call takes; `first` is done when its first token is."""
        self.calls += 1
        work = output / self.does.mean_output * (3.0 if self.calls <= self.does.slow_calls else 1.0)
        self._look_up(prompt)
        if self._running >= self.does.limit:
            turn = self._loop.create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                elif turn in self._waiting:
                    self._waiting.remove(turn)
                raise
        else:
            self._advance()
            self._running += 1
        try:
            begin = self._progress
            await self._reached(begin + work / output)
            if not first.done():
                first.set_result(None)
            if output > 1:
                await self._reached(begin + work)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._advance()
        self._running -= 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)
                break
        self._schedule()

    def _look_up(self, prompt: list[int]) -> None:
        self.queries += len(prompt)
        full = [tuple(prompt[:end]) for end in range(BLOCK, len(prompt) + 1, BLOCK)]
        self.hits += BLOCK * sum(blocks in self._blocks for blocks in full)
        self._blocks.update(full)

    async def _reached(self, target: float) -> None:
        future = self._loop.create_future()
        heapq.heappush(self._targets, (target, next(self._number), future))
        self._schedule()
        await future

    def _advance(self) -> None:
        now = self._loop.time()
        if self._running:
            self._progress += (now - self._since) / self.does.seconds(self._running)
        self._since = now

    def _schedule(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._advance()
        while self._targets and (self._targets[0][2].done() or self._targets[0][0] <= self._progress + 1e-9):
            future = heapq.heappop(self._targets)[2]
            if not future.done():
                future.set_result(None)
        if self._targets and self._running:
            seconds = (self._targets[0][0] - self._progress) * self.does.seconds(self._running)
            self._timer = self._loop.call_later(seconds, self._schedule)

    # What the runner asks of a server

    async def call(self, prompt: list[int], output: int) -> Answer:
        sent = self._loop.time()
        first = self._loop.create_future()
        at: list[float] = []
        first.add_done_callback(lambda _: at.append(self._loop.time()))
        if self._chance.random() < self.does.failing:
            raise CallFailed("HTTP 500: by chance")
        await self.run(prompt, output, first)
        ended = self._loop.time()
        return Answer(sent, at[0] if at else ended, ended, output)

    async def snapshot(self) -> Snapshot | None:
        if not self.does.metrics:
            return None
        usage = self._running / self.does.limit / 2
        return Snapshot(self._loop.time(), self._running, len(self._waiting), usage, self.queries, self.hits)

    async def healthy(self) -> str | None:
        return None

    async def forget_prefixes(self) -> bool:
        if self.does.resets:
            self.resets += 1
            self._blocks.clear()
        return self.does.resets


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: it says how long it would have waited, and the clock is put forward."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing will ever happen"
            self.waited += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which sleeping takes no time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.waited


def virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


# The server


def application(does: Behaviour) -> web.Application:
    """Return the server: /health, /version, /metrics, /reset_prefix_cache, /v1/models and /v1/completions."""
    state: dict[str, Any] = {}

    async def started(_: web.Application) -> None:
        state["engine"] = Simulated(does)
        state["begin"] = asyncio.get_running_loop().time()

    async def health(_: web.Request) -> web.Response:
        up = asyncio.get_running_loop().time() - state["begin"] >= does.unhealthy
        return web.Response(status=200 if up else 503)

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"version": "0.24.0"})

    async def metrics(_: web.Request) -> web.Response:
        s = await state["engine"].snapshot()
        if s is None:
            return web.Response(status=404)
        labels = '{engine="0",model_name="tiny"}'
        lines = {
            "vllm:num_requests_running": s.running,
            "vllm:num_requests_waiting": s.waiting,
            "vllm:kv_cache_usage_perc": s.kv_usage,
            "vllm:prefix_cache_queries_total": s.queries,
            "vllm:prefix_cache_hits_total": s.hits,
        }
        return web.Response(text="".join(f"{name}{labels} {value}\n" for name, value in lines.items()))

    async def reset(_: web.Request) -> web.Response:
        return web.Response(status=200 if await state["engine"].forget_prefixes() else 404)

    def allowed(request: web.Request) -> bool:
        return not does.key or request.headers.get("Authorization") == f"Bearer {does.key}"

    async def models(request: web.Request) -> web.Response:
        if not allowed(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response({"data": [{"id": does.model, "max_model_len": 2048}]})

    async def completions(request: web.Request) -> web.StreamResponse:
        engine: Simulated = state["engine"]
        body = await request.json()
        if does.dies_after and engine.calls >= does.dies_after:
            os._exit(9)
        if not allowed(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        if engine._chance.random() < does.failing:
            return web.json_response({"error": {"message": f"out of luck, {does.key}"}}, status=500)
        cut = engine._chance.random() < does.truncated
        asked = {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, "temperature": 0}
        assert asked.items() <= body.items()
        assert body["max_tokens"] == body["min_tokens"]
        prompt, output = body["prompt"], body["max_tokens"]
        first = asyncio.get_running_loop().create_future()
        work = asyncio.create_task(engine.run(prompt, output, first))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await first
            await response.prepare(request)
            piece = b'data: {"choices":[{"text":"x"}]}\n\n'
            await response.write(piece)
            await work
            if not cut:
                counted = {"prompt_tokens": len(prompt), "completion_tokens": output - does.miscounts}
                usage = json.dumps({"choices": [], "usage": counted}).encode()
                await response.write(piece * (output - 1) + b"data: " + usage + b"\n\ndata: [DONE]\n\n")
            else:
                request.transport and request.transport.close()
        finally:
            work.cancel()
        return response

    @web.middleware
    async def odd(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path in does.says:
            return web.Response(text=does.says[request.path])
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[odd])
    app.on_startup.append(started)
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/version", version),
            web.get("/metrics", metrics),
            web.post("/reset_prefix_cache", reset),
            web.get("/v1/models", models),
            web.post("/v1/completions", completions),
        ]
    )
    return app


def encoded(behaviour: Behaviour) -> str:
    """Return a behaviour as an argument of this module as a program."""
    return json.dumps(asdict(behaviour))


if __name__ == "__main__":
    web.run_app(
        application(Behaviour(**json.loads(sys.argv[2]))),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.1,
    )
