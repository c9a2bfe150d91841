"""The statistics of a trace in a terminal: tables, one typical execution, and how executions differ.

Everything fits into 100 columns, and reads the same without colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.cells import set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scepsy.documents.diagnostics import printable
from scepsy.documents.trace_statistics import ArrivalStatistics, Estimate, LlmStatistics, TraceStatistics
from scepsy.documents.units import significant
from scepsy.report import trace_text as words
from scepsy.report.trace_plot_data import binned, concurrency, shares_of, spans_binned, typical
from scepsy.report.trace_statistics import Examined

WIDTH = 100
"""Columns."""
_LLMS = 12
"""LLMs that get a line of their own, by their time; the rest is counted."""
_REASONS = 8
"""Reasons of failed calls that are listed."""
_NAME = 24
_PICTURE = 56
_COLOURS = ("blue", "dark_orange", "green", "magenta", "cyan", "red", "yellow", "bright_blue")
_BLOCKS = " ▁▂▃▄▅▆▇█"


def show_trace(console: Console, examined: Examined) -> None:
    """Print the statistics of a trace."""
    statistics = examined.statistics
    _head(console, statistics)
    shown = _by_time(statistics.llms)
    console.print(_calls_table(shown))
    console.print(_time_table(shown, statistics))
    if len(statistics.llms) > len(shown):
        console.print(f"… and {len(statistics.llms) - len(shown)} more LLMs with less time (--output json has them)\n")
    _typical(console, examined, shown)
    _spread(console, examined, shown)
    _arrivals(console, statistics)
    _verdict(console, statistics)


def _head(console: Console, statistics: TraceStatistics) -> None:
    failed = sum(reason.calls for reason in statistics.failed)
    console.print(
        f"[bold]{escape(printable(statistics.trace))}[/bold]: {_many(statistics.executions, 'execution')}, "
        f"{_many(statistics.calls, 'call')} of {_many(len(statistics.llms), 'LLM')}"
        + (f"; {_many(failed, 'more call')} failed and are left out" if failed else "")
    )
    by_count = sorted(statistics.failed, key=lambda reason: -reason.calls)
    for reason in by_count[:_REASONS]:
        console.print(f"  failed: {reason.calls:,} by {escape(words.cut(reason.what, 70))}")
    if len(by_count) > _REASONS:
        rest = sum(reason.calls for reason in by_count[_REASONS:])
        console.print(f"  failed: {rest:,} for {len(by_count) - _REASONS} other reasons")
    for field in statistics.estimated:
        console.print(f"  estimated, not recorded: {field.what} of {_many(field.calls, 'call')}")
    if statistics.unknown_parents:
        verb = "names" if statistics.unknown_parents == 1 else "name"
        console.print(f"  {_many(statistics.unknown_parents, 'call')} {verb} a parent that is not in the trace")
    if statistics.unended_parents:
        verb = "names" if statistics.unended_parents == 1 else "name"
        calls = _many(statistics.unended_parents, "call")
        console.print(f"  {calls} {verb} a parent that had not ended when they began: for these the times decide")
    if statistics.executions == 1:
        console.print("  one execution: there are no intervals, and how executions differ is unknown")
    console.print()


def _by_time(llms: Sequence[LlmStatistics]) -> list[LlmStatistics]:
    return sorted(llms, key=lambda llm: (-(llm.share.mean if llm.share else 0.0), llm.llm))[:_LLMS]


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
    return table


def _calls_table(llms: Sequence[LlmStatistics]) -> Table:
    """Means, each with its interval below it."""
    table = _table(
        "LLM",
        "calls per\nexecution",
        "start\ntogether",
        "parallel",
        "input\ntokens",
        "of them\ncached",
        "output\ntokens",
    )
    for number, llm in enumerate(llms):
        columns = (
            llm.calls,
            llm.group_size,
            llm.parallelism,
            llm.input_tokens,
            llm.cached_tokens,
            llm.output_tokens,
        )
        table.add_row(_named(llm.llm, number), *(_mean(estimate) for estimate in columns))
        if any(estimate and estimate.low is not None for estimate in columns):
            table.add_row("", *(f"[dim]{words.interval(estimate)}[/dim]" for estimate in columns))
    return table


def _time_table(llms: Sequence[LlmStatistics], statistics: TraceStatistics) -> Table:
    table = _table("seconds", "mean", "95 %", "median", "p95", "of LLM time", "95 %")
    if statistics.span:
        span = statistics.span
        table.add_row(
            "an execution", _mean(span.mean), words.interval(span.mean), words.number(span.p50), words.number(span.p95)
        )
    if statistics.outside:
        table.add_row("  outside LLMs", _mean(statistics.outside), words.interval(statistics.outside))
    for number, llm in enumerate(llms):
        share = llm.share
        table.add_row(
            f"call of {_named(llm.llm, number)}",
            _mean(llm.seconds),
            words.interval(llm.seconds),
            "",
            "",
            words.percent(share.mean) if share else "",
            words.interval(share, words.percent),
        )
    return table


def _typical(console: Console, examined: Examined, llms: Sequence[LlmStatistics]) -> None:
    """Draw the execution of median length: calls running, per LLM over time."""
    trace = examined.trace
    execution = typical(examined.totals.span)
    length = float(examined.totals.span[execution])
    if not length > 0:
        return
    console.print(
        f"[bold]A typical execution[/bold] (median length): {escape(words.cut(trace.executions[execution], 50))}"
    )
    for number, llm in enumerate(llms):
        running = concurrency(trace, execution, trace.llms.index(llm.llm), _PICTURE)
        most = float(running.max())
        if most > 0:
            line = "".join(_block(value / most) for value in running)
            height = significant(max(most, 0.01), 2)
            console.print(f"  {_named(llm.llm, number, _NAME)} [{_colour(number)}]{line}[/] up to {height}")
    console.print(f"  {'':{_NAME}} {_axis('0 s', f'{significant(length, 3)} s', _PICTURE)}")
    console.print(f"  {'':{_NAME}} [dim]height: mean number of calls that run, per 1/{_PICTURE} of the time[/dim]\n")


def _spread(console: Console, examined: Examined, llms: Sequence[LlmStatistics]) -> None:
    """Draw how executions differ: their length, and the share of every LLM."""
    statistics = examined.statistics
    if statistics.executions < 2:
        return
    console.print("[bold]How executions differ[/bold]")
    edges, counts = spans_binned(examined.totals.span, _PICTURE)
    low, high = f"{significant(edges[0], 3)} s", f"{significant(edges[-1], 3)} s"
    scale = ", logarithmic" if len(edges) > 2 and edges[2] - edges[1] > 1.001 * (edges[1] - edges[0]) else ""
    console.print(f"  {'length':{_NAME}} {_bars(counts)}")
    console.print(f"  {'':{_NAME}} {_axis(low, high, _PICTURE)}[dim]{scale}[/dim]")
    if len(statistics.llms) > 1:
        for number, llm in enumerate(llms):
            shares = shares_of(examined.totals, examined.trace.llms.index(llm.llm))
            if len(shares):
                about = llm.spread
                text = f"{words.percent(about.p10)} – {words.percent(about.p90)}" if about else ""
                mark = " [bold red]![/]" if about and about.unstable else ""
                bars = f"[{_colour(number)}]{_bars(binned(shares, _PICTURE))}[/]"
                console.print(f"  {_named(llm.llm, number, _NAME)} {bars} {text}{mark}")
        console.print(f"  {'':{_NAME}} {_axis('0 %', '100 %', _PICTURE)}")
        console.print(f"  {'':{_NAME}} [dim]share of the LLM time of an execution; right: 10th – 90th percentile[/dim]")
    console.print()


def _arrivals(console: Console, statistics: TraceStatistics) -> None:
    arrivals = statistics.arrivals
    if arrivals is None:
        console.print(f"[bold]Arrivals[/bold]: unknown: {escape(statistics.arrivals_unknown)}", soft_wrap=True)
        return
    console.print(
        f"[bold]Arrivals[/bold]: {words.rate(arrivals.rate)} "
        f"({words.rate(arrivals.low, arrivals.rate)} – {words.rate(arrivals.high, arrivals.rate)}), "
        f"index of dispersion {significant(arrivals.dispersion, 2)} in windows of {words.long(arrivals.window)}: "
        f"{_bursts(arrivals)}",
        soft_wrap=True,
    )
    if arrivals.pauses and arrivals.rate_without_pauses is not None:
        console.print(
            f"  {_many(arrivals.pauses, 'pause')} of together {words.long(arrivals.pause_seconds)} in it; "
            f"without, {words.rate(arrivals.rate_without_pauses)}"
        )


def _verdict(console: Console, statistics: TraceStatistics) -> None:
    if statistics.stable is None or statistics.warnings:
        console.print(f"[bold yellow]Warnings ({len(statistics.warnings)})[/]:")
        for warning in statistics.warnings:
            console.print(f"  - {escape(printable(warning))}", soft_wrap=True)
    else:
        console.print(
            "[bold green]Stable[/]: shares of LLM time vary within what chance in calls and loops explains, "
            "no heavy tail, one kind of execution",
            soft_wrap=True,
        )


def _bursts(arrivals: ArrivalStatistics) -> str:
    if arrivals.dispersion > 2:
        return "bursts"
    return "regular" if arrivals.dispersion < 0.5 else "as good as random (Poisson is 1)"


def _mean(estimate: Estimate | None) -> str:
    return words.number(estimate.mean) if estimate else "–"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _named(name: str, number: int, width: int = 0) -> str:
    text = words.cut(name, _NAME)
    return f"[{_colour(number)}]{escape(set_cell_size(text, width) if width else text)}[/]"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _block(part: float) -> str:
    """Return a block of that height, 0 … 1; anything above nothing is seen."""
    return _BLOCKS[max(1, round(part * 8))] if part > 1e-9 else _BLOCKS[0]


def _bars(counts: Sequence[int] | np.ndarray) -> str:
    most = max(1, int(max(counts)))
    return "".join(_block(int(count) / most) for count in counts)


def _axis(low: str, high: str, width: int) -> str:
    return f"{low}{high.rjust(width - len(low))}"
