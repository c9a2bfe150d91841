"""The recorder's HTTP/1.1 parser frames messages as h11 does, however the bytes arrive.

A message that one parser accepts and the other refuses must match one of the listed differences. The recorder forwards
the bytes unchanged, so it may be stricter than h11 at will; it is more lenient only where no framing depends on it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import h11
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scepsy.traces.recorder.connection import Connection
from scepsy.traces.recorder.http1 import Malformed, TooLarge, parse_head, response_body, split_head, status_of
from scepsy.traces.recorder.refusals import Refused
from scepsy.traces.recorder.requests import read_request

Headers = tuple[tuple[bytes, bytes], ...]
Check = Callable[[bytes], object]

REPRODUCIBLE = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Message:
    """A complete message as a parser reports it.

    Attributes:
        first: method and target of a request, or the status of a response.
        headers: names in lower case, and values; codings in lower case, as h11 reports them;
            without Content-Length, of which h11 drops equal ones.
        content: the body without transfer coding.
        end: how many bytes of the stream were read once it is complete.
    """

    first: tuple[bytes, ...] | int
    headers: Headers
    content: bytes
    end: int


# The two parsers


async def requests_of_recorder(pieces: Sequence[bytes]) -> list[Message]:
    """Return the requests that the recorder reads from a connection, until one is refused or incomplete."""
    connection = Connection(lambda: 0.0)

    async def arrive() -> None:
        for piece in pieces:
            connection.data_received(piece)
            await asyncio.sleep(0)
        connection.eof_received()

    arrival = asyncio.ensure_future(arrive())
    messages: list[Message] = []
    end = 0
    try:
        while request := await read_request(connection):
            blank = leading_blank(b"".join(pieces)[end:])
            end += blank + len(request.head.raw) + len(request.body)
            first = (request.line.method, request.line.target)
            messages.append(Message(first, comparable(request.head.headers), request.content, end))
            if not request.persists:
                break
    except Refused:
        pass
    await arrival
    return messages


def comparable(headers: Headers) -> Headers:
    kept = (pair for pair in headers if pair[0] != b"content-length")
    return tuple((name, value.lower() if name == b"transfer-encoding" else value) for name, value in kept)


def leading_blank(data: bytes) -> int:
    return len(data) - len(data.lstrip(b"\r\n"))


def requests_of_h11(pieces: Sequence[bytes]) -> list[Message]:
    """Return the requests that h11 reads, until one is refused or incomplete."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
    messages: list[Message] = []
    fed, first, headers, content = 0, (b"", b""), (), b""
    try:
        for piece in pieces:
            connection.receive_data(piece)
            fed += len(piece)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    first, headers, content = (event.method, event.target), tuple(event.headers), b""
                elif isinstance(event, h11.Data):
                    content += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    end = fed - len(connection.trailing_data[0])
                    messages.append(Message(first, comparable(headers), content, end))
                    connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is not h11.DONE:
                        return messages
                    connection.start_next_cycle()
                else:
                    return messages
    except h11.RemoteProtocolError:
        pass
    return messages


def response_of_recorder(pieces: Sequence[bytes], method: bytes) -> list[Message]:
    """Return the response that the recorder reads, none if it is refused or incomplete."""
    arriving, data, end = iter(pieces), b"", 0
    try:
        while not (length := split_head(data)):
            if not (more := next(arriving, b"")):
                return []
            data += more
        head = parse_head(data[:length])
        body = response_body(head, status_of(head), method)
        content, end, data = b"", length, data[length:]
        while True:
            used, part = body.feed(data)
            content, end = content + part, end + used
            if body.complete:
                break
            if not (data := next(arriving, b"")):
                if not body.until_close:
                    return []
                break
    except (Malformed, TooLarge):
        return []
    return [Message(status_of(head), comparable(head.headers), content, end)]


def response_of_h11(pieces: Sequence[bytes], method: bytes) -> list[Message]:
    """Return the response that h11 reads, none if it is refused or incomplete."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 16)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    fed, status, content = 0, 0, b""
    headers: Headers = ()
    try:
        for piece in (*pieces, b""):
            connection.receive_data(piece)
            fed += len(piece)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    status, headers = event.status_code, tuple(event.headers)
                elif isinstance(event, h11.Data):
                    content += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    return [Message(status, comparable(headers), content, fed - len(connection.trailing_data[0]))]
                else:
                    return []
    except h11.RemoteProtocolError:
        pass
    return []


# Where they differ


def head_of(rest: bytes) -> bytes:
    return rest.lstrip(b"\r\n").partition(b"\r\n\r\n")[0]


def in_head(pattern: bytes) -> Check:
    return lambda rest: re.search(pattern, head_of(rest), re.IGNORECASE)


SPACE_IN_CHUNK_LINE: Check = lambda rest: re.search(rb"\r\n[0-9A-Fa-f]+[ \t]+;", rest)  # noqa: E731
CONTROL_CHARACTER: Check = lambda rest: re.search(rb"[: ][^\r\n]*[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", rest)  # noqa: E731
BARE_LINE_FEED: Check = lambda rest: re.search(rb"(?<!\r)\n", rest)  # noqa: E731
LENGTH_IN_TRAILERS: Check = lambda rest: re.search(  # noqa: E731
    rb"\r\n[0 \t]+(;[^\r\n]*)?\r\n([^\r\n]+\r\n)*(content-length|transfer-encoding):", rest, re.IGNORECASE
)
FOLDED: Check = lambda rest: re.search(rb"\r\n[ \t]", rest)  # noqa: E731
LENGTH_LIST = in_head(rb"\r\ncontent-length:[^\r\n]*,")

REQUESTS_REFUSED: Mapping[str, Check] = {
    "lines that end with LF alone (RFC 9112, 2.2 lets a recipient accept them)": BARE_LINE_FEED,
    "folded headers and trailers, which a server may refuse (RFC 9112, 5.2)": FOLDED,
    "Content-Length with Transfer-Encoding, which may be request smuggling (RFC 9112, 6.1)": lambda rest: (
        in_head(rb"\r\ncontent-length:")(rest) and in_head(rb"\r\ntransfer-encoding:")(rest)
    ),
    "a list of equal lengths, which a recipient may refuse (RFC 9112, 6.3)": LENGTH_LIST,
    "versions other than 1.0 and 1.1: the server gets the version as it was sent": in_head(
        rb"\A[^\r\n]* HTTP/(?!1\.[01])"
    ),
}
REQUESTS_ACCEPTED: Mapping[str, Check] = {
    "framing headers in trailers, where they have no meaning (RFC 9110, 6.5.1)": LENGTH_IN_TRAILERS,
    "whitespace before a chunk extension (RFC 9112, 7.1.1: a recipient must remove it)": SPACE_IN_CHUNK_LINE,
    "empty lines before a request (RFC 9112, 2.2: a server should ignore them)": leading_blank,
    "HTTP/1.0 with keep-alive: h11 closes after every HTTP/1.0 message": in_head(rb"HTTP/1\.0(\r\n|$)"),
    "bytes above 127 in the target: forwarded unchanged, as agents send paths in UTF-8": in_head(
        rb"\A[^\r\n]*[\x80-\xff]"
    ),
    "control characters in a header or trailer value: forwarded unchanged, they end no line": CONTROL_CHARACTER,
}
RESPONSES_REFUSED: Mapping[str, Check] = {
    "lines that end with LF alone": BARE_LINE_FEED,
    "folded headers and trailers (RFC 9112, 5.2: a proxy may replace the response by a 502)": FOLDED,
    "a list of equal lengths": LENGTH_LIST,
    "versions other than 1.0 and 1.1": in_head(rb"\AHTTP/(?!1\.[01])"),
}
RESPONSES_ACCEPTED: Mapping[str, Check] = {
    "framing headers in trailers, where they have no meaning (RFC 9110, 6.5.1)": LENGTH_IN_TRAILERS,
    "whitespace before a chunk extension (RFC 9112, 7.1.1)": SPACE_IN_CHUNK_LINE,
    "other codings, decoded by the client: the framing is that of the last (RFC 9112, 6.3)": in_head(
        rb"\r\ntransfer-encoding:"
    ),
    "control characters in a header or trailer value, or in the reason": CONTROL_CHARACTER,
}


def compare(
    data: bytes,
    recorder: Sequence[Message],
    other: Sequence[Message],
    refused: Mapping[str, Check],
    accepted: Mapping[str, Check],
) -> None:
    """Check that two lists of messages are equal up to where one parser stops, and that it may stop there."""
    both = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(recorder, other, strict=False)))
    assert len(both) == min(len(recorder), len(other)), f"framed differently: {recorder} and {other}"
    rest = data[both[-1][0].end if both else 0 :]
    if len(recorder) < len(other):
        assert any(check(rest) for check in refused.values()), f"only h11 accepts {rest!r}"
    elif len(other) < len(recorder):
        # h11 does not read on after HTTP/1.0, so the difference may lie in the message before.
        before = data[both[-2][0].end if len(both) > 1 else 0 :]
        assert any(check(rest) or check(before) for check in accepted.values()), f"only the recorder accepts {rest!r}"


# What is generated

CONTENT = st.binary(max_size=24) | st.sampled_from([b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\r\n\r\n"])
NAMES = st.sampled_from([b"x-a", b"accept", b"x-longer"])
VALUES = st.sampled_from([b"1", b"", b"a, b", b'a;b="c d"', b"chunked", b"!#~\xff"])
SPACE = st.sampled_from([b" ", b"", b"\t", b"  ", b" \t "])


@st.composite
def header(draw: st.DrawFn, name: bytes, value: bytes) -> bytes:
    """Draw a header line with a name in some case, and whitespace around its value."""
    cased = draw(st.sampled_from([name, name.upper(), name.title()]))
    return cased + b":" + draw(SPACE) + value + draw(SPACE)


@st.composite
def chunked(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a chunked body of some content, with extensions and trailers."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(content) - 1)), max_size=3))) if len(content) > 1 else []
    parts = [content[a:b] for a, b in itertools.pairwise([0, *cuts, len(content)]) if b > a]
    extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"', b";"]))
    size = draw(st.sampled_from([b"%x", b"%X", b"00%x"]))
    trailers = draw(st.sampled_from([b"", b"x-sum: 1\r\n", b"x-a: 1\r\nx-b:2\r\n"]))
    return b"".join(size % len(p) + extension + b"\r\n" + p + b"\r\n" for p in parts) + b"0\r\n" + trailers + b"\r\n"


@st.composite
def framed(draw: st.DrawFn, first: bytes, lines: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Draw a valid message: its bytes and its content."""
    content = draw(CONTENT)
    lines = [*lines, *[draw(header(draw(NAMES), draw(VALUES))) for _ in range(draw(st.integers(0, 2)))]]
    if draw(st.booleans()):
        lines.append(draw(header(b"transfer-encoding", draw(st.sampled_from([b"chunked", b"Chunked"])))))
        body = draw(chunked(content))
    else:
        lines.append(draw(header(b"content-length", b"%d" % len(content))))
        body = content
    if draw(st.booleans()):
        lines.reverse()
    return b"\r\n".join([first, *lines, b"", b""]) + body, content


@st.composite
def request(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a valid request and its content."""
    method, target = (
        draw(st.sampled_from([b"GET", b"POST", b"PUT"])),
        draw(st.sampled_from([b"/", b"/v1/x?y=%20", b"*"])),
    )
    return draw(framed(b"%s %s HTTP/1.1" % (method, target), [draw(header(b"host", b"llm.test"))]))


@st.composite
def response(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a valid response and its content."""
    first = draw(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 429 Too Many", b"HTTP/1.0 500 ", b"HTTP/1.1 404"]))
    return draw(framed(first, []))


REPLACEMENTS = (
    (b"\r\n", b"\n"),
    (b"\r\n", b"\r"),
    (b"\r\n", b"\r\n "),
    (b"\r\n", b"\r\n\t"),
    (b"\r\n", b"\r\n\r\n"),
    (b"\r\n", b"\r\nContent-Length: 3\r\n"),
    (b"\r\n", b"\r\nContent-Length: 3, 3\r\n"),
    (b"\r\n", b"\r\nTransfer-Encoding: chunked\r\n"),
    (b"\r\n", b"\r\nTransfer-Encoding: gzip, chunked\r\n"),
    (b"\r\n", b"\r\nConnection: close\r\n"),
    (b"\r\n", b"\r\nConnection: keep-alive\r\n"),
    (b"\r\n", b"\r\nHost: h\r\n"),
    (b"HTTP/1.1", b"HTTP/1.0"),
    (b"HTTP/1.1", b"HTTP/2.0"),
    (b"HTTP/1.1", b"http/1.1"),
    (b":", b" :"),
    (b":", b": \x0b"),
    (b":", b""),
    (b" ", b"  "),
    (b" ", b"\t"),
    (b" ", b"\xc3\xa4 "),
    (b"0\r\n", b"-0\r\n"),
    (b"0\r\n", b"0x0\r\n"),
    (b"0\r\n", b"0 \r\n"),
    (b";", b" ;"),
    (b"chunked", b"chunked, chunked"),
    (b"chunked", b"identity"),
    (b"chunked", b"\x0bchunked"),
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw a message that differs in a place or two."""
    for _ in range(draw(st.integers(1, 2))):
        old, new = draw(st.sampled_from(REPLACEMENTS))
        places = [match.start() for match in re.finditer(re.escape(old), data)]
        if places:
            at = draw(st.sampled_from(places))
            data = data[:at] + new + data[at + len(old) :]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Draw the pieces in which bytes arrive: all at once, each alone, or cut in places."""
    if draw(st.booleans()):
        cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=5)))
    else:
        cuts = list(range(1, len(data))) if draw(st.booleans()) else []
    return [part for a, b in itertools.pairwise([0, *cuts, len(data)]) if (part := data[a:b])]


# The properties


@pytest.fixture(scope="module")
def loop():  # type: ignore[no-untyped-def]
    with asyncio.Runner() as runner:
        yield runner


@REPRODUCIBLE
@given(data=st.data(), sent=st.lists(request(), min_size=1, max_size=3))
def test_valid_requests_are_framed_alike(
    loop: asyncio.Runner, data: st.DataObject, sent: list[tuple[bytes, bytes]]
) -> None:
    pieces = data.draw(pieces_of(b"".join(raw for raw, _ in sent)))
    read = loop.run(requests_of_recorder(pieces))
    assert read == requests_of_h11(pieces)
    assert [message.content for message in read] == [content for _, content in sent]
    assert [message.end for message in read] == list(itertools.accumulate(len(raw) for raw, _ in sent))


@REPRODUCIBLE
@given(data=st.data(), sent=response(), method=st.sampled_from([b"GET", b"HEAD"]))
def test_a_valid_response_is_framed_alike(data: st.DataObject, sent: tuple[bytes, bytes], method: bytes) -> None:
    raw, content = sent
    if method == b"HEAD":
        raw, content = raw[: raw.index(b"\r\n\r\n") + 4], b""
    pieces = data.draw(pieces_of(raw + data.draw(st.binary(max_size=4))))
    read = response_of_recorder(pieces, method)
    assert read == response_of_h11(pieces, method)
    assert [(message.content, message.end) for message in read] == [(content, len(raw))]


@settings(REPRODUCIBLE, max_examples=250)
@given(data=st.data(), sent=request(), following=request())
def test_malformed_requests_are_framed_alike_or_refused(
    loop: asyncio.Runner, data: st.DataObject, sent: tuple[bytes, bytes], following: tuple[bytes, bytes]
) -> None:
    raw = data.draw(mutated(sent[0])) + following[0]
    pieces = data.draw(pieces_of(raw))
    recorder, other = loop.run(requests_of_recorder(pieces)), requests_of_h11(pieces)
    compare(raw, recorder, other, REQUESTS_REFUSED, REQUESTS_ACCEPTED)


@settings(REPRODUCIBLE, max_examples=250)
@given(data=st.data(), sent=response())
def test_a_malformed_response_is_framed_alike_or_refused(data: st.DataObject, sent: tuple[bytes, bytes]) -> None:
    raw = data.draw(mutated(sent[0]))
    pieces = data.draw(pieces_of(raw))
    recorder, other = response_of_recorder(pieces, b"GET"), response_of_h11(pieces, b"GET")
    compare(raw, recorder, other, RESPONSES_REFUSED, RESPONSES_ACCEPTED)
