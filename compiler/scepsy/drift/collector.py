"""What is collected while traffic is looked at: findings, and what was compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scepsy.documents import Plan
from scepsy.documents.units import format_rate, significant
from scepsy.drift.change_detection import DAY, SLOT, Shift, Verdict, minutes_to_find
from scepsy.drift.finding import Area, Finding, Judged, Report, Severity

PER_LLM = 10
"""Tests per LLM: calls that arrive, and that end; prompt and generated tokens; latency; of each whether it is too much
and whether it is too little."""
PER_CALLER = 2
"""Tests per workflow (executions) and per workflow and LLM (calls per execution): too much, too little."""
_EXAMPLE = 1.3
"""A shift of which it is said how soon it would be seen."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is looked for.

    Attributes:
        alarms: false alarms per hour of looking that are allowed, over all tests.
        below: minutes for which a lack must last; None to look for none.
    """

    alarms: float
    below: int | None = DAY


def tests_of(plan: Plan) -> int:
    """Return the number of tests of one look, among which false alarms are divided."""
    pairs = sum(len(llm.workflows) for llm in plan.spec.llms)
    return max(1, PER_LLM * len(plan.spec.llms) + PER_CALLER * (len(plan.spec.workflows) + pairs))


@dataclass
class Ledger:
    """What one look collects.

    Attributes:
        settings: what is looked for.
        tests: number of tests among which false alarms are divided.
        end: when, Unix seconds.
        findings: what differs.
        judged: what was compared, and what could not be.
    """

    settings: Settings
    tests: int
    end: float
    findings: list[Finding] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """All of it."""
        return Report(tuple(self.findings), tuple(self.judged))

    def tell(self, area: Area, subject: str, what: str, verdict: Verdict, note: str) -> None:
        """Note what was judged; of an excess and a lack apart where only one could be."""
        dispersion = "" if math.isnan(verdict.dispersion) else f"; dispersion {significant(verdict.dispersion, 2)}"
        shown = "" if math.isnan(verdict.ratio) else note + dispersion
        self.judged.append(Judged(area, subject, what, verdict.above, shown))
        if not verdict.above and verdict.below and self.settings.below is not None:
            self.judged.append(Judged(area, subject, f"{what}, too little", verdict.below))

    def visible(self, planned: float, verdict: Verdict) -> str:
        """Say how long it takes to see a shift, in traffic as bursty as this.

        Args:
            planned: events per second.
            verdict: what was found out about them.
        """
        if math.isnan(verdict.dispersion) or planned <= 0:
            return ""
        minutes = minutes_to_find(_EXAMPLE, self.settings.alarms / self.tests, planned, verdict.dispersion)
        if minutes > DAY:
            return f"; {_EXAMPLE - 1:+.0%} would not show within a day"
        return f"; {_EXAMPLE - 1:+.0%} would show within about {lasting(math.ceil(minutes))}"

    def find(
        self, kind: str, severity: Severity, subject: str, what: str, shift: Shift, instances: Sequence[str]
    ) -> None:
        """Note a shift of traffic."""
        if shift.direction == "below":
            what += f"; not once near it in {lasting(shift.minutes)}"
        self.findings.append(
            Finding(
                area="traffic",
                kind=kind,
                severity=severity,
                subject=subject,
                what=what,
                since=self.end - shift.minutes * SLOT,
                confidence=shift.confidence,
                instances=tuple(instances),
                at_least_since=shift.open_ended,
            )
        )


def lasting(minutes: int) -> str:
    """Return a time for readers."""
    return f"{minutes / 60:.3g} h" if minutes >= 120 else f"{minutes} min"


def rate(per_second: float) -> str:
    """Return a rate for readers."""
    return format_rate(float(f"{per_second:.4g}")) if per_second > 1e-9 else "0/s"
