"""Workloads that a mean stands for, and workloads that it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.demand.stability import Stability, described, stability_of, warnings

TWO = ("helper", "generator")


def judged(calls: np.ndarray, spent: np.ndarray, llms: tuple[str, ...] = TWO) -> Stability:
    return stability_of(llms, calls.astype(float), spent)


def rag(random: np.random.Generator, executions: int, shape: float, seconds: tuple[float, float]) -> Stability:
    """Loops of retrieval and answer, geometric in number, with gamma-distributed calls."""
    loops = np.minimum(random.geometric(0.4, executions), 10)
    calls = np.stack([loops, loops], axis=1)
    return judged(calls, random.gamma(calls * shape) / shape * seconds)


def sessions(random: np.random.Generator, executions: int) -> tuple[np.ndarray, np.ndarray]:
    """Long coding sessions: the share of the small model is anything, whatever the number of calls."""
    share = random.beta(0.55, 3.1, executions)
    number = np.round(random.lognormal(4.3, 1.0, executions)) + 10
    seconds = number * 8.0
    calls = np.stack([np.ceil(number * share), np.ceil(number * (1 - share))], axis=1)
    return calls, np.stack([seconds * share, seconds * (1 - share)], axis=1) + 1e-3


@pytest.mark.parametrize("shape", [1.0, 2.0, 50.0])
@pytest.mark.parametrize("executions", [20, 60, 300])
@pytest.mark.parametrize("seconds", [(1.0, 1.0), (0.3, 5.0)])
def test_retrieval_with_loops_is_stable(executions: int, shape: float, seconds: tuple[float, float]) -> None:
    random = np.random.default_rng([executions, int(shape)])
    alarms = [w for _ in range(25) for w in warnings(rag(random, executions, shape, seconds))]
    assert alarms == []


def test_coding_sessions_with_a_large_and_a_small_model_are_not_stable() -> None:
    random = np.random.default_rng(5)
    flagged = [not judged(*sessions(random, 100)).stable for _ in range(40)]
    assert np.mean(flagged) > 0.9


def test_the_warning_gives_mean_range_and_extremes_of_the_smaller_of_two_llms() -> None:
    share = np.linspace(0.01, 0.6, 60)
    calls = np.full((60, 2), 100)
    stability = judged(calls, 1000 * np.stack([share, 1 - share], axis=1))
    assert warnings(stability, "coding") == [
        "coding: the share of helper in LLM time varies from 6.9% to 54% (10th to 90th percentile of 60"
        " executions; mean 30%, extremes 1% and 60%): an allocation for the mean fits few of them"
    ]


@pytest.mark.parametrize("executions", [0, 1, 4])
def test_few_executions_tell_nothing(executions: int) -> None:
    stability = judged(np.ones((executions, 2)), np.ones((executions, 2)))
    assert (stability.known, stability.shares, stability.kinds) == (False, (), ())
    noun = "execution with LLM time is" if executions == 1 else "executions with LLM time are"
    assert warnings(stability, "w") == [
        f"w: {executions} {noun} too few to know whether their mean is representative (at least 20 are needed)"
    ]


def test_nineteen_equal_executions_are_no_proof_and_twenty_are() -> None:
    few, enough = (judged(np.ones((n, 2)), np.ones((n, 2))) for n in (19, 20))
    assert (few.known, few.stable, few.variation) == (True, None, 0.0)
    assert (enough.stable, warnings(enough)) == (True, [])


def test_what_few_executions_show_is_said_with_numbers() -> None:
    # Eight coding sessions: the helper has 4 % to 42 % of the time, which chance could hardly do, but eight are few.
    share = np.array([0.23, 0.42, 0.22, 0.22, 0.07, 0.18, 0.04, 0.10])
    stability = judged(np.full((8, 2), 30.0), 1000 * np.stack([share, 1 - share], axis=1))
    assert stability.stable is None
    assert warnings(stability, "coding") == [
        "coding: 8 executions with LLM time are too few to know whether their mean is representative (at least 20 are needed):"
        " the share of helper in LLM time ranges from 4% to 42% (mean 18%)"
    ]


def test_one_llm_has_every_share_so_only_its_seconds_can_be_unstable() -> None:
    random = np.random.default_rng(6)
    even = stability_of(("a",), np.full((400, 1), 3.0), random.gamma(3.0, 1.0, (400, 1)))
    assert (even.shares[0].mean, even.stable) == (1.0, True)
    heavy = stability_of(("a",), np.full((400, 1), 3.0), random.lognormal(0.0, 2.0, (400, 1)))
    assert heavy.heavy
    assert [w for w in warnings(heavy) if w.startswith("the longest tenth of 400 executions holds ")]


def test_exponential_seconds_are_no_heavy_tail() -> None:
    random = np.random.default_rng(7)
    heavy = [
        stability_of(("a",), np.ones((n, 1)), random.exponential(1.0, (n, 1))).heavy
        for n in (20, 100)
        for _ in range(200)
    ]
    assert np.mean(heavy) < 0.01


@pytest.mark.parametrize("executions", [40, 200, 5_000])
@pytest.mark.parametrize("fraction", [0.15, 0.5])
def test_two_kinds_of_executions_are_told_apart_and_described(executions: int, fraction: float) -> None:
    random = np.random.default_rng(executions)
    slow = np.arange(executions) < fraction * executions
    spent = np.stack([np.where(slow, 12.0, 0.3), np.full(executions, 2.0)], axis=1) * random.gamma(
        20, 0.05, (executions, 2)
    )
    calls = np.stack([np.where(slow, 3, 1), np.ones(executions)], axis=1)
    stability = judged(calls, spent)
    fast, long = sorted(stability.kinds, key=lambda kind: kind.seconds[0])
    assert long.fraction == pytest.approx(fraction, abs=0.005)
    assert np.mean(np.array(long.members) == slow) > 0.995
    assert (fast.seconds[0], long.seconds[0]) == pytest.approx((0.3, 12.0), rel=0.1)
    assert not stability.stable
    assert "executions fall into 2 kinds by " in warnings(stability, "w")[-1]


def test_kinds_are_described_with_their_fraction_seconds_and_calls() -> None:
    slow = np.arange(100) < 15
    spent = np.stack([np.where(slow, 12.0, 0.3), np.full(100, 2.0)], axis=1)
    stability = judged(np.stack([np.where(slow, 3, 1), np.ones(100)], axis=1), spent)
    assert described(stability) == (
        f"executions fall into 2 kinds by {stability.by}: 85% with 0.3 s in 1 call of helper,"
        " 2 s in 1 call of generator; 15% with 12 s in 3 calls of helper, 2 s in 1 call of generator."
        " Two workflows, one per kind, can be planned better"
    )


ONE_KIND = {
    "normal": lambda random, n: (np.ones(n), np.maximum(0.01, random.normal(10, 2, n))),
    "uniform": lambda random, n: (np.ones(n), random.uniform(0.01, 1, n)),
    "exponential": lambda random, n: (np.ones(n), random.exponential(1, n)),
    "lognormal": lambda random, n: (np.ones(n), random.lognormal(0, 1, n)),
    "gamma": lambda random, n: (np.ones(n), random.gamma(2, 1, n)),
    "Poisson counts": lambda random, n: (c := 1 + random.poisson(4, n), c * 1.0),
    "geometric counts": lambda random, n: (c := random.geometric(0.5, n), c * 1.0),
}


@pytest.mark.parametrize("name", ONE_KIND)
@pytest.mark.parametrize(("executions", "rounds"), [(10, 150), (50, 60), (300, 12), (5_000, 2)])
def test_one_kind_is_not_taken_for_two(name: str, executions: int, rounds: int) -> None:
    random = np.random.default_rng(executions)
    drawn = [ONE_KIND[name](random, executions) for _ in range(rounds)]
    alarms = [bool(stability_of(("a",), c[:, None].astype(float), s[:, None]).kinds) for c, s in drawn]
    assert sum(alarms) <= 1


def test_the_verdict_is_the_same_every_time() -> None:
    calls, spent = sessions(np.random.default_rng(8), 50)
    assert judged(calls, spent) == judged(calls, spent)


def test_executions_without_llm_time_belong_to_no_kind() -> None:
    spent = np.zeros((50, 2))
    spent[:40] = [1.0, 2.0]
    stability = judged(np.ones((50, 2)), spent)
    assert (stability.executions, stability.stable) == (40, True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_any_trace_gets_a_verdict(executions: int, llms: int, seed: int, rounded: bool) -> None:
    random = np.random.default_rng(seed)
    calls = random.poisson(1.5, (executions, llms)).astype(float)
    spent = random.gamma(0.3, 1.0, (executions, llms)) * calls
    stability = stability_of([f"m{m}" for m in range(llms)], calls, np.round(spent) if rounded else spent)
    for share in stability.shares:
        assert 0 <= share.least <= share.p10 <= share.p90 <= share.most <= 1 + 1e-12
    assert sum(kind.fraction for kind in stability.kinds) == pytest.approx(1.0 if stability.kinds else 0.0)
    assert bool(warnings(stability, "w")) == (stability.stable is not True)
