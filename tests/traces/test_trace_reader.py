"""The native trace format: what is read, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.documents import DocumentError
from scepsy.traces.call import Call, Execution, encoded
from scepsy.traces.trace_builder import trace_of
from scepsy.traces.trace_reader import parse_trace, read_trace


def line(**changes: object) -> bytes:
    record = {"execution": "e", "model": "m", "start": 0, "end": 1, "inputTokens": 5, "outputTokens": 2, **changes}
    return json.dumps({key: value for key, value in record.items() if value is not None}).encode()


def test_calls_come_out_by_execution_and_start_whatever_the_order_of_the_lines() -> None:
    lines = [
        line(execution="late", start=9, end=10),
        line(execution="early", start=3, end=4, model="b"),
        line(execution="early", start=1, end=2, cachedTokens=5),
    ]
    trace = parse_trace(lines, "t.jsonl")
    assert trace.executions == ("early", "late")
    assert trace.llms == ("b", "m")
    assert trace.start.tolist() == [1, 3, 9]
    assert trace.llm.tolist() == [1, 0, 1]
    assert trace.cached.tolist() == [5, 0, 0]


def test_an_execution_may_begin_before_its_first_call_and_end_after_its_last() -> None:
    trace = parse_trace([line(start=2, end=3), b'{"execution": "e", "start": 1, "end": 7}'], "t.jsonl")
    assert (trace.began.tolist(), trace.ended.tolist()) == ([1], [7])


def test_parents_are_found_wherever_they_stand() -> None:
    lines = [
        line(id="c", parent=["a", "b"], start=2, end=3),
        line(id="a", parent=[], start=0, end=1),
        line(id="b", start=0, end=2),
        line(id="d", parent="nobody", start=4, end=5),
    ]
    parents = parse_trace(lines, "t.jsonl").parents
    assert parents is not None
    # In order of start: a, b, c, d.
    assert parents.recorded.tolist() == [True, False, True, True]
    assert [parents.calls[a:b].tolist() for a, b in zip(parents.offsets, parents.offsets[1:], strict=False)] == [
        [],
        [],
        [0, 1],
        [-1],
    ]


def test_failed_calls_are_counted_by_reason_and_left_out() -> None:
    trace = parse_trace([line(), line(error="HTTP 500"), line(error="HTTP 500"), line(error="cut")], "t.jsonl")
    assert (trace.calls, trace.failed) == (1, {"HTTP 500": 2, "cut": 1})


def test_a_gzip_file_is_read_like_any_other_and_its_digest_is_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(gzip.compress(line() + b"\n" + line(start=3, end=4) + b"\n"))
    trace, digest = read_trace(path, "t.jsonl")
    assert trace.calls == 2
    assert digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (gzip.compress(line() * 1000, mtime=0)[:40], "the gzip file is cut off or damaged"),
        (b"\x1f\x8b\x08garbage", "the gzip file is cut off or damaged"),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "t.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        read_trace(path, "t.jsonl")
    assert expected in str(caught.value)


times = st.integers(0, 10**6).map(lambda ms: ms / 1000)
calls = st.builds(
    lambda execution, model, start, length, tokens, cached, estimated: Call(
        execution, model, start, start + length, tokens, 3, min(cached, tokens), estimated=tuple(estimated)
    ),
    st.sampled_from("xyz"),
    st.text(min_size=1, max_size=5),
    times,
    times,
    st.integers(0, 9999),
    st.integers(0, 9999),
    st.lists(st.sampled_from(["end", "inputTokens"]), unique=True),
)


@given(st.lists(calls, min_size=1, max_size=30))
def test_what_is_written_is_what_is_read(records: list[Call]) -> None:
    written = [encoded(record) for record in [*records, Execution(records[0].execution, 0, 10**4)]]
    read = parse_trace(written, "t.jsonl")
    expected = trace_of([*records, Execution(records[0].execution, 0, 10**4)])
    assert (read.executions, read.llms, read.failed) == (expected.executions, expected.llms, expected.failed)
    for column in ("execution", "llm", "start", "end", "input", "output", "cached", "estimated", "began", "ended"):
        assert np.allclose(getattr(read, column), getattr(expected, column)), column


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (line(end=-1), "t.jsonl:1:1: the call ends 1 s before it starts"),
        (line(model="x"), 't.jsonl:1:1: unknown model "x"'),
        (line(model="mm"), 'did you mean "m"?'),
        (line(inputTokens=None), '"inputTokens" is missing'),
        (line(inputTokens=-1), "token counts cannot be negative"),
        (line(inputTokens="5"), '"inputTokens" must be a number'),
        (line(start=True), '"start" must be a number'),
        (line(start=1e300), '"start" must be a number'),
        (line(cachedTokens=6), "cachedTokens is larger than inputTokens"),
        (line(promt="x"), 'unknown key "promt"'),
        (line(execution=7), '"execution" must be a string'),
        (line(id="a") + b"\n\n" + line(id="a"), "t.jsonl:3:1: duplicate call id: line 1 has it in the same execution"),
        (line(parent=3), '"parent" must be an id or a list of ids'),
        (line(estimated=["price"]), '"estimated" must be a list of some of execution, end, inputTokens'),
        (line(start=1.7e12, end=1.7e12), "start 1700000000000 seems to be in milliseconds: times are in seconds"),
        (line(start=1.7e18, end=1.7e18), "seems to be in nanoseconds"),
        (line() + b"\n" + line(start=1.7e9, end=1.7e9), "t.jsonl:2:1: the calls of the execution are 54 years apart"),
        (line(error="HTTP 500"), "every call of the trace failed"),
        (b'{"execution": "e", "start": 2, "end": 1}', "the execution ends 1 s before it starts"),
        (b'{"execution": "e", "start": 0, "end": 1}', "the trace contains no calls"),
        (line()[:-5], "the line is not a JSON object; is it cut off?"),
        (b"[1]", "the line is not a JSON object"),
        (b"[" * 100_000, "the line is not a JSON object"),
        (b"\xff\xfe", "the line is not UTF-8"),
        (b"\x1f\x8b\x08\x00", "is the file compressed"),
        ("é".encode("utf-16"), "the line is not UTF-8"),
        (b"\n\n", "the trace contains no calls"),
        (b"", "the trace contains no calls"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(data: bytes, expected: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_trace(data.splitlines(keepends=True), "t.jsonl", ["m"])
    assert expected in str(caught.value)


def test_many_wrong_lines_are_counted_not_all_listed() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_trace([b"x\n"] * 500, "t.jsonl", ["m"])
    assert len(caught.value.diagnostics) == 21
    assert "and 480 more lines with problems" in str(caught.value)
