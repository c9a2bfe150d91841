"""What an importer provides: how to recognise a file of its format, and how to read its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scepsy.traces.call import Call, Execution
from scepsy.traces.importers.span import Skipped, Span

Item = Span | Call | Execution | Skipped
"""What a record may hold."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of trace files.

    Attributes:
        name: as `--format` names it.
        shape: what its records look like, for messages.
        matches: whether a JSON object is a record of this format.
        read: yields what a record holds; the second argument is the file's name without extensions.
    """

    name: str
    shape: str
    matches: Callable[[dict[str, Any]], bool]
    read: Callable[[Any, str], Iterator[Item]]
