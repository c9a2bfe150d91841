"""Decides whether to recompile: hardware lost or returned, latency saved, cool-down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scepsy.documents.project import DriftSettings
from scepsy.drift.comparison import Comparison
from scepsy.drift.finding import Finding, Impact
from scepsy.drift.kinds import Effect

_NAMED = 4
"""How many names a reason lists."""


@dataclass(frozen=True)
class Decision:
    """Whether to recompile.

    Attributes:
        compile: whether to.
        why: the reason, for people.
    """

    compile: bool
    why: str


def decide(
    comparison: Comparison, priorities: Mapping[str, float], settings: DriftSettings, changed: float | None = None
) -> Decision:
    """Decide whether to recompile.

    Lost GPUs, and workflows that a recompile brings back below saturation, trigger a recompile at once, ignoring
    minimumGain and coolDown, if an allocation exists. Everything else waits for the cool-down. Returned hardware is
    then used whatever it saves: otherwise it would stay drift, and every later plan would lack it. Changed traffic must
    save at least minimumGain.

    Args:
        comparison: the comparison with the Plan.
        priorities: of the workflows.
        settings: the project's thresholds.
        changed: when the Plan last changed, Unix seconds; None if not known.
    """
    findings = comparison.report.findings
    lost = sorted({name for f in findings if f.effect.loses_hardware for name in f.instances})
    if not lost and not any(f.effect.changes_traffic or f.effect.returns_hardware for f in findings):
        return _nothing_to_gain(findings)
    if comparison.cost is None or comparison.gain is None:
        return Decision(False, "the documents do not compile: see scepsy compile --check")
    if not comparison.gain.workflows:
        return Decision(False, comparison.gain.note or "no allocation can serve it")
    if lost:
        return Decision(True, f"{_some(lost)} lost their GPUs")
    if not comparison.news:
        if comparison.edited:
            return Decision(False, "the documents already cover it, but are not compiled: scepsy compile --commit")
        return Decision(False, "the plan already covers it: it is within the targets, or within observed/")
    after = {workflow.workflow: workflow.latency for workflow in comparison.gain.workflows}
    restored = [w.workflow for w in comparison.cost.workflows if w.latency is None and after.get(w.workflow)]
    if restored:
        return Decision(True, f"{_some(restored)} would no longer be saturated")
    age = settings.cool_down if changed is None else max(0.0, comparison.at - changed)
    if age < settings.cool_down:
        why = f"the plan changed {age / 60:.0f} min ago; spec.drift.coolDown is {settings.cool_down / 60:.3g} min"
        return Decision(False, why)
    back = [f.subject for f in findings if f.effect.returns_hardware]
    if back:
        return Decision(True, f"{_some(back)} can be used again")
    saved = savings(comparison.cost, comparison.gain, priorities)
    threshold = f"spec.drift.minimumGain is {settings.minimum_gain:.0%}"
    if saved < settings.minimum_gain:
        return Decision(False, f"it would save {max(0.0, saved):.1%} of the predicted latency; {threshold}")
    return Decision(True, f"it saves {saved:.1%} of the predicted latency; {threshold}")


def _nothing_to_gain(findings: Sequence[Finding]) -> Decision:
    """Return the decision where no finding is a reason to recompile."""
    if any(f.effect is Effect.DOCUMENTS_CHANGED for f in findings):
        return Decision(False, "documents changed since the plan was compiled: scepsy compile --commit")
    return Decision(False, "no finding that a recompile would fix")


def _some(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def savings(cost: Impact, gain: Impact, priorities: Mapping[str, float]) -> float:
    """Return the part of the predicted latency that a recompile saves: the mean over workflows, by priority.

    Args:
        cost: latencies now.
        gain: latencies after it; workflows with a latency in only one of them do not count.
        priorities: of the workflows; 1 if missing.
    """
    after = {workflow.workflow: workflow.latency for workflow in gain.workflows}
    pairs = [
        (priorities.get(workflow.workflow, 1.0), workflow.latency, then)
        for workflow in cost.workflows
        if workflow.latency and (then := after.get(workflow.workflow)) is not None
    ]
    weight = sum(priority for priority, _, _ in pairs)
    return sum(priority * (1 - then / now) for priority, now, then in pairs) / weight if weight else 0.0
