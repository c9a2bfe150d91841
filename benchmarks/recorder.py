"""What `scepsy trace record` adds to a call, and whether it loses any at 500 calls a second.

A trivial server answers in a process of its own, half of the calls with a stream; the recorder runs as users start it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PAIRS = 2000
RATE, SECONDS = 500, 10
PIECES, PAUSE = 20, 0.005
PROMPT = "You answer questions about the handbook of a company. " * 150  # 8 kB, two thousand tokens

_USAGE = b'"usage":{"prompt_tokens":2000,"completion_tokens":20,"total_tokens":2020}'
_BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"%s"}}],%s}' % (b"word " * 20, _USAGE)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}'
)
_LAST = b'data: {"id":"chatcmpl-1","choices":[],%s}\n\ndata: [DONE]' % _USAGE


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%s\n\n\r\n" % (len(event) + 2, event)


def _request(stream: bool) -> bytes:
    content = {"model": "generator", "stream": stream, "messages": [{"role": "user", "content": PROMPT}]}
    body = json.dumps(content).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: llm", "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


_REQUESTS = {stream: _request(stream) for stream in (False, True)}
_END = b"0\r\n\r\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
            stream = b'"stream": true' in body[:100]
            if not stream:
                writer.write(_ANSWER)
                continue
            writer.write(_STREAM)
            for _ in range(PIECES):
                writer.write(_chunk(_EVENT))
                await asyncio.sleep(PAUSE)
            writer.write(_chunk(_LAST) + _END)
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Caller:
    """Keeps connections to one port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, stream: bool) -> tuple[float, float]:
        """Return the seconds of a call, and those until its first byte."""
        pair = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = pair
        start = time.perf_counter()
        writer.write(_REQUESTS[stream])
        first = await reader.readexactly(len(_STREAM) if stream else 1)
        began = time.perf_counter()
        if stream:
            await reader.readuntil(_END)
        else:
            await reader.readexactly(len(_ANSWER) - len(first))
        self._idle.append(pair)
        return time.perf_counter() - start, began - start


@contextlib.contextmanager
def _process(*command: str, stream: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a process that prints its port at the end of the first line, and end it."""
    pipes = {stream: subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-m", *command], text=True, **pipes)  # type: ignore[call-overload]
    output = process.stdout or process.stderr
    port = int(output.readline().rpartition(":")[2])
    try:
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1e3


def _row(name: str, direct: list[float], recorded: list[float]) -> str:
    cells = []
    for share in (0.5, 0.99):
        a, b = _percentile(direct, share), _percentile(recorded, share)
        cells.append(f"{a:8.2f} {b:8.2f} {b - a:+8.2f}")
    return f"  {name:44} " + "   ".join(cells)


async def _pairs(direct: _Caller, recorded: _Caller) -> tuple[list[float], list[float]]:
    """Call in turn, one call at a time."""
    times: tuple[list[float], list[float]] = ([], [])
    for n in range(PAIRS + 50):
        for caller, seconds in zip((direct, recorded), times, strict=True):
            took, _ = await caller.call(False)
            if n >= 50:
                seconds.append(took)
    return times


async def _load(caller: _Caller) -> list[tuple[bool, float, float]]:
    """Begin RATE calls a second whether or not others have ended: stream, seconds, seconds until the first byte."""

    async def one(stream: bool) -> tuple[bool, float, float]:
        return (stream, *await caller.call(stream))

    start, tasks = time.perf_counter(), []
    for n in range(RATE * SECONDS):
        await asyncio.sleep(max(0.0, start + n / RATE - time.perf_counter()))
        tasks.append(asyncio.create_task(one(n % 2 == 0)))
    return list(await asyncio.gather(*tasks))


def main() -> None:
    """Report latency with and without the recorder, and what it recorded under load."""
    with tempfile.TemporaryDirectory() as scratch, _process("benchmarks.recorder", stream="stdout") as (_, port):
        output = Path(scratch) / "trace.jsonl"
        arguments = ("--listen", "127.0.0.1:0", "--upstream", f"generator=http://127.0.0.1:{port}", "-o", str(output))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with _process("scepsy", "trace", "record", *arguments, stream="stderr") as (_, proxy):
            direct, recorded = asyncio.run(_pairs(_Caller(port), _Caller(proxy)))
            bare, loaded = asyncio.run(_load(_Caller(port))), asyncio.run(_load(_Caller(proxy)))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        records = [json.loads(line) for line in output.read_bytes().splitlines()]
    calls = PAIRS + 50 + RATE * SECONDS
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"Recorder: 8 kB prompts; streams of {PIECES} pieces, {PAUSE * 1e3:g} ms apart; {os.cpu_count()} cores")
    print(f"  {'milliseconds':44} {'p50':>8} {'recorded':>8} {'added':>8}   {'p99':>8} {'recorded':>8} {'added':>8}")
    print(_row(f"one call at a time ({PAIRS})", direct, recorded))
    for name, stream, column in (("answers", False, 1), ("streams", True, 1), ("streams, first byte", True, 2)):
        without, with_ = ([call[column] for call in run if call[0] == stream] for run in (bare, loaded))
        print(_row(f"{RATE} calls/s for {SECONDS} s: {name}", without, with_))  # type: ignore[arg-type]
    failed = sum("error" in record for record in records)
    guessed = sum("inputTokens" in record.get("estimated", []) for record in records)
    print(f"  {calls} calls, {len(records)} records, {failed} failed, {guessed} with estimated tokens")
    mean = statistics.fmean(record["outputTokens"] for record in records)
    print(f"  {cpu / calls * 1e3:.2f} ms CPU per call, start-up included; {mean:g} output tokens on average")


if __name__ == "__main__":
    asyncio.run(_serve())
