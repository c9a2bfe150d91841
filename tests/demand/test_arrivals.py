"""Arrivals whose rate and burstiness are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.demand.arrivals import FEWEST, Arrivals, Pauses, arrivals_of, pauses_of

UNIX = 1_700_000_000.0


def poisson(count: int, seed: int = 0) -> np.ndarray:
    """One arrival per second on average."""
    return UNIX + np.cumsum(np.random.default_rng([count, seed]).exponential(1.0, count))


def found(began: np.ndarray) -> Arrivals:
    arrivals = arrivals_of(began)
    assert isinstance(arrivals, Arrivals), arrivals
    return arrivals


@pytest.mark.parametrize(
    ("began", "why"),
    [
        (np.array([UNIX]), "1 execution is too few to estimate a rate (at least 10 are needed)"),
        (UNIX + np.arange(9.0), "9 executions are too few to estimate a rate (at least 10 are needed)"),
        (np.zeros(14), "14 of 14 executions begin at the same instant: the trace has no common clock"),
        (np.array([0.0] * 12 + [3.0, 5.0]), "12 of 14 executions begin at the same instant"),
    ],
)
def test_what_cannot_be_known_is_said(began: np.ndarray, why: str) -> None:
    assert str(arrivals_of(began)).startswith(why)


def test_the_rate_counts_intervals_not_executions() -> None:
    assert found(UNIX + np.arange(11) * 2.0).rate == pytest.approx(0.5)


@pytest.mark.parametrize(("count", "error"), [(30, 0.1), (400, 0.05), (10_000, 0.03)])
def test_poisson_arrivals_have_dispersion_one(count: int, error: float) -> None:
    mean = np.mean([found(poisson(count, seed)).dispersion for seed in range(100)])
    assert mean == pytest.approx(1.0, abs=error)


@pytest.mark.parametrize("size", [2, 5, 20])
def test_batches_at_random_times_have_the_dispersion_of_their_size(size: int) -> None:
    began = np.repeat(poisson(20_000 // size), size)
    assert found(began).dispersion == pytest.approx(size, rel=0.2)


def test_few_batches_are_told_by_their_intervals() -> None:
    sizes = [found(np.repeat(poisson(8, seed), 10)).dispersion for seed in range(300)]
    assert np.mean(sizes) == pytest.approx(10, rel=0.2)


def test_a_batch_need_not_begin_at_the_very_same_instant() -> None:
    exact = np.repeat(UNIX + np.arange(8) ** 2 * 10.0, 10)
    assert found(exact + np.tile(np.arange(10) * 1e-3, 8)).dispersion == pytest.approx(
        found(exact).dispersion, rel=0.01
    )


@pytest.mark.parametrize("count", [20, 99, 100, 3_000])
def test_a_metronome_has_dispersion_zero_and_a_certain_rate(count: int) -> None:
    arrivals = found(UNIX + np.arange(count) * 3.0)
    assert arrivals.dispersion < 0.05
    assert arrivals.low == pytest.approx(1 / 3, rel=0.1)
    assert arrivals.high == pytest.approx(1 / 3, rel=0.1)


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda seed: poisson(20, seed), 1.0),
        (lambda seed: poisson(300, seed), 1.0),
        (lambda seed: np.repeat(poisson(40, seed), 10), 10.0),
    ],
)
def test_the_interval_of_the_rate_holds_it_about_95_times_of_100(draw, truth: float) -> None:
    held = [a.low <= truth <= a.high for a in (found(draw(seed)) for seed in range(400))]
    assert 0.89 <= np.mean(held) <= 0.99


def test_bursts_make_the_rate_less_sure() -> None:
    even, bursts = found(poisson(1000)), found(np.repeat(poisson(100), 10))
    assert np.log(bursts.high / bursts.low) > 2 * np.log(even.high / even.low)


def test_windows_hold_five_arrivals_on_average() -> None:
    arrivals = found(UNIX + np.arange(101) * 2.0)
    assert (arrivals.window, arrivals.count) == (10.0, 101)


def test_a_night_is_a_pause_and_stays_in_the_rate() -> None:
    began = np.concatenate([UNIX + np.arange(50) * 10.0, UNIX + 50_000 + np.arange(50) * 10.0])
    assert pauses_of(began) == Pauses(count=1, seconds=49_510.0, rate=0.1)
    assert found(began).rate == pytest.approx(99 / 50_490)


def test_random_arrivals_and_bursts_hold_no_pauses() -> None:
    assert sum(pauses_of(poisson(200, seed)) is not None for seed in range(300)) <= 4
    assert pauses_of(np.repeat(poisson(20), 10) + np.tile(np.arange(10) * 1e-4, 20)) is None
    assert pauses_of(np.zeros(50)) is None
    assert pauses_of(UNIX + np.arange(FEWEST - 1.0)) is None


@given(st.lists(st.floats(-1e9, 4e9), min_size=1, max_size=150))
def test_any_beginnings_give_an_answer_in_any_order(began: list[float]) -> None:
    arrivals = arrivals_of(np.array(began))
    assert arrivals == arrivals_of(np.array(began[::-1]))
    if isinstance(arrivals, Arrivals):
        assert 0 < arrivals.low <= arrivals.rate <= arrivals.high
        assert 0 <= arrivals.dispersion < np.inf
        assert arrivals.window > 0
    pauses_of(np.array(began))
