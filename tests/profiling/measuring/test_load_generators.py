"""What is measured of an engine whose figures are known, in virtual time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tests.profiling.measuring.simulated_engine import Behaviour, Simulated, virtually

from scepsy.documents.profile import Point, RatePoint
from scepsy.errors import ScepsyError
from scepsy.performance import Stream, latencies
from scepsy.performance.queueing import rounds
from scepsy.profiling.measuring.failures import TryAgain
from scepsy.profiling.measuring.journal import Closed, Journal, Open
from scepsy.profiling.measuring.load_generators import PointFailed, Time, closed_loop, open_loop
from scepsy.profiling.measuring.runner import Measured, Scope, measure, series_of
from scepsy.profiling.measuring.vllm_client import Answer, CallFailed
from scepsy.profiling.measuring.workload import Call, Group, Prompts, Workload, endless, poisson

LONG = Time(100, 200)


def workload(group: int = 1, spread: int = 4, prefix: bool = False) -> Workload:
    """Return calls of 8 ± `spread` output tokens, three groups per execution."""
    chance = random.Random(5)

    def call(e: int) -> Call:
        return Call(64, 8 + chance.randint(-spread, spread), (f"{e}",) if prefix else ())

    groups = [[Group(tuple(call(e) for _ in range(group)), float(g)) for g in range(3)] for e in range(80)]
    return Workload(tuple(map(tuple, groups)), 2.0, 32, 0)


def closed(does: Behaviour, k: int, work: Workload | None = None, time: Time = LONG) -> Point:
    work = work or workload()

    async def run() -> Point:
        prompts = Prompts(50_000, work.block, "s")
        return await closed_loop(Simulated(does), endless(work, "s", 1.0), prompts, k, does.base, time)

    return virtually(run())


def opened(does: Behaviour, rate: float, work: Workload | None = None, time: Time = LONG) -> RatePoint:
    work = work or workload()

    async def run() -> RatePoint:
        groups = rate / work.mean_group
        order, prompts = endless(work, "s", groups), Prompts(50_000, work.block, "s")
        return await open_loop(Simulated(does), order, prompts, poisson("s", groups), rate, does.limit, time)

    return virtually(run())


def measured(
    does: Behaviour, path: Path, most: int = 16, budget: float = 300, work: Workload | None = None
) -> tuple[Measured, list[str]]:
    said: list[str] = []

    async def run() -> Measured:
        journal = Journal(path / "journal", {}, "2026-01-01")
        scope = Scope(work or workload(), 50_000, most, budget)
        return await measure(Simulated(does), scope, journal, said.append, lambda _: None)

    return virtually(run()), said


# Closed loop


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16])
def test_the_curve_is_that_of_the_engine(k: int) -> None:
    does = Behaviour()
    point = closed(does, k)
    assert point.latency == pytest.approx(does.seconds(k) * workload().mean_output / 8, rel=0.05)
    assert point.interval is not None
    assert point.interval <= 0.05


def test_latency_is_the_first_token_and_all_further_ones() -> None:
    point = closed(Behaviour(), 4, workload(spread=0))
    assert point.tpot is not None
    assert point.latency == pytest.approx(point.ttft + 7 * point.tpot, rel=1e-6)
    assert point.ttft == pytest.approx(point.latency / 8, rel=0.05)


def test_calls_of_one_token_have_no_time_per_further_token() -> None:
    one = Workload(((Group((Call(64, 1),), 0.0),),), 1.0, 32, 0)
    assert closed(Behaviour(mean_output=1.0), 2, one).tpot is None


def test_an_engine_that_is_slow_at_first_is_measured_after_that() -> None:
    does = Behaviour(slow_calls=12)
    assert closed(does, 4).latency == pytest.approx(closed(Behaviour(), 4).latency, rel=0.05)
    assert opened(does, 60).latency == pytest.approx(opened(Behaviour(), 60).latency, rel=0.07)


def test_a_point_ends_with_its_time_and_says_how_sure_it_is() -> None:
    point = closed(Behaviour(), 1, workload(spread=7), Time(1.2, 3600))
    assert point.interval is not None
    assert point.interval > 0.05
    assert point.calls is not None
    assert point.calls < 40


def test_without_time_for_a_few_calls_there_is_no_point() -> None:
    with pytest.raises(PointFailed, match=r"only \d calls ended within 1 s"):
        closed(Behaviour(base=0.3), 1, None, Time(0.5, 1))


def test_a_failed_call_fails_the_point() -> None:
    with pytest.raises(PointFailed, match="HTTP 500: by chance"):
        closed(Behaviour(failing=0.05), 4)
    with pytest.raises(PointFailed, match="HTTP 500: by chance"):
        opened(Behaviour(failing=0.05), 60)


# Open loop


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_latency_of_random_arrivals_is_that_of_the_queue(load: float) -> None:
    does = Behaviour()
    work = workload()
    point = opened(does, load * does.capacity)
    assert point.stable
    assert point.rate == pytest.approx(point.completed, rel=0.05)
    assert point.concurrency == pytest.approx(point.completed * point.latency, rel=0.05)
    assert point.latency == pytest.approx(predicted(does, work, point.rate), rel=0.05 + point.interval)
    assert point.p50 < point.latency < point.p95 < point.p99


def test_groups_arrive_together() -> None:
    does = Behaviour()
    rate = 0.5 * does.capacity
    alone, together = opened(does, rate, workload(1)), opened(does, rate, workload(4))
    assert together.latency > 1.2 * alone.latency


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize(("load", "stable"), [(0.5, True), (0.9, True), (1.1, False), (1.5, False), (4.0, False)])
def test_a_queue_that_grows_is_seen(load: float, stable: bool, metrics: bool) -> None:
    does = Behaviour(metrics=metrics)
    point = opened(does, load * does.capacity)
    assert point.stable == stable
    assert (point.kv_usage is not None) == metrics


def test_a_server_that_says_nobody_waits_has_no_queue() -> None:
    class Idle(Simulated):
        """Takes any number of calls at once, and each makes all slower."""

    async def run() -> RatePoint:
        work = workload()
        does = Behaviour(limit=64)
        order, prompts = endless(work, "s", 60.0), Prompts(50_000, work.block, "s")
        return await open_loop(Idle(does), order, prompts, poisson("s", 60.0), 60.0, 1, LONG)

    assert virtually(run()).stable


def test_shared_prefixes_hit_and_others_do_not() -> None:
    alike, others = closed(Behaviour(), 4, workload(prefix=True)), closed(Behaviour(), 4, workload())
    # Of 64 tokens 32 are those of the execution, and the first of its three calls meets nobody's.
    assert alike.prefix_hits == pytest.approx(0.5 * 2 / 3, rel=0.1)
    assert others.prefix_hits == 0


def predicted(does: Behaviour, work: Workload, rate: float) -> float:
    """Return the mean latency of single calls in the queue that the engine is."""
    seconds = np.array([[does.seconds(k)] for k in range(1, does.limit + 1)]) * work.mean_output / 8
    one, limit = np.array([1]), np.array([does.limit])
    (latency,), _, _ = latencies([Stream(seconds, one, np.array([rate]), rounds(seconds, one, limit))])
    return float(latency[0])


# All of it


@pytest.mark.parametrize(
    "does",
    [Behaviour(), Behaviour(base=2.0, slope=0.05, limit=32), Behaviour(metrics=False, resets=False)],
    ids=["quick", "slow", "silent"],
)
def test_saturation_is_bracketed(does: Behaviour, tmp_path: Path) -> None:
    found, _ = measured(does, tmp_path, 2 * does.limit, 7500 * does.base)
    work = workload()
    capacity = does.capacity * 8 / work.mean_output
    assert [point.concurrency for point in found.points] == [2**i for i in range(len(found.points))]
    assert found.saturation is not None
    assert found.saturation.high is not None
    assert found.saturation.low <= 1.05 * capacity
    assert found.saturation.high >= 0.90 * capacity
    assert found.saturation.high <= 1.101 * found.saturation.low
    assert len(found.rates) <= 7
    assert ("could not be emptied" in found.notes) != does.resets


def test_the_curve_of_a_whole_measurement_predicts_what_was_not_measured(tmp_path: Path) -> None:
    does, work = Behaviour(), workload()
    found, _ = measured(does, tmp_path)
    series = series_of(found, work, 1, 1.0)
    ks = [point.concurrency for point in series.points]
    seconds = np.interp(range(1, 9), ks, [point.latency for point in series.points])[:, None]
    one, limit = np.array([1]), np.array([8])
    for load in (0.25, 0.45, 0.7):
        rate = load * does.capacity
        (latency,), _, _ = latencies([Stream(seconds, one, np.array([rate]), rounds(seconds, one, limit))])
        assert float(latency[0]) == pytest.approx(predicted(does, work, rate), rel=0.05)


def test_equal_measurements_give_equal_figures(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert measured(Behaviour(), one, 4, 60)[0] == measured(Behaviour(), other, 4, 60)[0]


def test_the_budget_ends_the_measurement_and_the_notes_say_before_what(tmp_path: Path) -> None:
    found, _ = measured(Behaviour(base=1.0), tmp_path, 16, 60)
    assert len(found.points) >= 1
    assert "The budget of 60s ended before" in found.notes or "is wider than 5%" in found.notes


class Stumbling(Simulated):
    """Fails one of the calls in every point whose number is listed; points begin with a reset."""

    stumbles: tuple[int, ...] = ()

    async def call(self, prompt: list[int], output: int) -> Answer:
        if self.resets in self.stumbles:
            raise CallFailed("HTTP 500: stumbled")
        return await super().call(prompt, output)


def test_a_point_that_is_not_what_was_asked_for_is_not_kept(tmp_path: Path) -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(len(journal.entries))
        if len(asked) == 3:
            raise TryAgain("the neighbour was killed")

    journal = Journal(tmp_path / "journal", {}, "2026-01-01")

    async def run() -> Measured:
        scope = Scope(workload(), 50_000, 8, 60)
        return await measure(Simulated(Behaviour()), scope, journal, lambda _: None, lambda _: None, check)

    with pytest.raises(TryAgain):
        virtually(run())
    assert asked == [0, 1, 2]
    assert (tmp_path / "journal").read_text().count('{"closed"') == len(journal.entries) == 2


def stumbling(stumbles: tuple[int, ...], path: Path) -> tuple[Measured, list[str]]:
    said: list[str] = []

    async def run() -> Measured:
        server = Stumbling(Behaviour())
        server.stumbles = stumbles
        journal = Journal(path / "journal", {}, "2026-01-01")
        return await measure(server, Scope(workload(), 50_000, 4, 60), journal, said.append, lambda _: None)

    return virtually(run()), said


def test_a_point_that_failed_is_tried_once_more(tmp_path: Path) -> None:
    found, said = stumbling((2,), tmp_path)
    assert [point.concurrency for point in found.points] == [1, 2, 4]
    assert "2 in flight: HTTP 500: stumbled; trying once more" in said
    assert "Left out" not in found.notes


def test_a_point_that_failed_twice_is_left_out_and_noted(tmp_path: Path) -> None:
    found, said = stumbling((2, 3), tmp_path)
    assert [point.concurrency for point in found.points] == [1, 4]
    assert "2 in flight: failed: HTTP 500: stumbled" in said
    assert "Left out: 2 in flight: failed: HTTP 500: stumbled." in found.notes


def test_without_a_good_point_there_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ScepsyError, match="no point is good: 1 in flight: failed: HTTP 500: stumbled; 2 in flight"):
        stumbling(tuple(range(20)), tmp_path)


def test_a_measurement_that_is_interrupted_goes_on_after_the_last_complete_point(tmp_path: Path) -> None:
    whole, _ = measured(Behaviour(), _made(tmp_path / "whole"), 8, 40)
    lines = (tmp_path / "whole" / "journal").read_bytes().splitlines(keepends=True)
    for kept in (1, 3, len(lines) - 1, len(lines)):
        directory = _made(tmp_path / f"{kept}")
        # A line that is cut off was not complete.
        (directory / "journal").write_bytes(b"".join(lines[:kept]) + b"".join(lines[kept : kept + 1])[:20])
        again, said = measured(Behaviour(), directory, 8, 40)
        assert sum("from the journal" in line for line in said) == kept - 1
        assert [p.concurrency for p in again.points] == [p.concurrency for p in whole.points]
        assert again.points[: kept - 1] == whole.points[: kept - 1]


def test_a_journal_of_other_arguments_is_refused_and_says_which(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml.partial"
    Journal(path, {"tp": 1, "llm": "a"}, "2026-01-01").close()
    with pytest.raises(ScepsyError, match="other arguments: tp was 1 and is 2") as error:
        Journal(path, {"tp": 2, "llm": "a"}, "2026-01-02")
    assert "delete it to start over" in error.value.hint
    assert Journal(path, {"tp": 1, "llm": "a"}, "2026-01-02").date == "2026-01-01"


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml.partial"
    path.write_text("kind: Profile\n")
    with pytest.raises(ScepsyError, match="is no journal"):
        Journal(path, {}, "2026-01-01")
    assert path.read_text() == "kind: Profile\n"


def test_entries_come_back_as_they_were_added(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, {}, "2026-01-01")
    point = closed(Behaviour(), 2)
    journal.add(Closed(2, point, "", 1.25))
    journal.add(Open(3.5, None, "HTTP 500", 0.5))
    journal.close()
    assert Journal(path, {}, "2026-01-01").entries == journal.entries
    assert journal.entries[1] == Open(3.5, None, "HTTP 500", 0.5)


def _made(path: Path) -> Path:
    path.mkdir()
    return path
