"""Executions per second, and calls per execution, of every workflow against the Plan.

Twice as many executions, and executions that call twice as often, are the same load on the LLMs, but not the same
drift: the first is more of what was planned for, the second another workflow. They are told apart by what the gateway
counts of calls that name their workflow and execution, and only where nearly all calls do: whatever is missing would be
taken for a lack. What several gateway pods counted is one count only as far as `recounting` bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.compilation import Inputs
from scepsy.documents import Plan
from scepsy.documents.plan import PlannedWorkflow
from scepsy.documents.units import significant
from scepsy.drift.attribution import MISSING, hidden, identified
from scepsy.drift.change_detection import DAY, MARGIN, SLOT, Shift, Verdict, judge
from scepsy.drift.collector import Ledger, Settings, rate, tests_of
from scepsy.drift.counters import Floats
from scepsy.drift.double_counting import dispersion_of, most_often
from scepsy.drift.finding import Judged, Severity
from scepsy.drift.impact import Change
from scepsy.drift.llms import LEAST, Observed, explained_by, instances_of
from scepsy.drift.series import Callers, Counted, Traffic
from scepsy.performance import MAX_UTILISATION

LONGER = 3
"""Times as long as predicted that executions may last: calls per execution must differ whichever it is, or a sudden end
of executions that are slow would look as if each called more."""


def judge_workflows(
    inputs: Inputs, plan: Plan, traffic: Mapping[str, Traffic], callers: Callers, end: float, settings: Settings
) -> Observed:
    """Judge every workflow of a Plan.

    Args:
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        traffic: what was read, per LLM.
        callers: what the gateway counted.
        end: when, Unix seconds.
        settings: what is looked for.

    Returns:
        What was found; in its change `executions` and `per_execution`.
    """
    look = Ledger(settings, tests_of(plan), end)
    change = Change()
    for workflow in plan.spec.workflows:
        llms = [llm.name for llm in plan.spec.llms if workflow.name in llm.workflows]
        planned = inputs.planned.get(workflow.name)
        if planned is None or not set(llms) <= set(planned.llms):
            known: int | str = "the documents no longer say how it calls its LLMs"
        else:
            known = identified(workflow.name, llms, traffic, callers)
        if isinstance(known, str):
            look.judged += [Judged("traffic", workflow.name, what, known) for what in ("executions", "calls")]
            continue
        unseen = _unseen(plan, workflow.name, llms, traffic, callers, known)
        own = _Workflow(look, inputs, plan, workflow, llms, callers.workflows[workflow.name], known, unseen)
        found = own.judged()
        change = replace(
            change,
            executions={**change.executions, **found.executions},
            per_execution={**change.per_execution, **found.per_execution},
        )
    return Observed(look.report, change)


def notes_of(judged: Sequence[Judged]) -> tuple[str, ...]:
    """Return what no figure about traffic says."""
    if not any(own.area == "traffic" and not own.reason for own in judged):
        return ()
    names = [own.subject for own in judged if own.area == "traffic" and own.what == "calls" and own.reason]
    whole = sorted(name for name in names if name and "/" not in name)
    if not whole:
        return ()
    return (
        f"calls per execution cannot be told from rates: of {', '.join(whole)} the gateway does not count the"
        " executions, so that only the load of each LLM is judged",
    )


def _unseen(
    plan: Plan, workflow: str, llms: Sequence[str], traffic: Mapping[str, Traffic], callers: Callers, known: int
) -> str:
    """Say why some calls of a workflow may not be among those that are counted as its own."""
    for llm in plan.spec.llms:
        engines = traffic[llm.name].engines
        if llm.name in llms and engines < llm.replicas:
            # Who goes past the gateway is seen there only.
            return f"{engines} of {llm.replicas} instances of {llm.name} are scraped"
    share = hidden(workflow, llms, traffic, callers, known)
    return f"up to {share:.0%} of its calls may be among those that name no workflow" if share > MISSING else ""


def _without_shift(verdict: Verdict, reason: str) -> Verdict:
    """Return a verdict that says why its shift is none that could be told."""
    if verdict.shift is not None and verdict.shift.direction == "above":
        return replace(verdict, shift=None, above=reason)
    return replace(verdict, shift=None, below=reason)


@dataclass
class _Workflow:
    """One workflow while it is judged.

    Attributes:
        look: where findings go.
        inputs: what the Plan is compiled from.
        plan: the committed Plan.
        planned: the workflow in it.
        llms: the LLMs that it calls.
        counted: what the gateway counted of it.
        known: minutes, up to now, in which it is known whose calls there were.
        unseen: why some of its calls may not be counted, which would be taken for a lack; empty if they are.
    """

    look: Ledger
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

    def judged(self) -> Change:
        """Judge executions, and the calls to every LLM per execution."""
        observed = self._recent(self.counted.executions.observed)
        target = self.inputs.workflows[self.name].spec.target.per_second
        value, expected = self.counted.executions.value, target * observed
        verdict = self._verdict(value, expected)
        if verdict.shift is not None and verdict.shift.direction == "above":
            verdict = self._told(verdict, value, expected * self._times(verdict.shift))
        note = f"{rate(verdict.ratio * target)}, planned {rate(target)}{self.look.visible(target, verdict)}"
        self.look.tell("traffic", self.name, "executions", verdict, note)
        shift = verdict.shift
        seen = Change(executions={} if shift is None else {self.name: max(LEAST, shift.ratio)})
        calls = {llm: self._calls(llm) for llm in self.llms}
        # Where executions differ, so may their calls, which a lack is told of after a day only: as they are now.
        factors = {llm: self._often(llm, own) for llm, own in calls.items() if own.shift or shift is not None}
        differ = {llm: factor for llm, factor in factors.items() if calls[llm].shift or abs(factor - 1) > MARGIN}
        seen = replace(seen, per_execution={(self.name, llm): factor for llm, factor in differ.items()})
        if shift is not None:
            what = f"{rate(shift.ratio * target)} executions instead of the planned {rate(target)}"
            self._find("executions", self.name, f"{what} ({shift.ratio - 1:+.0%})", shift, seen, self.llms)
        for llm, own in calls.items():
            if own.shift is not None:
                planned = self.inputs.planned[self.name].llms[llm].calls
                what = f"{significant(own.shift.ratio * planned, 3)} calls to {llm} per execution instead of"
                what += f" {significant(planned, 3)} ({own.shift.ratio - 1:+.0%})"
                self._find("calls", f"{self.name}/{llm}", what, own.shift, seen, [llm])
        return seen

    def _often(self, llm: str, verdict: Verdict) -> float:
        """Return by which factor an execution calls an LLM more often than the demand says: its mean, not the plan."""
        planned, mean = (own[self.name].llms[llm].calls for own in (self.inputs.planned, self.inputs.demands))
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
            verdict = self._told(verdict, value, expected / self._times(verdict.shift))
        shift = verdict.shift
        mean = self.inputs.demands[self.name].llms[llm].calls
        if shift is not None and shift.direction == "below" and shift.ratio * planned > (1 - MARGIN) * mean:
            verdict = replace(verdict, shift=None)  # planned for more than the mean on purpose
        note = f"{significant(max(0.0, verdict.ratio * planned), 3)} per execution, planned {significant(planned, 3)}"
        self.look.tell("traffic", f"{self.name}/{llm}", "calls", verdict, note)
        return verdict

    def _begun(self, times: int) -> Floats:
        """Return per minute the executions that calls are expected of, 0 where that is not known.

        An execution counts when it begins, and calls until it ends: its calls are taken to be spread evenly over the
        predicted latency, or more executions would look as if each called less, and fewer as if each called more.

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
        settings = self.look.settings
        verdict = judge(value, expected, settings.alarms, tests=self.look.tests, below=settings.below)
        if settings.below is None or not self.unseen:
            return verdict
        shift = verdict.shift if verdict.shift is not None and verdict.shift.direction == "above" else None
        return replace(verdict, shift=shift, below=self.unseen)

    def _times(self, shift: Shift) -> float:
        """Return how often executions are counted at most, on average, since something shifted."""
        _, high = dispersion_of(self.counted.parts, shift.minutes, self.counted.fine)
        return most_often(high, float(self.counted.pods[-shift.minutes :].max()))

    def _told(self, verdict: Verdict, value: Floats, expected: Floats) -> Verdict:
        """Leave out a shift that there would not be if executions were counted as often as they may be.

        Args:
            verdict: what was found.
            value: (T,) what was judged.
            expected: (T,) what would be expected of it then.
        """
        settings, shift = self.look.settings, verdict.shift
        margin = MARGIN / 2
        then = judge(value, expected, settings.alarms, tests=self.look.tests, margin=margin, below=settings.below)
        if shift is None or (then.shift is not None and then.shift.direction == shift.direction):
            return verdict
        return _without_shift(
            verdict, f"{shift.ratio - 1:+.0%}, which several gateway pods that count the same executions may explain"
        )

    def _find(self, kind: str, subject: str, what: str, shift: Shift, seen: Change, llms: Sequence[str]) -> None:
        severity: Severity = "info"
        if shift.direction == "above":
            utilisation = max(
                own.predicted.utilisation * explained_by(self.inputs, own.name, seen)
                for own in self.plan.spec.llms
                if own.name in llms
            )
            severity = "critical" if utilisation > MAX_UTILISATION else "warning"
        kind = f"{kind}-{shift.direction}"
        self.look.find(kind, severity, subject, what, shift, instances_of(self.plan, *llms))
