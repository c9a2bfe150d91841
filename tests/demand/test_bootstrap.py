"""Intervals of means: how wide, how often right, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scepsy.demand.bootstrap import BLOCKS, Interval, ratio_intervals


def mean_interval(values: np.ndarray) -> Interval | None:
    return ratio_intervals([(values, np.ones(len(values)))])[0]


def test_one_execution_has_no_interval() -> None:
    assert mean_interval(np.array([3.0])) is None


def test_nothing_asked_nothing_answered() -> None:
    assert ratio_intervals([]) == []


def test_equal_executions_have_an_interval_without_width() -> None:
    assert mean_interval(np.full(20, 3.0)) == Interval(3.0, 3.0)


def test_a_ratio_of_proportional_sums_is_certain_although_both_sums_vary() -> None:
    calls = np.array([1.0, 5.0, 40.0])
    assert ratio_intervals([(250 * calls, calls)]) == [Interval(250.0, 250.0)]


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(10, 2, 1000)
    found = mean_interval(values)
    assert found is not None
    expected = 1.96 * values.std() / np.sqrt(1000)
    assert found.low == pytest.approx(values.mean() - expected, abs=0.1 * expected)
    assert found.high == pytest.approx(values.mean() + expected, abs=0.1 * expected)


def test_an_interval_holds_the_truth_about_95_times_of_100() -> None:
    draws = np.random.default_rng(2).exponential(1.0, (100, 400))
    one = np.ones(100)
    found = ratio_intervals([(draws[:, i], one) for i in range(400)])
    assert 0.90 <= np.mean([i is not None and i.low <= 1 <= i.high for i in found]) <= 0.97


@pytest.mark.parametrize("count", [BLOCKS - 1, BLOCKS + 1, 10 * BLOCKS + 7, 100_000])
def test_many_executions_in_blocks_have_the_width_of_single_ones(count: int) -> None:
    values = np.random.default_rng(3).exponential(1.0, count)
    found = mean_interval(values)
    assert found is not None
    assert (found.high - found.low) * np.sqrt(count) == pytest.approx(2 * 1.96, rel=0.12)


def test_a_denominator_that_most_draws_miss_has_no_interval() -> None:
    calls = np.zeros(100)
    calls[0] = 1.0
    assert ratio_intervals([(calls * 7, calls)])[0] == Interval(7.0, 7.0)  # 63 of 100 draws hold it
    assert ratio_intervals([(calls * 0, calls * 0)]) == [None]


def test_the_same_numbers_give_the_same_interval_on_every_machine() -> None:
    values = np.arange(50.0) ** 2
    assert mean_interval(values) == Interval(613.599, 1013.854)


@given(arrays(float, st.integers(2, 60), elements=st.floats(0, 1e6)))
def test_an_interval_lies_within_the_values(values: np.ndarray) -> None:
    found = mean_interval(values)
    assert found is not None
    slack = 1e-6 * (1 + values.max())
    assert values.min() - slack <= found.low <= found.high <= values.max() + slack
