"""Turns a comparison into the published DriftResult."""

from __future__ import annotations

import datetime

from scepsy.documents import API_VERSION, Plan
from scepsy.documents.drift_result import (
    DriftCheck,
    DriftFinding,
    DriftImpact,
    DriftJudged,
    DriftPrediction,
    DriftResult,
)
from scepsy.drift.collector import Settings
from scepsy.drift.comparison import Comparison
from scepsy.drift.finding import Check, Finding, Impact


def result_of(plan: Plan, comparison: Comparison, settings: Settings) -> DriftResult:
    """Return a comparison as the published object.

    Args:
        plan: the committed Plan.
        comparison: the comparison with it.
        settings: what it was done with.
    """
    checks = comparison.report.checks
    return DriftResult(
        api_version=API_VERSION,
        cluster=plan.spec.cluster,
        at=_time(comparison.at),
        drift=bool(comparison.report.findings),
        findings=tuple(_finding(finding) for finding in comparison.report.findings),
        checks=tuple(_check(check) for check in checks),
        judged=tuple(_judged(check) for check in checks),
        false_alarm_rate=settings.false_alarm_rate,
        alarms=settings.false_alarm_rate,
        notes=comparison.notes,
    )


def _check(check: Check) -> DriftCheck:
    return DriftCheck(
        area=check.area,
        subject=check.subject,
        what=check.what,
        checked=not check.reason,
        reason=check.reason,
        note=check.note,
    )


def _judged(check: Check) -> DriftJudged:
    """Return a check under its deprecated name."""
    return DriftJudged(
        area=check.area,
        subject=check.subject,
        what=check.what,
        judged=not check.reason,
        reason=check.reason,
        note=check.note,
    )


def _finding(finding: Finding) -> DriftFinding:
    return DriftFinding(
        area=finding.area,
        kind=finding.kind,
        severity=finding.severity,
        subject=finding.subject,
        what=finding.what,
        since=None if finding.since is None else _time(finding.since),
        at_least_since=finding.at_least_since,
        confidence=None if finding.confidence is None else round(max(0.0, min(1.0, finding.confidence)), 4),
        cost=_impact(finding.cost),
        gain=_impact(finding.gain),
        instances=finding.instances,
    )


def _impact(impact: Impact | None) -> DriftImpact | None:
    if impact is None:
        return None
    workflows = tuple(
        DriftPrediction(
            workflow=prediction.workflow,
            rate=_rounded(prediction.rate),
            latency=None if prediction.latency is None else _rounded(prediction.latency),
            capacity=_rounded(prediction.capacity),
        )
        for prediction in impact.workflows
    )
    return DriftImpact(workflows=workflows, gpus=impact.gpus, note=impact.note)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _time(at: float) -> str:
    return datetime.datetime.fromtimestamp(round(at), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
