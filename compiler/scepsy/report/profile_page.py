"""What is known of a model's speed as one HTML file: no scripts, nothing from elsewhere, light and dark."""

from __future__ import annotations

import importlib.resources
from statistics import median
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from scepsy.report import profile_plots as plots
from scepsy.report import trace_text as words
from scepsy.report.profile_comparison import Known, Panel
from scepsy.report.trace_page import STYLE

TEMPLATE = "profile.html.j2"
_PANELS = 24
"""Panels whose curves are drawn; a profile may hold any number of mixes."""


def page(known: Known) -> str:
    """Return the page.

    Every text is escaped by the template, and by the SVG writer: profiles come from strangers.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": words.number,
        "percent": words.percent,
        "brief": words.brief,
        "plain": lambda text: words.cut(text, 160),
        "whole": lambda text: words.cut(text, 4000),
        "signed": lambda part: f"{part:+.1%}",
        "median": lambda parts: f"{median(map(abs, parts)):.1%}",
    }
    shipped = importlib.resources.files("scepsy.templates")
    source = shipped.joinpath(TEMPLATE).read_text(encoding="utf-8")
    text = environment.from_string(
        source
    ).render(
        style=Markup(shipped.joinpath(STYLE).read_text(encoding="utf-8")),  # noqa: S704 - ours
        known=known,
        sources=[s for s in ("measured", "imported", "estimated") if any(p.spec.source == s for p in known.profiles)],
        panels=[(panel, _drawn(panel)) for panel in known.panels[:_PANELS]],
    )
    # A lone surrogate in a name is no UTF-8; it becomes a question mark.
    return text.encode("utf-8", "replace").decode()


def _drawn(panel: Panel) -> dict[str, Any]:
    """Return the SVG of a panel's plots, and the colours of its curves."""
    # matplotlib escapes texts in SVG; none of them comes from a profile.
    return {
        "latency": Markup(plots.latency(panel)),  # noqa: S704
        "throughput": Markup(plots.throughput(panel)),  # noqa: S704
        "first_token": Markup(plots.first_token(panel)),  # noqa: S704
        "open_loop": [
            Markup(plots.open_loop(panel, curve)) if curve.predicted else None  # noqa: S704
            for curve in panel.curves
        ],
        "colours": [plots.colour(panel, curve) for curve in panel.curves],
    }
