"""Whatever fails, the client does not get a complete response, and the file holds a line with the reason."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.traces.recorder.recorder_setup import (
    ANSWER,
    CHAT,
    CLOSE,
    DONE,
    HANG,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    USAGE,
    Client,
    Pause,
    Script,
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

from scepsy.errors import ScepsyError
from scepsy.traces.recorder import connection_pool, parse_listen, parse_upstreams, trace_file
from scepsy.traces.recorder.trace_file import TraceFile

STREAM = CHAT | {"stream": True}
TWO_WORDS = chunk(events(delta("one "))) + chunk(events(delta("two ")))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ok({"error": {"message": "later"}}, status="429 Too Many Requests"), "HTTP 429"),
        (ok({}, status="500 Internal Server Error"), "HTTP 500"),
        (streamed(events(delta("one "), {"error": {"message": "out of memory", "code": 500}}), DONE), "error in the stream"),
        (streamed(events({"type": "response.failed", "response": {"usage": None}})), "error in the stream"),
    ],
)  # fmt: skip
def test_failures_that_the_server_reports_are_forwarded_and_recorded(tmp_path: Path, answer: bytes, error: str) -> None:
    outcome = talk(tmp_path / "t", post(CHAT), answer)
    assert (outcome.client_saw, outcome.records[0]["error"], outcome.summary.failed) == (answer, error, 1)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def unanswered(tmp_path: Path, url: str, status: bytes, error: str) -> None:
    async def scenario() -> None:
        async with running_recorder(tmp_path / "t", url) as running:
            client = await running.client()
            for _ in range(2):  # the connection goes on
                await client.send(post(CHAT))
                head, _, body = (await client.answer()).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 " + status)
                assert json.loads(body)["error"]["message"].startswith(error)
        assert [record["error"] for record in running.records] == [error] * 2

    run(scenario)


def test_a_server_that_refuses_connections_gives_502(tmp_path: Path, closed_port: int) -> None:
    unanswered(tmp_path, f"http://127.0.0.1:{closed_port}", b"502", "upstream unreachable: connection refused")


def test_a_server_that_refuses_at_every_address_of_its_name_gives_502(tmp_path: Path, closed_port: int) -> None:
    unanswered(tmp_path, f"http://localhost:{closed_port}", b"502", "upstream unreachable: connection refused")


def test_a_name_that_cannot_be_resolved_gives_502(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    unanswered(tmp_path, "http://llm.invalid:80", b"502", "upstream unreachable: the host name cannot be resolved")


def test_a_server_that_does_not_accept_in_time_gives_504(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "CONNECT_TIMEOUT", 0.1)
    with socket.socket() as full, contextlib.ExitStack() as others:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):  # fill the queue that closed_port accepts from
            waiting = others.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        error = "upstream unreachable: no connection within 0.1 s"
        unanswered(tmp_path, f"http://127.0.0.1:{full.getsockname()[1]}", b"504", error)


def test_a_server_without_the_tls_that_is_expected_gives_502(tmp_path: Path) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER)

    async def scenario() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with running_recorder(tmp_path / "t", f"https://127.0.0.1:{port}") as running:
            client = await running.client()
            await client.send(post(CHAT))
            assert (await client.answer()).startswith(b"HTTP/1.1 502 ")
        assert running.records[0]["error"].startswith("upstream unreachable: TLS failed: ")
        server.close()

    run(scenario)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([CLOSE], "upstream closed the connection without a response"),
        ([RESET], "upstream closed the connection without a response"),
        ([b"HTTP/1.1 200 OK\r\nContent-", CLOSE], "upstream closed the connection in the middle of the response"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n", CLOSE], "the upstream's response is not HTTP/1.1: the status line is malformed"),
        ([b"HTTP/1.1 101 Switching\r\n\r\n"], "the upstream's response is not HTTP/1.1: it switches protocols (101)"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], "the upstream's response is not HTTP/1.1: Content-Length is malformed"),
    ],
)  # fmt: skip
def test_a_server_without_a_valid_response_gives_502(tmp_path: Path, script: Script, error: str) -> None:
    outcome = talk(tmp_path / "t", post(CHAT), script, expect=12)
    assert outcome.client_saw.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert [record["error"] for record in outcome.records] == [error]


@pytest.mark.parametrize(
    ("before", "ending", "reset"),
    [
        pytest.param(STREAM_HEAD + TWO_WORDS, CLOSE, False, id="in chunks"),
        pytest.param(STREAM_HEAD + TWO_WORDS + b"5\r\nda", CLOSE, False, id="within a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", CLOSE, False, id="of known length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n12345", RESET, True, id="to be ended by the connection"),
    ],
)
def test_a_response_that_is_cut_off_is_cut_off_for_the_client_too(
    tmp_path: Path, before: bytes, ending: str, reset: bool
) -> None:
    async def scenario() -> None:
        script = [before, Pause(0.05), ending]
        async with Server(script) as server, running_recorder(tmp_path / "t", server) as running:
            client = await running.client()
            await client.send(post(STREAM))
            assert await client.read(len(before)) == before
            if reset:
                with pytest.raises(ConnectionError):
                    await client.read_rest()
            else:
                assert await client.read_rest() == b""
            (record,) = await running.written()
            assert record["error"] == "upstream closed the connection in the middle of the response"
            assert record["outputTokens"] == (2 if TWO_WORDS in before else 0)
            assert "outputTokens" in record["estimated"]

    run(scenario)


def test_malformed_chunks_cut_the_response_off(tmp_path: Path) -> None:
    outcome = talk(tmp_path / "t", post(STREAM), [STREAM_HEAD + TWO_WORDS, Pause(0.02), b"zz\r\n"])
    assert outcome.client_saw == STREAM_HEAD + TWO_WORDS
    assert outcome.records[0]["error"] == "the upstream's response is not HTTP/1.1: a chunk size is malformed"


@pytest.mark.parametrize(
    ("script", "seen", "tokens"),
    [
        pytest.param([HANG], 0, 0, id="before the answer"),
        pytest.param([STREAM_HEAD, TWO_WORDS, HANG], len(STREAM_HEAD + TWO_WORDS), 2, id="in a stream"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\n12345", HANG], 24, 0, id="in a body without an end"),
    ],
)
def test_when_the_client_disconnects_so_does_the_recorder(
    tmp_path: Path, script: Script, seen: int, tokens: int
) -> None:
    async def scenario() -> None:
        async with Server(script) as server, running_recorder(tmp_path / "t", server) as running:
            client = await running.client()
            await client.send(post(STREAM))
            await asyncio.wait_for(server.asked.wait(), 5)
            await client.read(seen)
            client.close()
            await asyncio.wait_for(server.hung_up.wait(), 1)
            (record,) = await running.written()
            assert (record["error"], record["outputTokens"]) == ("client disconnected", tokens)
            assert "outputTokens" in record["estimated"]

    run(scenario)


def test_counts_that_a_stream_reports_are_kept_when_it_is_cut_off(tmp_path: Path) -> None:
    script = [STREAM_HEAD + chunk(events(delta("one ") | {"usage": USAGE})), HANG]

    async def scenario() -> None:
        async with Server(script) as server, running_recorder(tmp_path / "t", server) as running:
            client = await running.client()
            await client.send(post(STREAM, "x-scepsy-execution: e"))
            await client.read(len(script[0]))
            client.close()
            (record,) = await running.written()
            assert (record["inputTokens"], record["outputTokens"]) == (7, 3)
            assert record["estimated"] == ["outputTokens", "cachedTokens"]

    run(scenario)


def test_a_client_that_disconnects_after_the_last_event_has_made_a_complete_call(tmp_path: Path) -> None:
    # Clients close when they have seen [DONE]; the end of the chunked body may come a little later.
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}\n\n'
    last = chunk(usage) + chunk(b"data: [DONE]\n\n")

    async def scenario() -> None:
        async with (
            Server([STREAM_HEAD, TWO_WORDS, last, HANG]) as server,
            running_recorder(tmp_path / "t", server) as running,
        ):
            client = await running.client()
            await client.send(post(STREAM))
            await client.read(len(STREAM_HEAD + TWO_WORDS + last))
            client.close()
            (record,) = await running.written()
            assert "error" not in record
            assert (record["inputTokens"], record["outputTokens"]) == (9, 2)

    run(scenario)


def test_a_client_that_disconnects_during_its_request_has_made_no_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Server(ANSWER) as server, running_recorder(tmp_path / "t", server) as running:
            client = await running.client()
            await client.send(post(CHAT)[:-1])
            client.close()
            await asyncio.sleep(0.05)
        assert (server.requests, running.records) == ([], [])

    run(scenario)


def test_a_prompt_that_cannot_be_analysed_is_still_forwarded(tmp_path: Path) -> None:
    deep = b'{"model": "generator", "prompt": ' + b"[" * 900 + b"]" * 900 + b"}"
    outcome = talk(tmp_path / "t", post(deep), ANSWER)
    assert outcome.client_saw == ANSWER
    assert [record["inputTokens"] for record in outcome.records] == [7]


def test_with_a_full_disk_calls_are_still_forwarded(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    outcome = talk(tmp_path / "full", post(CHAT, "x-scepsy-execution: e") * 2, ANSWER, ANSWER)
    assert outcome.client_saw == ANSWER * 2
    assert (outcome.summary.calls, outcome.summary.lost) == (0, 2)
    assert outcome.log == [
        "error: cannot write to the trace file (no space left on device); calls are still forwarded, but not recorded"
    ]


def test_a_line_that_fits_only_in_part_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TraceFile(tmp_path / "t")
    file.append(b"one\n")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(trace_file.os, "write", lambda fd, data: write(fd, data[:2]))
        with pytest.raises(OSError, match="No space left"):
            file.append(b"two\n")
    file.append(b"three\n")
    file.close()
    assert (tmp_path / "t").read_bytes() == b"one\nthree\n"


# The command as a process.


WITH_GRACE = """
from scepsy.cli import main
from scepsy.traces.recorder import proxy

proxy.GRACE = {grace}
main()
"""


class Process:
    """`scepsy trace record` as users start it; `grace` seconds for calls in flight, where it is given."""

    def __init__(self, *arguments: object, grace: float | None = None) -> None:
        start = ["-m", "scepsy"] if grace is None else ["-c", WITH_GRACE.format(grace=grace)]
        command = [sys.executable, *start, "trace", "record", *map(str, arguments)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.introduction: list[str] = []
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.introduction.append(line.rstrip())
            if "Ctrl-C" in line:
                break

    @property
    def port(self) -> int:
        return int(self.introduction[0].rpartition(":")[2])

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self) -> tuple[int, list[str]]:
        """Wait for the end, and return the exit code and what was printed after the introduction."""
        _, err = await asyncio.to_thread(self._process.communicate, timeout=10)
        return self._process.returncode, err.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_calls_in_flight_end_and_a_summary_is_printed(tmp_path: Path, number: int) -> None:
    output = tmp_path / "trace.jsonl"

    async def scenario() -> None:
        async with Server([STREAM_HEAD, TWO_WORDS, Pause(0.5), LAST_CHUNK]) as server:
            upstream = f"generator=http://127.0.0.1:{server.port}"
            process = Process("--listen", "127.0.0.1:0", "--upstream", upstream, "-o", output)
            assert process.introduction == [
                f"listening on http://127.0.0.1:{process.port}",
                f"forwarding generator to http://127.0.0.1:{server.port}",
                f"writing to {output}; stop with Ctrl-C",
            ]
            idle, client = await process.client(), await process.client()
            await client.send(post(STREAM, "x-scepsy-execution: e"))
            await client.read(len(STREAM_HEAD + TWO_WORDS))
            process.signal(number)
            assert await idle.read_rest() == b""
            assert await client.read_rest() == LAST_CHUNK
            code, log = await process.ended()
            assert code == 0
            assert log[-1] == f"recorded 1 call in {output}: 1 execution, 0 failed, 1 with estimated tokens"
            assert [json.loads(line).get("error") for line in output.read_bytes().splitlines()] == [None]

    run(scenario)


def test_a_second_signal_stops_at_once_and_records_the_calls_it_cuts_off(tmp_path: Path) -> None:
    output = tmp_path / "trace.jsonl"

    async def scenario() -> None:
        async with Server([STREAM_HEAD, TWO_WORDS, HANG]) as server:
            upstream = f"http://127.0.0.1:{server.port}"
            process = Process("--listen", "127.0.0.1:0", "--upstream", upstream, "-o", output, grace=3600)
            client = await process.client()
            await client.send(post(STREAM))
            await client.read(len(STREAM_HEAD + TWO_WORDS))
            process.signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            process.signal(signal.SIGTERM)
            assert await client.read_rest() == b""
            code, log = await process.ended()
            assert code == 0
            assert log[-1].endswith("1 execution, 1 failed, 1 with estimated execution")
            (record,) = map(json.loads, output.read_bytes().splitlines())
            assert (record["error"], record["outputTokens"]) == ("recorder stopped", 2)

    run(scenario)


def test_killed_at_any_time_the_file_holds_whole_lines(tmp_path: Path) -> None:
    output = tmp_path / "trace.jsonl"

    async def scenario() -> None:
        async with Server(ANSWER) as server:
            process = Process("--listen", "127.0.0.1:0", "--upstream", f"http://127.0.0.1:{server.port}", "-o", output)
            client = await process.client()
            for _ in range(20):
                await client.send(post(CHAT))
                await client.answer()
            process.signal(signal.SIGKILL)
            await process.ended()
            assert len([json.loads(line) for line in output.read_bytes().splitlines()]) >= 19

    run(scenario)


def test_lost_records_make_the_command_fail(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")

    async def scenario() -> None:
        async with Server(ANSWER) as server:
            url = f"http://127.0.0.1:{server.port}"
            process = Process("--listen", "127.0.0.1:0", "--upstream", url, "-o", tmp_path / "full")
            client = await process.client()
            await client.send(post(CHAT))
            assert await client.answer() == ANSWER
            process.signal(signal.SIGTERM)
            code, log = await process.ended()
            assert code == 1
            assert log[-1] == f"error: 1 call was forwarded but could not be recorded in {tmp_path / 'full'}"

    run(scenario)


# What is wrong from the start.

LOCAL = ["--upstream", "http://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "8080", *LOCAL], 'cannot listen on "8080": write HOST:PORT'),
        (["--listen", ":8080", *LOCAL], "to listen on every address of this host, write 0.0.0.0"),
        (["--listen", "127.0.0.1:70000", *LOCAL], 'cannot listen on "127.0.0.1:70000"'),
        (["--listen", "::1:8080", *LOCAL], "such as 127.0.0.1:8080 or [::1]:8080"),
        (["--listen", "192.0.2.1:0", *LOCAL], "cannot listen on 192.0.2.1:0: "),
        (["--upstream", "generator"], 'upstream "generator" is not an http or https URL'),
        (["--upstream", "a=ftp://h"], 'upstream "ftp://h" is not an http or https URL'),
        (["--upstream", "a=http://h:x"], 'upstream "http://h:x" is not a URL'),
        (["--upstream", "=http://h"], "an upstream has an empty name"),
        (["--upstream", "a=http://h/v1"], "write http://h, and put the path into the agent's base URL"),
        (["--upstream", "http://u:pa55@h"], 'upstream "http://…@h" contains credentials'),
        (["--upstream", "a=http://h", "--upstream", "a=http://i"], 'two upstreams are named "a"'),
        (["--upstream", "http://h", "--upstream", "http://i"], "two upstreams have no name"),
        ([*LOCAL, "--idle-gap", "30"], "Invalid value for '--idle-gap': \"30\" is not a duration"),
        ([*LOCAL, "-o", "nowhere/t.jsonl"], "the directory nowhere does not exist"),
        ([*LOCAL, "-o", "x" * 300], "x: file name too long"),
    ],
)
def test_wrong_arguments_are_explained(scepsy, arguments: list[str], message: str, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    ran = scepsy("trace", "record", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert "pa55" not in ran.err


def test_a_port_in_use_is_explained(scepsy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = scepsy("trace", "record", "--listen", address, *LOCAL, "-o", tmp_path / "t")
    assert (ran.code, ran.err.splitlines()[0]) == (1, f"error: cannot listen on {address}: the port is in use")
    assert not (tmp_path / "t").exists()


def test_a_port_is_free_again_where_the_file_cannot_be_written(scepsy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    ran = scepsy("trace", "record", "--listen", f"127.0.0.1:{address[1]}", *LOCAL, "-o", tmp_path)
    assert (ran.code, "listening" in ran.err) == (1, False)
    with socket.socket() as taken:
        taken.bind(address)


@pytest.mark.parametrize(
    ("text", "shown", "authority"),
    [
        ("http://h", "http://h", "h"),
        ("http://h:80/", "http://h", "h"),
        ("https://h:443", "https://h", "h"),
        ("http://h:8080", "http://h:8080", "h:8080"),
        ("https://[::1]:8000", "https://[::1]:8000", "[::1]:8000"),
    ],
)
def test_upstreams_are_shown_and_named_in_host_without_the_usual_port(text: str, shown: str, authority: str) -> None:
    upstream = parse_upstreams([text]).first
    assert (str(upstream), upstream.authority) == (shown, authority)


def test_addresses_may_be_of_ipv6() -> None:
    assert str(parse_listen("[::1]:0")) == "[::1]:0"
    with pytest.raises(ScepsyError):
        parse_listen("[127.0.0.1]:0")
