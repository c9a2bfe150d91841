"""The Argo CD Application, pods and claims as they are, and the findings that follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.drift.test_drift_nodes import NOW, plan

from scepsy.drift.argocd_application import FirstSeen, application_of, check_application
from scepsy.drift.finding import Finding
from scepsy.drift.objects import Objects, check_objects
from scepsy.drift.pods_and_claims import check_claims, check_pods

Object = dict[str, Any]
PLAN = plan(big=("gpu-a", ["a0"]), small=("gpu-b", ["b0"]))


def at(seconds: float) -> str:
    """A time so many seconds ago."""
    return (datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def application(automated: Object | None = {"selfHeal": True}, **status: Any) -> Object:  # noqa: B006
    usual: Object = {
        "sync": {"status": "Synced", "revision": "c2"},
        "health": {"status": "Healthy", "lastTransitionTime": at(9000)},
        "reconciledAt": at(1),
        "resources": [{"kind": "Deployment", "name": "big", "status": "Synced"}],
        "operationState": {"phase": "Succeeded", "startedAt": at(4000), "finishedAt": at(3900),
                           "syncResult": {"revision": "c2"}},
    }  # fmt: skip
    policy = {"automated": automated} if automated is not None else {}
    return {"metadata": {"name": "prod"}, "spec": {"syncPolicy": policy}, "status": {**usual, **status}}


OUT = {
    "sync": {"status": "OutOfSync", "revision": "c2"},
    "resources": [
        {"kind": "Deployment", "name": "big", "status": "OutOfSync"},
        {"kind": "Service", "name": "gateway", "status": "Synced"},
        {"kind": "Job", "name": "hook", "status": "OutOfSync", "hook": True},
    ],
}
LEAVING = {
    **OUT, "resources": [{"kind": "ResourceClaim", "name": "shared-1", "status": "OutOfSync", "requiresPruning": True}],
}  # fmt: skip
NEW = {**OUT, "sync": {"status": "OutOfSync", "revision": "c3"}}
TRIED = {
    "operationState": {
        "phase": "Succeeded", "finishedAt": at(5), "syncResult": {"revision": "c2"},
        "operation": {"sync": {"autoHealAttemptsCount": 3}},
    }
}  # fmt: skip


ODD = [5, "x", ["x"], {"labels": 5}]


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("key", [
    "spec", "spec.syncPolicy", "status", "status.sync", "status.health", "status.resources", "status.conditions",
    "status.operationState", "status.operationState.syncResult", "status.operationState.operation",
])  # fmt: skip
def test_an_application_of_an_odd_shape_is_checked_as_far_as_possible(key: str, odd: object) -> None:
    assert application_of(put(application(**OUT), key, odd)).name == "prod"


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("key", [
    "metadata.labels", "spec", "spec.resourceClaims", "status", "status.conditions", "status.containerStatuses",
    "status.initContainerStatuses",
])  # fmt: skip
def test_a_pod_of_an_odd_shape_is_checked_as_far_as_possible(key: str, odd: object) -> None:
    pod = put({"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Running"}}, key, odd)
    claim = {"metadata": {"name": "c"}, "status": odd}
    report, _ = check_objects(Objects(None, [pod], [claim]), PLAN, NOW)
    assert [check.note for check in report.checks if check.note] == ["1 pods", "1 claims"]


def put(item: Object, key: str, value: object) -> Object:
    """The object with something else at a place."""
    *path, last = key.split(".")
    part = item
    for name in path:
        part = part.setdefault(name, {})
    part[last] = value
    return item


def brief(findings: tuple[Finding, ...]) -> list[tuple[object, ...]]:
    return [(f.kind, f.severity, None if f.since is None else NOW - f.since, f.instances, f.what) for f in findings]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (application(), []),
        # With selfHeal Argo CD fixes an OutOfSync, so one check is not enough.
        (application(**OUT), []),
        (application({"selfHeal": False}, **NEW), []),
        # Argo CD would not fix it.
        (application(None, **OUT), [("out-of-sync", "warning", 0, ("big",), "Deployment/big differ from the commit")]),
        (
            application({"selfHeal": True, "enabled": False}, **OUT),
            [("out-of-sync", "warning", 0, ("big",), "Deployment/big differ from the commit")],
        ),
        (
            application({"selfHeal": False}, **OUT),
            [("out-of-sync", "warning", 0, ("big",), "Deployment/big differ from the commit")],
        ),
        # Self-healing failed.
        (
            application(**OUT, **TRIED),
            [("out-of-sync", "warning", 0, ("big",),
              "Deployment/big differ from the commit; self-healing was tried 3 times")],
        ),
        # What is only to be removed goes when its pods have ended.
        (application(**LEAVING, **TRIED), []),
        (
            application(**OUT, operationState={"phase": "Failed", "finishedAt": at(60), "message": "one or more\nobjects"}),
            [("sync-failed", "critical", 60, (), "the last sync of Application prod failed: one or more objects")],
        ),
        (application(**OUT, operationState={"phase": "Running", "startedAt": at(60)}), []),
        (
            application(**OUT, operationState={"phase": "Running", "startedAt": at(600), "message": "waiting for healthy state"}),
            [("sync-stuck", "warning", 600, (), "a sync of Application prod does not end: waiting for healthy state")],
        ),
        (
            application(**OUT, operationState={"phase": "Running", "startedAt": at(60), "retryCount": 4, "message": "one or more",
                                               "syncResult": {"resources": [
                                                   {"kind": "Service", "name": "a", "status": "Synced", "message": "fine"},
                                                   {"kind": "Secret", "name": "x", "status": "SyncFailed", "message": "no"},
                                                   {"kind": "Secret", "name": "y", "status": "SyncFailed", "message": "no"},
                                               ]}}),
            [("sync-failing", "critical", 60, (),
              "the sync of Application prod keeps failing (4 retries): one or more; Secret/x: no")],
        ),
        # Health.
        (application(health={"status": "Progressing", "lastTransitionTime": at(900)}), []),
        (application(health={"status": "Degraded", "lastTransitionTime": at(60)}), []),
        (
            application(health={"status": "Degraded", "lastTransitionTime": at(600), "message": "big: deadline"}),
            [("application-unhealthy", "critical", 600, (), "Application prod is Degraded: big: deadline")],
        ),
        (
            application(conditions=[{"type": "ComparisonError", "message": "repository not found", "lastTransitionTime": at(5)},
                                    {"type": "OrphanedResourceWarning", "message": "x"}]),
            [("application-error", "critical", 5, (),
              "Argo CD reports ComparisonError of Application prod: repository not found")],
        ),
    ],
    ids=[
        "in sync", "changed by hand, self-healing", "a new commit, automated", "not automated", "automation off",
        "changed by hand, no self-healing", "healed three times", "leaving", "failed", "running", "running for long", "retrying",
        "progressing", "degraded for a minute", "degraded", "cannot be compared",
    ],
)  # fmt: skip
def test_findings_of_one_check_of_an_application(item: Object, expected: list[tuple[object, ...]]) -> None:
    report, _ = check_application(application_of(item), PLAN, NOW)
    assert brief(report.findings) == expected
    assert all(check.reason or check.note for check in report.checks)


def checks(*items: tuple[float, Object]) -> list[list[str]]:
    """Check several times, the given seconds apart; return the findings of each check."""
    first_seen, now, findings = FirstSeen(), NOW, []
    for later, item in items:
        now += later
        report, first_seen = check_application(application_of(item), PLAN, now, first_seen)
        findings.append([f"{f.kind} for {now - f.since:.0f} s" for f in report.findings if f.since is not None])
    return findings


def test_out_of_sync_counts_when_it_has_been_seen_for_two_minutes_in_a_row() -> None:
    out, fine = application(**OUT), application()
    assert checks((0, out), (60, out), (61, out), (60, out)) == [
        [], [], ["out-of-sync for 121 s"], ["out-of-sync for 181 s"],
    ]  # fmt: skip
    # Fixed in between: counted again from the start.
    assert checks((0, out), (60, fine), (60, out), (60, out)) == [[], [], [], []]
    # Something else differs, or another commit is compared: counted again from the start.
    assert checks((0, out), (60, application(**NEW)), (61, application(**NEW))) == [[], [], []]


def test_what_is_to_be_removed_and_never_goes_counts_too() -> None:
    leaving = application(**LEAVING, **TRIED)
    assert checks((0, leaving), (60, leaving), (61, leaving)) == [[], [], ["out-of-sync for 121 s"]]


def test_a_flapping_health_counts_only_when_it_stays() -> None:
    bad = [application(health={"status": "Degraded"}), application(health={"status": "Missing"})]
    assert checks((0, bad[0]), (100, bad[1]), (100, bad[0]), (100, bad[0])) == [[], [], [], []]
    assert checks((0, bad[0]), (100, bad[0]), (100, bad[0])) == [[], [], ["application-unhealthy for 200 s"]]


@pytest.mark.parametrize("item", [{}, {"status": None}, {"status": {"sync": "x", "operationState": []}, "spec": 7}])
def test_an_application_that_argo_cd_has_not_compared_is_not_checked(item: Object) -> None:
    report, _ = check_application(application_of(item), PLAN, NOW)
    assert report.findings == ()
    assert any(check.reason for check in report.checks)


def test_a_missing_application_is_a_finding_and_without_a_name_the_check_is_skipped() -> None:
    objects = Objects(None, [], [])
    report, first_seen = check_objects(objects, PLAN, NOW, application="prod")
    assert brief(report.findings) == [
        (
            "application-gone",
            "critical",
            None,
            (),
            "Argo CD Application prod does not exist: what is committed is not deployed",
        )
    ]
    unnamed, _ = check_objects(objects, PLAN, NOW, first_seen)
    assert unnamed.findings == ()
    assert [check.reason for check in unnamed.checks if check.subject == "application"] == [
        "no Application was named (--application)"
    ]
    whole, known = check_objects(Objects(application(**OUT), [], []), PLAN, NOW, application="prod")
    assert whole.findings == ()
    assert list(known.since.values()) == [NOW]


# ---- pods


def pod(name: str, phase: str, age: float, instance: str = "", **status: Any) -> Object:
    labels = {"scepsy.dev/instance": instance} if instance else {}
    return {
        "metadata": {"name": name, "creationTimestamp": at(age), "labels": labels},
        "spec": {"resourceClaims": [{"name": "gpus", "resourceClaimName": f"{name}-claim"}]},
        "status": {"phase": phase, **status},
    }


UNSCHEDULABLE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "0/2 nodes are available:\n cannot allocate all claims", "lastTransitionTime": at(1200)}]
}  # fmt: skip


def waiting(reason: str, message: str = "") -> list[Object]:
    return [{"state": {"running": {}}}, {"state": {"waiting": {"reason": reason, "message": message}}}]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (pod("p", "Running", 9000, "big"), []),
        (pod("p", "Pending", 300, "big", **UNSCHEDULABLE | {"conditions": []}), []),
        (
            pod("p", "Pending", 1300, "big", **UNSCHEDULABLE),
            [("pod-pending", "critical", 1200, ("big",),
              "pod p has been Pending for 20 min: Unschedulable: 0/2 nodes are available: cannot allocate all claims")],
        ),
        (
            pod("p", "Pending", 1200, "big", containerStatuses=waiting("ImagePullBackOff", "Back-off pulling")),
            [("pod-pending", "critical", 1200, ("big",),
              "pod p has been Pending for 20 min: ImagePullBackOff: Back-off pulling")],
        ),
        (
            pod("p", "Pending", 1200, containerStatuses=waiting("ContainerCreating")),
            [("pod-pending", "warning", 1200, (), "pod p has been Pending for 20 min: ContainerCreating")],
        ),
        (
            pod("p", "Pending", 1200, "unplanned"),
            [("pod-pending", "warning", 1200, (), "pod p has been Pending for 20 min: no reason reported")],
        ),
        (
            pod("p", "Running", 9000, "small", containerStatuses=waiting("CrashLoopBackOff", "back-off 5m0s")),
            [("pod-crashing", "critical", None, ("small",),
              "a container of pod p does not run: CrashLoopBackOff: back-off 5m0s")],
        ),
        (pod("p", "Running", 9000, "small", containerStatuses=waiting("ContainerCreating", "x")), []),
        (pod("p", "Failed", 9000, "small"), []),
        ({"metadata": {"name": "p", "deletionTimestamp": at(1), "creationTimestamp": at(9000)},
          "status": {"phase": "Pending"}}, []),
        ({"metadata": {}, "status": {"phase": "Pending"}}, []),
    ],
    ids=[
        "runs", "young", "not scheduled", "no image", "no instance", "not of this plan", "crashes", "restarts", "failed",
        "going", "odd",
    ],
)  # fmt: skip
def test_pods_that_do_not_start(item: Object, expected: list[tuple[object, ...]]) -> None:
    assert brief(check_pods([item], PLAN, NOW).findings) == expected


# ---- claims


def claim(name: str, age: float, **more: Any) -> Object:
    return {"metadata": {"name": name, "creationTimestamp": at(age)}, **more}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (claim("p-claim", 9000, status={"allocation": {"devices": {}}}), []),
        (claim("p-claim", 300), []),
        (
            claim("p-claim", 1200),
            [("claim-unallocated", "critical", 1200, ("big",), "claim p-claim has had no GPU for 20 min")],
        ),
        # No pod uses it: its name says whose it is.
        (
            claim("small-0123456789", 1200),
            [("claim-unallocated", "critical", 1200, ("small",), "claim small-0123456789 has had no GPU for 20 min")],
        ),
        (
            claim("else", 1200, status={}),
            [("claim-unallocated", "warning", 1200, (), "claim else has had no GPU for 20 min")],
        ),
        ({"metadata": {"name": "p-claim", "creationTimestamp": at(1200), "deletionTimestamp": at(1)}}, []),
    ],
    ids=["allocated", "young", "a pod's", "an instance's", "of nobody", "going"],
)
def test_claims_without_a_gpu(item: Object, expected: list[tuple[object, ...]]) -> None:
    report = check_claims([item], [pod("p", "Pending", 1200, "big")], PLAN, NOW)
    assert brief(report.findings) == expected
