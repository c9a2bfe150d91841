"""Each call becomes one line with the counts that the server reports, or with counts marked as estimated."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.traces.recorder.recorder_setup import (
    ANSWER,
    CHAT,
    DONE,
    USAGE,
    Pause,
    Server,
    delta,
    events,
    ok,
    post,
    run,
    running_recorder,
    streamed,
    talk,
)

from scepsy.traces.recorder.execution_ids import trace_id
from scepsy.traces.recorder.llm_request import operation_of
from scepsy.traces.recorder.prompt import prefix_hashes, prompt_text
from scepsy.traces.trace_reader import parse_trace

W3C = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

CACHED = USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}
RESPONSES_USAGE = {"input_tokens": 7, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}
NO_CACHED = ["cachedTokens"]
"""Servers that do not report how many tokens were cached."""


def usage(counts: object) -> dict[str, Any]:
    return {"choices": [], "usage": counts}


@pytest.mark.parametrize(
    ("path", "answer", "counts", "estimated"),
    [
        # (input, output, cached) as the server states them.
        ("/v1/chat/completions", ok({"choices": [], "usage": CACHED}), (7, 3, 4), []),
        ("/v1/chat/completions", ok({"choices": [], "usage": USAGE}), (7, 3, 0), NO_CACHED),
        ("/v1/chat/completions", ok({"usage": USAGE | {"prompt_tokens_details": None}}), (7, 3, 0), NO_CACHED),
        ("/v1/completions", ok({"choices": [{"text": "a"}], "usage": CACHED}), (7, 3, 4), []),
        ("/v1/responses", ok({"output": [], "usage": RESPONSES_USAGE}), (7, 3, 4), []),
        ("/v1/embeddings", ok({"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 7}}), (7, 0, 0), []),
        ("/v1/embeddings", ok({"usage": {"prompt_tokens": 7, "total_tokens": 7}, "data": []}), (7, 0, 0), []),
        ("/v1/rerank", ok({"results": [], "usage": {"total_tokens": 7}}), (7, 0, 0), []),
        ("/v2/rerank", ok({"results": [], "usage": {"total_tokens": 7, "prompt_tokens": 7}}), (7, 0, 0), []),
        ("/score", ok({"data": [], "usage": USAGE | {"completion_tokens": 0}}), (7, 0, 0), []),
        (
            "/v1/messages",
            ok({"usage": {"input_tokens": 3, "output_tokens": 3, "cache_read_input_tokens": 4}}),
            (7, 3, 4),
            [],
        ),
        # Streams: a last event without choices, counts in every event, or the last event of the responses API.
        ("/v1/chat/completions", streamed(events(delta("a"), usage(CACHED)), DONE), (7, 3, 4), []),
        (
            "/v1/chat/completions",
            streamed(events(delta("a") | {"usage": None}, usage(USAGE)), DONE),
            (7, 3, 0),
            NO_CACHED,
        ),
        (
            "/v1/chat/completions",
            streamed(*(events(delta("a") | {"usage": CACHED | {"completion_tokens": n}}) for n in (1, 2, 3)), DONE),
            (7, 3, 4),
            [],
        ),
        (
            "/v1/responses",
            streamed(
                events({"type": "response.output_text.delta", "delta": "a"}),
                b"event: response.completed\n"
                + events({"type": "response.completed", "response": {"usage": RESPONSES_USAGE}}),
            ),
            (7, 3, 4),
            [],
        ),
        (
            "/v1/messages",
            streamed(
                events({"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}}),
                events({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
            ),
            (7, 3, 0),
            NO_CACHED,
        ),
        # Content codings.
        ("/v1/rerank", ok(gzip.compress(b'{"usage":{"total_tokens":7}}'), "Content-Encoding: gzip"), (7, 0, 0), []),
        ("/v1/rerank", ok(zlib.compress(b'{"usage":{"total_tokens":7}}'), "Content-Encoding: deflate"), (7, 0, 0), []),
        (
            "/v1/rerank",
            ok(zlib.compress(b'{"usage":{"total_tokens":7}}', wbits=-15), "Content-Encoding: deflate"),
            (7, 0, 0),
            [],
        ),
    ],
)
def test_token_counts_are_those_that_the_server_reports(
    tmp_path: Path, path: str, answer: bytes, counts: tuple[int, int, int], estimated: list[str]
) -> None:
    (record,) = talk(tmp_path / "t.jsonl", post(CHAT, W3C, path=path), answer).records
    assert (record["inputTokens"], record["outputTokens"], record["cachedTokens"]) == counts
    assert record.get("estimated", []) == estimated


EIGHTY = {"model": "generator", "prompt": "x" * 78}  # and two separators


@pytest.mark.parametrize(
    ("path", "body", "answer", "counts"),
    [
        pytest.param("/v1/completions", EIGHTY, ok({"choices": [{"text": "y" * 41}]}), (20, 11), id="four characters"),
        pytest.param(
            "/v1/completions", EIGHTY, streamed(events(delta("a"), delta("bcdefghi")), DONE), (20, 2), id="deltas"
        ),
        pytest.param("/v1/completions", EIGHTY | {"prompt": [5, 6, 7]}, ok({"choices": []}), (3, 0), id="ids"),
        pytest.param("/v1/completions", EIGHTY, ok(b"\x1b", "Content-Encoding: br"), (20, 0), id="unknown coding"),
        pytest.param("/v1/completions", EIGHTY, ok(b"no JSON"), (20, 0), id="no JSON"),
        pytest.param(
            "/v1/completions",
            EIGHTY,
            ok({"usage": {"prompt_tokens": -1, "completion_tokens": "3"}}),
            (20, 0),
            id="nonsense",
        ),
    ],
)
def test_counts_that_the_server_does_not_report_are_estimated_and_marked(
    tmp_path: Path, path: str, body: object, answer: bytes, counts: tuple[int, int]
) -> None:
    outcome = talk(tmp_path / "t.jsonl", post(body, W3C, path=path), answer)
    (record,) = outcome.records
    assert (record["inputTokens"], record["outputTokens"]) == counts
    assert record["estimated"] == ["inputTokens", "outputTokens", "cachedTokens"]
    assert outcome.summary.estimated_tokens == 1


def test_streams_without_counts_are_logged_once_with_the_remedy(tmp_path: Path) -> None:
    request = post(CHAT | {"stream": True}, W3C)
    log = talk(tmp_path / "t.jsonl", request * 2, *[streamed(events(delta("a")), DONE)] * 2).log
    assert len(log) == 1
    assert '"stream_options": {"include_usage": true}' in log[0]
    assert "--enable-force-include-usage" in log[0]


@pytest.mark.parametrize(
    ("event", "is_content"),
    [
        (delta("word"), True),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, False),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, False),
        ({"choices": [{"delta": {"reasoning_content": "hm", "reasoning": "hm"}}]}, True),
        ({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]}, True),
        ({"choices": [{"text": "word"}]}, True),
        ({"type": "response.output_text.delta", "delta": "word"}, True),
        ({"type": "response.output_text.done", "text": "word"}, False),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word"}}, True),
        (usage(USAGE), False),
    ],
)
def test_the_first_token_is_the_first_event_with_content(tmp_path: Path, event: object, is_content: bool) -> None:
    (record,) = talk(tmp_path / "t.jsonl", post(CHAT), streamed(events(event), DONE)).records
    assert ("firstToken" in record) == is_content
    assert not is_content or record["start"] <= record["firstToken"] <= record["end"]
    assert is_content or record["outputTokens"] in (0, 3)


@pytest.mark.parametrize(
    ("target", "operation"),
    [
        (b"/v1/chat/completions", "chat"),
        (b"/v1/chat/completions/?key=secret", "chat"),
        (b"/api/v1/completions", "completions"),
        (b"/v1/embeddings", "embeddings"),
        (b"/v2/rerank", "rerank"),
        (b"/score", "score"),
        (b"/v1/responses", "responses"),
        (b"/pooling", "pooling"),
        (b"/", "unknown"),
    ],
)
def test_the_path_names_the_operation(target: bytes, operation: str) -> None:
    assert operation_of(target) == operation


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize", "/detokenize"])
def test_requests_that_need_no_model_to_run_are_forwarded_and_not_recorded(tmp_path: Path, path: str) -> None:
    body = {} if path == "/v1/models" else CHAT
    outcome = talk(tmp_path / "t.jsonl", post(body, path=path), ANSWER)
    assert (outcome.client_saw, outcome.records) == (ANSWER, [])


@pytest.mark.parametrize(
    ("headers", "execution"),
    [
        (["X-Scepsy-Execution: run 7"], "run 7"),
        ([W3C], TRACE_ID),
        ([W3C, "x-scepsy-execution: run 7"], "run 7"),
        ([W3C, "x-scepsy-execution:"], TRACE_ID),
    ],
)
def test_headers_name_the_execution_and_the_explicit_one_wins(
    tmp_path: Path, headers: list[str], execution: str
) -> None:
    outcome = talk(tmp_path / "t.jsonl", post(CHAT, *headers), ANSWER)
    (record,) = outcome.records
    assert record["execution"] == execution
    assert "execution" not in record["estimated"]
    assert outcome.log == []


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TRACE_ID),
        (b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", TRACE_ID),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", None),
        (b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
        (b"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", None),
        (b"00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
        (b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
        (b"00-0af7651916cd43dd-b7ad6b7169203331-01", None),
        (b"", None),
    ],
)
def test_a_traceparent_is_valid_as_w3c_says(traceparent: bytes, expected: str | None) -> None:
    assert trace_id(traceparent) == expected


def test_without_headers_a_connection_without_long_pauses_is_an_execution_which_is_logged(tmp_path: Path) -> None:
    async def scenario() -> None:
        slow = [Pause(0.2), ANSWER]  # longer than the gap, but no pause between calls
        async with Server(slow, ANSWER) as server, running_recorder(tmp_path / "t", server, idle_gap=0.1) as running:
            one, other = await running.client(), await running.client()
            for client, pause in [(one, 0.0), (one, 0.2), (one, 0.0), (other, 0.0)]:
                await client.send(post(CHAT))
                await client.answer()
                await asyncio.sleep(pause)
        a, b, c, d = (record["execution"] for record in running.records)
        assert a == b != c != d != a
        assert all("execution" in record["estimated"] for record in running.records)
        assert [line.partition(";")[0] for line in running.log] == [
            "note: calls have neither traceparent nor x-scepsy-execution"
        ]
        assert (running.summary.estimated_executions, len(running.summary.executions)) == (4, 3)

    run(scenario)


def test_times_span_the_call_from_its_first_byte_to_the_last_of_the_response(tmp_path: Path) -> None:
    async def scenario() -> None:
        head, body = post(CHAT).split(b"\r\n\r\n")
        last = asyncio.Event()
        async with (
            Server([ANSWER[:-1], last, ANSWER[-1:]]) as server,
            running_recorder(tmp_path / "t", server) as running,
        ):
            client = await running.client()
            before = time.time()
            await client.send(head)
            await asyncio.sleep(0.1)
            sent = time.time()
            await client.send(b"\r\n\r\n" + body)
            assert await client.read(len(ANSWER) - 1) == ANSWER[:-1]
            await asyncio.sleep(0.1)
            answered = time.time()
            last.set()
            await client.read(1)
            (record,) = await running.written()
            # Unix time and the recorder's clock may differ by a little.
            assert before - 0.01 <= record["start"] < sent - 0.01
            assert answered - 0.01 <= record["end"] <= time.time() + 0.01
            assert "firstToken" not in record

    run(scenario)


SECRETS = ["sk-secret", "user-prompt", "model-answer", "query-string"]


def secretive(path: Path, **options: Any) -> str:
    request = post(
        {"model": "generator", "messages": [{"role": "user", "content": "user-prompt" * 100}]},
        "Authorization: Bearer sk-secret",
        "api-key: sk-secret",
        path="/v1/chat/completions?key=query-string",
    )
    answers = (ok({"choices": [{"message": {"content": "model-answer"}}]}), streamed(events(delta("model-answer"))))
    outcome = talk(path, request * 2, *answers, **options)
    assert all(request.count(b"sk-secret") == 2 for request in outcome.server_saw)
    return path.read_text() + "".join(outcome.log)


def test_neither_texts_nor_credentials_nor_query_strings_are_stored(tmp_path: Path) -> None:
    text = secretive(tmp_path / "t.jsonl")
    assert [secret for secret in SECRETS if secret in text] == []


def test_with_store_text_the_texts_are_stored_and_still_no_credentials(tmp_path: Path) -> None:
    text = secretive(tmp_path / "t.jsonl", store_text=True)
    assert [secret for secret in SECRETS if secret in text] == ["user-prompt", "model-answer"]


@pytest.mark.parametrize(
    ("path", "body", "answer", "prompt", "completion"),
    [
        (
            "/v1/chat/completions",
            CHAT,
            streamed(events(delta("I am "), delta("Ada.")), DONE),
            CHAT["messages"],
            "I am Ada.",
        ),
        ("/v1/completions", {"prompt": "Hi"}, ok({"choices": [{"text": "a"}, {"text": "b"}]}), "Hi", "a\nb"),
        (
            "/v1/responses",
            {"input": "Hi"},
            ok({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Ada"}]}]}),
            "Hi",
            "Ada",
        ),
        (
            "/v1/rerank",
            {"query": "q", "documents": ["d"], "top_n": 1},
            ok({}),
            {"query": "q", "documents": ["d"]},
            None,
        ),
        ("/v1/embeddings", {"input": ["a", "b"]}, ok({"data": []}), ["a", "b"], None),
        ("/v1/completions", {"prompt": "\ud83d halved"}, ok({"choices": []}), "? halved", None),
    ],
)
def test_stored_texts(
    tmp_path: Path, path: str, body: dict[str, Any], answer: bytes, prompt: object, completion: str | None
) -> None:
    (record,) = talk(tmp_path / "t", post({"model": "m"} | body, path=path), answer, store_text=True).records
    assert (record["prompt"], record.get("completion")) == (prompt, completion)


def conversation(*contents: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user" if n % 2 else "system", "content": text} for n, text in enumerate(contents)]
    return {"model": "generator", "messages": messages, **more}


def common(one: list[str], other: list[str]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.mark.parametrize(
    ("one", "other", "blocks", "shared"),
    [
        # System prompts of 1000 characters with role and separators: three full blocks of 256 and a part.
        pytest.param(conversation("s" * 1000, "a" * 300), conversation("s" * 1000, "b" * 300), (5, 5), 3, id="a system prompt"),
        pytest.param(conversation("s" * 1000, "a" * 300), conversation("s" * 1000, "a" * 300, "c" * 300), (5, 6), 5, id="one more turn"),
        pytest.param(conversation("s" * 1000), conversation("S" + "s" * 999), (3, 3), 0, id="another beginning"),
        pytest.param(conversation("s" * 1000, tools=[{"a": 1}]), conversation("s" * 1000, tools=[{"a": 2}]), (3, 3), 0, id="other tools come first"),
        pytest.param(conversation("s" * 100), conversation("s" * 100), (0, 0), 0, id="less than a block"),
    ],
)  # fmt: skip
def test_equal_leading_hashes_are_equal_beginnings(
    tmp_path: Path, one: object, other: object, blocks: tuple[int, int], shared: int
) -> None:
    first, second = (r.get("prefix", []) for r in talk(tmp_path / "t", post(one) + post(other), ANSWER, ANSWER).records)
    assert (len(first), len(second)) == blocks
    assert common(first, second) == shared
    assert all(len(digest) == 8 for digest in first)


def test_hashes_of_another_run_are_others(tmp_path: Path) -> None:
    request = post(conversation("s" * 1000))
    talk(tmp_path / "t", request, ANSWER)
    one, other = talk(tmp_path / "t", request, ANSWER).records
    assert set(one["prefix"]).isdisjoint(other["prefix"])
    assert one["id"] != other["id"]


def test_the_number_of_hashes_is_bounded() -> None:
    assert len(prefix_hashes("x" * 2_000_000, b"salt")) == 4096


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"prompt": "Hi"}, "\x1e\x1fHi"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "\x1euser\x1fHi"),
        ({"instructions": "Be kind.", "input": "Hi"}, "\x1esystem\x1fBe kind.\x1e\x1fHi"),
        ({"query": "q", "documents": ["a", "b"]}, "\x1e\x1fq\x1fa\x1fb"),
        ({"input": ["a", "b"]}, "\x1ea\x1eb"),
        ({}, ""),
    ],
)
def test_prompts_as_one_text(body: dict[str, Any], text: str) -> None:
    assert prompt_text(body) in (text, text.replace("\x1e\x1f", "\x1e"))


def test_equal_images_are_equal_and_count_little() -> None:
    def text(image: str) -> str:
        part = {"type": "image_url", "image_url": {"url": image}}
        return prompt_text({"messages": [{"role": "user", "content": [part, {"type": "text", "text": "Hi"}]}]})

    assert text("data:" + "A" * 10_000) == text("data:" + "A" * 10_000) != text("data:" + "B" * 10_000)
    assert len(text("data:" + "A" * 10_000)) < 50


def test_what_is_written_is_a_trace(tmp_path: Path) -> None:
    answers = [ANSWER, streamed(events(delta("a"), usage(CACHED))), ok({}, status="500 Oops")]
    talk(tmp_path / "t.jsonl", post(CHAT) * 3, *answers)
    trace = parse_trace((tmp_path / "t.jsonl").read_bytes().splitlines(), "t.jsonl", ["generator"])
    assert trace.input.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("before", "lines"),
    [(b"", 1), (b'{"whole":1}\n', 2), (b'{"whole":1}\n{"torn', 3)],
)
def test_an_existing_file_is_appended_to_on_a_new_line(tmp_path: Path, before: bytes, lines: int) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(before)
    asyncio.run(_one_call(path))
    after = path.read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == lines
    assert json.loads(after.splitlines()[-1])["model"] == "generator"


async def _one_call(path: Path) -> None:
    async with Server(ANSWER) as server, running_recorder(path, server) as running:
        client = await running.client()
        await client.send(post(CHAT))
        await client.answer()
