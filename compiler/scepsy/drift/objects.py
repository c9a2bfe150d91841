"""Compares live objects with the committed Plan: the Argo CD Application, pods, claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scepsy.cluster.kubernetes import APPLICATIONS, CLAIMS, PODS, Object, Reader
from scepsy.documents import Plan
from scepsy.documents.drift_result import FindingKind
from scepsy.drift.argocd_application import NOTHING_SEEN, FirstSeen, application_of, check_application
from scepsy.drift.finding import Check, Finding, Report
from scepsy.drift.pods_and_claims import check_claims, check_pods


@dataclass(frozen=True)
class Objects:
    """What is read of a cluster, as Kubernetes has it.

    Attributes:
        application: the Application; None if it does not exist, or if Argo CD runs elsewhere.
        pods: the pods of the namespace.
        claims: its ResourceClaims.
    """

    application: Object | None
    pods: Sequence[Object]
    claims: Sequence[Object]


def read(reader: Reader, namespace: str, application: tuple[str, str] | None) -> Objects:
    """Read the objects.

    Args:
        reader: the live cluster.
        namespace: where the engines run.
        application: namespace and name of the Argo CD Application; None to skip it.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    item = reader.get(APPLICATIONS, *application) if application is not None else None
    return Objects(item, reader.objects(PODS, namespace), reader.objects(CLAIMS, namespace))


def check_objects(
    objects: Objects,
    plan: Plan,
    now: float,
    first_seen: FirstSeen = NOTHING_SEEN,
    application: str | None = None,
) -> tuple[Report, FirstSeen]:
    """Return what is wrong with live objects, and what the next check must know.

    Args:
        objects: what was read.
        plan: the committed Plan.
        now: Unix seconds.
        first_seen: what the previous check returned.
        application: name of the requested Application; None if none was named.
    """
    report = check_pods(objects.pods, plan, now) + check_claims(objects.claims, objects.pods, plan, now)
    if application is None:
        reason = "no Application was named (--application)"
        return report + Report(checks=(Check("objects", "application", "sync and health", reason),)), first_seen
    if objects.application is None:
        what = f"Argo CD Application {application} does not exist: what is committed is not deployed"
        gone = Finding(FindingKind.APPLICATION_GONE, "critical", application, what)
        return report + Report((gone,)), first_seen
    checked, known = check_application(application_of(objects.application), plan, now, first_seen)
    return report + checked, known
