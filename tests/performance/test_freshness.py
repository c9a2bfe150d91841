"""A profile is fresh when its engine, its revision and its calls are those that are asked for; else it is said why."""

from __future__ import annotations

import pytest

from scepsy.documents import Profile, Series
from scepsy.performance import Mix
from scepsy.performance.freshness import calls_mismatch, outdated, replays
from scepsy.performance.mix import Calls, mix_factor


def profile(source: str = "measured", version: str = "0.24.0", revision: str | None = None) -> Profile:
    return Profile.model_validate(
        {
            "apiVersion": "scepsy.dev/v1alpha1",
            "kind": "Profile",
            "metadata": {"name": "p"},
            "spec": {
                "source": source,
                "model": "m",
                **({"revision": revision} if revision else {}),
                "product": "P",
                "engine": {"name": "vllm", "version": version},
                "architecture": {
                    "parameters": 8_000_000_000, "bytesPerParameter": 2, "layers": 32, "attentionHeads": 32,
                    "kvHeads": 8, "headDim": 128, "contextLength": 8192,
                },
                "provenance": {"tool": "test"},
                "series": [series(512, 64).plain()],
            },
        }
    )  # fmt: skip


def series(prompt: float, output: float, cached: float = 0) -> Series:
    return Series.model_validate(
        {
            "tp": 1,
            "mix": {"input": prompt, "output": output, "cached": cached},
            "points": [{"concurrency": 1, "latency": "1s", "ttft": "100ms", "tpot": "10ms"}],
        }
    )


@pytest.mark.parametrize(
    ("profiled", "engine", "revision", "reason"),
    [
        (profile(), "0.24.0", None, None),
        (profile(revision="abc"), "0.24.0", "abc", None),
        (profile(revision="abc"), "0.24.0", None, None),  # nothing is pinned: any revision will do
        (profile(version="0.23.0"), "0.24.0", None, "measured with vLLM 0.23.0, the engine is 0.24.0"),
        (profile("imported", "0.23.0"), "0.24.0", None, "imported with vLLM 0.23.0, the engine is 0.24.0"),
        (profile("estimated", "0.14.0"), "0.24.0", None, "estimated for vLLM 0.14.0, the engine is 0.24.0"),
        (profile(revision="abc"), "0.24.0", "def", "measured with revision abc, the workflow pins def"),
        (profile(), "0.24.0", "def", "measured with no revision pinned, the workflow pins def"),
    ],
)
def test_a_profile_is_outdated_when_version_or_pinned_revision_differ(
    profiled: Profile, engine: str, revision: str | None, reason: str | None
) -> None:
    assert outdated(profiled, engine, revision) == reason


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [
        (series(512, 64), Mix(512, 64, 0), None),
        (series(512, 64), Mix(640, 80, 0), None),  # by 1.25, both
        (series(512, 64), Mix(641, 64, 0), "calls had 512/64 tokens, now 641/64"),
        (series(512, 64), Mix(512, 81, 0), "calls had 512/64 tokens, now 512/81"),
        (series(512, 64), Mix(400, 64, 0), "calls had 512/64 tokens, now 400/64"),
        (series(512, 64), Mix(2512, 64, 2000), None),  # what is cached need not be computed
        (series(512, 64), Mix(512, 64, 400), "calls had 512/64 tokens, now 512 (400 cached)/64"),
        (series(512, 1), Mix(512, 0, 0), None),  # an embedding or a score generates nothing that is counted
        (series(512, 8), Mix(512, 12.25, 0), "calls had 512/8 tokens, now 512/12.2"),
    ],
)
def test_calls_have_moved_when_computed_prompts_or_outputs_are_off_by_more_than_a_quarter(
    was: Series, now: Mix, reason: str | None
) -> None:
    assert calls_mismatch(was, now) == reason


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [
        (series(512, 64, cached=400), Mix(512, 64, 0), None),  # the trace did not say what was cached
        (series(512, 64), Mix(512, 64, 400), None),  # this engine's cache held nothing of what another's did
        (series(512, 64), Mix(900, 64, 0), "calls had 512/64 tokens, now 900/64"),  # those of another LLM in the trace
    ],
)
def test_the_very_calls_that_were_replayed_have_not_moved_whatever_the_cache_held(
    was: Series, now: Mix, reason: str | None
) -> None:
    assert calls_mismatch(was, now, replayed=True) == reason


DRAFTER = Calls("m", "drafter", "sha256:1", Mix(4000, 50, 0))
REFINER = Calls("m", "refiner", "sha256:1", Mix(4000, 50, 3800))
EDITOR = Calls("m", "editor", "sha256:2", Mix(4100, 45, 0))


@pytest.mark.parametrize(
    ("noted", "calls", "known", "expected"),
    [
        (("sha256:1", "drafter"), DRAFTER, [DRAFTER, REFINER], True),
        (("sha256:1", "drafter"), REFINER, [DRAFTER, REFINER], False),
        (("sha256:1", "drafter"), EDITOR, [DRAFTER, REFINER, EDITOR], True),  # recorded alike: one measurement for both
        (("sha256:1", "drafter"), EDITOR, [EDITOR], False),
        (("sha256:9", "drafter"), DRAFTER, [DRAFTER, REFINER], False),
        # Profiles of before LLMs were noted: where the trace has only one of the model
        (("sha256:1", None), DRAFTER, [DRAFTER, EDITOR], True),
        (("sha256:1", None), DRAFTER, [DRAFTER, REFINER], False),
        ((None, None), DRAFTER, [DRAFTER], False),
    ],
)
def test_calls_were_replayed_if_trace_and_llm_are_theirs_or_those_of_calls_recorded_alike(
    noted: tuple[str | None, str | None], calls: Calls, known: list[Calls], expected: bool
) -> None:
    digest, llm = noted
    taken = profile()
    taken.spec.provenance.__dict__.update(trace_digest=digest, llm=llm)
    assert replays(taken, calls.mix, known) is expected


def test_the_change_of_a_mix_is_its_largest_factor_in_either_direction() -> None:
    assert mix_factor(Mix(1000, 100, 0), Mix(500, 150, 0)) == 2.0
    assert mix_factor(Mix(500, 150, 0), Mix(1000, 100, 0)) == 2.0
    assert mix_factor(Mix(1000, 100, 900), Mix(100, 100, 0)) == 1.0
