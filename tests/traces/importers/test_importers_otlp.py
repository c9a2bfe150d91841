"""OTLP JSON: spans as the collector writes them, with the semantic conventions of several years."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scepsy.traces.call import Call, Execution
from scepsy.traces.importers.import_files import import_files

TRACE = "5b8efff798038103d269b633813fc60c"
S = 1_700_000_000_000_000_000
"""A Unix time in nanoseconds."""


def attribute(key: str, value: object) -> dict:
    if isinstance(value, bool):
        return {"key": key, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": str(value)}}
    return {"key": key, "value": {"doubleValue" if isinstance(value, float) else "stringValue": value}}


def span(number: int, begin: float, end: float, parent: int = 0, /, status: dict | None = None, **attributes) -> dict:
    """A span; attributes are written with `__` for the dot."""
    return {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        **({"parentSpanId": f"{parent:016x}"} if parent else {}),
        "name": "anything",
        "kind": 3,
        "startTimeUnixNano": str(S + round(begin * 1e9)),
        "endTimeUnixNano": str(S + round(end * 1e9)),
        "attributes": [attribute(key.replace("__", "."), value) for key, value in attributes.items()],
        "status": status or {},
    }


def request(*spans: dict) -> dict:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}]}]}


def imported(tmp_path: Path, *requests: dict):
    path = tmp_path / "traces.json"
    path.write_text("\n".join(json.dumps(r) for r in requests))
    return import_files([path], None)


CHAT = {
    "gen_ai__operation__name": "chat",
    "gen_ai__provider__name": "openai",
    "gen_ai__request__model": "gpt-4o",
    "gen_ai__response__model": "gpt-4o-2024-08-06",
    "gen_ai__usage__input_tokens": 120,
    "gen_ai__usage__output_tokens": 30,
}


def test_a_trace_with_an_agent_a_tool_and_two_calls(tmp_path: Path):
    found = imported(
        tmp_path,
        request(
            span(
                1,
                0,
                9,
                gen_ai__operation__name="invoke_agent",
                gen_ai__usage__input_tokens=270,
                gen_ai__request__model="gpt-4o",
            ),
            span(2, 1, 3, 1, **CHAT),
            span(3, 3, 5, 1, gen_ai__operation__name="execute_tool", gen_ai__tool__name="search"),
            span(
                4,
                5,
                8.5,
                1,
                **CHAT | {"gen_ai__usage__input_tokens": 150, "gen_ai__usage__cache_read__input_tokens": 128},
            ),
        ),
    )
    b, s = 1_700_000_000.0, {"operation": "chat"}
    assert found.executions == (Execution(TRACE, b, b + 9),)
    assert found.calls == (
        Call(TRACE, "gpt-4o", b + 1, b + 3, 120, 30, 0, "0000000000000002", (), **s),
        Call(TRACE, "gpt-4o", b + 5, b + 8.5, 150, 30, 128, "0000000000000004", ("0000000000000002",), **s),
    )
    assert not found.skipped


def test_spans_of_one_trace_may_come_in_several_requests_and_files(tmp_path: Path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(
        json.dumps(request(span(2, 1, 3, 1, **CHAT))) + "\n" + json.dumps(request(span(3, 4, 5, 1, **CHAT))) + "\n"
    )
    two.write_text(json.dumps(request(span(1, 0, 9))) + "\n" + json.dumps({"resourceMetrics": []}) + "\n")
    found = import_files([one, two], None)
    assert [c.parents for c in found.calls] == [(), ("0000000000000002",)]
    assert len(found.executions) == 1
    assert not found.skipped


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (CHAT, ("gpt-4o", "chat", 120, 30, 0)),
        (CHAT | {"gen_ai__operation__name": "text_completion"}, ("gpt-4o", "completions", 120, 30, 0)),
        (CHAT | {"gen_ai__operation__name": "generate_content"}, ("gpt-4o", "chat", 120, 30, 0)),
        (
            {"gen_ai__operation__name": "embeddings", "gen_ai__request__model": "e5", "gen_ai__usage__input_tokens": 8},
            ("e5", "embeddings", 8, 0, 0),
        ),
        (
            {"gen_ai__system": "openai", "gen_ai__request__model": "m", "llm__request__type": "chat", "gen_ai__usage__prompt_tokens": 5, "gen_ai__usage__completion_tokens": 2},
            ("m", "chat", 5, 2, 0),
        ),
        (
            {"llm__request__type": "completion", "gen_ai__request__model": "m", "llm__usage__prompt_tokens": 5, "llm__usage__total_tokens": 7},
            ("m", "completions", 5, 2, 0),
        ),
        (
            {"openinference__span__kind": "LLM", "llm__model_name": "m", "llm__token_count__prompt": 9, "llm__token_count__completion": 3, "llm__token_count__prompt_details__cache_read": 4},
            ("m", "chat", 9, 3, 4),
        ),
        (
            {"openinference__span__kind": "EMBEDDING", "embedding__model_name": "m", "llm__token_count__prompt": 9},
            ("m", "embeddings", 9, 0, 0),
        ),
        (
            {"openinference__span__kind": "RERANKER", "reranker__model_name": "m", "reranker__query": "four", "reranker__input_documents__0__document__content": "12345678"},
            ("m", "rerank", 3, 0, 0),
        ),
        (
            {"gen_ai__response__model": "Qwen/Qwen3-8B", "gen_ai__usage__prompt_tokens": 5, "gen_ai__usage__completion_tokens": 2},
            ("Qwen/Qwen3-8B", None, 5, 2, 0),
        ),
        (
            CHAT | {"gen_ai__usage__input_tokens": 2, "gen_ai__usage__cache_read__input_tokens": 100},
            ("gpt-4o", "chat", 102, 30, 100),
        ),
    ],
    ids=["today", "text_completion", "generate_content", "embeddings", "openllmetry", "older: only a total", "openinference",
         "openinference embedding", "openinference reranker: from its texts", "a server: vLLM", "prompt counted without the cached tokens"],
)  # fmt: skip
def test_a_span_that_is_a_call(tmp_path: Path, attributes: dict, expected: tuple):
    (call,) = imported(tmp_path, request(span(1, 0, 1, **attributes))).calls
    assert (call.model, call.operation, call.input_tokens, call.output_tokens, call.cached_tokens) == expected


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai__operation__name": name, "gen_ai__request__model": "m", "gen_ai__usage__input_tokens": 5}
        for name in (
            "invoke_agent",
            "invoke_workflow",
            "create_agent",
            "execute_tool",
            "retrieval",
            "plan",
            "search_memory",
        )
    ]
    + [
        {"openinference__span__kind": "AGENT", "llm__model_name": "m", "llm__token_count__prompt": 9},
        {"traceloop__span__kind": "task", "gen_ai__request__model": "m", "llm__usage__prompt_tokens": 5},
        {"http__request__method": "POST"},
    ],
)
def test_a_span_that_is_none(tmp_path: Path, attributes: dict):
    found = imported(tmp_path, request(span(1, 0, 9, **attributes), span(2, 1, 2, 1, **CHAT)))
    assert [c.id for c in found.calls] == ["0000000000000002"]


def test_a_frameworks_span_around_the_sdks_is_the_same_call(tmp_path: Path):
    framework = {"openinference__span__kind": "LLM", "llm__model_name": "gpt-4o", "llm__token_count__prompt": 120}
    found = imported(tmp_path, request(span(1, 0, 4, **framework), span(2, 0, 4, 1), span(3, 1, 3, 2, **CHAT)))
    assert [c.id for c in found.calls] == ["0000000000000003"]
    assert found.skipped == {"LLM spans around the span of the same call": 1}


@pytest.mark.parametrize(
    ("status", "more", "expected"),
    [
        ({"code": 2, "message": "secret prompt"}, {}, "error"),
        ({"code": "STATUS_CODE_ERROR"}, {"error__type": "timeout"}, "timeout"),
        ({"code": 2, "message": "RateLimitError: you said: secret"}, {}, "RateLimitError"),
        ({"code": 2, "message": "Error code: 429 - secret"}, {}, "HTTP 429"),
        ({"code": 1}, {"error__type": "none really"}, None),
    ],
)
def test_a_call_that_failed_is_kept_with_the_kind_of_error_and_not_its_message(tmp_path: Path, status, more, expected):
    found = imported(tmp_path, request(span(1, 0, 1, status=status, **CHAT | more)))
    assert found.calls[0].error == expected


@pytest.mark.parametrize(
    ("more", "events", "expected"),
    [
        ({"gen_ai__response__time_to_first_chunk": 0.25}, [], 0.25),
        ({"gen_ai__latency__time_to_first_token": 0.5}, [], 0.5),
        ({}, [{"name": "First Token Stream Event", "timeUnixNano": str(S + 750_000_000)}], 0.75),
        ({"gen_ai__response__time_to_first_chunk": 99.0}, [], None),
    ],
    ids=["today", "vLLM", "openinference", "after the end"],
)
def test_when_the_first_token_came(tmp_path: Path, more: dict, events: list, expected: float | None):
    found = imported(tmp_path, request(span(1, 0, 1, **CHAT | more) | {"events": events}))
    first = found.calls[0].first_token
    assert (first and round(first - 1_700_000_000, 3)) == expected


@pytest.mark.parametrize(
    ("trace", "own", "expected"),
    [
        (TRACE.upper(), "EEE19B7EC3C1B174", (TRACE, "eee19b7ec3c1b174")),
        ("W47/95gDgQPSabYzgT/GDA==", "7uGbfsPBsXQ=", (TRACE, "eee19b7ec3c1b174")),
        ("my-trace", "my-span", ("my-trace", "my-span")),
    ],
    ids=["hexadecimal", "base64", "something else"],
)
def test_ids_are_the_same_however_they_are_written(tmp_path: Path, trace: str, own: str, expected: tuple):
    found = imported(tmp_path, request(span(1, 0, 1, **CHAT) | {"traceId": trace, "spanId": own}))
    assert (found.calls[0].execution, found.calls[0].id) == expected


@pytest.mark.parametrize(
    "shape",
    [
        lambda s: {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [s]}]}]},
        lambda s: {"resource_spans": [{"scope_spans": [{"spans": [s]}]}]},
        lambda s: {"batches": [{"scopeSpans": [{"spans": [s]}]}]},
        lambda s: {"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [s]}]}]}},
    ],
    ids=["before scopes", "protobuf's names", "Tempo", "Tempo v2"],
)
def test_other_shapes_of_the_same(tmp_path: Path, shape):
    assert len(imported(tmp_path, shape(span(1, 0, 1, **CHAT))).calls) == 1


def test_what_is_skipped_is_counted_by_reason(tmp_path: Path):
    nameless = {key: value for key, value in CHAT.items() if not key.endswith("model")}
    found = imported(
        tmp_path,
        request(
            span(1, 0, 1, **CHAT),
            span(1, 0, 1, **CHAT),
            span(2, 5, 1, **CHAT),
            span(3, 0, 1, **CHAT) | {"endTimeUnixNano": "0"},
            span(4, 0, 1, **nameless),
            span(5, 0, 1, **CHAT) | {"traceId": "0" * 32},
            "not a span",
        ),
    )
    assert len(found.calls) == 1
    assert found.skipped == {
        "spans or calls that were there before": 1,
        "LLM calls that end before they begin": 1,
        "LLM calls without a start or an end": 1,
        "LLM calls without a model": 1,
        "spans without an id or a trace id": 1,
        "records of another shape": 1,
    }


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        (1_700_000_000, "s"),
        (1_700_000_000_000, "ms"),
        (1_700_000_000_000_000, "us"),
        (S, "ns"),
        (str(S), "ns"),
        ("2023-11-14T22:13:20Z", "ISO 8601"),
        ("2023-11-14T22:13:20", "ISO 8601"),
        ("2023-11-14 23:13:20.000+01:00", "ISO 8601"),
    ],
)
def test_a_time_is_read_by_its_magnitude(tmp_path: Path, written: object, unit: str):
    odd = span(1, 0, 1, **CHAT) | {"startTimeUnixNano": written}
    found = imported(tmp_path, request(odd, span(2, 0, 2, **CHAT), span(3, 0, 3, **CHAT)))
    assert found.calls[0].start == 1_700_000_000
    expected = f"times are written in several units (2 in ns, 1 in {unit} spans); each was read by its magnitude"
    assert [note.split(": ", 1)[1] for note in found.notes] == ([] if unit == "ns" else [expected])


def test_nothing_of_the_texts_is_kept(tmp_path: Path):
    texts = {"gen_ai__input__messages": '[{"role":"user","parts":[{"content":"secret"}]}]', "user__email": "secret"}
    found = imported(tmp_path, request(span(1, 0, 1, **CHAT | texts)))
    assert "secret" not in repr(found)
