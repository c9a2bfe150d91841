"""Whether the profiles that a Plan rests on still hold: their engine, their model's revision, their age."""

from __future__ import annotations

import datetime

from scepsy.documents import Plan, Workspace
from scepsy.drift.finding import Finding, Judged, Report
from scepsy.performance.freshness import outdated


def judge_profiles(workspace: Workspace, plan: Plan, today: datetime.date, oldest: int | None = None) -> Report:
    """Compare the profiles that a Plan names with the documents as they are now.

    Args:
        workspace: the project.
        plan: the committed Plan.
        today: the day.
        oldest: days that a measurement may be old; None for as many as there are.
    """
    settings = workspace.project.document.spec
    profiles = {loaded.document.metadata.name: loaded.document for loaded in workspace.profiles.values()}
    findings: list[Finding] = []
    judged: list[Judged] = []
    if settings.engine.image != plan.spec.engine_image:
        findings.append(
            Finding(
                area="profiles",
                kind="engine-changed",
                severity="warning",
                subject="engine",
                what=f"the plan runs {plan.spec.engine_image}, the project {settings.engine.image}: compile again",
                instances=tuple(instance.name for instance in plan.spec.instances),
            )
        )
    revisions = _revisions(workspace)
    for llm in plan.spec.llms:
        instances = tuple(instance.name for instance in plan.spec.instances if instance.llm == llm.name)

        def found(
            kind: str, what: str, name: str = llm.name, own: tuple[str, ...] = instances, *, grave: bool = True
        ) -> None:
            severity = "warning" if grave else "info"
            findings.append(
                Finding(area="profiles", kind=kind, severity=severity, subject=name, what=what, instances=own)  # type: ignore[arg-type]
            )

        pinned = revisions.get(llm.name, llm.revision)
        if llm.name in revisions and pinned != llm.revision:
            had, now = llm.revision or "none", pinned or "none"
            found("revision-changed", f"the plan runs revision {had}, the workflow pins {now}: compile again")
        profile = profiles.get(llm.profile.name)
        if profile is None:
            found("profile-gone", f"profile {llm.profile.name}, which the plan rests on, is no longer in the project")
            continue
        reason = outdated(profile, settings.engine.version, pinned)
        if reason is not None:
            # Tables of an estimate are of no exact version: a measurement of another one is.
            what = f"profile {llm.profile.name}: {reason}; measure again: scepsy profile plan"
            found("profile-outdated", what, grave=profile.spec.source != "estimated")
        day = _day(profile.spec.provenance.date)
        if oldest is not None and day is None:
            judged.append(Judged("profiles", llm.name, "age", f"profile {llm.profile.name} has no date"))
        elif oldest is not None and day is not None:
            age = (today - day).days
            judged.append(Judged("profiles", llm.name, "age", note=f"{age} days"))
            if age > oldest:
                found("profile-old", f"profile {llm.profile.name} is {age} days old; measure again", grave=False)
        judged.append(Judged("profiles", llm.name, "profile", note=f"{llm.profile.name} ({profile.spec.source})"))
    return Report(tuple(findings), tuple(judged))


def _revisions(workspace: Workspace) -> dict[str, str | None]:
    """Return by LLM the revision that its workflows pin."""
    return {llm.name: llm.revision for w in workspace.workflows.values() for llm in w.document.spec.llms}


def _day(date: str | None) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(date) if date else None
    except ValueError:
        return None
