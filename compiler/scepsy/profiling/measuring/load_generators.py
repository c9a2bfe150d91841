"""One point: calls kept in flight (closed loop) or arriving at random (open loop), until their mean latency is known.

The clock is that of the event loop, and a server is anything that answers calls: tests let both be simulated.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from scepsy.documents.profile import Point, RatePoint
from scepsy.documents.units import Si, format_duration
from scepsy.profiling.measuring.metrics import Snapshot, usage_of
from scepsy.profiling.measuring.statistics import LEAST, PRECISION, falls_behind, interval, mean_in_flight, warm_up
from scepsy.profiling.measuring.vllm_client import Answer, CallFailed
from scepsy.profiling.measuring.workload import Call, Group, Prompts

UNDECIDED = 0.25
"""An engine that is full on average, and whose mean latency is not even known to this part, is not called stable."""

_FEWEST = 200
"""Calls of an open-loop point, and with them ten beyond the 95th percentile."""
_TURNOVERS = 20
"""So many times the calls in flight must have been replaced by others: a queue that grows slowly needs time to show."""
_LATE = 0.2
"""Part of the mean latency by which calls may be sent late on average; a client that is later measures itself."""
_PERIOD = 0.5
"""Seconds between two looks at `/metrics`."""
_SETTLE = 10.0
"""Seconds in which a server drops what its client has given up."""


class Server(Protocol):
    """What is measured."""

    async def call(self, prompt: list[int], output: int) -> Answer:
        """Answer a call, or raise `CallFailed`."""

    async def snapshot(self) -> Snapshot | None:
        """Say how busy it is, if it can."""


class PointFailed(Exception):
    """A point that must not be reported, with the reason."""


@dataclass(frozen=True, slots=True)
class Time:
    """How long a point may take.

    Attributes:
        enough: seconds after which it ends although its interval is still wide.
        most: seconds after which it ends although it has too few calls to say anything.
    """

    enough: float
    most: float


class _Watch:
    """What is seen of a load while it runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clock = asyncio.get_running_loop().time
        self.began = self.clock()
        self.answers: list[Answer] = []
        self.failure: str | None = None
        self.sent: list[float] = []
        self.ended: list[float] = []
        self.seen: list[int] = []
        self.late = 0.0
        self.in_flight = 0
        self.prompt_tokens = 0
        self.snapshots: list[Snapshot] = []
        self.changed = asyncio.Event()

    async def one(self, prompt: list[int], output: int) -> None:
        """Have one call answered."""
        number = len(self.sent)
        self.sent.append(self.clock())
        self.ended.append(math.inf)
        self.seen.append(self.in_flight)
        self.in_flight += 1
        try:
            answer = await self.server.call(prompt, output)
        except CallFailed as error:
            self.failure = self.failure or str(error)
        else:
            self.ended[number] = answer.ended
            self.answers.append(answer)
            self.prompt_tokens += len(prompt)
        finally:
            self.in_flight -= 1
            self.changed.set()

    async def look(self) -> None:
        """Ask how busy the server is, for ever."""
        while (snapshot := await self.server.snapshot()) is not None:
            self.snapshots.append(snapshot)
            await asyncio.sleep(_PERIOD)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.began

    def prefix_hits(self, since: float) -> float | None:
        """Return the part of prompt tokens that the prefix cache held, as the server or its answers say."""
        hits = usage_of(self.snapshots, since).prefix_hits
        told = [answer.cached for answer in self.answers if answer.cached is not None]
        if hits is None and told and len(told) == len(self.answers):
            hits = min(1.0, sum(told) / self.prompt_tokens)
        return hits


@asynccontextmanager
async def _watching(server: Server) -> AsyncIterator[tuple[_Watch, set[asyncio.Task[None]]]]:
    """Watch a server; tasks that are added run until the block ends."""
    watch = _Watch(server)
    tasks: set[asyncio.Task[None]] = {asyncio.create_task(watch.look())}
    try:
        yield watch, tasks
        last = await server.snapshot()
        if last is not None:
            watch.snapshots.append(last)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settle(server: Server) -> None:
    """Wait until the server has dropped the calls that its client gave up."""
    clock = asyncio.get_running_loop().time
    end = clock() + _SETTLE
    while (now := await server.snapshot()) is not None and clock() < end:
        if not (now.running or now.waiting):
            return
        await asyncio.sleep(0.05)


# Long because: the arguments are documented, and callers, warm-up and end share the state of one point.
async def closed_loop(
    server: Server, order: Iterator[tuple[int, Group]], prompts: Prompts, concurrency: int, spread: float, time: Time
) -> Point:
    """Measure R(k): k calls in flight, each followed at once by the next.

    The k calls begin spread over the time that one takes, because calls of equal length that start together would go on
    in step. Whatever ended before all k were in flight, and the k calls after that, are the least warm-up; `warm_up`
    decides whether more of it is left out.

    Args:
        server: the server.
        order: what to replay, for ever.
        prompts: where prompts come from.
        concurrency: k.
        spread: seconds over which the first calls begin.
        time: how long it may take.

    Raises:
        PointFailed: a call failed, or too few calls ended in time.
    """
    calls = _singly(order)
    full = math.inf
    async with _watching(server) as (watch, tasks):

        async def keep_one(number: int) -> None:
            nonlocal full
            await asyncio.sleep(number * spread / concurrency)
            if number == concurrency - 1:
                full = watch.clock()
            while watch.failure is None:
                lap, call = next(calls)
                await watch.one(prompts.next(call, lap), call.output)

        for number in range(concurrency):
            tasks.add(_running(keep_one(number)))
        check = max(4 * LEAST, 8 * concurrency)
        while True:
            watch.changed.clear()
            await _within(watch.changed.wait(), max(0.01, time.most - watch.elapsed))
            _no_failure(watch)
            late = [answer for answer in watch.answers if answer.ended > full][concurrency:]
            over = watch.elapsed >= time.enough and len(late) >= max(LEAST, concurrency)
            if len(late) < check and not over and watch.elapsed < time.most:
                continue
            check = math.ceil(len(late) * 1.1)
            measured = late[warm_up([answer.latency for answer in late]) :]
            reached = interval([answer.latency for answer in measured])
            if reached <= PRECISION or over or watch.elapsed >= time.most:
                break
    if not math.isfinite(reached):
        raise PointFailed(f"only {len(measured)} calls ended within {time.most:.0f} s")
    since = min(answer.sent for answer in measured)
    latencies = np.array([answer.latency for answer in measured])
    p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99])
    return Point(
        concurrency=concurrency,
        latency=Si(latencies.mean()),
        ttft=_ttft(measured),
        tpot=_tpot(measured),
        p50=Si(p50),
        p95=Si(p95),
        p99=Si(p99),
        kv_usage=_digits(usage_of(watch.snapshots, since).kv_usage),
        prefix_hits=_digits(watch.prefix_hits(since)),
        calls=len(measured),
        interval=_figure(reached),
    )


# Long because: the arguments are documented, and arrivals, warm-up and end share the state of one point.
async def open_loop(
    server: Server,
    order: Iterator[tuple[int, Group]],
    prompts: Prompts,
    times: Iterator[float],
    asked: float,
    full: int,
    time: Time,
) -> RatePoint:
    """Measure calls that arrive at random, in groups.

    The queue is said to grow when the engine was full during the whole second half of the time, completed fewer calls
    than were to arrive (`falls_behind`), and, where it says so, let some of them wait. Latencies are those of the calls
    that ended in the window, so that none has to be waited for. Near saturation they are too low: a queue that starts
    empty takes longer to fill than anybody watches it.

    Args:
        server: the server.
        order: what to replay, for ever.
        prompts: where prompts come from.
        times: when groups arrive, seconds from now, for ever.
        asked: calls per second that this comes to.
        full: fewest calls in flight with which the throughput of the closed loop was highest.
        time: how long it may take.

    Raises:
        PointFailed: a call failed, the client could not keep up, or too few calls ended in time.
    """
    check = _FEWEST
    async with _watching(server) as (watch, tasks):
        while True:
            lap, group = next(order)
            ready = [(prompts.next(call, lap), call.output) for call in group.calls]
            due = watch.began + next(times)
            await asyncio.sleep(max(0.0, due - watch.clock()))
            _no_failure(watch)
            over = watch.elapsed >= time.enough and len(watch.answers) > 2 * LEAST
            if len(watch.sent) >= check or over or watch.elapsed >= time.most:
                check = math.ceil(len(watch.sent) * 1.1)
                measured, since = _window(watch.answers, watch.began)
                reached = interval([answer.latency for answer in measured])
                growing, certain = _growing(watch, asked, full)
                turned = len(measured) >= max(_FEWEST, _TURNOVERS * float(np.mean(watch.seen or [0])))
                settled = reached <= PRECISION and turned and not growing
                if certain or settled or over or watch.elapsed >= time.most:
                    break
            watch.late += len(ready) * max(0.0, watch.clock() - due)
            for prompt, output in ready:
                task = _running(watch.one(prompt, output))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            # What was sent must leave before the next prompts are made.
            await asyncio.sleep(0)
        until = watch.clock()
    if not math.isfinite(reached):
        raise PointFailed(f"only {len(measured)} calls ended within {time.most:.0f} s")
    latencies = np.array([answer.latency for answer in measured])
    if watch.late / len(watch.sent) > _LATE * latencies.mean():
        late = format_duration(watch.late / len(watch.sent))
        raise PointFailed(f"calls were sent {late} late on average: the client's machine is busy")
    span = until - since
    in_flight = mean_in_flight(watch.sent, watch.ended, since, until)
    p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99])
    return RatePoint(
        rate=Si(sum(sent >= since for sent in watch.sent) / span),
        completed=Si(len(measured) / span),
        stable=not growing and (reached <= UNDECIDED or in_flight < full),
        latency=Si(latencies.mean()),
        p50=Si(p50),
        p95=Si(p95),
        p99=Si(p99),
        ttft=_ttft(measured),
        tpot=_tpot(measured),
        concurrency=_figure(in_flight),
        kv_usage=_digits(usage_of(watch.snapshots, since).kv_usage),
        prefix_hits=_digits(watch.prefix_hits(since)),
        calls=len(measured),
        interval=_figure(reached),
    )


def _growing(watch: _Watch, asked: float, full: int) -> tuple[bool, bool]:
    """Tell whether the queue seems to grow in the second half of the time so far, and whether that is certain."""
    if not watch.sent:
        return False, False
    half = len(watch.sent) // 2
    since, now = watch.sent[half], watch.clock()
    completed = sum(since < ended <= now for ended in watch.ended)
    waiting = usage_of(watch.snapshots, since).waiting
    # The first calls of a full engine began together and end late: that says nothing of its capacity.
    if completed < 2 * full or waiting == 0:
        return False, False
    return falls_behind(asked * (now - since), completed, watch.seen[half:], full)


def _window(answers: list[Answer], began: float) -> tuple[list[Answer], float]:
    """Return the answers after the warm-up, at least a tenth of them, and when it ended."""
    first = len(answers) // 10
    first += warm_up([answer.latency for answer in answers[first:]])
    return answers[first:], answers[first - 1].ended if first else began


def _singly(order: Iterator[tuple[int, Group]]) -> Iterator[tuple[int, Call]]:
    return ((lap, call) for lap, group in order for call in group.calls)


def _ttft(answers: list[Answer]) -> Si:
    return Si(np.mean([answer.first - answer.sent for answer in answers]))


def _tpot(answers: list[Answer]) -> Si | None:
    """Return Σ time after the first token ÷ Σ further tokens: latency = ttft + tpot · (output - 1) holds for means."""
    further = sum(answer.output - 1 for answer in answers)
    return (
        Si(sum(answer.ended - answer.first for answer in answers if answer.output > 1) / further) if further else None
    )


def _figure(value: float) -> float:
    """A computed figure to four significant digits, as documents have them."""
    return float(f"{value:.4g}")


def _digits(value: float | None) -> float | None:
    return None if value is None else _figure(value)


def _running(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)


async def _within(work: Coroutine[Any, Any, Any], seconds: float) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return


def _no_failure(watch: _Watch) -> None:
    if watch.failure is not None:
        raise PointFailed(watch.failure)
