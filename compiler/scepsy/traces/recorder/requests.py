"""Reads whole requests from a client's connection, and checks that they can be forwarded."""

from __future__ import annotations

from dataclasses import dataclass

from scepsy.traces.recorder.connection import Connection
from scepsy.traces.recorder.http1 import (
    Head,
    Malformed,
    RequestLine,
    SizedBody,
    TooLarge,
    parse_head,
    persists,
    request_body,
    request_line,
    split_head,
)
from scepsy.traces.recorder.refusals import Refused

MAX_REQUEST = 256 * 2**20
"""Bytes of a request's body; it is kept in memory until the server responds, since its model decides the server."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Attributes:
        head: its first line and headers.
        line: the first line.
        body: the body's bytes as they came.
        content: the body without transfer coding.
        start: when its first byte came, Unix seconds.
        continued: whether the client was sent 100 Continue (Expect: 100-continue).
    """

    head: Head
    line: RequestLine
    body: bytes
    content: bytes
    start: float
    continued: bool

    @property
    def persists(self) -> bool:
        """Whether the client wants to send more requests on its connection."""
        return persists(self.head, self.line.version >= (1, 1))


async def read_request(client: Connection) -> Request | None:
    """Read the next request of a connection; None if it ends before.

    Raises:
        Refused: the request cannot be forwarded, and where the next one begins is unknown.
    """
    try:
        return await _read(client)
    except TooLarge as error:
        raise Refused(431, str(error), "headers_too_large") from error
    except Malformed as error:
        raise Refused(400, f"not an HTTP/1.1 request: {error}", "malformed_request") from error


async def _read(client: Connection) -> Request | None:
    data = b""
    start = 0.0
    while not (length := split_head(data)):
        if not (more := await client.receive()):
            return None
        start = start if data else client.arrived
        data = (data + more) if data else more.lstrip(b"\r\n")  # empty lines between requests: RFC 9112, 2.2
    head = parse_head(data[:length])
    line = request_line(head)
    check(head, line)
    body = request_body(head)
    if isinstance(body, SizedBody) and body.size > MAX_REQUEST:
        raise _too_large()
    used, content = body.feed(data[length:])
    client.give_back(data[length + used :])
    raw, contents, size = [data[length : length + used]], [content], used
    waits = not body.complete and head.tokens(b"expect") == [b"100-continue"] and line.version >= (1, 1)
    if waits:
        client.write(_CONTINUE)
    while not body.complete:
        if not (data := await client.receive()):
            return None
        used, content = body.feed(data)
        client.give_back(data[used:])
        raw.append(data[:used])
        contents.append(content)
        size += used
        if size > MAX_REQUEST:
            raise _too_large()
    whole = b"".join(raw)
    return Request(head, line, whole, whole if isinstance(body, SizedBody) else b"".join(contents), start, waits)


def check(head: Head, line: RequestLine) -> None:
    """Check that a request is one that a server behind a gateway can get, in HTTP/1.

    Raises:
        Refused: it is not.
    """
    if line.version not in {(1, 0), (1, 1)}:
        raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are supported", "http_version")
    if line.method == b"CONNECT" or not line.target.startswith((b"/", b"*")):
        message = "this is not a forward proxy: set the agent's base URL to this address instead of a proxy"
        raise Refused(501, message, "no_forward_proxy")
    # Clients offer h2c with ordinary requests, which servers may ignore (RFC 9110, 7.8).
    if head.tokens(b"upgrade") not in ([], [b"h2c"]):
        raise Refused(501, "protocol upgrades, such as to WebSocket, are not supported", "no_upgrade")
    hosts = head.values(b"host")
    if len(hosts) > 1 or (not hosts and line.version == (1, 1)):
        raise Malformed("there must be exactly one Host header")
    if head.tokens(b"expect") not in ([], [b"100-continue"]):
        raise Refused(417, "the only supported expectation is 100-continue", "expectation_failed")


def _too_large() -> Refused:
    return Refused(413, f"the request is larger than {MAX_REQUEST // 2**20} MiB", "request_too_large")
