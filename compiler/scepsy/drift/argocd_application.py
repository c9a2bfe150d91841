"""Checks an Argo CD Application: whether it is in sync and healthy, and whether syncs succeed.

Read are `status.sync`, `.health`, `.resources`, `.conditions` and `.operationState`. With `selfHeal`, a manual change
that Argo CD undoes shows as OutOfSync for some seconds, and the object does not say how long it has been OutOfSync
(`reconciledAt` is when Argo CD last checked the newest commit). So OutOfSync counts
- at once if Argo CD will not fix it: no automated sync, or no self-healing and no new commit;
- at once if fixing it failed: self-healing was attempted three times, or a sync failed; not so if objects are only to
  be removed, since Argo CD counts every check of objects that are still terminating;
- else when it has been seen for `transient_for` seconds: the caller keeps the `FirstSeen` of :func:`check_application`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scepsy.cluster.connection import mappings
from scepsy.cluster.kubernetes import Object
from scepsy.documents import Plan
from scepsy.documents.drift_result import FindingKind, Severity
from scepsy.drift.finding import Check, Finding, Report, unix
from scepsy.drift.object_fields import one_line, part

TRANSIENT_FOR = 120.0
"""Seconds for which an Application may be OutOfSync, unhealthy or syncing before that counts."""
_TRIES = 3
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Application:
    """The fields of an Argo CD Application that a check needs.

    Attributes:
        name: its name.
        sync: Synced, OutOfSync or Unknown.
        health: Healthy, Progressing, Degraded, Suspended, Missing or Unknown.
        health_message: what Argo CD reports.
        health_since: when that began, Unix seconds; None if not known.
        different: objects that differ from the commit, as `Kind/name`; sorted.
        leaving: whether all of these are only to be removed, which lasts until their pods have ended.
        automated: whether Argo CD syncs new commits automatically.
        self_heal: whether it undoes changes of live objects.
        revision: the commit it was compared with.
        phase: of the last sync: Running, Succeeded, Failed, Error, Terminating; empty if there was none.
        phase_message: what Argo CD reports about it.
        phase_since: when it ended, or else when it began.
        synced: the commit that the last sync was for.
        tries: attempts of self-healing, or retries, so far.
        errors: conditions that report an error, as (type, message, since).
    """

    name: str
    sync: str
    health: str
    health_message: str = ""
    health_since: float | None = None
    different: tuple[str, ...] = ()
    leaving: bool = False
    automated: bool = True
    self_heal: bool = True
    revision: str = ""
    phase: str = ""
    phase_message: str = ""
    phase_since: float | None = None
    synced: str = ""
    tries: int = 0
    errors: tuple[tuple[str, str, float | None], ...] = ()


def application_of(item: Object) -> Application:
    """Return the part of an Application object that matters here."""
    spec, status = part(item, "spec"), part(item, "status")
    automated = part(spec, "syncPolicy").get("automated")
    on = isinstance(automated, dict) and automated.get("enabled") is not False
    operation = part(status, "operationState")
    sync = part(part(operation, "operation"), "sync")
    heals = sync.get("autoHealAttemptsCount")
    retries = operation.get("retryCount")
    health = part(status, "health")
    out_of_sync = [r for r in mappings(status.get("resources")) if r.get("status") == "OutOfSync" and not r.get("hook")]
    errors = [
        (str(c.get("type")), one_line(c.get("message")), unix(str(c.get("lastTransitionTime") or "")))
        for c in mappings(status.get("conditions"))
        if str(c.get("type")).endswith("Error")
    ]
    return Application(
        name=str(part(item, "metadata").get("name") or ""),
        sync=str(part(status, "sync").get("status") or "Unknown"),
        health=str(health.get("status") or "Unknown"),
        health_message=one_line(health.get("message")),
        health_since=unix(str(health.get("lastTransitionTime") or "")),
        different=tuple(sorted(f"{resource.get('kind')}/{resource.get('name')}" for resource in out_of_sync)),
        leaving=bool(out_of_sync) and all(resource.get("requiresPruning") is True for resource in out_of_sync),
        automated=on,
        self_heal=on and isinstance(automated, dict) and bool(automated.get("selfHeal")),
        revision=str(part(status, "sync").get("revision") or ""),
        phase=str(operation.get("phase") or ""),
        phase_message="; ".join(
            text for text in (one_line(operation.get("message")), _first_failure(operation)) if text
        ),
        phase_since=unix(str(operation.get("finishedAt") or operation.get("startedAt") or "")),
        synced=str(part(operation, "syncResult").get("revision") or sync.get("revision") or ""),
        tries=max(heals if isinstance(heals, int) else 0, retries if isinstance(retries, int) else 0),
        errors=tuple(sorted(errors, key=lambda error: error[:2])),
    )


def _first_failure(operation: Object) -> str:
    """Return the first object that a sync could not apply, with the error; the sync's message only counts them."""
    for resource in mappings(part(operation, "syncResult").get("resources")):
        if resource.get("status") == "SyncFailed":
            return f"{resource.get('kind')}/{resource.get('name')}: {one_line(resource.get('message'))}"
    return ""


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """When earlier checks first saw a state that still lasts; to be passed to the next check.

    Attributes:
        since: by state, Unix seconds.
    """

    since: Mapping[str, float] = field(default_factory=dict)


NOTHING_SEEN = FirstSeen()
"""For the first check."""


def check_application(
    application: Application,
    plan: Plan,
    now: float,
    first_seen: FirstSeen = NOTHING_SEEN,
    transient_for: float = TRANSIENT_FOR,
) -> tuple[Report, FirstSeen]:
    """Return what is wrong with an Application, and what the next check must know.

    Args:
        application: the Application.
        plan: the committed Plan.
        now: Unix seconds.
        first_seen: what the previous check returned.
        transient_for: seconds for which a state that may end by itself does not count.
    """
    check = _ApplicationCheck(application, now, first_seen, transient_for)
    for error, message, since in application.errors:
        what = f"Argo CD reports {error} of Application {application.name}: {message}"
        check.find(FindingKind.APPLICATION_ERROR, "critical", what, since)
    check.sync(plan)
    check.health()
    return Report(tuple(check.findings), tuple(check.checks)), FirstSeen(check.known)


@dataclass
class _ApplicationCheck:
    """The check of one Application.

    Attributes:
        application: the Application.
        now: Unix seconds.
        before: what the previous check returned.
        transient_for: seconds for which a state that may end by itself does not count.
        known: since when states have lasted, for the next check.
        findings: what is wrong.
        checks: what was checked.
    """

    application: Application
    now: float
    before: FirstSeen
    transient_for: float
    known: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def find(
        self,
        kind: FindingKind,
        severity: Severity,
        what: str,
        since: float | None,
        instances: tuple[str, ...] = (),
        at_least_since: bool = False,
    ) -> None:
        """Add a finding."""
        self.findings.append(
            Finding(
                kind,
                severity,
                self.application.name,
                what,
                since=since,
                instances=instances,
                at_least_since=at_least_since,
            )
        )

    def skip(self, what: str, reason: str) -> None:
        """Add a check that could not be done."""
        self.checks.append(Check("objects", self.application.name, what, reason))

    def since_if_settled(self, state: str, since: float | None) -> float | None:
        """Return since when a state has lasted; None if that is not long enough. Remember that it was seen."""
        begun = min(self.before.since.get(state, self.now), self.now if since is None else since)
        self.known[state] = begun
        return begun if self.now - begun >= self.transient_for else None

    def health(self) -> None:
        """Check the health."""
        application = self.application
        match application.health:
            case "Degraded" | "Missing":
                begun = self.since_if_settled(application.health, application.health_since)
                why = f": {application.health_message}" if application.health_message else ""
                if begun is None:
                    self.skip("health", f"{application.health}, but for less than {self.transient_for:.0f} s")
                    return
                what = f"Application {application.name} is {application.health}{why}"
                self.find(FindingKind.APPLICATION_UNHEALTHY, "critical", what, begun)
            case "Unknown":
                self.skip("health", "Argo CD reports the health as Unknown")
            case health:
                self.checks.append(Check("objects", application.name, "health", note=health))

    def sync(self, plan: Plan) -> None:
        """Check the last sync, and whether live objects equal the commit."""
        application = self.application
        name, since = application.name, application.phase_since
        message = f": {application.phase_message}" if application.phase_message else ""
        if application.phase in ("Failed", "Error"):
            what = f"the last sync of Application {name} failed{message}"
            self.find(FindingKind.SYNC_FAILED, "critical", what, since)
            return
        if application.phase == "Running":
            begun = self.since_if_settled("Running", since)
            if application.tries >= _TRIES:
                what = f"the sync of Application {name} keeps failing ({application.tries} retries){message}"
                self.find(FindingKind.SYNC_FAILING, "critical", what, since)
            elif begun is not None:
                what = f"a sync of Application {name} does not end{message}"
                self.find(FindingKind.SYNC_STUCK, "warning", what, since)
            else:
                self.skip("sync", f"a sync has been running for less than {_age(since, self.now)}")
            return
        if application.sync == "Unknown":
            self.skip("sync", "Argo CD cannot compare it with the repository")
        if application.sync != "OutOfSync":
            self.checks.append(Check("objects", name, "sync", note=application.sync))
            return
        self._out_of_sync(plan)

    def _out_of_sync(self, plan: Plan) -> None:
        application = self.application
        different = application.different
        listed = ", ".join(different[:_NAMED]) or "objects"
        more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
        new_commit = application.automated and application.revision != application.synced
        state = f"OutOfSync {application.revision} {' '.join(different)}"
        begun = self.since_if_settled(state, None)
        heals = application.self_heal or new_commit
        if begun is None and heals and (application.tries < _TRIES or application.leaving):
            seconds = f"{self.transient_for:.0f} s"
            reason = f"OutOfSync ({listed}{more}) for less than {seconds} as far as seen; Argo CD may fix it"
            self.skip("sync", reason)
            return
        instances = tuple(i.name for i in plan.spec.instances if f"Deployment/{i.name}" in different)
        tried = f"; self-healing was tried {application.tries} times" if application.tries >= _TRIES else ""
        what = f"{listed}{more} differ from the commit{tried}"
        self.find(FindingKind.OUT_OF_SYNC, "warning", what, self.known[state], instances, at_least_since=True)


def _age(since: float | None, now: float) -> str:
    return f"{max(now - since, 0) + 1:.0f} s" if since is not None else "a while"
