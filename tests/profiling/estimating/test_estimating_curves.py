"""R(k) from the steps of an engine: cases with known answers, and what holds for every engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.profiling.estimating import Ask, Kind, Load, Steps, curve, equal_calls, spread
from scepsy.profiling.estimating.correction import Correction, corrected
from scepsy.profiling.estimating.curves import CONCURRENCIES, running, times, wait_for_prompts
from scepsy.profiling.estimating.mixes import Mix

AS_IS = Correction(kernels=1, call=0, layer=0)


def engine(token: float = 1e-4, weights: float = 10e-3, call: float = 1e-4, room: int = 10**9) -> Ask:
    """An engine of which every step takes `weights`, `token` per prompt token and `call` per decode."""

    def ask(load: Load) -> Steps:
        prompts = token * load.input * load.prompts
        mixed_steps = -(-load.batch // load.prompts)
        decode = weights + call * load.batch if load.output > 1 else 0.0
        return Steps(
            mixed=weights + prompts + (call * (load.batch - load.prompts)),
            mixed_steps=mixed_steps,
            decode=decode,
            decode_steps=max(0, load.output - mixed_steps),
            fits=load.batch * (load.input + load.output) <= room,
        )

    return ask


@pytest.mark.parametrize(
    ("concurrency", "kind", "batch", "prompts"),
    [
        (1, Kind(512, 64, 1), 1, 1),
        (64, Kind(512, 64, 1), 64, 1),  # one call leaves per step, one joins
        (65, Kind(512, 64, 1), 65, 2),
        (256, Kind(256, 8, 1), 248, 31),  # 8192 // 263 prompts join per step, the other 8 calls wait
        (256, Kind(512, 1, 1), 16, 16),
        (8, Kind(9000, 1, 1), 1, 1),  # a prompt above the budget is split, and is alone
    ],
)
def test_calls_run_as_far_as_the_token_budget_lets_their_prompts_join(
    concurrency: int, kind: Kind, batch: int, prompts: int
) -> None:
    assert running(concurrency, kind, 8192) == Load(kind.input, kind.output, batch, prompts)


def test_a_single_call_takes_its_prefill_and_its_decodes() -> None:
    load = Load(512, 64, 1, 1)
    steps = Steps(mixed=0.050, mixed_steps=1, decode=0.010, decode_steps=63, fits=True)
    latency, ttft, tpot = times(1, load, steps, delay=0.020)
    assert (latency, ttft, tpot) == pytest.approx((0.020 + 0.050 + 63 * 0.010, 0.070, 0.010))


def test_calls_of_one_token_take_the_time_to_prefill_them_back_to_back() -> None:
    load = Load(512, 1, 16, 16)
    steps = Steps(mixed=0.400, mixed_steps=1, decode=0, decode_steps=0, fits=True)
    assert times(64, load, steps, delay=0.020) == pytest.approx((1.6, 1.6, 0))
    assert times(16, load, steps, delay=0.020) == pytest.approx((0.42, 0.42, 0))


def test_a_call_among_others_waits_for_the_step_in_progress() -> None:
    load = Load(100, 101, 2, 1)
    steps = Steps(mixed=0.030, mixed_steps=2, decode=0.010, decode_steps=99, fits=True)
    mean_step = (2 * 0.030 + 99 * 0.010) / 101
    assert times(2, load, steps, delay=0).latency == pytest.approx(0.010 + 0.030 + 100 * mean_step)


def test_the_wait_for_other_prompts_is_that_of_a_queue_with_constant_service() -> None:
    load = Load(1000, 1001, 100, 1)
    steps = Steps(mixed=0.060, mixed_steps=100, decode=0.010, decode_steps=900, fits=True)
    busy = 100 * 0.050 / (100 * 0.060 + 900 * 0.010)
    assert wait_for_prompts(load, steps) == pytest.approx(busy / (2 * (1 - busy)) * 0.050)


def test_that_wait_moves_time_before_the_first_token_and_lengthens_no_call() -> None:
    load = Load(1000, 1001, 100, 1)
    steps = Steps(mixed=0.060, mixed_steps=100, decode=0.010, decode_steps=900, fits=True)
    found = times(100, load, steps, delay=0)
    assert found.latency == pytest.approx(0.010 + 0.060 + 1000 * 0.015)
    assert found.tpot == pytest.approx(0.015 - wait_for_prompts(load, steps) / 1000)
    assert found.ttft + 1000 * found.tpot == pytest.approx(found.latency)


def test_a_series_ends_where_memory_does() -> None:
    found = curve(engine(room=10 * 576), 1, equal_calls(512, 64), 8192, 0, AS_IS)
    assert [point.concurrency for point in found.points] == [1, 2, 4, 8]


def test_an_outlier_of_the_table_is_smoothed_by_a_running_maximum_that_is_counted() -> None:
    plain = engine()

    def ask(load: Load) -> Steps:
        steps = plain(load)
        slow = 2.0 if load.batch == 4 else 1.0
        return Steps(steps.mixed * slow, steps.mixed_steps, steps.decode * slow, steps.decode_steps, steps.fits)

    found = curve(ask, 1, equal_calls(512, 64), 8192, 0, AS_IS)
    latencies = [point.latency for point in found.points]
    assert latencies == sorted(latencies)
    assert len(found.raised) == 2  # k = 8 and 16 lie below the outlier
    for point in found.points:
        assert point.ttft + (point.tpot or 0) * 63 == pytest.approx(point.latency)


def test_the_correction_adds_a_factor_and_the_host_s_work_per_call() -> None:
    load = Load(512, 64, 100, 2)
    steps = Steps(mixed=0.040, mixed_steps=50, decode=0.010, decode_steps=14, fits=True)
    found = corrected(load, steps, Correction(kernels=1.1, call=20e-6, layer=1))
    assert (found.mixed, found.decode) == pytest.approx((0.046, 0.013))
    assert corrected(Load(512, 1, 2, 2), Steps(0.040, 1, 0, 0, True)).decode == 0


def test_the_delay_per_layer_comes_once_per_call() -> None:
    slow, quick = (
        curve(engine(), 1, equal_calls(512, 64), 8192, 32, Correction(1, 0, layer)).points[0] for layer in (1e-3, 0)
    )
    assert slow.latency - quick.latency == pytest.approx(0.032)
    assert slow.tpot == quick.tpot


def test_calls_of_several_sizes_take_the_mean_over_calls() -> None:
    mix = Mix(1050, 55, (Kind(100, 10, 0.5), Kind(2000, 100, 0.5)))
    found = curve(engine(), 1, mix, 8192, 0, AS_IS)
    alone = [curve(engine(), 1, equal_calls(kind.input, kind.output), 8192, 0, AS_IS) for kind in mix.kinds]
    for point, short, long in zip(found.points, *(one.points for one in alone), strict=True):
        assert point.latency == pytest.approx((short.latency + long.latency) / 2)
        assert point.ttft + (point.tpot or 0) * 54 == pytest.approx(point.latency)


def test_it_is_said_how_far_several_sizes_differ_from_their_mean() -> None:
    mix = Mix(1050, 55, (Kind(100, 10, 0.5), Kind(2000, 100, 0.5)))
    several, mean = (curve(engine(), 1, m, 8192, 0, AS_IS) for m in (mix, mix.mean))
    found = spread(several, mean)
    assert found is not None
    assert found[0] <= found[1]
    assert spread(mean, mean) is None


@given(
    st.floats(1e-6, 1e-3),
    st.floats(1e-3, 1e-1),
    st.floats(0, 1e-3),
    st.integers(1, 20_000),
    st.integers(1, 2_000),
    st.sampled_from([2048, 8192]),
)
def test_no_engine_serves_more_than_its_steps_allow(
    token: float, weights: float, call: float, prompt: int, output: int, budget: int
) -> None:
    ask = engine(token, weights, call)
    found = curve(ask, 1, equal_calls(prompt, output), budget, 32)
    assert [point.concurrency for point in found.points] == list(CONCURRENCIES)
    before = 0.0
    for point in found.points:
        load = running(point.concurrency, Kind(prompt, output, 1), budget)
        steps = corrected(load, ask(load))
        cycle = steps.mixed_steps * steps.mixed + steps.decode_steps * steps.decode
        assert point.concurrency / point.latency <= load.batch / cycle * (1 + 1e-9)
        assert point.latency >= before
        assert point.ttft > 0
        assert point.tpot is None if output == 1 else point.tpot is not None and point.tpot >= 0
        before = point.latency
