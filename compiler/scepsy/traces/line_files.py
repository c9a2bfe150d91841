"""Files of lines, gzipped or not, read without holding them in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scepsy.documents import Diagnostic, DocumentError, Position

MAX_BYTES = 16 << 30
"""Largest file, decompressed."""
MAX_LINE = 64 << 20
"""Longest line."""
GZIP = b"\x1f\x8b"
"""How a gzip file begins (RFC 1952)."""


class Lines:
    """The lines of a file, and its digest once they have been read.

    Args:
        path: the file.
        name: its name in messages.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines.

        Raises:
            DocumentError: the file cannot be read, is a damaged gzip file, or is too large.
        """
        try:
            if not self._path.is_file():
                raise self._problem("is a directory" if self._path.is_dir() else "no such file")
            with self._path.open("rb") as raw:
                hashed = io.BufferedReader(_Hashed(raw, self._sha256), 1 << 20)
                packed = hashed.peek(2)[:2] == GZIP
                yield from self._split(gzip.GzipFile(fileobj=hashed) if packed else hashed)
                while hashed.read(1 << 20):
                    pass  # bytes after the last line belong to the digest too
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self._problem("the gzip file is cut off or damaged", str(error)) from error
        except OSError as error:
            raise self._problem(f"cannot read the file: {error.strerror or error}") from error

    def _split(self, file: Any) -> Iterator[bytes]:
        total = 0
        while line := file.readline(MAX_LINE):
            total += len(line)
            if total > MAX_BYTES:
                raise self._problem(f"the file is larger than {MAX_BYTES >> 30} GiB")
            if len(line) == MAX_LINE:
                raise self._problem(f"a line is longer than {MAX_LINE >> 20} MiB", "is this a JSONL file?")
            yield line

    def digest(self) -> str:
        """Return the digest of the file's bytes as they are on disk."""
        return "sha256:" + self._sha256.hexdigest()

    def _problem(self, message: str, hint: str = "") -> DocumentError:
        return DocumentError([Diagnostic(Position(self._name), message, hint)])


class _Hashed(io.RawIOBase):
    """A raw stream that hashes what passes."""

    def __init__(self, raw: io.BufferedReader, sha256: Any) -> None:
        super().__init__()
        self._raw, self._sha256 = raw, sha256

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer)
        self._sha256.update(memoryview(buffer)[:count])
        return count
