"""A few points become a curve: nondecreasing, within ten percent of what was left out, with an interval that holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.documents import Profile, Series, load_file
from scepsy.performance.curves import UNKNOWN_INTERVAL, bends, curve, half_width, interval, pooled

KS = np.array([1.0, 2, 4, 8, 16, 32, 64, 128])


def engine(seed: int) -> np.ndarray:
    """R(k) for k = 1 … 128 of a simulated engine: steps bound by memory, then by arithmetic, and prompts between."""
    rng = np.random.default_rng(seed)
    k = np.arange(1.0, 129)
    weights, token = rng.uniform(0.005, 0.03), rng.uniform(1e-5, 2e-4)
    cache, prompt, output = rng.uniform(0, 2e-4), rng.uniform(0.01, 0.2), rng.uniform(20, 400)
    step = np.hypot(weights, token * k) + cache * k + prompt * (k - 1) / output
    return prompt + step * output


def taken(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is true, what is measured at KS, and the intervals that the measurements state."""
    rng = np.random.default_rng(10_000 + seed)
    truth = engine(seed)
    own = noise * rng.uniform(0.5, 1.5, len(KS))
    return truth, truth[KS.astype(int) - 1] * np.exp(rng.normal(0, own / 1.96)), own


def test_points_that_rise_are_kept_and_between_them_the_curve_is_linear_in_k() -> None:
    fit = pooled(np.array([1.0, 3.0, 4.0]), np.full(3, 0.05))
    assert curve(np.array([2.0, 4, 8]), fit, 8) == pytest.approx([1, 1, 2, 3, 3.25, 3.5, 3.75, 4])


def test_one_high_outlier_does_not_lift_what_follows() -> None:
    """A running maximum would say 3.0 from k = 4 on up to 16."""
    values = np.array([1.0, 1.1, 3.0, 1.3, 1.8, 3.2, 6.0, 11.0])
    doubtful = np.where(values == 3.0, 0.5, 0.03)
    assert pooled(values, doubtful).values[2:5] == pytest.approx([1.304, 1.304, 1.8], abs=0.01)
    equal = pooled(values, np.full(8, 0.05)).values
    assert equal[2:5] == pytest.approx(np.full(3, (3.0 * 1.3 * 1.8) ** (1 / 3)), rel=1e-9)


def test_points_that_contradict_each_other_widen_the_interval() -> None:
    values = np.array([1.0, 2.0, 1.0, 4.0])
    fit = pooled(values, np.full(4, 0.05))
    assert fit.interval[1] > 0.5 > fit.interval[0]
    assert fit.interval[3] == 0.05


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0.0, 1.0)), min_size=1, max_size=30))
def test_the_curve_never_falls_and_stays_within_the_points(points: list[tuple[float, float]]) -> None:
    values, intervals = np.array(points).T
    fit = pooled(values, intervals)
    ks = np.cumsum(np.arange(1.0, len(values) + 1))
    found = curve(ks, fit, int(ks[-1]))
    assert len(found) == int(ks[-1])
    assert (np.diff(found) >= -1e-9 * found[1:]).all()
    assert values.min() * (1 - 1e-9) <= found.min() <= found.max() <= values.max() * (1 + 1e-9)
    assert (interval(ks, fit, int(ks[-1])) > 0).all()


def test_it_is_the_weighted_isotonic_regression_of_logarithms() -> None:
    """No nondecreasing values among many random ones are nearer."""
    rng = np.random.default_rng(1)
    values, intervals = np.exp(rng.normal(0, 1, 6)), rng.uniform(0.02, 0.3, 6)
    best = pooled(values, intervals).values

    def distance(candidate: np.ndarray) -> float:
        return float((((np.log(candidate) - np.log(values)) / intervals) ** 2).sum())

    for _ in range(3000):
        other = np.maximum.accumulate(best * np.exp(rng.normal(0, 0.1, 6)))
        assert distance(other) >= distance(best) - 1e-9


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_point_that_was_left_out_is_within_ten_percent_below_80_percent_of_saturation(noise: float) -> None:
    errors = []
    for seed in range(60):
        truth, values, own = taken(seed, noise)
        rate = np.arange(1, 129) / truth
        for i in range(1, len(KS) - 1):
            if rate[int(KS[i]) - 1] > 0.8 * rate.max():
                continue
            rest = np.arange(len(KS)) != i
            found = curve(KS[rest], pooled(values[rest], own[rest]), 128)
            errors.append(abs(found[int(KS[i]) - 1] / truth[int(KS[i]) - 1] - 1))
    assert np.quantile(errors, 0.95) < 0.10
    assert np.median(errors) < 0.03


def shipped() -> list[Series]:
    folder = Path(__file__).resolve().parents[2] / "examples/profiles"
    documents = [load_file(path, path.name, Profile)[1][0].document for path in sorted(folder.glob("*.yaml"))]
    return [series for document in documents for series in document.spec.series]


def test_a_point_of_a_shipped_profile_that_was_left_out_is_within_ten_percent() -> None:
    """Between points that are then a factor of four apart; below 80 % of the best throughput."""
    errors = []
    for series in shipped():
        ks = np.array([p.concurrency for p in series.points], dtype=float)
        values = np.array([p.latency for p in series.points])
        rate = ks / values
        for i in range(1, len(ks) - 1):
            if rate[i] <= 0.8 * rate.max():
                rest = np.arange(len(ks)) != i
                found = curve(ks[rest], pooled(values[rest], np.full(len(ks) - 1, 0.05)), int(ks[-1]))
                errors.append(abs(found[int(ks[i]) - 1] / values[i] - 1))
    assert len(errors) > 500
    assert np.mean(np.array(errors) < 0.10) > 0.95
    assert np.mean(errors) < 0.03


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("k", [1, 3, 8, 24, 48, 96, 128])
def test_the_interval_contains_the_truth_in_nine_of_ten_measurements(noise: float, k: int) -> None:
    held = []
    for seed in range(300):
        truth, values, own = taken(seed, noise)
        fit = pooled(values, own)
        found, half = curve(KS, fit, 128)[k - 1], interval(KS, fit, 128)[k - 1]
        held.append(abs(truth[k - 1] / found - 1) <= half)
    assert np.mean(held) >= 0.9


def test_a_bend_between_sparse_points_widens_the_interval_there_and_a_line_does_not() -> None:
    ks = np.array([1.0, 16, 64, 128])
    bent = pooled(np.array([1.0, 1.05, 3.0, 8.0]), np.full(4, 0.01))
    line = pooled(1 + 0.1 * ks, np.full(4, 0.01))
    assert (bends(ks, line) == 0).all()
    assert interval(ks, bent, 128)[39] > 0.05
    assert interval(ks, line, 128)[39] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("stated", "estimated", "expected"),
    [
        (0.02, False, 0.02),
        (None, False, UNKNOWN_INTERVAL),
        (None, True, UNKNOWN_INTERVAL),
        (0.3, True, UNKNOWN_INTERVAL),
    ],
)
def test_estimates_weigh_alike_and_a_measurement_without_an_interval_has_the_usual_one(
    stated: float | None, estimated: bool, expected: float
) -> None:
    assert half_width(stated, estimated=estimated) == expected
