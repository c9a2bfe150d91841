"""Whether it is known whose calls an LLM gets: which of them name their workflow and its execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scepsy.drift.change_detection import DAY
from scepsy.drift.counters import Floats
from scepsy.drift.double_counting import dispersion_of
from scepsy.drift.series import Callers, Traffic
from scepsy.manifests.gateway import COUNTS_PATH

MISSING = 0.05
"""Part of an LLM's calls that may name no workflow or no execution."""
AGAIN = 1.15
"""Dispersion over parts from which on executions are known to be counted more than once."""
PAST = 180
"""Minutes over which calls past the gateway are looked for, beside the day: few calls begin before them and end in
them."""
HOW = "/workflows/<workflow>/v1 or x-scepsy-workflow; x-scepsy-execution or traceparent"
"""How a call names its workflow and its execution."""
_HOUR = 60


def identified(workflow: str, llms: Sequence[str], traffic: Mapping[str, Traffic], callers: Callers) -> int | str:
    """Return the minutes, up to now, in which nearly all calls to a workflow's LLMs were somebody's.

    Args:
        workflow: its name.
        llms: the LLMs that it calls.
        traffic: what was read, per LLM.
        callers: what the gateway counted.

    Returns:
        Whole hours, or why there are none.
    """
    counted = callers.workflows.get(workflow)
    if counted is None:
        return f"Prometheus has no counts of workflows over the last day: is the gateway's {COUNTS_PATH} scraped?"
    known = DAY
    for llm in llms:
        share, minutes = _unnamed(llm, traffic[llm], callers)
        if not minutes:
            return f"{share:.0%} of the calls to {llm} name no workflow that calls it, or no execution ({HOW})"
        past = max(_past(llm, traffic[llm], callers, stretch) for stretch in (PAST, DAY))
        if past > MISSING:
            return f"{past:.0%} of the calls to {llm} are not among those that the gateway counts"
        known = min(known, minutes)
    low, _ = dispersion_of(counted.parts, known, counted.fine)
    if low > AGAIN and counted.pods[-known:].max() > 1:
        return (
            "calls of the same execution go to several gateway pods, each of which counts it; the Service keeps a"
            " client with one, but not what stands between them"
        )
    return known


def hidden(workflow: str, llms: Sequence[str], traffic: Mapping[str, Traffic], callers: Callers, minutes: int) -> float:
    """Return which part of a workflow's calls to one of its LLMs may be nobody's: all of these, if they were its own.

    Args:
        workflow: its name.
        llms: the LLMs that it calls.
        traffic: what was read, per LLM.
        callers: what the gateway counted.
        minutes: the time that is looked at, up to now; the last hour is too.
    """
    most = 0.0
    for llm in llms:
        known, total = _summed(llm, traffic[llm], callers)
        own = callers.workflows[workflow].calls.get(llm)
        for hours in {1, max(1, minutes // _HOUR)}:
            nobodys = max(0.0, float(total[hours - 1] - known[hours - 1]))
            named = float(own.value[-hours * _HOUR :].sum()) if own is not None else 0.0
            most = max(most, nobodys / (named + nobodys) if nobodys else 0.0)
    return most


def _unnamed(llm: str, own: Traffic, callers: Callers) -> tuple[float, int]:
    """Return which part of an LLM's calls of the last hour are nobody's, and the longest time in which few are."""
    known, total = _summed(llm, own, callers)
    share = 1 - np.where(total > 0, known / np.maximum(total, 1e-9), 1.0)
    few = _HOUR * (1 + np.flatnonzero(share <= MISSING))
    return float(share[0]), int(few[-1]) if share[0] <= MISSING else 0


def _summed(llm: str, own: Traffic, callers: Callers) -> tuple[Floats, Floats]:
    """Return how many of an LLM's calls name everything, and how many there are, in the last 1, 2, … hours."""
    ends = np.arange(_HOUR, DAY + 1, _HOUR) - 1
    known, total = np.zeros(len(ends)), np.zeros(len(ends))
    for counted in callers.workflows.values():
        if llm in counted.calls:
            known += np.cumsum(counted.calls[llm].value[::-1])[ends]
    for slots in (callers.calls.get(llm), own.arrived):
        if slots is not None:
            total = np.maximum(total, np.cumsum(slots.value[::-1])[ends])
    return known, total


def _past(llm: str, own: Traffic, callers: Callers, minutes: int) -> float:
    """Return which part of the calls that engines finished the gateway did not count."""
    counted, done = callers.calls.get(llm), own.calls
    if counted is None or done is None:
        return 0.0
    both = ((counted.observed > 0) & (done.observed > 0))[-minutes:]
    finished = float(done.value[-minutes:][both].sum())
    return 1 - float(counted.value[-minutes:][both].sum()) / finished if finished else 0.0
