"""How often the test of traffic errs, and how soon it finds a shift, on simulated traffic with fixed seeds."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from scepsy.drift.change_detection import DAY, MARGIN, Floats, exceeds, lack_of, needed, statistics_of, threshold

HOURS = 1000
LIMITS = 4
"""So many times as long, where alarms are to be expected."""
EVERY = 5
"""Minutes between two looks at steady traffic."""
TRIALS = 100
AFTER = 180
"""Minutes after a shift that are looked at, every one of them."""
ALARMS = 1e-4
"""False alarms per hour: the command's default."""
TESTS = 26
"""Two LLMs with ten tests each, and a workflow that calls both: its executions, and the calls to each per execution."""
_CHUNK = 500

Made = Callable[[np.random.Generator, float, int], Floats]
"""Counts per minute, at a mean rate per second, for so many minutes."""


def poisson(rng: np.random.Generator, rate: float, minutes: int) -> Floats:
    return rng.poisson(rate * 60, minutes).astype(float)


def groups(size: int) -> Made:
    """Calls that come in groups, as of a fan-out; the groups at Poisson times."""
    return lambda rng, rate, minutes: size * rng.poisson(rate / size * 60, minutes).astype(float)


def bursts(high: float, on: float, off: float, size: int = 1) -> Made:
    """A Markov-modulated Poisson process: `on` minutes at `high` times the mean rate, `off` minutes below it."""

    def made(rng: np.random.Generator, rate: float, minutes: int) -> Floats:
        low = (1 - high * on / (on + off)) / (off / (on + off))
        part, at, busy = np.zeros(minutes), 0.0, False
        while at < minutes:
            lasts = float(rng.exponential(on if busy else off))
            if busy:
                edges = np.clip(np.arange(minutes + 1)[int(at) : int(at + lasts) + 3], at, min(minutes, at + lasts))
                part[int(at) : int(at) + len(edges) - 1] += np.diff(edges)
            at, busy = at + lasts, not busy
        return size * rng.poisson(rate / size * 60 * (low + (high - low) * part)).astype(float)

    return made


def cycle(made: Made) -> Made:
    """Traffic by day: at its busiest as planned, at night two fifths of it."""

    def by_day(rng: np.random.Generator, rate: float, minutes: int) -> Floats:
        hour = 0.7 + 0.3 * np.cos(2 * np.pi * np.arange(minutes) / DAY)
        return rng.binomial(made(rng, rate, minutes).astype(np.int64), hour).astype(float)

    return by_day


def with_peaks(made: Made, high: float, lasts: int, every: int) -> Made:
    """Single bursts on top, such as a batch job's, `every` so many minutes about."""

    def peaked(rng: np.random.Generator, rate: float, minutes: int) -> Floats:
        counts = made(rng, rate, minutes)
        for begins in np.cumsum(rng.exponential(every, 2 * minutes // every + 10)).astype(int):
            own = counts[begins : begins + lasts]
            own += rng.poisson((high - 1) * rate * 60, len(own))
        return counts

    return peaked


def looks(value: Floats, expected: Floats, every: int) -> tuple[int, int, float]:
    """Look at a day of minutes every so often; alarms of an excess, of a lack (as episodes), and the largest z."""
    bound = threshold(ALARMS / TESTS)
    days = [sliding_window_view(own, DAY)[::every] for own in (value, expected)]
    above, below, largest = [], [], -np.inf
    for at in range(0, len(days[0]), _CHUNK):
        y, x = (np.ascontiguousarray(own[at : at + _CHUNK]) for own in days)
        found = statistics_of(y, x)
        above.append(exceeds(found, bound))
        largest = max(largest, float(np.nanmax(found.z)))
        z, ratio, enough = lack_of(y, x, MARGIN, DAY)
        below.append(enough & (z > bound) & (ratio <= 1 - MARGIN))
    return _episodes(np.concatenate(above)), _episodes(np.concatenate(below)), largest


def _episodes(alarm: np.ndarray) -> int:
    return int(alarm[0]) + int(np.count_nonzero(alarm[1:] & ~alarm[:-1]))


def delays(before: Floats, after: Floats, expected: Floats) -> Floats:
    """Return minutes until an excess is found, per trial; infinite where it is not.

    Args:
        before: (N, DAY) values.
        after: (N, AFTER) values.
        expected: (N, DAY + AFTER) what is planned of them.
    """
    bound = threshold(ALARMS / TESTS)
    whole = np.concatenate([before, after], axis=1)
    found = np.full(len(whole), np.inf)
    for minute in range(1, after.shape[1] + 1):
        open_ = np.flatnonzero(np.isinf(found))
        if not len(open_) or (minute > 60 and minute % 5):
            continue
        own = slice(minute, DAY + minute)
        statistics = statistics_of(np.ascontiguousarray(whole[open_, own]), np.ascontiguousarray(expected[open_, own]))
        found[open_[exceeds(statistics, bound)]] = minute
    return found


def _shown(found: Floats) -> str:
    def minutes(quantile: float) -> str:
        value = float(np.quantile(found, quantile, method="inverted_cdf"))
        return f"{value:.0f} min" if np.isfinite(value) else f"> {AFTER} min"

    within = np.mean(found <= 15)
    return f"half within {minutes(0.5):>9}, 95 % within {minutes(0.95):>9}; {within:4.0%} within 15 min"


def main() -> None:
    """Count false alarms over steady traffic, then measure delays over shifted traffic."""
    began = time.monotonic()
    rng = np.random.default_rng(7)
    print(f"Drift of traffic: {HOURS:,} hours of each kind, a look every {EVERY} minutes,", end=" ")
    print(f"{ALARMS:g} false alarms/hour allowed over {TESTS} tests (z > {threshold(ALARMS / TESTS):.2f})")
    print("  false alarms (above, below), largest z")
    for name, made, rate in _STEADY:
        value = made(rng, rate, HOURS * 60)
        _counted(name, rate, looks(value, np.full(len(value), rate * 60), EVERY))
    calls = poisson(rng, 2.0, HOURS * 60)
    tokens = _tokens(rng, calls, 1.0)
    _counted("tokens per call, lognormal with sigma 1", 2.0, looks(tokens, 400 * calls, EVERY))
    print(f"  the same of traffic that it was not made for, in {LIMITS * HOURS:,} hours")
    for name, made, rate in _LIMITS:
        value = made(rng, rate, LIMITS * HOURS * 60)
        _counted(name, rate, looks(value, np.full(len(value), rate * 60), EVERY))
    print(f"  found, after a day as planned ({TRIALS} trials each)")
    for name, before, after, rate, factor in _SHIFTED:
        first = np.stack([before(rng, rate, DAY) for _ in range(TRIALS)])
        then = np.stack([after(rng, rate * factor, AFTER) for _ in range(TRIALS)])
        found = delays(first, then, np.full((TRIALS, DAY + AFTER), rate * 60))
        print(f"    {name:50} {rate:5g}/s  {_shown(found)}")
    for rate in (0.5, 2.0):
        counts = np.stack([poisson(rng, rate, DAY + AFTER) for _ in range(TRIALS)])
        used = np.concatenate([_tokens(rng, counts[:, :DAY], 1.0), _tokens(rng, counts[:, DAY:], 1.3)], axis=1)
        found = delays(used[:, :DAY], used[:, DAY:], 400 * counts)
        print(f"    {'tokens per call +30 %, lognormal with sigma 1':50} {rate:5g}/s  {_shown(found)}")
    for below in (DAY, 60, 15):
        print(f"    {f'Poisson -30 %, --below {below} min':50} {2:5g}/s  {_lacking(rng, below)}")
    for minutes in (15, 30, 60):
        rate = needed(1.3, ALARMS / TESTS, minutes)
        print(f"  half of all shifts of +30 % are found within {minutes} min from {rate:.2f} calls/s ÷ dispersion on")
    print(f"  took {time.monotonic() - began:.0f} s")


def _counted(name: str, rate: float, found: tuple[int, int, float]) -> None:
    above, below, largest = found
    print(f"    {name:58} {rate:5g}/s  {above:3d} {below:3d}   {largest:5.1f}")


def _tokens(rng: np.random.Generator, calls: Floats, factor: float) -> Floats:
    """Return the sums of lognormal numbers of tokens (mean 400), as many as there are calls."""
    flat = calls.astype(np.int64).ravel()
    drawn = rng.lognormal(np.log(400 * factor) - 0.5, 1.0, int(flat.sum()))
    ends = np.cumsum(flat)
    total = np.concatenate([[0.0], np.cumsum(drawn)])
    return np.asarray((total[ends] - total[ends - flat]).reshape(calls.shape))


def _lacking(rng: np.random.Generator, below: int) -> str:
    bound = threshold(ALARMS / TESTS)
    after = below + 120
    counts = np.stack([np.concatenate([poisson(rng, 2.0, DAY), poisson(rng, 1.4, after)]) for _ in range(TRIALS)])
    found = np.full(TRIALS, np.inf)
    for minute in range(max(5, below - 60), after + 1, 5):
        y = np.ascontiguousarray(counts[:, minute : DAY + minute])
        z, ratio, enough = lack_of(y, np.full_like(y, 120.0), MARGIN, below)
        hit = enough & (z > bound) & (ratio <= 1 - MARGIN) & np.isinf(found)
        found[hit] = minute
    part = np.isfinite(found).mean()
    median = float(np.quantile(found, 0.5, method="inverted_cdf"))
    return f"half within {median:.0f} min; {part:.0%} within {after} min"


_STEADY: tuple[tuple[str, Made, float], ...] = (
    ("Poisson", poisson, 0.2),
    ("Poisson", poisson, 2.0),
    ("Poisson", poisson, 50.0),
    ("groups of 20", groups(20), 1.0),
    ("groups of 20", groups(20), 20.0),
    ("bursts: 5 min at 3 times the mean, 15 min below", bursts(3, 5, 15), 2.0),
    ("bursts: 5 min at 3 times the mean, 15 min below", bursts(3, 5, 15), 20.0),
    ("bursts: 10 min at 1.6 times the mean, 20 min below", bursts(1.6, 10, 20), 20.0),
    ("bursts of groups of 20: 5 min at 3 times the mean", bursts(3, 5, 15, 20), 20.0),
    ("daily cycle", cycle(poisson), 2.0),
    ("daily cycle", cycle(poisson), 50.0),
    ("daily cycle of groups of 20", cycle(groups(20)), 20.0),
    ("Poisson, and every three hours 5 min at 10 times the rate", with_peaks(poisson, 10, 5, 180), 2.0),
)

_LIMITS: tuple[tuple[str, Made, float], ...] = (
    ("Poisson, and every three hours 10 min at 3 times the rate", with_peaks(poisson, 3, 10, 180), 2.0),
    ("bursts: half an hour at twice the mean, an hour below", bursts(2, 30, 60), 5.0),
    ("bursts: 8 min at four times the mean, five hours below", bursts(4, 8, 300), 5.0),
)

_SHIFTED: tuple[tuple[str, Made, Made, float, float], ...] = (
    ("Poisson +30 %", poisson, poisson, 1.0, 1.3),
    ("Poisson +30 %", poisson, poisson, 2.0, 1.3),
    ("Poisson +30 %", poisson, poisson, 4.0, 1.3),
    ("Poisson +30 %", poisson, poisson, 20.0, 1.3),
    ("Poisson +60 %", poisson, poisson, 0.5, 1.6),
    ("Poisson +60 %", poisson, poisson, 2.0, 1.6),
    ("groups of 20, +30 % of them", groups(20), groups(20), 20.0, 1.3),
    ("groups of 20, +30 % of them", groups(20), groups(20), 40.0, 1.3),
    ("groups of 20 become groups of 26", groups(20), groups(26), 40.0, 1.3),
    ("bursts (5 min at 3 times the mean) +60 %", bursts(3, 5, 15), bursts(3, 5, 15), 20.0, 1.6),
)
