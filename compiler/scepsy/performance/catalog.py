"""The catalog: all profiles, looked up by model, product, tensor parallelism, share and token mix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scepsy.documents import Architecture, Profile, Series
from scepsy.documents.profile import ProfileSource
from scepsy.performance.shares import SHARE_MODEL, Array, slowed

SAME_MIX = 1.25
"""Token means within this factor of a series' mix count as the same mix; beyond it a warning says so."""


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
class ServiceTimes:
    """R(k) of one instance for one mix.

    Attributes:
        seconds: R(k) for k = 1 … n; nondecreasing.
        profile: name of the Profile.
        source: `measured`, `estimated` or `imported`.
        share_model: the model that took whole-GPU figures to the share; None where the share was profiled.
        series_mix: the mix of the series it was taken from.
        rescaled: the largest factor between the series' token means and the caller's.
        step: seconds of a decode step of one call on the whole GPU; 0 where nothing is decoded.
    """

    seconds: Array
    profile: str
    source: ProfileSource
    share_model: str | None
    series_mix: Mix
    rescaled: float
    step: float


class Catalog:
    """Profiles that are fit for use with one engine version.

    A measured or imported profile of another engine version is stale and left out; an estimated one is used with a
    warning, because its tables say nothing exact about any version.
    """

    def __init__(self, profiles: Iterable[Profile], engine_version: str) -> None:
        self.warnings: dict[str, str] = {}
        self.stale: dict[str, str] = {}
        self._architectures: dict[str, Architecture] = {}
        self._series: dict[tuple[str, str, int], list[tuple[Profile, Series]]] = {}
        for profile in profiles:
            spec = profile.spec
            name, version = profile.metadata.name, spec.engine.version
            self._architectures.setdefault(spec.model, spec.architecture)
            if version != engine_version:
                if spec.source != "estimated":
                    self.stale[name] = (
                        f"profile {name} was {spec.source} with {version}; the engine is {engine_version}"
                    )
                    continue
                self.warnings[name] = f"profile {name} is estimated for {version}; the engine is {engine_version}"
            for series in spec.series:
                self._series.setdefault((spec.model, spec.product, series.tp), []).append((profile, series))

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

    def degrees(self, model: str, product: str) -> list[int]:
        """Return the tensor-parallel degrees that are profiled for a model on a product, rising."""
        return sorted(tp for m, p, tp in self._series if (m, p) == (model, product))

    def products(self, model: str) -> list[str]:
        """Return the products on which a model is profiled."""
        return sorted({p for m, p, _ in self._series if m == model})

    def service(self, model: str, product: str, tp: int, tenths: int, mix: Mix) -> ServiceTimes:
        """Return R(k) of an instance for the calls of one caller.

        The series with the nearest mix is taken; a call is split into the time before its first token, which grows
        with the computed prompt tokens, and the time per further token, so that other token counts can be served.
        Measured series win over estimated ones, and series of the very share over the share model.

        Args:
            model: model id.
            product: GPU product.
            tp: tensor-parallel degree.
            tenths: share in tenths.
            mix: the caller's tokens.

        Raises:
            KeyError: not profiled.
        """
        candidates = self._series[model, product, tp]
        exact = [c for c in candidates if round(c[1].share * 10) == tenths]
        whole = [c for c in candidates if round(c[1].share * 10) == 10]
        chosen = exact or whole
        if not chosen:
            raise KeyError((model, product, tp, tenths))
        profile, series = min(chosen, key=lambda c: (_rank(c[0], c[1], mix), c[0].metadata.name))
        prefill, decode = _parts(series)
        base = Mix(series.mix.input, series.mix.output, series.mix.cached)
        share_model, step = None, float(decode[0])
        if not exact:
            token = prefill[0] / base.computed
            prefill, decode = slowed(prefill, decode, token, tenths / 10)
            share_model = SHARE_MODEL
        seconds = prefill * (mix.computed / base.computed) + decode * max(0.0, mix.output - 1)
        seconds = np.maximum.accumulate(np.maximum(seconds, 1e-6))
        factor = max(_factor(mix.computed, base.computed), _factor(max(1.0, mix.output), base.output))
        return ServiceTimes(seconds, profile.metadata.name, profile.spec.source, share_model, base, factor, step)


def _factor(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def _rank(profile: Profile, series: Series, mix: Mix) -> tuple[bool, float, bool]:
    """Order series for a mix: those that can serve it, nearest first, measured before estimated at equal distance."""
    lacks_decode = mix.output > 1.5 and series.points[0].tpot is None
    computed = max(1.0, series.mix.input - series.mix.cached)
    distance = math.log(_factor(mix.computed, computed)) + math.log(_factor(max(1.0, mix.output), series.mix.output))
    return lacks_decode, round(distance, 9), profile.spec.source == "estimated"


def _parts(series: Series) -> tuple[Array, Array]:
    """Return the time before the first token and the time per further token at k = 1 … last, interpolated linearly.

    The first part is what is left of the latency, so that the sum gives the profiled R(k) for the series' own mix.
    """
    further = max(0.0, series.mix.output - 1)
    ks = np.array([p.concurrency for p in series.points], dtype=float)
    tpot = np.array([p.tpot or 0.0 for p in series.points])
    latency = np.array([p.latency for p in series.points])
    prefill = np.maximum(latency - tpot * further, 1e-6)
    k = np.arange(1, series.points[-1].concurrency + 1, dtype=float)
    return np.interp(k, ks, prefill), np.interp(k, ks, tpot)
