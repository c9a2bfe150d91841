"""Plots of a trace as SVG that takes the page's colours and fonts, and is the same bytes for the same trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from scepsy.report.svg import COLOURS, FAINT, INK, NARROW, WIDE, plain, plot, svg
from scepsy.report.trace_plot_data import calls_of, concurrency, shares_of, spans_edges, typical
from scepsy.report.trace_statistics import Examined
from scepsy.report.trace_text import cut
from scepsy.traces.trace import Floats

OTHER = "#8c8c8c"
LLMS = len(COLOURS)
"""LLMs that are drawn, by their time."""
_LIGHT = 0.42
"""Opacity of the smaller of two kinds."""
_NAME = 26
_BARS = 1_500
"""Calls of an execution that are drawn one by one; of more, how many run."""


def colour(rank: int) -> str:
    """Return the colour of the LLM with the rank-most time."""
    return COLOURS[rank] if rank < LLMS else OTHER


def ranked(examined: Examined) -> list[int]:
    """Return the LLMs by their time, as indices."""
    order = np.argsort(-examined.totals.spent.sum(axis=0), kind="stable")
    return [int(m) for m in order]


def spans(examined: Examined) -> str:
    """Plot the distribution of the length of executions; the smaller of two kinds is paler."""
    span = examined.totals.span
    edges = spans_edges(span, 40)
    clipped = np.clip(span, edges[0], edges[-1])
    with plot(NARROW, 2.5) as (figure, axes):
        # One step patch per histogram: drawing a rectangle per bin takes ten times as long.
        axes.stairs(np.histogram(clipped, edges)[0], edges, fill=True, color=OTHER, alpha=_LIGHT)
        axes.stairs(np.histogram(clipped[_larger(examined)], edges)[0], edges, fill=True, color=OTHER)
        if edges[2] - edges[1] > 1.001 * (edges[1] - edges[0]):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain(x)))
        for quantile, label in ((0.5, "median"), (0.95, "95 %")):
            at = float(np.quantile(span, quantile))
            axes.axvline(at, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f" {label}",
                (at, 1.0),
                xycoords=("data", "axes fraction"),
                va="bottom",
                ha="center",
                annotation_clip=False,
            )
        axes.set_xlabel("length of an execution, seconds")
        _counted(axes, "executions")
        return svg(figure)


def shares(examined: Examined) -> str:
    """Plot the share of every LLM in the LLM time of executions, a row each; the smaller of two kinds is paler."""
    rows = ranked(examined)[:LLMS]
    timed = examined.totals.spent.sum(axis=1) > 0
    larger = _larger(examined)[timed]
    with plot(WIDE, 0.75 + 0.62 * len(rows)) as (figure, axes):
        for rank, m in enumerate(rows):
            values = shares_of(examined.totals, m)
            counts, edges = np.histogram(values, 100, (0.0, 1.0))
            height = 0.8 / max(1, counts.max())
            base = -float(rank)
            for part, opacity in ((counts, _LIGHT), (np.histogram(values[larger], edges)[0], 1.0)):
                axes.stairs(base + part * height, edges, baseline=base, fill=True, color=colour(rank), alpha=opacity)
            axes.plot([0, 1], [base, base], color=FAINT, linewidth=0.6, zorder=0)
            mean = float(values.mean()) if len(values) else 0.0
            axes.plot([mean, mean], [base, base + 0.86], color=INK, linewidth=1.2)
        axes.set_yticks([-rank + 0.3 for rank in range(len(rows))], [""] * len(rows))
        _rows(axes, [-rank + 0.3 for rank in range(len(rows))], [cut(examined.trace.llms[m], _NAME) for m in rows])
        axes.set_ylim(-len(rows) + 0.92, 1.0)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of the LLM time of an execution (line: mean)")
        axes.grid(axis="x")
        return svg(figure)


def _larger(examined: Examined) -> npt.NDArray[np.bool_]:
    """Return which executions are of the larger kind; all of them where there is one."""
    kinds = examined.stability.kinds
    return np.array(kinds[0].members) if kinds else np.ones(len(examined.trace.executions), dtype=bool)


def calls(examined: Examined) -> str:
    """Plot the number of calls per execution, as a distribution function per LLM."""
    return _functions(
        examined,
        lambda m: examined.totals.calls[:, m],
        "calls per execution, at most",
        "of executions",
    )


def tokens(examined: Examined, columns: Floats, label: str) -> str:
    """Plot tokens per call, as a distribution function per LLM.

    Args:
        examined: the trace.
        columns: (N,) tokens of each call.
        label: what they are.
    """
    trace = examined.trace
    return _functions(examined, lambda m: columns[trace.llm == m], label, "of calls")


def timeline(examined: Examined) -> str:
    """Plot the execution of median length: each call in its LLM's lanes, or how many run where there are many."""
    trace = examined.trace
    execution = typical(examined.totals.span)
    span = calls_of(trace, execution)
    length = float(examined.totals.span[execution])
    rows = [m for m in ranked(examined)[:LLMS] if (trace.llm[span] == m).any()]
    ranks = {m: rank for rank, m in enumerate(ranked(examined))}
    heights: list[float] = []
    with plot(WIDE, 0.7 + 0.62 * max(1, len(rows))) as (figure, axes):
        top = 0.0
        for m in rows:
            mine = trace.llm[span] == m
            start, end = (
                trace.start[span][mine] - trace.began[execution],
                trace.end[span][mine] - trace.began[execution],
            )
            if span.stop - span.start <= _BARS:
                lane = _lanes(start, end)
                thick = 0.8 / (int(lane.max()) + 1)
                width = np.maximum(end - start, length / 600)  # a call without length is still seen
                axes.barh(
                    top - (lane + 0.5) * thick,
                    width,
                    thick * (0.86 if thick > 0.05 else 1.0),
                    start,
                    color=colour(ranks[m]),
                )
            else:
                running = concurrency(trace, execution, m, 400)
                edges = np.linspace(0.0, length, 401)
                axes.stairs(
                    top - 0.8 + 0.8 * running / max(float(running.max()), 1e-9),
                    edges,
                    baseline=top - 0.8,
                    fill=True,
                    color=colour(ranks[m]),
                )
            heights.append(top - 0.4)
            top -= 1.0
        _rows(axes, heights, [cut(trace.llms[m], _NAME) for m in rows])
        axes.set_yticks(heights, [""] * len(heights))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(top + 0.1, 0.08)
        axes.set_xlim(0, length if length > 0 else 1)
        axes.set_xlabel("seconds since the execution began")
        axes.grid(axis="x")
        return svg(figure)


def arrivals(examined: Examined) -> str:
    """Plot how many executions have begun, over time."""
    began = np.sort(examined.totals.began)
    seconds = began - began[0]
    unit, scale = next(
        (u, s)
        for u, s in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
        if seconds[-1] >= 3 * s or s == 1
    )
    # More steps than pixels look the same.
    number = np.unique(np.linspace(0, len(began) - 1, 1200).astype(np.int64))
    with plot(WIDE, 2.5) as (figure, axes):
        axes.step(seconds[number] / scale, number + 1.0, where="post", color=COLOURS[0], linewidth=1.6)
        axes.plot([0, seconds[-1] / scale], [1, len(began)], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_xlim(0, seconds[-1] / scale)
        axes.set_xlabel(f"{unit} since the first execution began (dashed: the mean rate)")
        _counted(axes, "executions begun")
        return svg(figure)


def _functions(examined: Examined, values_of: Callable[[int], Floats], label: str, of: str) -> str:
    """Plot an empirical distribution function per LLM; logarithmic where values differ much.

    What lies below another function is wider, so that equal ones are all seen.
    """
    with plot(NARROW, 2.5) as (figure, axes):
        most, least = 0.0, np.inf
        for rank, m in reversed(list(enumerate(ranked(examined)[:LLMS]))):
            values = np.sort(values_of(m))
            if not len(values):
                continue
            steps = np.unique(np.linspace(0, len(values) - 1, 800).astype(np.int64))
            x = np.concatenate([[values[0]], values[steps]])
            y = np.concatenate([[0.0], (steps + 1) / len(values)])
            axes.step(x, y, where="post", color=colour(rank), linewidth=1.6 + 0.6 * rank)
            most, least = max(most, float(values[-1])), min(least, float(np.quantile(values, 0.1)))
        if most > 100 * max(least, 1.0):
            axes.set_xscale("symlog", linthresh=1.0) if least < 1 else axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axes.set_xlim(0, max(1.0, 1.04 * most))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain(x)))
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
        axes.set_xlabel(label)
        axes.set_ylabel(of)
        axes.grid()
        return svg(figure)


def _lanes(start: Floats, end: Floats) -> np.ndarray:
    """Put calls, by their start, into the first lane that is free."""
    free: list[float] = []
    lanes = np.empty(len(start), dtype=np.int64)
    for i, (s, e) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        lane = next((number for number, until in enumerate(free) if until <= s), len(free))
        if lane == len(free):
            free.append(e)
        free[lane] = e
        lanes[i] = lane
    return lanes


def _rows(axes: Axes, heights: Sequence[float], names: Sequence[str]) -> None:
    """Name rows at the left; names are no formulas."""
    for height, name in zip(heights, names, strict=True):
        axes.text(-0.012, height, name, transform=axes.get_yaxis_transform(), ha="right", va="center")


def _counted(axes: Axes, label: str) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    axes.grid(axis="y")
