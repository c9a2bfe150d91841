"""What a check returns: findings (differences from the Plan), their impact, and the list of checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from scepsy.documents.drift_result import Area, FindingKind, Severity
from scepsy.drift.kinds import KINDS, Effect

_AREAS: tuple[Area, ...] = get_args(Area)
_SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True, slots=True)
class WorkflowPrediction:
    """The prediction for one workflow.

    Attributes:
        workflow: its name.
        rate: assumed executions per second.
        latency: predicted mean seconds of an execution; None if an LLM is saturated or missing.
        capacity: executions per second that saturate an LLM, the other workflows at their rates; 0 without an LLM.
    """

    workflow: str
    rate: float
    latency: float | None
    capacity: float


@dataclass(frozen=True, slots=True)
class Impact:
    """The predictions for all workflows under one allocation.

    Attributes:
        workflows: per workflow; empty if nothing could be predicted.
        gpus: GPUs that the allocation takes, fractions of GPUs included; None without an allocation.
        note: what is assumed, or why nothing could be predicted.
    """

    workflows: tuple[WorkflowPrediction, ...] = ()
    gpus: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference from the Plan.

    Attributes:
        kind: what it is; the table of kinds says what follows from it.
        severity: how bad.
        subject: the name of an LLM, an instance, a node, a GPU or an object.
        what: one sentence for people, with the values.
        since: Unix seconds when it began, as far as known.
        confidence: 1 - the probability that chance alone shows this in one check; None if chance plays no part (a node
            exists or does not).
        cost: the predictions with the committed allocation; None if it does not change them, or they are not known.
        gain: the predictions after a recompile; None if it does not change them, or they are not known.
        instances: the affected instances of the Plan.
        at_least_since: whether it may have begun before `since`, where the data begin.
    """

    kind: FindingKind
    severity: Severity
    subject: str
    what: str
    since: float | None = None
    confidence: float | None = None
    cost: Impact | None = None
    gain: Impact | None = None
    instances: tuple[str, ...] = ()
    at_least_since: bool = False

    @property
    def area(self) -> Area:
        """What was compared."""
        return KINDS[self.kind].area

    @property
    def effect(self) -> Effect:
        """What it does to the plan."""
        return KINDS[self.kind].effect

    def with_impact(self, cost: Impact | None, gain: Impact | None) -> Finding:
        """Return the same finding with its cost, and with what a recompile gains."""
        return replace(self, cost=cost, gain=gain)


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison with the Plan, done or skipped.

    Attributes:
        area: what was compared.
        subject: the name of an LLM, `nodes`, `pods`, …; empty for the area as a whole.
        what: the checked property: `load`, `prompt tokens`, `latency`, …
        reason: why it was skipped; empty if it was done. A skipped check never counts as "no drift".
        note: the values: `4.02/s, planned 4/s`.
    """

    area: Area
    subject: str
    what: str
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Findings and checks of one area; reports of several areas add up.

    Attributes:
        findings: the differences from the Plan.
        checks: the comparisons, done and skipped.
    """

    findings: tuple[Finding, ...] = ()
    checks: tuple[Check, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(self.findings + other.findings, self.checks + other.checks)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, the worst first; equal ones in the order of areas, subjects and kinds."""
    return sorted(
        findings, key=lambda f: (_SEVERITIES.index(f.severity), _AREAS.index(f.area), f.subject, f.kind.value)
    )


def unix(time: str) -> float | None:
    """Return a time as Kubernetes writes it (RFC 3339) in Unix seconds; None if it is not a valid time."""
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo is not None else None
