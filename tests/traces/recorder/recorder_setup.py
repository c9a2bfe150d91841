"""A server that answers with given bytes, a client that sends given bytes, and the recorder between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scepsy.traces.recorder import Address, Recorder, Settings, Summary, parse_upstreams

PATIENCE = 5.0


@dataclass(frozen=True)
class Pause:
    """Wait before sending on."""

    seconds: float


CLOSE = "close"
RESET = "reset"
HANG = "hang"
Step = bytes | Pause | asyncio.Event | str
Script = Sequence[Step]


class Server:
    """Answers the requests of all its connections with the scripts, in turn; the last one for all further ones."""

    def __init__(self, *scripts: Script | bytes) -> None:
        self._scripts = [[s] if isinstance(s, bytes) else list(s) for s in scripts]
        self.requests: list[bytes] = []
        """What came, request by request."""
        self.connections = 0
        self.hung_up = asyncio.Event()
        """A client ended its connection during an answer."""
        self.asked = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while request := await read_request(reader):
                self.requests.append(request)
                self.asked.set()
                script = self._scripts[min(len(self.requests), len(self._scripts)) - 1]
                if not await self._play(script, reader, writer):
                    break
        writer.close()

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step == HANG:
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                self.hung_up.set()
                return False
            else:
                if step == RESET:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
        return True


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request as naively as possible."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            size = await reader.readuntil(b"\r\n")
            head += size
            while int(size.partition(b";")[0], 16):
                head += await reader.readexactly(int(size.partition(b";")[0], 16) + 2)
                head += (size := await reader.readuntil(b"\r\n"))
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                head += line
            return head + line
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        return head + await reader.readexactly(int(length[1]) if length else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


class Client:
    """One connection to the recorder."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each on its own."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)

    async def read(self, size: int) -> bytes:
        """Read so many bytes, or what there is until the connection ends."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self._reader.readexactly(size)
            except asyncio.IncompleteReadError as error:
                return error.partial

    async def read_some(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read(1 << 16)

    async def read_rest(self) -> bytes:
        """Read until the connection ends.

        Raises:
            ConnectionError: it was reset.
        """
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    async def answer(self) -> bytes:
        """Read one answer with a Content-Length."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            return head + await self._reader.readexactly(int(length[1]) if length else 0)

    def close(self) -> None:
        self._writer.close()


@dataclass
class RunningRecorder:
    """A recorder in front of servers."""

    recorder: Recorder
    output: Path
    log: list[str]
    summary: Summary = field(default_factory=Summary)

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection(self.recorder.address.host, self.recorder.address.port))

    @property
    def records(self) -> list[dict[str, Any]]:
        text = self.output.read_bytes() if self.output.is_file() else b""
        return [json.loads(line) for line in text.splitlines()]

    async def written(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many records, and return them."""
        async with asyncio.timeout(PATIENCE):
            while len(self.records) < count:
                await asyncio.sleep(0.005)
        return self.records


@contextlib.asynccontextmanager
async def running_recorder(
    output: Path, *upstreams: str | Server, store_text: bool = False, idle_gap: float = 30.0
) -> AsyncIterator[RunningRecorder]:
    """Run a recorder; an upstream that is a server is the one of all LLMs."""
    urls = [f"http://127.0.0.1:{u.port}" if isinstance(u, Server) else u for u in upstreams]
    log: list[str] = []
    settings = Settings(Address("127.0.0.1", 0), parse_upstreams(urls), output, idle_gap, store_text)
    running = RunningRecorder(await Recorder.started(settings, log.append), output, log)
    try:
        yield running
    finally:
        running.summary = await running.recorder.stop()


@dataclass(frozen=True)
class Outcome:
    """What a server and a client saw of a conversation, and what was recorded."""

    server_saw: list[bytes]
    client_saw: bytes
    records: list[dict[str, Any]]
    log: list[str]
    connections: int
    summary: Summary


def talk(
    output: Path, request: bytes | Iterable[bytes], *scripts: Script | bytes, expect: int | None = None, **options: Any
) -> Outcome:
    """Send a request through a recorder to a server with scripts.

    Args:
        output: the trace file.
        request: the bytes, or the pieces in which they are sent.
        scripts: the answers.
        expect: so many bytes come back; all of the scripts' if not given.
        options: of `running_recorder`.
    """

    async def conversation() -> Outcome:
        size = sum(len(step) for script in scripts for step in _steps(script)) if expect is None else expect
        async with Server(*scripts) as server:
            async with running_recorder(output, server, **options) as running:
                client = await running.client()
                await client.send(*([request] if isinstance(request, bytes) else request))
                saw = await client.read(size)
                if len(saw) == size:
                    await asyncio.sleep(0)
            saw += await client.read_rest()
            client.close()
            return Outcome(server.requests, saw, running.records, running.log, server.connections, running.summary)

    return asyncio.run(conversation())


def _steps(script: Script | bytes) -> Iterable[bytes]:
    return [script] if isinstance(script, bytes) else [step for step in script if isinstance(step, bytes)]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


def post(body: object, *headers: str, path: str = "/v1/chat/completions", host: str = "llm.test") -> bytes:
    """Return a request with a JSON body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *headers, f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


def ok(body: object, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer with a JSON body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = [] if any(h.lower().startswith("content-type") for h in headers) else ["Content-Type: application/json"]
    lines = [f"HTTP/1.1 {status}", *kind, *headers, f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


def events(*datas: object) -> bytes:
    """Return the content of a stream."""
    return b"".join(b"data: %s\n\n" % (d if isinstance(d, bytes) else json.dumps(d).encode()) for d in datas)


def delta(text: str) -> dict[str, Any]:
    """Return an event of a chat stream."""
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = events(b"[DONE]")


def streamed(*pieces: bytes) -> bytes:
    """Return an answer that is a stream, a chunk per piece."""
    return STREAM_HEAD + b"".join(map(chunk, pieces)) + LAST_CHUNK


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CHAT = {"model": "generator", "messages": [{"role": "user", "content": "Hello, who are you?"}]}
ANSWER = ok({"choices": [{"index": 0, "message": {"role": "assistant", "content": "I am Ada."}}], "usage": USAGE})
