"""Files of JSON → their records: JSONL line by line, one JSON document as a whole, either of them gzipped."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scepsy.errors import ScepsyError
from scepsy.traces.importers.span import Skipped

MAX_DOCUMENT = 256 << 20
"""Longest line, and longest JSON document that is not JSONL, in bytes."""
MAX_UNPACKED = 4 << 30
"""Most that is unpacked of a gzip file, in bytes."""
BROKEN = "lines that are not JSON"
CUT_OFF = "last lines that are cut off"

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def records(path: Path) -> Iterator[Any]:
    """Yield what a file holds: the value of each line, or the one JSON document; of an array, each element.

    Args:
        path: the file; gzip is detected by its first bytes (RFC 1952), JSONL by its first line being a whole value.

    Yields:
        JSON values, and a `Skipped` for each invalid line.

    Raises:
        ScepsyError: the file cannot be read, is empty, is not UTF-8, is no JSON at all, or is larger than the limits.
    """
    if path.is_dir():
        raise ScepsyError(f"{path} is a directory", f"name the files in it: {path}/*.json")
    if not path.is_file():
        raise ScepsyError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == _GZIP
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if packed else file
            for value in _values(_Lines(path, stream)):
                yield from value if isinstance(value, list) else [value]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ScepsyError(f"{path}: the gzip file is cut off or damaged ({error})") from error
    except OSError as error:
        raise ScepsyError(f"{path} cannot be read: {error.strerror or error}") from error


class _Lines:
    """The lines of a file that are not blank, as text, within the limits."""

    def __init__(self, path: Path, stream: io.BufferedIOBase) -> None:
        self.path, self._stream, self._total, self.number = path, stream, 0, 0

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(MAX_DOCUMENT + 1):
            self.number += 1
            self._total += len(line)
            if len(line) > MAX_DOCUMENT:
                raise self.problem(f"line {self.number} is longer than {MAX_DOCUMENT >> 20} MiB", "split the export")
            if self._total > MAX_UNPACKED and isinstance(self._stream, gzip.GzipFile):
                raise self.problem(f"it unpacks to more than {MAX_UNPACKED >> 30} GiB", "split the export")
            if self.number == 1:
                line = self._without_mark(line)
            try:
                decoded = line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = f"line {self.number}, byte {error.start + 1}"
                raise self.problem(f"{where} is not UTF-8", "save the file as UTF-8") from error
            # A blank line is kept as one: positions in the document count it.
            yield decoded

    def _without_mark(self, line: bytes) -> bytes:
        if line[:2] in _UTF_16 or line[1:2] == b"\0" or line[:1] == b"\0":
            raise self.problem("the file is UTF-16", "save it as UTF-8")
        return line.removeprefix(_BOM)

    def problem(self, message: str, hint: str = "") -> ScepsyError:
        return ScepsyError(f"{self.path}: {message}", hint)


def _values(lines: _Lines) -> Iterator[Any]:
    """Yield the value of each line, or of the whole text if the first line is only a part of it."""
    rest = iter(lines)
    head = [next((line for line in rest if line.strip()), "")]
    if not head[0]:
        raise lines.problem("the file is empty")
    first = _parsed(head[0])
    if not isinstance(first, Skipped):
        yield first
    else:
        head += [line for line in [next(rest, "")] if line]
        second = _parsed(head[-1]) if len(head) > 1 else None
        if not isinstance(second, dict):
            yield _document(lines, head, rest)
            return
        yield Skipped(BROKEN)
        yield second
    waiting: Skipped | None = None
    for line in rest:
        if not line.strip():
            continue
        if waiting:
            yield waiting
        value = _parsed(line)
        waiting = value if isinstance(value, Skipped) else None
        if waiting is None:
            yield value
    if waiting:
        yield Skipped(CUT_OFF)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return Skipped(BROKEN)


def _document(lines: _Lines, head: list[str], rest: Iterator[str]) -> Any:
    """Parse a text that is one JSON document."""
    begin = lines.number - len(head)
    parts, size = list(head), 0
    for line in rest:
        size += len(line)
        if size > MAX_DOCUMENT:
            raise lines.problem(f"the JSON document is larger than {MAX_DOCUMENT >> 20} MiB", "export it as JSONL")
        parts.append(line)
    try:
        return json.loads("".join(parts))
    except json.JSONDecodeError as error:
        cut = error.pos >= len("".join(parts).rstrip()) or error.msg.startswith("Unterminated")
        message = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        hint = "the file is cut off: export it again" if cut else ""
        raise ScepsyError(f"{lines.path}:{error.lineno + begin}:{error.colno}: {message}", hint) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
        raise lines.problem(f"not valid JSON: {reason}") from error
