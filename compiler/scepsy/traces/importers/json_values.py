"""Values of JSON from other tools: each function accepts anything, and returns None for what it cannot use."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

_UNITS = (("s", 1e11, 1), ("ms", 1e14, 1_000), ("us", 1e17, 1_000_000), ("ns", 1e20, 1_000_000_000))
"""Unit of a time since 1970, the first magnitude that is too large for it, and how many make a second."""
_NUMBER = re.compile(r"\s*[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?\s*")
_KIND = re.compile(r"\s*[^\W\d]\w*(\.\w+)*(?=\s*(\(|:|$))")
_CODE = re.compile(r"(?<![0-9])[45][0-9][0-9](?![0-9])")
_LABELS = frozenset(("role", "type", "id", "name", "key", "finish_reason", "object", "model"))
_MOST_TOKENS = 1e9


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return a JSON array; an empty one for anything else."""
    return value if isinstance(value, list) else []


def first(record: dict[str, Any], *keys: str) -> Any:
    """Return the value of the first key that has one."""
    return next((record[key] for key in keys if record.get(key) not in (None, "")), None)


def text(value: Any) -> str | None:
    """Return a string that is not blank, fit to be written as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        return None
    return value.encode("utf-8", "replace").decode("utf-8")


def identifier(value: Any) -> str | None:
    """Return an id, which some tools write as a number."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 128:
        return str(value)
    return text(value)


def number(value: Any) -> float | None:
    """Return a finite number, which may be written as a string."""
    if isinstance(value, str):
        value = float(value) if len(value) < 40 and _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def tokens(value: Any) -> float | None:
    """Return a number of tokens."""
    count = number(value)
    return count if count is not None and 0 <= count < _MOST_TOKENS else None


def seconds(value: Any) -> float | None:
    """Return a number of seconds that is written as one; none that is longer than three thousand years."""
    found = None if isinstance(value, str) else number(value)
    return found if found is not None and abs(found) < _UNITS[0][1] else None


def time(value: Any) -> tuple[float, str] | None:
    """Return a point in time as seconds, and the unit that it was written in.

    A number counts seconds, ms, µs or ns since 1970, by its magnitude. A string may hold such a number, or a date
    and time as ISO 8601 has it; without a zone it is UTC.
    """
    if isinstance(value, str) and len(value) < 40 and not _NUMBER.fullmatch(value):
        return _iso(value)
    if isinstance(value, str):
        # An integer stays one: a double cannot hold the nanoseconds of a Unix time.
        value = int(value) if value.strip().isdecimal() and len(value) < 40 else number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e20:
        return None
    return next((value / scale, unit) for unit, least, scale in _UNITS if abs(value) < least)


def _iso(value: str) -> tuple[float, str] | None:
    try:
        point = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    point = point if point.tzinfo else point.replace(tzinfo=UTC)
    return (point - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds(), "ISO 8601"


def fault(value: Any) -> str | None:
    """Return what kind of error a message reports: the exception's name or the HTTP status.

    The message itself is dropped: it may quote the prompt.
    """
    message = text(value)
    if message is None:
        return None
    message = message.strip().splitlines()[0][:400]
    if kind := _KIND.match(message):
        return kind[0].strip()[:80]
    code = _CODE.search(message)
    return f"HTTP {code[0]}" if code else "error"


def letters(values: Iterable[Any]) -> int:
    """Return how many characters of text there are in some values, however nested."""
    count, todo = 0, list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            count += len(value)
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            todo += [item for key, item in value.items() if key not in _LABELS]
    return count
