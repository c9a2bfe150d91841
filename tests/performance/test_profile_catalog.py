"""Profiles become R(k): as measured where they were, monotone, carried to other calls and shares; stale ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from scepsy.documents import Profile
from scepsy.documents.units import format_duration
from scepsy.performance import SHARE_MODEL, Catalog, Mix, fit
from scepsy.performance.co_tenants import caps
from scepsy.performance.gpu_hardware import bandwidth
from scepsy.performance.mix import Calls
from scepsy.performance.roofline import Roofline


def profile(
    name: str = "p",
    source: str = "estimated",
    version: str = "1.0",
    *,
    product: str = "P",
    revision: str | None = None,
    trace: str | None = None,
    llm: str | None = None,
    date: str | None = None,
    unusable: tuple[dict[str, object], ...] = (),
    **series: object,
) -> Profile:
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
                "product": product,
                **({"revision": revision} if revision else {}),
                "engine": {"name": "vllm", "version": version},
                "architecture": {
                    "parameters": 8_000_000_000, "bytesPerParameter": 2, "layers": 32, "attentionHeads": 32,
                    "kvHeads": 8, "headDim": 128, "contextLength": 8192,
                },
                "provenance": {
                    "tool": "test",
                    **({"traceDigest": trace} if trace else {}),
                    **({"llm": llm} if llm else {}),
                    **({"date": date} if date else {}),
                },
                "series": [entry],
                "unusable": unusable,
            },
        }
    )  # fmt: skip


MIX = Mix(1000, 101, 0)


def test_the_profiled_points_are_returned_as_they_are_and_between_them_linearly() -> None:
    times = Catalog([profile()], "1.0").service("m", "P", 1, 10, MIX)
    assert times.seconds == pytest.approx([1.1, 1.4, 1.7])
    assert (times.source, times.share_model, times.rescaled) == ("estimated", None, 1.0)


@pytest.mark.parametrize(
    ("tpot", "first_and_step"), [("10ms", (0.1, 0.01)), (None, (0.1, 0.01)), ("12ms", (1e-6, 0.011))]
)
def test_the_profiled_latency_holds_and_a_time_per_token_that_is_not_given_is_what_is_left_of_it(
    tpot: str | None, first_and_step: tuple[float, float]
) -> None:
    """The latency of 1.1 s is the first token after 0.1 s and 100 further ones; 12 ms for each would be more than it."""
    points = [{"concurrency": 1, "latency": "1.1s", "ttft": "100ms", **({"tpot": tpot} if tpot else {})}]
    catalog = Catalog([profile(points=points)], "1.0")
    first, step = first_and_step
    for output in (101, 51, 201):
        seconds = catalog.service("m", "P", 1, 10, Mix(1000, output, 0)).seconds
        assert seconds == pytest.approx([first + (output - 1) * step], rel=1e-4)


PROMPTS = {"mix": {"input": 1000, "output": 1}, "points": [{"concurrency": 1, "latency": "100ms", "ttft": "100ms"}]}


def test_a_series_without_further_tokens_serves_calls_that_generate_some_only_where_the_card_is_known() -> None:
    embedding, chat = Mix(1000, 1, 0), Mix(1000, 101, 0)
    unknown = Catalog([profile(**PROMPTS)], "1.0")
    assert unknown.service("m", "P", 1, 10, embedding).seconds == pytest.approx([0.1])
    with pytest.raises(KeyError):
        unknown.service("m", "P", 1, 10, chat)
    known = Catalog([profile(product=A100, **PROMPTS)], "1.0").service("m", A100, 1, 10, chat)
    weights = 16e9 / (0.7 * 2.039e12)  # read once per step
    assert known.seconds[0] == pytest.approx(0.1 + 100 * weights, rel=0.05)


def test_a_series_of_hardly_more_than_one_token_says_nothing_of_further_ones_either() -> None:
    """1.2 tokens per call: what is left after the first is noise."""
    points = [{"concurrency": 1, "latency": "110ms", "ttft": "100ms"}]
    few = profile(product=A100, mix={"input": 1000, "output": 1.2}, points=points)
    seconds = Catalog([few], "1.0").service("m", A100, 1, 10, Mix(1000, 101, 0)).seconds
    assert seconds[0] == pytest.approx(0.11 + 100 * 16e9 / (0.7 * 2.039e12), rel=0.05)


def test_what_was_profiled_beyond_the_1024_calls_that_an_instance_may_run_is_left_out() -> None:
    last = {"concurrency": 1_000_000, "latency": "1000s", "ttft": "900s", "tpot": "1s"}
    entry = profile()
    points = [*(p.plain() for p in entry.spec.series[0].points), last]
    times = Catalog([profile(points=points), profile(share=0.5, points=points)], "1.0").service("m", "P", 1, 7, MIX)
    assert (len(times.seconds), len(times.drawn)) == (1024, 1024)


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


def test_a_measured_series_of_nearly_these_calls_wins_over_an_estimate_for_exactly_these() -> None:
    near = profile("measured", source="measured", mix={"input": 1100, "output": 90})
    times = Catalog([profile("exact"), near], "1.0").service("m", "P", 1, 10, MIX)
    assert (times.profile, times.stale, times.unused) == ("measured", None, ())


def test_of_two_measurements_the_nearer_and_then_the_newer_wins() -> None:
    old, new = profile("a-old", source="imported"), profile("b-new", source="imported", date="2026-02-01")
    assert Catalog([old, new], "1.0").service("m", "P", 1, 10, MIX).profile == "b-new"


@pytest.mark.parametrize(("tokens", "taken"), [(1000, "new"), (1015, "new"), (1040, "old")])
def test_calls_that_differ_by_less_than_2_percent_are_as_near_so_that_the_newer_measurement_wins(
    tokens: float, taken: str
) -> None:
    old = profile("old", source="measured", date="2026-01-31")
    new = profile("new", source="measured", date="2026-02-01", mix={"input": tokens, "output": 101})
    assert Catalog([old, new], "1.0").service("m", "P", 1, 10, MIX).profile == taken


FAR = {"input": 400, "output": 50}


def test_measured_calls_that_have_moved_are_stale_and_an_estimate_for_these_calls_is_preferred() -> None:
    moved = profile("moved", source="measured", mix=FAR)
    times = Catalog([profile("estimate"), moved], "1.0").service("m", "P", 1, 10, MIX)
    assert (times.profile, times.source) == ("estimate", "estimated")
    assert times.unused == (("moved", "calls had 400/50 tokens, now 1000/101"),)


def test_measured_calls_that_have_moved_are_used_where_there_is_nothing_else_and_are_called_stale() -> None:
    times = Catalog([profile("moved", source="measured", mix=FAR)], "1.0").service("m", "P", 1, 10, MIX)
    assert (times.profile, times.stale) == ("moved", "calls had 400/50 tokens, now 1000/101")
    assert times.uncertainty is None, "not the interval of these calls"


def test_a_trace_that_was_replayed_is_not_stale_because_the_cache_hit_more_often() -> None:
    """The trace says that nothing was cached; the engine found 600 of the 1000 tokens in its cache."""
    taken = profile("p", source="measured", trace="sha256:1", mix={"input": 1000, "output": 101, "cached": 600})
    catalog = Catalog([taken], "1.0")
    assert catalog.service("m", "P", 1, 10, MIX).stale is not None
    times = catalog.with_calls([Calls("m", "a", "sha256:1", MIX)]).service("m", "P", 1, 10, MIX)
    assert (times.stale, times.rescaled) == (None, 1.0)
    assert times.seconds == pytest.approx([1.1, 1.4, 1.7])


@pytest.mark.parametrize(("source", "computed"), [("estimated", 400), ("measured", 1000)])
def test_an_estimate_for_a_trace_replayed_nothing_so_that_what_the_trace_found_cached_need_not_be_computed(
    source: str, computed: float
) -> None:
    """The trace found 600 of the 1000 tokens cached; the series is without a cache: an estimate always, an engine may."""
    calls = Calls("m", "a", "sha256:1", Mix(1000, 101, 600))
    catalog = Catalog([profile(source=source, trace="sha256:1")], "1.0", calls=[calls])
    times = catalog.service("m", "P", 1, 10, calls.mix)
    assert times.seconds[0] == pytest.approx(0.1 * computed / 1000 + 100 * 0.010)


def test_two_llms_of_one_model_in_one_trace_each_use_the_series_of_their_own_calls() -> None:
    """Both have prompts of 4000 tokens; the refiner's begin with 3800 that are cached, so that it is far faster."""
    drafter, refiner = Mix(4000, 50, 0), Mix(4000, 50, 3800)
    known = [Calls("m", "drafter", "sha256:1", drafter), Calls("m", "refiner", "sha256:1", refiner)]
    series = {"source": "measured", "product": A100, "trace": "sha256:1"}
    own = [
        profile(
            llm, llm=llm, mix={"input": 4000, "output": 50, "cached": mix.cached}, points=eight_billion(mix), **series
        )
        for llm, mix in (("drafter", drafter), ("refiner", refiner))
    ]
    both, one = Catalog(own, "1.0", calls=known), Catalog(own[1:], "1.0", calls=known)
    found = [both.service("m", A100, 1, 10, mix) for mix in (drafter, refiner)]
    assert [(times.profile, times.stale) for times in found] == [("drafter", None), ("refiner", None)]
    assert found[0].seconds[0] > 1.4 * found[1].seconds[0]
    alone = one.service("m", A100, 1, 10, drafter)
    assert alone.stale == "calls had 4000 (3800 cached)/50 tokens, now 4000/50"
    assert alone.seconds[0] == pytest.approx(found[0].seconds[0], rel=0.1)


def test_a_measured_profile_of_another_engine_version_is_stale_an_estimated_one_a_warning() -> None:
    catalog = Catalog([profile("a", version="0.9"), profile("b", source="measured", version="0.9")], "1.0")
    assert catalog.service("m", "P", 1, 10, MIX).profile == "a"
    assert catalog.warnings == {"a": "profile a is estimated for 0.9; the engine is 1.0"}
    reason = "profile b is stale: measured with vLLM 0.9, the engine is 1.0"
    assert catalog.stale_for({"m"}, ["P"]) == [reason]
    assert catalog.stale_for({"m"}, ["Q"]) == catalog.stale_for({"n"}, ["P"]) == []


@pytest.mark.parametrize(
    ("pinned", "stale"),
    [
        ({"abc"}, []),
        ({None}, []),
        ({None, "def"}, []),
        ({"def"}, ["profile p is stale: measured with revision abc, the workflow pins def"]),
    ],
)
def test_a_measured_profile_of_another_revision_is_stale(pinned: set[str | None], stale: list[str]) -> None:
    catalog = Catalog([profile(source="measured", revision="abc")], "1.0", {"m": pinned})
    assert catalog.stale_for({"m"}, ["P"]) == stale


def test_two_llms_that_pin_different_revisions_each_use_their_own_profile() -> None:
    profiles = [profile(name, source="measured", revision=name) for name in ("one", "two")]
    catalog = Catalog(profiles, "1.0", {"m": {"one", "two"}})
    assert [catalog.service("m", "P", 1, 10, MIX, revision).profile for revision in ("one", "two")] == ["one", "two"]
    with pytest.raises(KeyError):
        catalog.service("m", "P", 1, 10, MIX, "three")


def test_a_profile_of_a_revision_that_only_some_llms_pin_is_stale_for_the_others() -> None:
    taken, estimate = profile("one", source="measured", revision="one"), profile("estimate", product="Q")
    catalog = Catalog([taken, estimate], "1.0", {"m": {"one", "two"}})
    assert catalog.stale_for({"m"}, ["P"]) == [], "one of them uses it"
    assert catalog.outdated("m", "one", ["P", "Q"]) == []
    reason = "measured with revision one, the workflow pins two"
    assert catalog.outdated("m", "two", ["P", "Q"]) == [("one", reason)]
    assert [catalog.degrees("m", "P", revision) for revision in ("one", "two", None)] == [[1], [], [1]]
    assert [catalog.products("m", revision) for revision in ("one", "two")] == [["P", "Q"], ["Q"]]
    both = Catalog([taken, profile("estimate")], "1.0", {"m": {"one", "two"}})
    assert both.service("m", "P", 1, 10, MIX, "two").unused == (("one", reason),)
    assert both.service("m", "P", 1, 10, MIX, "one").unused == ()


OUT = ({"tp": 1, "share": 0.3, "reason": "out of memory"},)


def ruled_out(catalog: Catalog, tenths: int = 3, longest: int = 4096) -> str | None:
    return catalog.unusable("m", "P", 1, tenths, longest=longest)


def test_a_shape_that_did_not_run_is_not_planned_with_unless_it_ran_elsewhere_or_the_engine_is_another() -> None:
    tried = profile("tried", source="measured", unusable=OUT)
    catalog = Catalog([tried], "1.0")
    assert ruled_out(catalog) == "it did not run when it was measured: out of memory (profile tried)"
    assert ruled_out(catalog, tenths=4) is None
    ran = profile("ran", source="measured", share=0.3)
    assert ruled_out(Catalog([tried, ran], "1.0")) is None
    estimate = profile("estimate", share=0.3)
    assert ruled_out(Catalog([tried, estimate], "1.0")) is not None
    assert ruled_out(Catalog([tried], "1.1")) is None


def test_a_shape_that_could_not_hold_long_calls_is_ruled_out_for_as_long_ones_only_whatever_ran_there() -> None:
    tried = profile("tried", source="measured", unusable=({**OUT[0], "maxModelLen": 32768},))
    ran = profile("ran", source="measured", share=0.3)
    for catalog in (Catalog([tried], "1.0"), Catalog([tried, ran], "1.0")):
        found = [ruled_out(catalog, longest=longest) is not None for longest in (4096, 32767, 32768, 40960)]
        assert found == [False, False, True, True]


def test_of_an_unknown_card_a_share_slows_prefill_in_proportion_and_decode_by_what_its_bandwidth_allows() -> None:
    times = Catalog([profile()], "1.0").service("m", "P", 1, 5, MIX)
    assert times.seconds[0] == pytest.approx(0.1 / 0.5 + 1.0 / bandwidth(0.5))
    assert times.share_model == SHARE_MODEL


def test_a_profiled_share_needs_no_model() -> None:
    times = Catalog([profile(), profile("half", share=0.5)], "1.0").service("m", "P", 1, 5, MIX)
    assert (times.profile, times.share_model) == ("half", None)


A100 = "NVIDIA-A100-SXM4-80GB"


@pytest.mark.parametrize("product", [None, "P", A100, "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"])
def test_bandwidth_is_all_of_it_for_all_sms_and_more_than_the_share_below(product: str | None) -> None:
    shares = np.arange(1, 11) / 10
    some = np.array([bandwidth(s, product) for s in shares])
    assert some[-1] == pytest.approx(1.0)
    assert (some[:-1] > shares[:-1]).all()
    assert (np.diff(some) > 0).all()


def test_an_instance_may_be_held_to_parts_of_the_bandwidth_between_half_of_what_it_draws_and_all_of_it() -> None:
    for tenths in range(1, 10):
        natural, *less = caps(tenths / 10, A100)
        assert natural == bandwidth(tenths / 10, A100)
        assert less == sorted(less, reverse=True)
        assert all(natural / 2 <= cap < natural for cap in less)
    assert caps(1.0, A100) == (1.0,)


@pytest.mark.parametrize(("host", "part"), [(0.0, 1.0), (0.0108, 0.5)])
def test_an_instance_reads_its_weights_once_per_step_and_no_faster_than_its_sms_can(host: float, part: float) -> None:
    """16 GB per step at 0.7 of 2.039 TB/s are 11.2 ms; the cache of short calls hardly counts."""
    chat = Mix(10, 400, 0)
    catalog = Catalog([profile(product=A100, mix={"input": 10, "output": 400}, points=eight_billion(chat, host=host))], "1.0")  # fmt: skip
    drawn = catalog.service("m", A100, 1, 10, chat).drawn
    assert drawn[0] == pytest.approx(part, rel=0.04)
    assert (drawn <= 1).all()
    few = catalog.service("m", A100, 1, 2, chat).drawn
    assert (few <= bandwidth(0.2, A100)).all()
    assert (few <= drawn + 1e-9).all()


def test_of_an_unknown_card_an_instance_draws_all_that_its_share_can() -> None:
    assert Catalog([profile()], "1.0").service("m", "P", 1, 5, MIX).drawn == pytest.approx(bandwidth(0.5))


def test_with_half_the_bandwidth_decoding_takes_twice_as_long_prompts_and_the_host_do_not() -> None:
    def slower(mix: Mix, host: float = 0.0) -> float:
        series = {"input": mix.input, "output": mix.output}
        catalog = Catalog([profile(product=A100, mix=series, points=eight_billion(mix, host=host))], "1.0")
        at_half = catalog.slowdown("m", A100, 1, 5, mix, caps=[0.5 * bandwidth(0.5, A100)])
        return float(at_half[0, 0])

    chat, prompts = Mix(100, 400, 0), Mix(4000, 2, 0)
    assert slower(chat) == pytest.approx(2, rel=0.02)
    assert slower(chat, host=0.012) == pytest.approx(1.5, rel=0.05)
    assert slower(prompts) < 1.05


def test_a_share_that_was_measured_is_held_to_part_of_the_bandwidth_as_the_model_says() -> None:
    catalog = Catalog([measured(0.5)], "1.0")
    assert catalog.service("m", A100, 1, 5, MIX).share_model is None
    held = catalog.slowdown("m", A100, 1, 5, MIX, caps=[0.8, 0.5])
    assert (held[0] > 1).all()
    assert (held[1] > held[0]).all()


@pytest.mark.parametrize("cap", [0.3, 0.4, 0.5, 0.8])
def test_at_the_same_bandwidth_a_smaller_share_is_never_faster_whatever_was_measured_at_each(cap: float) -> None:
    """What was measured slows less from the whole GPU to 0.5 and 0.4 of it than the model knows."""
    catalog = Catalog([measured(share, 0.95) for share in (1.0, 0.5, 0.4)], "1.0")
    at = [
        catalog.service("m", A100, 1, tenths, MIX).seconds * catalog.slowdown("m", A100, 1, tenths, MIX, caps=[cap])[0]
        for tenths in range(4, 11)
    ]
    assert (np.diff(np.stack(at), axis=0) <= 1e-12).all()


def slowdown(tenths: int, k: int, mix: Mix = MIX, **series: object) -> float:
    catalog = Catalog([profile(product=A100, mix={"input": mix.input, "output": mix.output}, **series)], "1.0")
    whole, part = (catalog.service("m", A100, 1, t, mix).seconds for t in (10, tenths))
    return float(part[k - 1] / whole[k - 1])


def point(k: float, first: float, step: float, output: float) -> dict[str, object]:
    return {
        "concurrency": int(k),
        "latency": f"{first + step * (output - 1)!s}s",
        "ttft": f"{first!s}s",
        "tpot": f"{step!s}s",
    }


def eight_billion(mix: Mix, steps: float = 1.0, host: float = 0.0) -> list[dict[str, object]]:
    """What the roofline says of the model on an A100, times `steps`, plus what the host adds to every step."""
    machine = Roofline(profile().spec.architecture, A100, 1)
    ks = np.array([1.0, 4, 16, 64])
    decode = machine.decode(mix, 1.0, ks) * steps + host
    first = machine.prefill(mix, 1.0) * steps + host
    return [point(k, first, d, mix.output) for k, d in zip(ks.tolist(), decode.tolist(), strict=True)]


def test_half_a_gpu_nearly_doubles_the_time_of_prompts_and_hardly_that_of_decoding() -> None:
    prompts, chat = Mix(4000, 2, 0), Mix(100, 400, 0)
    assert 1.85 < slowdown(5, 1, prompts, points=eight_billion(prompts)) < 2.0
    assert 1.0 < slowdown(5, 1, chat, points=eight_billion(chat)) < 1.15
    assert slowdown(5, 1, chat, points=eight_billion(chat)) < slowdown(5, 64, chat, points=eight_billion(chat)) < 1.6


def test_what_the_host_adds_to_a_step_does_not_slow_with_the_share() -> None:
    chat = Mix(100, 400, 0)
    alone, hosted = (slowdown(2, 1, chat, points=eight_billion(chat, host=host)) for host in (0.0, 0.02))
    assert 1.0 < hosted < 1 + 0.5 * (alone - 1)


def test_kernels_that_beat_the_roofline_slow_as_it_says() -> None:
    chat = Mix(100, 400, 0)
    points, faster = eight_billion(chat), eight_billion(chat, steps=0.8)
    assert slowdown(4, 16, chat, points=points) == pytest.approx(slowdown(4, 16, chat, points=faster), rel=1e-6)


@pytest.mark.parametrize("host", [0.0, 0.005])
def test_a_smaller_share_is_never_faster(host: float) -> None:
    mix = Mix(700, 90, 0)
    catalog = Catalog([profile(product=A100, mix={"input": 700, "output": 90}, points=eight_billion(mix, host=host))], "1.0")  # fmt: skip
    all_shares = np.array([catalog.service("m", A100, 1, t, mix).seconds for t in range(1, 11)])
    assert (np.diff(all_shares, axis=0) <= 1e-12).all()


def test_other_calls_are_carried_over_by_the_work_that_they_make() -> None:
    """Half the prompt and half the output: not half the time, because the host's part and the prompts of others stay."""
    base, other = Mix(1000, 101, 0), Mix(500, 51, 0)
    catalog = Catalog([profile(product=A100, points=eight_billion(base, host=0.01))], "1.0")
    expected = [float(str(p["latency"]).removesuffix("s")) for p in eight_billion(other, host=0.01)]
    found = catalog.service("m", A100, 1, 10, other).seconds
    assert found[[0, 3, 15, 63]] == pytest.approx(expected, rel=1e-6)


def measured(share: float, factor: float = 1.0, mix: Mix = MIX) -> Profile:
    """What a GPU does that is slower on shares than the model knows, by `factor` per halving."""
    machine = Roofline(profile().spec.architecture, A100, 1)
    ks = np.array([1.0, 4, 16, 64])
    slower = factor ** -np.log2(share)
    decode = machine.decode(mix, share, ks) * slower
    first = float(machine.prefill(mix, share) * slower)
    points = [point(k, first, d, mix.output) for k, d in zip(ks.tolist(), decode.tolist(), strict=True)]
    return profile(f"at-{share:g}", source="measured", product=A100, share=share, points=points)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.3])
@pytest.mark.parametrize("tenths", [3, 4, 6, 7, 9])
def test_between_measured_shares_the_model_is_put_right_by_both(factor: float, tenths: int) -> None:
    catalog = Catalog([measured(s, factor) for s in (1.0, 0.5, 0.2)], "1.0")
    times = catalog.service("m", A100, 1, tenths, MIX)
    low, high = (0.5, 1) if tenths > 5 else (0.2, 0.5)
    assert times.share_model == f"interpolated between measured shares {low:g} and {high:g}"
    assert times.uncertainty is None
    assert times.profiles == (f"at-{high:g}", f"at-{low:g}")
    truth = Catalog([measured(tenths / 10, factor)], "1.0").service("m", A100, 1, tenths, MIX).seconds
    assert times.seconds == pytest.approx(truth, rel=0.03)


def test_between_measured_shares_no_smaller_share_is_faster_and_none_leaves_their_range() -> None:
    catalog = Catalog([measured(1.0), measured(0.2, 0.85)], "1.0")  # far less slow than the model knows
    shares = np.array([catalog.service("m", A100, 1, t, MIX).seconds for t in range(2, 11)])
    assert (np.diff(shares, axis=0) <= 1e-9).all()


def test_below_the_least_measured_share_the_model_goes_on_from_there() -> None:
    catalog = Catalog([measured(1.0, 1.3), measured(0.5, 1.3)], "1.0")
    times = catalog.service("m", A100, 1, 3, MIX)
    assert (times.profile, times.share_model) == ("at-0.5", f"{SHARE_MODEL}, from the measured share 0.5")
    truth = measured(0.3, 1.3).spec.series[0].points[0].latency
    assert float(times.seconds[0]) == pytest.approx(truth, rel=0.25)


def test_a_larger_share_than_was_measured_is_estimated_rather_than_scaled_up() -> None:
    small = measured(0.2)
    whole = profile("estimate", product=A100, points=eight_billion(MIX))
    assert Catalog([small, whole], "1.0").service("m", A100, 1, 5, MIX).profile == "estimate"
    alone = Catalog([small], "1.0").service("m", A100, 1, 5, MIX)
    assert (alone.profile, alone.share_model) == ("at-0.2", f"{SHARE_MODEL}, from the measured share 0.2")


def test_noise_that_makes_latency_fall_is_pooled_by_weight() -> None:
    points = [
        {"concurrency": 1, "latency": "1s", "ttft": "0.1s", "tpot": "9ms"},
        {"concurrency": 2, "latency": "0.9s", "ttft": "0.1s", "tpot": "8ms"},
    ]
    equal = Catalog([profile(points=points)], "1.0").service("m", "P", 1, 10, MIX).seconds
    assert equal == pytest.approx([0.9**0.5] * 2)
    points[1]["interval"], points[0]["interval"] = 0.01, 0.1
    sure = Catalog([profile(source="measured", points=points)], "1.0").service("m", "P", 1, 10, MIX).seconds
    assert sure == pytest.approx([0.9] * 2, rel=0.005)


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
