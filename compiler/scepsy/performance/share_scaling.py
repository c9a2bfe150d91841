"""Service times at a share of a GPU that was not profiled (section 2.6 of the model).

Under NVIDIA MPS an instance with the share φ may use φ of the streaming multiprocessors (SMs). The cost of that is
measured, or follows from the roofline of `roofline.py`: prefill is bound by arithmetic and slows by a little less than
1/φ; a decode step is bound by memory bandwidth, most of which a third of the SMs draws, until so many calls run that
arithmetic binds it too; launches, the host and all-reduces do not slow. The constants of the roofline are published
values of kernels, not a measurement of any model on a share, so service times that come from it are marked with its
name, which says `uncalibrated`.

If a model was measured at other shares, those measurements are used: between two shares, the ratio of what was measured
to what the roofline extrapolates from the larger share is interpolated over log φ. A smaller share is never faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scepsy.performance import curves
from scepsy.performance.curves import Array
from scepsy.performance.series_selection import Candidate

SHARE_MODEL = "sm-roofline-uncalibrated"
"""Name of the model that extrapolates from a profiled share."""
INTERPOLATED = "interpolated between"
"""How the text that takes its place begins if shares on both sides were profiled."""


def seconds_at_share(chosen: Sequence[Candidate], tenths: int) -> tuple[Array, str | None]:
    """Return R at the points of the first series for a share, and how it was scaled to it; None if it was profiled."""
    first = chosen[0]
    series, mix = first.series, first.mix
    seconds = series.at(mix, tenths)
    if series.tenths == tenths:
        return seconds, None
    kind = "estimated" if series.estimated else series.profile.spec.source
    if len(chosen) == 1:
        origin = "" if series.tenths == 10 else f", from the {kind} share {series.tenths / 10:g}"
        return seconds, SHARE_MODEL + origin
    second = chosen[1]
    low, high = second.series.tenths, series.tenths
    there = curves.pooled(second.series.at(second.mix, low), second.series.interval).values
    found = np.exp(np.interp(series.ks, second.series.ks, np.log(there)))
    known = series.ks <= second.series.ks[-1]
    expected = curves.pooled(series.at(mix, low), series.interval).values
    ratio = found / expected
    ratio[~known] = ratio[known][-1] if known.any() else 1.0
    # No share is faster than the larger share, nor than any share between them.
    here = series.at(mix, high)
    for t in range(high - 1, tenths - 1, -1):
        weight = math.log(high / t) / math.log(high / low)
        here = np.maximum(here, series.at(mix, t) * ratio**weight)
    here[known] = np.minimum(here[known], np.maximum(found[known], series.at(mix, high)[known]))
    return here, f"{INTERPOLATED} {kind} shares {low / 10:g} and {high / 10:g}"
