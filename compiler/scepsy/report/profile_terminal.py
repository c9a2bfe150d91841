"""What is known of a model's speed in a terminal: curves, tables, and how far estimates are off.

Everything reads the same without colours: capital letters are from a real server, small letters are estimates, and the
tables say it in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scepsy.documents.profile import Series
from scepsy.report import trace_text as words
from scepsy.report.profile_comparison import LETTERS, Compared, Curve, Known, Panel
from scepsy.report.text_plot import Line, beside, text_plot

LEAST, MOST = 72, 200
"""Columns."""
_PANELS = 3
"""Panels whose curves are drawn; of the others there are tables."""
_TABLES = 12
"""Panels with tables."""
_PLOT = 38
"""Least columns of a plot."""
_HEIGHT = 13
_COLOURS = ("blue", "dark_orange", "green", "magenta", "cyan", "red", "yellow", "bright_blue")


def show_profiles(console: Console, known: Known, hint: str = "") -> None:
    """Print what is known of a model.

    Args:
        console: where to; at least `LEAST` columns wide.
        known: the figures.
        hint: how to see what is left out.
    """
    sources = [profile.spec.source for profile in known.profiles]
    counts = ", ".join(f"{sources.count(s)} {s}" for s in ("measured", "imported", "estimated") if s in sources)
    console.print(f"[bold]{escape(known.model)}[/bold]: {_many(len(sources), 'profile')} ({counts})")
    console.print(
        "Capital letters: from a real server, measured or imported. Small letters: estimated, not measured.\n",
    )
    for number, panel in enumerate(known.panels[:_TABLES]):
        _panel(console, panel, drawn=number < _PANELS)
    if len(known.panels) > _TABLES:
        console.print(f"… and {_many(len(known.panels) - _TABLES, 'more kind')} of calls or products{hint}\n")
    elif len(known.panels) > _PANELS:
        console.print(f"Curves of the first {_PANELS} kinds of calls are drawn{hint}\n")
    for profile, shape in known.unusable:
        place = f"{profile.spec.product} TP {shape.tp}, share {shape.share:g}"
        console.print(
            f"Does not run: {escape(place)}: {escape(words.cut(shape.reason, 120))}",
        )
    console.print(_profile_table(known))
    for name, reason in known.outdated.items():
        console.print(f"  {escape(name)}: {escape(reason)}")


def _panel(console: Console, panel: Panel, *, drawn: bool) -> None:
    tokens = f"{_tokens(panel.input)} prompt and {_tokens(panel.output)} generated tokens"
    console.print(f"[bold]{escape(panel.product)}, about {tokens}[/bold]")
    if drawn:
        _plots(console, panel)
    console.print(_series_table(panel))
    for curve in panel.curves:
        if curve.series.mix.cached >= 0.5 and curve.letter:
            cached = f"{_tokens(curve.series.mix.cached)} of the prompt tokens were cached"
            console.print(f"  {curve.letter}: {cached}")
    if any(curve.series.neighbours for curve in panel.curves):
        console.print("  busy: measured while another program used the GPU's memory bandwidth\n")
    if any(curve.open_ended for curve in panel.curves):
        console.print("  +: throughput still rose at the last k\n")
    for curve in panel.curves:
        if curve.compared is not None:
            _error_table(console, curve, curve.compared)
        if curve.predicted:
            _open_table(console, curve)
    if not panel.real:
        console.print("  Nothing here was measured.\n")


def _plots(console: Console, panel: Panel) -> None:
    # Of a curve that is from a real server, points hide those of estimates.
    curves = [curve for curve in panel.curves if curve.letter]
    pictures: list[tuple[str, Callable[[Series], list[float]], Callable[[float], str]]] = [
        ("latency of a call R(k), over k", lambda s: [p.latency for p in s.points], _seconds),
        ("calls/s = k/R(k), over k", lambda s: [p.concurrency / p.latency for p in s.points], words.number),
        ("first token, over k", lambda s: [p.ttft for p in s.points], _seconds),
    ]
    across = max(1, min(len(pictures), (console.width + 2) // (_PLOT + 2)))
    width = min((console.width - 2 * (across - 1)) // across, 76)
    drawn = []
    for title, values, written in pictures:
        lines = [
            Line(curve.letter, _colour(panel, curve), [p.concurrency for p in curve.series.points], ys)
            for curve in curves
            if min(ys := values(curve.series)) > 0
        ]
        if lines:
            drawn.append(text_plot(title, lines, width, _HEIGHT, written))
    for first in range(0, len(drawn), across):
        for text in beside(drawn[first : first + across]):
            text.rstrip()
            console.print(text, no_wrap=True, overflow="crop")
        console.print()


def _series_table(panel: Panel) -> Table:
    table = _table("", "source", "TP", "share", "tokens", "alone", "most calls/s", "saturated", "±95 %", left=2)
    for curve in panel.curves:
        series = curve.series
        saturation = series.saturation
        measured = "–"
        if saturation is not None:
            measured = _number(saturation.low) + (f"–{_number(saturation.high)}" if saturation.high else " or more")
        first = series.points[0]
        alone = _seconds(first.latency) + (f" (k={first.concurrency})" if first.concurrency > 1 else "")
        mix = series.mix
        tokens = f"{_tokens(mix.input)}/{_tokens(mix.output)}"
        more = "+" if curve.open_ended else ""
        table.add_row(
            Text(curve.letter or DASH, style=_colour(panel, curve)),
            curve.source + (", stale" if curve.stale and curve.real else ""),
            str(series.tp),
            f"{series.share:g}" + (" busy" if series.neighbours else ""),
            tokens,
            alone,
            f"{_number(curve.capacity)}{more} at {curve.best.concurrency}",
            measured,
            "–" if curve.widest is None else words.percent(curve.widest),
        )
    return table


DASH = "·"


def _error_table(console: Console, curve: Curve, compared: Compared) -> None:
    errors = [point.error for point in compared.points]
    made = f"{_tokens(compared.tokens[0])}/{_tokens(compared.tokens[1])} tokens"
    how = [f"made for {made}, extrapolated to these"] if compared.rescaled else []
    how += ["extrapolated to the share by a model"] if compared.share_model else []
    console.print(
        f"  [bold]Estimate at the points of {curve.letter or 'it'}[/bold] ({escape(compared.profile)}"
        f"{''.join(', ' + text for text in how)}): off by {median(map(abs, errors)):.1%} in the median, "
        f"{min(errors):+.1%} to {max(errors):+.1%}",
    )
    shown = _spread(compared.points, (console.width - 14) // 9)
    table = _table("k", *(str(point.concurrency) for point in shown), left=1)
    table.add_row(f"{curve.source}", *(_seconds(point.latency) for point in shown))
    if any(point.interval is not None for point in shown):
        table.add_row("  ±95 %", *(_interval(point.interval) for point in shown))
    table.add_row("estimated", *(_seconds(point.estimate) for point in shown))
    table.add_row("  error", *(f"{point.error:+.0%}" for point in shown))
    console.print(table)


def _open_table(console: Console, curve: Curve) -> None:
    capacity = f"{_number(curve.capacity)}/s"
    calls = "the recorded groups of calls" if curve.grouped else "single calls"
    console.print(
        f"  [bold]Open loop of {curve.letter or 'it'}[/bold]: {curve.source} rates, against {calls} as R(k) predicts "
        f"them (capacity {capacity})" + ("; calls that start in groups take longer" if not curve.grouped else ""),
    )
    shown = _spread(curve.predicted, (console.width - 14) // 9)
    table = _table("calls/s", *(_number(one.point.rate) for one in shown), left=1)
    table.add_row("sustained", *("yes" if one.point.stable else "no" for one in shown))
    table.add_row(curve.source, *(_seconds(one.point.latency) for one in shown))
    if any(one.point.interval is not None for one in shown):
        table.add_row("  ±95 %", *(_interval(one.point.interval) for one in shown))
    table.add_row("predicted", *("no limit" if one.latency is None else _seconds(one.latency) for one in shown))
    table.add_row("  error", *("" if one.error is None else f"{one.error:+.0%}" for one in shown))
    console.print(table)


def _profile_table(known: Known) -> Table:
    table = _table("profile", "source", "vLLM", "date", "", left=5)
    for profile in known.profiles:
        spec = profile.spec
        stale = profile.metadata.name in known.outdated
        table.add_row(
            escape(profile.metadata.name),
            spec.source,
            spec.engine.version,
            escape(words.cut(spec.provenance.date or "–", 10)),
            "" if not stale else "other engine" if spec.source == "estimated" else "stale",
        )
    return table


def _table(*columns: str, left: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=number > 0, overflow="fold")
    return table


def _spread(items: Sequence, most: int) -> list:  # type: ignore[type-arg]
    """Return at most so many, evenly, with both ends."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _colour(panel: Panel, curve: Curve) -> str:
    """Return the colour of a curve's shape."""
    shapes = list(dict.fromkeys(one.shape for one in panel.curves))
    return _COLOURS[shapes.index(curve.shape) % len(_COLOURS)]


def _interval(interval: float | None) -> str:
    return "–" if interval is None else f"±{words.percent(interval)}"


def _seconds(seconds: float) -> str:
    return words.brief(seconds).replace(" ", "")


def _number(value: float) -> str:
    return words.number(value)


def _tokens(number: float) -> str:
    return words.number(round(number) if number >= 10 else number)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


__all__ = ["LEAST", "LETTERS", "MOST", "show_profiles"]
