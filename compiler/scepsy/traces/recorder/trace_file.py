"""The trace file: whole lines are appended, and survive a crash of the recorder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from scepsy.errors import ScepsyError


class TraceFile:
    """Appends lines to a file; each is written to the kernel at once, so that none is lost with the process.

    Args:
        path: the file; it is created if it does not exist.

    Raises:
        ScepsyError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise ScepsyError(f"cannot write {path}: the directory {path.parent} does not exist", "create it first")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._torn = _torn(self._file)
        except OSError as error:
            raise ScepsyError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error

    def append(self, line: bytes) -> None:
        """Append a line, newline included: all of it, or nothing.

        After a crash in the middle of a line, the next line starts on a new one.

        Raises:
            OSError: it could not be written.
        """
        data = b"\n" + line if self._torn else line
        size = os.fstat(self._file).st_size
        written = os.write(self._file, data)
        if written == len(data):
            self._torn = False
            return
        # The disk is full and has only a part of the line: remove it, unless another process has appended since.
        self._torn = True
        if os.fstat(self._file).st_size == size + written:
            os.ftruncate(self._file, size)
            self._torn = _torn(self._file)
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _torn(file: int) -> bool:
    """Return whether a file's last line has not ended."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    return os.pread(file, 1, status.st_size - 1) != b"\n"
