"""Live objects against what was committed: the Argo CD Application, pods that do not start, claims without a GPU.

Of an Application: `status.sync`, `.health`, `.resources`, `.conditions` and `.operationState`. With `selfHeal`, an
OutOfSync is what a mended mistake looks like for some seconds, and nothing in the object says since when it has been so
(`reconciledAt` is when Argo CD last looked at the newest commit). So it counts
- at once, where nothing would mend it: no automated sync, or no self-healing and no new commit;
- at once, where mending was tried in vain: self-healing has been attempted three times, or a sync failed; not so
  where objects are only to be removed, since Argo CD counts every look at those that are on their way;
- else when it has been seen for `settle` seconds: the caller keeps what :func:`judge_application` has seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scepsy.cluster.connection import Clock, mapping, mappings
from scepsy.cluster.kubernetes import APPLICATIONS, CLAIMS, PODS, Object, Reader
from scepsy.documents import Plan
from scepsy.drift.finding import Finding, Judged, Report, Severity, unix
from scepsy.manifests.resource_claims import claims

SETTLE = 120.0
"""Seconds for which an Application may be OutOfSync, unhealthy or syncing before that counts."""
PATIENCE = 600.0
"""Seconds for which a pod may be Pending, or a claim without a GPU, before that counts: images of engines are large."""
_TRIES = 3
_INSTANCE = "scepsy.dev/instance"
_WAITING_ON_PURPOSE = {"ContainerCreating", "PodInitializing", ""}


@dataclass(frozen=True, slots=True)
class Application:
    """An Argo CD Application, as far as drift goes.

    Attributes:
        name: its name.
        sync: Synced, OutOfSync or Unknown.
        health: Healthy, Progressing, Degraded, Suspended, Missing or Unknown.
        health_message: what Argo CD says of it.
        health_since: Unix seconds since when; None if that is not known.
        different: objects that differ from the commit, as `Kind/name`; sorted.
        leaving: whether all of these are only to be removed, which takes as long as their pods take to end.
        automated: whether Argo CD syncs new commits by itself.
        self_heal: whether it undoes changes of live objects.
        revision: the commit it was compared with.
        phase: of the last sync: Running, Succeeded, Failed, Error, Terminating; empty if there was none.
        phase_message: what Argo CD says of it.
        phase_since: when it began, or ended if it has.
        synced: the commit that the last sync was for.
        tries: attempts of self-healing, or retries, so far.
        errors: conditions that say what is wrong, as (type, message, since).
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


@dataclass(frozen=True, slots=True)
class Seen:
    """What earlier looks saw; to be handed to the next.

    Attributes:
        since: Unix seconds of the first look in a row that saw a thing.
    """

    since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Objects:
    """What is read of a cluster, as Kubernetes has it.

    Attributes:
        application: the Application; None if there is none, or where Argo CD runs elsewhere.
        pods: the pods of the namespace.
        claims: its ResourceClaims.
    """

    application: Object | None
    pods: Sequence[Object]
    claims: Sequence[Object]


def read(reader: Reader, namespace: str, application: tuple[str, str] | None) -> Objects:
    """Read what is judged here.

    Args:
        reader: the live cluster.
        namespace: where the engines run.
        application: namespace and name of the Argo CD Application; None not to look.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    found = reader.get(APPLICATIONS, *application) if application is not None else None
    return Objects(found, reader.objects(PODS, namespace), reader.objects(CLAIMS, namespace))


def look(
    reader: Reader,
    plan: Plan,
    application: tuple[str, str] | None,
    clock: Clock,
    seen: Seen = Seen(),
    again: bool = False,
) -> tuple[Report, Seen]:
    """Read live objects and judge them.

    Args:
        reader: the live cluster.
        plan: the committed Plan.
        application: namespace and name of the Argo CD Application; None not to look.
        clock: Unix seconds, and waiting.
        seen: what the look before returned.
        again: whether to look at the Application a second time, `SETTLE` seconds later, where one look cannot tell: for
            who looks once only. Nothing is waited for where it is in sync and healthy.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    name = application[1] if application is not None else None
    there = read(reader, plan.spec.namespace, application)
    report, known = judge(there, plan, clock.now(), seen, name)
    if not (again and application is not None and known.since) or any(f.subject == name for f in report.findings):
        return report, known
    clock.sleep(SETTLE)
    found = reader.get(APPLICATIONS, *application)
    return judge(Objects(found, there.pods, there.claims), plan, clock.now(), known, name)


# ------------------------------------------------------------------------------------------------------- application


def application_of(item: Object) -> Application:
    """Return the part of an Application object that matters here."""
    spec, status = _part(item, "spec"), _part(item, "status")
    automated = _part(spec, "syncPolicy").get("automated")
    on = isinstance(automated, dict) and automated.get("enabled") is not False
    operation = _part(status, "operationState")
    sync = _part(_part(operation, "operation"), "sync")
    heals = sync.get("autoHealAttemptsCount")
    retries = operation.get("retryCount")
    health = _part(status, "health")
    out = [r for r in mappings(status.get("resources")) if r.get("status") == "OutOfSync" and not r.get("hook")]
    errors = [
        (str(c.get("type")), _line(c.get("message")), unix(str(c.get("lastTransitionTime") or "")))
        for c in mappings(status.get("conditions"))
        if str(c.get("type")).endswith("Error")
    ]
    return Application(
        name=str(_part(item, "metadata").get("name") or ""),
        sync=str(_part(status, "sync").get("status") or "Unknown"),
        health=str(health.get("status") or "Unknown"),
        health_message=_line(health.get("message")),
        health_since=unix(str(health.get("lastTransitionTime") or "")),
        different=tuple(sorted(f"{resource.get('kind')}/{resource.get('name')}" for resource in out)),
        leaving=bool(out) and all(resource.get("requiresPruning") is True for resource in out),
        automated=on,
        self_heal=on and isinstance(automated, dict) and bool(automated.get("selfHeal")),
        revision=str(_part(status, "sync").get("revision") or ""),
        phase=str(operation.get("phase") or ""),
        phase_message="; ".join(text for text in (_line(operation.get("message")), _first_failure(operation)) if text),
        phase_since=unix(str(operation.get("finishedAt") or operation.get("startedAt") or "")),
        synced=str(_part(operation, "syncResult").get("revision") or sync.get("revision") or ""),
        tries=max(heals if isinstance(heals, int) else 0, retries if isinstance(retries, int) else 0),
        errors=tuple(sorted(errors, key=lambda error: error[:2])),
    )


def _first_failure(operation: Object) -> str:
    """Return what a sync says of the first object that it could not apply; its own message only counts them."""
    for resource in mappings(_part(operation, "syncResult").get("resources")):
        if resource.get("status") == "SyncFailed":
            return f"{resource.get('kind')}/{resource.get('name')}: {_line(resource.get('message'))}"
    return ""


def judge_application(
    application: Application,
    plan: Plan,
    now: float,
    seen: Seen = Seen(),
    settle: float = SETTLE,
) -> tuple[Report, Seen]:
    """Return what is wrong with an Application, and what the next look must know.

    Args:
        application: the Application.
        plan: the committed Plan.
        now: Unix seconds.
        seen: what the look before returned.
        settle: seconds for which what mends itself is left alone.
    """
    known: dict[str, float] = {}
    findings: list[Finding] = []
    judged: list[Judged] = []
    name = application.name

    def add(
        kind: str,
        severity: Severity,
        what: str,
        since: float | None,
        instances: tuple[str, ...] = (),
        seen: bool = False,
    ) -> None:
        made = Finding("objects", kind, severity, name, what, since=since, instances=instances, at_least_since=seen)
        findings.append(made)

    def lasts(key: str, since: float | None) -> float | None:
        """Return since when something has been so, if that is long enough ago; note that it was seen."""
        known[key] = min(seen.since.get(key, now), now if since is None else since)
        return known[key] if now - known[key] >= settle else None

    for kind, message, since in application.errors:
        add("application-error", "critical", f"Argo CD reports {kind} of Application {name}: {message}", since)
    _judge_sync(application, now, add, lasts, known, judged, plan)
    match application.health:
        case "Degraded" | "Missing":
            begun = lasts(application.health, application.health_since)
            why = f": {application.health_message}" if application.health_message else ""
            if begun is not None:
                add("application-unhealthy", "critical", f"Application {name} is {application.health}{why}", begun)
            else:
                judged.append(
                    Judged("objects", name, "health", f"{application.health}, but not for {settle:.0f} s yet")
                )
        case "Unknown":
            judged.append(Judged("objects", name, "health", "Argo CD does not know it"))
        case _:
            judged.append(Judged("objects", name, "health", note=application.health))
    return Report(tuple(findings), tuple(judged)), Seen(known)


def _judge_sync(
    application: Application,
    now: float,
    add: Any,
    lasts: Any,
    known: Mapping[str, float],
    judged: list[Judged],
    plan: Plan,
) -> None:
    name, since = application.name, application.phase_since
    said = f": {application.phase_message}" if application.phase_message else ""
    if application.phase in ("Failed", "Error"):
        add("sync-failed", "critical", f"the last sync of Application {name} failed{said}", since)
        return
    if application.phase == "Running":
        begun = lasts("Running", since)
        if application.tries >= _TRIES:
            what = f"the sync of Application {name} keeps failing, {application.tries} retries so far{said}"
            add("sync-failing", "critical", what, since)
        elif begun is not None:
            add("sync-stuck", "warning", f"a sync of Application {name} does not end{said}", since)
        else:
            judged.append(Judged("objects", name, "sync", f"a sync has been running for less than {_age(since, now)}"))
        return
    if application.sync == "Unknown":
        judged.append(Judged("objects", name, "sync", "Argo CD cannot compare it with the repository"))
    if application.sync != "OutOfSync":
        judged.append(Judged("objects", name, "sync", note=application.sync))
        return
    listed = ", ".join(application.different[:4]) or "objects"
    more = f" and {len(application.different) - 4} more" if len(application.different) > 4 else ""
    new_commit = application.automated and application.revision != application.synced
    key = f"OutOfSync {application.revision} {' '.join(application.different)}"
    begun = lasts(key, None)
    mends = application.self_heal or new_commit
    if begun is None and mends and (application.tries < _TRIES or application.leaving):
        reason = f"OutOfSync ({listed}{more}), which Argo CD is to mend; not seen for long enough to count"
        judged.append(Judged("objects", name, "sync", reason))
        return
    instances = tuple(i.name for i in plan.spec.instances if f"Deployment/{i.name}" in application.different)
    tried = f"; self-healing was tried {application.tries} times" if application.tries >= _TRIES else ""
    add("out-of-sync", "warning", f"{listed}{more} differ from the commit{tried}", known[key], instances, True)


def _age(since: float | None, now: float) -> str:
    return f"{max(now - since, 0) + 1:.0f} s" if since is not None else "a while"


# --------------------------------------------------------------------------------------------------- pods and claims


def judge_pods(pods: Sequence[Object], plan: Plan, now: float, patience: float = PATIENCE) -> Report:
    """Return the pods that have not started for too long, and why; those that keep crashing too.

    Args:
        pods: of the plan's namespace.
        plan: the committed Plan.
        now: Unix seconds.
        patience: seconds for which a pod may be Pending.
    """
    findings = []
    waiting = 0
    planned = {instance.name for instance in plan.spec.instances}
    for pod in sorted(pods, key=lambda pod: str(_part(pod, "metadata").get("name"))):
        metadata, status = _part(pod, "metadata"), _part(pod, "status")
        if metadata.get("deletionTimestamp"):
            continue  # its successor counts
        name = str(metadata.get("name"))
        instance = str(_part(metadata, "labels").get(_INSTANCE) or "")
        instances = (instance,) if instance in planned else ()
        created = unix(str(metadata.get("creationTimestamp") or ""))
        reason, since = _why_waiting(status, created)
        if status.get("phase") == "Pending":
            if since is None or now - since < patience:
                waiting += 1
                continue
            what = f"pod {name} has been Pending for {(now - since) / 60:.0f} min: {reason or 'no reason is given'}"
            findings.append(_pod_finding("pod-pending", name, what, since, instances))
        elif reason.partition(":")[0] not in _WAITING_ON_PURPOSE and status.get("phase") == "Running":
            what = f"a container of pod {name} does not run: {reason}"
            findings.append(_pod_finding("pod-crashing", name, what, None, instances))
    note = f"{len(pods)} pods" + (f", {waiting} Pending for less than {patience / 60:.0f} min" if waiting else "")
    return Report(tuple(findings), (Judged("objects", "pods", "start", note=note),))


def _pod_finding(kind: str, name: str, what: str, since: float | None, instances: tuple[str, ...]) -> Finding:
    severity: Severity = "critical" if instances else "warning"
    return Finding("objects", kind, severity, name, what, since=since, instances=instances)


def _why_waiting(status: Object, created: float | None) -> tuple[str, float | None]:
    """Return why a pod does not run, and since when: the scheduler's word, else that of the first waiting container."""
    for condition in mappings(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            words = f"{condition.get('reason') or 'not scheduled'}: {_line(condition.get('message'))}"
            return words.rstrip(": "), unix(str(condition.get("lastTransitionTime") or "")) or created
    containers = mappings(status.get("initContainerStatuses")) + mappings(status.get("containerStatuses"))
    for container in containers:
        waiting = _part(_part(container, "state"), "waiting")
        if waiting.get("reason"):
            message = _line(waiting.get("message"))
            return f"{waiting['reason']}: {message}" if message else str(waiting["reason"]), created
    return "", created


def judge_claims(
    items: Sequence[Object], pods: Sequence[Object], plan: Plan, now: float, patience: float = PATIENCE
) -> Report:
    """Return the claims that have had no GPU for too long.

    Args:
        items: the ResourceClaims of the plan's namespace.
        pods: its pods, which say whose claim it is.
        plan: the committed Plan.
        now: Unix seconds.
        patience: seconds for which a claim may be without a GPU.
    """
    planned = {instance.name for instance in plan.spec.instances}
    users: dict[str, set[str]] = {}
    for pod in pods:
        instance = str(_part(_part(pod, "metadata"), "labels").get(_INSTANCE) or "")
        for entry in mappings(_part(pod, "spec").get("resourceClaims")):
            users.setdefault(str(entry.get("resourceClaimName")), set()).add(instance)
    # The name of a claim of one instance is the instance's, with a digest.
    own = {claim.prefix: claim.instances for claim in claims(plan) if len(claim.instances) == 1}
    findings = []
    for item in sorted(items, key=lambda item: str(_part(item, "metadata").get("name"))):
        metadata = _part(item, "metadata")
        name, since = str(metadata.get("name")), unix(str(metadata.get("creationTimestamp") or ""))
        if _part(item, "status").get("allocation") or metadata.get("deletionTimestamp"):
            continue
        if since is None or now - since < patience:
            continue
        instances = tuple(sorted(users.get(name, set()) & planned)) or own.get(re.sub(r"-[0-9a-f]{10}$", "", name), ())
        what = f"claim {name} has had no GPU for {(now - since) / 60:.0f} min"
        severity: Severity = "critical" if instances else "warning"
        findings.append(
            Finding("objects", "claim-unallocated", severity, name, what, since=since, instances=tuple(instances))
        )
    return Report(tuple(findings), (Judged("objects", "claims", "allocation", note=f"{len(items)} claims"),))


def judge(
    there: Objects,
    plan: Plan,
    now: float,
    seen: Seen = Seen(),
    application: str | None = None,
) -> tuple[Report, Seen]:
    """Return what is wrong with live objects, and what the next look must know.

    Args:
        there: what was read.
        plan: the committed Plan.
        now: Unix seconds.
        seen: what the look before returned.
        application: name of the Application that was looked for; None where none was.
    """
    report = judge_pods(there.pods, plan, now) + judge_claims(there.claims, there.pods, plan, now)
    if application is None:
        reason = "no Application was named"
        return report + Report(judged=(Judged("objects", "application", "sync and health", reason),)), seen
    if there.application is None:
        what = f"there is no Argo CD Application {application}: what is committed is not deployed"
        gone = Finding("objects", "application-gone", "critical", application, what)
        return report + Report((gone,)), seen
    found, known = judge_application(application_of(there.application), plan, now, seen)
    return report + found, known


def _part(item: Any, key: str) -> Object:
    return mapping(mapping(item).get(key))


def _line(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= 300 else line[:300] + "…"
