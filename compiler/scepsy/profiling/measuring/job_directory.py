"""The directory through which a profiling job gets its inputs and returns its results.

`in/calls` and `in/resume` are read; `out/outcome`, `out/profile` and `out/partial` exist from the start and are valid
at any time, also if the job is killed; `journal/` may outlive the job.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from scepsy.documents import Profile, emit
from scepsy.documents.compressed_text import pack, unpack
from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.failures import TryAgain
from scepsy.profiling.measuring.interruption import Interrupted, Interruption
from scepsy.profiling.measuring.journal import check_free
from scepsy.repository.single_file import write_at_once

DONE, FAILED, AGAIN = 0, 1, 75
"""Exit codes: measured or unusable; another attempt cannot help; another attempt may (EX_TEMPFAIL of sysexits.h)."""
_REASON = 1000
"""Characters of a reason at most."""

Kind = Literal["measured", "unusable", "failed", "interrupted"]
Say = Callable[[str], None]


class JobDirectory:
    """The directory of a profiling job.

    Args:
        directory: the directory; it must exist.
        say: gets the lines for the log.
    """

    def __init__(self, directory: Path, say: Say) -> None:
        self._directory = directory
        self._say = say
        self._journal: Path | None = None
        self._profile: Profile | None = None

    @property
    def journal(self) -> Path:
        """The file with the complete points; set by `prepare`."""
        assert self._journal is not None  # noqa: S101
        return self._journal

    def conclude(self, work: Callable[[], object], interruption: Interruption) -> int:
        """Do the work, write its outcome, and return the exit code.

        Raises:
            ScepsyError: the directory cannot be written to.
        """
        if not self._directory.is_dir():
            raise ScepsyError(f"--job: no such directory: {self._directory}", "create it first")
        self._put("profile", "")
        self._put("partial", self._partial())
        self._outcome("failed", "killed")
        try:
            work()
        except Interrupted:
            interruption.over()
            return self._end(AGAIN, "interrupted", "stopped by a signal")
        except ScepsyError as error:
            interruption.over()
            self._say(f"error: {error}")
            return self._end(AGAIN if isinstance(error, TryAgain) else FAILED, "failed", error.message)
        except BaseException as error:
            interruption.over()
            self._end(FAILED, "failed", f"{type(error).__name__}: {error}")
            raise
        interruption.over()
        unusable = self._profile.spec.unusable if self._profile else ()
        return self._end(DONE, "unusable" if unusable else "measured", unusable[0].reason if unusable else "")

    def refuse(self, message: str) -> None:
        """Report an invalid command line."""
        if self._directory.is_dir():
            self._put("profile", "")
            self._end(FAILED, "failed", message)

    def prepare(self, point: str) -> None:
        """Find the journal; without one, take that of `in/resume`.

        Args:
            point: name of what is measured.

        Raises:
            TakenJournal: another process writes to it.
        """
        folder = self._directory / "journal"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ScepsyError(f"cannot create {folder}: {error.strerror or error}") from error
        journal = folder / f"{point}.partial"
        check_free(journal)
        self._journal = journal
        if not journal.exists() or not journal.stat().st_size:
            earlier = self._resume()
            if earlier:
                write_at_once(journal, earlier.encode())
        self.update()

    @contextmanager
    def calls(self) -> Iterator[Path]:
        """Yield the file with the recorded calls.

        Raises:
            ScepsyError: the calls are missing or damaged.
        """
        file = self._directory / "in" / "calls"
        text = unpack(_read(file), str(file))
        with tempfile.TemporaryDirectory() as folder:
            unpacked = Path(folder) / "calls.jsonl"
            unpacked.write_text(text, encoding="utf-8")
            yield unpacked

    def update(self) -> None:
        """Publish the journal now: a job that is killed no longer can."""
        # A failure here is not fatal: the journal is published again at the end.
        with contextlib.suppress(ScepsyError):
            self._put("partial", self._partial())

    def replace_journal(self, error: ScepsyError) -> None:
        """Set aside a journal that cannot be resumed: a job cannot ask the user."""
        aside = self.journal.with_name(self.journal.name + ".other")
        self._say(f"{error.message}; set aside; the measurement starts over")
        self.journal.replace(aside)

    def deliver(self, profile: Profile) -> None:
        """Publish the Profile."""
        self._profile = profile
        self._put("profile", pack(emit(profile.plain()).decode()))

    def _resume(self) -> str:
        """Return the journal to resume; empty if there is none, or it is damaged."""
        file = self._directory / "in" / "resume"
        try:
            packed = _read(file) if file.exists() else ""
            return unpack(packed, str(file)) if packed.strip() else ""
        except ScepsyError as error:
            self._say(f"{error.message}; the measurement starts over")
            return ""

    def _partial(self) -> str:
        if self._profile is not None:
            return ""
        text = ""
        if self._journal is not None:
            with contextlib.suppress(OSError):
                text = self._journal.read_bytes().decode("utf-8", "replace")
        # The first line only says what is measured; a last line without a newline is incomplete.
        return pack(text) if text.count("\n") > 1 else ""

    def _end(self, code: int, kind: Kind, reason: str) -> int:
        self._put("partial", self._partial())
        self._outcome(kind, reason)
        return code

    def _outcome(self, kind: Kind, reason: str) -> None:
        short = printable(" ".join(reason.split()))
        short = short if len(short) <= _REASON else short[: _REASON - 1] + "…"
        self._put("outcome", json.dumps({"outcome": kind, "reason": short}, ensure_ascii=False) + "\n")

    def _put(self, name: str, text: str) -> None:
        write_at_once(self._directory / "out" / name, text.encode())


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise ScepsyError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ScepsyError(f"{file} is damaged: {error.reason}") from error
