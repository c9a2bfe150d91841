"""All that is known of how fast one model runs, side by side: measured and imported curves, and estimated ones.

Curves of like calls on one product make a panel. In it every curve has a letter: a capital for what was taken from a
real server, a small one for an estimate, the same letter where both are of the same shape.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.documents import Profile, Series
from scepsy.documents.profile import Point, RatePoint, Unusable
from scepsy.performance import Catalog, Mix, ServiceTimes, Stream, latencies, rounds
from scepsy.performance.curves import Array
from scepsy.performance.freshness import outdated
from scepsy.performance.mix import mix_factor

SAME_PANEL = 1.25
"""Curves whose mean tokens differ by at most this factor are of like calls; their own means stand beside them."""
Groups = Sequence[tuple[int, float]]
"""Sizes of groups of calls that start together, and how many there are of each."""
LETTERS = 26
"""Curves of a panel that have a letter and are drawn."""


@dataclass(frozen=True)
class Reality:
    """What an estimate says at a point that was taken from a real server.

    Attributes:
        concurrency: k.
        latency: R(k) from the server, seconds.
        interval: half the width of its 95 % interval ÷ the mean; None if it is not known.
        estimate: R(k) as a compile would take it from the estimate, seconds.
    """

    concurrency: int
    latency: float
    interval: float | None
    estimate: float

    @property
    def error(self) -> float:
        """How far the estimate is off, as a part of what was measured."""
        return self.estimate / self.latency - 1


@dataclass(frozen=True)
class Compared:
    """An estimate at the points of a curve from a real server.

    Attributes:
        profile: the estimated profile.
        tokens: mean prompt and generated tokens for which it was made.
        rescaled: whether it was taken to other calls than it was made for.
        share_model: the model that took a whole GPU to the share, if any.
        points: at the concurrencies that both have, rising.
    """

    profile: str
    tokens: tuple[float, float]
    rescaled: bool
    share_model: str | None
    points: tuple[Reality, ...]


@dataclass(frozen=True)
class Predicted:
    """An open-loop point, and what R(k) predicts for it.

    Attributes:
        point: what was measured.
        latency: the mean latency that the queueing model gives at the rate, seconds; None where R(k) says that the rate
            is beyond capacity.
    """

    point: RatePoint
    latency: float | None

    @property
    def error(self) -> float | None:
        """How far the prediction is off, as a part of what was measured; None where the rate was not sustained."""
        return None if self.latency is None or not self.point.stable else self.latency / self.point.latency - 1


@dataclass(frozen=True)
class Curve:
    """One series of one profile.

    Attributes:
        letter: its letter in the panel; empty beyond `LETTERS`.
        profile: the profile.
        series: the series.
        stale: why its figures are not those of the project's engine; empty if they are.
        compared: the estimate at its points, if it is from a real server and there is one.
        predicted: its open-loop points.
        grouped: whether predictions are for the groups of calls that were recorded; else they are for single calls.
        line: the prediction over the whole range of rates: calls per second, seconds; empty without open-loop points.
        single: that for single calls, where `line` is for groups.
    """

    letter: str
    profile: Profile
    series: Series
    stale: str
    compared: Compared | None = None
    predicted: tuple[Predicted, ...] = ()
    grouped: bool = False
    line: tuple[tuple[float, float], ...] = ()
    single: tuple[tuple[float, float], ...] = ()

    @property
    def source(self) -> str:
        """`measured`, `imported` or `estimated`."""
        return self.profile.spec.source

    @property
    def real(self) -> bool:
        """Whether it was taken from a real server."""
        return self.source != "estimated"

    @property
    def shape(self) -> tuple[int, float]:
        """Tensor-parallel degree and share."""
        return self.series.tp, self.series.share

    @property
    def best(self) -> Point:
        """The point with the highest throughput; of a plateau the first."""
        rates = [point.concurrency / point.latency for point in self.series.points]
        top = max(rates) * (1 - 1e-6)
        return next(point for point, rate in zip(self.series.points, rates, strict=True) if rate >= top)

    @property
    def capacity(self) -> float:
        """The highest k ÷ R(k), calls per second; the real capacity may lie beyond the last point."""
        return self.best.concurrency / self.best.latency

    @property
    def open_ended(self) -> bool:
        """Whether throughput still rose by 3 % or more to the last point; of one alone nobody knows."""
        points = self.series.points
        if self.best is not points[-1] or len(points) < 2:
            return False
        return self.capacity >= 1.03 * points[-2].concurrency / points[-2].latency

    @property
    def widest(self) -> float | None:
        """The widest 95 % interval of its points; None if none is known."""
        return max((point.interval for point in self.series.points if point.interval is not None), default=None)


@dataclass(frozen=True)
class Panel:
    """Curves of like calls on one product.

    Attributes:
        product: the GPU product.
        input: mean prompt tokens of the first curve.
        output: mean generated tokens of it.
        curves: those from real servers first.
    """

    product: str
    input: float
    output: float
    curves: tuple[Curve, ...]

    @property
    def real(self) -> bool:
        """Whether anything in it was taken from a real server."""
        return any(curve.real for curve in self.curves)


@dataclass(frozen=True)
class Known:
    """All that is known of a model.

    Attributes:
        model: its id.
        engine: version of the project's engine.
        profiles: in name order.
        panels: those with curves from real servers first.
        unusable: shapes on which the engine did not run, each with its profile.
        outdated: by profile, why its figures are not those of the project's engine; only where they are not.
    """

    model: str
    engine: str
    profiles: tuple[Profile, ...]
    panels: tuple[Panel, ...]
    unusable: tuple[tuple[Profile, Unusable], ...]
    outdated: Mapping[str, str]


def known_of(model: str, engine: str, profiles: Sequence[Profile], groups: Mapping[str, Groups] | None = None) -> Known:
    """Put the profiles of a model side by side.

    Args:
        model: the model's id.
        engine: version of the project's engine.
        profiles: of this model, all of them to be shown.
        groups: by profile, the groups of the calls that were replayed, where they are known.
    """
    ordered = sorted(profiles, key=lambda profile: profile.metadata.name)
    reasons = {profile.metadata.name: outdated(profile, engine, None) for profile in ordered}
    curves = [
        Curve("", profile, series, reasons[profile.metadata.name] or "")
        for profile in ordered
        for series in profile.spec.series
    ]
    estimates = [profile for profile in ordered if profile.spec.source == "estimated"]
    panels = [_lettered(panel, estimates, groups or {}) for panel in _panels(curves)]
    return Known(
        model,
        engine,
        tuple(ordered),
        tuple(sorted(panels, key=lambda panel: (not panel.real, panel.product, panel.input, panel.output))),
        tuple((profile, shape) for profile in ordered for shape in profile.spec.unusable),
        {name: reason for name, reason in reasons.items() if reason},
    )


def _panels(curves: Iterable[Curve]) -> list[list[Curve]]:
    groups: list[list[Curve]] = []
    # What is real comes first, and says which calls a panel is for.
    for curve in sorted(curves, key=_order):
        group = next((group for group in groups if _alike(group[0], curve)), None)
        if group is None:
            groups.append([curve])
        else:
            group.append(curve)
    return groups


def _order(curve: Curve) -> tuple[bool, float, float, int, float, str]:
    mix = curve.series.mix
    return not curve.real, mix.input, mix.output, curve.series.tp, -curve.series.share, curve.profile.metadata.name


def _alike(a: Curve, b: Curve) -> bool:
    same_product = a.profile.spec.product == b.profile.spec.product
    return same_product and mix_factor(a.series.mix, b.series.mix) <= SAME_PANEL


def _lettered(group: Sequence[Curve], estimates: Sequence[Profile], groups: Mapping[str, Groups]) -> Panel:
    """Give letters, and compare what is real with the estimates and with what R(k) predicts."""
    ordered = sorted(group, key=lambda c: (not c.real, c.series.tp, -c.series.share, c.profile.metadata.name))
    free = iter(string.ascii_uppercase)
    twins: dict[tuple[int, float], str] = {}
    curves: list[Curve] = []
    for curve in ordered:
        if curve.real:
            letter = next(free, "")
            if letter:
                twins.setdefault(curve.shape, letter)
            lettered = replace(curve, letter=letter, compared=_compared(curve, estimates))
            curves.append(_open_loop(lettered, groups.get(curve.profile.metadata.name, ())))
        else:
            # The first estimate of a shape is the small letter of the first real curve of that shape.
            letter = twins.pop(curve.shape, "") or next(free, "")
            curves.append(replace(curve, letter=letter.lower()))
    mix = ordered[0].series.mix
    return Panel(ordered[0].profile.spec.product, mix.input, mix.output, tuple(curves))


def service_of(profile: Profile, series: Series, product: str, mix: Mix) -> ServiceTimes | None:
    """Return R(k) as a compile would take it from one profile, for a shape and calls; None if it has nothing for them.

    Args:
        profile: the profile.
        series: of which the tensor-parallel degree and the share are taken.
        product: the GPU product.
        mix: the calls.
    """
    try:
        catalog = Catalog([profile], profile.spec.engine.version)
        return catalog.service(profile.spec.model, product, series.tp, round(series.share * 10), mix)
    except KeyError:
        return None


def _compared(curve: Curve, estimates: Sequence[Profile]) -> Compared | None:
    series, product = curve.series, curve.profile.spec.product
    mix = Mix(series.mix.input, series.mix.output, series.mix.cached)
    found = [
        (times.share_model is not None, times.rescaled, profile.metadata.name, times)
        for profile in estimates
        if profile.spec.product == product and (times := service_of(profile, series, product, mix)) is not None
    ]
    if not found:
        return None
    *_, name, times = min(found, key=lambda one: one[:3])
    points = tuple(
        Reality(point.concurrency, point.latency, point.interval, float(times.seconds[point.concurrency - 1]))
        for point in series.points
        if point.concurrency <= len(times.seconds)
    )
    tokens = times.series_mix.input, times.series_mix.output
    return Compared(name, tokens, times.rescaled > 1.001, times.share_model, points) if points else None


def _open_loop(curve: Curve, groups: Groups) -> Curve:
    """Return the curve with the prediction over the rates, and at its open-loop points.

    The queueing model of `scepsy.performance`, as a compile applies it: no more calls run at once than give the highest
    throughput.
    """
    points = curve.series.open_loop
    mix = curve.series.mix
    times = service_of(curve.profile, curve.series, curve.profile.spec.product, Mix(mix.input, mix.output, mix.cached))
    if not points or times is None:
        return curve
    n = np.arange(1, len(times.seconds) + 1)
    throughput = n / times.seconds
    limit = int(np.flatnonzero(throughput >= throughput.max() * (1 - 1e-6))[0]) + 1
    seconds, capacity = times.seconds[:limit], float(throughput[limit - 1])
    at = [point.rate for point in points if point.rate < capacity]
    grid = np.linspace(0.02, 0.98, 49) * capacity
    rates = np.concatenate([grid, at])
    single = _mean_latency(seconds, rates, ((1, 1.0),))
    grouped = any(size > 1 for size, _ in groups)
    answers = _mean_latency(seconds, rates, groups) if grouped else single
    by_rate = dict(zip(at, answers[len(grid) :].tolist(), strict=True))
    most = 1.3 * max(point.latency for point in points)

    def line(of: Array) -> tuple[tuple[float, float], ...]:
        pairs = zip(grid.tolist(), of[: len(grid)].tolist(), strict=True)
        return tuple((rate, latency) for rate, latency in pairs if math.isfinite(latency) and latency <= most)

    return replace(
        curve,
        predicted=tuple(Predicted(point, by_rate.get(point.rate)) for point in points),
        grouped=grouped,
        line=line(answers),
        single=line(single) if grouped else (),
    )


def _mean_latency(seconds: Array, rates: Array, groups: Groups) -> Array:
    """Return the mean latency of calls that come in groups at Poisson times, per rate of calls.

    The calls of a group are alike and end together, so that each takes as long as the group.
    """
    batch = len(rates)
    columns = np.ascontiguousarray(np.broadcast_to(seconds[:, None], (len(seconds), batch)))
    limit = np.full(batch, len(seconds), dtype=np.int64)
    calls = sum(size * number for size, number in groups)
    streams = []
    for size, number in groups:
        sizes = np.full(batch, size, dtype=np.int64)
        streams.append(Stream(columns, sizes, rates * number / calls, rounds(columns, sizes, limit)))
    answers, _, _ = latencies(streams)
    parts = zip(groups, answers, strict=True)
    return np.asarray(sum(size * number / calls * answer for (size, number), answer in parts))
