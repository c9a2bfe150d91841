"""Samples of counters → what was counted per slot of time, and which time was observed.

Counters only rise; when one falls, its process restarted, and counts from zero. What it counted between its
last sample and its end is lost, as is what a new one counted before its first sample: at most one scrape interval each.
(A restarted counter that exceeds the old value before it is scraped is not recognised.)
Where samples are missing nothing is known: that is not the same as nothing having happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GAP = 660.0
"""Seconds between two samples up to which what was counted is spread evenly over the time between them; a longer time
was not observed. Two steps of the coarsest history that is read, and some."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One time series.

    Attributes:
        labels: its labels, the metric's name not among them.
        at: (N,) Unix seconds, rising.
        value: (N,) finite.
    """

    labels: Mapping[str, str]
    at: Floats
    value: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """What was counted in slots of equal length.

    Attributes:
        end: Unix seconds at which the last slot ends.
        slot: seconds per slot.
        value: (T,) what was counted.
        observed: (T,) seconds of each slot of which that is known.
    """

    end: float
    slot: float
    value: Floats
    observed: Floats


def samples(labels: Mapping[str, str], pairs: Iterable[tuple[float, float]]) -> Samples:
    """Return samples in order, without those that are no number (NaN, infinite) and without repetitions."""
    table = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    at, first = np.unique(table[:, 0], return_index=True)
    return Samples(labels, at, table[first, 1])


def joined(parts: Sequence[Samples]) -> Samples:
    """Return one series from several parts of the same counter, such as coarse history and fine present."""
    at = np.concatenate([part.at for part in parts])
    value = np.concatenate([part.value for part in parts])
    return samples(parts[0].labels, zip(at.tolist(), value.tolist(), strict=True))


def increments(value: Floats) -> Floats:
    """Return by how much a counter rose between its samples, (N - 1,); after a fall it rose from zero."""
    rise = np.diff(value)
    return np.asarray(np.where(rise >= 0, rise, value[1:]))


def counted(series: Samples, end: float, slots: int, slot: float, gap: float = GAP) -> Slots:
    """Return what one counter counted per slot.

    Args:
        series: its samples.
        end: Unix seconds at which the last slot ends.
        slots: number of slots.
        slot: seconds per slot.
        gap: seconds between samples from which on the time between was not observed.
    """
    edges = end - slot * np.arange(slots, -1, -1)
    if len(series.at) < 2:
        return Slots(end, slot, np.zeros(slots), np.zeros(slots))
    apart = np.diff(series.at)
    known = apart <= gap
    risen = np.concatenate([[0.0], np.cumsum(np.where(known, increments(series.value), 0.0))])
    seconds = np.concatenate([[0.0], np.cumsum(np.where(known, apart, 0.0))])
    return Slots(end, slot, *(np.diff(np.interp(edges, series.at, total)) for total in (risen, seconds)))


def together(parts: Sequence[Slots]) -> Slots:
    """Add up counters of one process, such as one per reason why calls ended: every scrape reads all that there are."""
    value = np.sum([part.value for part in parts], axis=0)
    observed = np.max([part.observed for part in parts], axis=0)
    return Slots(parts[0].end, parts[0].slot, value, observed)


def of_targets(targets: Sequence[tuple[Samples, Slots]]) -> Slots:
    """Add up what several processes counted, each of which may come and go.

    Before its first sample and after its last one a process counts for nothing, and nothing is expected of it. In
    between, a time in which one of them was not observed was not observed at all; nor was a time in which there was
    none.

    Args:
        targets: per process a series that stands for when it was there, and what it counted.
    """
    first = targets[0][1]
    slots, slot = len(first.value), first.slot
    edges = first.end - slot * np.arange(slots, -1, -1)
    value = np.zeros(slots)
    missed = np.zeros(slots)
    there = np.zeros(slots)
    for series, counts in targets:
        value += counts.value
        if len(series.at) < 2:
            continue
        alive = np.diff(np.clip(edges, series.at[0], series.at[-1]))
        there = np.maximum(there, alive)
        missed = np.maximum(missed, alive - counts.observed)
    observed = np.clip(there - missed, 0.0, slot)
    # Scrapes fall somewhere into a slot: what little is missing at its edge is no gap.
    return Slots(first.end, slot, value, np.where(observed > 0.999 * slot, slot, observed))


def alive_at(series: Samples, end: float, within: float) -> bool:
    """Return whether a series has a sample within the last seconds."""
    return bool(len(series.at)) and end - float(series.at[-1]) <= within
