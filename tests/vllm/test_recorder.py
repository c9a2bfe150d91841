"""The recorder between an agent and real vLLM servers, against what the servers count by themselves."""

from __future__ import annotations

import http.client
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from scepsy.traces.trace_reader import read_trace
from tests.vllm.conftest import Record, Recorded, Servers, run_agent
from tests.vllm.recorder_process import RunningRecorder, Totals, by_kind, most_at_once
from tests.vllm.server import KEY, Counters

GENERATOR, RERANKER = "generator", "reranker"
EXECUTIONS = 12
ENDLESS = 1900
"""Tokens that take seconds, so that there is time to break off in between."""


@pytest.fixture(scope="module")
def metered(first_servers: Servers, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Executions of an agent that asks for token counts wherever the server does not send them by itself."""
    directory = tmp_path_factory.mktemp("metered")
    return run_agent(first_servers, python, directory, "--executions", str(EXECUTIONS), "--concurrency", "4")


@pytest.fixture(scope="module")
def unmetered(first_servers: Servers, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Executions of an agent that asks for token counts in no stream."""
    directory = tmp_path_factory.mktemp("unmetered")
    return run_agent(first_servers, python, directory, "--executions", "6", "--concurrency", "3", "--unmetered")


# What the servers count


@pytest.mark.parametrize("llm", [GENERATOR, RERANKER])
def test_as_many_calls_and_tokens_are_recorded_as_the_server_counted(metered: Recorded, llm: str) -> None:
    counted, recorded = metered.counted[llm], Totals.of(metered.lines, llm)
    assert (recorded.completed, recorded.input, recorded.output) == (counted.completed, counted.input, counted.output)
    assert recorded.completed > EXECUTIONS


def test_no_count_is_estimated_where_streams_carry_them(metered: Recorded) -> None:
    assert not any({"inputTokens", "outputTokens"} & set(line.get("estimated", [])) for line in metered.lines)


def test_cached_tokens_are_those_that_the_server_counted_if_it_says_them(metered: Recorded) -> None:
    recorded = Totals.of(metered.lines, GENERATOR).cached
    assert recorded == metered.counted[GENERATOR].cached > 0
    assert not any("estimated" in line for line in metered.lines if line["model"] == GENERATOR)


def test_cached_tokens_are_marked_as_estimated_if_the_server_does_not_say_them(metered: Recorded) -> None:
    lines = [line for line in metered.lines if line["model"] == RERANKER]
    assert {(line["cachedTokens"], *line["estimated"]) for line in lines} == {(0, "cachedTokens")}


# What the agent did


def test_executions_in_the_trace_are_those_that_the_agent_ran(metered: Recorded) -> None:
    recorded = {name: len(lines) for name, lines in metered.executions().items()}
    assert recorded == {name: len(did["calls"]) for name, did in metered.did.items()}
    assert len(recorded) == EXECUTIONS


def test_each_call_is_recorded_with_the_tokens_that_the_agent_was_told(metered: Recorded) -> None:
    for name, lines in metered.executions().items():
        recorded = Counter((c["model"], c["operation"], c["inputTokens"], c["outputTokens"]) for c in lines)
        told = Counter((c["model"], c["operation"], c["input"], c["output"]) for c in metered.did[name]["calls"])
        assert recorded == told


def test_the_branch_that_an_execution_took_shows_in_its_calls(metered: Recorded) -> None:
    widths = set()
    for name, lines in metered.executions().items():
        did = metered.did[name]
        ranked, answered = did["width"], int(did["width"] == 0)
        assert by_kind(lines) == +Counter(
            {
                (GENERATOR, "chat"): 1 + did["rounds"],
                (GENERATOR, "completions"): 1,
                (RERANKER, "chat"): answered + did["rounds"],
                (RERANKER, "completions"): ranked,
            }
        )
        widths.add(ranked)
    assert widths == {0, 2, 3, 4}


def test_calls_of_a_fan_out_overlap_in_the_trace(metered: Recorded) -> None:
    for name, lines in metered.executions().items():
        ranked = [line for line in lines if (line["model"], line["operation"]) == (RERANKER, "completions")]
        assert most_at_once(ranked) == metered.did[name]["width"]


def test_calls_that_waited_for_each_other_do_not_overlap_in_the_trace(metered: Recorded) -> None:
    for name, lines in metered.executions().items():
        loop = [line for line in lines if (line["model"], line["operation"]) != (RERANKER, "completions")]
        assert most_at_once(loop) == 1
        rounds = metered.did[name]["rounds"]
        assert [line["model"] for line in loop[-1 - 2 * rounds :]] == [GENERATOR, RERANKER] * rounds + [GENERATOR]


def test_times_in_the_trace_lie_within_those_of_the_agent(metered: Recorded) -> None:
    for name, lines in metered.executions().items():
        calls = metered.did[name]["calls"]
        # The calls of a fan-out cannot be told apart, but the n-th to begin began after n had been made.
        for call, line in zip(sorted(call["start"] for call in calls), lines, strict=True):
            assert call <= line["start"]
        # The end is noted once the answer was sent; on a busy machine the agent may have read it before.
        busy = 1.0
        for call, end in zip(sorted(call["end"] for call in calls), sorted(c["end"] for c in lines), strict=True):
            assert end <= call + busy


def test_streams_and_only_they_say_when_their_first_token_came(metered: Recorded) -> None:
    streamed = [line for line in metered.lines if "firstToken" in line]
    assert all(line["start"] < line["firstToken"] <= line["end"] for line in streamed)
    rounds = sum(did["rounds"] for did in metered.did.values())
    assert by_kind(streamed)[GENERATOR, "chat"] == rounds


# What people get


def test_the_trace_is_one_that_scepsy_reads(metered: Recorded) -> None:
    trace, _ = read_trace(metered.trace, metered.trace.name, [GENERATOR, RERANKER])
    assert (trace.calls, len(trace.executions), trace.failed) == (len(metered.lines), EXECUTIONS, {})
    assert trace.llms == (GENERATOR, RERANKER)


def test_the_recorder_ends_with_ctrl_c_and_says_what_it_recorded(metered: Recorded) -> None:
    assert metered.status == 0
    assert metered.said.splitlines()[-1] == (
        f"recorded {len(metered.lines)} calls in {metered.trace}: {EXECUTIONS} executions, 0 failed"
    )


def test_neither_keys_nor_texts_are_in_the_trace(metered: Recorded) -> None:
    text = metered.trace.read_text(encoding="utf-8")
    assert KEY not in text
    assert "recorder forwards" not in text
    assert not any({"prompt", "completion"} & set(line) for line in metered.lines)


# Streams without token counts


def test_streams_without_token_counts_are_marked_as_estimated(unmetered: Recorded) -> None:
    untold = Counter(
        (name, call["model"], call["operation"])
        for name, did in unmetered.did.items()
        for call in did["calls"]
        if call["output"] is None
    )
    marked = Counter(
        (line["execution"], line["model"], line["operation"])
        for line in unmetered.lines
        if {"inputTokens", "outputTokens"} <= set(line.get("estimated", []))
    )
    assert marked == untold
    assert {model for _, model, _ in marked} == {RERANKER}
    assert f"{marked.total()} with estimated tokens" in unmetered.said
    assert "--enable-force-include-usage" in unmetered.said


def test_streams_without_token_counts_are_counted_as_calls(unmetered: Recorded) -> None:
    assert Totals.of(unmetered.lines, RERANKER).completed == unmetered.counted[RERANKER].completed


def test_output_that_nobody_counted_is_estimated_by_the_pieces_of_the_stream(unmetered: Recorded) -> None:
    counted, recorded = unmetered.counted[RERANKER].output, Totals.of(unmetered.lines, RERANKER).output
    # A piece is a token, or several where the server was slow to send.
    assert counted / 2 < recorded <= counted


def test_a_server_that_is_told_to_counts_tokens_in_every_stream(unmetered: Recorded) -> None:
    counted, recorded = unmetered.counted[GENERATOR], Totals.of(unmetered.lines, GENERATOR)
    assert recorded == Totals(counted.completed, counted.input, counted.output, counted.cached)
    assert not any("estimated" in line for line in unmetered.lines if line["model"] == GENERATOR)


# Each of vLLM's APIs

LONG = "A long prompt, which the prefix cache holds when it comes for the second time. " * 6


def chat(stream: bool) -> dict[str, Any]:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    return {"messages": [{"role": "user", "content": LONG}], "max_tokens": 9, "ignore_eos": True, **options}


def completions(stream: bool) -> dict[str, Any]:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    return {"prompt": LONG, "max_tokens": 9, "ignore_eos": True, **options}


def responses(stream: bool) -> dict[str, Any]:
    return {"input": LONG, "max_output_tokens": 9}


def messages(stream: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": LONG}], "max_tokens": 9}


APIS = {
    "/v1/chat/completions": ("chat", chat),
    "/v1/completions": ("completions", completions),
    "/v1/responses": ("responses", responses),
    "/v1/messages": ("messages", messages),
}


@pytest.mark.parametrize("llm", [GENERATOR, RERANKER])
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
@pytest.mark.parametrize("path", APIS)
def test_calls_of_each_api_are_recorded_with_the_tokens_that_the_server_counted(
    servers: Servers, record: Record, path: str, stream: bool, llm: str
) -> None:
    operation, body = APIS[path]
    before = servers[llm].counters()
    recorder = record()
    for _ in range(2):
        with asked(recorder, path, {"model": llm, "stream": stream, **body(stream)}) as answer:
            assert answer.status == 200
            answer.read()
    lines = recorder.written(2)
    counted = servers[llm].counters() - before
    recorded = Totals.of(lines, llm)
    assert {line["operation"] for line in lines} == {operation}
    assert (recorded.completed, recorded.input, recorded.output) == (counted.completed, counted.input, counted.output)
    assert ["firstToken" in line for line in lines] == [stream] * 2
    if llm == GENERATOR:
        assert recorded.cached == counted.cached > 0


# What goes wrong


def test_a_call_that_the_server_refuses_is_recorded_as_failed(servers: Servers, record: Record) -> None:
    before = servers.generator.counters()
    recorder = record()
    with asked(recorder, "/v1/completions", {"model": GENERATOR, "prompt": "x" * 5000}) as answer:
        assert answer.status == 400
        assert "maximum context length" in json.loads(answer.read())["error"]["message"]
    (line,) = recorder.written(1)
    assert line["error"] == "HTTP 400"
    assert servers.generator.counters() - before == Counters(0, 0, 0, 0)


def test_a_client_that_hangs_up_leaves_a_call_with_an_error_and_a_server_that_stops(
    servers: Servers, record: Record
) -> None:
    before = servers.generator.counters()
    recorder = record()
    trace_id = secrets.token_hex(16)
    with asked(recorder, "/v1/completions", endless(GENERATOR), trace_id) as answer:
        read_pieces(answer, 5)
    (line,) = recorder.written(1)
    counted = servers.generator.counters() - before
    assert line["error"] == "client disconnected"
    assert line["execution"] == trace_id
    assert "outputTokens" in line["estimated"]
    # Nobody completed it, and it was given up long before its end.
    assert (counted.completed, counted.input) == (0, line["inputTokens"])
    assert 5 <= line["outputTokens"] <= counted.output < ENDLESS


def test_a_client_that_hangs_up_once_it_has_read_the_last_event_leaves_a_complete_call(
    servers: Servers, record: Record
) -> None:
    calls = 40
    before = servers.generator.counters()
    recorder = record()
    for _ in range(calls):
        with asked(recorder, "/v1/completions", endless(GENERATOR, 5)) as answer:
            # The end of the answer's transfer coding may come later; many clients do not wait for it.
            while answer.readline() != b"data: [DONE]\n":
                pass
    lines = recorder.written(calls)
    counted = servers.generator.counters() - before
    assert Counter(line.get("error") for line in lines) == {None: calls}
    assert Totals.of(lines, GENERATOR) == Totals(counted.completed, counted.input, counted.output, counted.cached)


def test_a_server_that_dies_leaves_calls_with_errors_and_a_trace_that_scepsy_reads(
    servers: Servers, record: Record
) -> None:
    recorder = record()
    trace_id = secrets.token_hex(16)
    with (
        asked(recorder, "/v1/completions", endless(RERANKER), trace_id) as dies,
        asked(recorder, "/v1/completions", endless(GENERATOR, 300), trace_id) as lives,
    ):
        read_pieces(dies, 5)
        servers.reranker.kill()
        # An answer that just ended would look complete.
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            dies.read()
        assert lives.read().endswith(b"data: [DONE]\n\n")
    with asked(recorder, "/v1/completions", endless(RERANKER), trace_id) as refused:
        assert refused.status == 502
        assert "127.0.0.1" in json.loads(refused.read())["error"]["message"]
    lines = recorder.written(3)
    assert recorder.stop() == 0
    assert Counter((line["model"], line.get("error")) for line in lines) == {
        (RERANKER, "upstream ended in the middle of the answer"): 1,
        (GENERATOR, None): 1,
        (RERANKER, lines[-1]["error"]): 1,
    }
    assert lines[-1]["error"].startswith("upstream unreachable")
    trace, _ = read_trace(recorder.trace, recorder.trace.name)
    assert (trace.calls, trace.executions, sum(trace.failed.values())) == (1, (trace_id,), 2)
    assert "1 execution, 2 failed" in recorder.said


def endless(llm: str, tokens: int = ENDLESS) -> dict[str, Any]:
    """Return a request for a stream that goes on for a while."""
    return {"model": llm, "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": True}


@contextmanager
def asked(
    recorder: RunningRecorder, path: str, body: dict[str, Any], trace_id: str = ""
) -> Iterator[http.client.HTTPResponse]:
    """Send a request on a connection of its own, which ends with the block, whatever of the answer was read."""
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {KEY}",
        "traceparent": f"00-{trace_id or secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
    }
    with closing(http.client.HTTPConnection(urlsplit(recorder.url).netloc, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(body), headers)
        with closing(connection.getresponse()) as answer:
            yield answer


def read_pieces(answer: http.client.HTTPResponse, pieces: int) -> None:
    """Read so many events of a stream."""
    assert answer.status == 200
    for _ in range(2 * pieces):  # each is followed by an empty line
        answer.readline()
