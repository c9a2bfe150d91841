"""What the profiles of a project say of a shape: measured for these calls, tried in vain, or no longer true."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from scepsy.documents import Architecture, Profile, Series
from scepsy.documents.profile import Neighbours
from scepsy.performance.freshness import calls_mismatch, outdated, replays
from scepsy.performance.mix import Calls, mix_factor
from scepsy.profiling.planning.calls_to_measure import Role
from scepsy.profiling.planning.sweep import Shape, Stale

NOT_PROFILED = "not profiled"
ONLY_ESTIMATED = "only estimated"


@dataclass(frozen=True)
class Evidence:
    """All profiles of a project, evaluated for one version of the engine.

    Attributes:
        profiles: the profiles.
        engine: the engine's version.
        calls: of all roles, any of which may have been replayed.
    """

    profiles: Sequence[Profile]
    engine: str
    calls: Sequence[Calls] = ()

    @cached_property
    def architectures(self) -> dict[str, Architecture]:
        """Architectures of the models that any profile describes, a stale or estimated one too."""
        return {profile.spec.model: profile.spec.architecture for profile in self.profiles}

    def measured(
        self,
        roles: Iterable[Role],
        others: Sequence[Role],
        product: str,
        shape: Shape,
        neighbours: Neighbours = "idle",
    ) -> tuple[list[str], str | None]:
        """Return the names of the profiles with measured values of a shape, and why it must be measured nevertheless.

        Args:
            roles: of one model, at least one; the values must hold for each of them.
            others: further roles of the model; calls that were measured for them have not moved away from `roles`.
            product: GPU product.
            shape: the shape.
            neighbours: what the rest of the GPU is to do while a share is measured.
        """
        names: set[str] = set()
        for role in roles:
            entries = [
                (profile, series)
                for profile in self._own(role, product)
                for series in profile.spec.series
                if (series.tp, round(series.share * 10)) == (shape.tp, shape.tenths)
            ]
            measured = [(p, s) for p, s in entries if p.spec.source != "estimated"]
            wanted = neighbours if shape.tenths < 10 else "idle"
            alike = [(p, s) for p, s in measured if (s.neighbours or "idle") == wanted]
            if measured and not alike:
                return [], f"measured with {'idle' if wanted == 'busy' else 'busy'} neighbours"
            verdicts = [
                verdict
                for p, s in alike
                for verdict in [self._verdict(p, s, role)]
                if not verdict.moved or all(self._verdict(p, s, other).reason is not None for other in others)
            ]
            if not verdicts:
                return [], ONLY_ESTIMATED if len(entries) > len(measured) else NOT_PROFILED
            nearest = min(verdicts, key=lambda verdict: verdict.rank)
            if nearest.reason is not None:
                return [], ("token mix changed: " if nearest.moved else "") + nearest.reason
            names.add(nearest.profile)
        return sorted(names), None

    def unusable(self, role: Role, product: str, shape: Shape) -> str | None:
        """Return why the same engine did not run on a shape when it was to be measured; None if that is not known."""
        for profile in self._own(role, product):
            if profile.spec.source == "estimated" or outdated(profile, self.engine, role.llm.revision):
                continue
            longest = role.llm.max_model_len or profile.spec.architecture.context_length
            for entry in profile.spec.unusable:
                same = (entry.tp, round(entry.share * 10)) == (shape.tp, shape.tenths)
                if same and entry.concerns(longest):
                    return f"{entry.reason} (profile {profile.metadata.name})"
        return None

    def stale(self, roles: Sequence[Role], products: Iterable[str]) -> list[Stale]:
        """Return the measured and imported profiles of called models, on these products, that hold for no role."""
        wanted = set(products)
        rows = []
        for profile in self.profiles:
            asking = [role for role in roles if role.llm.model == profile.spec.model]
            if profile.spec.source == "estimated" or profile.spec.product not in wanted or not asking:
                continue
            verdicts = [self._verdict(profile, s, role) for role in asking for s in profile.spec.series or (None,)]
            nearest = min(verdicts, key=lambda verdict: verdict.rank)
            if nearest.reason is not None:
                rows.append(Stale(profile.metadata.name, nearest.reason))
        return rows

    def _own(self, role: Role, product: str) -> list[Profile]:
        return [p for p in self.profiles if (p.spec.model, p.spec.product) == (role.llm.model, product)]

    def _verdict(self, profile: Profile, series: Series | None, role: Role) -> _Verdict:
        """Judge a series for a role; of a profile without any, only the engine and the revision."""
        name = profile.metadata.name
        old = outdated(profile, self.engine, role.llm.revision)
        if series is None:
            return _Verdict(name, old, False, 1.0)
        new = calls_mismatch(series, role.mix, replayed=replays(profile, role.mix, self.calls))
        return _Verdict(name, old or new, old is None and new is not None, mix_factor(series.mix, role.mix))


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Whether a profile's series holds for a role: why not, whether for its calls alone, and how far these are off."""

    profile: str
    reason: str | None
    moved: bool
    distance: float

    @property
    def rank(self) -> tuple[bool, bool, float, str]:
        """Those that hold come first, then those of the same engine and model; nearest calls before others."""
        return self.reason is not None, not self.moved, round(math.log(self.distance), 9), self.profile
