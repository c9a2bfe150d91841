"""Where a measurement reads its calls and writes its Profile: a protocol, and the files that a user names."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scepsy.documents import Profile, emit
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.journal import check_free
from scepsy.repository.single_file import checked_target, write_at_once


class MeasurementFiles(Protocol):
    """Where the calls are read, and where journal and Profile are written."""

    @property
    def journal(self) -> Path:
        """The file with the complete points."""

    def prepare(self, point: str) -> None:
        """Check that the files can be used, before anything takes time."""

    def calls(self) -> AbstractContextManager[Path]:
        """Yield the file with the recorded calls."""

    def update(self) -> None:
        """React to a new point in the journal."""

    def replace_journal(self, error: ScepsyError) -> None:
        """Make room for a new journal where the old one has other arguments, or raise."""

    def deliver(self, profile: Profile) -> None:
        """Write the Profile."""


@dataclass(frozen=True)
class NamedFiles:
    """NamedFiles that the user names.

    Attributes:
        trace: the calls to replay.
        output: the file to write.
    """

    trace: Path
    output: Path

    @property
    def journal(self) -> Path:
        """Beside the output."""
        return self.output.with_name(self.output.name + ".partial")

    def prepare(self, point: str) -> None:
        """Check that the output can be written, and does not exist."""
        target = checked_target(self.output, "-o", [self.trace])
        if target.exists():
            raise ScepsyError(f"{self.output} exists", "name another file with -o, or delete it")
        check_free(self.journal)

    def calls(self) -> AbstractContextManager[Path]:
        """Return the trace."""
        return nullcontext(self.trace)

    def update(self) -> None:
        """Do nothing: the user has the journal."""

    def replace_journal(self, error: ScepsyError) -> None:
        """Raise: the user decides."""
        raise error

    def deliver(self, profile: Profile) -> None:
        """Write the output."""
        write_at_once(Path(os.path.realpath(self.output)), emit(profile.plain()))
