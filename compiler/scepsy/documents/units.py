"""Typed units: durations, rates and quantities as people write them, numbers in SI units inside.

Each type parses a string with its unit (a bare number is an error: `8` could be seconds or minutes), and
writes it back in one canonical form: what people wrote exactly, computed numbers with four significant digits.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from scepsy.errors import ScepsyError

_NUMBER = r"(?P<number>[0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(_NUMBER + r"\s*(?P<unit>us|ms|s|min|m|h|d|w)")
_RATE = re.compile(_NUMBER + r"\s*/\s*(?P<unit>s|min|h)")
_QUANTITY = re.compile(_NUMBER + r"(?P<unit>Ki|Mi|Gi|Ti|k|M|G|T|)")

_SECONDS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "m": 60.0,  # as Prometheus and Go write minutes
    "h": 3600.0,
    "d": 86_400.0,
    "w": 7 * 86_400.0,
}
_LONGEST_DURATION = 1e9  # thirty years
_BYTES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


class Si(float):
    """A number in SI units (seconds, events per second) that code gives to a field which people write with a unit."""


def significant(value: float, digits: int = 4) -> str:
    """Write a finite number with `digits` significant digits, never in exponent form, without trailing zeros."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 15)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_duration(value: Any, *, longest: float = _LONGEST_DURATION) -> float:
    """Parse `80ms`, `8s`, `2min` (or `2m`), `24h`, `7d`, `2w` into seconds: the one grammar of documents and options.

    Raises:
        ValueError: not a duration with a unit, or longer than `longest` seconds.
    """
    if isinstance(value, Si) and value >= 0:
        return float(value)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match["number"]) * _SECONDS[match["unit"]]
        if seconds > longest or math.isinf(seconds):
            raise ValueError("a duration must be shorter than thirty years")
        return seconds
    raise ValueError(f"{_shown(value)} is not a duration: write a number and a unit, such as 80ms, 8s, 2min or 7d")


def option_duration(text: str, option: str, longest: float = _LONGEST_DURATION) -> float:
    """Return the seconds in the value of a command-line option.

    Raises:
        ScepsyError: not a duration with a unit, or longer than `longest` seconds.
    """
    try:
        return parse_duration(text, longest=longest)
    except ValueError as error:
        raise ScepsyError(f"{option}: {error}") from error


def format_duration(seconds: float) -> str:
    """Write seconds as `412us`, `80.5ms` or `8.123s`: what people wrote exactly, anything else to four digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("min", 60.0), ("h", 3600.0)):
        text = f"{significant(seconds / scale, 7)}{unit}"
        if seconds >= scale and parse_duration(text) == seconds:
            return text
    if seconds >= 1 or seconds == 0:
        return f"{significant(seconds)}s"
    if seconds >= 1e-3:
        return f"{significant(seconds * 1e3)}ms"
    return f"{significant(seconds * 1e6)}us"


def parse_rate(value: Any) -> float:
    """Parse `4/s`, `30/min`, `100/h` into events per second.

    Raises:
        ValueError: not a positive rate with a unit.
    """
    if isinstance(value, Si) and value > 0:
        return float(value)
    if isinstance(value, str) and (match := _RATE.fullmatch(value.strip())):
        rate = float(match["number"]) / _SECONDS[match["unit"]]
        if rate <= 0:
            raise ValueError("a rate must be greater than zero")
        if not 1e-9 <= rate <= 1e6:
            raise ValueError("a rate must lie between one in thirty years and a million per second")
        return rate
    raise ValueError(f"{_shown(value)} is not a rate: write a number per unit of time, such as 4/s, 30/min or 100/h")


def format_rate(per_second: float) -> str:
    """Write events per second as `4/s`, or per minute or hour: what people wrote exactly, else to four digits."""
    for unit in ("s", "min", "h"):
        text = f"{significant(per_second * _SECONDS[unit], 7)}/{unit}"
        if per_second > 0 and parse_rate(text) == per_second:
            return text
    for unit, seconds in (("s", 1.0), ("min", 60.0)):
        if per_second * seconds >= 0.1:
            return f"{significant(per_second * seconds)}/{unit}"
    return f"{significant(per_second * 3600)}/h"


def parse_memory(value: Any) -> int:
    """Parse a Kubernetes quantity of memory (`80Gi`, `512Mi`; a bare number counts bytes) into bytes.

    Raises:
        ValueError: not a quantity of at least one byte.
    """
    if isinstance(value, str) and (match := _QUANTITY.fullmatch(value.strip())):
        size = float(match["number"]) * _BYTES[match["unit"]]
        if 0.5 < size <= 1 << 60:  # infinite for hundreds of digits
            return round(size)
        raise ValueError("memory must lie between one byte and 1Ei")
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 60:
        return value
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+\s*[KMGT]i?B", value.strip()):
        hint = f" (Kubernetes writes {value.strip().replace(' ', '')[:-1]})"
    raise ValueError(f"{_shown(value)} is not a quantity of memory: write 80Gi or 512Mi{hint}")


def format_memory(size: int) -> str:
    """Write bytes as the shortest exact Kubernetes quantity."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


def parse_share(value: Any) -> float:
    """Parse a share of a GPU, 0.1 … 1.0 in steps of 0.1.

    Raises:
        ValueError: not such a number.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        tenths = round(value * 10)
        if 1 <= tenths <= 10 and math.isclose(value * 10, tenths, abs_tol=1e-9):
            return tenths / 10
    raise ValueError(f"{_shown(value)} is not a share of a GPU: write 0.1, 0.2, … or 1.0")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value[:60]}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "an empty value"}[value]
    return f"{value!r}"[:60] if isinstance(value, int | float) else f"a {type(value).__name__}"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(us|ms|s|min|m|h|d|w)$", "examples": ["80ms", "8s"]}
    ),
]
"""Seconds; written with a unit."""

Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    PlainSerializer(format_rate, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*/\s*(s|min|h)$", "examples": ["4/s", "30/min"]}
    ),
]
"""Events per second; written with a unit."""

Memory = Annotated[
    int,
    BeforeValidator(parse_memory),
    PlainSerializer(format_memory, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", "examples": ["80Gi"]}),
]
"""Bytes; written as a Kubernetes quantity."""

Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema({"type": "number", "enum": [tenths / 10 for tenths in range(1, 11)]}),
]
"""A share of a GPU in tenths."""
