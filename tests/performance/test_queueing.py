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

from scepsy.performance import Stream, latencies, rounds

LIMIT = 32
R = 0.020 * (1 + np.arange(1, LIMIT + 1) / 20)
CAPACITY = LIMIT / R[-1]


def stream(seconds: np.ndarray, size: int, rate: float) -> Stream:
    """A stream that reaches one instance."""
    column, sizes = seconds[:, None], np.array([size])
    return Stream(column, sizes, np.array([rate]), rounds(column, sizes, np.array([len(seconds)])))


def predicted(size: int, load: float, seconds: np.ndarray = R) -> float:
    capacity = len(seconds) / seconds[-1]
    return float(latencies([stream(seconds, size, load * capacity / size)])[0][0][0])


def simulated(size: int, load: float, calls: int = 30_000) -> float:
    """Mean time until a group's last call ends, of equal calls that share an instance, the rest waiting in order."""
    return simulate([(size, load * CAPACITY / size, 1.0)], calls)[0]


def simulate(classes: list[tuple[int, float, float]], calls: int = 40_000) -> list[float]:
    """The same for classes of (group size, groups per second, work of a call): R of a call is its work times R."""
    rng = random.Random(repr(classes))
    total = sum(rate for _, rate, _ in classes)
    clock = progress = 0.0
    next_arrival = rng.expovariate(total)
    running: list[tuple[float, int]] = []
    waiting: deque[int] = deque()
    arrived: dict[int, tuple[float, int, list[int]]] = {}
    ended: list[list[float]] = [[] for _ in classes]
    done = group = 0
    while done < calls:
        step = (running[0][0] - progress) * R[len(running) - 1] if running else math.inf
        if clock + step < next_arrival:
            clock += step
            progress, owner = heapq.heappop(running)
            done += 1
            start, kind, left = arrived[owner]
            left[0] -= 1
            if not left[0]:
                ended[kind].append(clock - start)
                del arrived[owner]
            if waiting:
                following = waiting.popleft()
                heapq.heappush(running, (progress + classes[arrived[following][1]][2], following))
        else:
            if running:
                progress += (next_arrival - clock) / R[len(running) - 1]
            clock = next_arrival
            next_arrival = clock + rng.expovariate(total)
            kind = rng.choices(range(len(classes)), [rate for _, rate, _ in classes])[0]
            group += 1
            size, _, work = classes[kind]
            arrived[group] = (clock, kind, [size])
            for _ in range(size):
                if len(running) < LIMIT:
                    heapq.heappush(running, (progress + work, group))
                else:
                    waiting.append(group)
    return [float(np.mean(times)) for times in ended]


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


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 3 * LIMIT + 7])
def test_a_group_larger_than_the_limit_runs_in_rounds(size: int) -> None:
    full, rest = divmod(size - 1, LIMIT)
    expected = full * R[-1] + R[rest]
    assert predicted(size, 1e-6) == pytest.approx(float(expected), rel=1e-3)
    assert simulated(size, 1e-3, 3_000) == pytest.approx(float(expected), rel=0.01)


@pytest.mark.parametrize("load", [0.2, 0.4, 0.6])
def test_short_groups_beside_long_single_calls_are_predicted_within_fifteen_percent(load: float) -> None:
    short, long = 0.3, 3.0
    rate = load * CAPACITY / (short + long)  # equal call rates
    classes = [(20, rate / 20, short), (1, rate, long)]
    found, _, _ = latencies([stream(R * work, size, groups) for size, groups, work in classes])
    assert [float(f[0]) for f in found] == pytest.approx(simulate(classes), rel=0.15)


def test_short_single_calls_beside_long_groups_are_the_known_weak_spot() -> None:
    classes = [(1, 0.3 * CAPACITY / 3.3, 0.3), (20, 0.3 * CAPACITY / 3.3 / 20, 3.0)]
    found, _, _ = latencies([stream(R * work, size, groups) for size, groups, work in classes])
    short, long = (float(f[0]) for f in found)
    assert [short, long] == pytest.approx(simulate(classes), rel=0.45)
    assert short < simulate(classes)[0], "no longer too fast? then say so where it is documented"


def test_one_server_is_the_m_m_1_queue() -> None:
    for load in (0.2, 0.5, 0.9):
        assert predicted(1, load, np.array([0.05])) == pytest.approx(0.05 / (1 - load), rel=1e-9)


def test_at_and_beyond_capacity_the_latency_is_infinite() -> None:
    assert predicted(1, 1.0) == math.inf
    assert predicted(20, 1.3) == math.inf


def test_two_classes_at_the_common_load_each_have_their_own_latency() -> None:
    short, long = R * 0.5, R * 1.5
    rate = 0.3 * CAPACITY
    (fast, slow), utilisation, _ = latencies([stream(short, 1, rate), stream(long, 1, rate)])
    assert utilisation[0] == pytest.approx(0.6)
    assert slow[0] / fast[0] == pytest.approx(3.0, rel=0.02)
    assert (fast[0] + slow[0]) / 2 == pytest.approx(predicted(1, 0.6), rel=1e-6)


def test_splitting_a_stream_in_two_equal_ones_changes_nothing() -> None:
    whole = latencies([stream(R, 3, 100.0)])
    half = stream(R, 3, 50.0)
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
    columns, sizes = np.repeat(seconds[:, None], 2, axis=1), np.array([size, size])
    alone = rounds(columns, sizes, np.array([len(seconds)] * 2))
    batch = Stream(columns, sizes, loads * capacity / size, alone)
    (both,), utilisation, busy = latencies([batch])
    assert both[0] == pytest.approx(predicted(size, load * 0.5, seconds), rel=1e-6)
    assert both[1] == pytest.approx(predicted(size, load, seconds), rel=1e-6)
    assert both[0] <= both[1] * (1 + 1e-9)
    assert utilisation == pytest.approx(loads)
    assert ((busy > 0) & (busy < 1)).all()
