"""Profiles become R(k): exact where they were taken, monotone between, scaled with tokens, slower on a share."""

from __future__ import annotations

import numpy as np
import pytest

from scepsy.documents import Profile
from scepsy.documents.units import format_duration
from scepsy.performance import SHARE_MODEL, Catalog, Mix, fit
from scepsy.performance.shares import bandwidth


def profile(name: str = "p", source: str = "estimated", version: str = "1.0", **series: object) -> Profile:
    """One series for 1000/101 tokens: prefill 100 ms·k, 10 ms per token at k = 1, 14 ms at k = 3."""
    entry = {
        "tp": 1,
        "mix": {"input": 1000, "output": 101},
        "points": [
            {"concurrency": 1, "latency": "1.1s", "ttft": "100ms", "tpot": "10ms"},
            {"concurrency": 3, "latency": "1.7s", "ttft": "300ms", "tpot": "14ms"},
        ],
        **series,
    }
    return Profile.model_validate(
        {
            "apiVersion": "scepsy.dev/v1alpha1",
            "kind": "Profile",
            "metadata": {"name": name},
            "spec": {
                "source": source,
                "model": "m",
                "product": "P",
                "engine": {"name": "vllm", "version": version},
                "architecture": {
                    "parameters": 8_000_000_000, "bytesPerParameter": 2, "layers": 32, "attentionHeads": 32,
                    "kvHeads": 8, "headDim": 128, "contextLength": 8192,
                },
                "provenance": {"tool": "test"},
                "series": [entry],
            },
        }
    )  # fmt: skip


MIX = Mix(1000, 101, 0)


def test_the_profiled_points_are_returned_as_they_are_and_between_them_linearly() -> None:
    times = Catalog([profile()], "1.0").service("m", "P", 1, 10, MIX)
    assert times.seconds == pytest.approx([1.1, 1.4, 1.7])
    assert (times.source, times.share_model, times.rescaled) == ("estimated", None, 1.0)


def test_another_mix_scales_the_prompt_and_the_output_apart() -> None:
    times = Catalog([profile()], "1.0").service("m", "P", 1, 10, Mix(1500, 51, 1000))
    # half the computed prompt, half the further tokens
    assert times.seconds[0] == pytest.approx(0.5 * 0.1 + 50 * 0.010)
    assert times.rescaled == pytest.approx(2.0)


def test_the_series_with_the_nearest_mix_is_taken() -> None:
    far = profile("far", mix={"input": 100, "output": 1000})
    assert Catalog([far, profile("near")], "1.0").service("m", "P", 1, 10, MIX).profile == "near"


def test_a_measured_series_wins_over_an_estimated_one_of_the_same_mix() -> None:
    catalog = Catalog([profile("a"), profile("b", source="measured")], "1.0")
    assert catalog.service("m", "P", 1, 10, MIX).profile == "b"


def test_a_measured_profile_of_another_engine_version_is_stale_an_estimated_one_a_warning() -> None:
    catalog = Catalog([profile("a", version="0.9"), profile("b", source="measured", version="0.9")], "1.0")
    assert catalog.service("m", "P", 1, 10, MIX).profile == "a"
    assert catalog.warnings == {"a": "profile a is estimated for 0.9; the engine is 1.0"}
    assert catalog.stale == {"b": "profile b was measured with 0.9; the engine is 1.0"}


def test_a_share_slows_prefill_in_proportion_and_decode_by_what_its_bandwidth_allows() -> None:
    times = Catalog([profile()], "1.0").service("m", "P", 1, 5, MIX)
    assert times.seconds[0] == pytest.approx(0.1 / 0.5 + 1.0 / bandwidth(0.5))
    assert times.share_model == SHARE_MODEL


def test_a_profiled_share_needs_no_model() -> None:
    times = Catalog([profile(), profile("half", share=0.5)], "1.0").service("m", "P", 1, 5, MIX)
    assert (times.profile, times.share_model) == ("half", None)


def test_bandwidth_is_all_of_it_for_all_sms_and_more_than_the_share_below() -> None:
    shares = np.arange(1, 11) / 10
    drawn = np.array([bandwidth(s) for s in shares])
    assert drawn[-1] == pytest.approx(1.0)
    assert (drawn[:-1] > shares[:-1]).all()
    assert (np.diff(drawn) > 0).all()


def test_noise_that_makes_latency_fall_is_smoothed_upwards() -> None:
    points = [
        {"concurrency": 1, "latency": "1s", "ttft": "0.1s", "tpot": "9ms"},
        {"concurrency": 2, "latency": "0.9s", "ttft": "0.1s", "tpot": "8ms"},
    ]
    assert Catalog([profile(points=points)], "1.0").service("m", "P", 1, 10, MIX).seconds == pytest.approx([1.0, 1.0])


GIB = 2**30


@pytest.mark.parametrize(
    ("tp", "tenths", "weights", "per_token"),
    [
        (1, 10, 16_000_000_000, 2 * 32 * 8 * 128 * 2),
        (4, 10, 4_000_000_000, 2 * 32 * 2 * 128 * 2),
        (8, 5, 2_000_000_000, 2 * 32 * 1 * 128 * 2),
    ],
)
def test_tensor_parallelism_divides_weights_and_key_value_heads(
    tp: int, tenths: int, weights: int, per_token: int
) -> None:
    memory = fit(profile().spec.architecture, 80 * GIB, tp, tenths)
    assert (memory.weights, memory.kv_per_token) == (weights, per_token)
    assert memory.total <= 80 * GIB * tenths // 10
    assert memory.kv_cache + memory.weights < memory.total


def test_beyond_the_key_value_heads_they_are_replicated_not_divided() -> None:
    architecture = profile().spec.architecture.model_copy(update={"kv_heads": 2})
    assert fit(architecture, 80 * GIB, 8, 10).kv_per_token == fit(architecture, 80 * GIB, 2, 10).kv_per_token


def test_weights_that_do_not_fit_leave_less_than_no_kv_cache() -> None:
    memory = fit(profile().spec.architecture, 80 * GIB, 1, 2)
    assert memory.kv_cache < 0
    assert memory.kv_tokens == 0


def test_all_shares_of_a_card_together_stay_below_it() -> None:
    parts = [fit(profile().spec.architecture, 80 * GIB, 1, t).total for t in (1, 2, 3, 4)]
    assert sum(parts) < 80 * GIB


def test_durations_of_a_profile_survive_being_written() -> None:
    assert format_duration(profile().spec.series[0].points[0].latency) == "1.1s"
