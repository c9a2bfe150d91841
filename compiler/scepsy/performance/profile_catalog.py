"""The catalog: all profiles, looked up by model, product, tensor parallelism, share and token mix."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from scepsy.documents import Architecture, Profile
from scepsy.documents.profile import ProfileSource, Unusable
from scepsy.performance import curves
from scepsy.performance.curves import Array
from scepsy.performance.freshness import outdated
from scepsy.performance.gpu_hardware import bandwidth
from scepsy.performance.mix import Calls, Mix, mix_factor
from scepsy.performance.profile_series import ProfileSeries, read_series
from scepsy.performance.series_selection import Candidate, UnusedProfile, candidate_for, select
from scepsy.performance.share_scaling import seconds_at_share


@dataclass(frozen=True, slots=True)
class StaleProfile:
    """A measured or imported profile that no LLM can use.

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


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """R(k) of one instance for one mix.

    Attributes:
        seconds: R(k) for k = 1 … n; nondecreasing.
        uncertainty: half the width of its 95 % interval ÷ R(k), of the measurement and of what lies between its points;
            None if R is estimated, or was not measured at this share or with such calls.
        profile: name of the Profile.
        profiles: names of all Profiles that R comes from, that one first.
        source: `measured`, `estimated` or `imported`.
        share_model: how R was extrapolated or interpolated from other shares; None if the share was profiled.
        series_mix: the mix of the series.
        rescaled: the largest factor between the series' token means and the caller's.
        stale: set if a measured profile is used although the calls have changed: the tokens, then and now.
        unused: if R is estimated, the measured profiles of this shape that are not used because the calls have changed,
            or because the LLM pins another revision.
        drawn: (n,) part of the GPU's memory bandwidth that it reads on average while k calls run, for k = 1 … n; for an
            unknown GPU product, all that the share can draw.
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
    unused: tuple[UnusedProfile, ...]
    drawn: Array


class Catalog:
    """Profiles that hold for one engine version and, where they are pinned, revisions of the models.

    A measured or imported profile of another engine version or revision is stale and left out; an estimated one is used
    with a warning, because its tables are not exact for any version.

    Attributes:
        warnings: by name of an estimated profile, for which version or revision it was estimated.
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
        self.stale: list[StaleProfile] = []
        self.engine_version = engine_version
        self._calls = tuple(calls)
        self._measured: list[Profile] = []
        self._architectures: dict[str, Architecture] = {}
        self._series: dict[tuple[str, str, int], list[ProfileSeries]] = {}
        self._unusable: dict[tuple[str, str, int, int], list[tuple[Profile, Unusable]]] = {}
        self._candidates: dict[tuple[str, str, int, Mix, str | None], list[Candidate]] = {}
        self._served: dict[tuple[str, str, int, int, Mix, str | None], ServiceTimes] = {}
        self._capped_seconds: dict[tuple[str, str, int, int, Mix, str | None, float], Array] = {}
        for profile in profiles:
            spec, name = profile.spec, profile.metadata.name
            self._architectures.setdefault(spec.model, spec.architecture)
            pinned = sorted((revisions or {}).get(spec.model) or (None,), key=lambda revision: revision or "")
            reasons = [outdated(profile, engine_version, revision) for revision in pinned]
            if spec.source != "estimated":
                self._measured.append(profile)
                if reasons[0] is not None and all(reasons):
                    self.stale.append(
                        StaleProfile(name, spec.model, spec.product, f"profile {name} is stale: {reasons[0]}")
                    )
                    continue
            elif spec.engine.version != engine_version:
                self.warnings[name] = (
                    f"profile {name} is estimated for {spec.engine.version}; the engine is {engine_version}"
                )
            elif spec.revision is not None and spec.revision not in pinned and None not in pinned:
                self.warnings[name] = f"profile {name} is {reasons[0]}"
            for series in spec.series:
                entry = read_series(profile, series)
                self._series.setdefault((spec.model, spec.product, series.tp), []).append(entry)
            for tried in spec.unusable:
                shape = (spec.model, spec.product, tried.tp, round(tried.share * 10))
                self._unusable.setdefault(shape, []).append((profile, tried))

    def with_calls(self, calls: Iterable[Calls]) -> Self:
        """Return the same catalog with the calls of the LLMs, which profiles may have replayed."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _calls=tuple(calls), _candidates={}, _served={}, _capped_seconds={})
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
            revision: the revision that the LLM pins; None if it pins none, so that any matches.
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
        relevant = [s for s in self.stale if s.model in models and s.product in products]
        return [s.reason for s in sorted(relevant, key=lambda s: s.profile)]

    def outdated(self, model: str, revision: str | None, products: Collection[str]) -> list[UnusedProfile]:
        """Return the measured and imported profiles of a model on these products that do not hold for a revision.

        Args:
            model: model id.
            revision: the revision that the LLM pins; None if it pins none.
            products: GPU products.

        Returns:
            the profiles, in order of their names, including those that are stale for all LLMs.
        """
        relevant = [p for p in self._measured if p.spec.model == model and p.spec.product in products]
        reasons = [(p.metadata.name, outdated(p, self.engine_version, revision)) for p in relevant]
        return sorted(UnusedProfile(name, reason) for name, reason in reasons if reason is not None)

    def unusable(
        self, model: str, product: str, tp: int, tenths: int, revision: str | None = None, *, longest: int
    ) -> str | None:
        """Return why the engine could not run on a shape when it was measured; None if it ran, or was not tried.

        A failure because of the length of calls counts even if the engine ran in another profile, perhaps with shorter
        calls.

        Args:
            model: model id.
            product: GPU product.
            tp: tensor-parallel degree.
            tenths: share in tenths.
            revision: the revision that the LLM pins.
            longest: tokens that one of its calls may have.
        """
        profiled = self._series.get((model, product, tp), ())
        ran = any(e.tenths == tenths and not e.estimated and self._fits(e.profile, revision) for e in profiled)
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
        each kind those at this share, then those at larger shares and, to interpolate, smaller ones. The roofline
        (`roofline.KnownTimes`) carries the times over to other calls and other shares, separately for the time before
        the first token and the time per further token.

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
        candidates = self._ranked(model, product, tp, mix, revision)
        if not candidates:
            raise KeyError((model, product, tp, tenths))
        chosen, unused = select(candidates, tenths)
        first = chosen[0]
        series = first.series
        if series.estimated:
            same = {e.name: e.profile for e in self._series[model, product, tp] if not e.estimated}
            reasons = [(name, outdated(profile, self.engine_version, revision)) for name, profile in same.items()]
            unused += tuple(UnusedProfile(name, reason) for name, reason in reasons if reason is not None)
        seconds, share_model = seconds_at_share(chosen, tenths)
        fit = curves.pooled(seconds, series.interval)
        between = curves.curve(series.ks, fit, series.last)
        measured = share_model is None and not series.estimated and first.mismatch is None
        return ServiceTimes(
            seconds=between,
            uncertainty=curves.interval(series.ks, fit, series.last) if measured else None,
            profile=series.name,
            profiles=tuple(dict.fromkeys(c.series.name for c in chosen)),
            source=series.profile.spec.source,
            share_model=share_model,
            series_mix=series.mix,
            rescaled=mix_factor(first.mix, series.mix),
            stale=first.mismatch if not series.estimated else None,
            unused=unused if series.estimated else (),
            drawn=series.drawn(first.mix, bandwidth(tenths / 10, product), between),
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
        """Return the factors by which R(k) of `service` rises if the memory bandwidth is capped.

        At the same bandwidth a smaller share is never faster, whatever series each of them comes from.

        Args:
            model: model id.
            product: GPU product.
            tp: tensor-parallel degree.
            tenths: share in tenths.
            mix: the caller's tokens.
            revision: the revision that the LLM pins.
            caps: the parts.

        Returns:
            the factors, (caps, n).
        """
        asked = (model, product, tp, tenths, mix, revision)
        return np.stack([self._capped(*asked, cap) for cap in caps]) / self.service(*asked).seconds

    def _capped(
        self, model: str, product: str, tp: int, tenths: int, mix: Mix, revision: str | None, cap: float
    ) -> Array:
        """Return R(k) of an instance that is capped to a part of the bandwidth, at least that of any larger share."""
        asked = (model, product, tp, tenths, mix, revision, cap)
        if asked not in self._capped_seconds:
            free = self.service(*asked[:-1]).seconds
            first = select(self._ranked(model, product, tp, mix, revision), tenths)[0][0]
            capped = free * first.series.slower(first.mix, tenths, cap, len(free))
            if tenths < 10:
                larger = self._capped(model, product, tp, tenths + 1, mix, revision, cap)[: len(capped)]
                capped[: len(larger)] = np.maximum(capped[: len(larger)], larger)
            self._capped_seconds[asked] = capped
        return self._capped_seconds[asked]

    def _ranked(self, model: str, product: str, tp: int, mix: Mix, revision: str | None) -> list[Candidate]:
        """Return the series for the calls of one caller, best first."""
        asked = (model, product, tp, mix, revision)
        if asked not in self._candidates:
            profiled = self._series[model, product, tp]
            usable = (e for e in profiled if e.serves(mix) and self._fits(e.profile, revision))
            self._candidates[asked] = sorted((candidate_for(e, mix, self._calls) for e in usable), key=lambda c: c.rank)
        return self._candidates[asked]

    def _fits(self, profile: Profile, revision: str | None) -> bool:
        return profile.spec.source == "estimated" or outdated(profile, self.engine_version, revision) is None
