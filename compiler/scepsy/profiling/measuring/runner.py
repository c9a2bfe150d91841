"""A whole measurement: which points, in which order, with what time, and what is done when one fails."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from scepsy.documents.profile import Mix, Neighbours, Point, RatePoint, Saturation, Series, TensorParallel
from scepsy.documents.units import Si, format_duration, significant
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.journal import Closed, Entry, Journal, Open
from scepsy.profiling.measuring.load_generators import PointFailed, Server, Time, closed_loop, open_loop, settle
from scepsy.profiling.measuring.next_point import BRACKET, bracket, next_concurrency, next_rate
from scepsy.profiling.measuring.statistics import PRECISION
from scepsy.profiling.measuring.vllm_client import CallFailed
from scepsy.profiling.measuring.workload import Prompts, Workload, endless, poisson

P = TypeVar("P", Point, RatePoint)

_RATES = 6
"""About so many rates bracket saturation: time is kept for them."""
_SEED = "scepsy"


class NoGoodPoint(ScepsyError):
    """Nothing was measured that could be reported."""


class Measurable(Server, Protocol):
    """What a measurement needs of a server, besides answers."""

    async def healthy(self) -> str | None:
        """Return None if it works, else what is wrong."""

    async def forget_prefixes(self) -> bool:
        """Empty the prefix cache; return whether that was possible."""


@dataclass(frozen=True)
class Scope:
    """What is measured of a server.

    Attributes:
        workload: the calls that are replayed.
        vocabulary: number of token ids of the model.
        most: largest concurrency, the engine's `--max-num-seqs`.
        budget: seconds for all points together.
    """

    workload: Workload
    vocabulary: int
    most: int
    budget: float


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        points: the closed loop, rising concurrency.
        rates: the open loop, rising rate.
        saturation: the bracket; None if no rate was sustained.
        cached: mean tokens per call that the prefix cache held.
        notes: the method, and what was left out, in sentences.
    """

    points: tuple[Point, ...]
    rates: tuple[RatePoint, ...]
    saturation: Saturation | None
    cached: float
    notes: str


Say = Callable[[str], None]


def next_step(entries: Sequence[Entry], most: int) -> int | float | None:
    """Return the next concurrency (an int) or rate (a float) to measure; None when all is measured.

    Args:
        entries: what was tried so far.
        most: largest concurrency.
    """
    closed = {
        e.concurrency: e.concurrency / e.point.latency if e.point else None for e in entries if isinstance(e, Closed)
    }
    last = [e.point for e in entries if isinstance(e, Closed)][-1:]
    sure = not last or last[0] is None or (last[0].interval or 0.0) <= 2 * PRECISION
    concurrency = next_concurrency(closed, most, sure)
    if concurrency is not None:
        return concurrency
    expected = max((x for x in closed.values() if x is not None), default=None)
    return None if expected is None else next_rate(_outcomes(entries), expected)


def _outcomes(entries: Sequence[Entry]) -> dict[float, bool | None]:
    """Return what is known of the rates that were asked for."""
    return {e.rate: e.point.stable if e.point else None for e in entries if isinstance(e, Open)}


def time_for(step: float, entries: Sequence[Entry], scope: Scope) -> Time:
    """Return how long the next point may take: what is left of the budget, in equal parts for the points to come."""
    left = scope.budget - sum(entry.seconds for entry in entries)
    rates = sum(isinstance(entry, Open) for entry in entries)
    to_come = max(1, _RATES - rates)
    if isinstance(step, int):
        to_come += 1 + math.ceil(math.log2(scope.most / step))
    return Time(left / to_come, left)


async def measure(
    server: Measurable,
    scope: Scope,
    journal: Journal,
    say: Say,
    status: Say,
    check: Callable[[], None] = lambda: None,
) -> Measured:
    """Measure what the journal does not have yet.

    Args:
        server: the server, which is healthy.
        scope: what to measure.
        journal: where complete points are kept.
        say: told of every point that is complete.
        status: told what is being done.
        check: asked before a point is kept; raises if what was just measured is not what was asked for.

    Raises:
        NoGoodPoint: all that was tried failed.
        ScepsyError: the server died.
    """
    resets = True
    for entry in journal.entries:
        say(f"{_told(entry)} (from the journal)")
    while (step := next_step(journal.entries, scope.most)) is not None:
        time = time_for(step, journal.entries, scope)
        if time.most <= 0:
            break
        status(f"measuring {_name(step)}, up to {format_duration(round(time.enough, 1))}")
        entry, reset = await _attempt(server, scope, step, journal.entries, time, say)
        resets = resets and reset
        check()
        journal.add(entry)
        say(_told(journal.entries[-1]))
    return result(journal.entries, scope, resets)


async def _attempt(
    server: Measurable, scope: Scope, step: float, entries: Sequence[Entry], time: Time, say: Say
) -> tuple[Entry, bool]:
    """Measure one point, once more if it failed; return it, and whether the prefix cache was emptied before."""
    clock = asyncio.get_running_loop().time
    began = clock()
    reason, reset = "", True
    for attempt in (0, 1):
        await settle(server)
        reset = await server.forget_prefixes() and reset
        left = Time(time.enough, time.most - (clock() - began))
        seed = f"{_SEED} {step!r} {attempt}"
        try:
            if isinstance(step, int):
                point = await _closed(server, scope, step, entries, seed, left)
                return Closed(step, point, "", clock() - began), reset
            rate_point = await _open(server, scope, step, entries, seed, left)
            return Open(step, rate_point, "", clock() - began), reset
        except PointFailed as error:
            reason = str(error)
        await _still_healthy(server, reason)
        if clock() - began >= time.most:
            break
        if attempt == 0:
            say(f"{_name(step)}: {reason}; trying once more")
    seconds = clock() - began
    return Closed(step, None, reason, seconds) if isinstance(step, int) else Open(step, None, reason, seconds), reset


async def _closed(server: Measurable, scope: Scope, k: int, entries: Sequence[Entry], seed: str, time: Time) -> Point:
    before = [e.point for e in entries if isinstance(e, Closed) and e.point]
    spread = before[-1].latency if before else 0.0
    work = scope.workload
    # k calls are in flight: as many executions as bring them, each of the recorded length.
    rate = k / work.mean_group * len(work.groups) / len(work.executions) / work.span
    order = endless(work, _SEED, rate)
    return await closed_loop(server, order, Prompts(scope.vocabulary, work.block, seed), k, spread, time)


async def _open(
    server: Measurable, scope: Scope, rate: float, entries: Sequence[Entry], seed: str, time: Time
) -> RatePoint:
    work = scope.workload
    groups = rate / work.mean_group
    order, prompts = endless(work, seed, groups), Prompts(scope.vocabulary, work.block, seed)
    return await open_loop(server, order, prompts, poisson(seed, groups), rate, _full(entries), time)


def _full(entries: Sequence[Entry]) -> int:
    """Return the fewest calls in flight with which throughput is, within its precision, highest."""
    points = [e.point for e in entries if isinstance(e, Closed) and e.point]
    best = max(point.concurrency / point.latency for point in points)
    return min(p.concurrency for p in points if p.concurrency / p.latency > (1 - PRECISION) * best)


async def _still_healthy(server: Measurable, reason: str) -> None:
    """Give a server that just failed a call a moment, because one that dies first drops its connections.

    Raises:
        ScepsyError: it is not healthy.
    """
    for _ in range(5):
        problem = await server.healthy()
        if problem is not None:
            raise ScepsyError(
                f"the server died: {problem} (a call before: {reason})",
                "restart it, then re-run the command: it continues after the last complete point",
            )
        await asyncio.sleep(0.1)


async def rehearse(server: Measurable, scope: Scope) -> None:
    """Have the longest call answered, and as many as may run at once: engines compile and capture on first use.

    Raises:
        ScepsyError: the calls are not answered as asked for.
    """
    longest = max(scope.workload.calls, key=lambda call: call.input + call.output)
    shortest = min(scope.workload.calls, key=lambda call: call.input + call.output)
    prompts = Prompts(scope.vocabulary, scope.workload.block, f"{_SEED} rehearsal")
    for last in (False, False, True):
        try:
            await server.call(prompts.next(longest, 0), longest.output)
            break
        except CallFailed as error:
            await _still_healthy(server, str(error))
            if last:
                raise ScepsyError(f"the longest call of the trace fails: {error}") from error
    # Single calls may fail by chance; points decide over that.
    burst = [server.call(prompts.next(shortest, 0), shortest.output) for _ in range(scope.most)]
    await asyncio.gather(*burst, return_exceptions=True)


def result(entries: Sequence[Entry], scope: Scope, resets: bool) -> Measured:
    """Return what points come to.

    Args:
        entries: all points that were tried.
        scope: what was measured.
        resets: whether the prefix cache was emptied before every point.

    Raises:
        NoGoodPoint: no closed-loop point is good.
    """
    points = tuple(e.point for e in entries if isinstance(e, Closed) and e.point)
    if not points:
        reasons = "; ".join(_told(entry) for entry in entries)
        raise NoGoodPoint(f"no point is good: {reasons or 'the budget was too small for a single one'}")
    rates = {e.point.rate: e.point for e in entries if isinstance(e, Open) and e.point}
    low, high = bracket(_outcomes(entries))
    saturation = None if low is None else Saturation(low=Si(low), high=None if high is None else Si(high))
    hits = [point.prefix_hits for point in points] + [point.prefix_hits for point in rates.values()]
    known = [share for share in hits if share is not None]
    cached = sum(known) / len(known) * scope.workload.mean_input if known else 0.0
    notes = " ".join(_notes(entries, scope, resets, bool(known)))
    return Measured(points, tuple(rates[rate] for rate in sorted(rates)), saturation, float(f"{cached:.4g}"), notes)


def series_of(
    measured: Measured, workload: Workload, tp: TensorParallel, share: float, neighbours: Neighbours = "idle"
) -> Series:
    """Return the part of a Profile that a measurement is."""
    mix = Mix(
        input=float(f"{workload.mean_input:.4g}"),
        output=float(f"{workload.mean_output:.4g}"),
        cached=min(measured.cached, workload.mean_input),
    )
    return Series(
        tp=tp,
        share=share,
        neighbours="busy" if neighbours == "busy" else None,
        mix=mix,
        points=measured.points,
        open_loop=measured.rates,
        saturation=measured.saturation,
    )


def _notes(entries: Sequence[Entry], scope: Scope, resets: bool, hits_known: bool) -> Iterator[str]:
    """Yield the method and what limits the figures, one sentence each."""
    work = scope.workload
    yield (
        "Closed loop of k recorded calls in flight, then groups of them at Poisson times; prompts are random tokens of "
        "the recorded lengths."
    )
    if work.shares_prefixes:
        yield f"Prompts begin alike as recorded, {significant(work.block, 3)} tokens per prefix hash (estimated)."
    elif work.cached >= 1:
        yield (
            f"The trace has no prefix hashes: the {significant(work.cached, 3)} tokens per call that were cached when "
            "it was recorded were computed here."
        )
    if not resets:
        yield "The prefix cache could not be emptied between points; every point had different prompts."
    if not hits_known and work.shares_prefixes:
        yield "How many prompt tokens were cached is unknown and counted as none."
    good = [entry for entry in entries if entry.point is not None]
    wide = [entry for entry in good if entry.point and entry.point.interval and entry.point.interval > PRECISION]
    if wide:
        names = ", ".join(_name(_at(entry)) for entry in wide)
        yield f"The 95 % interval of the mean is wider than {PRECISION:.0%} at {names}."
    for entry in entries:
        if entry.point is None:
            yield f"Left out: {_told(entry)}."
    step = next_step(entries, scope.most)
    if step is not None:
        yield f"The budget of {format_duration(scope.budget)} ended before {_name(step)}."
    elif any(isinstance(entry, Open) for entry in entries):
        yield f"Saturation is bracketed by bisection until its ends are within {BRACKET - 1:.0%}."


def _told(entry: Entry) -> str:
    """Say in one line what came out of a point."""
    name = _name(_at(entry))
    point = entry.point
    if point is None:
        return f"{name}: failed: {entry.reason}"
    text = f"{name}: {format_duration(point.latency)} ±{point.interval or 0:.1%}, {point.calls} calls"
    if isinstance(point, RatePoint):
        return text + ("" if point.stable else ", not sustained")
    return text + f", {significant(point.concurrency / point.latency, 3)} calls/s"


def _at(entry: Entry) -> float:
    return entry.concurrency if isinstance(entry, Closed) else entry.rate


def _name(step: float) -> str:
    return f"{step} in flight" if isinstance(step, int) else f"{significant(step, 3)} calls/s"
