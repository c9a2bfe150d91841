"""What all plots of a page share: SVG in the page's colours and fonts, the same bytes for the same figures."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scepsy.documents.units import significant

COLOURS = ("#3b78c3", "#e0802f", "#3a9a5b", "#b0559e", "#c9a227", "#4aa8b0", "#c74f4f", "#7d6bc4")
"""All stand out from white and from near-black."""
INK, FAINT = "#010203", "#040506"
"""Stand for the page's text colour and a fainter one; no plot uses them otherwise."""
WIDE, NARROW = 10.6, 5.2
"""Inches: the width of a section of the page, and of one of two beside each other, so that letters have one size."""
_STYLE: Any = {
    "text.parse_math": False,  # a name is no formula
    "svg.hashsalt": "scepsy",
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "patch.linewidth": 0.0,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
}


def plain(value: float) -> str:
    """Write a tick without an exponent."""
    return significant(value / 1000, 3) + "k" if value >= 10_000 else significant(value, 3) if value > 0 else "0"


@contextmanager
def plot(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure of its own, whatever a user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the measuring font lacks: the page's fonts draw them
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        yield figure, axes


def svg(figure: Figure) -> str:
    """Return the figure as an inline SVG element in the page's colours."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    # Two pictures of one page must not share ids of groups; ids that are referred to are hashes of what they draw.
    text = re.sub(r'<g id="[A-Za-z0-9]+_[a-z0-9_.]+">', "<g>", text)
    text = re.sub(
        r"font: ([^;\"]*?)(?:'[^;\"]*|sans-serif[^;\"]*)", lambda m: f"font: {m[1]}system-ui, sans-serif", text
    )
    return text.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
