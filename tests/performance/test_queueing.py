"""The queueing model against a simulated queue, and against what is known exactly."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.performance import Stream, latencies

LIMIT = 32
R = 0.020 * (1 + np.arange(1, LIMIT + 1) / 20)
CAPACITY = LIMIT / R[-1]


def predicted(size: int, load: float, seconds: np.ndarray = R) -> float:
    capacity = len(seconds) / seconds[-1]
    stream = Stream(seconds[:, None], np.array([size]), np.array([load * capacity / size]))
    return float(latencies([stream])[0][0][0])


def simulated(size: int, load: float, calls: int = 30_000) -> float:
    """Mean time until a group's last call ends, of equal calls that share an instance, the rest waiting in order."""
    rng = random.Random(size * 1000 + round(load * 100))
    rate = load * CAPACITY / size
    clock = progress = 0.0
    next_arrival = rng.expovariate(rate)
    running: list[tuple[float, int]] = []
    waiting: deque[int] = deque()
    arrived: dict[int, tuple[float, list[int]]] = {}
    ended: list[float] = []
    done = group = 0
    while done < calls:
        step = (running[0][0] - progress) * R[len(running) - 1] if running else math.inf
        if clock + step < next_arrival:
            clock += step
            progress, owner = heapq.heappop(running)
            done += 1
            start, left = arrived[owner]
            left[0] -= 1
            if not left[0]:
                ended.append(clock - start)
                del arrived[owner]
            if waiting:
                heapq.heappush(running, (progress + 1, waiting.popleft()))
        else:
            if running:
                progress += (next_arrival - clock) / R[len(running) - 1]
            clock = next_arrival
            next_arrival = clock + rng.expovariate(rate)
            group += 1
            arrived[group] = (clock, [size])
            for _ in range(size):
                if len(running) < LIMIT:
                    heapq.heappush(running, (progress + 1, group))
                else:
                    waiting.append(group)
    return float(np.mean(ended))


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_single_calls_are_predicted_within_six_percent(load: float) -> None:
    assert predicted(1, load) == pytest.approx(simulated(1, load), rel=0.06)


@pytest.mark.parametrize("size", [4, 20, 60])
@pytest.mark.parametrize("load", [0.1, 0.4, 0.7])
def test_groups_are_predicted_within_twenty_percent_up_to_70_percent_load(size: int, load: float) -> None:
    assert predicted(size, load) == pytest.approx(simulated(size, load), rel=0.20)


@pytest.mark.parametrize("size", [1, 8, 32])
def test_at_hardly_any_load_a_group_of_g_takes_r_of_g(size: int) -> None:
    assert predicted(size, 1e-6) == pytest.approx(float(R[size - 1]), rel=1e-3)


def test_a_group_larger_than_the_limit_waits_for_the_rest() -> None:
    wait = R[-1] / LIMIT  # per call beyond the limit
    assert predicted(LIMIT + 10, 1e-6) == pytest.approx(float(R[-1] + 10 * wait), rel=1e-3)


def test_one_server_is_the_m_m_1_queue() -> None:
    for load in (0.2, 0.5, 0.9):
        assert predicted(1, load, np.array([0.05])) == pytest.approx(0.05 / (1 - load), rel=1e-9)


def test_at_and_beyond_capacity_the_latency_is_infinite() -> None:
    assert predicted(1, 1.0) == math.inf
    assert predicted(20, 1.3) == math.inf


def test_two_classes_at_the_common_load_each_have_their_own_latency() -> None:
    short, long = R * 0.5, R * 1.5
    rate = np.array([0.3 * CAPACITY])
    one = np.array([1])
    (fast, slow), utilisation, _ = latencies([Stream(short[:, None], one, rate), Stream(long[:, None], one, rate)])
    assert utilisation[0] == pytest.approx(0.6)
    assert slow[0] / fast[0] == pytest.approx(3.0, rel=0.02)
    assert (fast[0] + slow[0]) / 2 == pytest.approx(predicted(1, 0.6), rel=1e-6)


def test_splitting_a_stream_in_two_equal_ones_changes_nothing() -> None:
    whole = latencies([Stream(R[:, None], np.array([3]), np.array([100.0]))])
    half = Stream(R[:, None], np.array([3]), np.array([50.0]))
    both = latencies([half, half])
    assert both[0][0][0] == pytest.approx(whole[0][0][0], rel=1e-12)
    assert both[2][0] == pytest.approx(whole[2][0], rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.floats(0.01, 0.94),
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60).map(np.cumsum),
)
def test_a_batch_gives_what_its_members_give_and_latency_rises_with_load(
    size: int, load: float, raw: np.ndarray
) -> None:
    k = np.arange(1, len(raw) + 1)
    seconds = k / np.cumsum(1 / raw[: len(k)])  # n ÷ R(n) rising
    capacity = len(seconds) / seconds[-1]
    loads = np.array([load * 0.5, load])
    batch = Stream(np.repeat(seconds[:, None], 2, axis=1), np.array([size, size]), loads * capacity / size)
    (both,), utilisation, busy = latencies([batch])
    assert both[0] == pytest.approx(predicted(size, load * 0.5, seconds), rel=1e-6)
    assert both[1] == pytest.approx(predicted(size, load, seconds), rel=1e-6)
    assert both[0] <= both[1] * (1 + 1e-9)
    assert utilisation == pytest.approx(loads)
    assert ((busy > 0) & (busy < 1)).all()
