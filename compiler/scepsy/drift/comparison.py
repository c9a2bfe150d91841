"""Compares the committed Plan with everything that can be observed: traffic, profiles, nodes, live objects.

A comparison keeps no state: the one of a scheduled command and the one of a watch are the same.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from scepsy.compilation import Inputs, collect_inputs
from scepsy.documents import DocumentError, Plan, Workspace
from scepsy.documents.drift_result import Area
from scepsy.documents.workspace import with_observed
from scepsy.drift.call_changes import Change
from scepsy.drift.collector import Settings
from scepsy.drift.finding import Check, Impact, Report, ordered
from scepsy.drift.finding_impacts import cost_of_findings, with_impacts
from scepsy.drift.impact import fewest_note, gain_of
from scepsy.drift.latency import check_latency
from scepsy.drift.llm_traffic import check_llm_traffic
from scepsy.drift.lost_hardware import NOTHING, Missing, known_missing
from scepsy.drift.observed_documents import observed_files
from scepsy.drift.profiles import check_profiles
from scepsy.drift.prometheus import Partial, Prometheus, PrometheusError
from scepsy.drift.series import observe, observe_callers
from scepsy.drift.workflow_traffic import check_workflows, notes_of
from scepsy.errors import ScepsyError

AreaCheck = Callable[[Plan, float], Report]
"""Compares one area with a Plan at a time (Unix seconds); raises ScepsyError if it cannot."""


@dataclass(frozen=True)
class Sources:
    """Where to read what is compared with the Plan.

    Attributes:
        prometheus: where traffic is known; None without one.
        matchers: further labels of its series.
        window: seconds that are read at full scrape resolution.
        areas: the checks of nodes and live objects; a missing area is not checked.
        now: the time, Unix seconds, without a Prometheus whose clock counts.
        changed: when the Plan last changed, Unix seconds; None if not known.
    """

    prometheus: Prometheus | None
    now: Callable[[], float]
    matchers: Mapping[str, str] = field(default_factory=dict)
    window: int = 3600
    areas: Mapping[Area, AreaCheck] = field(default_factory=dict)
    changed: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The result of one comparison.

    Attributes:
        at: when, Unix seconds.
        report: findings and checks.
        failed: the sources that could not be read, in the order in which they were tried.
        change: how calls differ from the Plan's, as far as findings say so: what a recompile plans for.
        notes: the limits of the comparison, for people.
        missing: hardware that must not be used.
        cost: the predictions with the committed allocation; None if no finding changes them.
        gain: the predictions after a recompile; None if no finding changes them.
        news: whether a recompile would change Observed documents.
        edited: whether documents changed after the Plan was compiled.
        latency: by LLM, mean seconds of a call over the last hour: observed, and predicted at that load.
    """

    at: float
    report: Report
    failed: tuple[ScepsyError, ...]
    change: Change
    notes: tuple[str, ...] = ()
    missing: Missing = NOTHING
    cost: Impact | None = None
    gain: Impact | None = None
    news: bool = False
    edited: bool = False
    latency: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def compare_with_plan(
    workspace: Workspace,
    inputs: Inputs | ScepsyError,
    plan: Plan,
    sources: Sources,
    settings: Settings,
    oldest: int | None = None,
) -> Comparison:
    """Compare everything once.

    Args:
        workspace: the project.
        inputs: what the Plan is compiled from, or why that cannot be read: then nothing is predicted.
        plan: the committed Plan.
        sources: where to read.
        settings: what counts as a change of traffic.
        oldest: days that a profile may be old; None for no limit.
    """
    failed: list[ScepsyError] = []
    traffic = _traffic(inputs, plan, sources, settings, failed)
    report, at = traffic.report, traffic.at
    today = datetime.datetime.fromtimestamp(at, datetime.UTC).date()
    report += check_profiles(workspace, plan, today, oldest)
    for area, check in sources.areas.items():
        try:
            report += check(plan, at)
        except ScepsyError as error:
            failed.append(error)
            report += Report(checks=(Check(area, "", area, error.message),))
    comparison = Comparison(
        at,
        report,
        tuple(failed),
        traffic.change,
        notes_of(report.checks),
        known_missing(workspace, plan.spec.cluster).after(report.findings),
        latency=traffic.latency,
    )
    if isinstance(inputs, ScepsyError):
        return replace(comparison, report=_sorted(report))
    return _with_predictions(comparison, workspace, inputs, plan)


@dataclass(frozen=True)
class _Traffic:
    """The comparison of traffic; attributes as of Comparison."""

    report: Report
    at: float
    change: Change = field(default_factory=Change)
    latency: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _traffic(
    inputs: Inputs | ScepsyError, plan: Plan, sources: Sources, settings: Settings, failed: list[ScepsyError]
) -> _Traffic:
    """Compare traffic and latency; append to `failed` what could not be read."""
    if sources.prometheus is None:
        return _Traffic(_skipped("no Prometheus is named (--prometheus)"), sources.now())
    if isinstance(inputs, ScepsyError):
        failed.append(inputs)
        return _Traffic(_skipped(f"the documents cannot be read: {inputs.message}"), sources.now())
    try:
        at = sources.prometheus.now()
        traffic = observe(sources.prometheus, plan, at, sources.window, sources.matchers)
        callers = observe_callers(sources.prometheus, plan, at, sources.window, sources.matchers)
    except PrometheusError as error:
        failed.append(error)
        suffix = "" if isinstance(error, Partial) else "; traffic is unknown"
        return _Traffic(_skipped(error.message + suffix), sources.now())
    if all(llm.calls is None and llm.arrived is None for llm in traffic.values()):
        namespace = sources.matchers.get("namespace", plan.spec.namespace)
        empty = PrometheusError(
            f'{sources.prometheus.place} has no series of any LLM of the plan (namespace "{namespace}") over the last'
            " day",
            "does it scrape the pods (spec.podMonitor in scepsy.yaml)? --match adds labels that the series have",
        )
        failed.append(empty)
        return _Traffic(_skipped(empty.message), at)
    workflows = check_workflows(inputs, plan, traffic, callers, at, settings)
    llms = check_llm_traffic(inputs, plan, traffic, at, settings, workflows.change)
    latency = check_latency(inputs, plan, traffic, at, settings, llms, sources.changed)
    change = replace(llms.change, seconds=latency.change.seconds)
    return _Traffic(workflows.report + llms.report + latency.report, at, change, latency.latency)


def _skipped(reason: str) -> Report:
    """Return that traffic and latency are not checked, and why."""
    return Report(checks=(Check("traffic", "", "traffic", reason), Check("profiles", "", "latency", reason)))


def _sorted(report: Report) -> Report:
    return Report(tuple(ordered(report.findings)), report.checks)


def _with_predictions(comparison: Comparison, workspace: Workspace, inputs: Inputs, plan: Plan) -> Comparison:
    """Add what the findings cost together, and what a recompile with the observed values gains."""
    findings = comparison.report.findings
    cost = cost_of_findings(findings, inputs, plan, comparison.change)
    gain, news = None, False
    if any(f.effect.changes_traffic or f.effect.loses_hardware or f.effect.returns_hardware for f in findings):
        files = observed_files(workspace, inputs, comparison.change, comparison.missing, comparison.at)
        gain, news = _recompiled(with_observed(workspace, files), inputs, comparison.change), bool(files)
    edited = _edited(inputs, plan)
    return replace(
        comparison,
        report=_sorted(Report(with_impacts(findings, cost, gain), comparison.report.checks)),
        notes=comparison.notes + edited,
        cost=cost,
        gain=gain,
        news=news,
        edited=bool(edited),
    )


def _recompiled(workspace: Workspace, inputs: Inputs, change: Change) -> Impact:
    """Compile in memory with the Observed documents that a recompile would write."""
    try:
        impact = gain_of(collect_inputs(workspace, inputs.cluster.metadata.name))
    except DocumentError as error:
        return Impact(note=f"it does not compile: {error.diagnostics[0].message}")
    fewest = fewest_note(inputs, change)
    return replace(impact, note="; ".join(note for note in (impact.note, fewest) if note))


def _edited(inputs: Inputs, plan: Plan) -> tuple[str, ...]:
    """Return a note naming the documents that changed after the Plan was compiled; predictions use the new ones."""
    before, now = plan.spec.inputs, inputs.digests
    different = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    if not different:
        return ()
    names = ", ".join(different[:5]) + (f" and {len(different) - 5} more" if len(different) > 5 else "")
    return (f"documents changed since the plan was compiled ({names}): see scepsy compile --check",)
