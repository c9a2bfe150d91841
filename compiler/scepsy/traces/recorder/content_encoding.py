"""Decodes Content-Encoding, for the analysis only: what is forwarded stays encoded."""

from __future__ import annotations

import zlib
from typing import Protocol

MAX_ANALYSED = 32 * 2**20
"""Bytes of one response that the analysis keeps; forwarding keeps none."""

_MAX_REQUEST = 256 * 2**20


class Decoder(Protocol):
    """Decodes a content coding, piece by piece."""

    def feed(self, data: bytes) -> bytes:
        """Return the content that data adds."""


class Identity:
    """No coding."""

    def feed(self, data: bytes) -> bytes:
        """Return data."""
        return data


class Inflate:
    """gzip, or deflate with or without zlib's header (servers send both, RFC 9110, 8.4.1.2).

    What cannot be decoded, and what exceeds the limit, is dropped.

    Args:
        limit: bytes of content.
    """

    def __init__(self, limit: int = MAX_ANALYSED) -> None:
        self._left = limit
        self._start = b""
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the content that data adds."""
        if self._left <= 0:
            return b""
        if self._inflate is None:
            self._start += data
            if len(self._start) < 2:
                return b""
            self._inflate, data = zlib.decompressobj(_window(self._start)), self._start
        try:
            content = self._inflate.decompress(data, self._left)
        except zlib.error:
            self._left = 0
            return b""
        self._left -= len(content)
        return content


def _window(start: bytes) -> int:
    """Return zlib's wbits for what begins with two bytes: gzip (RFC 1952), zlib (RFC 1950), else bare deflate."""
    if start[:2] == b"\x1f\x8b":
        return zlib.MAX_WBITS | 16
    is_zlib = start[0] & 15 == 8 and int.from_bytes(start[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


def decoder(coding: bytes) -> Decoder | None:
    """Return the decoder of a Content-Encoding; None if it is not supported."""
    coding = coding.strip().lower()
    if coding in {b"", b"identity"}:
        return Identity()
    return Inflate() if coding in {b"gzip", b"x-gzip", b"deflate"} else None


def decoded(content: bytes, coding: bytes) -> bytes | None:
    """Return the content of a whole body; None if its coding is unknown."""
    if not coding:
        return content
    codec = Inflate(_MAX_REQUEST) if coding.strip().lower() in {b"gzip", b"x-gzip", b"deflate"} else decoder(coding)
    return None if codec is None else codec.feed(content)
