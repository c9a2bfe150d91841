"""Numbers of a trace as short texts that fit into a table."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len, set_cell_size

from scepsy.documents.diagnostics import printable
from scepsy.documents.trace_statistics import Estimate
from scepsy.documents.units import significant


def number(value: float) -> str:
    """Write a number with three digits in at most seven characters."""
    if 9_995 <= value < 1e15:
        scale, unit = next((s, u) for s, u in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= 0.9995 * s)
        return significant(value / scale, 3) + unit
    return f"{value:.1e}" if value >= 1e15 or 0 < value < 1e-4 else significant(value, 3)


def percent(part: float) -> str:
    """Write a part of 1 as a percentage."""
    return f"{part:.0%}" if part >= 0.0995 or part == 0 else f"{significant(part * 100, 2)}%"


def interval(estimate: Estimate | None, written: Callable[[float], str] = number) -> str:
    """Write an interval; nothing where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{written(estimate.low)}–{written(estimate.high)}"


def rate(per_second: float, beside: float | None = None) -> str:
    """Write a rate per second, minute or hour, whichever suits it, or the rate that it stands beside."""
    scale = beside or per_second
    unit, seconds = next((u, s) for u, s in (("s", 1.0), ("min", 60.0), ("h", 3600.0)) if scale * s >= 1 or u == "h")
    return f"{number(per_second * seconds)}/{unit}"


def brief(seconds: float) -> str:
    """Write a short time with three digits, in seconds, milli- or microseconds."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * scale:
            return f"{number(seconds / scale)} {unit}"
    return f"{number(seconds / 1e-6)} µs" if seconds > 0 else "0 s"


def long(seconds: float) -> str:
    """Write seconds in the largest unit of which there are two."""
    for unit, scale in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * scale:
            return f"{number(seconds / scale)} {unit}"
    return f"{number(seconds)} s"


def cut(text: str, width: int) -> str:
    """Return text on one line of at most `width` columns; some characters take two."""
    plain = printable(text[: 4 * width])
    return plain if cell_len(plain) <= width else set_cell_size(plain, width - 1).rstrip() + "…"
