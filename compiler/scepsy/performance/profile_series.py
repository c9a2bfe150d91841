"""One series of a profile, read: the times at its points, carried over to other calls, shares and bandwidth caps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scepsy.documents import Profile, Series
from scepsy.documents.profile import FURTHER
from scepsy.documents.workflow import MOST_RUNNING
from scepsy.performance import curves
from scepsy.performance.curves import Array
from scepsy.performance.mix import Mix
from scepsy.performance.roofline import KnownTimes, Roofline

_LEAST_PREFILL = 1e-6
"""Seconds that any call takes before its first token."""


@dataclass(frozen=True)
class ProfileSeries:
    """One series, read; its `mix` and `known` times, and the 95 % `interval` of each point ÷ R."""

    profile: Profile
    series: Series
    mix: Mix
    tenths: int
    known: KnownTimes
    interval: Array

    @property
    def name(self) -> str:
        """Name of the profile."""
        return self.profile.metadata.name

    @property
    def estimated(self) -> bool:
        """Whether the profile is estimated."""
        return self.profile.spec.source == "estimated"

    @property
    def ks(self) -> Array:
        """(P,) k at the points, rising."""
        return self.known.k

    @property
    def last(self) -> int:
        """The last k of interest: that of the last point, or the most calls that an LLM may run at once."""
        return min(self.series.points[-1].concurrency, MOST_RUNNING)

    def serves(self, mix: Mix) -> bool:
        """Return whether it predicts such calls: generated tokens need a decode time or a known GPU product."""
        return mix.output < FURTHER or self.known.decodes or self.known.roofline.known

    def at(self, mix: Mix, tenths: int, cap: float = 1.0) -> Array:
        """Return R at the points for some calls on some share, capped to a part of the bandwidth."""
        prefill, decode = self.known.at(mix, tenths / 10, cap)
        return np.maximum(prefill + decode * max(0.0, mix.output - 1), 1e-6)

    def slower(self, mix: Mix, tenths: int, cap: float, last: int) -> Array:
        """Return the factors by which R(k), k = 1 … last, rises on a share with capped bandwidth."""
        factor = self.at(mix, tenths, cap) / self.at(mix, tenths)
        return np.asarray(np.interp(np.arange(1.0, last + 1), self.ks, factor))

    def drawn(self, mix: Mix, most: float, seconds: Array) -> Array:
        """Return the part of the bandwidth that is read while 1, 2, … calls run that take `seconds`; at most `most`."""
        roofline = self.known.roofline
        if not roofline.known:
            return np.full(len(seconds), most)
        return np.minimum(roofline.read(mix, np.arange(1.0, len(seconds) + 1)) / seconds, most)


def read_series(profile: Profile, series: Series) -> ProfileSeries:
    """Read a series.

    The time before the first token is the latency less the decode time, so that the sum gives the profiled R(k) for the
    mix of the series. If no time per further token is given, it follows from the latency less the time to first token.
    """
    spec = profile.spec
    estimated = spec.source == "estimated"
    latency = np.array([p.latency for p in series.points])
    mix = Mix(series.mix.input, series.mix.output, series.mix.cached)
    further = max(0.0, mix.output - 1)
    left = [(p.latency - p.ttft) / further if mix.output >= FURTHER else 0.0 for p in series.points]
    decode = np.array([rest if p.tpot is None else p.tpot for p, rest in zip(series.points, left, strict=True)])
    if further:  # at most all of the latency: a point with few calls may contradict itself
        decode = np.clip(decode, 0.0, np.maximum(0.0, latency - _LEAST_PREFILL) / further)
    known = KnownTimes(
        prefill=latency - decode * further,
        decode=decode,
        k=np.array([p.concurrency for p in series.points], dtype=float),
        roofline=Roofline(spec.architecture, spec.product, series.tp),
        mix=mix,
        share=round(series.share * 10) / 10,
    )
    interval = np.array([curves.half_width(p.interval, estimated=estimated) for p in series.points])
    return ProfileSeries(profile, series, mix, round(series.share * 10), known, interval)
