"""HTTP/1.1 messages, read without changing a byte of them (RFC 9110 and RFC 9112).

Forwarding byte for byte needs to know at which byte a message ends, which parsers such as llhttp and h11 do not report.
A message that can be read in two ways is refused, so that no server reads a request differently than the recorder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

MAX_HEAD = 64 * 1024
"""Bytes of the first line and the headers."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_NOT_IN_VALUE = re.compile(rb"[\r\n\0]")


class Malformed(ValueError):
    """A message that is not HTTP/1.1, or could be read in two ways."""


class TooLarge(ValueError):
    """A head longer than MAX_HEAD."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a message.

    Attributes:
        raw: all of it as it came, the empty line included.
        first: the first line, without its end.
        headers: names in lower case, values without surrounding whitespace, in order.
    """

    raw: bytes
    first: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a header, by its name in lower case."""
        return [value for key, value in self.headers if key == name]

    def value(self, name: bytes) -> bytes:
        """Return the last value of a header; empty if there is none."""
        return next((value for key, value in reversed(self.headers) if key == name), b"")

    def tokens(self, name: bytes) -> list[bytes]:
        """Return the comma-separated tokens of a header, in lower case."""
        words = b",".join(self.values(name)).lower().split(b",")
        return [word.strip() for word in words if word.strip()]


@dataclass(frozen=True, slots=True)
class RequestLine:
    """The first line of a request.

    Attributes:
        method: as sent; methods are case-sensitive.
        target: path and query as sent.
        version: major and minor version of HTTP.
    """

    method: bytes
    target: bytes
    version: tuple[int, int]


def split_head(data: bytes) -> int:
    """Return the length of the head that data begins with, 0 if it has not ended yet.

    Raises:
        TooLarge: it is longer than MAX_HEAD.
        Malformed: its lines do not end with CR LF.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
    if end > 3:
        return end
    if data.find(b"\n\n", 0, MAX_HEAD) >= 0:
        raise Malformed("lines must end with CR LF")
    if len(data) >= MAX_HEAD:
        raise TooLarge(f"the headers are longer than {MAX_HEAD // 1024} KiB")
    return 0


def parse_head(raw: bytes) -> Head:
    """Parse a first line and headers, raw ending with the empty line.

    Raises:
        Malformed: a line is not a header; folded lines (obsolete, RFC 9112, 5.2) are refused too.
    """
    first, *lines = raw[:-4].split(b"\r\n")
    return Head(raw, first, tuple(map(_header, lines)))


def _header(line: bytes) -> tuple[bytes, bytes]:
    """Return name and value of a header or trailer line.

    Raises:
        Malformed: it is not one.
    """
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name) or _NOT_IN_VALUE.search(value):
        raise Malformed("a header line is malformed")
    return name.lower(), value.strip(b" \t")


def request_line(head: Head) -> RequestLine:
    """Parse the first line of a request.

    Raises:
        Malformed: it is not a request line.
    """
    match = _REQUEST_LINE.fullmatch(head.first)
    if match is None:
        raise Malformed("the request line is malformed")
    return RequestLine(match[1], match[2], (int(match[3]), int(match[4])))


def status_of(head: Head) -> int:
    """Return the status code of a response.

    Raises:
        Malformed: its first line is not that of an HTTP/1.x response.
    """
    match = _STATUS_LINE.fullmatch(head.first)
    if match is None:
        raise Malformed("the status line is malformed")
    return int(match[2])


def persists(head: Head, version_1_1: bool) -> bool:
    """Return whether the sender of a message keeps its connection open (RFC 9112, 9.3)."""
    tokens = head.tokens(b"connection")
    return b"close" not in tokens and (version_1_1 or b"keep-alive" in tokens)


def with_host(head: Head, authority: str) -> bytes:
    """Return the head's bytes with another value of its Host header, if it has one; the rest is unchanged."""
    for start, line in _lines(head.raw):
        if line[:5].lower() == b"host:":
            return head.raw[:start] + line[:5] + b" " + authority.encode("ascii") + head.raw[start + len(line) :]
    return head.raw


def _lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    for line in raw.split(b"\r\n"):
        yield start, line
        start += len(line) + 2


class Body(Protocol):
    """Follows the body of one message through the bytes of a connection."""

    complete: bool

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Return how many bytes of data belong to the message, and the content among them.

        Raises:
            Malformed: the body is not framed as its head announces.
        """

    @property
    def until_close(self) -> bool:
        """Whether the end of the connection ends the body."""


class SizedBody:
    """A body of known length.

    Args:
        size: bytes.
    """

    until_close = False

    def __init__(self, size: int) -> None:
        self.size = size
        self._left = size
        self.complete = size == 0

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Read the rest of the body."""
        part = data[: self._left]
        self._left -= len(part)
        self.complete = self._left == 0
        return len(part), part


class OpenBody:
    """A body that ends with the connection."""

    until_close = True
    complete = False

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Read everything."""
        return len(data), data


class ChunkedBody:
    """A body in chunks (RFC 9112, 7.1)."""

    until_close = False

    def __init__(self) -> None:
        self.complete = False
        self._left = 0  # bytes of the current chunk
        self._line = b""  # a line that has not ended yet
        self._expects = self._size
        self._trailers = 0

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Read what belongs to the body, and return the content of its chunks."""
        at, content = 0, []
        while at < len(data) and not self.complete:
            if self._left:
                content.append(data[at : at + self._left])
                at += len(content[-1])
                self._left -= len(content[-1])
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            at = end or len(data)
            if len(self._line) > MAX_HEAD:
                raise Malformed("a chunk line is too long")
            if end:
                if not self._line.endswith(b"\r\n"):
                    raise Malformed("a chunk line does not end with CR LF")
                line, self._line = self._line[:-2], b""
                self._expects(line)
        return at, content[0] if len(content) == 1 else b"".join(content)

    def _size(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise Malformed("a chunk size is malformed")
        self._left = int(match[1], 16)
        self._expects = self._end_of_chunk if self._left else self._trailer

    def _end_of_chunk(self, line: bytes) -> None:
        if line:
            raise Malformed("a chunk is longer than its size")
        self._expects = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if self._trailers > MAX_HEAD:
            raise Malformed("the trailers are too long")
        if line:
            _header(line)
        self.complete = not line


def request_body(head: Head) -> SizedBody | ChunkedBody:
    """Return the body that a request's head announces (RFC 9112, 6.3).

    Raises:
        Malformed: it announces two lengths, or an unknown coding.
    """
    codings, size = head.tokens(b"transfer-encoding"), _content_length(head)
    if not codings:
        return SizedBody(size or 0)
    if size is not None:
        raise Malformed("it has both Content-Length and Transfer-Encoding")
    if codings != [b"chunked"]:
        raise Malformed("its Transfer-Encoding is not chunked")
    return ChunkedBody()


def response_body(head: Head, status: int, method: bytes) -> SizedBody | ChunkedBody | OpenBody:
    """Return the body of a response to a method (RFC 9112, 6.3).

    Raises:
        Malformed: its Content-Length is malformed.
    """
    if method == b"HEAD" or status < 200 or status in {204, 304}:
        return SizedBody(0)
    codings = head.tokens(b"transfer-encoding")
    if codings:
        return ChunkedBody() if codings[-1] == b"chunked" else OpenBody()
    size = _content_length(head)
    return OpenBody() if size is None else SizedBody(size)


def _content_length(head: Head) -> int | None:
    sizes = set(head.values(b"content-length"))
    if not sizes:
        return None
    size = sizes.pop()
    if sizes or not re.fullmatch(rb"[0-9]{1,15}", size):
        raise Malformed("Content-Length is malformed")
    return int(size)
