"""The statistics of a trace as one HTML file: no scripts, no external resources, light and dark."""

from __future__ import annotations

import importlib.resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from scepsy.report import trace_plots as plots
from scepsy.report import trace_text as words
from scepsy.report.trace_plot_data import typical
from scepsy.report.trace_statistics import Examined

TEMPLATE = "trace.html.j2"
STYLE = "page.css.j2"
"""The style of all pages."""
_LISTED = 200
"""LLMs, and reasons of failed calls, that are listed."""


def page(examined: Examined) -> str:
    """Return the page.

    Every text is escaped by the template, and by the SVG writer: names of LLMs and executions are untrusted.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": words.number,
        "interval": words.interval,
        "percent": words.percent,
        "rate": words.rate,
        "long": words.long,
        "plain": lambda text: words.cut(text, 120),
    }
    shipped = importlib.resources.files("scepsy.templates")
    source = shipped.joinpath(TEMPLATE).read_text(encoding="utf-8")
    style = Markup(shipped.joinpath(STYLE).read_text(encoding="utf-8"))  # noqa: S704 - ours
    statistics = examined.statistics
    rank = {examined.trace.llms[m]: place for place, m in enumerate(plots.ranked(examined))}
    llms = sorted(statistics.llms, key=lambda llm: rank[llm.llm])
    execution = typical(examined.totals.span)
    text = environment.from_string(source).render(
        style=style,
        statistics=statistics,
        failed=sum(reason.calls for reason in statistics.failed),
        llms=llms[:_LISTED],
        colours=[plots.colour(place) for place in range(len(llms))],
        drawn=plots.LLMS,
        reasons=sorted(statistics.failed, key=lambda reason: -reason.calls)[:_LISTED],
        execution=examined.trace.executions[execution],
        length=float(examined.totals.span[execution]),
        plots=_plots(examined),
    )
    # A lone surrogate in a name is no UTF-8; it becomes a question mark.
    return text.encode("utf-8", "replace").decode()


def _plots(examined: Examined) -> dict[str, Markup]:
    """Return the SVG of every plot that says something about this trace."""
    several = examined.statistics.executions > 1
    drawn = {"timeline": plots.timeline(examined)}
    if several:
        drawn |= {"spans": plots.spans(examined), "calls": plots.calls(examined)}
    if several and len(examined.trace.llms) > 1:
        drawn["shares"] = plots.shares(examined)
    drawn["input"] = plots.tokens(examined, examined.trace.input, "prompt tokens per call, at most")
    drawn["output"] = plots.tokens(examined, examined.trace.output, "generated tokens per call, at most")
    if examined.statistics.arrivals is not None:
        drawn["arrivals"] = plots.arrivals(examined)
    # matplotlib escapes texts in SVG.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704
