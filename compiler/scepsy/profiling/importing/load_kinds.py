"""What a run measured: R(k) with k calls in flight, calls at a rate, or nothing that a profile can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scepsy.documents.units import format_rate, significant
from scepsy.performance.curves import Array
from scepsy.profiling.importing.benchmark_result import PARTS, Result
from scepsy.profiling.measuring.statistics import interval, mean_in_flight, warm_up

LEAST_ROUNDS = 3
"""A closed loop has at least so many calls for each that runs at a time: the first begin together, the last run beside
fewer and fewer."""
FULL = 0.9
"""Least mean number of calls in flight, as a part of `max_concurrency`, with which so many ran all the time."""
MOST = 1.1
"""Most of them; more than `max_concurrency` cannot run, by Little's law, but for what is rounded."""


@dataclass(frozen=True)
class Figures:
    """What is left of a run without its ends.

    Attributes:
        latency: mean, seconds.
        ttft: mean, seconds.
        percentiles: of the latency, by their number; those that are known.
        count: calls.
        interval: half the width of the 95 % interval of the mean ÷ the mean; None if the single calls are not known.
        calls: (count,) latencies in the order in which they began; None if they are not known.
    """

    latency: float
    ttft: float
    percentiles: dict[int, float]
    count: int
    interval: float | None
    calls: Array | None


@dataclass(frozen=True)
class Closed:
    """So many calls in flight at all times.

    Attributes:
        result: the run.
        concurrency: k.
        figures: what was measured.
    """

    result: Result
    concurrency: int
    figures: Figures


@dataclass(frozen=True)
class Open:
    """Calls arriving at a rate.

    Attributes:
        result: the run.
        rate: calls per second.
        figures: what was measured.
        replayed: whether they came at recorded times; else at Poisson times.
    """

    result: Result
    rate: float
    figures: Figures
    replayed: bool


def kind_of(result: Result, *, self_timed: bool = False) -> Closed | Open | str:
    """Return what a run measured, or why it is no measurement of either kind.

    Args:
        result: the run.
        self_timed: whether runs without a rate and without a limit replayed a trace at its own times; the result does
            not say that.
    """
    if result.probed:
        return "probe requests ran beside the measured ones (--probe-request-rate)"
    if result.ramp:
        return "the rate rose during the run (--ramp-up-strategy): not a steady state"
    cap = result.cap
    if cap is not None and result.in_flight > MOST * cap:
        return (
            f"on average {significant(result.in_flight, 3)} calls would have run, of {cap} at most at a time: its "
            "throughput, its mean latency and its limit contradict each other"
        )
    if cap == 1:
        # One call at a time is R(1), however they arrive: the client holds the others back.
        return Closed(result, 1, _closed(result, 1))
    if math.isinf(result.rate):
        if cap is not None:
            return _closed_or_not(result, cap)
        return _replayed(result) if self_timed else _BURST
    if cap is not None and result.completed > cap:
        return (
            f"both a rate ({format_rate(result.rate)}) and a limit ({cap} at a time): neither so many calls run at all "
            "times nor do they arrive at that rate; give one of them"
        )
    if abs(result.burstiness - 1) > 1e-9:
        return f"arrivals with burstiness {significant(result.burstiness, 3)} are not Poisson arrivals"
    if not _LEAST_RATE <= result.rate <= _MOST_RATE:
        return "the rate is out of range"
    return Open(result, result.rate, _open(result), replayed=False)


_LEAST_RATE, _MOST_RATE = 1e-6, 1e6
_BURST = (
    "all requests were sent at once (no --request-rate, no --max-concurrency): a burst is not a steady state. If a "
    "trace was replayed at the recorded times, use --self-timed"
)


def _closed_or_not(result: Result, k: int) -> Closed | str:
    if result.completed < LEAST_ROUNDS * k:
        return (
            f"{result.completed} requests with {k} at a time: they begin and end together. "
            f"At least {LEAST_ROUNDS * k} are needed, better {10 * k} (--num-prompts)"
        )
    busy = _busy(result, k)
    if busy < FULL * k:
        return (
            f"on average {significant(busy, 3)} calls ran, not {k}: the run is too short (--num-prompts), the client "
            "too slow, or calls came at recorded times"
        )
    return Closed(result, k, _closed(result, k))


def _busy(result: Result, k: int) -> float:
    """Return the mean number of calls in flight: until the last was sent where that is known, else over the run."""
    calls = result.calls
    if calls is None or calls.start is None:
        return result.in_flight
    begin, end = float(calls.start[k - 1]), float(calls.start[-1])
    return (
        mean_in_flight(calls.start.tolist(), (calls.start + calls.latency).tolist(), begin, end) if end > begin else 0
    )


def _closed(result: Result, k: int) -> Figures:
    """Leave out the calls of the last round, which run beside fewer and fewer, and of the warm-up: at least a round."""
    calls = result.calls
    if calls is None or result.completed < LEAST_ROUNDS * k:
        return _whole(result)
    last = len(calls.latency) - (k if k > 1 else 0)
    first = min(max(k if k > 1 else 0, warm_up(calls.latency[:last])), last - 1)
    return _part(result, slice(first, last))


def _open(result: Result) -> Figures:
    calls = result.calls
    return _whole(result) if calls is None else _part(result, slice(warm_up(calls.latency), None))


def _whole(result: Result) -> Figures:
    return Figures(result.latency, result.ttft, dict(result.percentiles), result.completed, None, None)


def _part(result: Result, kept: slice) -> Figures:
    calls = result.calls
    assert calls is not None  # noqa: S101 - the callers know
    latency = calls.latency[kept]
    mean = float(latency.mean())
    # Where only the whole run's time to the first token is known, it may be longer than a call without the warm-up.
    ttft = float(calls.ttft[kept].mean()) if calls.ttft is not None else min(result.ttft, mean)
    width = interval(latency)
    return Figures(
        mean,
        ttft,
        percentiles_of(latency),
        len(latency),
        width if math.isfinite(width) else None,
        latency,
    )


def percentiles_of(latency: Array) -> dict[int, float]:
    """Return the percentiles that a point holds.

    Args:
        latency: (N,) seconds, at least one.
    """
    return dict(zip((50, 95, 99), map(float, np.percentile(latency, (50, 95, 99))), strict=True))


def _replayed(result: Result) -> Open | str:
    calls = result.calls
    if calls is None or calls.start is None or result.source == PARTS:
        return "replayed at the recorded times, but the times are not in the result: run it with --save-detailed"
    begun = float(calls.start[-1] - calls.start[0])
    # A burst also has times: those at which the client came to send.
    if len(calls.start) < 2 or begun < 2 * result.latency:
        return "all requests were sent within two mean latencies: that is a burst, whether it was recorded or not"
    rate = (len(calls.start) - 1) / begun
    if not _LEAST_RATE <= rate <= _MOST_RATE:
        return "the rate is out of range"
    return Open(result, rate, _open(result), replayed=True)
