"""What instances draw of the memory bandwidth, and how neighbours slow them: predicted, against a simulation."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
from tests.performance.test_profile_catalog import A100, MIX, eight_billion, measured, profile

from scepsy.demand.statistics import LlmDemand, TokenUse
from scepsy.documents import Llm
from scepsy.performance import SHARE_MODEL, Catalog, Mix
from scepsy.pipeline import Caller, InstanceModel, LlmLoad, Shape, capped, evaluate, instance_model
from scepsy.pipeline.instance import Evaluation

Groups = tuple[tuple[int, float], ...]
CHAT = Mix(100, 400, 0)


def a_load(groups: Groups, rate: float, mix: Mix) -> LlmLoad:
    tokens = [TokenUse(mean, None) for mean in (mix.input, mix.output, 0.0)]
    calls = sum(size * frequency for size, frequency in groups)
    demand = LlmDemand(calls, 1.0, calls, groups, *tokens)
    return LlmLoad(Llm(name="llm", model="m", max_model_len=2048), (Caller("w", rate, demand),))


@functools.cache
def catalog(mix: Mix) -> Catalog:
    series = {"input": mix.input, "output": mix.output}
    return Catalog([profile(product=A100, mix=series, points=eight_billion(mix))], "1.0")


def half(load: LlmLoad, cap: float | None = None) -> InstanceModel:
    """Half an A100, held to a part of the bandwidth."""
    mix = load.callers[0].mix
    model = instance_model(load, Shape(A100, 1, 5), catalog(mix), 80 << 30)
    assert isinstance(model, InstanceModel)
    return model if cap is None else capped(model, load, catalog(mix), [cap])[0]


def figures(load: LlmLoad, replicas: int, cap: float | None = None) -> Evaluation:
    return evaluate(load, [half(load, cap)], np.array([0]), np.array([replicas]))


def bandwidth(groups: Groups, replicas: int) -> float:
    """What one half of an A100 counts for, at a rate of one execution in ten seconds."""
    return float(figures(a_load(groups, 0.1, MIX), replicas).bandwidth[0])


@pytest.mark.parametrize(
    ("shares", "tenths", "way"),
    [
        ([0.5], 5, "from the measured share 0.5"),
        ([1.0, 0.4], 5, "interpolated between measured shares 0.4 and 1"),
    ],
)
def test_measured_figures_that_are_held_to_less_bandwidth_are_modelled_and_claim_no_certainty(
    shares: list[float], tenths: int, way: str
) -> None:
    load, taken = a_load(((1, 1.0),), 0.05, MIX), Catalog([measured(share) for share in shares], "1.0")
    model = instance_model(load, Shape(A100, 1, tenths), taken, 80 << 30)
    assert isinstance(model, InstanceModel)
    (times,) = model.times
    assert (times.share_model, times.uncertainty is None) == ((None, False) if tenths / 10 in shares else (way, True))
    (held,) = capped(model, load, taken, [0.5])[0].times
    assert held.share_model == f"{SHARE_MODEL}, {way}, held to part of the bandwidth"
    assert held.uncertainty is None


def test_single_calls_draw_little_on_average_however_many_instances_there_are() -> None:
    assert bandwidth(((1, 1.0),), 2) < bandwidth(((1, 1.0),), 1) < 0.2


def test_calls_that_start_together_keep_all_instances_busy_at_once() -> None:
    assert bandwidth(((8, 0.1),), 1) < 0.2
    assert 0.5 < bandwidth(((8, 0.1),), 2) < 0.95


def test_calls_that_seldom_start_together_count_for_their_part() -> None:
    alone, together = bandwidth(((1, 0.8),), 2), bandwidth(((8, 0.1),), 2)
    both = bandwidth(((1, 0.4), (8, 0.05)), 2)
    assert both == pytest.approx((alone + together) / 2, rel=0.1)


def test_an_instance_that_is_held_to_less_bandwidth_reads_as_much_in_more_time() -> None:
    load = a_load(((1, 1.0),), 0.05, CHAT)
    free, held = figures(load, 1), figures(load, 1, 0.6)
    assert held.latency[0, 0] > 1.3 * free.latency[0, 0]
    # A little less: where calls take longer, more of them share a step.
    assert 0.9 * free.bandwidth[0] < held.bandwidth[0] < free.bandwidth[0]
    assert half(load, 0.6).limit == half(load).limit, "its engine is started alike"


def simulated(load: LlmLoad, arrivals: list[list[float]], size: int) -> float:
    """Two tenants of one card: the mean seconds until a group of `size` calls has ended, all calls of a tenant alike.

    A tenant reads at what half the SMs draw while the other is idle, and at half the bandwidth while both are busy; how
    its steps slow with that is taken from two models of it.
    """
    free, less = half(load), half(load, 0.5)
    b = free.bandwidth
    reading = (less.seconds[0] - free.seconds[0]) / (1 / 0.5 - 1 / b)
    rest = free.seconds[0] - reading / b
    todo = [sorted(times, reverse=True) for times in arrivals]
    running: list[list[list[float]]] = [[], []]  # per tenant: of each group when it came, and what is left of it
    now, spent = 0.0, []
    while any(todo) or any(running):
        rate = 0.5 if all(running) else b
        calls = [min(size * len(own), free.limit) for own in running]
        speed = [1 / (rest[k - 1] + reading[k - 1] / rate) if k else 0.0 for k in calls]
        ends = [now + min(g[1] for g in own) / v for own, v in zip(running, speed, strict=True) if own]
        then = min([*ends, *(times[-1] for times in todo if times)])
        for i in range(2):
            for group in running[i]:
                group[1] -= (then - now) * speed[i]
            spent += [then - group[0] for group in running[i] if group[1] < 1e-9]
            running[i] = [group for group in running[i] if group[1] >= 1e-9]
            if todo[i] and todo[i][-1] <= then:
                running[i].append([todo[i].pop(), 1.0])
        now = then
    return float(np.mean(spent))


def poisson(rate: float, count: int, seed: int) -> list[float]:
    random_ = random.Random(seed)
    return np.cumsum([random_.expovariate(rate) for _ in range(count)]).tolist()


def agreed(load: LlmLoad, replicas: int) -> float:
    """The largest part of the bandwidth that an instance may assume beside one like it: c + m ≤ 1."""
    fits = [c for c in np.arange(0.48, 0.95, 0.01) if c + figures(load, replicas, c).bandwidth[0] <= 1]
    return float(max(fits))


@pytest.mark.parametrize(("rate", "freely"), [(0.02, 0.95), (0.06, 0.85), (0.12, 0.72), (0.25, 0.6)])
def test_what_a_neighbour_leaves_on_average_predicts_what_it_costs(rate: float, freely: float) -> None:
    """Two LLMs that decode on half an A100 each, busy 10 to 70 % of the time if the other were not there."""
    load = a_load(((1, 1.0),), rate, CHAT)
    truth = simulated(load, [poisson(rate, 3000, seed) for seed in (1, 2)], 1)
    predicted = float(figures(load, 1, agreed(load, 1)).latency[0, 0])
    assert 0.95 < predicted / truth < 1.25
    # As if sharing were free, though even the averages of the first three sum to less than 1.
    assert figures(load, 1).latency[0, 0] / truth < freely


def test_replicas_that_are_called_together_slow_each_other_all_the_time() -> None:
    """Groups of eight calls, four to each of two replicas on one card: that neither is busy for long does not help."""
    rate = 0.02
    load = a_load(((8, 1.0),), rate, CHAT)
    arrivals = poisson(rate, 1000, 3)
    truth = simulated(load, [arrivals, arrivals], 4)
    predicted = float(figures(load, 2, agreed(load, 2)).latency[0, 0])
    assert 0.95 < predicted / truth < 1.25
    assert float(figures(load, 2).latency[0, 0]) / truth < 0.7
