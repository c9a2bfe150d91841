"""What drift detection finds: one way in which the world is no longer as the Plan says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

Area = Literal["traffic", "cluster", "objects", "profiles"]
"""What is compared with the Plan: the load, the hardware, the live Kubernetes objects, the speed of the engines."""

Severity = Literal["critical", "warning", "info"]
"""`critical`: calls fail or wait without bound, now or at the load that is seen; `warning`: the plan no longer fits;
`info`: worth knowing, nobody needs to get up."""

_ORDER: dict[Severity, int] = {"critical": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class WorkflowFigures:
    """What to expect of one workflow.

    Attributes:
        workflow: its name.
        rate: executions per second that are assumed.
        latency: predicted mean seconds of an execution; None where an LLM is saturated, or missing.
        capacity: executions per second at which an LLM is saturated, the others at their rates; 0 without an LLM.
    """

    workflow: str
    rate: float
    latency: float | None
    capacity: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What to expect of all workflows, under one allocation.

    Attributes:
        workflows: per workflow; empty where nothing could be predicted.
        gpus: GPUs that the allocation takes, parts of GPUs counted as parts; None where there is no allocation.
        note: what is assumed, or why there is no figure.
    """

    workflows: tuple[WorkflowFigures, ...] = ()
    gpus: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which the world differs from the Plan.

    Attributes:
        area: what was compared.
        kind: what it is, for programs: words joined by `-`, such as `load-above`, `node-gone`, `pod-pending`.
        severity: how bad.
        subject: what it is about: the name of an LLM, an instance, a node, a GPU, an object.
        what: one sentence for people, with the figures.
        since: Unix seconds from which on, as far as can be told; None if it cannot.
        confidence: 1 - the probability that chance alone would show this in one look; None for what is not a matter of
            chance (a node is there or not).
        cost: what it does to the workflows with the committed allocation; None if nothing, or not known.
        gain: what compiling again would give; None if nothing, or not known.
        instances: instances of the Plan that it affects.
        at_least_since: whether it may have begun earlier than `since`: that is where knowledge begins.
    """

    area: Area
    kind: str
    severity: Severity
    subject: str
    what: str
    since: float | None = None
    confidence: float | None = None
    cost: Outlook | None = None
    gain: Outlook | None = None
    instances: tuple[str, ...] = ()
    at_least_since: bool = False

    def with_outlook(self, cost: Outlook | None, gain: Outlook | None) -> Finding:
        """Return the same finding with what it costs, and what compiling again would give."""
        return replace(self, cost=cost, gain=gain)


@dataclass(frozen=True, slots=True)
class Judged:
    """One thing that was compared with the Plan, or could not be.

    Attributes:
        area: what was compared.
        subject: of what: the name of an LLM, `nodes`, `pods`, …; empty for the area as a whole.
        what: in words: `load`, `input tokens`, `latency`, …
        reason: why it could not be judged; empty if it was. What is not judged is never "no drift".
        note: figures, for those who look closely: `4.02/s, planned 4/s`.
    """

    area: Area
    subject: str
    what: str
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What one look at one area gave; reports of several areas are added up.

    Attributes:
        findings: what differs.
        judged: what was compared, and what could not be.
    """

    findings: tuple[Finding, ...] = ()
    judged: tuple[Judged, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(self.findings + other.findings, self.judged + other.judged)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, the worst first; equal ones in the order of areas, subjects and kinds."""
    areas = ("traffic", "cluster", "objects", "profiles")
    return sorted(findings, key=lambda f: (_ORDER[f.severity], areas.index(f.area), f.subject, f.kind))


def unix(time: str) -> float | None:
    """Return a time as Kubernetes writes it (RFC 3339) in Unix seconds; None if it is none."""
    try:
        made = datetime.fromisoformat(time)
    except ValueError:
        return None
    return made.timestamp() if made.tzinfo is not None else None
