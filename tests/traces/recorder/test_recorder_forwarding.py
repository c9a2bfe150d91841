"""Every byte of a request and of its answer passes the recorder as it came; only the value of Host changes."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.traces.recorder.recorder_setup import (
    ANSWER,
    CHAT,
    CLOSE,
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    USAGE,
    Pause,
    Server,
    chunk,
    delta,
    events,
    ok,
    post,
    run,
    running_recorder,
    streamed,
    talk,
)

JSON = b'{"model": "generator", "prompt": "Hi"}'
ODD_REQUEST = (
    b"POST /v1/completions?trace=1%20 HTTP/1.1\r\nX-CuStOm:a\r\nhOsT:   somewhere.else:1\r\naccept: */*\r\nX-Custom: b\r\n"
    b"X-Empty:\r\nX-Latin: caf\xe9\r\nContent-LENGTH: 38\r\n\r\n" + JSON
)
CHUNKED_REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;name="value"\r\n{"mod\r\n021\r\nel": "generator", "prompt": "Hi"}\r\n000\r\nX-Trailer: 1\r\n\r\n'
)


def rehosted(request: bytes, port: int | str = "PORT") -> bytes:
    """What the server should see of these requests."""
    request = request.replace(b"hOsT:   somewhere.else:1", b"hOsT: 127.0.0.1:%s" % str(port).encode())
    return request.replace(b"Host: h\r", b"Host: 127.0.0.1:%s\r" % str(port).encode())


def without_port(requests: list[bytes]) -> list[bytes]:
    return [re.sub(rb"(?i)(host: 127\.0\.0\.1):\d+", rb"\1:PORT", request) for request in requests]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ODD_REQUEST, id="odd case, order, spaces and bytes of headers"),
        pytest.param(CHUNKED_REQUEST, id="chunks with extensions, leading zeros and trailers"),
        pytest.param(b"GET /v1/models?x=%2F HTTP/1.1\r\nHost: h\r\n\r\n", id="no body"),
        pytest.param(post(b'{"model": "generator", not json', host="h"), id="a body that is no JSON"),
        pytest.param(post(b'{"model": "generator"}   \r\n\r\n', host="h"), id="whitespace behind the JSON"),
        pytest.param(b"POST /x HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", id="HTTP/1.0 without Host"),
    ],
)
def test_the_server_sees_the_request_as_it_was_sent_but_for_the_value_of_host(tmp_path: Path, request_: bytes) -> None:
    outcome = talk(tmp_path / "t.jsonl", request_, ANSWER)
    assert without_port(outcome.server_saw) == [rehosted(request_)]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200\r\nx-B: 1\r\nX-a:2\r\nX-B:  3 \r\ncontent-length: 2\r\n\r\n{}", id="odd headers"),
        pytest.param(
            STREAM_HEAD + b"3;x=y\r\nabc\r\n0004\r\n\r\n\r\n\r\n0\r\nX-Sum: 1\r\n\r\n", id="odd chunks, trailers"
        ),
        pytest.param(ok(gzip.compress(b'{"usage": {}}'), "Content-Encoding: gzip"), id="gzip"),
        pytest.param(ok(b"\x00\xff" * 300_000), id="600 kB that are no text"),
        pytest.param(b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", id="204 has no body"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", id="304 has no body"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ANSWER, id="an interim answer first"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nuntil ", b"the end", CLOSE], id="a body that the connection's end ends"),
        pytest.param([b"HTTP/1.0 200 OK\r\nX: 1\r\n\r\nold", CLOSE], id="HTTP/1.0"),
        pytest.param(ok({"error": {"message": "slow down"}}, "Retry-After: 2", status="429 Too Many"), id="an error"),
    ],
)
def test_the_client_sees_the_response_as_it_was_sent(tmp_path: Path, answer: bytes | list[bytes | str]) -> None:
    sent = answer if isinstance(answer, bytes) else b"".join(step for step in answer if isinstance(step, bytes))
    assert talk(tmp_path / "t.jsonl", post(CHAT), answer).client_saw == sent


def test_a_response_to_head_has_no_body_whatever_its_length(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    request = b"HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n"
    outcome = talk(tmp_path / "t.jsonl", request * 2, head, head)
    assert (outcome.client_saw, len(outcome.server_saw), outcome.connections) == (head * 2, 2, 1)


def test_a_stream_arrives_piece_by_piece(tmp_path: Path) -> None:
    pieces = [chunk(events(delta(f"word {n} "))) for n in range(5)]

    async def scenario() -> None:
        # Each piece is sent once the one before it has arrived: nothing can be held back to be sent with the next.
        arrived = [asyncio.Event() for _ in pieces]
        script = [STREAM_HEAD, *itertools.chain(*zip(pieces, arrived, strict=True)), LAST_CHUNK]
        async with Server(script) as server, running_recorder(tmp_path / "t.jsonl", server) as running:
            client = await running.client()
            times = [time.time()]
            await client.send(post(CHAT))
            assert await client.read(len(STREAM_HEAD)) == STREAM_HEAD
            for piece, event in zip(pieces, arrived, strict=True):
                assert await client.read(len(piece)) == piece
                times.append(time.time())
                await asyncio.sleep(0.05)
                event.set()
            await client.read(len(LAST_CHUNK))
            (record,) = await running.written()
            # Unix time and the recorder's clock may differ by a little.
            assert times[0] - 0.01 <= record["start"] <= record["firstToken"] <= times[1] + 0.01
            assert times[-1] + 0.01 < record["end"]

    run(scenario)


def test_a_client_that_reads_slowly_slows_the_server_down(tmp_path: Path) -> None:
    size = 64 * 2**20
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async def scenario() -> None:
        server = await asyncio.start_server(flood, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with running_recorder(tmp_path / "t.jsonl", f"http://127.0.0.1:{port}") as running:
            client = await running.client()
            await client.send(post(CHAT))
            await asyncio.sleep(0.3)
            stuck = sent
            await asyncio.sleep(0.1)
            assert sent == stuck < size / 2  # what the kernel and the recorder keep, no more
            total = 0
            while total < size:
                total += len(await client.read_some())
            assert sent == size
        server.close()

    run(scenario)


def test_requests_that_come_at_once_are_forwarded_in_turn(tmp_path: Path) -> None:
    first, second = post(CHAT | {"seed": 1}), post(CHAT | {"seed": 2})
    answers = [[Pause(0.05), ok({"n": 1})], [ok({"n": 2})]]
    outcome = talk(tmp_path / "t.jsonl", first + second, *answers)
    assert outcome.client_saw == ok({"n": 1}) + ok({"n": 2})
    assert [b'"seed": 1' in outcome.server_saw[0], b'"seed": 2' in outcome.server_saw[1]] == [True, True]
    one, two = outcome.records
    assert one["end"] <= two["end"]


def test_connections_to_the_server_are_kept_and_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Server(ANSWER) as server, running_recorder(tmp_path / "t.jsonl", server) as running:
            for _ in range(3):
                client = await running.client()
                for _ in range(2):
                    await client.send(post(CHAT))
                    assert await client.answer() == ANSWER
                client.close()
            assert (len(server.requests), server.connections) == (6, 1)

    run(scenario)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(post(CHAT, "Connection: close"), ANSWER, id="the client asks to close"),
        pytest.param(post(CHAT), ok({}, "Connection: close"), id="the server closes"),
    ],
)
def test_connection_close_ends_both_connections(tmp_path: Path, request_: bytes, answer: bytes) -> None:
    async def scenario() -> None:
        async with Server(answer) as server, running_recorder(tmp_path / "t.jsonl", server) as running:
            for _ in range(2):
                client = await running.client()
                await client.send(request_)
                assert await client.read_rest() == answer
            assert server.connections == 2

    run(scenario)


def test_a_kept_connection_that_the_server_closes_on_the_next_request_is_replaced(tmp_path: Path) -> None:
    """The server closes without reading the second request; the third one is its repetition."""

    async def scenario() -> None:
        async with (
            Server([ANSWER], [CLOSE], [ANSWER]) as server,
            running_recorder(tmp_path / "t.jsonl", server) as running,
        ):
            client = await running.client()
            for _ in range(2):
                await client.send(post(CHAT))
                assert await client.answer() == ANSWER
            assert (len(server.requests), server.connections) == (3, 2)
            assert server.requests[1] == server.requests[2]
            assert [record.get("error") for record in await running.written(2)] == [None, None]

    run(scenario)


@pytest.mark.parametrize(
    ("second", "requests"),
    [
        pytest.param([Pause(1.1), CLOSE], 2, id="the server may have worked on it"),
        pytest.param([b"HTTP/1.1 200", CLOSE], 2, id="the server has begun to answer"),
        pytest.param([CLOSE], 3, id="only once"),
    ],
)
def test_a_request_is_not_repeated_when(tmp_path: Path, second: list[bytes | str], requests: int) -> None:
    async def scenario() -> None:
        async with (
            Server([ANSWER], second, [CLOSE]) as server,
            running_recorder(tmp_path / "t.jsonl", server) as running,
        ):
            client = await running.client()
            await client.send(post(CHAT))
            await client.answer()
            await client.send(post(CHAT))
            assert (await client.answer()).startswith(b"HTTP/1.1 502 ")
            assert len(server.requests) == requests
            _, failed = await running.written(2)
            assert failed["error"].startswith("upstream ")

    run(scenario)


def test_the_model_decides_which_server_responds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Server(ok({"i": 1})) as one, Server(ok({"i": 2})) as two, Server(ok({"i": 3})) as other:
            urls = [f"generator=http://127.0.0.1:{one.port}", f"org/re-ranker:v2=http://127.0.0.1:{two.port}/"]
            async with running_recorder(tmp_path / "t.jsonl", *urls, other) as running:
                client = await running.client()
                by_header = post(b"--form--", "X-Scepsy-Model: generator", path="/v1/audio/transcriptions")
                for request, answer in [
                    (post({"model": "generator"}), {"i": 1}),
                    (post({"model": "org/re-ranker:v2"}, path="/v1/rerank"), {"i": 2}),
                    (post({"model": "anything"}), {"i": 3}),
                    (post({"no": "model"}), {"i": 3}),
                    (b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n", {"i": 3}),
                    (by_header, {"i": 1}),
                    (post(gzip.compress(b'{"model": "generator"}'), "Content-Encoding: gzip"), {"i": 1}),
                ]:
                    await client.send(request)
                    assert await client.answer() == ok(answer)
            assert [record["model"] for record in running.records] == [
                "generator",
                "org/re-ranker:v2",
                "anything",
                "generator",
                "generator",
            ]

    run(scenario)


def test_an_unknown_model_gets_404_and_the_connection_stays_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Server(ANSWER) as server:
            async with running_recorder(tmp_path / "t.jsonl", f"generator=http://127.0.0.1:{server.port}") as running:
                client = await running.client()
                await client.send(post({"model": "generater"}))
                status, _, body = (await client.answer()).partition(b"\r\n")
                assert status == b"HTTP/1.1 404 Not Found"
                assert body.partition(b"\r\n\r\n")[2] == (
                    b'{"error": {"message": "no upstream serves the model \\"generater\\"; known models: generator", '
                    b'"type": "invalid_request_error", "param": "model", "code": "model_not_found"}}'
                )
                assert server.requests == []
                await client.send(post(CHAT))
                assert await client.answer() == ANSWER
            assert len(running.records) == 1
            assert running.summary.refused == 1
            assert 'note: calls of the unknown model "generater" are refused with 404' in "".join(running.log)

    run(scenario)


def test_a_client_that_expects_100_continue_gets_it_once(tmp_path: Path) -> None:
    head, body = post(CHAT, "Expect: 100-continue").split(b"\r\n\r\n")

    async def scenario() -> None:
        answer = b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER
        async with Server(answer) as server, running_recorder(tmp_path / "t.jsonl", server) as running:
            client = await running.client()
            await client.send(head + b"\r\n\r\n")
            assert await client.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(body)
            assert await client.answer() == ANSWER
            assert server.requests[0].endswith(body)

    run(scenario)


HOST = b"Host: h\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\nHost: h\n\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X : 1\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\r\n folded\r\n\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\n", b"400 Bad Request"),
        (
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"400 Bad Request",
        ),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 268435457\r\n\r\n", b"413 Content Too Large"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Expect: cake\r\n\r\n", b"417 Expectation Failed"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 70_000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
        (b"CONNECT h:443 HTTP/1.1\r\n" + HOST + b"\r\n", b"501 Not Implemented"),
        (b"GET http://h/v1/models HTTP/1.1\r\n" + HOST + b"\r\n", b"501 Not Implemented"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"501 Not Implemented"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505 HTTP Version Not Supported"),
    ],
)
def test_what_cannot_be_forwarded_is_refused_and_the_connection_closed(
    tmp_path: Path, request_: bytes, status: bytes
) -> None:
    async def scenario() -> None:
        async with Server(ANSWER) as server, running_recorder(tmp_path / "t.jsonl", server) as running:
            client = await running.client()
            await client.send(request_)
            answer = await client.read_some()
            client.close()
            assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
            assert b"\r\nConnection: close\r\n" in answer
            assert b'{"error": {"message": "' in answer
            assert server.requests == []

    run(scenario)


def test_an_offer_of_h2c_is_forwarded_for_the_server_to_ignore(tmp_path: Path) -> None:
    request = post(CHAT, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert talk(tmp_path / "t.jsonl", request, ANSWER).client_saw == ANSWER


def test_servers_may_speak_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    certificate = tmp_path / "localhost.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(certificate), "-out", str(tmp_path / "certificate.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files], check=True, capture_output=True
    )
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "certificate.pem").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b'Hi"}'))
        writer.write(ANSWER)

    requests: list[bytes] = []

    async def scenario() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = await asyncio.start_server(reply, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with running_recorder(tmp_path / "t.jsonl", f"https://localhost:{port}") as running:
            client = await running.client()
            await client.send(ODD_REQUEST)
            assert await client.answer() == ANSWER
            expected = ODD_REQUEST.replace(b"   somewhere.else:1", f" localhost:{port}".encode())
            assert requests == [expected]
        server.close()

    run(scenario)


PIPELINE = post(CHAT) + CHUNKED_REQUEST + b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" + ODD_REQUEST
CONVERSATION = [
    streamed(events(delta("Hel"), delta("lo")), events({"choices": [], "usage": USAGE}), DONE),
    ANSWER,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n" + ok({"choices": [{"text": "Hello"}], "usage": USAGE}),
]


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % len(data) for cut in cuts} - {0})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def everything_but_time(records: list[dict[str, object]]) -> list[dict[str, object]]:
    random = {"start", "end", "firstToken", "id", "execution", "prefix"}
    return [{key: value for key, value in record.items() if key not in random} for record in records]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 10_000), max_size=40),
    st.lists(st.lists(st.integers(0, 10_000), max_size=40), min_size=4, max_size=4),
)
def test_however_the_bytes_are_split_the_same_is_forwarded_and_recorded(
    request_cuts: list[int], answer_cuts: list[list[int]]
) -> None:
    scripts = [
        [step for piece in pieces_of(answer, cuts) for step in (piece, Pause(0))]
        for answer, cuts in zip(CONVERSATION, answer_cuts, strict=True)
    ]
    with tempfile.TemporaryDirectory() as directory:
        whole = talk(Path(directory, "a"), PIPELINE, *CONVERSATION, store_text=True)
        split = talk(Path(directory, "b"), pieces_of(PIPELINE, request_cuts), *scripts, store_text=True)
    assert whole.client_saw == split.client_saw == b"".join(CONVERSATION)
    assert without_port(split.server_saw) == without_port(whole.server_saw)
    assert b"".join(without_port(split.server_saw)) == rehosted(PIPELINE).replace(
        b"Host: llm.test", b"Host: 127.0.0.1:PORT"
    )
    assert everything_but_time(split.records) == everything_but_time(whole.records)
    assert [record["completion"] for record in split.records] == ["Hello", "I am Ada.", "Hello"]


def test_open_files_do_not_accumulate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Server(ANSWER) as server, running_recorder(tmp_path / "t.jsonl", server) as running:
            for n in range(20):
                client = await running.client()
                await client.send(post(CHAT))
                await client.answer()
                client.close()
                if n == 5:
                    await asyncio.sleep(0.05)
                    before = len(os.listdir("/proc/self/fd"))
            await asyncio.sleep(0.05)
            assert len(os.listdir("/proc/self/fd")) <= before

    run(scenario)
