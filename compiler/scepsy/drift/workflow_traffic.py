"""Checks executions per second, and calls per execution, of every workflow against the Plan.

Twice as many executions, and executions that call twice as often, are the same load on the LLMs, but not the same
drift. The gateway's counts of calls that name their workflow and execution tell them apart, if nearly all calls do:
calls without a name would look like too few calls. Counts of several gateway pods add up only as far as
`double_counting` bounds what they have in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.compilation import Inputs
from scepsy.documents import Plan
from scepsy.documents.drift_result import Severity
from scepsy.documents.plan import PlannedWorkflow
from scepsy.documents.units import significant
from scepsy.drift.attribution import MISSING, hidden, identified
from scepsy.drift.call_changes import Change
from scepsy.drift.change_detection import DAY, MARGIN, SLOT, Shift, Verdict, detect_shift
from scepsy.drift.collector import Collector, Settings, rate, tests_of
from scepsy.drift.counters import Floats
from scepsy.drift.double_counting import dispersion_of, most_often
from scepsy.drift.finding import Check
from scepsy.drift.kinds import CALLS, EXECUTIONS, BothKinds
from scepsy.drift.llm_traffic import LEAST, TrafficCheck, explained_by, instances_of
from scepsy.drift.series import Callers, Counted, Traffic
from scepsy.performance import MAX_UTILISATION

LONGER = 3
"""Executions may last this many times as long as predicted. Calls per execution must differ in either case; else, when
slow executions suddenly stop, each would seem to call more."""


def check_workflows(
    inputs: Inputs, plan: Plan, traffic: Mapping[str, Traffic], callers: Callers, end: float, settings: Settings
) -> TrafficCheck:
    """Check every workflow of a Plan.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        traffic: what was read, per LLM.
        callers: what the gateway counted.
        end: the time of the check, Unix seconds.
        settings: what counts as a change.

    Returns:
        The result; its change has `executions` and `per_execution`.
    """
    collector = Collector(settings, tests_of(plan), end)
    change = Change()
    for workflow in plan.spec.workflows:
        llms = [llm.name for llm in plan.spec.llms if workflow.name in llm.workflows]
        planned = inputs.planned.get(workflow.name)
        if planned is None or not set(llms) <= set(planned.llms):
            known: int | str = "the documents do not describe how it calls its LLMs"
        else:
            known = identified(workflow.name, llms, traffic, callers)
        if isinstance(known, str):
            collector.checks += [Check("traffic", workflow.name, what, known) for what in ("executions", "calls")]
            continue
        unseen = _unseen(plan, workflow.name, llms, traffic, callers, known)
        counted = callers.workflows[workflow.name]
        found = _WorkflowCheck(collector, inputs, plan, workflow, llms, counted, known, unseen).check()
        change = replace(
            change,
            executions={**change.executions, **found.executions},
            per_execution={**change.per_execution, **found.per_execution},
        )
    return TrafficCheck(collector.report, change)


def notes_of(checks: Sequence[Check]) -> tuple[str, ...]:
    """Return what the checks of traffic cannot tell at all."""
    if not any(check.area == "traffic" and not check.reason for check in checks):
        return ()
    names = [check.subject for check in checks if check.area == "traffic" and check.what == "calls" and check.reason]
    whole = sorted(name for name in names if name and "/" not in name)
    if not whole:
        return ()
    return (
        f"calls per execution are not known for {', '.join(whole)}: the gateway does not count the executions;"
        " only the load of each LLM is checked",
    )


def _unseen(
    plan: Plan, workflow: str, llms: Sequence[str], traffic: Mapping[str, Traffic], callers: Callers, known: int
) -> str:
    """Return why some calls of a workflow may not be counted as its calls; empty if all are."""
    for llm in plan.spec.llms:
        engines = traffic[llm.name].engines
        if llm.name in llms and engines < llm.replicas:
            # Calls that bypass the gateway are counted at the engines only.
            return f"{engines} of {llm.replicas} instances of {llm.name} are scraped"
    share = hidden(workflow, llms, traffic, callers, known)
    return f"up to {share:.0%} of its calls may be among those that name no workflow" if share > MISSING else ""


def _without_shift(verdict: Verdict, reason: str) -> Verdict:
    """Return a verdict without its shift, with the reason."""
    if verdict.shift is not None and verdict.shift.direction == "above":
        return replace(verdict, shift=None, above=reason)
    return replace(verdict, shift=None, below=reason)


@dataclass
class _WorkflowCheck:
    """The check of one workflow.

    Attributes:
        collector: where findings go.
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        planned: the workflow in it.
        llms: the LLMs that it calls.
        counted: what the gateway counted.
        known: minutes, up to now, in which it is known which workflow calls belong to.
        unseen: why some of its calls may not be counted, so that too few calls mean nothing; empty if all are.
    """

    collector: Collector
    inputs: Inputs
    plan: Plan
    planned: PlannedWorkflow
    llms: Sequence[str]
    counted: Counted
    known: int
    unseen: str

    @property
    def name(self) -> str:
        return self.planned.name

    def check(self) -> Change:
        """Check executions, and the calls to every LLM per execution; return how they differ."""
        target = self.inputs.workflows[self.name].spec.target.per_second
        shift = self._executions(target)
        calls = {llm: self._calls(llm) for llm in self.llms}
        # If executions differ, so may their calls, of which too few are found only after a day: take them as they are.
        factors = {
            llm: self._often(llm, verdict) for llm, verdict in calls.items() if verdict.shift or shift is not None
        }
        differ = {llm: factor for llm, factor in factors.items() if calls[llm].shift or abs(factor - 1) > MARGIN}
        change = Change(
            executions={} if shift is None else {self.name: max(LEAST, shift.ratio)},
            per_execution={(self.name, llm): factor for llm, factor in differ.items()},
        )
        if shift is not None:
            what = f"{rate(shift.ratio * target)} executions instead of the planned {rate(target)}"
            self._find(EXECUTIONS, self.name, f"{what} ({shift.ratio - 1:+.0%})", shift, change, self.llms)
        for llm, verdict in calls.items():
            if verdict.shift is not None:
                planned = self.inputs.planned[self.name].llms[llm].calls
                what = f"{significant(verdict.shift.ratio * planned, 3)} calls to {llm} per execution instead of"
                what += f" {significant(planned, 3)} ({verdict.shift.ratio - 1:+.0%})"
                self._find(CALLS, f"{self.name}/{llm}", what, verdict.shift, change, [llm])
        return change

    def _executions(self, target: float) -> Shift | None:
        """Check the executions per second; return their shift."""
        observed = self._recent(self.counted.executions.observed)
        value, expected = self.counted.executions.value, target * observed
        verdict = self._verdict(value, expected)
        if verdict.shift is not None and verdict.shift.direction == "above":
            verdict = self._if_counted_often(verdict, value, expected * self._times(verdict.shift))
        note = f"{rate(verdict.ratio * target)}, planned {rate(target)}"
        note += self.collector.detection_time(target, verdict)
        self.collector.add_check(Check("traffic", self.name, "executions", note=note), verdict)
        return verdict.shift

    def _often(self, llm: str, verdict: Verdict) -> float:
        """Return by which factor an execution calls an LLM more often than the demand's mean (not the plan) says."""
        planned, mean = (d[self.name].llms[llm].calls for d in (self.inputs.planned, self.inputs.demands))
        ratio = verdict.shift.ratio if verdict.shift is not None else verdict.ratio
        return max(LEAST, ratio * planned / mean) if math.isfinite(ratio) else 1.0

    def _calls(self, llm: str) -> Verdict:
        planned = self.inputs.planned[self.name].llms[llm].calls
        slots = self.counted.calls.get(llm)
        value = np.zeros(DAY) if slots is None else slots.value
        seen = np.ones(DAY) if slots is None else slots.observed
        expected, slower = (np.where(seen > 0, planned * self._begun(times), 0.0) for times in (1, LONGER))
        verdict, longer = self._verdict(value, expected), self._verdict(value, slower)
        if verdict.shift is not None and (longer.shift is None or longer.shift.direction != verdict.shift.direction):
            reason = f"{verdict.shift.ratio - 1:+.0%}, which executions that last longer than predicted may explain"
            verdict = _without_shift(verdict, reason)
        if verdict.shift is not None and verdict.shift.direction == "below":
            verdict = self._if_counted_often(verdict, value, expected / self._times(verdict.shift))
        shift = verdict.shift
        mean = self.inputs.demands[self.name].llms[llm].calls
        if shift is not None and shift.direction == "below" and shift.ratio * planned > (1 - MARGIN) * mean:
            verdict = replace(verdict, shift=None)  # planned for more than the mean on purpose
        note = f"{significant(max(0.0, verdict.ratio * planned), 3)} per execution, planned {significant(planned, 3)}"
        self.collector.add_check(Check("traffic", f"{self.name}/{llm}", "calls", note=note), verdict)
        return verdict

    def _begun(self, times: int) -> Floats:
        """Return per minute the executions that calls are expected of, 0 where that is not known.

        An execution counts when it begins, and calls until it ends: its calls are spread evenly over the predicted
        latency. Otherwise, more executions would look as if each called less, and fewer as if each called more.

        Args:
            times: how many times as long as predicted they last.
        """
        lasts = 1 + min(DAY // 4, round(times * self.planned.predicted.latency.mean / SLOT))
        slots = self.counted.executions
        known = np.convolve(self._recent(slots.observed) > 0, np.ones(lasts))[:DAY]
        mean = np.convolve(slots.value, np.full(lasts, 1 / lasts))[:DAY]
        return np.asarray(np.where(known > lasts - 0.5, mean, 0.0))

    def _recent(self, values: Floats) -> Floats:
        return np.where(np.arange(DAY) >= DAY - self.known, values, 0.0)

    def _verdict(self, value: Floats, expected: Floats) -> Verdict:
        settings = self.collector.settings
        verdict = detect_shift(
            value,
            expected,
            settings.false_alarm_rate,
            tests=self.collector.tests,
            low_load_after=settings.low_load_after,
        )
        if settings.low_load_after is None or not self.unseen:
            return verdict
        shift = verdict.shift if verdict.shift is not None and verdict.shift.direction == "above" else None
        return replace(verdict, shift=shift, below=self.unseen)

    def _times(self, shift: Shift) -> float:
        """Return how often an execution is counted at most, on average, since a shift began."""
        _, high = dispersion_of(self.counted.parts, shift.minutes, self.counted.fine)
        return most_often(high, float(self.counted.pods[-shift.minutes :].max()))

    def _if_counted_often(self, verdict: Verdict, value: Floats, expected: Floats) -> Verdict:
        """Drop a shift that disappears if executions were counted as often as they may have been.

        Args:
            verdict: what was found.
            value: (T,) the tested values.
            expected: (T,) what would be expected of them in that case.
        """
        settings, shift = self.collector.settings, verdict.shift
        margin = MARGIN / 2
        then = detect_shift(
            value,
            expected,
            settings.false_alarm_rate,
            tests=self.collector.tests,
            margin=margin,
            low_load_after=settings.low_load_after,
        )
        if shift is None or (then.shift is not None and then.shift.direction == shift.direction):
            return verdict
        return _without_shift(
            verdict, f"{shift.ratio - 1:+.0%}, which several gateway pods counting the same executions may explain"
        )

    def _find(
        self, kinds: BothKinds, subject: str, what: str, shift: Shift, change: Change, llms: Sequence[str]
    ) -> None:
        severity: Severity = "info"
        if shift.direction == "above":
            utilisation = max(
                llm.predicted.utilisation * explained_by(self.inputs, llm.name, change)
                for llm in self.plan.spec.llms
                if llm.name in llms
            )
            severity = "critical" if utilisation > MAX_UTILISATION else "warning"
        self.collector.add_finding(kinds, severity, subject, what, shift, instances_of(self.plan, *llms))
