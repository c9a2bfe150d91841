"""Files and directories → the JSON values in them, and what was left out.

`vllm bench serve --save-result` writes one object per file, `--append-result` several in a row. `vllm bench sweep
serve` and `serve_workload` write a directory per combination of parameters: `run=0.json` … hold the runs,
`summary.json` the same runs as a list, `warmup.json` what was not to be measured, `run=0.failure.json` what failed
(vllm/benchmarks/sweep/serve.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scepsy.documents.diagnostics import Diagnostic, DocumentError, Position
from scepsy.errors import ScepsyError

MAX_BYTES = 512 << 20
"""Largest file that is read. With --save-detailed every generated token has a time: some 20 bytes each."""
MAX_FILES = 10_000
"""Most files that a directory may hold."""


@dataclass(frozen=True)
class ResultFile:
    """A JSON file.

    Attributes:
        name: the file as the user named it, or below the directory that the user named.
        folder: name of the directory that it lies in; sweeps write their parameters there.
        digest: `sha256:…` of its bytes.
        values: what it holds, at least one value.
    """

    name: str
    folder: str
    digest: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Left:
    """Something that does not become a point.

    Attributes:
        name: the file, with the number of the result where it holds several.
        reason: why.
        failed: whether it is a result that is no good; else it is no result at all.
    """

    name: str
    reason: str
    failed: bool = False


def read_files(given: Sequence[Path]) -> Iterator[ResultFile | Left]:
    """Read files, and all `.json` files below directories, one after the other; each but once.

    Args:
        given: files and directories. A symbolic link out of a directory is not followed.

    Raises:
        ScepsyError: a file that the user named is not there, too large, or not JSON; or a directory holds too many.
    """
    seen: set[Path] = set()
    for path in given:
        if path.is_dir():
            found = list(_below(path))
            if not found:
                yield Left(str(path), "there is no .json file in the directory")
            for file in found:
                yield from _once(file, seen, path)
        else:
            yield from _once(path, seen, None)


def _below(directory: Path) -> Iterator[Path]:
    count = 0
    # A sweep's combination is a folder; what is linked from elsewhere was not written by it.
    for folder, folders, names in os.walk(directory, followlinks=False):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".json"):
                count += 1
                if count > MAX_FILES:
                    raise ScepsyError(f"{directory} holds more than {MAX_FILES:,} .json files", "name fewer of them")
                yield Path(folder, name)


def _once(path: Path, seen: set[Path], directory: Path | None) -> Iterator[ResultFile | Left]:
    real = Path(os.path.realpath(path))
    if directory is not None and not real.is_relative_to(os.path.realpath(directory)):
        yield Left(str(path), "a symbolic link out of the directory, not followed")
    elif directory is not None and (reason := _not_measured(path)):
        yield Left(str(path), reason)
    elif real not in seen:
        seen.add(real)
        try:
            yield _read(path)
        except ScepsyError as error:
            if directory is None:
                raise
            yield Left(str(path), error.message.partition("\n")[0].removeprefix(f"{path}: "))


def _not_measured(path: Path) -> str:
    """Return why a file of a sweep's directory is not read, if its name says so."""
    if path.name == "warmup.json":
        return "the warm-up of a sweep"
    if path.name.endswith(".failure.json"):
        return "a run of a sweep that failed"
    if path.name == "summary.json" and any(path.parent.glob("run=*.json")):
        return "the same runs as run=….json beside it"
    return ""


def _read(path: Path) -> ResultFile:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ScepsyError(f"{path}: not a regular file")
        if status.st_size > MAX_BYTES:
            raise ScepsyError(
                f"{path}: larger than {MAX_BYTES >> 20} MiB", "run vllm bench serve with fewer --num-prompts"
            )
        with path.open("rb") as file:
            # It may have grown since.
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScepsyError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise ScepsyError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScepsyError(f"{path}: byte {error.start + 1} is not UTF-8") from error
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    values = tuple(_values(str(path), text))
    # A summary of a sweep is a list of results.
    listed = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    return ResultFile(str(path), path.parent.name, digest, tuple(listed))


def _values(name: str, text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at == len(text):
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            line = text[text.rfind("\n", 0, error.pos) + 1 :].partition("\n")[0]
            cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
            message = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
            hint = "the file is cut off: was the benchmark stopped?" if cut else ""
            # One line holds a whole result: what is around the place is of no use to anyone.
            position = Position(name, error.lineno, error.colno, line if len(line) <= 160 else "")
            raise DocumentError([Diagnostic(position, message, hint)]) from error
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
            raise ScepsyError(f"{name}: not valid JSON: {reason}") from error
        yield value
    if not text.strip():
        raise ScepsyError(f"{name}: the file is empty")
