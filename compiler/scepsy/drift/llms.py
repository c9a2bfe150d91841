"""Traffic and latency of every LLM against the Plan: findings, and what could not be judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scepsy.compilation import Inputs
from scepsy.documents import Plan
from scepsy.documents.plan import PlannedLlm
from scepsy.documents.units import format_duration, significant
from scepsy.drift.change_detection import MARGIN, SLOT, Shift, Verdict, judge
from scepsy.drift.collector import Ledger, Settings, rate, tests_of
from scepsy.drift.counters import Floats, Slots
from scepsy.drift.finding import Finding, Judged, Report, Severity
from scepsy.drift.impact import Change, call_seconds, load_of
from scepsy.drift.series import Traffic
from scepsy.performance import MAX_UTILISATION

SLOWER = 0.30
"""Part by which latency must differ from the prediction: at the same load predictions are not better than that."""
_LOADS = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.05, 1.15, 1.3, 1.5, 2.0])
"""Multiples of the planned load at which latency is predicted; between them it is interpolated."""
LEAST = 1e-3
"""Least factor that a change is taken for: without any call nothing could be predicted."""
_SMOOTH = 15
"""Slots over which the load is averaged that latency is predicted for."""
ROLLOUT = 900.0
"""Seconds after a change of the Plan in which instances load their models; what calls take then is not judged."""


@dataclass(frozen=True)
class Observed:
    """What one look at traffic gave.

    Attributes:
        report: the findings, without what they cost, and what was judged.
        change: how calls differ, of LLMs that findings are about.
        longer: by LLM, minutes since its calls have had other numbers of tokens.
        latency: by LLM, mean seconds of a call over the last hour: observed, and predicted at that load.
    """

    report: Report
    change: Change
    longer: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def judge_traffic(
    inputs: Inputs, plan: Plan, traffic: Mapping[str, Traffic], end: float, settings: Settings, callers: Change
) -> Observed:
    """Judge the load and the token counts of every LLM.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        traffic: what was read, per LLM.
        end: when, Unix seconds.
        settings: what is looked for.
        callers: what was found of workflows; load that this explains is not found again.
    """
    look = Ledger(settings, tests_of(plan), end)
    calls: dict[str, float] = {}
    tokens: dict[str, dict[str, float]] = {"input": {}, "output": {}}
    longer: dict[str, int] = {}
    for llm in plan.spec.llms:
        own = traffic[llm.name]
        factor = _load(look, inputs, plan, llm, own, callers)
        if factor is not None:
            calls[llm.name] = factor
        for which, factors in tokens.items():
            changed = _tokens(look, inputs, plan, llm, own, which)
            if changed is not None:
                factors[llm.name] = changed.ratio
                longer[llm.name] = max(longer.get(llm.name, 0), changed.minutes)
    change = replace(callers, calls=calls, input=tokens["input"], output=tokens["output"])
    return Observed(look.report, change, longer)


def _load(look: Ledger, inputs: Inputs, plan: Plan, llm: PlannedLlm, own: Traffic, callers: Change) -> float | None:
    """Judge the load of one LLM; return by which factor it is off beyond what its callers explain, if it is."""
    planned = llm.predicted.load
    if own.calls is None and own.arrived is None:
        reason = f'Prometheus has no series of it in namespace "{plan.spec.namespace}" over the last day'
        look.judged.append(Judged("traffic", llm.name, "load", reason))
        return None
    # What arrives counts. Where it is known, it also says what engines that are full do not get to see; whoever goes
    # past the gateway is missing there, so that it cannot say alone that there is too little.
    shifts: list[Shift | None] = []
    for slots, source in ((own.arrived, "the gateway"), (own.calls, "the engines")):
        if slots is None:
            continue
        verdict = _judged(look, slots, planned * slots.observed, llm, own)
        note = f"{rate(verdict.ratio * planned)} at {source}, planned {rate(planned)}"
        note += look.visible(planned, verdict)
        look.tell("traffic", llm.name, f"load at {source}", verdict, note)
        shifts.append(verdict.shift)
    above = [shift for shift in shifts if shift is not None and shift.direction == "above"]
    lacks = [shift for shift in shifts if shift is not None and shift.direction == "below"]
    found = above[0] if above else lacks[-1] if len(lacks) == len(shifts) else None
    if own.arrived is None:
        missing = "the gateway is not scraped: calls that wait there, or give up, are not seen"
        look.judged.append(Judged("traffic", llm.name, "load at the gateway", missing))
    if found is None:
        return None
    mean = _mean_load(inputs, llm)
    if found.direction == "below" and found.ratio * planned > (1 - MARGIN) * mean:
        return None  # planned for more than the mean on purpose
    explained = explained_by(inputs, llm.name, callers)
    # Of what the documents say now, which people may have changed since the Plan was compiled: a compile goes by these.
    known = load_of(inputs, llm.name, callers)
    beyond = max(LEAST, found.ratio * planned / known.calls if known is not None and known.calls else 1.0)
    if explained != 1 and (beyond < 1 + MARGIN if found.direction == "above" else beyond > 1 - MARGIN):
        return None
    utilisation = llm.predicted.utilisation * found.ratio
    severity: Severity = "info"
    if found.direction == "above":
        severity = "critical" if utilisation > MAX_UTILISATION else "warning"
    what = f"{rate(found.ratio * planned)} calls instead of the planned {rate(planned)} ({found.ratio - 1:+.0%})"
    if explained != 1:
        what += f", of which what is found of workflows explains {explained - 1:+.0%}"
    look.find(f"load-{found.direction}", severity, llm.name, what, found, instances_of(plan, llm.name))
    return beyond


def explained_by(inputs: Inputs, llm: str, callers: Change) -> float:
    """Return by which factor the load on an LLM differs because of what was found of workflows."""
    planned, seen = load_of(inputs, llm, Change()), load_of(inputs, llm, callers)
    return seen.calls / planned.calls if planned is not None and seen is not None and planned.calls else 1.0


def instances_of(plan: Plan, *llms: str) -> tuple[str, ...]:
    """Return the names of the instances of some LLMs."""
    return tuple(instance.name for instance in plan.spec.instances if instance.llm in llms)


def _mean_load(inputs: Inputs, llm: PlannedLlm) -> float:
    """Return the load at the target rates with mean executions, which a plan for heavy ones lies above."""
    rates = {name: w.spec.target.per_second for name, w in inputs.workflows.items()}
    return sum(rates[n] * d.llms[llm.name].calls for n, d in inputs.demands.items() if llm.name in d.llms)


def _tokens(look: Ledger, inputs: Inputs, plan: Plan, llm: PlannedLlm, own: Traffic, which: str) -> Shift | None:
    """Judge prompt or generated tokens per call; return by how much they are off, if they are."""
    slots = own.input if which == "input" else own.output
    what = "prompt tokens" if which == "input" else "generated tokens"
    if own.calls is None or slots is None:
        look.judged.append(Judged("traffic", llm.name, what, "Prometheus has no series of them over the last day"))
        return None
    planned = _planned_tokens(inputs, llm, which)
    if planned is None:
        look.judged.append(Judged("traffic", llm.name, what, "no workflow calls it any more"))
        return None
    expected = planned * np.where(slots.observed > 0, own.calls.value, 0.0)
    verdict = _judged(look, slots, expected, llm, own)
    note = f"{_number(verdict.ratio * planned)} per call, planned {_number(planned)}"
    if which == "input" and own.cached is not None:
        cached = _recent(own.cached.value) / max(1.0, _recent(own.calls.value))
        note += f"; {_number(cached)} of them cached"
    look.tell("traffic", llm.name, what, verdict, note)
    shift = verdict.shift
    if shift is None:
        return None
    text = f"{_number(shift.ratio * planned)} {what} per call instead of {_number(planned)} ({shift.ratio - 1:+.0%})"
    severity: Severity = "warning" if shift.direction == "above" else "info"
    kind = f"{which}-tokens-{shift.direction}"
    look.find(kind, severity, llm.name, text, shift, instances_of(plan, llm.name))
    return replace(shift, ratio=max(LEAST, shift.ratio))


def _planned_tokens(inputs: Inputs, llm: PlannedLlm, which: str) -> float | None:
    load = load_of(inputs, llm.name, Change())
    if load is None or not load.calls:
        return None
    means = [(c.calls, c.demand.input.mean if which == "input" else c.demand.output.mean) for c in load.callers]
    return max(1.0, sum(calls * mean for calls, mean in means) / load.calls)


def _recent(values: Floats) -> float:
    return float(values[-60:].sum())


def _judged(look: Ledger, slots: Slots, expected: Floats, llm: PlannedLlm, own: Traffic) -> Verdict:
    below = look.settings.below
    verdict = judge(slots.value, expected, look.settings.alarms, tests=look.tests, below=below)
    if below is None or own.calls is None or own.engines >= llm.replicas:
        return verdict
    # What is missing would be taken for a lack.
    shift = verdict.shift if verdict.shift and verdict.shift.direction == "above" else None
    reason = f"{own.engines} of {llm.replicas} instances are scraped"
    return Verdict(shift, verdict.above, reason, verdict.ratio, verdict.dispersion)


def judge_latency(
    inputs: Inputs,
    plan: Plan,
    traffic: Mapping[str, Traffic],
    end: float,
    settings: Settings,
    seen: Observed,
    changed: float | None = None,
) -> Observed:
    """Judge how long calls take against the prediction at the load of that time.

    Measured is what engines say (from the arrival at the engine to the last token) and what calls waited in the
    gateway. The prediction for groups of calls is that of their last call, which is later than the mean one: there it
    is only judged whether calls are slower.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        traffic: what was read, per LLM.
        end: when, Unix seconds.
        settings: what is looked for.
        seen: what was found of the traffic; other numbers of tokens are taken into account, so that what they cost is
            not found twice.
        changed: when the Plan last changed, Unix seconds: what calls took before, and while instances moved, says
            nothing about it; None if nobody knows.
    """
    look = Ledger(settings, tests_of(plan), end)
    since = -math.inf if changed is None else changed + ROLLOUT
    slower: dict[str, float] = {}
    latency: dict[str, tuple[float, float]] = {}
    for llm in plan.spec.llms:
        compared = _latency(look, inputs, plan, llm, traffic[llm.name], seen, since)
        if compared is None:
            continue
        shift, figures = compared
        if shift is not None:
            slower[llm.name] = shift
        if figures[1] > 0:
            latency[llm.name] = figures
    return Observed(look.report, Change(seconds=slower), latency=latency)


def _latency(
    look: Ledger, inputs: Inputs, plan: Plan, llm: PlannedLlm, own: Traffic, seen: Observed, since: float
) -> tuple[float | None, tuple[float, float]] | None:
    """Judge the latency of one LLM from a time on; return its factor, if it is off, and observed and predicted."""
    what = "latency"
    if own.calls is None or own.seconds is None:
        look.judged.append(Judged("profiles", llm.name, what, "Prometheus has no series of it over the last day"))
        return None
    predicted = call_seconds(inputs, llm, _LOADS.tolist(), Change())
    longer = Change(input=seen.change.input, output=seen.change.output)
    then = call_seconds(inputs, llm, _LOADS.tolist(), longer) if llm.name in seen.longer else predicted
    if isinstance(predicted, str) or isinstance(then, str):
        look.judged.append(Judged("profiles", llm.name, what, predicted if isinstance(predicted, str) else str(then)))
        return None
    if own.arrived is None and own.engines < llm.replicas:
        reason = f"{own.engines} of {llm.replicas} instances are scraped, so the load is not known"
        look.judged.append(Judged("profiles", llm.name, what, reason))
        return None
    load = _smooth(own.calls if own.arrived is None else own.arrived) / llm.predicted.load
    before = len(load) - seen.longer.get(llm.name, 0)
    at = np.concatenate([_interpolated(load[:before], predicted), _interpolated(load[before:], then)])
    if not np.isfinite(at[own.calls.value > 0]).any() and (own.calls.value > 0).any():
        reason = "the load is beyond what the prediction carries"
        look.judged.append(Judged("profiles", llm.name, what, reason))
        return None
    queued = own.queued if own.queued is not None else np.zeros(len(load))
    seconds = own.seconds.value + np.nan_to_num(queued) * own.calls.value
    counts = np.isfinite(at) & (own.seconds.observed > 0) & (look.end - SLOT * np.arange(len(load), 0, -1) >= since)
    expected = np.where(counts, np.nan_to_num(at) * own.calls.value, 0.0)
    seconds = np.where(expected > 0, seconds, 0.0)
    grouped = _grouped(inputs, llm)
    why = (
        "only the last call of a group is predicted" if grouped else "the gateway is not scraped" * (own.queued is None)
    )
    below = None if why else look.settings.below
    # In units of one call: that its dispersion is at least 1 says that calls differ as much as exponential times do.
    unit = float(np.nanmean(at)) if np.isfinite(at).any() else 1.0
    alarms, margin = look.settings.alarms, SLOWER
    verdict = judge(seconds / unit, expected / unit, alarms, tests=look.tests, margin=margin, below=below)
    verdict = replace(verdict, below=why or verdict.below)
    hour = slice(-60, None)
    calls = max(1.0, float(np.where(expected > 0, own.calls.value, 0.0)[hour].sum()))
    took, should = float(seconds[hour].sum()) / calls, float(expected[hour].sum()) / calls
    note = f"{format_duration(took)}, predicted {format_duration(should)} at this load"
    if own.queued is None:
        note += "; time in the gateway's queue is not known"
    elif grouped:
        note += "; predicted is the last call of a group"
    look.tell("profiles", llm.name, what, verdict, note)
    shift = verdict.shift
    if shift is None:
        return None, (took, should)
    slower = shift.direction == "above"
    text = f"calls take {shift.ratio:.2g} times as long as profile {llm.profile.name} predicts at their load"
    text += f" ({note.partition(';')[0]}); measure again: scepsy profile plan"
    severity: Severity = "warning" if slower else "info"
    finding = Finding(
        area="profiles",
        kind="latency-above" if slower else "latency-below",
        severity=severity,
        subject=llm.name,
        what=text,
        since=look.end - shift.minutes * SLOT,
        confidence=shift.confidence,
        instances=instances_of(plan, llm.name),
        at_least_since=shift.open_ended,
    )
    look.findings.append(finding)
    return shift.ratio, (took, should)


def _interpolated(load: Floats, predicted: Floats) -> Floats:
    known = np.where(np.isfinite(predicted), predicted, np.nan)
    return np.asarray(np.interp(load, _LOADS, known, right=np.nan))


def _smooth(slots: Slots) -> Floats:
    """Return the rate around every slot: calls of the last minutes ÷ the seconds of them that were observed."""
    sums = [np.concatenate([np.zeros(_SMOOTH), np.cumsum(own)]) for own in (slots.value, slots.observed)]
    calls, seconds = (own[_SMOOTH:] - own[:-_SMOOTH] for own in sums)
    return np.asarray(calls / np.maximum(seconds, 1.0))


def _grouped(inputs: Inputs, llm: PlannedLlm) -> bool:
    load = load_of(inputs, llm.name, Change())
    return load is None or any(size > 1 for caller in load.callers for size, _ in caller.demand.groups)


def _number(tokens: float) -> str:
    return significant(tokens, 3) if tokens < 100 else f"{tokens:.0f}"
