"""Runs → series: one per tensor-parallel degree and mix of calls, with a point per concurrency and per rate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from scepsy.documents import Series
from scepsy.documents.profile import Mix, Point, RatePoint, Saturation, TensorParallel
from scepsy.documents.units import Si, format_rate, significant
from scepsy.profiling.importing.benchmark_result import CALLS, PARTS, Result
from scepsy.profiling.importing.json_files import Left
from scepsy.profiling.importing.load_kinds import Closed, Figures, Open, percentiles_of
from scepsy.profiling.measuring.statistics import PRECISION

SAME_MIX = 0.02
"""Runs whose mean numbers of tokens differ by at most this part belong to one mix: lengths are drawn at random."""
KEPT_UP = 0.95
"""A rate was sustained if at least this part of it was completed per second, and the queue was short at the end."""
FELL_BEHIND = 0.9
"""A rate was not sustained if less than this part of it was completed per second, in a run that was long enough."""
LONG = 20
"""A run is long enough to fall behind if it sends for so many latencies of the slowest closed-loop point."""

_T95 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantile of Student's t by degrees of freedom; more are taken for nine."""

Run = TypeVar("Run", Closed, Open)
Key = TypeVar("Key", bound=Hashable)
Member = TypeVar("Member")


@dataclass(frozen=True)
class Origin:
    """What is the same for all runs.

    Attributes:
        tp: the tensor-parallel degree of runs that do not say it.
        share: share of each GPU.
    """

    tp: TensorParallel
    share: float


@dataclass(frozen=True)
class Imported:
    """What runs come to.

    Attributes:
        series: by degree and mix.
        left: runs that are in none of them, and why.
        used: those that are, in the order in which they were given.
        notes: how the numbers were obtained and what limits them, one sentence each.
        thin: descriptions of series with a single closed-loop point.
    """

    series: tuple[Series, ...]
    left: tuple[Left, ...]
    used: tuple[Result, ...]
    notes: tuple[str, ...]
    thin: tuple[str, ...]


def series_of(runs: Sequence[Closed | Open], origin: Origin) -> Imported:
    """Return the series that runs make.

    Runs with one concurrency, or one rate, are pooled, weighted by their calls. A series needs a closed-loop point:
    R(k) cannot be told from open-loop runs.

    Args:
        runs: of one engine with one setting.
        origin: what is the same for all.
    """
    left: list[Left] = []
    made: list[tuple[Series, list[Closed | Open]]] = []
    for tp, of_degree in sorted(_by((run.result.tp or origin.tp, run) for run in runs).items()):
        for group in _mixes(of_degree):
            mix = _mix([run.result for run in group])
            closed = _by((run.concurrency, run) for run in group if isinstance(run, Closed))
            rates = _by((run.rate, run) for run in group if isinstance(run, Open))
            name = f"TP {tp}, {significant(mix.input, 3)}/{significant(mix.output, 3)} tokens"
            if not closed:
                reason = f"no run of these calls ({name}) has so many in flight at all times: R(k) is not known"
                left += [Left(run.result.name, reason, failed=True) for run in group]
                continue
            points = [_point(k, closed_runs, mix) for k, closed_runs in sorted(closed.items())]
            open_loop, undecided = _rates(rates, points, mix)
            left += undecided
            gone = {one.name for one in undecided}
            series = Series(
                tp=tp,  # type: ignore[arg-type]  # checked when the results and options were read
                share=origin.share,
                mix=mix,
                points=tuple(points),
                open_loop=tuple(open_loop),
                saturation=_saturation(open_loop),
            )
            made.append((series, [run for run in group if run.result.name not in gone]))
    kept = {run.result.name: run for _, group in made for run in group}
    used = [run for run in runs if run.result.name in kept]
    return Imported(
        series=tuple(series for series, _ in made),
        left=tuple(left),
        used=tuple(run.result for run in used),
        notes=tuple(_notes(used, origin, [series for series, _ in made])),
        thin=tuple(_thin(series) for series, _ in made if len(series.points) == 1),
    )


def _by(pairs: Iterable[tuple[Key, Member]]) -> dict[Key, list[Member]]:
    found: dict[Key, list[Member]] = defaultdict(list)
    for key, member in pairs:
        found[key].append(member)
    return dict(found)


def _mixes(runs: Sequence[Closed | Open]) -> list[list[Closed | Open]]:
    """Put runs of like calls together: a run joins the mix whose first run it resembles.

    By falling number of calls, so that the means of long runs, which are the surest, are what others are compared with.
    """
    groups: list[list[Closed | Open]] = []
    for run in sorted(runs, key=lambda run: (-run.result.completed, run.result.input, run.result.output)):
        near = (group for group in groups if _alike(group[0].result, run.result))
        group = next(near, None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return sorted(groups, key=lambda group: (group[0].result.input, group[0].result.output))


def _alike(a: Result, b: Result) -> bool:
    pairs = ((a.input, b.input), (a.output, b.output))
    return all(abs(x - y) <= max(SAME_MIX * max(x, y), 0.5) for x, y in pairs)


def _mix(results: Sequence[Result]) -> Mix:
    calls = sum(result.completed for result in results)
    tokens = (
        sum(result.input * result.completed for result in results) / calls,
        sum(result.output * result.completed for result in results) / calls,
    )
    # What the prefix cache held, the benchmark does not know.
    return Mix(input=float(f"{tokens[0]:.4g}"), output=max(1.0, float(f"{tokens[1]:.4g}")))


def _point(k: int, runs: Sequence[Closed], mix: Mix) -> Point:
    pooled = _pooled([run.figures for run in runs])
    return Point(
        concurrency=k,
        latency=Si(pooled.latency),
        ttft=Si(pooled.ttft),
        tpot=_tpot(pooled, mix),
        p50=_seconds(pooled, 50),
        p95=_seconds(pooled, 95),
        p99=_seconds(pooled, 99),
        calls=pooled.count,
        interval=_rounded(pooled.interval),
    )


def _rate_point(rate: float, runs: Sequence[Open], stable: bool, mix: Mix) -> RatePoint:
    pooled = _pooled([run.figures for run in runs])
    results = [run.result for run in runs]
    duration = sum(result.duration for result in results)
    return RatePoint(
        rate=Si(rate),
        completed=Si(sum(result.completed for result in results) / duration),
        stable=stable,
        latency=Si(pooled.latency),
        p50=_seconds(pooled, 50),
        p95=_seconds(pooled, 95),
        p99=_seconds(pooled, 99),
        ttft=Si(pooled.ttft),
        tpot=_tpot(pooled, mix),
        concurrency=float(significant(sum(r.in_flight * r.duration for r in results) / duration)),
        calls=pooled.count,
        interval=_rounded(pooled.interval),
    )


def _pooled(runs: Sequence[Figures]) -> Figures:
    """Put runs together, weighted by their calls.

    Percentiles of several runs need their single calls. The interval is the wider of what the runs say of themselves
    and what three or more of them differ by.
    """
    if len(runs) == 1:
        return runs[0]
    count = sum(run.count for run in runs)
    weights = [run.count / count for run in runs]
    latency = sum(w * run.latency for w, run in zip(weights, runs, strict=True))
    within = [
        None if run.interval is None else w * run.interval * run.latency for w, run in zip(weights, runs, strict=True)
    ]
    widths = []
    if all(width is not None for width in within):
        widths.append(math.hypot(*(width for width in within if width is not None)) / latency)
    if len(runs) > 2:
        quantile = _T95[min(len(runs) - 1, max(_T95))]
        spread = float(np.std([run.latency for run in runs], ddof=1))
        widths.append(quantile * spread / math.sqrt(len(runs)) / latency)
    known = [run.calls for run in runs if run.calls is not None]
    calls = np.concatenate(known) if len(known) == len(runs) else None
    return Figures(
        latency,
        sum(w * run.ttft for w, run in zip(weights, runs, strict=True)),
        percentiles_of(calls) if calls is not None else {},
        count,
        max(widths) if widths else None,
        calls,
    )


def _tpot(figures: Figures, mix: Mix) -> float | None:
    """Return the time per further token as a ratio of means, so that latency = ttft + tpot · (output − 1)."""
    return Si((figures.latency - figures.ttft) / (mix.output - 1)) if mix.output > 1.5 else None


def _seconds(figures: Figures, percentile: int) -> float | None:
    value = figures.percentiles.get(percentile)
    return None if value is None else Si(value)


def _rounded(interval: float | None) -> float | None:
    return None if interval is None else float(f"{interval:.3g}")


def _rates(rates: dict[float, list[Open]], points: Sequence[Point], mix: Mix) -> tuple[list[RatePoint], list[Left]]:
    """Return the open-loop points, and the runs of which it cannot be said whether the rate was sustained."""
    slowest = max(point.latency for point in points)
    found: list[RatePoint] = []
    left: list[Left] = []
    for rate, runs in sorted(rates.items()):
        verdicts = {sustained(run.result, rate, slowest) for run in runs}
        if len(verdicts) == 1 and None not in verdicts:
            found.append(_rate_point(rate, runs, bool(verdicts.pop()), mix))
        else:
            done = " and ".join(format_rate(run.result.throughput) for run in runs)
            reason = (
                f"{done} of {format_rate(rate)} were completed: not known whether the rate was sustained; "
                "the run is too short (--num-prompts)"
            )
            left += [Left(run.result.name, reason, failed=True) for run in runs]
    return found, left


def sustained(result: Result, rate: float, slowest: float) -> bool | None:
    """Tell whether calls were completed as fast as they came; None if a run cannot tell.

    A run sends for calls ÷ rate seconds, and then waits for those that are left. Where a queue grows, it waits for the
    queue; otherwise about as long as a call takes.

    Args:
        result: the run.
        rate: calls per second that came.
        slowest: seconds, the largest R(k) that was measured.
    """
    sent = result.completed / rate
    after = result.duration - sent
    if result.throughput >= KEPT_UP * rate:
        # Even a rate slightly above capacity is completed to 95 %: then the wait at the end grows with the run.
        return True if after <= 2 * slowest else None
    return False if result.throughput < FELL_BEHIND * rate and sent >= LONG * slowest else None


def _saturation(points: Sequence[RatePoint]) -> Saturation | None:
    """Return between which rates saturation lies, where runs on both sides of it say so."""
    high = min((point.rate for point in points if not point.stable), default=None)
    low = max((point.rate for point in points if point.stable and (high is None or point.rate < high)), default=None)
    # A single low rate that was sustained says nothing of where the end is.
    return Saturation(low=Si(low), high=Si(high)) if low is not None and high is not None else None


def _thin(series: Series) -> str:
    k = series.points[0].concurrency
    mix = f"{significant(series.mix.input, 3)}/{significant(series.mix.output, 3)} tokens"
    return f"TP {series.tp}, {mix}: R(k) is known at k = {k} only, so an instance will be given {k} at a time"


def _notes(runs: Sequence[Closed | Open], origin: Origin, series: Sequence[Series]) -> Iterable[str]:
    if not runs:
        return
    results = [run.result for run in runs]
    yield (
        "Imported, not measured by Scepsy. R(k): runs with --max-concurrency k; open loop: runs with a rate, each call "
        "by itself. Runs with the same k or rate are pooled, weighted by their calls."
    )
    by_calls = sum(result.source == CALLS for result in results)
    if by_calls:
        yield (
            f"{_of(by_calls, results)} hold their single calls: the warm-up (MSER-5, at least one round of k) and the "
            "last round are left out."
        )
    no_ttft = sum(result.calls is not None and result.calls.ttft is None for result in results)
    if no_ttft:
        yield f"The time to the first token in {_of(no_ttft, results).lower()} is that of the whole run."
    if by_calls < len(results):
        yield f"{_of(len(results) - by_calls, results)} hold means only, those of the whole run with its ends."
    by_parts = sum(result.source == PARTS for result in results)
    if by_parts:
        yield (
            f"{_of(by_parts, results)} do not hold latencies: they are TTFT + TPOT x (output - 1), which is exact only "
            "if all calls generate alike."
        )
    if any(isinstance(run, Open) and run.replayed for run in runs):
        yield "Rates of replayed traces are means; calls came at their recorded times."
    intervals = [point.interval for one in series for point in one.points]
    intervals += [point.interval for one in series for point in one.open_loop]
    wide = [width for width in intervals if width is not None and width > PRECISION]
    if wide:
        yield (
            f"The 95 % interval of the mean is wider than {PRECISION:.0%} at {len(wide)} of {len(intervals)} points, "
            f"at most {max(wide):.0%}."
        )
    if None in intervals:
        yield "Points without an interval: means alone do not show their accuracy."
    if all(result.tp is None for result in results):
        yield f"The results do not say the tensor-parallel degree; {origin.tp} was stated when they were imported."
    yield (
        "How many prompt tokens came from the prefix cache is not known and counted as none: random prompts of "
        "repeated runs may be in it."
    )


def _of(part: int, results: Sequence[Result]) -> str:
    whole = len(results)
    return f"{'All' if part == whole else part} of {whole} results"
