"""Attributes calls to workflows: which part of an LLM's calls name their workflow and execution."""

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
"""Minutes over which calls that bypass the gateway are sought, besides the day: few calls begin before and end in them.
"""
HOW = "/workflows/<workflow>/v1 or x-scepsy-workflow; x-scepsy-execution or traceparent"
"""How a call names its workflow and its execution."""
_HOUR = 60


def identified(workflow: str, llms: Sequence[str], traffic: Mapping[str, Traffic], callers: Callers) -> int | str:
    """Return the minutes, up to now, in which nearly all calls to a workflow's LLMs had a name.

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
            "calls of the same execution reach several gateway pods, and each counts the execution; the Service keeps a"
            " client at one pod, but a proxy in between may not"
        )
    return known


def hidden(workflow: str, llms: Sequence[str], traffic: Mapping[str, Traffic], callers: Callers, minutes: int) -> float:
    """Return which part of a workflow's calls to one of its LLMs may lack a name, if all calls without one are its own.

    Args:
        workflow: its name.
        llms: the LLMs that it calls.
        traffic: what was read, per LLM.
        callers: what the gateway counted.
        minutes: the checked time, up to now; the last hour is checked too.
    """
    most = 0.0
    for llm in llms:
        known, total = _summed(llm, traffic[llm], callers)
        counted = callers.workflows[workflow].calls.get(llm)
        for hours in {1, max(1, minutes // _HOUR)}:
            unnamed = max(0.0, float(total[hours - 1] - known[hours - 1]))
            named = float(counted.value[-hours * _HOUR :].sum()) if counted is not None else 0.0
            most = max(most, unnamed / (named + unnamed) if unnamed else 0.0)
    return most


def _unnamed(llm: str, traffic: Traffic, callers: Callers) -> tuple[float, int]:
    """Return which part of an LLM's calls of the last hour lack a name, and the longest time in which few do."""
    known, total = _summed(llm, traffic, callers)
    share = 1 - np.where(total > 0, known / np.maximum(total, 1e-9), 1.0)
    few = _HOUR * (1 + np.flatnonzero(share <= MISSING))
    return float(share[0]), int(few[-1]) if share[0] <= MISSING else 0


def _summed(llm: str, traffic: Traffic, callers: Callers) -> tuple[Floats, Floats]:
    """Return how many of an LLM's calls name everything, and how many there are, in the last 1, 2, … hours."""
    ends = np.arange(_HOUR, DAY + 1, _HOUR) - 1
    known, total = np.zeros(len(ends)), np.zeros(len(ends))
    for counted in callers.workflows.values():
        if llm in counted.calls:
            known += np.cumsum(counted.calls[llm].value[::-1])[ends]
    for slots in (callers.calls.get(llm), traffic.arrived):
        if slots is not None:
            total = np.maximum(total, np.cumsum(slots.value[::-1])[ends])
    return known, total


def _past(llm: str, traffic: Traffic, callers: Callers, minutes: int) -> float:
    """Return which part of the calls that engines finished the gateway did not count."""
    counted, done = callers.calls.get(llm), traffic.calls
    if counted is None or done is None:
        return 0.0
    both = ((counted.observed > 0) & (done.observed > 0))[-minutes:]
    finished = float(done.value[-minutes:][both].sum())
    return 1 - float(counted.value[-minutes:][both].sum()) / finished if finished else 0.0
