"""Tests whether traffic still is as planned: a sequential test of counts per minute, or of tokens per call.

**What is tested.** Per slot of a minute there is a value y (calls, or tokens) and what the Plan expects of it, x
(planned rate x seconds that were observed, or planned tokens per call x calls). The test asks whether y ÷ x is 1, over
every stretch of time that ends now, of LENGTHS minutes: a window-limited generalised likelihood ratio (Lai, Sequential
changepoint detection in quality control and dynamical systems, JRSS B 57, 1995; Siegmund and Venkatraman, Using the
generalized likelihood ratio statistic for sequential detection of a change-point, Annals of Statistics 23, 1995), which
needs to know neither when the change came nor how large it is. With Y and X the sums over a stretch, its statistic is
the signed root of the deviance of a Poisson count, divided by the dispersion, z² = 2 (Y ln(Y/X) - Y + X) ÷ φ (McCullagh
and Nelder, Generalized Linear Models, 1989, section 9.2: quasi-likelihood).

**Arrivals are not Poisson.** Calls come in groups, groups in bursts, and bursts by day. φ is the index of dispersion,
Var[Y] ÷ E[Y], taken from the data: from second differences of y ÷ x over blocks of SCALES minutes, which neither a
level nor a slope disturbs, so that a daily cycle does not count as noise (a Hadamard variance; Baugh, Concepts and
precautions in the use of the Hadamard variance, 1971). Blocks that lie on both sides of the beginning of the stretch
are left out, so that a change does not count as noise. Of the scales up to twice the stretch's length the largest φ
counts, because bursts show only in blocks that are longer than they are; a stretch is tested only where blocks of half
its length, or of an hour, are known. Bursts that last for hours are, to this test, drift.

**How often it errs.** A threshold b is set so that Σ over lengths of (checks per hour that count as independent) x
P(z > b) is the false-alarm rate that is asked for. A stretch of L minutes that moves on by one a minute has the
correlation 1 - τ/L, and so reaches b about b²/L x P(z > b) times a minute (Pickands, Transactions of the AMS 145,
1969), and at most once a minute. It assumes a check every minute for ever: less frequent checks have fewer false
alarms, not different ones, as a scheduled command without state needs. The bound over
lengths is a plain sum, so that it holds whatever they have in common. What it rests on, that z is normal out to b, is
not exact for bursts; results of simulations are in docs/drift-explained.md (`python -m benchmarks drift`). Tests that
need no such thing exist (Shin, Ramdas and Rinaldo, E-detectors, New England Journal of Statistics in Data Science 2,
2024), but for values that are bounded or independent: of bursts of unknown length they say nothing.

**What matters.** A change below MARGIN is not reported, sure as it may be. More than planned must persist: of each
stretch the BURST minutes that exceed the Plan most are left out, so that a shorter burst raises no alarm however high
it is, and the end of the stretch must still be above. Less than planned is tested over a day, because the Plan is for
the busiest hour: there is drift when not one of its blocks (hours, of a day) comes near (an intersection-union test:
Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SLOT = 60.0
"""Seconds per slot; all constants in minutes count slots."""
LENGTHS = (10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 75, 90, 120, 150, 180, 240, 300, 360, 480, 600, 720, 960, 1200, 1440)
"""Minutes of the tested stretches."""
DAY = LENGTHS[-1]
"""Minutes of history that are of use."""
BURST = 5
"""Minutes of a burst that is no drift."""
LEFT_OUT = 1.35
"""Factor by which more must be counted because the minutes that are left out are the highest ones; as simulated."""
MARGIN = 0.15
"""Part by which a value must differ from the Plan to matter; predictions are not better than that."""
LONGEST_BURST = 60
"""Minutes of the longest blocks that are asked for, whatever the stretch."""
SCALES = (5, 10, 15, 30, 60)
"""Minutes of the blocks from which the dispersion is taken."""
FEWEST = 6
"""Triples of blocks from which a dispersion may be taken."""
LEAST = 180
"""Minutes of history that a test needs: with less, bursts would look like drift."""
CAUTION = 1.0
"""Standard errors that are added to a dispersion."""
NOW = 60
"""Minutes, at most, of the end of a stretch that must still be above; a quarter of the stretch where that is less."""
_CAP = 0.9999
"""No probability is stated beyond it: nothing that was simulated supports that."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A value that is no longer as planned.

    Attributes:
        direction: `above` or `below` the Plan.
        ratio: value ÷ plan, since the change.
        minutes: minutes since the change, as estimated; the most likely beginning under the likelihood.
        open_ended: whether it may have begun before the data do.
        z: the statistic.
        confidence: 1 - the probability that chance shows as much in one check.
    """

    direction: Literal["above", "below"]
    ratio: float
    minutes: int
    open_ended: bool
    z: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one value.

    Attributes:
        shift: how it differs from the Plan; None if no difference was found.
        above: why too much could not be tested; empty if it was.
        below: why too little could not be tested; empty if it was.
        ratio: value ÷ plan over the last hour that is known (or less); NaN if nothing is.
        dispersion: φ at the longest scale up to an hour; NaN if unknown.
    """

    shift: Shift | None
    above: str
    below: str
    ratio: float
    dispersion: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of B series, over stretches that end at the last slot.

    Attributes:
        z: (B, LENGTHS) signed statistic of a stretch without its worst burst; NaN where it cannot be tested.
        ratio: (B, LENGTHS) value ÷ plan of the same.
        ending: (B, LENGTHS) value ÷ plan of the end of the stretch.
        dispersion: (B, LENGTHS) φ.
    """

    z: Floats
    ratio: Floats
    ending: Floats
    dispersion: Floats


def threshold(alarms: float) -> float:
    """Return b, the statistic above which there is an alarm.

    Args:
        alarms: false alarms per hour that are allowed to one test.
    """
    low, high = 2.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        checks = sum(min(60.0, 60.0 * middle**2 / length) for length in LENGTHS)
        low, high = (middle, high) if checks * _tail(middle) > alarms else (low, middle)
    return high


def _tail(z: float) -> float:
    """Return P(standard normal > z)."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def needed(ratio: float, alarms: float, minutes: int) -> float:
    """Return the calls per second ÷ dispersion at which half of all such shifts are found within so many minutes.

    Args:
        ratio: rate ÷ planned rate.
        alarms: false alarms per hour that are allowed to the test.
        minutes: minutes after the change.
    """
    deviance = 2 * (ratio * math.log(ratio) - ratio + 1)
    return LEFT_OUT * threshold(alarms) ** 2 / deviance / ((minutes - BURST) * SLOT)


def minutes_to_find(ratio: float, alarms: float, rate: float, dispersion: float) -> float:
    """Return the minutes after which half of all such shifts are found.

    Args:
        ratio: rate ÷ planned rate.
        alarms: false alarms per hour that are allowed to the test.
        rate: planned calls per second.
        dispersion: φ.
    """
    deviance = 2 * (ratio * math.log(ratio) - ratio + 1)
    counts = LEFT_OUT * threshold(alarms) ** 2 * dispersion / deviance
    return max(float(LENGTHS[0]), counts / rate / SLOT + BURST)


def detect_shift(
    value: Floats,
    expected: Floats,
    false_alarm_rate: float,
    *,
    tests: int = 1,
    margin: float = MARGIN,
    low_load_after: int | None = DAY,
) -> Verdict:
    """Test one series.

    Args:
        value: (T,) y per slot, the last one ending now.
        expected: (T,) x per slot; 0 where nothing was observed (the value is ignored there).
        false_alarm_rate: accepted false alarms per hour, over all tests.
        tests: number of tests among which they are divided, each direction of each series counted.
        margin: part below which a change does not matter.
        low_load_after: minutes for which a value must be too low; None to ignore low values.
    """
    y, x = np.atleast_2d(value), np.atleast_2d(expected)
    y = np.where(x > 0, y, 0.0)
    statistics = statistics_of(y, x)
    bound = threshold(false_alarm_rate / tests)
    known = np.isfinite(statistics.z[0])
    hour = min(NOW, y.shape[1])
    seen = float(x[0, -hour:].sum())
    ratio = float(y[0, -hour:].sum()) / seen if seen > 0 else math.nan
    usable = np.flatnonzero(known & (np.array(LENGTHS) <= max(LONGEST_BURST, LENGTHS[0])))
    dispersion = float(statistics.dispersion[0, usable[-1]]) if len(usable) else math.nan
    why = "" if known.any() else _unknown(x[0])
    shift: Shift | None = None
    if exceeds(statistics, bound, margin)[0]:
        shift = _excess(y[0], x[0], float(np.nanmax(statistics.z[0])), tests)
    lack, reason = None, "not checked"
    if low_load_after is not None:
        lack, reason = _lack(y[0], x[0], bound, margin, low_load_after, tests)
    return Verdict(shift or lack, why, reason, ratio, dispersion)


def exceeds(statistics: Statistics, bound: float, margin: float = MARGIN) -> Bools:
    """Return for B series whether there is more than planned."""
    with np.errstate(invalid="ignore"):
        high = (statistics.z > bound) & (statistics.ratio >= 1 + margin) & (statistics.ending >= 1 + margin / 2)
    return np.asarray(high.any(axis=1))


def _unknown(x: Floats) -> str:
    seen = np.flatnonzero(x > 0)
    if not len(seen):
        return "nothing was observed"
    minutes, length = len(seen), len(x) - int(seen[0])
    if minutes < 0.5 * length:
        return f"only {minutes} of the last {length} minutes were observed"
    return f"only {length} minutes are known; how traffic varies by itself shows after {LEAST}"


def _excess(y: Floats, x: Floats, z: float, tests: int) -> Shift:
    """Describe an excess: when it began, and how large it is since."""
    total_y, total_x = np.cumsum(y[::-1]), np.cumsum(x[::-1])
    deviance = np.where(total_y > total_x, _deviance(total_y, total_x), 0.0)
    deviance[: LENGTHS[0] - 1] = 0.0
    minutes = int(np.argmax(deviance)) + 1
    begins = len(x) - int(np.flatnonzero(x > 0)[0])
    p = min(1.0, len(LENGTHS) * tests * _tail(z))
    ratio = float(total_y[minutes - 1] / total_x[minutes - 1])
    return Shift("above", ratio, minutes, minutes >= begins - BURST, z, min(_CAP, 1 - p))


def lack_of(y: Floats, x: Floats, margin: float, low_load_after: int) -> tuple[Floats, Floats, Bools]:
    """Return for B series the statistic of a lack, the largest ratio of any block, and whether it can be tested.

    Args:
        y: (B, T) values.
        x: (B, T) what was expected.
        margin: part below which a change does not matter.
        low_load_after: minutes for which a value must be too low.
    """
    size = block_of(low_load_after)
    number = max(1, low_load_after // size)
    if y.shape[1] < number * size:
        batch = len(y)
        return np.full(batch, np.nan), np.full(batch, np.nan), np.zeros(batch, dtype=bool)
    block_y, block_x = (_blocks(a, size)[:, :number] for a in (y, x))
    seen = _blocks((x > 0).astype(float), size)[:, :number] >= 0.5 * size
    testable = seen.mean(axis=1) >= 0.9
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(seen, block_y / block_x, -np.inf)
        z = np.sqrt(np.maximum(_deviance(block_y, block_x), 0.0))
    z = np.where(ratio < 1, z, 0.0)
    scales = [s for s in SCALES if s <= max(size, SCALES[0])]
    phi = np.ones(len(y))
    for scale in scales:
        over, under, count = _roughness(y, x, scale)
        enough = count[:, -1] >= min(FEWEST, 3)
        with np.errstate(invalid="ignore", divide="ignore"):
            at_scale = over[:, -1] / under[:, -1]
        phi = np.where(enough & np.isfinite(at_scale), np.maximum(phi, at_scale), phi)
    least = np.where(seen, z, np.inf).min(axis=1) / np.sqrt(phi)
    return least, ratio.max(axis=1), testable


def block_of(low_load_after: int) -> int:
    """Return the minutes of the blocks of which none may reach the Plan: a 24th of the time, at least 15."""
    return max(15, low_load_after // 24)


def _lack(
    y: Floats, x: Floats, bound: float, margin: float, low_load_after: int, tests: int
) -> tuple[Shift | None, str]:
    z, ratio, testable = lack_of(y[None, :], x[None, :], margin, low_load_after)
    if not testable[0]:
        known = int((x[-low_load_after:] > 0).sum())
        return None, f"{low_load_after} minutes must be observed, {known} of them were"
    if not (z[0] > bound and ratio[0] <= 1 - margin):
        return None, ""
    begins = len(x) - int(np.flatnonzero(x > 0)[0])
    # Backwards from now, as long as no block reaches the Plan.
    size = block_of(low_load_after)
    with np.errstate(invalid="ignore", divide="ignore"):
        blocks = _blocks(y[None, :], size)[0] / _blocks(x[None, :], size)[0]
    reached = np.flatnonzero(blocks > 1 - margin / 2)
    minutes = int(reached[0]) * size if len(reached) else begins
    mean = float(y[-minutes:].sum() / x[-minutes:].sum())
    confidence = min(_CAP, 1 - min(1.0, tests * _tail(float(z[0]))))
    return Shift("below", mean, minutes, minutes >= begins - size, float(z[0]), confidence), ""


def statistics_of(y: Floats, x: Floats) -> Statistics:
    """Return the statistics of B series.

    Args:
        y: (B, T) values; 0 where x is 0.
        x: (B, T) what was expected; 0 where nothing was observed.
    """
    batch, slots = y.shape
    lengths = [length for length in LENGTHS if length <= slots]
    shape = (batch, len(LENGTHS))
    z, ratio, ending, dispersion = (np.full(shape, np.nan) for _ in range(4))
    if not lengths:
        return Statistics(z, ratio, ending, dispersion)
    back_y, back_x = np.cumsum(y[:, ::-1], axis=1), np.cumsum(x[:, ::-1], axis=1)
    seen = np.cumsum(x[:, ::-1] > 0, axis=1)
    worst_y, worst_x = _worst(y, x)
    roughness = {scale: _roughness(y, x, scale) for scale in SCALES if 3 * scale <= slots}
    known = slots - np.argmax(x > 0, axis=1) >= LEAST
    for i, length in enumerate(lengths):
        block_y = back_y[:, length - 1] - worst_y[:, length - 1]
        block_x = back_x[:, length - 1] - worst_x[:, length - 1]
        phi = _dispersion(roughness, length)
        last = max(LENGTHS[0], min(NOW, length // 4)) - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            root = np.sqrt(np.maximum(_deviance(block_y, block_x), 0.0) / phi)
            ratio[:, i] = block_y / block_x
            ending[:, i] = back_y[:, last] / back_x[:, last]
        enough = known & (block_x > 0) & (seen[:, length - 1] >= max(LENGTHS[0], 0.5 * length))
        z[:, i] = np.where(enough, np.copysign(root, block_y - block_x), np.nan)
        dispersion[:, i] = phi
    return Statistics(z, ratio, ending, dispersion)


def _deviance(y: Floats, x: Floats) -> Floats:
    """Return twice the log likelihood ratio of a Poisson count against its expectation."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * (np.where(y > 0, y * np.log(y / x), 0.0) - y + x))


def _worst(y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return y and x of the BURST slots that exceed the Plan most, among the last 1, 2, … slots, (B, T)."""
    batch, slots = y.shape
    padded_y, padded_x = np.zeros((batch, slots)), np.zeros((batch, slots))
    if slots < BURST:
        return padded_y, padded_x
    reverse_y = np.concatenate([np.zeros((batch, 1)), np.cumsum(y[:, ::-1], axis=1)], axis=1)
    reverse_x = np.concatenate([np.zeros((batch, 1)), np.cumsum(x[:, ::-1], axis=1)], axis=1)
    window_y, window_x = (a[:, BURST:] - a[:, :-BURST] for a in (reverse_y, reverse_x))
    excess = window_y - window_x
    highest = np.maximum.accumulate(excess, axis=1)
    index = np.maximum.accumulate(np.where(excess >= highest, np.arange(excess.shape[1]), 0), axis=1)
    padded_y[:, BURST - 1 :] = np.take_along_axis(window_y, index, axis=1)
    padded_x[:, BURST - 1 :] = np.take_along_axis(window_x, index, axis=1)
    return padded_y, padded_x


def _blocks(values: Floats, size: int) -> Floats:
    """Sum slots into whole blocks of `size`, the latest first, (B, T // size)."""
    batch, slots = values.shape
    number = slots // size
    sums: Floats = values[:, slots - number * size :].reshape(batch, number, size).sum(axis=2)
    return sums[:, ::-1]


def _roughness(y: Floats, x: Floats, scale: int) -> tuple[Floats, Floats, Floats]:
    """Return, cumulated over triples of blocks from the latest on, what the dispersion at a scale is the ratio of.

    A triple's second difference w of y ÷ x has the variance φ r Σ c²/x, with r its mean ratio and c = 1, -2, 1. Triples
    count by their values Σ y, so that quiet times, which say little, weigh little.

    Returns:
        (B, triples + 1) each: Σ weight x w² ÷ (r Σ c²/x), Σ weight, number of triples.
    """
    block_y, block_x = _blocks(y, scale), _blocks(x, scale)
    seen = _blocks((x > 0).astype(float), scale) >= 0.5 * scale
    with np.errstate(invalid="ignore", divide="ignore"):
        r = block_y / block_x
        inverse = 1 / block_x
        w = r[:, :-2] - 2 * r[:, 1:-1] + r[:, 2:]
        spread = inverse[:, :-2] + 4 * inverse[:, 1:-1] + inverse[:, 2:]
        weight = block_y[:, :-2] + block_y[:, 1:-1] + block_y[:, 2:]
        mean = weight / (block_x[:, :-2] + block_x[:, 1:-1] + block_x[:, 2:])
        term = weight * w**2 / (mean * spread)
    whole = seen[:, :-2] & seen[:, 1:-1] & seen[:, 2:] & (weight > 0)
    zero = np.zeros((len(y), 1))
    parts = (np.where(whole, term, 0.0), np.where(whole, weight, 0.0), whole.astype(float))
    over, under, count = (np.concatenate([zero, np.cumsum(part, axis=1)], axis=1) for part in parts)
    return over, under, count


def _dispersion(roughness: dict[int, tuple[Floats, Floats, Floats]], length: int) -> Floats:
    """Return φ for a stretch, (B,): the largest of all scales that count; NaN where too little is known."""
    most, least = max(SCALES[0], 4 * length), min(length // 2, LONGEST_BURST)
    batch = len(next(iter(roughness.values()))[0]) if roughness else 0
    phi, reached = np.ones(batch), np.zeros(batch, dtype=bool)
    for scale, (over, under, count) in roughness.items():
        if scale > most:
            break
        triples = over.shape[1] - 1
        # Triples that lie on both sides of the beginning of the stretch are left out.
        first, last = (min(triples, max(0, n)) for n in (length // scale - 2, -(-length // scale)))
        known = count[:, -1] - (count[:, last] - count[:, first])
        with np.errstate(invalid="ignore", divide="ignore"):
            numerator = over[:, -1] - (over[:, last] - over[:, first])
            at_scale = numerator / (under[:, -1] - (under[:, last] - under[:, first]))
        # Triples overlap: as many as two of them say as much as one. One standard error more, to be sure.
        at_scale = at_scale * (1 + CAUTION * np.sqrt(4 / np.maximum(known, 1)))
        enough = known >= FEWEST
        phi = np.where(enough, np.maximum(phi, at_scale), phi)
        if scale >= least:
            reached |= enough
    return np.where(reached, phi, np.nan)
