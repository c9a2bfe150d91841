"""What a job replays is like what was recorded: mean tokens, groups, shared beginnings; and it fits."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.demand.job_calls import JobCalls
from scepsy.demand.prefix_names import renumbered
from scepsy.demand.recorded_calls import recorded_calls
from scepsy.demand.replay import calls_of
from scepsy.demand.statistics import LlmDemand, TokenUse
from scepsy.demand.synthetic_calls import synthetic_calls
from scepsy.documents import load_workspace
from scepsy.documents.compressed_text import LIMIT, unpack
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.workload import Workload, read_workload
from scepsy.traces.trace_reader import read_trace

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "examples" / "traces"


def write(path: Path, *calls: dict[str, Any]) -> Path:
    default = {"execution": "e", "model": "m", "start": 0.0, "end": 1.0, "inputTokens": 10, "outputTokens": 5}
    path.write_text("".join(json.dumps({**default, **call}) + "\n" for call in calls), encoding="utf-8")
    return path


def job_calls(path: Path, llm: str = "m", most: int = 500) -> JobCalls:
    trace, digest = read_trace(path, path.name)
    return recorded_calls(trace, path, llm, digest, most)


def replayed(calls: JobCalls, folder: Path, llm: str = "m") -> Workload:
    """The calls as the runner in the pod reads them."""
    assert unpack(calls.packed, "the calls") == calls.text
    assert len(calls.packed) <= LIMIT
    path = folder / "calls.jsonl"
    path.write_text(calls.text)
    return read_workload(path, llm)[0]


def sizes(workload: Workload) -> list[int]:
    return [len(group.calls) for group in workload.groups]


def shared_part(workload: Workload) -> float:
    """Part of the prefix blocks that an earlier call had."""
    seen: set[tuple[str, ...]] = set()
    blocks = known = 0
    for call in workload.calls:
        for n in range(1, len(call.prefix) + 1):
            blocks += 1
            known += call.prefix[:n] in seen
            seen.add(call.prefix[:n])
    return known / blocks


def test_a_short_trace_is_replayed_whole_without_texts_ids_and_times_of_day(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl",
        {"execution": "run-of-ada", "id": "c1", "start": 1.7e9, "end": 1.7e9 + 2.346, "prompt": "hello", "completion": "x", "operation": "chat", "prefix": ["f00", "ba4"]},
        {"execution": "run-of-ada", "id": "c2", "parent": "c1", "start": 1.7e9 + 3.0014, "end": 1.7e9 + 4, "cachedTokens": 4, "prefix": ["f00", "c0ffee"]},
        {"execution": "run-of-ada", "start": 1.7e9 + 3.02, "end": 1.7e9 + 4, "inputTokens": 12, "firstToken": 1.7e9 + 3.1},
        {"execution": "run-of-bob", "start": 5, "end": 6, "error": "HTTP 500"},
        {"execution": "run-of-bob", "start": 7, "end": 8},
        {"execution": "run-of-bob", "start": 7, "end": 8, "model": "other"},
    )  # fmt: skip
    calls = job_calls(path)
    assert [json.loads(line) for line in calls.text.splitlines()] == [
        {"execution": "1", "model": "m", "start": 0.0, "end": 1.0, "inputTokens": 10, "outputTokens": 5, "cachedTokens": 0},
        {"execution": "2", "model": "m", "start": 0.0, "end": 2.35, "inputTokens": 10, "outputTokens": 5, "cachedTokens": 0, "prefix": ["0", "1"]},
        {"execution": "2", "model": "m", "start": 3.001, "end": 4.001, "inputTokens": 10, "outputTokens": 5, "cachedTokens": 4, "prefix": ["0", "2"]},
        {"execution": "2", "model": "m", "start": 3.001, "end": 3.981, "inputTokens": 12, "outputTokens": 5, "cachedTokens": 0},
    ]  # fmt: skip
    assert (calls.source, calls.calls, calls.of) == ("recorded", 4, 4)
    assert calls.digest == read_trace(path, "t")[1]
    for secret in ("ada", "bob", "hello", "f00", "17000"):
        assert secret not in calls.text


@pytest.mark.parametrize(
    ("trace", "llm"),
    [(trace, llm) for trace, llms in {"beam-search": ["generator", "verifier"], "coding-agent": ["planner", "explorer", "reviewer"]}.items() for llm in llms],
)  # fmt: skip
def test_a_part_of_a_trace_replays_like_the_whole(trace: str, llm: str, tmp_path: Path) -> None:
    path = TRACES / f"{trace}.jsonl"
    whole = read_workload(path, llm)[0]
    calls = job_calls(path, llm)
    part = replayed(calls, tmp_path, llm)
    assert 300 <= calls.calls == len(part.calls) <= 500 < calls.of == len(whole.calls)
    assert part.mean_input == pytest.approx(whole.mean_input, rel=0.03)
    assert part.mean_output == pytest.approx(whole.mean_output, rel=0.03)
    assert part.cached == pytest.approx(whole.cached, rel=0.03)
    assert part.mean_group == pytest.approx(whole.mean_group, rel=0.03)
    assert set(sizes(part)) <= set(sizes(whole))
    if whole.shares_prefixes:
        assert part.block == pytest.approx(whole.block, rel=0.03)
        assert shared_part(part) == pytest.approx(shared_part(whole), abs=0.12)


def test_the_same_trace_gives_the_same_bytes() -> None:
    path = TRACES / "coding-agent.jsonl"
    assert job_calls(path, "planner") == job_calls(path, "planner")


def test_groups_are_never_cut_and_stay_apart(tmp_path: Path) -> None:
    # Groups 50.4 ms apart: rounded to a millisecond they would be one.
    starts = [g * 0.0504 for g in range(400) for _ in range(g % 4 + 1)]
    path = write(
        tmp_path / "t.jsonl", *({"start": s, "end": s + 1, "inputTokens": 100 + i % 7} for i, s in enumerate(starts))
    )
    whole, part = read_workload(path, "m")[0], replayed(job_calls(path, most=200), tmp_path)
    assert Counter(sizes(whole)) == {1: 100, 2: 100, 3: 100, 4: 100}
    assert set(sizes(part)) == {1, 2, 3, 4}
    assert part.mean_group == pytest.approx(whole.mean_group, rel=0.05)


def test_a_fan_out_of_more_calls_than_asked_for_stays_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *({"execution": str(e)} for e in range(3) for _ in range(700)))
    assert sizes(replayed(job_calls(path), tmp_path)) == [700]


def test_calls_whose_prefixes_do_not_fit_become_fewer(tmp_path: Path) -> None:
    chance = random.Random(1)

    def chain(n: int) -> list[str]:
        # Half of a call's blocks are those of another one.
        return [f"{(n if i > 1000 else n // 2):x}-{i}-{chance.random() if i == 0 else ''}" for i in range(2000)]

    path = write(
        tmp_path / "t.jsonl",
        *(
            {
                "execution": str(n),
                "inputTokens": 100_000,
                "prefix": [f"{n // 2}.{i}.{chance.random()}" for i in range(9)] + chain(n),
            }
            for n in range(60)
        ),
    )
    calls = job_calls(path)
    part = replayed(calls, tmp_path)
    assert 1 <= calls.calls <= 60
    assert part.mean_input == 100_000
    assert {len(call.prefix) for call in part.calls} == {2009}


def test_calls_that_no_object_could_hold_are_cut(tmp_path: Path) -> None:
    chance = random.Random(2)
    tokens = [
        {
            "inputTokens": chance.randrange(10**6),
            "outputTokens": chance.randrange(10**6),
            "cachedTokens": 0,
            "end": chance.random() * 9000,
        }
        for _ in range(12_000)
    ]
    path = write(tmp_path / "t.jsonl", *tokens)
    calls = job_calls(path)
    assert len(calls.packed) <= LIMIT
    assert 1000 < calls.calls < 12_000 == calls.of


def test_prefixes_that_are_no_texts_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScepsyError, match=r't.jsonl:1: "prefix" must be a list of strings'):
        job_calls(write(tmp_path / "t.jsonl", {"prefix": [1]}))


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=8))
def test_new_names_keep_who_begins_like_whom(prefixes: list[list[str]]) -> None:
    """Hashes are chained in a trace: whatever follows a block that others lack, others lack too."""
    chained = {n: tuple("".join(blocks[: i + 1]) for i in range(len(blocks))) for n, blocks in enumerate(prefixes)}
    names = renumbered(chained)
    assert {n: len(name) for n, name in names.items()} == {n: len(blocks) for n, blocks in chained.items()}
    for a, b in itertools.combinations(chained, 2):
        for k in range(1, 1 + min(len(chained[a]), len(chained[b]))):
            assert (names[a][:k] == names[b][:k]) == (chained[a][:k] == chained[b][:k])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_trace_keeps_its_means_and_group_sizes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    chance = random.Random(data.draw(st.integers(0, 10**6)))
    fan_out = data.draw(st.sampled_from([1, 3, 20]))
    spread = data.draw(st.sampled_from([0.1, 1.0]))
    executions = data.draw(st.integers(60, 300))
    records = []
    for e in range(executions):
        for g in range(chance.randrange(1, 5)):
            for _ in range(chance.choice([1, fan_out])):
                tokens = int(chance.lognormvariate(6, spread)) + 1
                records.append(
                    {
                        "execution": str(e),
                        "start": g * 2.0,
                        "end": g * 2.0 + 1,
                        "inputTokens": tokens,
                        "outputTokens": int(chance.lognormvariate(3, spread)) + 1,
                        "cachedTokens": tokens // 3,
                    }
                )
    folder = tmp_path_factory.mktemp("any")
    path = write(folder / "t.jsonl", *records)
    whole, calls = read_workload(path, "m")[0], job_calls(path)
    part = replayed(calls, folder)
    assert calls.calls <= 500
    for mean in ("mean_input", "mean_output", "cached", "mean_group"):
        assert getattr(part, mean) == pytest.approx(getattr(whole, mean), rel=0.05), mean
    assert set(sizes(part)) <= set(sizes(whole))


def stated(
    calls: float = 20.0, groups: tuple[tuple[int, float], ...] = ((1, 4.0), (8, 2.0)), **tokens: TokenUse
) -> LlmDemand:
    given_ = {"input": TokenUse(1200.0, 9000.0), "output": TokenUse(80.0), "cached": TokenUse(0.0), **tokens}
    return LlmDemand(calls, 1.0, calls, groups, given_["input"], given_["output"], given_["cached"])


def test_made_up_calls_are_as_stated_and_say_that_nothing_was_recorded(tmp_path: Path) -> None:
    calls = synthetic_calls(stated(), "m")
    assert (calls.source, calls.calls, calls.of) == ("made", 500, 500)
    assert calls.digest.startswith("sha256:")
    path = tmp_path / "calls.jsonl"
    path.write_text(calls.text)
    trace, _ = read_trace(path, "calls")
    for field in ("execution", "end", "inputTokens", "outputTokens", "cachedTokens"):
        assert trace.estimates(field) == 500
    part = replayed(calls, tmp_path)
    assert Counter(sizes(part)) == {1: 100, 8: 50}
    assert (part.mean_input, part.mean_output) == (1200.0, 80.0)
    assert 8000 < max(call.input for call in part.calls) <= 9000
    assert {call.output for call in part.calls} == {80}


def test_stated_cached_tokens_become_a_common_beginning(tmp_path: Path) -> None:
    part = replayed(synthetic_calls(stated(input=TokenUse(2000.0), cached=TokenUse(1500.0)), "m"), tmp_path)
    assert part.cached == 1500
    first = part.calls[0].prefix
    common = sum(all(call.prefix[:n] == first[:n] for call in part.calls) for n in range(1, len(first) + 1))
    assert common * part.block == pytest.approx(1500, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(1, 60), st.floats(0.2, 60)), min_size=1, max_size=4, unique_by=lambda g: g[0]),
    mean=st.floats(1, 50_000),
    spread=st.one_of(st.none(), st.floats(1, 40)),
    output=st.floats(0, 3000),
    cached=st.floats(0, 1),
)  # fmt: skip
def test_any_statement_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[tuple[int, float]],
    mean: float,
    spread: float | None,
    output: float,
    cached: float,
) -> None:
    calls = sum(size * count for size, count in groups)
    tokens = TokenUse(mean, None if spread is None else mean * spread)
    job = synthetic_calls(
        stated(calls, tuple(groups), input=tokens, output=TokenUse(output), cached=TokenUse(mean * cached)), "m"
    )
    part = replayed(job, tmp_path_factory.mktemp("stated"))
    assert 1 <= len(part.calls) <= 800
    assert part.mean_input == pytest.approx(mean, rel=0.02, abs=0.6)
    assert part.mean_output == pytest.approx(max(1, output), rel=0.02, abs=0.6)
    assert part.cached == pytest.approx(min(mean * cached, part.mean_input), rel=0.1, abs=1)
    assert max(call.input for call in part.calls) <= max(1, round(tokens.max or mean)) + 1
    assert set(sizes(part)) <= {size for size, _ in groups}


def test_a_workflow_with_statistics_gets_made_up_calls_and_one_with_a_trace_recorded_ones() -> None:
    workspace = load_workspace(ROOT / "examples", ROOT)
    calls = calls_of(workspace, "rag-reranker", "reranker")
    assert calls.source == "made"
    calls = calls_of(workspace, "beam-search", "verifier")
    assert (calls.source, calls.of) == ("recorded", 2972)
