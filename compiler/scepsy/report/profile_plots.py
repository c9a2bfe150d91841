"""Plots of a panel of curves as SVG: what is real with filled markers and full lines, estimates hollow and dashed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from scepsy.documents.profile import Point
from scepsy.report.profile_comparison import Curve, Panel
from scepsy.report.svg import COLOURS, INK, NARROW, plain, plot, svg
from scepsy.report.trace_text import brief

_MARKERS = {"measured": "o", "imported": "D", "estimated": "o"}
_DASHES = (0, (4, 2.5))
_HEIGHT = 3.3


def colour(panel: Panel, curve: Curve) -> str:
    """Return the colour of a curve: that of its tensor-parallel degree and share, whatever its source."""
    shapes = list(dict.fromkeys(one.shape for one in panel.curves))
    return COLOURS[shapes.index(curve.shape) % len(COLOURS)]


def latency(panel: Panel) -> str:
    """Plot R(k) over k, with the 95 % intervals."""
    return _over_k(panel, "latency of a call, R(k)", lambda point: point.latency, brief, bars=True)


def throughput(panel: Panel) -> str:
    """Plot k ÷ R(k) over k, with the 95 % intervals."""
    return _over_k(panel, "calls per second, k ÷ R(k)", lambda p: p.concurrency / p.latency, plain, bars=True)


def first_token(panel: Panel) -> str:
    """Plot the time to the first token over k."""
    return _over_k(panel, "time to the first token", lambda point: point.ttft, brief, bars=False)


def _over_k(
    panel: Panel, label: str, value: Callable[[Point], float], written: Callable[[float], str], *, bars: bool
) -> str:
    ends: list[tuple[str, float, float]] = []
    with plot(NARROW, _HEIGHT) as (figure, axes):
        # Estimates first: what is real lies above them.
        for curve in sorted(panel.curves, key=lambda curve: curve.real):
            points = [point for point in curve.series.points if value(point) > 0]
            if not curve.letter or not points:
                continue
            xs, ys = [point.concurrency for point in points], [value(point) for point in points]
            axes.plot(xs, ys, **_look(panel, curve))
            if bars:
                _bars(axes, xs, ys, [point.interval for point in points], colour(panel, curve))
            ends.append((curve.letter, xs[-1], ys[-1]))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        # Between 1 and 10 there is room for two more ticks, and a plot often has not even one power of ten.
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: written(y)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("k, calls running")
        axes.set_ylabel(label)
        axes.grid()
        _letters(axes, ends)
        return svg(figure)


def open_loop(panel: Panel, curve: Curve) -> str:
    """Plot the latency over the rate: the open-loop points with their intervals, and what R(k) predicts."""
    ink = colour(panel, curve)
    with plot(NARROW, _HEIGHT) as (figure, axes):
        for line, style in ((curve.single, ":"), (curve.line, _DASHES)):
            if line:
                rates, seconds = zip(*line, strict=True)
                axes.plot(rates, seconds, color=INK, linewidth=1.2, linestyle=style)
        for stable in (True, False):
            points = [one.point for one in curve.predicted if one.point.stable is stable]
            if points:
                xs, ys = [point.rate for point in points], [point.latency for point in points]
                marker = _MARKERS[curve.source] if stable else "x"
                axes.plot(xs, ys, linestyle="none", marker=marker, markersize=6, color=ink, markeredgewidth=1.6)
                _bars(axes, xs, ys, [point.interval for point in points], ink)
        axes.axvline(curve.capacity, color=INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            "capacity by R(k)",
            (curve.capacity, 1.0),
            xycoords=("data", "axes fraction"),
            va="bottom",
            ha="center",
            annotation_clip=False,
        )
        saturation = curve.series.saturation
        if saturation is not None and saturation.high is not None:
            axes.axvspan(saturation.low, saturation.high, color=ink, alpha=0.18, linewidth=0)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain(x)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: brief(y) if y > 0 else "0"))
        axes.set_xlabel("calls per second that arrive")
        axes.set_ylabel("mean latency of a call")
        axes.grid()
        return svg(figure)


def _look(panel: Panel, curve: Curve) -> dict[str, Any]:
    ink = colour(panel, curve)
    marker = _MARKERS[curve.source]
    if curve.real:
        return {"color": ink, "linewidth": 1.8, "marker": marker, "markersize": 5.5, "markeredgewidth": 0}
    return {
        "color": ink,
        "linewidth": 1.2,
        "linestyle": _DASHES,
        "marker": marker,
        "markersize": 5,
        "markerfacecolor": "none",
        "markeredgewidth": 1.2,
    }


def _bars(axes: Axes, xs: list[Any], ys: list[float], intervals: list[float | None], ink: str) -> None:
    known = [(x, y, i * y) for x, y, i in zip(xs, ys, intervals, strict=True) if i is not None]
    if known:
        x, y, half = zip(*known, strict=True)
        # An interval wider than the mean would end below zero, which a logarithmic axis does not have.
        low = [min(h, 0.95 * v) for h, v in zip(half, y, strict=True)]
        axes.errorbar(x, y, yerr=[low, half], fmt="none", ecolor=ink, elinewidth=1.2, capsize=3, capthick=1.2)


def _letters(axes: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Write the letters at the ends of their curves, moved apart where the ends are close."""
    low, high = (math.log(value) for value in axes.get_ylim())
    # Points of the axis, about: the layout is only made when the figure is drawn.
    scale = 0.8 * _HEIGHT * 72 / max(high - low, 1e-9)
    least = 9.0
    columns: dict[float, list[tuple[float, str, float]]] = {}
    for letter, x, y in ends:
        columns.setdefault(x, []).append((math.log(y) * scale, letter, y))
    for x, column in columns.items():
        taken = -math.inf
        for height, letter, y in sorted(column):
            taken = max(height, taken + least)
            axes.annotate(
                letter,
                (x, y),
                xytext=(7, taken - height),
                textcoords="offset points",
                va="center",
                annotation_clip=False,
            )
