"""Demand from calls: known executions, known statistics."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.demand import Demand, from_statistics, from_trace, quantile_factors
from scepsy.demand.statistics import GROUP_SIZES
from scepsy.documents.workflow import LlmStatistics, Statistics, TokenDistribution
from scepsy.traces.call import Call
from scepsy.traces.trace_builder import trace_of


def call(start: float, end: float, model: str = "m", execution: str = "e") -> Call:
    return Call(execution, model, start, end, 100, 10)


def from_calls(calls: list[Call]) -> Demand:
    return from_trace(trace_of(calls))


def test_serial_calls_have_parallelism_one_and_one_step_each() -> None:
    demand = from_calls([call(0, 1), call(1, 3), call(4, 5)])
    llm = demand.llms["m"]
    assert (llm.calls, llm.parallelism, llm.groups) == (3, 1.0, ((1, 3.0),))
    assert llm.steps == pytest.approx(3.0)
    assert demand.outside == pytest.approx(1.0)  # from 3 to 4 nothing ran


def test_a_fan_out_of_four_equal_calls_is_one_step_of_a_group_of_four() -> None:
    llm = from_calls([call(0, 2)] * 4).llms["m"]
    assert (llm.calls, llm.parallelism, llm.steps, llm.groups) == (4, 4.0, 1.0, ((4, 1.0),))


def test_short_calls_one_after_another_are_no_fan_out() -> None:
    llm = from_calls([call(i / 100, (i + 1) / 100) for i in range(5)]).llms["m"]
    assert (llm.parallelism, llm.groups) == (pytest.approx(1.0), ((1, 5.0),))
    assert llm.steps == pytest.approx(5.0)


def test_a_straggler_lengthens_the_path_of_its_group() -> None:
    # Nineteen calls of 1 s and one of 5 s: the group takes 5 s, a mean call 1.2 s.
    llm = from_calls([call(0, 1)] * 19 + [call(0, 5)]).llms["m"]
    assert llm.groups == ((20, 1.0),)
    assert llm.steps == pytest.approx(20 / llm.parallelism) == pytest.approx(5 / 1.2)


def test_parallelism_is_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    # Execution a: ten calls of 1 s, one after another; execution b: twenty calls of 1 s at once.
    serial = [call(i, i + 1, execution="a") for i in range(10)]
    wide = [call(0, 1, execution="b") for _ in range(20)]
    assert from_calls(serial + wide).llms["m"].parallelism == pytest.approx(30 / 11)


def test_time_outside_llms_counts_gaps_between_calls_of_any_llm() -> None:
    demand = from_calls([call(0, 1, "a"), call(0.5, 2, "b"), call(5, 6, "a")])
    assert demand.outside == pytest.approx(3.0)


def test_group_sizes_beyond_the_limit_are_merged_without_losing_calls() -> None:
    calls = [call(10 * size, 10 * size + 1) for size in range(1, 30) for _ in range(size)]
    llm = from_calls(calls).llms["m"]
    assert len(llm.groups) <= GROUP_SIZES
    assert sum(size * number for size, number in llm.groups) == pytest.approx(llm.calls)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from("ab"), st.sampled_from("xy")), min_size=1, max_size=40))  # fmt: skip
def test_any_trace_gives_consistent_statistics(raw: list[tuple[int, int, str, str]]) -> None:
    calls = [call(start, start + length, model, execution) for start, length, model, execution in raw]
    demand = from_calls(calls)
    executions = len({c.execution for c in calls})
    assert demand.outside >= 0
    assert sum(llm.calls for llm in demand.llms.values()) == pytest.approx(len(calls) / executions)
    for llm in demand.llms.values():
        assert llm.parallelism >= 1 - 1e-9
        assert math.fsum(size * number for size, number in llm.groups) == pytest.approx(llm.calls)
        assert llm.steps > 0


def test_statistics_with_a_fractional_fan_out_mix_the_two_whole_sizes() -> None:
    entry = LlmStatistics(
        llm="m", calls=10.0, fan_out=2.5, input_tokens=TokenDistribution(mean=1.0), output_tokens=TokenDistribution(mean=1.0)
    )  # fmt: skip
    llm = from_statistics(Statistics(llms=(entry,))).llms["m"]
    assert llm.groups == ((2, 2.0), (3, 2.0))
    assert (llm.parallelism, llm.steps) == (2.5, 4.0)


def test_calls_that_take_no_time_are_refused() -> None:
    with pytest.raises(ValueError, match="have a duration of 0"):
        from_calls([call(1, 1)])


def test_a_heavy_execution_calls_for_more_than_the_mean() -> None:
    # Nine executions spend 1 s in m, one spends 11 s: the mean is 2 s, the 0.95 quantile 11 s.
    calls = [call(0, 1, execution=f"e{i}") for i in range(9)] + [call(0, 11, execution="heavy")]
    demand = from_calls(calls)
    assert demand.recorded is not None
    assert quantile_factors(demand.recorded, 0.95) == {"m": pytest.approx(5.5)}
    assert quantile_factors(demand.recorded, 0.5) == {"m": 1.0}  # never below the mean
    heavy = demand.times({"m": 5.5}).llms["m"]
    assert (heavy.calls, heavy.groups) == (5.5, ((1, 5.5),))
    assert heavy.steps == demand.llms["m"].steps  # the path of one execution stays


def test_failed_and_estimated_calls_are_named_in_the_notes() -> None:
    calls = [
        Call("e", "m", 0, 1, 10, 1, estimated=("outputTokens",)),
        Call("e", "m", 2, 3, 10, 1),
        Call("e", "m", 4, 5, 10, 0, error="HTTP 500"),
    ]
    demand = from_calls(calls)
    assert demand.llms["m"].calls == 2
    assert demand.recorded is not None
    assert demand.recorded.notes == (
        "1 of 3 calls of the trace failed and are left out",
        "of 2 calls of the trace, some values are estimated: outputTokens of 1",
    )
