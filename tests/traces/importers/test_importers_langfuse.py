"""Langfuse: observations of the UI, the API and the export to blob storage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scepsy.traces.call import Call, Execution
from scepsy.traces.importers.import_files import import_files

B = 1_744_453_394.0
"""2025-04-12T10:23:14Z"""


def generation(own: str, begin: str, end: str, parent: str | None = None, **more) -> dict:
    return {
        "id": own,
        "traceId": "trace-1",
        "parentObservationId": parent,
        "type": "GENERATION",
        "name": "openai-chat",
        "model": "gpt-4o-mini",
        "startTime": f"2025-04-12T10:23:{begin}Z",
        "endTime": f"2025-04-12T10:23:{end}Z",
        "input": [{"role": "user", "content": "secret"}],
        "output": "secret",
        "usageDetails": {"input": 412, "output": 87, "total": 499},
        "level": "DEFAULT",
        **more,
    }


def imported(tmp_path: Path, content: object):
    path = tmp_path / "observations.json"
    path.write_text(json.dumps(content))
    return import_files([path], None)


def test_an_export_of_observations(tmp_path: Path):
    root = generation("root", "14.000", "20.000") | {
        "type": "AGENT",
        "model": None,
        "usageDetails": {"input": 999, "output": 999},
    }
    found = imported(
        tmp_path,
        [
            root,
            generation("a", "14.512", "16.108", "root", completionStartTime="2025-04-12T10:23:15.000Z"),
            generation("tool", "16.2", "17.0", "root") | {"type": "TOOL"},
            generation("b", "17.000", "19.500", "root"),
        ],
    )
    assert found.executions == (Execution("trace-1", B, B + 6),)
    assert found.calls == (
        Call("trace-1", "gpt-4o-mini", B + 0.512, B + 2.108, 412, 87, 0, "a", (), B + 1),
        Call("trace-1", "gpt-4o-mini", B + 3, B + 5.5, 412, 87, 0, "b", ("a",)),
    )
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda items: {"data": items, "meta": {"page": 1}},
        lambda items: {"id": "trace-1", "timestamp": "2025-04-12T10:23:14Z", "observations": items},
        lambda items: {"data": [{"id": "trace-1", "observations": items}]},
        lambda items: [
            {"id": "trace-1", "observations": [{k: v for k, v in i.items() if k != "traceId"} for i in items]}
        ],
    ],
    ids=["a page of the API", "a trace", "a page of traces", "observations that do not repeat their trace's id"],
)
def test_other_shapes_of_the_same(tmp_path: Path, wrapped):
    found = imported(tmp_path, wrapped([generation("a", "14", "15"), generation("b", "15", "16")]))
    assert [(c.execution, c.id, c.parents) for c in found.calls] == [("trace-1", "a", ()), ("trace-1", "b", ("a",))]


def test_the_export_to_blob_storage(tmp_path: Path):
    line = {
        "id": "a",
        "trace_id": "trace-1",
        "parent_observation_id": "",
        "type": "EMBEDDING",
        "provided_model_name": "e5",
        "start_time": "2025-04-12 10:23:14.512000",
        "end_time": "2025-04-12 10:23:16.000000",
        "completion_start_time": None,
        "usage_details": {"input": 12, "total": 12},
    }
    (call,) = imported(tmp_path, line).calls
    assert call == Call("trace-1", "e5", B + 0.512, B + 2, 12, 0, 0, "a", (), None, "embeddings")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"usageDetails": {"input": 86, "input_cached_tokens": 17817, "output": 188, "total": 18091}}, (17903, 188, 17817)),
        ({"usageDetails": {"input": 10, "output": 5, "cache_read_input_tokens": 2}}, (12, 5, 2)),
        (
            {"usageDetails": {"input": 2, "cache_read_input_tokens": 40, "input_cache_creation_1h": 8, "output": 7, "output_reasoning_tokens": 3}},
            (50, 10, 40),
        ),
        ({"usageDetails": {"input": 100, "input_cached_tokens": 60, "output": 5, "total": 105}}, (100, 5, 60)),
        ({"usageDetails": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}}, (100, 5, 0)),
        ({"usageDetails": '{"input": 10, "output": 5}'}, (10, 5, 0)),
        ({"usageDetails": {}, "usage": {"input": 412, "output": 87, "total": 499, "unit": "TOKENS"}}, (412, 87, 0)),
        ({"usageDetails": None, "usage": {"input": 412, "total": 499}}, (412, 87, 0)),
        ({"usageDetails": None, "promptTokens": 9, "completionTokens": 4, "totalTokens": 13}, (9, 4, 0)),
    ],
    ids=["types exclude each other", "Anthropic's names", "writes to the cache, and reasoning", "inclusive, as the total says",
         "OpenAI's names", "as a string", "older", "older, without the output", "oldest"],
)  # fmt: skip
def test_tokens(tmp_path: Path, usage: dict, expected: tuple):
    (call,) = imported(tmp_path, [generation("a", "14", "15", **usage)]).calls
    assert (call.input_tokens, call.output_tokens, call.cached_tokens) == expected
    assert call.estimated == ()


def test_characters_are_not_taken_for_tokens(tmp_path: Path):
    usage = {"usageDetails": None, "usage": {"input": 4000, "output": 870, "unit": "CHARACTERS"}}
    found = imported(tmp_path, [generation("a", "14", "15", **usage), generation("b", "15", "16")])
    assert [(c.input_tokens, c.estimated) for c in found.calls] == [(412, ("inputTokens", "outputTokens")), (412, ())]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (None, "error"),
        ("", "error"),
        ("you said: secret", "error"),
        ("openai.RateLimitError: secret", "openai.RateLimitError"),
    ],
)
def test_a_generation_that_failed(tmp_path: Path, message: str | None, expected: str):
    found = imported(tmp_path, [generation("a", "14", "15", level="ERROR", statusMessage=message, usageDetails=None)])
    (call,) = found.calls
    assert (call.error, call.input_tokens, call.output_tokens) == (expected, 0, 0)


def test_an_observation_that_was_exported_before_it_ended_is_taken_from_the_later_export(tmp_path: Path):
    early = generation("root", "14", "20") | {"type": "SPAN", "endTime": None}
    late = generation("root", "14", "20") | {"type": "SPAN"}
    found = imported(tmp_path, [early, generation("a", "15", "16", "root"), late])
    assert found.executions == (Execution("trace-1", B, B + 6),)
