"""What a result of `vllm bench serve` is taken for, and which are no good."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.profiling.importing.bench_results import OUTPUT, arriving, closed, result, service, written

from scepsy.documents import DocumentError, Series
from scepsy.errors import ScepsyError
from scepsy.profiling.importing import Closed, Imported, Left, Open, Origin, Result, kind_of, read_files, series_of
from scepsy.profiling.importing import json_files as reading_module
from scepsy.profiling.importing.benchmark_result import CALLS, E2EL, PARTS
from scepsy.profiling.importing.series import sustained
from scepsy.profiling.importing.vllm_bench import is_result, result_of

SHARED = Path(__file__).parents[4] / "shared" / "vllm"


def read(document: dict[str, Any], folder: str = "results", name: str = "r.json") -> Result | str:
    # As it comes from a file.
    return result_of(json.loads(json.dumps(document)), name, folder, "sha256:00")


def good(document: dict[str, Any], folder: str = "results", name: str = "r.json") -> Result:
    found = read(document, folder, name)
    assert isinstance(found, Result), found
    return found


def kind(document: dict[str, Any], *, self_timed: bool = False, name: str = "r.json") -> Closed | Open | str:
    return kind_of(good(document, name=name), self_timed=self_timed)


def runs(*documents: dict[str, Any]) -> list[Closed | Open]:
    found = []
    for number, document in enumerate(documents):
        run = kind(document, name=f"{number}.json")
        assert not isinstance(run, str), run
        found.append(run)
    return found


def imported(*documents: dict[str, Any]) -> Imported:
    return series_of(runs(*documents), Origin(1, 1.0))


def series(*documents: dict[str, Any]) -> Series:
    (one,) = imported(*documents).series
    return one


# What a run measured


def test_a_limit_without_a_rate_is_r_of_k_without_the_first_and_the_last_round() -> None:
    document = closed(8, 80)
    run = kind(document)
    assert isinstance(run, Closed)
    assert run.concurrency == 8
    assert run.figures.count == 80 - 8 - 8
    assert run.figures.latency == pytest.approx(service(8))
    # The whole run has the calls of the last round in it, which ran beside fewer.
    assert document["mean_e2el_ms"] / 1000 < 0.99 * service(8)


def test_a_rate_without_a_limit_is_an_open_loop_point() -> None:
    run = kind(arriving(4.0, 400, 1.5))
    assert isinstance(run, Open)
    assert (run.rate, run.replayed) == (4.0, False)
    assert run.figures.latency == pytest.approx(1.5)


def test_one_call_at_a_time_is_r_of_1_however_calls_arrive() -> None:
    # The first level of `vllm bench sweep serve_workload --workload-var request_rate`.
    run = kind(closed(1, 20, request_rate=1.0))
    assert isinstance(run, Closed)
    assert run.concurrency == 1
    assert run.figures.latency == pytest.approx(1.0)


def test_a_limit_that_no_run_can_reach_leaves_an_open_loop_point() -> None:
    # The last level of such a sweep: as many at a time as there are prompts.
    run = kind(arriving(100.0, 100, 1.5, max_concurrency=100))
    assert isinstance(run, Open)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (result([0.0] * 50, [1.0] * 50), "all requests were sent at once"),
        (closed(64, 64), "64 requests with 64 at a time"),
        (closed(64, 191), "At least 192 are needed"),
        (arriving(4.0, 400, 1.5, max_concurrency=16), "both a rate (4/s) and a limit (16 at a time)"),
        (arriving(4.0, 400, 1.5, burstiness=0.5), "arrivals with burstiness 0.5 are not Poisson arrivals"),
        (arriving(4.0, 400, 1.5, ramp_up_strategy="linear"), "the rate rose during the run"),
        (closed(4, 100, probe_completed=7), "probe requests ran beside"),
        # More calls than there may be at a time, as after a mean in other units, or a limit from elsewhere.
        (
            closed(4, 100, detailed=False) | {"mean_e2el_ms": 1300.0},
            "on average 4.52 calls would have run, of 4 at most at a time",
        ),
        (closed(4, 100) | {"max_concurrency": 3}, "calls would have run, of 3 at most at a time"),
        (closed(4, 100) | {"max_concurrency": 1}, "calls would have run, of 1 at most at a time"),
    ],
)
def test_what_is_no_steady_state_is_refused(document: dict[str, Any], reason: str) -> None:
    found = kind(document)
    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize("detailed", [True, False])
def test_a_replayed_trace_with_a_limit_is_no_closed_loop_where_fewer_calls_ran(detailed: bool) -> None:
    # Under --self-timed the result says request_rate "inf", as a closed loop does.
    starts = [2.0 * number for number in range(60)]
    found = kind(result(starts, [1.0] * 60, max_concurrency=4, detailed=detailed))
    assert isinstance(found, str)
    assert "on average 0.5 calls ran, not 4" in found or "on average 0.504 calls ran, not 4" in found


def test_a_replayed_trace_is_a_point_at_its_mean_rate_only_when_the_user_says_so() -> None:
    document = result([0.5 * number for number in range(101)], [1.0] * 101)
    assert "--self-timed" in str(kind(document))
    run = kind(document, self_timed=True)
    assert isinstance(run, Open)
    assert (run.rate, run.replayed) == (2.0, True)
    burst = result([0.001 * number for number in range(101)], [1.0] * 101)
    assert "that is a burst" in str(kind(burst, self_timed=True))
    means = result([0.5 * number for number in range(101)], [1.0] * 101, detailed=False)
    assert "--save-detailed" in str(kind(means, self_timed=True))


# What makes a result no good


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"failed": 3}, "3 of 103 requests failed"),
        ({"completed": 0, "failed": 100}, "no request was completed; vllm bench serve ends with 0 all the same"),
        ({"failed": None}, '"failed" is not a number'),
        ({"duration": 0}, '"duration" is not greater than zero'),
        ({"duration": math.nan}, '"duration" is out of range'),
        ({"completed": 1e400}, '"completed" is out of range'),
        ({"completed": True}, '"completed" is not a number'),
        ({"completed": 99.5}, '"completed" is not a whole number'),
        ({"request_rate": "fast"}, '"request_rate" is not a rate'),
        ({"request_rate": -1}, '"request_rate" is not a rate'),
        ({"request_rate": 1_000_001}, '"request_rate" is not a rate'),
        ({"max_concurrency": 0}, '"max_concurrency" is not a number of requests'),
        ({"total_output_tokens": 0}, "0 tokens were generated per request"),
        ({"latencies": [1e9] * 100}, "out of range"),
        ({"duration": 1e-9}, "out of range"),
        ({"run_number": -1}, "the warm-up of a sweep"),
        ({"tensor_parallel_size": 3}, "the tensor-parallel degree is 3: not 1, 2, 4 or 8"),
        ({"pipeline_parallel_size": 2}, "only tensor parallelism is modelled"),
    ],
)
def test_a_result_that_cannot_be_is_refused(change: dict[str, Any], reason: str) -> None:
    assert reason in str(read(closed(4, 100) | change))


def test_a_result_of_an_old_version_that_does_not_count_failures_is_judged_by_what_was_sent() -> None:
    document = closed(4, 100)
    del document["failed"]
    assert isinstance(read(document), Result)
    assert "20 of 120 requests failed" in str(read(document | {"num_prompts": 120}))


def test_a_result_without_first_tokens_is_refused() -> None:
    document = closed(4, 100, detailed=False)
    del document["mean_ttft_ms"]
    assert "no time to the first token" in str(read(document))
    assert "the server did not stream" in str(read(document | {"mean_ttft_ms": 0.0}))


# Where latencies come from


def test_latencies_come_from_the_single_calls_then_from_e2el_then_from_ttft_and_tpot() -> None:
    full = closed(1, 40)
    parts = closed(1, 40, detailed=False)
    for key in ("mean_e2el_ms", "median_e2el_ms", "p99_e2el_ms"):
        del parts[key]
    sources = {
        CALLS: full,
        E2EL: closed(1, 40, detailed=False),
        PARTS: parts,
    }
    for source, document in sources.items():
        found = good(document)
        assert found.source == source
        assert found.latency == pytest.approx(1.0)
    del parts["mean_tpot_ms"]
    assert "no latency" in str(read(parts))


def test_without_latencies_a_call_takes_its_first_token_and_the_times_between_its_chunks() -> None:
    document = closed(2, 40, spread=0.3)
    expected = document.pop("latencies")
    calls = good(document).calls
    assert calls is not None
    np.testing.assert_allclose(calls.latency, expected)


def test_calls_are_put_in_the_order_in_which_they_were_sent() -> None:
    document = result([3.0, 1.0, 2.0], [0.3, 0.1, 0.2])
    calls = good(document).calls
    assert calls is not None
    assert calls.latency.tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("key", ["latencies", "ttfts", "start_times"])
def test_arrays_that_are_not_whole_are_not_used(key: str) -> None:
    document = closed(2, 40)
    for wrong in ([1.0], ["1"] * 40, [math.inf] * 40, None, {"0": 1}):
        found = good(document | {key: wrong, "itls": None})
        assert found.latency == pytest.approx(document["mean_e2el_ms"] / 1000)


def test_the_sample_of_a_real_run_is_an_open_loop_point() -> None:
    sample = SHARED / "bench_serve_rate32.json"
    if not sample.exists():
        pytest.skip("the sample lies beside the repository, and is not there")
    document = json.loads(sample.read_text())
    run = kind(document)
    assert isinstance(run, Open)
    assert (run.rate, run.result.completed, run.result.day) == (32.0, 320, "2026-11-20")
    assert run.result.latency == pytest.approx(document["mean_e2el_ms"] / 1000)
    assert (run.result.input, run.result.output) == (41236 / 320, 32.0)
    assert run.result.in_flight == pytest.approx(0.5477 * 30.8, rel=1e-3)


# Series


def test_points_rise_with_k_and_hold_what_was_measured() -> None:
    found = series(closed(4, 100), closed(1, 40), closed(2, 60))
    assert [p.concurrency for p in found.points] == [1, 2, 4]
    assert [p.latency for p in found.points] == pytest.approx([service(1), service(2), service(4)])
    four = found.points[-1]
    assert four.ttft == pytest.approx(0.2 * service(4))
    # latency = ttft + tpot · (output − 1)
    assert four.tpot == pytest.approx(0.8 * service(4) / (OUTPUT - 1))
    assert (four.p50, four.p95, four.p99) == pytest.approx((service(4),) * 3)
    assert (four.calls, four.interval) == (92, 0.0)
    assert (found.tp, found.share, found.mix.input, found.mix.output, found.mix.cached) == (1, 1.0, 512, OUTPUT, 0)


def test_means_without_single_calls_have_no_interval_and_only_the_percentiles_that_are_there() -> None:
    (point,) = series(closed(1, 40, detailed=False)).points
    assert (point.p50, point.p95, point.p99) == (pytest.approx(1.0), None, pytest.approx(1.0))
    assert point.interval is None


def test_runs_with_one_k_are_pooled_by_their_calls() -> None:
    slow, fast = closed(1, 40), closed(1, 20, duration_factor=1)
    slow["latencies"] = [1.2] * 40
    slow["start_times"] = [1.2 * n for n in range(40)]
    slow["duration"] = 48.0
    first, second = runs(slow, fast)
    (point,) = series_of([first, second], Origin(1, 1.0)).series[0].points
    counts = first.figures.count, second.figures.count
    assert point.calls == sum(counts)
    assert point.latency == pytest.approx((1.2 * counts[0] + 1.0 * counts[1]) / sum(counts))


def test_three_runs_that_differ_more_than_each_says_of_itself_give_the_wider_interval() -> None:
    def run(latency: float) -> dict[str, Any]:
        return result([latency * n for n in range(40)], [latency] * 40, max_concurrency=1)

    (point,) = series(run(0.9), run(1.0), run(1.1)).points
    # Student's t with two degrees of freedom, 0.1 s standard deviation, three runs of about 1 s.
    assert point.interval == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=0.03)


def test_three_runs_of_a_sweep_without_single_calls_have_an_interval_by_their_means() -> None:
    def run(latency: float) -> dict[str, Any]:
        return result([latency * n for n in range(40)], [latency] * 40, max_concurrency=1, detailed=False)

    (point,) = series(run(0.9), run(1.0), run(1.1)).points
    assert point.interval == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=3e-3)
    assert point.p50 is None


def test_other_lengths_and_other_degrees_are_other_series() -> None:
    found = imported(
        closed(1, 40),
        closed(1, 40, tokens=1024),
        closed(1, 40, tokens=516),  # within 2 %
        closed(1, 40, tensor_parallel_size=2),
    )
    assert [(s.tp, s.mix.input) for s in found.series] == [(1, 514.0), (1, 1024.0), (2, 512.0)]


def test_open_loop_runs_need_a_closed_loop_of_the_same_calls() -> None:
    found = imported(closed(1, 40), arriving(4.0, 400, 1.5), arriving(2.0, 400, 1.2, tokens=2000))
    assert [p.rate for p in found.series[0].open_loop] == [4.0]
    (left,) = found.left
    assert "R(k) is not known" in left.reason


def test_a_rate_was_sustained_if_it_was_completed_and_the_queue_was_short_at_the_end() -> None:
    # R(k) is 2 s at most; runs send for 100 s.
    stable = good(arriving(4.0, 400, 1.5))
    growing = good(arriving(4.0, 400, 1.5, behind=0.1))
    slightly = good(arriving(4.0, 4000, 1.5, behind=0.012))
    short = good(arriving(4.0, 20, 1.5))
    assert stable.throughput / 4.0 == pytest.approx(0.985, abs=0.001)
    assert sustained(stable, 4.0, 2.0) is True
    assert growing.throughput < 0.9 * 4.0
    assert sustained(growing, 4.0, 2.0) is False
    # Completed to 95 %, but 49 s after the last was sent: the queue grew.
    assert slightly.throughput > 0.95 * 4.0
    assert sustained(slightly, 4.0, 2.0) is None
    # The end is a good part of a short run: it says nothing.
    assert short.throughput < 0.9 * 4.0
    assert sustained(short, 4.0, 2.0) is None


def test_saturation_is_known_only_with_rates_on_both_sides_of_it() -> None:
    low, high = arriving(4.0, 400, 1.5), arriving(8.0, 800, 1.5, behind=0.1)
    both = series(closed(1, 40), low, high)
    assert [(p.rate, p.stable) for p in both.open_loop] == [(4.0, True), (8.0, False)]
    assert both.saturation is not None
    assert (both.saturation.low, both.saturation.high) == (4.0, 8.0)
    assert series(closed(1, 40), low).saturation is None


def test_the_notes_say_how_the_figures_came_about() -> None:
    parts = closed(2, 60, detailed=False)
    del parts["mean_e2el_ms"]
    some = closed(4, 100)
    del some["ttfts"]
    notes = " ".join(imported(closed(1, 40, spread=0.9), parts, some).notes)
    for said in (
        "2 of 3 results hold their single calls: the warm-up (MSER-5, at least one round of k) and the last round",
        "The time to the first token in 1 of 3 results is that of the whole run.",
        "1 of 3 results hold means only, those of the whole run with its ends.",
        "1 of 3 results do not hold latencies: they are TTFT + TPOT x (output - 1)",
        "The 95 % interval of the mean is wider than 5% at 1 of 3 points",
        "Points without an interval",
        "do not say the tensor-parallel degree; 1 was stated",
        "How many prompt tokens came from the prefix cache is not known and counted as none",
    ):
        assert said in notes


def test_a_single_concurrency_is_told() -> None:
    assert imported(closed(1, 40), closed(2, 40)).thin == ()
    (thin,) = imported(closed(8, 100)).thin
    assert "k = 8 only" in thin


@settings(deadline=None, max_examples=60)
@given(
    ks=st.lists(st.integers(1, 24), min_size=1, max_size=6),
    rounds=st.integers(5, 12),
    spread=st.floats(0, 0.3),
    seed=st.integers(0, 99),
)
def test_whatever_runs_there_are_points_rise_and_lie_among_the_calls(
    ks: list[int], rounds: int, spread: float, seed: int
) -> None:
    found = series(*(closed(k, rounds * k + 16, spread=spread, seed=seed) for k in ks))
    assert [p.concurrency for p in found.points] == sorted(set(ks))
    for point in found.points:
        assert point.latency == pytest.approx(service(point.concurrency), rel=spread + 1e-6)
        assert point.p50 is not None
        assert point.p95 is not None
        assert point.p99 is not None
        assert point.p50 <= point.p95 <= point.p99
    again = Series.model_validate(found.plain())
    assert [p.latency for p in again.points] == pytest.approx([p.latency for p in found.points], rel=1e-3)


@settings(deadline=None, max_examples=200)
@given(
    key=st.sampled_from(sorted(closed(2, 20))),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=6,
    ),
)
@example(key="max_concurrency", value="²")
def test_whatever_stands_in_a_result_it_is_a_run_or_refused_with_a_reason(key: str, value: Any) -> None:
    found = result_of(closed(2, 20) | {key: value}, "r.json", "results", "sha256:00")
    if isinstance(found, Result):
        run = kind_of(found, self_timed=True)
        if isinstance(run, Closed):
            # It can be written, and read again.
            made = series_of([run], Origin(1, 1.0)).series[0]
            again = Series.model_validate(made.plain())
            assert again.points[0].latency == pytest.approx(made.points[0].latency, rel=1e-3)
        else:
            assert run
    else:
        assert found


# Files


def names(found: list[Any]) -> list[str]:
    return [Path(one.name).name for one in found]


def test_a_sweeps_directory_is_read_run_by_run(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "SERVE--tensor_parallel_size=2-max_num_seqs=16-foo=1-BENCH--max_concurrency=4-seed=3"
    parameters = {"tensor_parallel_size": 2, "max_num_seqs": 16, "foo": True, "max_concurrency": 4, "seed": 3}
    for number in (0, 1):
        written(folder / f"run={number}.json", closed(4, 100) | parameters | {"run_number": number}, indent=4)
    written(folder / "summary.json", [closed(4, 100), closed(4, 100)])
    written(folder / "warmup.json", closed(4, 100))
    written(folder / "run=2.failure.json", {"error_type": "RuntimeError", "error": "boom"})
    (tmp_path / "sweep" / "summary.csv").write_text("a,b\n")
    found = list(read_files([tmp_path / "sweep"]))
    kept = [one for one in found if not isinstance(one, Left)]
    assert names(kept) == ["run=0.json", "run=1.json"]
    assert {Path(one.name).name: one.reason for one in found if isinstance(one, Left)} == {
        "summary.json": "the same runs as run=….json beside it",
        "warmup.json": "the warm-up of a sweep",
        "run=2.failure.json": "a run of a sweep that failed",
    }
    run = good(kept[0].values[0], kept[0].folder)
    # The sweep writes all parameters beside the figures; the directory tells whose they are.
    assert (run.tp, run.flags) == (2, ("--foo", "--max-num-seqs 16"))


def test_levels_of_a_workload_are_no_flags_of_the_server() -> None:
    swept = {"max_num_seqs": 16, "request_rate": 5, "random_input_len": 64, "dtype": "bfloat16"}
    document = arriving(5.0, 100, 1.0) | swept
    for folder in (
        "SERVE--max_num_seqs=16-WL--request_rate=5",
        "SERVE--max_num_seqs=16-BENCH--random_input_len=64-WL--request_rate=5",
        "BENCH--random_input_len=64-WL--request_rate=5",
        "SERVE--small-BENCH--short",  # combinations with names
    ):
        # What is a parameter of any vLLM server is one wherever it stands.
        assert good(document, folder=folder).flags == ("--dtype bfloat16", "--max-num-seqs 16")


def test_a_summary_by_itself_holds_its_runs(tmp_path: Path) -> None:
    (found,) = read_files([written(tmp_path / "summary.json", [closed(1, 20), closed(2, 20)])])
    assert isinstance(found, reading_module.ResultFile)
    assert len(found.values) == 2


def test_results_appended_to_one_file_are_read_one_by_one(tmp_path: Path) -> None:
    (found,) = read_files([written(tmp_path / "all.json", closed(1, 20), closed(2, 20), closed(4, 20))])
    assert isinstance(found, reading_module.ResultFile)
    assert [value["max_concurrency"] for value in found.values] == [1, 2, 4]


def test_a_named_file_that_is_cut_off_is_an_error_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "cut.json"
    file.write_text('{\n  "date": "2026",\n  "dura')
    with pytest.raises(DocumentError) as raised:
        list(read_files([file]))
    assert f"{file}:3:3: not valid JSON: unterminated string" in str(raised.value)
    assert "cut off" in str(raised.value)


def test_in_a_directory_it_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{\n  "date": "2026",\n  "dura')
    written(tmp_path / "good.json", closed(1, 20))
    left, kept = read_files([tmp_path])
    assert isinstance(left, Left)
    assert "cut.json:3:3: not valid JSON" in left.reason
    assert not isinstance(kept, Left)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5_000, "a number with too many digits"),
    ],
)
def test_what_is_no_json_is_an_error_that_says_why(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(data)
    with pytest.raises(ScepsyError, match=message):
        list(read_files([file]))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "large.json", closed(1, 20))
    monkeypatch.setattr(reading_module, "MAX_BYTES", 1000)
    with pytest.raises(ScepsyError, match="larger than"):
        list(read_files([file]))


def test_a_link_out_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    secret = written(tmp_path / "elsewhere" / "secret.json", closed(1, 20))
    folder = tmp_path / "results"
    inside = written(folder / "good.json", closed(2, 20))
    (folder / "link.json").symlink_to(secret)
    (folder / "again.json").symlink_to(inside)
    (folder / "up").symlink_to(secret.parent, target_is_directory=True)
    found = list(read_files([folder]))
    assert [one.reason for one in found if isinstance(one, Left)] == [
        "a symbolic link out of the directory, not followed"
    ]
    assert len([one for one in found if not isinstance(one, Left)]) == 1


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (left,) = read_files([tmp_path])
    assert isinstance(left, Left)
    assert left.reason == "not a regular file"


def test_only_results_are_taken_for_results() -> None:
    assert is_result(closed(1, 20))
    for other in (None, [], 3, {}, {"duration": 1}, [closed(1, 20)]):
        assert not is_result(other)
