"""Checks the load and the token counts of every LLM against the Plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scepsy.compilation import Inputs
from scepsy.documents import Plan
from scepsy.documents.drift_result import Severity
from scepsy.documents.plan import PlannedLlm
from scepsy.documents.units import significant
from scepsy.drift.call_changes import Change, load_of
from scepsy.drift.change_detection import MARGIN, Shift, Verdict, detect_shift
from scepsy.drift.collector import Collector, Settings, rate, tests_of
from scepsy.drift.counters import Floats, Slots
from scepsy.drift.finding import Check, Report
from scepsy.drift.kinds import INPUT_TOKENS, LOAD, OUTPUT_TOKENS, BothKinds
from scepsy.drift.series import Traffic
from scepsy.performance import MAX_UTILISATION

LEAST = 1e-3
"""Least factor that a change is taken for: without any call nothing could be predicted."""


@dataclass(frozen=True)
class TrafficCheck:
    """The result of a check of traffic.

    Attributes:
        report: findings, without what they cost, and checks.
        change: how calls differ, of LLMs and workflows with a finding.
        longer: by LLM, minutes since its calls have had other numbers of tokens.
    """

    report: Report
    change: Change
    longer: Mapping[str, int] = field(default_factory=dict)


def check_llm_traffic(
    inputs: Inputs, plan: Plan, traffic: Mapping[str, Traffic], end: float, settings: Settings, callers: Change
) -> TrafficCheck:
    """Check the load and the token counts of every LLM.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        traffic: what was read, per LLM.
        end: the time of the check, Unix seconds.
        settings: what counts as a change.
        callers: what was found about workflows; load that this explains is not found again.
    """
    collector = Collector(settings, tests_of(plan), end)
    calls: dict[str, float] = {}
    tokens: dict[str, dict[str, float]] = {"input": {}, "output": {}}
    longer: dict[str, int] = {}
    for llm in plan.spec.llms:
        factor = _load(collector, inputs, plan, llm, traffic[llm.name], callers)
        if factor is not None:
            calls[llm.name] = factor
        for which, factors in tokens.items():
            shift = _tokens(collector, inputs, plan, llm, traffic[llm.name], which)
            if shift is not None:
                factors[llm.name] = shift.ratio
                longer[llm.name] = max(longer.get(llm.name, 0), shift.minutes)
    change = replace(callers, calls=calls, input=tokens["input"], output=tokens["output"])
    return TrafficCheck(collector.report, change, longer)


def _load(
    collector: Collector, inputs: Inputs, plan: Plan, llm: PlannedLlm, traffic: Traffic, callers: Change
) -> float | None:
    """Check the load of one LLM; return by which factor it is off beyond what its callers explain, if it is."""
    planned = llm.predicted.load
    if traffic.calls is None and traffic.arrived is None:
        reason = f'Prometheus has no series of it in namespace "{plan.spec.namespace}" over the last day'
        collector.checks.append(Check("traffic", llm.name, "load", reason))
        return None
    shift = _load_shift(collector, llm, traffic)
    if traffic.arrived is None:
        reason = "the gateway is not scraped: calls that wait there, or give up, are not counted"
        collector.checks.append(Check("traffic", llm.name, "load at the gateway", reason))
    if shift is None:
        return None
    if shift.direction == "below" and shift.ratio * planned > (1 - MARGIN) * _mean_load(inputs, llm):
        return None  # planned for more than the mean on purpose
    explained = explained_by(inputs, llm.name, callers)
    # Relative to the documents as they are now, which a compile reads; people may have changed them since the Plan.
    known = load_of(inputs, llm.name, callers)
    beyond = max(LEAST, shift.ratio * planned / known.calls if known is not None and known.calls else 1.0)
    if explained != 1 and (beyond < 1 + MARGIN if shift.direction == "above" else beyond > 1 - MARGIN):
        return None
    severity: Severity = "info"
    if shift.direction == "above":
        severity = "critical" if llm.predicted.utilisation * shift.ratio > MAX_UTILISATION else "warning"
    what = f"{rate(shift.ratio * planned)} calls instead of the planned {rate(planned)} ({shift.ratio - 1:+.0%})"
    if explained != 1:
        what += f"; findings about workflows explain {explained - 1:+.0%} of it"
    collector.add_finding(LOAD, severity, llm.name, what, shift, instances_of(plan, llm.name))
    return beyond


def _load_shift(collector: Collector, llm: PlannedLlm, traffic: Traffic) -> Shift | None:
    """Check the load at the gateway and at the engines; return the shift that counts.

    Too many calls at either count: the gateway also counts calls that full engines do not receive. Too few count only
    if both agree: calls may bypass the gateway.
    """
    planned = llm.predicted.load
    shifts: list[Shift | None] = []
    for slots, source in ((traffic.arrived, "the gateway"), (traffic.calls, "the engines")):
        if slots is None:
            continue
        verdict = _verdict(collector, slots, planned * slots.observed, llm, traffic)
        note = f"{rate(verdict.ratio * planned)} at {source}, planned {rate(planned)}"
        note += collector.detection_time(planned, verdict)
        collector.add_check(Check("traffic", llm.name, f"load at {source}", note=note), verdict)
        shifts.append(verdict.shift)
    above = [shift for shift in shifts if shift is not None and shift.direction == "above"]
    below = [shift for shift in shifts if shift is not None and shift.direction == "below"]
    if above:
        return above[0]
    return below[-1] if len(below) == len(shifts) else None


def explained_by(inputs: Inputs, llm: str, callers: Change) -> float:
    """Return by which factor the load on an LLM differs because of what was found about workflows."""
    planned, changed = load_of(inputs, llm, Change()), load_of(inputs, llm, callers)
    return changed.calls / planned.calls if planned is not None and changed is not None and planned.calls else 1.0


def instances_of(plan: Plan, *llms: str) -> tuple[str, ...]:
    """Return the names of the instances of some LLMs."""
    return tuple(instance.name for instance in plan.spec.instances if instance.llm in llms)


def _mean_load(inputs: Inputs, llm: PlannedLlm) -> float:
    """Return the load at the target rates with mean executions; a plan for heavy executions is above it."""
    rates = {name: w.spec.target.per_second for name, w in inputs.workflows.items()}
    return sum(rates[n] * d.llms[llm.name].calls for n, d in inputs.demands.items() if llm.name in d.llms)


def _tokens(
    collector: Collector, inputs: Inputs, plan: Plan, llm: PlannedLlm, traffic: Traffic, which: str
) -> Shift | None:
    """Check prompt or generated tokens per call; return by how much they are off, if they are."""
    slots = traffic.input if which == "input" else traffic.output
    what = "prompt tokens" if which == "input" else "generated tokens"
    if traffic.calls is None or slots is None:
        reason = "Prometheus has no series of them over the last day"
        collector.checks.append(Check("traffic", llm.name, what, reason))
        return None
    planned = _planned_tokens(inputs, llm, which)
    if planned is None:
        collector.checks.append(Check("traffic", llm.name, what, "no workflow calls this LLM"))
        return None
    expected = planned * np.where(slots.observed > 0, traffic.calls.value, 0.0)
    verdict = _verdict(collector, slots, expected, llm, traffic)
    note = f"{_number(verdict.ratio * planned)} per call, planned {_number(planned)}"
    if which == "input" and traffic.cached is not None:
        cached = _recent(traffic.cached.value) / max(1.0, _recent(traffic.calls.value))
        note += f"; {_number(cached)} of them cached"
    collector.add_check(Check("traffic", llm.name, what, note=note), verdict)
    shift = verdict.shift
    if shift is None:
        return None
    text = f"{_number(shift.ratio * planned)} {what} per call instead of {_number(planned)} ({shift.ratio - 1:+.0%})"
    severity: Severity = "warning" if shift.direction == "above" else "info"
    kinds: BothKinds = INPUT_TOKENS if which == "input" else OUTPUT_TOKENS
    collector.add_finding(kinds, severity, llm.name, text, shift, instances_of(plan, llm.name))
    return replace(shift, ratio=max(LEAST, shift.ratio))


def _planned_tokens(inputs: Inputs, llm: PlannedLlm, which: str) -> float | None:
    load = load_of(inputs, llm.name, Change())
    if load is None or not load.calls:
        return None
    means = [(c.calls, c.demand.input.mean if which == "input" else c.demand.output.mean) for c in load.callers]
    return max(1.0, sum(calls * mean for calls, mean in means) / load.calls)


def _recent(values: Floats) -> float:
    return float(values[-60:].sum())


def _verdict(collector: Collector, slots: Slots, expected: Floats, llm: PlannedLlm, traffic: Traffic) -> Verdict:
    """Test one series; too little is not tested where instances are not scraped: their calls would be missing."""
    settings = collector.settings
    verdict = detect_shift(
        slots.value,
        expected,
        settings.false_alarm_rate,
        tests=collector.tests,
        low_load_after=settings.low_load_after,
    )
    if settings.low_load_after is None or traffic.calls is None or traffic.engines >= llm.replicas:
        return verdict
    shift = verdict.shift if verdict.shift and verdict.shift.direction == "above" else None
    reason = f"{traffic.engines} of {llm.replicas} instances are scraped"
    return Verdict(shift, verdict.above, reason, verdict.ratio, verdict.dispersion)


def _number(tokens: float) -> str:
    return significant(tokens, 3) if tokens < 100 else f"{tokens:.0f}"
