"""LangSmith: runs as the API and the SDKs export them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scepsy.traces.call import Call, Execution
from scepsy.traces.importers.import_files import import_files

ROOT, ONE, TWO = (f"{n}b64098b-4ab7-43f6-afee-992304f198d8" for n in (1, 2, 3))
B = 1_694_730_715.0
"""2023-09-14T22:31:55Z"""


def run(own: str, kind: str, begin: str, end: str | None, parent: str | None = None, **more) -> dict:
    llm = {
        "extra": {"metadata": {"ls_model_name": "gpt-4o", "ls_model_type": "chat"}},
        "inputs": {"messages": [["secret"]]},
        "prompt_tokens": 80,
        "completion_tokens": 15,
        "total_tokens": 95,
    }
    return {
        "id": own,
        "trace_id": ROOT,
        "parent_run_id": parent,
        "run_type": kind,
        "name": "ChatOpenAI",
        "start_time": f"2023-09-14T22:31:{begin}",
        "end_time": end and f"2023-09-14T22:31:{end}",
        "error": None,
        **(llm if kind == "llm" else {}),
        **more,
    }


def imported(tmp_path: Path, content: object):
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(content))
    return import_files([path], None)


def test_a_chain_with_a_tool_between_two_calls(tmp_path: Path):
    found = imported(
        tmp_path,
        [
            run(ROOT, "chain", "55", "59", prompt_tokens=160, completion_tokens=30),
            run(ONE, "llm", "55.5", "56.5", ROOT, first_token_time="2023-09-14T22:31:55.75"),
            run("t", "tool", "56.5", "57", ROOT),
            run(TWO, "llm", "57", "58", ROOT),
        ],
    )
    assert found.executions == (Execution(ROOT, B, B + 4),)
    assert found.calls == (
        Call(ROOT, "gpt-4o", B + 0.5, B + 1.5, 80, 15, 0, ONE, (), B + 0.75, "chat"),
        Call(ROOT, "gpt-4o", B + 2, B + 3, 80, 15, 0, TWO, (ONE,), None, "chat"),
    )
    assert "secret" not in repr(found)


@pytest.mark.parametrize("shape", ["runs", "nested", "dotted"])
def test_other_shapes_of_the_same(tmp_path: Path, shape: str):
    root, one, two = run(ROOT, "chain", "55", "59"), run(ONE, "llm", "55", "56", ROOT), run(TWO, "llm", "56", "57", ONE)
    if shape == "dotted":
        for item, order in ((root, [ROOT]), (one, [ROOT, ONE]), (two, [ROOT, TWO])):
            item["trace_id"] = item["parent_run_id"] = None
            item["dotted_order"] = ".".join(f"20230914T223155647Z{part}" for part in order)
    else:
        two["parent_run_id"] = ROOT
    nested = root | {
        "child_runs": [{k: v for k, v in r.items() if k not in ("trace_id", "parent_run_id")} for r in (one, two)]
    }
    content = {"runs": {"runs": [root, one, two], "cursors": {}}, "nested": nested, "dotted": [root, one, two]}[shape]
    found = imported(tmp_path, content)
    assert [(c.execution, c.id, c.parents) for c in found.calls] == [(ROOT, ONE, ()), (ROOT, TWO, (ONE,))]
    assert len(found.executions) == 1


USAGE = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "input_token_details": {"cache_read": 64}}
NONE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (80, 15, 0)),
        ({"prompt_token_details": {"cache_read": 32}}, (80, 15, 32)),
        (NONE | {"outputs": {"usage_metadata": USAGE}}, (100, 20, 64)),
        (NONE | {"outputs": {"generations": [[{"message": {"kwargs": {"usage_metadata": USAGE}}}]]}}, (100, 20, 64)),
        (NONE | {"outputs": {"llm_output": {"token_usage": {"prompt_tokens": 7, "completion_tokens": 3}}}}, (7, 3, 0)),
        (
            NONE | {"outputs": {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}}},
            (7, 3, 4),
        ),
        ({"completion_tokens": None, "outputs": {"generations": [[{"message": {"kwargs": {"usage_metadata": USAGE}}}]]}}, (80, 15, 64)),
    ],
    ids=["of the run", "of the run, with the cached", "usage_metadata", "LangChain's message", "llm_output", "OpenAI's usage",
         "the cached from elsewhere, the output from the total"],
)  # fmt: skip
def test_tokens(tmp_path: Path, more: dict, expected: tuple):
    (call,) = imported(tmp_path, [run(ONE, "llm", "55", "56", **more)]).calls
    assert (call.input_tokens, call.output_tokens, call.cached_tokens) == expected


@pytest.mark.parametrize(
    "more",
    [
        {"extra": {"invocation_params": {"model": "gpt-4o"}}},
        {"extra": {"invocation_params": {"model_name": "gpt-4o"}}},
        {"extra": None, "outputs": {"llm_output": {"model_name": "gpt-4o"}}},
    ],
)
def test_where_the_model_stands(tmp_path: Path, more: dict):
    assert imported(tmp_path, [run(ONE, "llm", "55", "56", **more)]).calls[0].model == "gpt-4o"


def test_the_first_token_of_a_stream_is_an_event(tmp_path: Path):
    events = [
        {"name": "start", "time": "2023-09-14T22:31:55"},
        {"name": "new_token", "time": "2023-09-14T22:31:55.500000+00:00"},
    ]
    assert imported(tmp_path, [run(ONE, "llm", "55", "56", events=events)]).calls[0].first_token == B + 0.5


def test_a_run_that_failed_keeps_the_exception_and_not_what_it_says(tmp_path: Path):
    error = "RateLimitError('secret')Traceback (most recent call last):\n  secret"
    found = imported(tmp_path, [run(ONE, "llm", "55", "56", error=error)])
    assert found.calls[0].error == "RateLimitError"
    assert "secret" not in repr(found)


def test_a_wrapped_sdk_inside_a_chat_model_is_one_call(tmp_path: Path):
    found = imported(tmp_path, [run(ONE, "llm", "55", "57", **NONE), run(TWO, "llm", "55.5", "56.5", ONE)])
    assert [(c.id, c.input_tokens) for c in found.calls] == [(TWO, 80)]
    assert found.skipped == {"LLM spans around the span of the same call": 1}


def test_a_run_that_is_still_pending_is_skipped(tmp_path: Path):
    found = imported(tmp_path, [run(ONE, "llm", "55", None), run(TWO, "llm", "55", "56")])
    assert [c.id for c in found.calls] == [TWO]
    assert found.skipped == {"LLM calls without a start or an end": 1}
