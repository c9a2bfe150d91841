"""Which series of which profiles predict the calls of one caller: rank by calls, source and age, then by share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scepsy.documents import Profile
from scepsy.documents.profile import FURTHER
from scepsy.performance.freshness import calls_mismatch, replays
from scepsy.performance.mix import Calls, Mix, token_factor
from scepsy.performance.profile_series import ProfileSeries

_STEP = 0.02
"""Series whose distances differ by less than this logarithm of token factors (2 %) count as equally near."""


class UnusedProfile(NamedTuple):
    """A measured or imported profile that does not hold for a caller: its calls or its revision are different now.

    Attributes:
        profile: its name.
        reason: the tokens or the revisions, then and now.
    """

    profile: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A series for one caller.

    Attributes:
        series: the series.
        mix: the caller's calls; cached tokens as the series' engine found them if it replayed these calls.
        mismatch: how the caller's calls differ from those of the series; None if they do not.
    """

    series: ProfileSeries
    mix: Mix
    mismatch: str | None

    @property
    def rank(self) -> tuple[bool, int, bool, int, float, str]:
        """Series that can serve the calls come first, then the nearest, measured before estimated, new before old.

        Distances that differ by less than `_STEP` are equal: cached tokens differ by more from day to day.
        """
        series = self.series
        lacks_decode = self.mix.output >= FURTHER and not series.known.decodes
        distance = math.log(token_factor(self.mix.computed, series.mix.computed))
        distance += math.log(token_factor(max(1.0, self.mix.output), series.mix.output))
        distance = round(distance, 9)
        return lacks_decode, int(distance / _STEP), series.estimated, -_day(series.profile), distance, series.name


def candidate_for(series: ProfileSeries, mix: Mix, calls: Iterable[Calls]) -> Candidate:
    """Compare a series with a caller's calls; calls that it replayed hit the cache as they did then."""
    replayed = replays(series.profile, mix, calls)
    if replayed and series.mix.input > 0:
        mix = Mix(mix.input, mix.output, mix.input * min(1.0, series.mix.cached / series.mix.input))
    return Candidate(series, mix, calls_mismatch(series.series, mix, replayed=replayed))


def select(candidates: Sequence[Candidate], tenths: int) -> tuple[list[Candidate], tuple[UnusedProfile, ...]]:
    """Choose the series that the times at a share come from: one, or two to interpolate between, larger share first.

    Args:
        candidates: best first.
        tenths: the share.

    Returns:
        The series, and the measured profiles that are not used because the calls have changed.
    """
    fitting = [c for c in candidates if c.mismatch is None]
    measured = [c for c in fitting if not c.series.estimated]
    estimated = [c for c in fitting if c.series.estimated]
    same_kind = [c for c in candidates if c.series.estimated == candidates[0].series.estimated]
    best = _best(measured, tenths) or _best(estimated, tenths)
    best = best or _best(same_kind, tenths) or _best(candidates, tenths) or _best(candidates, tenths, upwards=True)
    unused: dict[str, str] = {}
    if not measured:
        for c in candidates:
            if not c.series.estimated and c.mismatch is not None:
                unused.setdefault(c.series.name, c.mismatch)
    return best, tuple(UnusedProfile(*item) for item in unused.items())


def _best(candidates: Sequence[Candidate], tenths: int, *, upwards: bool = False) -> list[Candidate]:
    """Return the best series at the share, else at the nearest shares around it; only smaller ones if `upwards`."""
    by_share: dict[int, Candidate] = {}
    for candidate in candidates:
        by_share.setdefault(candidate.series.tenths, candidate)
    if tenths in by_share:
        return [by_share[tenths]]
    larger = [by_share[min(s for s in by_share if s > tenths)]] if any(s > tenths for s in by_share) else []
    smaller = [by_share[max(s for s in by_share if s < tenths)]] if any(s < tenths for s in by_share) else []
    return larger + smaller if larger or upwards else []


def _day(profile: Profile) -> int:
    """Return the date of the measurement as a number, such as 20251231; 0 if none is given."""
    return int((profile.spec.provenance.date or "0").replace("-", ""))
