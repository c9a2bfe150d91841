"""Texts that travel inside Kubernetes objects: compressed, and refused when part of them was lost on the way.

A profiling job gets the recorded calls as a parameter, and gives its Profile back as one. Objects in etcd are limited
to about 1 MB, an environment variable of a pod (Argo passes templates in one) to 128 kB. Gzip ends in a checksum and a
length, so a text that was cut off does not unpack.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib

from scepsy.errors import ScepsyError

LIMIT = 64 * 1024
"""Characters of a packed text that a job takes, so that its template stays far below what a pod can be given."""
_UNPACKED = 16 * 1024 * 1024


def pack(text: str) -> str:
    """Return a text compressed, in base64; the same text gives the same characters on every machine of one zlib."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def unpack(packed: str, what: str) -> str:
    """Return the text that was packed.

    Args:
        packed: what `pack` returned; white space around it does not matter.
        what: what it is, for messages.

    Raises:
        ScepsyError: it was cut off, changed, or is too large.
    """
    try:
        stream = zlib.decompressobj(wbits=31)
        data = stream.decompress(base64.b64decode(packed.strip(), validate=True), _UNPACKED)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ScepsyError(f"{what} is damaged: {error}") from error
    if stream.unconsumed_tail:
        raise ScepsyError(f"{what} has more than {_UNPACKED} bytes")
    if not stream.eof or stream.unused_data:
        raise ScepsyError(f"{what} is damaged: part of it is missing")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ScepsyError(f"{what} is damaged: {error.reason}") from error
