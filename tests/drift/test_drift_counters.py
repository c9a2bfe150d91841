"""Counters → what was counted per minute: resets, gaps, pods that come and go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.drift.counters import Samples, alive_at, counted, increments, joined, of_targets, samples, together

T = 1000 * 60.0


def series(*pairs: tuple[float, float]) -> Samples:
    return samples({}, pairs)


def per_minute(own: Samples, minutes: int, end: float = T) -> list[float]:
    return counted(own, end, minutes, 60.0).value.round(6).tolist()


def test_a_counter_gives_its_rise_per_minute() -> None:
    own = series((T - 180, 100), (T - 120, 130), (T - 60, 130), (T, 190))
    assert per_minute(own, 3) == [30, 0, 60]


def test_what_rose_between_two_samples_is_spread_over_the_time_between() -> None:
    assert per_minute(series((T - 180, 0), (T, 90)), 3) == [30, 30, 30]
    assert per_minute(series((T - 90, 0), (T - 30, 60)), 2) == [30, 30]


def test_a_counter_that_falls_has_begun_anew_and_counts_from_zero() -> None:
    assert increments(np.array([100.0, 150.0, 20.0, 30.0])).tolist() == [50, 20, 10]
    assert per_minute(series((T - 120, 1000), (T - 60, 7), (T, 10)), 2) == [7, 3]


def test_the_first_sample_counts_nothing_it_may_be_years_of_counting() -> None:
    own = series((T - 60, 1e9), (T, 1e9 + 5))
    assert per_minute(own, 3) == [0, 0, 5]
    assert counted(own, T, 3, 60.0).observed.tolist() == [0, 0, 60]


def test_a_gap_is_not_zero_traffic_it_is_no_knowledge() -> None:
    own = series((T - 7200, 0), (T - 3600, 500), (T - 60, 600), (T, 660))
    slots = counted(own, T, 120, 60.0)
    assert slots.observed.sum() == 60
    assert slots.value.sum() == 60


def test_a_missing_scrape_or_two_is_bridged_with_what_was_counted_meanwhile() -> None:
    own = series((T - 600, 0), (T, 300))
    slots = counted(own, T, 10, 60.0)
    assert slots.observed.tolist() == [60] * 10
    assert slots.value.tolist() == pytest.approx([30] * 10)


def test_nan_infinity_and_repeated_samples_are_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    own = series((T, 30), (T - 60, nan), (T - 120, 0), (T - 120, 0), (T - 30, inf), (nan, 1))
    assert own.at.tolist() == [T - 120, T]
    assert own.value.tolist() == [0, 30]


def test_one_sample_says_nothing() -> None:
    slots = counted(series((T, 5)), T, 2, 60.0)
    assert slots.observed.tolist() == slots.value.tolist() == [0, 0]


def test_history_and_present_join_to_one_counter() -> None:
    coarse, fine = series((T - 600, 0), (T - 300, 100)), series((T - 300, 100), (T - 285, 105), (T, 200))
    assert joined([coarse, fine]).value.tolist() == [0, 100, 105, 200]


def test_a_pod_that_comes_and_one_that_goes_are_added_up_while_they_are_there() -> None:
    old = series(*((T - 600 + 60 * i, 10.0 * i) for i in range(6)))  # gone after five minutes
    new = series(*((T - 300 + 60 * i, 20.0 * i) for i in range(6)))
    both = of_targets([(own, counted(own, T, 10, 60.0)) for own in (old, new)])
    assert both.value.tolist() == pytest.approx([10] * 5 + [20] * 5)
    assert both.observed.tolist() == [60] * 10


def test_while_one_pod_is_not_scraped_the_load_is_not_known() -> None:
    whole = series(*((T - 3600 + 60 * i, 10.0 * i) for i in range(61)))
    torn = series((T - 3600, 0), (T - 3540, 10), (T - 1200, 400), *((T - 1140 + 60 * i, 410.0 + i) for i in range(20)))
    both = of_targets([(own, counted(own, T, 60, 60.0)) for own in (whole, torn)])
    assert both.observed[:1].tolist() == [60]
    assert both.observed[1:40].tolist() == [0] * 39
    assert both.observed[41:].tolist() == [60] * 19


def test_a_time_without_any_pod_is_not_observed() -> None:
    before = series(*((T - 3600 + 60 * i, i) for i in range(11)))
    after = series(*((T - 600 + 60 * i, i) for i in range(11)))
    both = of_targets([(own, counted(own, T, 60, 60.0)) for own in (before, after)])
    assert both.observed.tolist() == [60] * 10 + [0] * 40 + [60] * 10


def test_reasons_why_calls_ended_are_added_up_also_one_that_appears_late() -> None:
    stop = series(*((T - 600 + 60 * i, 5.0 * i) for i in range(11)))
    abort = series((T - 60, 0), (T, 3))
    parts = together([counted(own, T, 10, 60.0) for own in (stop, abort)])
    assert parts.value.tolist() == pytest.approx([5] * 9 + [8])
    assert parts.observed.tolist() == [60] * 10


def test_a_process_is_there_while_its_last_sample_is_young() -> None:
    own = series((T - 400, 1))
    assert not alive_at(own, T, 300)
    assert alive_at(own, T, 500)
    assert not alive_at(series(), T, 300)


@given(
    rises=st.lists(st.integers(0, 1000), min_size=1, max_size=60),
    resets=st.sets(st.integers(1, 60)),
    missing=st.sets(st.integers(0, 60)),
)
def test_never_more_than_happened_and_all_of_it_where_nothing_was_lost(
    rises: list[int], resets: set[int], missing: set[int]
) -> None:
    """Scrapes once a minute of a counter that starts anew at some of them; some scrapes are missing."""
    value, total, hidden, pairs = 0.0, 0, False, [(T - 60.0 * len(rises), 0.0)]
    for i, rise in enumerate(rises, 1):
        hidden |= i in resets and rise >= value  # it has caught up before anybody looked
        value = rise if i in resets else value + rise
        total += rise
        if i not in missing:
            pairs.append((T - 60.0 * (len(rises) - i), value))
    slots = counted(series(*pairs), T, len(rises), 60.0, gap=1e9)
    assert (slots.value >= 0).all()
    assert slots.value.sum() <= total + 1e-6
    assert (slots.observed <= 60 + 1e-9).all()
    if not resets and len(rises) not in missing:
        assert slots.value.sum() == pytest.approx(total)
    if not missing:
        assert (slots.value <= np.array(rises) + 1e-6).all()
    if not missing and not hidden:
        assert slots.value.tolist() == pytest.approx(rises)


@given(
    at=st.lists(st.floats(0, 3600), max_size=30),
    gap=st.floats(1, 4000),
)
def test_what_was_counted_lies_in_observed_time(at: list[float], gap: float) -> None:
    own = series(*((T - 3600 + t, 2.0 * t) for t in at))
    slots = counted(own, T, 60, 60.0, gap=gap)
    assert slots.value.tolist() == pytest.approx((2 * slots.observed).tolist(), abs=1e-6)
    assert ((slots.observed >= -1e-9) & (slots.observed <= 60 + 1e-6)).all()
