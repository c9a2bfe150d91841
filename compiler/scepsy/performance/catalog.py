"""The catalog: all profiles, looked up by model, product, tensor parallelism, share and token mix."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from scepsy.documents import Architecture, Profile, Series
from scepsy.documents.profile import FURTHER, ProfileSource, Unusable
from scepsy.documents.workflow import MOST_RUNNING
from scepsy.performance import curves
from scepsy.performance.freshness import SAME_MIX, Calls, change, moved, outdated, replays
from scepsy.performance.roofline import Known, Machine, bandwidth
from scepsy.performance.shares import INTERPOLATED, SHARE_MODEL, Array

__all__ = ["SAME_MIX", "Calls", "Catalog", "Mix", "Moved", "ServiceTimes", "Stale"]


_STEP = 0.02
"""Logarithm of the factors between calls in steps of which series are nearer or farther: 2 %."""
_LEAST_PREFILL = 1e-6
"""Seconds that any call takes before its first token."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Mean tokens of the calls of one caller.

    Attributes:
        input: prompt tokens, cached ones included.
        output: generated tokens.
        cached: prompt tokens found in the prefix cache.
    """

    input: float
    output: float
    cached: float

    @property
    def computed(self) -> float:
        """Prompt tokens that must be computed, at least one."""
        return max(1.0, self.input - self.cached)


@dataclass(frozen=True, slots=True)
class Stale:
    """A measured or imported profile that is not used.

    Attributes:
        profile: its name.
        model: the model.
        product: GPU product.
        reason: why, as a sentence without a period.
    """

    profile: str
    model: str
    product: str
    reason: str


class Moved(NamedTuple):
    """A measured or imported profile whose calls or revision are no longer the caller's.

    Attributes:
        profile: its name.
        reason: the token figures or the revisions, then and now.
    """

    profile: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """R(k) of one instance for one mix.

    Attributes:
        seconds: R(k) for k = 1 … n; nondecreasing.
        uncertainty: half the width of its 95 % interval ÷ R(k), of the measurement and of what lies between its points;
            None where the figures are estimated, or were not measured at this share or with such calls.
        profile: name of the Profile.
        profiles: of all Profiles that the figures rest on, that one first.
        source: `measured`, `estimated` or `imported`.
        share_model: how figures of other shares were taken to this one; None where the share was profiled.
        series_mix: the mix of the series it was taken from.
        rescaled: the largest factor between the series' token means and the caller's.
        stale: set where measured figures are used although the calls have moved: the figures.
        passed_over: where figures are estimated, the measured profiles of this shape that are not used because the
            calls have moved, or because the LLM pins another revision than those that use them.
        drawn: (n,) part of the card's memory bandwidth that it reads on average while k calls run, for k = 1 … n; of a
            card that is not known, all that the share can draw.
    """

    seconds: Array
    uncertainty: Array | None
    profile: str
    profiles: tuple[str, ...]
    source: ProfileSource
    share_model: str | None
    series_mix: Mix
    rescaled: float
    stale: str | None
    passed_over: tuple[Moved, ...]
    drawn: Array


@dataclass(frozen=True)
class _Entry:
    """One series, read."""

    profile: Profile
    series: Series
    mix: Mix
    tenths: int
    known: Known
    interval: Array

    @property
    def name(self) -> str:
        return self.profile.metadata.name

    @property
    def estimated(self) -> bool:
        return self.profile.spec.source == "estimated"

    @property
    def ks(self) -> Array:
        return self.known.k

    @property
    def last(self) -> int:
        """The last k of interest: of the last point, or what an LLM may run at once where that is less."""
        return min(self.series.points[-1].concurrency, MOST_RUNNING)

    def serves(self, mix: Mix) -> bool:
        """Tell whether it says how long calls take: of those that generate more than it did, a known card tells."""
        return mix.output < FURTHER or self.known.decodes or self.known.machine.known

    def at(self, mix: Mix, tenths: int, cap: float = 1.0) -> Array:
        """Return R at the points for some calls on some share, held to a part of the bandwidth."""
        prefill, decode = self.known.at(mix, tenths / 10, cap)
        return np.maximum(prefill + decode * max(0.0, mix.output - 1), 1e-6)

    def slower(self, mix: Mix, tenths: int, cap: float, last: int) -> Array:
        """Return by what R(k), k = 1 … last, rises on some share that is held to a part of the bandwidth."""
        factor = self.at(mix, tenths, cap) / self.at(mix, tenths)
        return np.asarray(np.interp(np.arange(1.0, last + 1), self.ks, factor))

    def drawn(self, mix: Mix, most: float, seconds: Array) -> Array:
        """Return the part of the bandwidth that calls read which take `seconds` while 1, 2, … run; at most `most`."""
        machine = self.known.machine
        if not machine.known:
            return np.full(len(seconds), most)
        return np.minimum(machine.read(mix, np.arange(1.0, len(seconds) + 1)) / seconds, most)


@dataclass(frozen=True)
class _Candidate:
    """A series for one caller: the caller's calls as this engine saw them, and what has moved since."""

    entry: _Entry
    mix: Mix
    moved: str | None

    @property
    def rank(self) -> tuple[bool, int, bool, int, float, str]:
        """Those that can serve the calls come first, then the nearest, measured before estimated, new before old.

        Calls that are less than `_STEP` apart are as near: what the cache held differs by more from day to day.
        """
        entry = self.entry
        lacks_decode = self.mix.output >= FURTHER and not entry.known.decodes
        distance = math.log(_factor(self.mix.computed, entry.mix.computed))
        distance += math.log(_factor(max(1.0, self.mix.output), entry.mix.output))
        distance = round(distance, 9)
        return lacks_decode, int(distance / _STEP), entry.estimated, -_day(entry.profile), distance, entry.name


class Catalog:
    """Profiles that are fit for use with one engine version and, where they are pinned, revisions of the models.

    A measured or imported profile of another engine version or revision is stale and left out; an estimated one is used
    with a warning, because its tables say nothing exact about any version.

    Attributes:
        warnings: by profile, what to know of an estimated one.
        stale: profiles that no LLM can use.
    """

    def __init__(
        self,
        profiles: Iterable[Profile],
        engine_version: str,
        revisions: Mapping[str, Collection[str | None]] | None = None,
        calls: Iterable[Calls] = (),
    ) -> None:
        """Read the profiles.

        Args:
            profiles: all profiles.
            engine_version: version of the engine that will serve.
            revisions: by model, the revisions that LLMs pin; None among them where one pins none.
            calls: of the LLMs, which profiles may have replayed.
        """
        self.warnings: dict[str, str] = {}
        self.stale: list[Stale] = []
        self.engine_version = engine_version
        self._calls = tuple(calls)
        self._measured: list[Profile] = []
        self._architectures: dict[str, Architecture] = {}
        self._series: dict[tuple[str, str, int], list[_Entry]] = {}
        self._unusable: dict[tuple[str, str, int, int], list[tuple[Profile, Unusable]]] = {}
        self._candidates: dict[tuple[str, str, int, Mix, str | None], list[_Candidate]] = {}
        self._served: dict[tuple[str, str, int, int, Mix, str | None], ServiceTimes] = {}
        self._holding: dict[tuple[str, str, int, int, Mix, str | None, float], Array] = {}
        for profile in profiles:
            spec, name = profile.spec, profile.metadata.name
            self._architectures.setdefault(spec.model, spec.architecture)
            pinned = sorted((revisions or {}).get(spec.model) or (None,), key=lambda revision: revision or "")
            reasons = [outdated(profile, engine_version, revision) for revision in pinned]
            if spec.source != "estimated":
                self._measured.append(profile)
                if reasons[0] is not None and all(reasons):
                    self.stale.append(Stale(name, spec.model, spec.product, f"profile {name} is stale: {reasons[0]}"))
                    continue
            elif spec.engine.version != engine_version:
                self.warnings[name] = (
                    f"profile {name} is estimated for {spec.engine.version}; the engine is {engine_version}"
                )
            elif spec.revision is not None and spec.revision not in pinned and None not in pinned:
                self.warnings[name] = f"profile {name} is {reasons[0]}"
            for series in spec.series:
                entry = _entry(profile, series)
                self._series.setdefault((spec.model, spec.product, series.tp), []).append(entry)
            for tried in spec.unusable:
                shape = (spec.model, spec.product, tried.tp, round(tried.share * 10))
                self._unusable.setdefault(shape, []).append((profile, tried))

    def knowing(self, calls: Iterable[Calls]) -> Self:
        """Return the same catalog that knows the calls of the LLMs, which profiles may have replayed."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _calls=tuple(calls), _candidates={}, _served={}, _holding={})
        return other

    @property
    def models(self) -> list[str]:
        """Models with a profile."""
        return sorted(self._architectures)

    def architecture(self, model: str) -> Architecture:
        """Return a model's architecture.

        Raises:
            KeyError: no profile names the model.
        """
        return self._architectures[model]

    def degrees(self, model: str, product: str, revision: str | None = None) -> list[int]:
        """Return the tensor-parallel degrees that are profiled for a model on a product, rising.

        Args:
            model: model id.
            product: GPU product.
            revision: the revision that the LLM pins; None if it pins none, and any will do.
        """
        return sorted(
            tp
            for (m, p, tp), entries in self._series.items()
            if (m, p) == (model, product) and any(self._fits(e.profile, revision) for e in entries)
        )

    def products(self, model: str, revision: str | None = None) -> list[str]:
        """Return the products on which a model is profiled, for a revision where the LLM pins one."""
        return sorted({p for m, p, _ in self._series if m == model and self.degrees(m, p, revision)})

    def stale_for(self, models: Collection[str], products: Collection[str]) -> list[str]:
        """Return why profiles of these models on these products are stale for all LLMs, in order of their names."""
        bearing = [s for s in self.stale if s.model in models and s.product in products]
        return [s.reason for s in sorted(bearing, key=lambda s: s.profile)]

    def outdated(self, model: str, revision: str | None, products: Collection[str]) -> list[Moved]:
        """Return the measured and imported profiles of a model on these products that do not hold for a revision.

        Args:
            model: model id.
            revision: the revision that the LLM pins; None if it pins none.
            products: GPU products.

        Returns:
            them, in order of their names, stale ones for all LLMs included.
        """
        bearing = [p for p in self._measured if p.spec.model == model and p.spec.product in products]
        reasons = [(p.metadata.name, outdated(p, self.engine_version, revision)) for p in bearing]
        return sorted(Moved(name, reason) for name, reason in reasons if reason is not None)

    def unusable(
        self, model: str, product: str, tp: int, tenths: int, revision: str | None = None, *, longest: int
    ) -> str | None:
        """Return why the engine did not run on a shape when it was to be measured; None if it did, or nobody tried.

        Where it failed for the length of calls, that it ran elsewhere, perhaps with shorter ones, refutes nothing.

        Args:
            model: model id.
            product: GPU product.
            tp: tensor-parallel degree.
            tenths: share in tenths.
            revision: the revision that the LLM pins.
            longest: tokens that one of its calls may have.
        """
        own = self._series.get((model, product, tp), ())
        ran = any(e.tenths == tenths and not e.estimated and self._fits(e.profile, revision) for e in own)
        for profile, tried in self._unusable.get((model, product, tp, tenths), ()):
            if profile.spec.source == "estimated" or not self._fits(profile, revision):
                continue
            if tried.concerns(longest) and (tried.max_model_len is not None or not ran):
                return f"it did not run when it was measured: {tried.reason} (profile {profile.metadata.name})"
        return None

    def service(
        self,
        model: str,
        product: str,
        tp: int,
        tenths: int,
        mix: Mix,
        revision: str | None = None,
    ) -> ServiceTimes:
        """Return R(k) of an instance for the calls of one caller.

        Series that were measured with such calls come first, then estimated ones for such calls, then the nearest; of
        each kind those of the very share, then those of larger shares and, to interpolate, smaller ones. Other calls
        and other shares are reached by the roofline (`roofline.Known`), with the time before the first token and the
        time per further token apart.

        Args:
            model: model id.
            product: GPU product.
            tp: tensor-parallel degree.
            tenths: share in tenths.
            mix: the caller's tokens.
            revision: the revision that the LLM pins.

        Raises:
            KeyError: not profiled.
        """
        asked = (model, product, tp, tenths, mix, revision)
        if asked not in self._served:
            self._served[asked] = self._service(*asked)
        return self._served[asked]

    def _service(self, model: str, product: str, tp: int, tenths: int, mix: Mix, revision: str | None) -> ServiceTimes:
        found = self._ranked(model, product, tp, mix, revision)
        if not found:
            raise KeyError((model, product, tp, tenths))
        chosen, others = _anchors(found, tenths)
        first = chosen[0]
        entry = first.entry
        if entry.estimated:
            same = {e.name: e.profile for e in self._series[model, product, tp] if not e.estimated}
            reasons = [(name, outdated(own, self.engine_version, revision)) for name, own in same.items()]
            others += tuple(Moved(name, reason) for name, reason in reasons if reason is not None)
        seconds, share_model = _times(chosen, tenths)
        fit = curves.pooled(seconds, entry.interval)
        between = curves.curve(entry.ks, fit, entry.last)
        measured = share_model is None and not entry.estimated and first.moved is None
        return ServiceTimes(
            seconds=between,
            uncertainty=curves.interval(entry.ks, fit, entry.last) if measured else None,
            profile=entry.name,
            profiles=tuple(dict.fromkeys(c.entry.name for c in chosen)),
            source=entry.profile.spec.source,
            share_model=share_model,
            series_mix=entry.mix,
            rescaled=change(first.mix, entry.mix),
            stale=first.moved if not entry.estimated else None,
            passed_over=others if entry.estimated else (),
            drawn=entry.drawn(first.mix, bandwidth(tenths / 10, product), between),
        )

    def slowdown(
        self,
        model: str,
        product: str,
        tp: int,
        tenths: int,
        mix: Mix,
        revision: str | None = None,
        *,
        caps: Sequence[float],
    ) -> Array:
        """Return by what R(k) of `service` rises where the instance is held to parts of the memory bandwidth.

        At the same bandwidth a smaller share is never faster, whatever series each of them rests on.

        Args:
            model: model id.
            product: GPU product.
            tp: tensor-parallel degree.
            tenths: share in tenths.
            mix: the caller's tokens.
            revision: the revision that the LLM pins.
            caps: the parts, each the most that it draws.

        Returns:
            the factors, (caps, n).
        """
        asked = (model, product, tp, tenths, mix, revision)
        return np.stack([self._held(*asked, cap) for cap in caps]) / self.service(*asked).seconds

    def _held(
        self, model: str, product: str, tp: int, tenths: int, mix: Mix, revision: str | None, cap: float
    ) -> Array:
        """Return R(k) of an instance that is held to a part of the bandwidth, at least that of any larger share."""
        asked = (model, product, tp, tenths, mix, revision, cap)
        if asked not in self._holding:
            free = self.service(*asked[:-1]).seconds
            first = _anchors(self._ranked(model, product, tp, mix, revision), tenths)[0][0]
            held = free * first.entry.slower(first.mix, tenths, cap, len(free))
            if tenths < 10:
                larger = self._held(model, product, tp, tenths + 1, mix, revision, cap)[: len(held)]
                held[: len(larger)] = np.maximum(held[: len(larger)], larger)
            self._holding[asked] = held
        return self._holding[asked]

    def _ranked(self, model: str, product: str, tp: int, mix: Mix, revision: str | None) -> list[_Candidate]:
        """Return the series for the calls of one caller, best first."""
        asked = (model, product, tp, mix, revision)
        if asked not in self._candidates:
            own = self._series[model, product, tp]
            usable = (e for e in own if e.serves(mix) and self._fits(e.profile, revision))
            self._candidates[asked] = sorted((_candidate(e, mix, self._calls) for e in usable), key=lambda c: c.rank)
        return self._candidates[asked]

    def _fits(self, profile: Profile, revision: str | None) -> bool:
        return profile.spec.source == "estimated" or outdated(profile, self.engine_version, revision) is None


def _entry(profile: Profile, series: Series) -> _Entry:
    """Read a series.

    The time before the first token is what is left of the latency, so that the sum gives the profiled R(k) for the
    series' own mix. A time per further token that is not given is what is left of the latency after the first.
    """
    spec = profile.spec
    estimated = spec.source == "estimated"
    latency = np.array([p.latency for p in series.points])
    mix = Mix(series.mix.input, series.mix.output, series.mix.cached)
    further = max(0.0, mix.output - 1)
    left = [(p.latency - p.ttft) / further if mix.output >= FURTHER else 0.0 for p in series.points]
    decode = np.array([rest if p.tpot is None else p.tpot for p, rest in zip(series.points, left, strict=True)])
    if further:  # no more than all of the latency, whatever a point's few calls say
        decode = np.clip(decode, 0.0, np.maximum(0.0, latency - _LEAST_PREFILL) / further)
    known = Known(
        prefill=latency - decode * further,
        decode=decode,
        k=np.array([p.concurrency for p in series.points], dtype=float),
        machine=Machine(spec.architecture, spec.product, series.tp),
        mix=mix,
        share=round(series.share * 10) / 10,
    )
    interval = np.array([curves.half_width(p.interval, estimated=estimated) for p in series.points])
    return _Entry(profile, series, mix, round(series.share * 10), known, interval)


def _candidate(entry: _Entry, mix: Mix, calls: Iterable[Calls]) -> _Candidate:
    """Judge a series for a caller; calls that were replayed for it hit the cache as they did then."""
    replayed = replays(entry.profile, mix, calls)
    if replayed and entry.mix.input > 0:
        mix = Mix(mix.input, mix.output, mix.input * min(1.0, entry.mix.cached / entry.mix.input))
    return _Candidate(entry, mix, moved(entry.series, mix, replayed=replayed))


def _anchors(found: Sequence[_Candidate], tenths: int) -> tuple[list[_Candidate], tuple[Moved, ...]]:
    """Choose the series that figures of a share rest on: one, or two to interpolate between, the larger share first.

    Args:
        found: the candidates, best first.
        tenths: the share.

    Returns:
        The series, and the measured ones that were passed over because the calls have moved.
    """
    fitting = [c for c in found if c.moved is None]
    measured = [c for c in fitting if not c.entry.estimated]
    estimated = [c for c in fitting if c.entry.estimated]
    same_kind = [c for c in found if c.entry.estimated == found[0].entry.estimated]
    best = _best(measured, tenths) or _best(estimated, tenths)
    best = best or _best(same_kind, tenths) or _best(found, tenths) or _best(found, tenths, upwards=True)
    others: dict[str, str] = {}
    if not measured:
        for c in found:
            if not c.entry.estimated and c.moved is not None:
                others.setdefault(c.entry.name, c.moved)
    return best, tuple(Moved(*item) for item in others.items())


def _best(candidates: Sequence[_Candidate], tenths: int, *, upwards: bool = False) -> list[_Candidate]:
    """Return the best series of the share, or else of the shares around it; of smaller ones alone only if `upwards`."""
    by_share: dict[int, _Candidate] = {}
    for candidate in candidates:
        by_share.setdefault(candidate.entry.tenths, candidate)
    if tenths in by_share:
        return [by_share[tenths]]
    larger = [by_share[min(s for s in by_share if s > tenths)]] if any(s > tenths for s in by_share) else []
    smaller = [by_share[max(s for s in by_share if s < tenths)]] if any(s < tenths for s in by_share) else []
    return larger + smaller if larger or upwards else []


def _times(chosen: Sequence[_Candidate], tenths: int) -> tuple[Array, str | None]:
    """Return R at the points of the first series, and how the share was reached."""
    first = chosen[0]
    entry, mix = first.entry, first.mix
    seconds = entry.at(mix, tenths)
    if entry.tenths == tenths:
        return seconds, None
    kind = "estimated" if entry.estimated else entry.profile.spec.source
    if len(chosen) == 1:
        origin = "" if entry.tenths == 10 else f", from the {kind} share {entry.tenths / 10:g}"
        return seconds, SHARE_MODEL + origin
    second = chosen[1]
    low, high = second.entry.tenths, entry.tenths
    there = curves.pooled(second.entry.at(second.mix, low), second.entry.interval).values
    found = np.exp(np.interp(entry.ks, second.entry.ks, np.log(there)))
    known = entry.ks <= second.entry.ks[-1]
    expected = curves.pooled(entry.at(mix, low), entry.interval).values
    ratio = found / expected
    ratio[~known] = ratio[known][-1] if known.any() else 1.0
    # Of the larger share's figures none may be undercut, nor those of a share between by a smaller one.
    here = entry.at(mix, high)
    for t in range(high - 1, tenths - 1, -1):
        weight = math.log(high / t) / math.log(high / low)
        here = np.maximum(here, entry.at(mix, t) * ratio**weight)
    here[known] = np.minimum(here[known], np.maximum(found[known], entry.at(mix, high)[known]))
    return here, f"{INTERPOLATED} {kind} shares {low / 10:g} and {high / 10:g}"


def _factor(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def _day(profile: Profile) -> int:
    """Return the day of the measurement as a number that rises with it; 0 where none is given."""
    return int((profile.spec.provenance.date or "0").replace("-", ""))
