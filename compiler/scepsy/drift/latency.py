"""Checks how long the calls of every LLM take against the prediction at the load of that time.

Measured is what engines report (from the arrival at the engine to the last token) plus the wait in the gateway. For
groups of calls the prediction is that of their last call, which is later than the mean one: there only slower calls are
found, not faster ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scepsy.compilation import Inputs
from scepsy.documents import Plan
from scepsy.documents.drift_result import Severity
from scepsy.documents.plan import PlannedLlm
from scepsy.documents.units import format_duration
from scepsy.drift.call_changes import Change, load_of
from scepsy.drift.change_detection import SLOT, Shift, Verdict, detect_shift
from scepsy.drift.collector import Collector, Settings, tests_of
from scepsy.drift.counters import Floats, Slots
from scepsy.drift.finding import Check, Finding, Report
from scepsy.drift.impact import call_seconds
from scepsy.drift.kinds import LATENCY
from scepsy.drift.llm_traffic import TrafficCheck, instances_of
from scepsy.drift.series import Traffic

MARGIN = 0.30
"""Part by which latency must differ from the prediction: at the same load predictions are not better than that."""
ROLLOUT = 900.0
"""Seconds after a change of the Plan in which instances load their models; the latency of calls in it does not count.
"""
_LOADS = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.05, 1.15, 1.3, 1.5, 2.0])
"""Multiples of the planned load at which latency is predicted; between them it is interpolated."""
_SMOOTH = 15
"""Slots over which the load is averaged that latency is predicted for."""
_HOUR = slice(-60, None)
"""The last hour of slots."""


@dataclass(frozen=True)
class LatencyCheck:
    """The result of the check.

    Attributes:
        report: findings and checks.
        change: the factors of seconds per call, of LLMs with a finding.
        latency: by LLM, mean seconds of a call over the last hour: observed, and predicted at that load.
    """

    report: Report
    change: Change = field(default_factory=Change)
    latency: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def check_latency(
    inputs: Inputs,
    plan: Plan,
    traffic: Mapping[str, Traffic],
    end: float,
    settings: Settings,
    found: TrafficCheck,
    changed: float | None = None,
) -> LatencyCheck:
    """Compare how long calls take with the prediction.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        traffic: what was read, per LLM.
        end: the time of the check, Unix seconds.
        settings: what counts as a change.
        found: the result for traffic; other numbers of tokens count for the prediction, so that their cost is not
            found twice.
        changed: when the Plan last changed, Unix seconds: calls before it, and while instances moved, say nothing
            about it; None if not known.
    """
    collector = Collector(settings, tests_of(plan), end)
    since = -math.inf if changed is None else changed + ROLLOUT
    slower: dict[str, float] = {}
    latency: dict[str, tuple[float, float]] = {}
    for llm in plan.spec.llms:
        times = _times(inputs, llm, traffic[llm.name], found, end, since)
        if isinstance(times, str):
            collector.checks.append(Check("profiles", llm.name, "latency", times))
            continue
        shift, observed, predicted = _check(collector, inputs, plan, llm, traffic[llm.name], times)
        if shift is not None:
            slower[llm.name] = shift.ratio
        if predicted > 0:
            latency[llm.name] = (observed, predicted)
    return LatencyCheck(collector.report, Change(seconds=slower), latency)


@dataclass(frozen=True)
class _Times:
    """Seconds that the calls of one LLM took, per slot; both 0 where they cannot be compared.

    Attributes:
        calls: (T,) calls that ended.
        seconds: (T,) what these took together.
        expected: (T,) what is predicted for them.
        typical: mean predicted seconds of a call; 1 if not known.
    """

    calls: Floats
    seconds: Floats
    expected: Floats
    typical: float


def _times(
    inputs: Inputs, llm: PlannedLlm, traffic: Traffic, found: TrafficCheck, end: float, since: float
) -> _Times | str:
    """Return observed and predicted times of calls, or why they cannot be compared."""
    if traffic.calls is None or traffic.seconds is None:
        return "Prometheus has no series of it over the last day"
    predicted = call_seconds(inputs, llm, _LOADS.tolist(), Change())
    longer = Change(input=found.change.input, output=found.change.output)
    predicted_now = call_seconds(inputs, llm, _LOADS.tolist(), longer) if llm.name in found.longer else predicted
    if isinstance(predicted, str):
        return predicted
    if isinstance(predicted_now, str):
        return predicted_now
    if traffic.arrived is None and traffic.engines < llm.replicas:
        return f"{traffic.engines} of {llm.replicas} instances are scraped, so the load is not known"
    calls = traffic.calls.value
    load = _smooth(traffic.calls if traffic.arrived is None else traffic.arrived) / llm.predicted.load
    before = len(load) - found.longer.get(llm.name, 0)
    at = np.concatenate([_interpolated(load[:before], predicted), _interpolated(load[before:], predicted_now)])
    if not np.isfinite(at[calls > 0]).any() and (calls > 0).any():
        return "the load is beyond the range of the prediction"
    queued = traffic.queued if traffic.queued is not None else np.zeros(len(load))
    seconds = traffic.seconds.value + np.nan_to_num(queued) * calls
    in_time = end - SLOT * np.arange(len(load), 0, -1) >= since
    counts = np.isfinite(at) & (traffic.seconds.observed > 0) & in_time
    expected = np.where(counts, np.nan_to_num(at) * calls, 0.0)
    typical = float(np.nanmean(at)) if np.isfinite(at).any() else 1.0
    return _Times(calls, np.where(expected > 0, seconds, 0.0), expected, typical)


def _check(
    collector: Collector, inputs: Inputs, plan: Plan, llm: PlannedLlm, traffic: Traffic, times: _Times
) -> tuple[Shift | None, float, float]:
    """Check the latency of one LLM; return its shift, and mean seconds over the last hour: observed, predicted."""
    grouped = _grouped(inputs, llm)
    verdict = _verdict(collector, times, grouped=grouped, queue_known=traffic.queued is not None)
    calls = max(1.0, float(np.where(times.expected > 0, times.calls, 0.0)[_HOUR].sum()))
    observed, predicted = (float(values[_HOUR].sum()) / calls for values in (times.seconds, times.expected))
    comparison = f"{format_duration(observed)}, predicted {format_duration(predicted)} at this load"
    note = comparison
    if traffic.queued is None:
        note += "; the wait in the gateway is not known"
    elif grouped:
        note += "; predicted is the last call of a group"
    collector.add_check(Check("profiles", llm.name, "latency", note=note), verdict)
    shift = verdict.shift
    if shift is not None:
        what = f"calls take {shift.ratio:.2g} times as long as profile {llm.profile.name} predicts at their load"
        severity: Severity = "warning" if shift.direction == "above" else "info"
        collector.findings.append(
            Finding(
                kind=LATENCY[shift.direction],
                severity=severity,
                subject=llm.name,
                what=f"{what} ({comparison}); measure again: scepsy profile plan",
                since=collector.end - shift.minutes * SLOT,
                confidence=shift.confidence,
                instances=instances_of(plan, llm.name),
                at_least_since=shift.open_ended,
            )
        )
    return shift, observed, predicted


def _verdict(collector: Collector, times: _Times, *, grouped: bool, queue_known: bool) -> Verdict:
    """Test observed against predicted times."""
    skipped = ""
    if grouped:
        skipped = "only the last call of a group is predicted"
    elif not queue_known:
        skipped = "the gateway is not scraped"
    settings = collector.settings
    # In units of one call: a dispersion of at least 1 means that calls differ as much as exponential times do.
    verdict = detect_shift(
        times.seconds / times.typical,
        times.expected / times.typical,
        settings.false_alarm_rate,
        tests=collector.tests,
        margin=MARGIN,
        low_load_after=None if skipped else settings.low_load_after,
    )
    return replace(verdict, below=skipped or verdict.below)


def _interpolated(load: Floats, predicted: Floats) -> Floats:
    known = np.where(np.isfinite(predicted), predicted, np.nan)
    return np.asarray(np.interp(load, _LOADS, known, right=np.nan))


def _smooth(slots: Slots) -> Floats:
    """Return the rate around every slot: calls of the last minutes ÷ the seconds of them that were observed."""
    sums = [np.concatenate([np.zeros(_SMOOTH), np.cumsum(values)]) for values in (slots.value, slots.observed)]
    calls, seconds = (total[_SMOOTH:] - total[:-_SMOOTH] for total in sums)
    return np.asarray(calls / np.maximum(seconds, 1.0))


def _grouped(inputs: Inputs, llm: PlannedLlm) -> bool:
    load = load_of(inputs, llm.name, Change())
    return load is None or any(size > 1 for caller in load.callers for size, _ in caller.demand.groups)
