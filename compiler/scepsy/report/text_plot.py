"""Plots made of characters: curves with a letter each, logarithmic axes, readable without colours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

DOT = "·"


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        mark: one character for its points.
        style: of its characters.
        x: rising, greater than zero.
        y: greater than zero.
    """

    mark: str
    style: str
    x: Sequence[float]
    y: Sequence[float]


def text_plot(
    title: str, lines: Sequence[Line], width: int, height: int, written: Callable[[float], str]
) -> list[Text]:
    """Draw curves; where two meet, the earlier one is seen.

    Args:
        title: what is drawn.
        lines: curves, at least one with a point.
        width: columns of all.
        height: rows of the plot itself; a title, an axis and its labels come to it.
        written: writes a value of y.

    Returns:
        `height + 3` lines of `width` columns.
    """
    xs = [math.log2(x) for line in lines for x in line.x]
    ys = [math.log2(y) for line in lines for y in line.y]
    left, right = _span(min(xs), max(xs), 1.0)
    low, high = _span(min(ys), max(ys), 0.2)
    rows = [round(i * (height - 1) / 3) for i in range(4)]
    labels = {row: written(2 ** (high - (high - low) * row / (height - 1))) for row in rows}
    margin = max(len(label) for label in labels.values())
    columns = width - margin - 1
    cells: dict[tuple[int, int], tuple[str, str]] = {}

    def place(x: float, y: float) -> tuple[int, int]:
        column = round((x - left) / (right - left) * (columns - 1))
        return round((high - y) / (high - low) * (height - 1)), column

    points = [[(math.log2(x), math.log2(y)) for x, y in zip(line.x, line.y, strict=True)] for line in lines]
    for line, line_points in zip(lines, points, strict=True):
        for x, y in line_points:
            cells.setdefault(place(x, y), (line.mark, line.style))
    for line, line_points in zip(lines, points, strict=True):
        for (x0, y0), (x1, y1) in itertools.pairwise(line_points):
            # Two dots per cell that is crossed, so that none is missed.
            steps = 2 * (1 + math.ceil(max(columns * (x1 - x0) / (right - left), height * abs(y1 - y0) / (high - low))))
            for step in range(1, steps):
                part = step / steps
                cells.setdefault(place(x0 + part * (x1 - x0), y0 + part * (y1 - y0)), (DOT, line.style))
    drawn = [_fit(Text(title, style="bold"), width)]
    for row in range(height):
        text = Text(labels.get(row, "").rjust(margin) + ("┤" if row in labels else "│"))
        for column in range(columns):
            mark, style = cells.get((row, column), (" ", ""))
            text.append(mark, style)
        drawn.append(text)
    drawn.append(Text(" " * margin + "└" + "─" * columns))
    drawn.append(Text(" " * (margin + 1) + _ticks(left, right, columns)))
    return drawn


def _span(low: float, high: float, least: float) -> tuple[float, float]:
    missing = max(0.0, least - (high - low)) / 2
    return low - missing, high + missing


def _ticks(left: float, right: float, columns: int) -> str:
    """Write powers of two where they belong, evenly as many as have room."""
    powers = range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1)
    for stride in range(1, len(powers) + 1):
        line, free = [" "] * columns, 0
        for power in powers[::stride]:
            label = str(2**power) if power >= 0 else f"1/{2**-power}"
            at = round((power - left) / (right - left) * (columns - 1))
            begin = min(max(0, at - len(label) // 2), columns - len(label))
            if begin < free:
                break
            line[begin : begin + len(label)] = label
            free = begin + len(label) + 1
        else:
            return "".join(line)
    return ""


def _fit(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def beside(plots: Sequence[list[Text]], gap: int = 2) -> list[Text]:
    """Put plots of one height beside each other."""
    joined = []
    for row in zip(*plots, strict=True):
        text = Text()
        for number, part in enumerate(row):
            if number:
                text.append(" " * gap)
            text.append_text(part)
        joined.append(text)
    return joined
