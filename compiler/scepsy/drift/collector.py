"""Collects the findings and checks of one check of traffic, and the settings that it is done with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scepsy.documents import Plan
from scepsy.documents.drift_result import Severity
from scepsy.documents.units import format_rate, significant
from scepsy.drift.change_detection import DAY, SLOT, Shift, Verdict, minutes_to_find
from scepsy.drift.finding import Check, Finding, Report
from scepsy.drift.kinds import BothKinds

PER_LLM = 10
"""Tests per LLM: calls that arrive, calls that end, prompt tokens, generated tokens, latency; each for too much and for
too little."""
PER_CALLER = 2
"""Tests per workflow (executions) and per workflow and LLM (calls per execution): too much, too little."""
_EXAMPLE = 1.3
"""The shift whose detection time is reported."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What counts as a change of traffic.

    Attributes:
        false_alarm_rate: accepted false alarms per hour of checking, over all tests.
        low_load_after: minutes for which a value must be too low; None to ignore low values.
    """

    false_alarm_rate: float
    low_load_after: int | None = DAY


def tests_of(plan: Plan) -> int:
    """Return the number of tests of one check, among which false alarms are divided."""
    pairs = sum(len(llm.workflows) for llm in plan.spec.llms)
    return max(1, PER_LLM * len(plan.spec.llms) + PER_CALLER * (len(plan.spec.workflows) + pairs))


@dataclass
class Collector:
    """Collects what one check finds.

    Attributes:
        settings: what counts as a change.
        tests: number of tests among which false alarms are divided.
        end: the time of the check, Unix seconds.
        findings: the differences from the Plan.
        checks: the comparisons, done and skipped.
    """

    settings: Settings
    tests: int
    end: float
    findings: list[Finding] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """Everything collected so far."""
        return Report(tuple(self.findings), tuple(self.checks))

    def add_check(self, check: Check, verdict: Verdict) -> None:
        """Add a check with its verdict; values that are too low get an entry too where only they were skipped."""
        dispersion = "" if math.isnan(verdict.dispersion) else f"; dispersion {significant(verdict.dispersion, 2)}"
        note = "" if math.isnan(verdict.ratio) else check.note + dispersion
        self.checks.append(Check(check.area, check.subject, check.what, verdict.above, note))
        if not verdict.above and verdict.below and self.settings.low_load_after is not None:
            self.checks.append(Check(check.area, check.subject, f"{check.what}, too little", verdict.below))

    def detection_time(self, planned: float, verdict: Verdict) -> str:
        """Return after what time a shift of 30 % is found, in traffic as bursty as this; empty if not known.

        Args:
            planned: events per second.
            verdict: what the test found.
        """
        if math.isnan(verdict.dispersion) or planned <= 0:
            return ""
        minutes = minutes_to_find(_EXAMPLE, self.settings.false_alarm_rate / self.tests, planned, verdict.dispersion)
        if minutes > DAY:
            return f"; {_EXAMPLE - 1:+.0%} would not show within a day"
        return f"; {_EXAMPLE - 1:+.0%} would show within about {format_minutes(math.ceil(minutes))}"

    def add_finding(
        self, kinds: BothKinds, severity: Severity, subject: str, what: str, shift: Shift, instances: Sequence[str]
    ) -> None:
        """Add a shift as a finding."""
        if shift.direction == "below":
            what += f"; never near it in {format_minutes(shift.minutes)}"
        self.findings.append(
            Finding(
                kind=kinds[shift.direction],
                severity=severity,
                subject=subject,
                what=what,
                since=self.end - shift.minutes * SLOT,
                confidence=shift.confidence,
                instances=tuple(instances),
                at_least_since=shift.open_ended,
            )
        )


def format_minutes(minutes: int) -> str:
    """Return a duration for people."""
    return f"{minutes / 60:.3g} h" if minutes >= 120 else f"{minutes} min"


def rate(per_second: float) -> str:
    """Return a rate for people."""
    return format_rate(float(f"{per_second:.4g}")) if per_second > 1e-9 else "0/s"
