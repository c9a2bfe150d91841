"""Whether executions are similar enough for a plan by their mean: shares of LLM time, heavy tails, kinds.

Three things make a mean a poor basis; each is tested against chance:

**Shares vary.** An LLM's share of an execution's LLM time differs between executions by chance alone: calls differ in
length, and loops in number. Chance is simulated: every execution keeps its number of calls; each call goes to an LLM by
the overall mix, and its length is drawn again, exponentially with the LLM's mean (calls of real LLMs vary
less). A share is unstable when its variance over executions is more than EXCESS times the simulated one, its range from
the 10th to the 90th percentile more than WIDER times the simulated one, and at least SPREAD wide.

**Tails are heavy.** The LLM seconds of executions are unstable when the longest tenth of them holds more than TAIL of
all seconds: 33 % where seconds are exponential, 39 % where they are lognormal with sigma 1, 59 % with 1.5.

**There are two kinds.** The share of each LLM, the LLM seconds and the number of calls (both as logarithms) are
searched for two clusters: the split with the largest distance by Ashman's D, |a - b| ÷ sqrt((var a + var b) ÷ 2)
(Ashman, Bird and Zepf, Astronomical Journal 108, 1994), where each cluster holds at least SMALLEST of the executions. A
split counts when D is above APART and D x dip x sqrt(E) above MODES + MODES_OF_FEW / E; the dip is the distance of the
values' distribution to the nearest with one mode (Hartigan and Hartigan, The Dip Test of Unimodality, Annals of
Statistics 13(1), 1985), which alone hardly detects a small cluster, however far. One loop more or less is not a
kind: a number of calls stands for the interval half a step to both sides, over which executions are spread.

Calibrated on simulations. False alarms, of 20 and 50 executions of 324 workloads with one to three LLMs, called once,
in fans, or in geometric numbers of loops together or apart, with lengths from exponential to constant whose means
differ up to fivefold: shares 0.04 % (20 executions) and less, tails 0.2 %, kinds 0.05 %; of 10 to 5,000 executions of
one LLM with normal, uniform, exponential, gamma or lognormal seconds, or geometric or Poisson counts: kinds 0.15 % at
most (geometric, 10 executions), mostly none. The worst workload calls an LLM in so few executions that its tail is
heavy (2 %). Found: 34 public coding sessions with a small and a large model (share of the small one 0.2 % to 87 %, mean
15 %; variance 12 times that of chance, range 3.4 times), and 92 % of draws of 20 of them. Normal clusters 6, 8, 12 and
20 standard deviations apart are distinguished with 20 executions, half in each, in 26, 80, 100 and 100 %; with
a fifth in one in 1, 10, 68 and 99 %; with 100 executions, a tenth in one, in 0, 28, 99 and 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scepsy.traces.trace import Floats, Ints

Bools = npt.NDArray[np.bool_]

FEWEST = 5
"""Executions below which nothing is tested."""
SURE = 20
"""Executions from which on a negative result counts: with fewer, shares that vary are seldom detected."""
EXCESS = 5.0
"""Variance of a share over executions ÷ that of simulated executions."""
WIDER = 1.75
"""Range between the outer tenths of a share ÷ that of simulated executions."""
SPREAD = 0.2
"""Range between the outer tenths of a share."""
TAIL = 0.5
"""Part of all LLM seconds that the longest tenth of executions holds."""
TAIL_FEWEST = 20
"""Executions below which tails are not tested."""
SMALLEST = 0.1
"""Part of the executions that the smaller of two kinds holds."""
APART = 4.0
"""Ashman's D between two kinds."""
MODES, MODES_OF_FEW = 2.6, 40.0
"""Two modes: D x dip x sqrt(E) is above MODES + MODES_OF_FEW / E."""
KINDS_FEWEST = 10
"""Executions below which kinds are not searched."""
SEARCHED = 8
"""LLMs, by their time, whose shares are searched for kinds."""
_NAMED = 3
"""Unstable shares that are described; more are counted."""
_MOST = 2_000
"""Executions that are tested; more are thinned evenly."""
_DRAWS = 40_000
"""Executions that are simulated, about."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one LLM in the LLM time of an execution, over executions.

    Attributes:
        llm: its name.
        mean: mean over executions, each counting the same.
        p10: 10th percentile.
        p90: 90th percentile.
        least: smallest.
        most: largest.
        unstable: whether it varies by much more than chance.
    """

    llm: str
    mean: float
    p10: float
    p90: float
    least: float
    most: float
    unstable: bool


@dataclass(frozen=True, slots=True)
class Kind:
    """One of two kinds of executions.

    Attributes:
        fraction: its part of the executions.
        calls: (M,) mean calls per execution.
        seconds: (M,) mean LLM seconds per execution.
        members: (E,) whether each execution is of this kind.
    """

    fraction: float
    calls: tuple[float, ...]
    seconds: tuple[float, ...]
    members: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Stability:
    """How much executions differ.

    Attributes:
        executions: E; those with LLM time.
        llms: (M,) names.
        shares: (M,) of LLM time; empty where there are fewer than FEWEST executions.
        variation: standard deviation ÷ mean of the LLM seconds per execution; 0 for one execution.
        tail: part of all LLM seconds that the longest tenth of executions holds.
        heavy: whether that is too much.
        kinds: two kinds of executions, the larger first; empty if there is one.
        by: the quantity that separates the kinds: `share of LLM`, `LLM seconds` or `calls`; empty without kinds.
    """

    executions: int
    llms: tuple[str, ...]
    shares: tuple[Share, ...]
    variation: float
    tail: float
    heavy: bool
    kinds: tuple[Kind, ...] = ()
    by: str = ""

    @property
    def known(self) -> bool:
        """Whether there are enough executions to test."""
        return bool(self.shares)

    @property
    def stable(self) -> bool | None:
        """Whether means are a safe basis; None if nothing speaks against it, but there are too few executions."""
        if self.heavy or self.kinds or any(share.unstable for share in self.shares):
            return False
        return True if self.executions >= SURE else None


def stability_of(llms: Sequence[str], calls: Floats, spent: Floats) -> Stability:
    """Evaluate how much executions differ.

    Args:
        llms: (M,) names.
        calls: (E, M) calls.
        spent: (E, M) seconds, durations of these calls.

    Returns:
        The evaluation; executions that spend no time in LLMs are left out, and belong to no kind.
    """
    timed = spent.sum(axis=1) > 0
    chosen = np.flatnonzero(timed)
    if len(chosen) > _MOST:
        chosen = chosen[np.arange(_MOST) * len(chosen) // _MOST]
    seconds = np.sort(spent[timed].sum(axis=1))
    count = len(seconds)
    total = float(seconds.sum())
    variation = float(seconds.std(ddof=1) / seconds.mean()) if count > 1 else 0.0
    tail = float(seconds[count - math.ceil(count / 10) :].sum()) / total if count else 0.0
    if count < FEWEST:
        return Stability(count, tuple(llms), (), variation, tail, False)
    unstable = _unstable(calls[chosen], spent[chosen])
    shares = spent[timed] / spent[timed].sum(axis=1, keepdims=True)
    quantiles = np.quantile(shares, [0.0, 0.1, 0.9, 1.0], axis=0)
    split = _kinds(llms, calls, spent, chosen) if count >= KINDS_FEWEST else None
    return Stability(
        executions=count,
        llms=tuple(llms),
        shares=tuple(
            Share(llm, float(shares[:, m].mean()), p10, p90, least, most, unstable[m])
            for m, (llm, (least, p10, p90, most)) in enumerate(zip(llms, quantiles.T.tolist(), strict=True))
        ),
        variation=variation,
        tail=tail,
        heavy=count >= TAIL_FEWEST and tail > TAIL,
        kinds=tuple(_kind(calls, spent, members, count) for members in split[1]) if split else (),
        by=split[0] if split else "",
    )


def warnings(stability: Stability, workflow: str = "") -> list[str]:
    """Return the warnings for the reader of a plan, with numbers; none if `stability.stable`.

    Args:
        stability: the evaluation.
        workflow: the workflow's name, with which each warning begins; empty to leave it out.
    """
    found = []
    about = f"{workflow}: " if workflow else ""
    if stability.stable is None:
        return [about + _few(stability)]
    unstable = [share for share in stability.shares if share.unstable]
    if len(stability.llms) == 2:  # the other has the rest
        unstable = sorted(unstable, key=lambda share: share.mean)[:1]
    for share in unstable[:_NAMED]:
        found.append(
            f"{about}the share of {share.llm} in LLM time varies from {_percent(share.p10)} to"
            f" {_percent(share.p90)} (10th to 90th percentile of {stability.executions:,} executions;"
            f" mean {_percent(share.mean)}, extremes {_percent(share.least)} and {_percent(share.most)}):"
            " an allocation for the mean fits few of them"
        )
    if len(unstable) > _NAMED:
        more = len(unstable) - _NAMED
        found.append(
            f"{about}the share{'s' * (more > 1)} of {more} more LLM{'s vary' if more > 1 else ' varies'} as much"
        )
    if stability.heavy:
        found.append(
            f"{about}the longest tenth of {stability.executions:,} executions holds {_percent(stability.tail)} of all"
            f" LLM seconds (coefficient of variation {stability.variation:.2g}): few of them decide the mean"
        )
    if stability.kinds:
        found.append(f"{about}{described(stability)}")
    return found


def _few(stability: Stability) -> str:
    """Return that there are too few executions, and the range of shares of the LLM that varies most."""
    one = stability.executions == 1
    text = (
        f"{stability.executions} execution{'' if one else 's'} with LLM time {'is' if one else 'are'} too few to"
        f" know whether their mean is representative (at least {SURE} are needed)"
    )
    if len(stability.shares) < 2:
        return text
    widest = max(stability.shares, key=lambda share: (share.most - share.least, -share.mean))
    return (
        f"{text}: the share of {widest.llm} in LLM time ranges from {_percent(widest.least)} to {_percent(widest.most)}"
        f" (mean {_percent(widest.mean)})"
    )


def described(stability: Stability) -> str:
    """Return a description of the two kinds of executions."""
    large, small = stability.kinds
    # Of many LLMs, those that differ most are enough.
    differ = [abs(a - b) for a, b in zip(large.seconds, small.seconds, strict=True)]
    shown = sorted(sorted(range(len(differ)), key=lambda m: -differ[m])[:3])

    def kind(one: Kind) -> str:
        parts = [
            f"{_seconds(one.seconds[m])} in {one.calls[m]:.3g} call{'s' * (one.calls[m] != 1)} of {stability.llms[m]}"
            for m in shown
        ]
        return f"{_percent(one.fraction)} with {', '.join(parts)}"

    return (
        f"executions fall into 2 kinds by {stability.by}: {kind(large)}; {kind(small)}."
        " Two workflows, one per kind, can be planned better"
    )


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.0995 or part == 0 else f"{part * 100:.2g} %".replace(" ", "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _unstable(calls: Floats, spent: Floats) -> list[bool]:
    """Return for each LLM whether its share varies by much more than in simulated executions."""
    executions, llms = spent.shape
    shares = spent / spent.sum(axis=1, keepdims=True)
    spread = _range(shares)
    if not (spread > SPREAD).any():
        return [False] * llms
    rounds = max(20, min(400, _DRAWS // executions))
    variances, ranges = np.zeros(llms), np.zeros(llms)
    # The legacy generator's stream is frozen (NEP 19), so the result never changes with the version of numpy.
    generator = np.random.RandomState(20)
    number = np.rint(calls.sum(axis=1)).astype(np.int64)
    mix = calls.sum(axis=0) / calls.sum()
    length = spent.sum(axis=0) / np.maximum(calls.sum(axis=0), 1)
    for _ in range(rounds):
        drawn = generator.standard_gamma(_allotted(generator, number, mix)) * length
        total = drawn.sum(axis=1, keepdims=True)
        simulated = np.divide(drawn, total, out=np.zeros_like(drawn), where=total > 0)
        variances += simulated.var(axis=0)
        ranges += _range(simulated)
    exceeds = shares.var(axis=0) * rounds > EXCESS * variances
    return list((exceeds & (spread * rounds > WIDER * ranges) & (spread > SPREAD)).tolist())


def _range(shares: Floats) -> Floats:
    low, high = np.quantile(shares, [0.1, 0.9], axis=0)
    return np.asarray(high - low)


def _allotted(generator: np.random.RandomState, number: Ints, mix: Floats) -> Ints:
    """Give each of (E,) numbers of calls to LLMs by the mix: multinomial, (E, M)."""
    given = np.empty((len(number), len(mix)), dtype=np.int64)
    left, rest = number.copy(), 1.0
    for m, part in enumerate(mix):
        given[:, m] = generator.binomial(left, min(1.0, part / rest)) if rest > 1e-12 else 0
        left -= given[:, m]
        rest -= part
    given[:, -1] += left
    return given


def _kinds(llms: Sequence[str], calls: Floats, spent: Floats, chosen: Ints) -> tuple[str, list[Bools]] | None:
    """Return the quantity that separates two kinds, and the members of each, the larger first; None for one kind."""
    most = np.argsort(-spent.sum(axis=0), kind="stable")[: SEARCHED if len(llms) > 1 else 0].tolist()
    number = calls.sum(axis=1)
    spread = np.column_stack([_spread(calls[chosen, m], spent[chosen, m], m) for m in range(len(llms))])
    names = [*(f"share of {llms[m]}" for m in most), "LLM seconds", "calls"]
    searched = _features(most, spread, _spread(number[chosen], number[chosen], len(llms)))
    best, found = 1.0, None
    for by, values, every in zip(names, searched, _features(most, spent, number), strict=True):
        ordered = np.sort(values)
        distance, border = _split(ordered)
        if distance > APART:
            count = len(ordered)
            score = distance * _dip(ordered) * math.sqrt(count) / (MODES + MODES_OF_FEW / count)
            if score > best:
                best, found = score, (by, every > border)
    if found is None:
        return None
    by, upper = found
    timed = spent.sum(axis=1) > 0
    kinds = sorted((upper & timed, ~upper & timed), key=lambda members: -int(members.sum()))
    return (by, kinds) if kinds[1].any() else None


def _features(llms: Sequence[int], spent: Floats, number: Floats) -> Iterator[Floats]:
    """Yield what is searched for kinds, (E,) values each: shares of these LLMs, LLM seconds, and number of calls."""
    total = np.maximum(spent.sum(axis=1), 1e-300)
    yield from (spent[:, m] / total for m in llms)
    yield np.log(total)
    yield np.log(np.maximum(number, 0.25))


def _spread(number: Floats, amount: Floats, salt: int) -> Floats:
    """Spread amounts over half a step to both sides, where executions differ in their number of calls.

    Numbers of calls go up in steps: their differences have a greatest common divisor, such as 5 where every loop has
    five calls. Differences of more than twice the smallest number are no steps: those numbers lie apart. Within a
    step values follow 1 ÷ value, so that the logarithm of a number of calls has steps but no saw teeth.
    """
    counts = np.unique(np.rint(number).astype(np.int64))
    if len(counts) == 1:
        return amount
    step = min(int(np.gcd.reduce(np.diff(counts))), 2 * int(counts[counts > 0][0]))
    raw = np.random.PCG64([salt, len(number)]).random_raw(len(number))
    place = (raw >> np.uint64(11)).astype(np.float64) / 2**53
    called = number > 0
    whole = np.where(called, number, 1.0)
    low = np.maximum(whole - step / 2, whole / 2)
    factor = low * ((whole + step / 2) / low) ** place / whole
    none = step * place / 2 * amount.sum() / number.sum()
    return np.where(called, amount * factor, none)


def _split(ordered: Floats) -> tuple[float, float]:
    """Return the largest Ashman's D of values split in two, and where they are split; 0 if they cannot be."""
    count = len(ordered)
    least = max(2, math.ceil(SMALLEST * count))
    centred = ordered - ordered.mean()
    k = np.arange(least, count - least + 1)
    k = k[ordered[k] > ordered[k - 1]]
    if not len(k):
        return 0.0, 0.0
    sums, squares = np.cumsum(centred), np.cumsum(centred**2)
    a, b = sums[k - 1] / k, (sums[-1] - sums[k - 1]) / (count - k)
    var_a = squares[k - 1] / k - a**2
    var_b = (squares[-1] - squares[k - 1]) / (count - k) - b**2
    floor = (1e-6 * (centred[-1] - centred[0])) ** 2
    distance = (b - a) / np.sqrt(np.maximum((var_a + var_b) / 2, floor))
    best = int(np.argmax(distance))
    return float(distance[best]), float(ordered[k[best] - 1] + ordered[k[best]]) / 2


def _dip(ordered: Floats) -> float:
    """Return the dip: the largest distance of a distribution function to the nearest with one mode.

    A function within d of the empirical one can be convex up to a mode, and concave from there, if the empirical one
    exceeds its greatest convex minorant on the left, and falls short of its least concave majorant on the right, by no
    more than 2 d. The first grows with the mode, the second falls: the smallest maximum is found by halving.
    """
    mirrored = -ordered[::-1]
    count = len(ordered)
    low, high = 0, count - 1
    best = 1.0
    while low <= high:
        mode = (low + high) // 2
        left, right = _bulge(ordered, mode + 1), _bulge(mirrored, count - mode)
        best = min(best, max(left, right) / 2)
        if left < right:
            low = mode + 1
        else:
            high = mode - 1
    return best


def _bulge(ordered: Floats, first: int) -> float:
    """Return how far the distribution function exceeds its greatest convex minorant over its first values."""
    values = ordered[:first].tolist()
    hull: list[tuple[float, int]] = []
    for i, x in enumerate(values):
        if hull and x == hull[-1][0]:
            continue
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) >= (i - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, i))
    minorant = np.interp(ordered[:first], [x for x, _ in hull], [i for _, i in hull])
    return float(np.max(np.arange(1, first + 1) - minorant)) / len(ordered)


def _kind(calls: Floats, spent: Floats, members: Bools, count: int) -> Kind:
    return Kind(
        fraction=float(members.sum()) / count,
        calls=tuple(calls[members].mean(axis=0).tolist()),
        seconds=tuple(spent[members].mean(axis=0).tolist()),
        members=tuple(members.tolist()),
    )
