"""Finds pods that do not start or keep crashing, and claims that get no GPU."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scepsy.cluster.connection import mappings
from scepsy.cluster.kubernetes import Object
from scepsy.documents import Plan
from scepsy.documents.drift_result import FindingKind, Severity
from scepsy.drift.finding import Check, Finding, Report, unix
from scepsy.drift.object_fields import one_line, part
from scepsy.manifests.resource_claims import claims

PATIENCE = 600.0
"""Seconds for which a pod may be Pending, or a claim without a GPU, before that counts: images of engines are large."""
_INSTANCE = "scepsy.dev/instance"
_WAITING_ON_PURPOSE = {"ContainerCreating", "PodInitializing", ""}


def check_pods(pods: Sequence[Object], plan: Plan, now: float, patience: float = PATIENCE) -> Report:
    """Return the pods that have been Pending for too long, with the reason, and those that keep crashing.

    Args:
        pods: of the plan's namespace.
        plan: the committed Plan.
        now: Unix seconds.
        patience: seconds for which a pod may be Pending.
    """
    findings = []
    waiting = 0
    planned = {instance.name for instance in plan.spec.instances}
    for pod in sorted(pods, key=lambda pod: str(part(pod, "metadata").get("name"))):
        metadata, status = part(pod, "metadata"), part(pod, "status")
        if metadata.get("deletionTimestamp"):
            continue  # the pod that replaces it counts
        name = str(metadata.get("name"))
        instance = str(part(metadata, "labels").get(_INSTANCE) or "")
        instances = (instance,) if instance in planned else ()
        created = unix(str(metadata.get("creationTimestamp") or ""))
        reason, since = _why_waiting(status, created)
        if status.get("phase") == "Pending":
            if since is None or now - since < patience:
                waiting += 1
                continue
            what = f"pod {name} has been Pending for {(now - since) / 60:.0f} min: {reason or 'no reason reported'}"
            findings.append(_pod_finding(FindingKind.POD_PENDING, name, what, since, instances))
        elif reason.partition(":")[0] not in _WAITING_ON_PURPOSE and status.get("phase") == "Running":
            what = f"a container of pod {name} does not run: {reason}"
            findings.append(_pod_finding(FindingKind.POD_CRASHING, name, what, None, instances))
    note = f"{len(pods)} pods" + (f", {waiting} Pending for less than {patience / 60:.0f} min" if waiting else "")
    return Report(tuple(findings), (Check("objects", "pods", "start", note=note),))


def _pod_finding(kind: FindingKind, name: str, what: str, since: float | None, instances: tuple[str, ...]) -> Finding:
    severity: Severity = "critical" if instances else "warning"
    return Finding(kind, severity, name, what, since=since, instances=instances)


def _why_waiting(status: Object, created: float | None) -> tuple[str, float | None]:
    """Return why a pod does not run, and since when: as the scheduler reports, else the first waiting container."""
    for condition in mappings(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = f"{condition.get('reason') or 'not scheduled'}: {one_line(condition.get('message'))}"
            return reason.rstrip(": "), unix(str(condition.get("lastTransitionTime") or "")) or created
    containers = mappings(status.get("initContainerStatuses")) + mappings(status.get("containerStatuses"))
    for container in containers:
        waiting = part(part(container, "state"), "waiting")
        if waiting.get("reason"):
            message = one_line(waiting.get("message"))
            return f"{waiting['reason']}: {message}" if message else str(waiting["reason"]), created
    return "", created


def check_claims(
    items: Sequence[Object], pods: Sequence[Object], plan: Plan, now: float, patience: float = PATIENCE
) -> Report:
    """Return the claims that have been without a GPU for too long.

    Args:
        items: the ResourceClaims of the plan's namespace.
        pods: its pods, which name the claims that they use.
        plan: the committed Plan.
        now: Unix seconds.
        patience: seconds for which a claim may be without a GPU.
    """
    planned = {instance.name for instance in plan.spec.instances}
    users: dict[str, set[str]] = {}
    for pod in pods:
        instance = str(part(part(pod, "metadata"), "labels").get(_INSTANCE) or "")
        for entry in mappings(part(pod, "spec").get("resourceClaims")):
            users.setdefault(str(entry.get("resourceClaimName")), set()).add(instance)
    # The name of a claim of one instance is the instance's, with a digest.
    by_prefix = {claim.prefix: claim.instances for claim in claims(plan) if len(claim.instances) == 1}
    findings = []
    for item in sorted(items, key=lambda item: str(part(item, "metadata").get("name"))):
        metadata = part(item, "metadata")
        name, since = str(metadata.get("name")), unix(str(metadata.get("creationTimestamp") or ""))
        if part(item, "status").get("allocation") or metadata.get("deletionTimestamp"):
            continue
        if since is None or now - since < patience:
            continue
        instances = tuple(sorted(users.get(name, set()) & planned)) or by_prefix.get(
            re.sub(r"-[0-9a-f]{10}$", "", name), ()
        )
        what = f"claim {name} has had no GPU for {(now - since) / 60:.0f} min"
        severity: Severity = "critical" if instances else "warning"
        findings.append(
            Finding(FindingKind.CLAIM_UNALLOCATED, severity, name, what, since=since, instances=tuple(instances))
        )
    return Report(tuple(findings), (Check("objects", "claims", "allocation", note=f"{len(items)} claims"),))
