"""One look at the world: everything that can be compared with the committed Plan, put together.

The look remembers nothing; a command that a clock starts, and one that watches, take the same one.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scepsy.compilation import Inputs, collect_inputs
from scepsy.documents import API_VERSION, DocumentError, Plan, Workspace
from scepsy.documents.drift_result import DriftFigures, DriftFinding, DriftJudged, DriftOutlook, DriftResult
from scepsy.documents.workspace import with_observed
from scepsy.drift.collector import Settings
from scepsy.drift.finding import Area, Finding, Judged, Outlook, Report, ordered
from scepsy.drift.impact import Change, cost_of, fewest_note, gain_of
from scepsy.drift.llms import judge_latency, judge_traffic
from scepsy.drift.lost_hardware import BACK, LOST, NOTHING, Missing, known_missing
from scepsy.drift.observed_documents import observed_files
from scepsy.drift.profiles import judge_profiles
from scepsy.drift.prometheus import Partial, Prometheus, PrometheusError
from scepsy.drift.series import observe, observe_callers
from scepsy.drift.workflows import judge_workflows, notes_of
from scepsy.errors import ScepsyError

Reader = Callable[[Plan, float], Report]
"""Compares a part of the world with a Plan at a time (Unix seconds); raises ScepsyError where it cannot."""


@dataclass(frozen=True)
class World:
    """What there is to look at.

    Attributes:
        prometheus: where traffic is known; None where nobody said.
        matchers: further labels of its series.
        window: seconds that are read as they were scraped.
        readers: of nodes and live objects; what is missing is not looked at.
        now: the time, Unix seconds, where there is no Prometheus to tell it.
        changed: when the Plan last changed, Unix seconds; None if nobody knows.
    """

    prometheus: Prometheus | None
    now: Callable[[], float]
    matchers: Mapping[str, str] = field(default_factory=dict)
    window: int = 3600
    readers: Mapping[Area, Reader] = field(default_factory=dict)
    changed: float | None = None


@dataclass(frozen=True)
class Look:
    """What one look gave.

    Attributes:
        at: when, Unix seconds.
        report: findings and what was judged.
        failed: what could not be asked at all, in the order in which it was tried.
        change: how calls differ from the Plan's, as far as findings say so: what compiling again would plan for.
        notes: what to know of all this.
        missing: what of the cluster is not to be used.
        cost: what is predicted with the committed allocation; None where nothing that was found bears on it.
        gain: what compiling again would give; None where nothing that was found bears on it.
        news: whether Observed documents would change with what was seen.
        edited: whether documents changed since the Plan was compiled.
        latency: by LLM, mean seconds of a call over the last hour: observed, and predicted at that load.
    """

    at: float
    report: Report
    failed: tuple[ScepsyError, ...]
    change: Change
    notes: tuple[str, ...] = ()
    missing: Missing = NOTHING
    cost: Outlook | None = None
    gain: Outlook | None = None
    news: bool = False
    edited: bool = False
    latency: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def look(
    workspace: Workspace,
    inputs: Inputs | ScepsyError,
    plan: Plan,
    world: World,
    settings: Settings,
    oldest: int | None = None,
) -> Look:
    """Look once.

    Args:
        workspace: the project.
        inputs: what the Plan is compiled from, or why that cannot be read: then nothing is predicted.
        plan: the committed Plan.
        world: what there is to look at.
        settings: what is looked for in traffic.
        oldest: days that a profile may be old.
    """
    failed: list[ScepsyError] = []
    report, change, at, latency = _traffic(inputs, plan, world, settings, failed)
    today = datetime.datetime.fromtimestamp(at, datetime.UTC).date()
    report += judge_profiles(workspace, plan, today, oldest)
    for area, reader in world.readers.items():
        try:
            report += reader(plan, at)
        except ScepsyError as error:
            failed.append(error)
            report += Report(judged=(Judged(area, "", area, error.message),))
    missing = known_missing(workspace, plan.spec.cluster).after(report.findings)
    seen = Look(at, report, tuple(failed), change, notes_of(report.judged), missing, latency=latency)
    return (
        replace(seen, report=_sorted(report))
        if isinstance(inputs, ScepsyError)
        else _valued(seen, workspace, inputs, plan)
    )


def _sorted(report: Report) -> Report:
    return Report(tuple(ordered(report.findings)), report.judged)


def _valued(seen: Look, workspace: Workspace, inputs: Inputs, plan: Plan) -> Look:
    """Say what the findings cost together, and what compiling again, with what was observed, would give."""
    findings = seen.report.findings
    cost = _cost(findings, inputs, plan, seen.change)
    gain, news = None, False
    if any(f.area == "traffic" or f.kind in (*LOST, *BACK) for f in findings):
        files = observed_files(workspace, inputs, seen.change, seen.missing, seen.at)
        gain, news = _compiled(with_observed(workspace, files), inputs, seen.change), bool(files)
    edited = _edited(inputs, plan)
    return replace(
        seen,
        report=_sorted(Report(_with_outlooks(findings, cost, gain), seen.report.judged)),
        notes=seen.notes + edited,
        cost=cost,
        gain=gain,
        news=news,
        edited=bool(edited),
    )


def _compiled(workspace: Workspace, inputs: Inputs, change: Change) -> Outlook:
    """Compile in memory with the Observed documents that would be written."""
    try:
        outlook = gain_of(collect_inputs(workspace, inputs.cluster.metadata.name))
    except DocumentError as error:
        return Outlook(note=f"it does not compile: {error.diagnostics[0].message}")
    least = fewest_note(inputs, change)
    return replace(outlook, note="; ".join(note for note in (outlook.note, least) if note))


def _edited(inputs: Inputs, plan: Plan) -> tuple[str, ...]:
    """Say which documents changed since the Plan was compiled: tokens and predictions go by them, not by the Plan."""
    before, now = plan.spec.inputs, inputs.digests
    different = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    if not different:
        return ()
    names = ", ".join(different[:5]) + (f" and {len(different) - 5} more" if len(different) > 5 else "")
    return (f"documents changed since the plan was compiled ({names}): see scepsy compile --check",)


def _traffic(
    inputs: Inputs | ScepsyError, plan: Plan, world: World, settings: Settings, failed: list[ScepsyError]
) -> tuple[Report, Change, float, Mapping[str, tuple[float, float]]]:
    def nothing(reason: str) -> Report:
        return Report(judged=(Judged("traffic", "", "traffic", reason), Judged("profiles", "", "latency", reason)))

    if world.prometheus is None:
        return nothing("no Prometheus is named (--prometheus)"), Change(), world.now(), {}
    if isinstance(inputs, ScepsyError):
        failed.append(inputs)
        return nothing(f"the documents do not say what was planned: {inputs.message}"), Change(), world.now(), {}
    try:
        at = world.prometheus.now()
        traffic = observe(world.prometheus, plan, at, world.window, world.matchers)
        callers = observe_callers(world.prometheus, plan, at, world.window, world.matchers)
    except PrometheusError as error:
        failed.append(error)
        whole = "" if isinstance(error, Partial) else "; that says nothing about traffic"
        return nothing(error.message + whole), Change(), world.now(), {}
    if all(own.calls is None and own.arrived is None for own in traffic.values()):
        nothing_there = PrometheusError(
            f"{world.prometheus.place} has no series of any LLM of the plan (namespace"
            f' "{world.matchers.get("namespace", plan.spec.namespace)}") over the last day',
            "does it scrape the pods (spec.podMonitor in scepsy.yaml)? --match names other labels that series have",
        )
        failed.append(nothing_there)
        return nothing(nothing_there.message), Change(), at, {}
    first = judge_workflows(inputs, plan, traffic, callers, at, settings)
    second = judge_traffic(inputs, plan, traffic, at, settings, first.change)
    third = judge_latency(inputs, plan, traffic, at, settings, second, world.changed)
    change = replace(second.change, seconds=third.change.seconds)
    return first.report + second.report + third.report, change, at, third.latency


_DOWN = ("pod-pending", "pod-crashing", "claim-unallocated")
"""Kinds of findings about instances that do not run."""


def _cost(findings: Sequence[Finding], inputs: Inputs, plan: Plan, traffic: Change) -> Outlook | None:
    """Predict what the findings cost together; None where nothing that they say bears on it."""
    down = {name for f in findings if f.kind in (*LOST, *_DOWN) for name in f.instances}
    replicas = Counter(i.llm for i in plan.spec.instances if i.name not in down)
    hit = {i.llm for i in plan.spec.instances if i.name in down}
    change = replace(traffic, replicas={llm: replicas[llm] for llm in sorted(hit)})
    if not change.any and not any(f.kind in (*LOST, *BACK) for f in findings):
        return None
    return cost_of(inputs, plan, change)


def _with_outlooks(findings: Sequence[Finding], cost: Outlook | None, gain: Outlook | None) -> tuple[Finding, ...]:
    """Return the findings with what they cost together, and what compiling again would give."""
    if cost is None:
        return tuple(findings)
    stuck = any(own.latency is None for own in cost.workflows)
    found = []
    for finding in findings:
        if finding.area == "traffic":
            urgent = stuck and finding.kind.endswith("-above")
            own = replace(finding, severity="critical") if urgent else finding
            found.append(own.with_outlook(cost, gain))
        elif finding.kind in LOST:
            found.append(finding.with_outlook(cost if finding.instances else None, gain))
        elif finding.kind in BACK:
            found.append(finding.with_outlook(None, gain))
        elif finding.kind in _DOWN and finding.instances:
            found.append(finding.with_outlook(cost, None))
        elif finding.kind.startswith("latency-"):
            measure = Outlook(note="measure again first: a compile rests on the profile")
            found.append(finding.with_outlook(cost, measure))
        else:
            found.append(finding)
    return tuple(found)


def result_of(plan: Plan, seen: Look, settings: Settings) -> DriftResult:
    """Return a look as the published object."""
    return DriftResult(
        api_version=API_VERSION,
        cluster=plan.spec.cluster,
        at=_time(seen.at),
        drift=bool(seen.report.findings),
        findings=tuple(_finding(finding) for finding in seen.report.findings),
        judged=tuple(
            DriftJudged(
                area=own.area,
                subject=own.subject,
                what=own.what,
                judged=not own.reason,
                reason=own.reason,
                note=own.note,
            )
            for own in seen.report.judged
        ),
        alarms=settings.alarms,
        notes=seen.notes,
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
        cost=_outlook(finding.cost),
        gain=_outlook(finding.gain),
        instances=finding.instances,
    )


def _outlook(outlook: Outlook | None) -> DriftOutlook | None:
    if outlook is None:
        return None
    figures = tuple(
        DriftFigures(
            workflow=own.workflow,
            rate=_short(own.rate),
            latency=None if own.latency is None else _short(own.latency),
            capacity=_short(own.capacity),
        )
        for own in outlook.workflows
    )
    return DriftOutlook(workflows=figures, gpus=outlook.gpus, note=outlook.note)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _time(at: float) -> str:
    return datetime.datetime.fromtimestamp(round(at), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
