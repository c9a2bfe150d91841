"""The journal of a measurement: what is done when it is interrupted, so that it can go on.

JSONL beside the output. The first line says what is measured, each further line is one point that is complete, in the
form in which the Profile will have it. Lines are on disk before the next point begins; a last line that is cut off is
dropped. Whoever writes holds a lock on the file (`flock`, which reaches over NFS): two jobs may share a volume.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from scepsy.documents.profile import Point, RatePoint
from scepsy.errors import ScepsyError

_HOW_TO_CONTINUE = "use the same arguments to continue, name another file with -o, or delete it to start over"


@dataclass(frozen=True)
class Closed:
    """A closed-loop point that was tried.

    Attributes:
        concurrency: k.
        point: what was measured; None if it failed.
        reason: why it failed.
        seconds: how long it took, with all attempts.
    """

    concurrency: int
    point: Point | None
    reason: str
    seconds: float


@dataclass(frozen=True)
class Open:
    """An open-loop point that was tried.

    Attributes:
        rate: calls per second that were asked for.
        point: what was measured; None if it failed.
        reason: why it failed.
        seconds: how long it took, with all attempts.
    """

    rate: float
    point: RatePoint | None
    reason: str
    seconds: float


Entry = Closed | Open


class OtherJournal(ScepsyError):
    """A file is a journal of something else, or none at all."""


class TakenJournal(ScepsyError):
    """Another process writes to a journal."""


class Journal:
    """A journal on disk.

    Args:
        path: its file.
        arguments: what is measured, as plain JSON values; a journal of something else is refused.
        date: the day on which the measurement begins; that of the journal if there is one.

    Attributes:
        entries: what it holds.
        date: the day on which the measurement began.

    Raises:
        OtherJournal: the file is a journal of other arguments, or none at all.
        TakenJournal: another process writes to it.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any], date: str) -> None:
        self._path = path
        self.entries: list[Entry] = []
        self.date = date
        self._file = _alone(path)
        try:
            text = self._file.read()
            whole = text[: text.rfind(b"\n") + 1]
            if whole:
                self._read(whole.splitlines(), arguments)
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if not whole:
            self._write({"arguments": arguments, "date": date})

    def _read(self, lines: list[bytes], arguments: Mapping[str, Any]) -> None:
        try:
            head = json.loads(lines[0])
            earlier, self.date = head["arguments"], str(head["date"])
            self.entries = [_entry(json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
            raise OtherJournal(f"{self._path} is no journal of `scepsy profile run`", _HOW_TO_CONTINUE) from error
        keys = sorted(earlier.keys() | arguments.keys())
        other = [key for key in keys if earlier.get(key) != arguments.get(key)]
        if other:
            differences = "; ".join(
                f"{key} was {_shown(earlier.get(key))} and is {_shown(arguments.get(key))}" for key in other
            )
            raise OtherJournal(
                f"{self._path} is of a measurement with other arguments: {differences}", _HOW_TO_CONTINUE
            )

    def add(self, entry: Entry) -> None:
        """Append an entry; it is on disk when this returns."""
        kind = "closed" if isinstance(entry, Closed) else "open"
        at: float = entry.concurrency if isinstance(entry, Closed) else entry.rate
        line: dict[str, Any] = {kind: at, "seconds": round(entry.seconds, 3)}
        line |= {"reason": entry.reason} if entry.point is None else {"point": entry.point.plain()}
        self._write(line)
        # Rounded as in the file, so that a resumed run sees the same numbers.
        self.entries.append(_entry(line))

    def close(self) -> None:
        """Leave the file as it is."""
        self._file.close()

    def remove(self) -> None:
        """Remove the file: what it was for is done."""
        # Removed while it is locked: no other process writes to it.
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def check_free(path: Path) -> None:
    """Check that no process writes to a journal, before anything takes time; `Journal` checks again.

    Raises:
        TakenJournal: one does.
    """
    if path.exists():
        _alone(path).close()


def _alone(path: Path) -> BinaryIO:
    """Open a journal, made if need be, and lock it until it is closed."""
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")
        except OSError as error:
            raise ScepsyError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                file.close()
                raise TakenJournal(
                    f"another measurement writes to {path}", "wait until it has ended, or give this one another place"
                ) from error
            # Some file systems have no locks; they are measured on as ever.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        # It was removed between opening and locking: what it was for was done just then.
        file.close()


def _entry(line: dict[str, Any]) -> Entry:
    reason, seconds = str(line.get("reason", "")), float(line["seconds"])
    if "closed" in line:
        return Closed(
            int(line["closed"]), Point.model_validate(line["point"]) if "point" in line else None, reason, seconds
        )
    return Open(
        float(line["open"]), RatePoint.model_validate(line["point"]) if "point" in line else None, reason, seconds
    )


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
