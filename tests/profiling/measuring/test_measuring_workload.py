"""What is replayed is what was recorded."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.workload import Call, Group, Prompts, Workload, endless, poisson, read_workload


def write(path: Path, *calls: dict[str, Any]) -> Path:
    default = {"execution": "e", "model": "m", "start": 0.0, "end": 1.0, "inputTokens": 10, "outputTokens": 5}
    path.write_text("".join(json.dumps({**default, **call}) + "\n" for call in calls), encoding="utf-8")
    return path


def test_calls_that_started_together_stay_together(tmp_path: Path) -> None:
    trace = write(
        tmp_path / "t.jsonl",
        {"start": 5.0, "end": 6.0, "outputTokens": 3},
        {"start": 0.0, "outputTokens": 1},
        {"start": 0.01, "outputTokens": 2},
        {"start": 0.0, "model": "other"},
    )
    workload, digest = read_workload(trace, "m")
    assert workload.executions == (
        (Group((Call(10, 1), Call(10, 2)), 0.0), Group((Call(10, 3),), 5.0)),
    )  # fmt: skip
    assert (workload.mean_group, workload.mean_output, workload.longest) == (1.5, 2.0, 13)
    assert digest.startswith("sha256:")


def test_lengths_are_whole_and_at_least_one(tmp_path: Path) -> None:
    workload, _ = read_workload(write(tmp_path / "t.jsonl", {"inputTokens": 12.6, "outputTokens": 0}), "m")
    assert workload.calls == [Call(13, 1)]


def test_failed_calls_are_not_replayed(tmp_path: Path) -> None:
    trace = write(tmp_path / "t.jsonl", {"error": "HTTP 500", "prefix": ["x"]}, {"start": 0.5, "prefix": ["y"]})
    assert read_workload(trace, "m")[0].calls == [Call(10, 5, ("y",))]


def test_an_unknown_llm_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ScepsyError, match='no call to the LLM "generatr"') as error:
        read_workload(write(tmp_path / "t.jsonl", {"model": "generator"}), "generatr")
    assert "generator" in error.value.hint


def test_prefixes_that_are_no_texts_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScepsyError, match=r't.jsonl:1: "prefix" must be a list of strings'):
        read_workload(write(tmp_path / "t.jsonl", {"prefix": [1]}), "m")


@given(st.permutations(range(12)))
def test_prefixes_belong_to_their_calls_whatever_the_order_of_lines(order: list[int]) -> None:
    calls = [
        {"execution": f"e{9 - n // 3}", "start": n // 3 + n % 3 * 0.5, "end": n + 1.0, "inputTokens": 100 + n, "prefix": [f"{n}"]}
        for n in range(12)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        workload, _ = read_workload(write(Path(directory) / "t.jsonl", *(calls[n] for n in order)), "m")
    assert sorted((call.input - 100, call.prefix) for call in workload.calls) == [(n, (f"{n}",)) for n in range(12)]


# Order

WORKLOAD = Workload(
    tuple(tuple(Group((Call(10, 10 * e + g + 1),) * (g + 1), g * 1.0) for g in range(3)) for e in range(5)), 2.0, 64, 0
)


@given(st.text(max_size=5), st.floats(0.01, 1000))
def test_every_lap_has_all_groups_and_keeps_the_order_within_executions(seed: str, rate: float) -> None:
    laps = list(itertools.islice(endless(WORKLOAD, seed, rate), 3 * 15))
    assert [lap for lap, _ in laps] == [0] * 15 + [1] * 15 + [2] * 15
    for lap in range(3):
        groups = [group for at, group in laps if at == lap]
        assert Counter(groups) == Counter(WORKLOAD.groups)
        for e in range(5):
            own = [group.offset for group in groups if group.calls[0].output // 10 == e]
            assert own == sorted(own)


def test_equal_seeds_give_equal_orders_and_others_do_not() -> None:
    first, again, other = (list(itertools.islice(endless(WORKLOAD, seed, 1.0), 30)) for seed in ("a", "a", "b"))
    assert first == again != other


def test_executions_interleave_more_the_faster_they_arrive() -> None:
    def changes(rate: float) -> int:
        order = [g.calls[0].output // 10 for _, g in itertools.islice(endless(WORKLOAD, "s", rate), 15)]
        return sum(a != b for a, b in itertools.pairwise(order))

    assert changes(0.02) == 4  # one after the other
    assert changes(100.0) > 8


def test_arrivals_are_poisson_and_repeatable() -> None:
    times = list(itertools.islice(poisson("s", 4.0), 4000))
    gaps = np.diff([0.0, *times])
    assert times == list(itertools.islice(poisson("s", 4.0), 4000))
    assert gaps.mean() == pytest.approx(0.25, rel=0.05)
    assert gaps.std() == pytest.approx(0.25, rel=0.05)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.05


# Prompts


@given(st.integers(2, 200_000), st.integers(1, 500), st.integers(0, 12))
def test_prompts_have_the_recorded_length_and_ids_below_the_vocabulary(size: int, length: int, blocks: int) -> None:
    prompt = Prompts(size, 41.7, "s").next(Call(length, 1, tuple(f"{b}" for b in range(blocks))), 0)
    assert len(prompt) == length
    assert all(0 <= token < size for token in prompt)


def test_calls_with_equal_leading_hashes_begin_alike_and_nowhere_else() -> None:
    prompts = Prompts(50_000, 64, "s")
    a, b = prompts.next(Call(300, 1, ("x", "y", "z")), 0), prompts.next(Call(300, 1, ("x", "y", "w")), 0)
    assert a[:128] == b[:128]
    assert a[128:150] != b[128:150]


def test_a_call_that_comes_again_has_another_prompt() -> None:
    prompts = Prompts(50_000, 64, "s")
    call = Call(300, 1, ("x",))
    first, again, later = prompts.next(call, 0), prompts.next(call, 0), prompts.next(call, 1)
    assert first[:64] == again[:64]
    assert first[64:] != again[64:]
    assert first[:64] != later[:64]
    assert first != Prompts(50_000, 64, "another point").next(call, 0)


def test_equal_seeds_give_equal_prompts() -> None:
    assert Prompts(50_000, 64, "s").next(Call(30, 1), 0) == Prompts(50_000, 64, "s").next(Call(30, 1), 0)
