"""Pure functions of measuring, on cases whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.profiling.measuring.metrics import Snapshot, parse, usage_of
from scepsy.profiling.measuring.next_point import BRACKET, MOST_RATES, bracket, next_concurrency, next_rate
from scepsy.profiling.measuring.statistics import LEAST, falls_behind, interval, mean_in_flight, warm_up

# Warm-up


def test_a_slow_beginning_is_warm_up() -> None:
    values = [3.0] * 40 + [1.0, 1.1] * 200
    assert 40 <= warm_up(values) <= 45


def test_of_values_that_are_alike_from_the_first_nothing_is_warm_up() -> None:
    assert warm_up([1.0] * 100) == 0


@given(st.lists(st.floats(0.001, 1000), max_size=200))
def test_never_more_than_half_is_warm_up(values: list[float]) -> None:
    assert 0 <= warm_up(values) <= len(values) / 2


# Interval


def test_the_interval_of_equal_values_is_zero() -> None:
    assert interval([2.0] * 100) == 0


def test_too_few_values_have_no_interval() -> None:
    assert interval([1.0] * (LEAST - 1)) == math.inf


def test_with_eight_batches_of_two_the_interval_is_that_of_student() -> None:
    means = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    values = [value for mean in means for value in (mean, mean)]
    assert interval(values) == pytest.approx(2.365 * np.std(means, ddof=1) / math.sqrt(8) / 4.5)


@given(st.lists(st.floats(0.1, 100), min_size=LEAST, max_size=100), st.floats(0.01, 100))
def test_the_interval_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    assert interval([value * unit for value in values]) == pytest.approx(interval(values), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_interval_holds_the_mean_in_95_of_100_cases(correlation: float) -> None:
    chance = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        noise = chance.normal(size=2000)
        values = np.empty(2000)
        values[0] = noise[0] / math.sqrt(1 - correlation**2)
        for i in range(1, 2000):
            values[i] = correlation * values[i - 1] + noise[i]
        values += 100
        held += abs(values.mean() - 100) <= interval(values) * values.mean()
    assert held >= 186


# Growth


@pytest.mark.parametrize(
    ("due", "completed", "in_flight", "seems", "certain"),
    [
        (1000, 900, [8, 9, 12, 20], True, True),
        (1000, 960, [8, 9, 12, 20], True, False),  # 40 of 1000 may be chance
        (1000, 900, [8, 9, 7, 20], False, False),  # it once had less to do than it can take: it kept up
        (1000, 1050, [20, 15, 12, 9], False, False),  # it works off its queue
    ],
)
def test_an_engine_falls_behind_that_is_always_full_and_completes_less_than_arrives(
    due: float, completed: int, in_flight: list[int], seems: bool, certain: bool
) -> None:
    assert falls_behind(due, completed, in_flight, full=8) == (seems, certain)


def test_calls_in_flight_are_averaged_over_time_with_those_that_have_not_ended() -> None:
    assert mean_in_flight([0, 1, 8], [2, math.inf, 9], 0, 10) == pytest.approx((2 + 9 + 1) / 10)


# Search


def test_concurrency_doubles_until_throughput_stops_rising() -> None:
    throughput: dict[int, float | None] = {}
    while (k := next_concurrency(throughput, 256)) is not None:
        throughput[k] = min(k, 16) / 2.0
    assert list(throughput) == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize(("most", "tried"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_concurrency_ends_at_the_engine_s_limit(most: int, tried: list[int]) -> None:
    throughput: dict[int, float | None] = {}
    while (k := next_concurrency(throughput, most)) is not None:
        throughput[k] = float(k)
    assert list(throughput) == tried


def test_a_point_that_is_not_precise_does_not_end_the_curve_alone() -> None:
    assert next_concurrency({1: 1.0, 2: 2.0, 4: 1.5}, 64) is None
    assert next_concurrency({1: 1.0, 2: 2.0, 4: 1.5}, 64, sure=False) == 8
    assert next_concurrency({1: 1.0, 2: 2.0, 4: 1.5, 8: 2.0}, 64, sure=False) is None


def test_two_failed_concurrencies_end_the_curve() -> None:
    assert next_concurrency({1: 1.0, 2: None}, 64) == 4
    assert next_concurrency({1: 1.0, 2: None, 4: None}, 64) is None


@given(st.floats(1e-3, 1e3), st.floats(0.2, 4.0))
def test_bisection_brackets_saturation_wherever_it_is(capacity: float, wrong: float) -> None:
    outcomes: dict[float, bool | None] = {}
    while (rate := next_rate(outcomes, capacity * wrong)) is not None:
        assert rate not in outcomes
        outcomes[rate] = rate < capacity
    low, high = bracket(outcomes)
    assert low is not None
    assert high is not None
    assert low < capacity <= high <= low * BRACKET
    assert len(outcomes) <= MOST_RATES - 2


def test_a_good_guess_needs_few_rates() -> None:
    outcomes: dict[float, bool | None] = {}
    while (rate := next_rate(outcomes, 100.0)) is not None:
        outcomes[rate] = rate < 98
    assert len(outcomes) == 5


def test_where_requests_fail_nothing_beyond_is_tried_and_nothing_is_said_of_saturation() -> None:
    outcomes: dict[float, bool | None] = {}
    while (rate := next_rate(outcomes, 100.0)) is not None:
        outcomes[rate] = True if rate < 90 else None
    assert bracket(outcomes)[1] is None
    assert len(outcomes) < MOST_RATES


def test_a_server_that_sustains_nothing_ends_the_search() -> None:
    outcomes: dict[float, bool | None] = {}
    while (rate := next_rate(outcomes, 100.0)) is not None:
        outcomes[rate] = False
    assert bracket(outcomes)[0] is None


# Metrics

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a } 9"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4.0
vllm:num_requests_waiting{engine="0",model_name="a"} 254.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.5
vllm:prefix_cache_queries_total{engine="0"} 1.2e+03
vllm:prefix_cache_hits_total{engine="0"} 300.0 1700000000000
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 4
python_gc_objects_collected_total{generation="0"} NaN
"""


def test_metrics_are_added_up_over_engines() -> None:
    assert parse(PAGE, 5.0) == Snapshot(5.0, 7.0, 254.0, 0.5, 1200.0, 300.0)


def test_a_page_without_the_engine_s_metrics_says_nothing() -> None:
    assert parse("<html>\nvllm:num_requests_running lots\n", 5.0) == Snapshot(5.0)


@given(st.text())
def test_any_text_can_be_parsed(text: str) -> None:
    parse(text, 0.0)


def test_prefix_hits_are_counted_from_the_end_of_the_warm_up() -> None:
    cold, warm, end = (Snapshot(t, 1, 0, t / 10, 100 * t, hits) for t, hits in ((1, 0.0), (2, 10.0), (4, 160.0)))
    usage = usage_of([cold, warm, end], since=3)
    assert (usage.prefix_hits, usage.kv_usage, usage.waiting) == (0.75, 0.4, 0)


def test_counters_that_fell_say_nothing() -> None:
    assert usage_of([Snapshot(1, queries=100, hits=50), Snapshot(2, queries=10, hits=5)], 0).prefix_hits is None
