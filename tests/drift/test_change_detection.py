"""The test of traffic: what it finds, how soon, what it leaves alone. Seeds are fixed; figures are in docs/drift.md."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.drift import bursts, cycle, groups, looks, poisson, with_peaks
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.drift.change_detection import (
    BURST,
    DAY,
    LEAST,
    LENGTHS,
    MARGIN,
    Verdict,
    detect_shift,
    needed,
    statistics_of,
    threshold,
)

ALARMS, TESTS = 1e-4, 20


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def shifted(rate: float, factor: float, after: int, before: int = DAY) -> np.ndarray:
    own = rng()
    counts = np.concatenate([poisson(own, rate, before), poisson(own, rate * factor, after)])
    return counts[-DAY:]


def detected(counts: np.ndarray, rate: float = 2.0, **more: object) -> Verdict:
    return detect_shift(counts, np.full(len(counts), rate * 60), ALARMS, tests=TESTS, **more)  # type: ignore[arg-type]


def test_a_shift_of_thirty_percent_is_found_within_a_quarter_of_an_hour() -> None:
    shift = detected(shifted(4.0, 1.3, 15), rate=4.0).shift
    assert shift is not None
    assert shift.direction == "above"
    assert shift.ratio == pytest.approx(1.3, abs=0.08)
    assert 12 <= shift.minutes <= 18
    assert not shift.open_ended
    assert shift.confidence > 0.999


def test_when_it_began_is_told_hours_later_too() -> None:
    shift = detected(shifted(2.0, 1.3, 300)).shift
    assert shift is not None
    assert 290 <= shift.minutes <= 310
    assert shift.ratio == pytest.approx(1.3, abs=0.05)


def test_what_has_always_been_too_much_may_have_begun_before_the_data() -> None:
    shift = detected(shifted(2.0, 1.6, DAY, before=0)).shift
    assert shift is not None
    assert shift.open_ended


def test_traffic_as_planned_is_no_drift_and_says_so() -> None:
    verdict = detected(shifted(2.0, 1.0, 0))
    assert (verdict.shift, verdict.above, verdict.below) == (None, "", "")
    assert verdict.ratio == pytest.approx(1, abs=0.05)
    assert 1 <= verdict.dispersion < 2.5


def test_a_change_below_the_margin_is_not_reported_however_sure() -> None:
    assert detected(shifted(50.0, 1 + MARGIN - 0.05, DAY), rate=50.0).shift is None


def test_a_short_burst_is_no_drift_however_high() -> None:
    counts = shifted(2.0, 1.0, 0)
    counts[-BURST:] *= 20
    assert detected(counts).shift is None


def test_a_burst_of_ten_minutes_is_reported_and_forgotten_when_it_is_over() -> None:
    counts = shifted(2.0, 1.0, 0)
    counts[-12:] *= 3
    assert detected(counts).shift is not None
    over = np.concatenate([counts[30:], shifted(2.0, 1.0, 0)[:30]])
    assert detected(over).shift is None


def test_less_than_planned_at_night_is_no_drift() -> None:
    counts = np.concatenate([poisson(rng(), 2.0, DAY - 600), poisson(rng(), 0.3, 600)])
    assert detected(counts).shift is None


def test_less_than_planned_all_day_is_drift() -> None:
    shift = detected(shifted(2.0, 0.7, DAY, before=0)).shift
    assert shift is not None
    assert (shift.direction, shift.open_ended) == ("below", True)
    assert shift.ratio == pytest.approx(0.7, abs=0.03)


def test_a_lack_is_looked_for_over_a_shorter_time_if_asked_for_and_not_at_all_if_asked_for() -> None:
    counts = shifted(2.0, 0.5, 90)
    assert detected(counts).shift is None
    found = detected(counts, low_load_after=60).shift
    assert found is not None
    assert 60 <= found.minutes <= 120
    never = detected(counts, low_load_after=None)
    assert (never.shift, never.below) == (None, "not checked")


def test_hours_that_were_not_observed_say_nothing_of_a_lack() -> None:
    counts = shifted(2.0, 0.5, DAY, before=0)
    expected = np.full(DAY, 120.0)
    expected[200:700] = 0
    verdict = detect_shift(counts, expected, ALARMS, tests=TESTS)
    assert verdict.shift is None
    assert verdict.below == f"{DAY} minutes must be observed, {DAY - 500} of them were"


def test_before_hours_are_known_nothing_is_judged_because_bursts_would_be_taken_for_drift() -> None:
    counts = shifted(2.0, 3.0, LEAST - 1, before=0)
    assert detected(counts).shift is None
    assert detected(counts).above.startswith(f"only {LEAST - 1} minutes are known")
    assert detected(shifted(2.0, 3.0, LEAST, before=0)).shift is not None


def test_nothing_observed_is_nothing_judged() -> None:
    verdict = detect_shift(np.zeros(DAY), np.zeros(DAY), ALARMS)
    assert (verdict.shift, verdict.above) == (None, "nothing was observed")
    assert np.isnan(verdict.ratio)


def test_gaps_neither_hide_a_shift_nor_make_one() -> None:
    counts, expected = shifted(4.0, 1.3, 60), np.full(DAY, 240.0)
    holes = rng().random(DAY) < 0.3
    counts[holes], expected[holes] = 0, 0
    assert detect_shift(counts, expected, ALARMS, tests=TESTS).shift is not None
    steady, known = shifted(4.0, 1.0, 0), np.full(DAY, 240.0)
    steady[holes], known[holes] = 0, 0
    assert detect_shift(steady, known, ALARMS, tests=TESTS).shift is None


def test_calls_in_groups_are_not_taken_for_as_many_single_calls() -> None:
    counts = groups(20)(rng(), 20.0, DAY)
    verdict = detected(counts, rate=20.0)
    assert verdict.shift is None
    assert 15 < verdict.dispersion < 45


def test_bursts_raise_the_dispersion_and_with_it_what_counts_as_drift() -> None:
    verdict = detected(bursts(3, 5, 15)(rng(), 20.0, DAY), rate=20.0)
    assert verdict.shift is None
    assert verdict.dispersion > 3000


def test_a_daily_cycle_is_not_taken_for_noise() -> None:
    assert detected(cycle(poisson)(rng(), 50.0, DAY), rate=50.0).dispersion < 40


@pytest.mark.parametrize(
    ("made", "rate"),
    [
        (poisson, 2.0),
        (groups(20), 20.0),
        (bursts(3, 5, 15), 2.0),
        (cycle(poisson), 20.0),
        (with_peaks(poisson, 10, 5, 180), 2.0),
    ],
    ids=["Poisson", "groups of 20", "bursts", "daily cycle", "peaks of five minutes"],
)
def test_a_week_of_steady_traffic_raises_no_alarm(made: object, rate: float) -> None:
    counts = made(rng(), rate, 8 * DAY)  # type: ignore[operator]
    above, below, largest = looks(counts, np.full(len(counts), rate * 60), every=20)
    assert (above, below) == (0, 0)
    assert largest < threshold(ALARMS / TESTS)


def test_fewer_alarms_need_more_evidence() -> None:
    assert threshold(1e-2) < threshold(1e-4) < threshold(1e-6) < 8
    assert needed(1.3, 1e-4, 15) > needed(1.3, 1e-4, 60)
    assert needed(1.3, 1e-4, 15) > needed(1.6, 1e-4, 15)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.05, 40), st.floats(0.2, 3), st.integers(LEAST, DAY))
def test_statistics_do_not_depend_on_the_series_beside_them_and_are_finite_or_unknown(
    seed: int, rate: float, factor: float, minutes: int
) -> None:
    own = np.random.default_rng(seed)
    y = own.poisson(rate * factor * 60, (3, minutes)).astype(float)
    x = np.where(own.random((3, minutes)) < 0.1, 0.0, rate * 60)
    y = np.where(x > 0, y, 0.0)
    together, alone = statistics_of(y, x), statistics_of(y[1:2], x[1:2])
    assert together.z[1].tolist() == pytest.approx(alone.z[0].tolist(), nan_ok=True)
    known = together.z[np.isfinite(together.z)]
    assert known.shape[0] == 0 or np.abs(known).max() < 1e6
    assert (together.dispersion[np.isfinite(together.dispersion)] >= 1).all()
    assert together.z.shape == (3, len(LENGTHS))
