"""Decides which findings have a cost and a gain, by the effect of their kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from scepsy.compilation import Inputs
from scepsy.documents import Plan
from scepsy.drift.call_changes import Change
from scepsy.drift.finding import Finding, Impact
from scepsy.drift.impact import cost_of
from scepsy.drift.kinds import Effect

_MEASURE = Impact(note="measure again first: a compile rests on the profile")


def cost_of_findings(findings: Sequence[Finding], inputs: Inputs, plan: Plan, traffic: Change) -> Impact | None:
    """Predict what findings cost together; None if they do not change the predictions.

    Args:
        findings: all of them.
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        traffic: how calls differ.
    """
    down = {
        name
        for finding in findings
        if finding.effect.loses_hardware or finding.effect is Effect.ENGINE_DOWN
        for name in finding.instances
    }
    replicas = Counter(instance.llm for instance in plan.spec.instances if instance.name not in down)
    affected = {instance.llm for instance in plan.spec.instances if instance.name in down}
    change = replace(traffic, replicas={llm: replicas[llm] for llm in sorted(affected)})
    if not change.any and not any(f.effect.loses_hardware or f.effect.returns_hardware for f in findings):
        return None
    return cost_of(inputs, plan, change)


def with_impacts(findings: Sequence[Finding], cost: Impact | None, gain: Impact | None) -> tuple[Finding, ...]:
    """Return findings with what they cost together, and what a recompile gains.

    Args:
        findings: all of them.
        cost: the predictions with the committed allocation; None if the findings do not change them.
        gain: the predictions after a recompile.
    """
    if cost is None:
        return tuple(findings)
    saturated = any(workflow.latency is None for workflow in cost.workflows)
    return tuple(_with_impact(finding, cost, gain, saturated=saturated) for finding in findings)


def _with_impact(finding: Finding, cost: Impact, gain: Impact | None, *, saturated: bool) -> Finding:
    match finding.effect:
        case Effect.MORE_TRAFFIC:
            severity = "critical" if saturated else finding.severity
            return replace(finding, severity=severity).with_impact(cost, gain)
        case Effect.LESS_TRAFFIC:
            return finding.with_impact(cost, gain)
        case Effect.NODE_LOST | Effect.GPU_LOST:
            return finding.with_impact(cost if finding.instances else None, gain)
        case Effect.NODE_BACK | Effect.GPU_BACK:
            return finding.with_impact(None, gain)
        case Effect.ENGINE_DOWN:
            return finding.with_impact(cost, None) if finding.instances else finding
        case Effect.PREDICTION_OFF:
            return finding.with_impact(cost, _MEASURE)
        case Effect.PROFILE_STALE | Effect.DOCUMENTS_CHANGED | Effect.NONE:
            return finding
        case effect:
            assert_never(effect)
