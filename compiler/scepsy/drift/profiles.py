"""Checks whether the profiles that a Plan rests on still hold: engine, model revision, age."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from scepsy.documents import Plan, Profile, Workspace
from scepsy.documents.drift_result import FindingKind, Severity
from scepsy.documents.plan import PlannedLlm
from scepsy.drift.finding import Check, Finding, Report
from scepsy.performance.freshness import outdated


def check_profiles(workspace: Workspace, plan: Plan, today: datetime.date, oldest: int | None = None) -> Report:
    """Compare the profiles that a Plan names with the documents as they are now.

    Args:
        workspace: the project.
        plan: the committed Plan.
        today: the day.
        oldest: days that a profile may be old; None for no limit.
    """
    engine = workspace.project.document.spec.engine
    profiles = {loaded.document.metadata.name: loaded.document for loaded in workspace.profiles.values()}
    findings: list[Finding] = []
    checks: list[Check] = []
    if engine.image != plan.spec.engine_image:
        what = f"the plan runs {plan.spec.engine_image}, the project {engine.image}: compile again"
        instances = tuple(instance.name for instance in plan.spec.instances)
        findings.append(Finding(FindingKind.ENGINE_CHANGED, "warning", "engine", what, instances=instances))
    revisions = _revisions(workspace)
    for llm in plan.spec.llms:
        pinned = revisions.get(llm.name, llm.revision)
        if llm.name in revisions and pinned != llm.revision:
            what = f"the plan runs revision {llm.revision or 'none'}, the workflow pins {pinned or 'none'}"
            findings.append(_finding(plan, llm, FindingKind.REVISION_CHANGED, f"{what}: compile again"))
        profile = profiles.get(llm.profile.name)
        if profile is None:
            what = f"profile {llm.profile.name}, which the plan rests on, is not in the project"
            findings.append(_finding(plan, llm, FindingKind.PROFILE_GONE, what))
            continue
        findings += _stale(plan, llm, profile, engine.version, pinned)
        if oldest is not None:
            age, old = _age(plan, llm, profile, today, oldest)
            checks.append(age)
            findings += old
        checks.append(Check("profiles", llm.name, "profile", note=f"{llm.profile.name} ({profile.spec.source})"))
    return Report(tuple(findings), tuple(checks))


def _stale(plan: Plan, llm: PlannedLlm, profile: Profile, version: str, pinned: str | None) -> Iterator[Finding]:
    """Return a finding if a profile was measured with another engine version or model revision."""
    reason = outdated(profile, version, pinned)
    if reason is not None:
        # An estimate's tables match no exact version, so that of an estimate this matters less.
        severity: Severity = "info" if profile.spec.source == "estimated" else "warning"
        what = f"profile {llm.profile.name}: {reason}; measure again: scepsy profile plan"
        yield _finding(plan, llm, FindingKind.PROFILE_OUTDATED, what, severity)


def _age(
    plan: Plan, llm: PlannedLlm, profile: Profile, today: datetime.date, oldest: int
) -> tuple[Check, tuple[Finding, ...]]:
    """Check the age of a profile."""
    day = _day(profile.spec.provenance.date)
    if day is None:
        return Check("profiles", llm.name, "age", f"profile {llm.profile.name} has no date"), ()
    age = (today - day).days
    check = Check("profiles", llm.name, "age", note=f"{age} days")
    if age <= oldest:
        return check, ()
    what = f"profile {llm.profile.name} is {age} days old; measure again"
    return check, (_finding(plan, llm, FindingKind.PROFILE_OLD, what, "info"),)


def _finding(plan: Plan, llm: PlannedLlm, kind: FindingKind, what: str, severity: Severity = "warning") -> Finding:
    instances = tuple(instance.name for instance in plan.spec.instances if instance.llm == llm.name)
    return Finding(kind, severity, llm.name, what, instances=instances)


def _revisions(workspace: Workspace) -> Mapping[str, str | None]:
    """Return by LLM the revision that its workflows pin."""
    return {llm.name: llm.revision for w in workspace.workflows.values() for llm in w.document.spec.llms}


def _day(date: str | None) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(date) if date else None
    except ValueError:
        return None
