"""The formats that can be imported, and which of them a file has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scepsy.errors import ScepsyError
from scepsy.traces.importers import agent_session, langfuse, langsmith, native, otlp
from scepsy.traces.importers.format import Format

FORMATS: tuple[Format, ...] = (otlp.FORMAT, langsmith.FORMAT, langfuse.FORMAT, agent_session.FORMAT, native.FORMAT)
"""In the order in which a file is compared with them: a record that matches two has the first."""


def format_named(name: str) -> Format:
    """Return the format of a name."""
    return next(known for known in FORMATS if known.name == name)


def detected_format(path: Path, records: Sequence[Any]) -> Format:
    """Return a file's format, by its first records.

    Raises:
        ScepsyError: no record matches a format.
    """
    for record in records:
        for known in FORMATS:
            if isinstance(record, dict) and known.matches(record):
                return known
    shapes = "\n".join(f"  {known.name:14} {known.shape}" for known in FORMATS)
    first = next((record for record in records if isinstance(record, dict)), None)
    keys = (
        f"; its first object has {', '.join(_short(key) for key in list(first)[:6]) or 'no keys'}"
        if first is not None
        else ""
    )
    raise ScepsyError(
        f"{path}: unknown format{keys}. Expected one of:\n{shapes}",
        "if it is one of these, name it with --format",
    )


def _short(key: str) -> str:
    return '"' + "".join(c for c in key[:30] if c.isprintable()) + '"'
