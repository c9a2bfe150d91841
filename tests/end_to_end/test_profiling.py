"""The profiling jobs on a real API server, and under a real workflow-controller where one is on the PATH."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scepsy.documents import Cluster, load_file
from tests.end_to_end.accounts import RESULTS, allowed
from tests.end_to_end.api import ApiError, Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.processes import eventually
from tests.end_to_end.profiling import (
    ARGO,
    CLAIM,
    CRDS,
    DEADLINE,
    ArgoWorkflows,
    End,
    Profiling,
    outputs,
)
from tests.profiling_jobs.sweep_workflow import PRODUCT, claim, point, workflow

pytestmark = pytest.mark.skipif(not CRDS.is_dir(), reason=f"no CRDs of Argo Workflows at {CRDS}")

DOCUMENT = f"""
apiVersion: scepsy.dev/v1alpha1
kind: Cluster
metadata: {{name: lab}}
spec:
  kubernetes: "1.36"
  sharing: dra-exclusive
  nodes:
    - name: gpu-a
      product: {PRODUCT}
      gpus:
        - {{uuid: GPU-a0, memory: 80Gi}}
        - {{uuid: GPU-a1, memory: 80Gi}}
        - {{uuid: GPU-a2, memory: 80Gi}}
        - {{uuid: GPU-a3, memory: 80Gi}}
      nvlinkDomains: [[0, 1, 2, 3]]
      reserved: [1, 2, 3]
"""
ONE = {"one": ["GPU-a1"]}
MEASURED = End(0, {"outcome": '{"outcome": "measured", "reason": ""}', "profile": "packed"})
FAILED = End(1, {"outcome": '{"outcome": "failed", "reason": "no such model"}'})
INTERRUPTED = End(75, {"outcome": '{"outcome": "interrupted", "reason": "SIGTERM"}', "partial": "journal"})

_numbers = itertools.count(1)


@pytest.fixture
def profiling(cluster: ClusterUnderTest) -> Iterator[Profiling]:
    """A namespace with everything of `gitops/profiling-example`; one point at a time may measure, of the pool `two` two."""
    made = Profiling(cluster, f"scepsy-profiling-{os.getpid()}-{next(_numbers)}", {PRODUCT: "1", "two": "2"})
    made.install()
    yield made
    made.remove()


@pytest.fixture
def argo(cluster: ClusterUnderTest, controller: None, profiling: Profiling, tmp_path: Path) -> ArgoWorkflows:
    """Argo Workflows on four GPUs, with retries that are not waited for."""
    (tmp_path / "cluster.yaml").write_text(DOCUMENT, encoding="utf-8")
    _, [loaded], _ = load_file(tmp_path / "cluster.yaml", "cluster.yaml", Cluster)
    cluster.with_nodes(loaded.document)
    [template] = [item for item in profiling.installed if item["kind"] == "WorkflowTemplate"]
    [measure] = [part for part in template["spec"]["templates"] if part["name"] == "measure"]
    measure["retryStrategy"]["backoff"] = {"duration": "1s", "factor": 1}
    cluster.api.apply(template, manager="platform-team")
    return ArgoWorkflows(profiling)


# ---- what is installed


def test_the_api_server_accepts_everything_strictly_and_without_warnings(cluster: ClusterUnderTest) -> None:
    made = Profiling(cluster, f"scepsy-profiling-{os.getpid()}-{next(_numbers)}", {PRODUCT: "1"})
    try:
        said = made.install()
        assert len(said) > 10
        assert said == dict.fromkeys(said, ())
        answer = cluster.api.apply(workflow("w", made.namespace, [point(1, 10, "one")], ONE), dry_run=True)
        assert answer.warnings == ()
        template = claim("one", ["GPU-a1"])
        template["metadata"]["namespace"] = made.namespace
        assert cluster.api.apply(template, dry_run=True).warnings == ()
    finally:
        made.remove()


MAY = {
    "scepsy-profile": RESULTS,
    "scepsy-profile-inputs": RESULTS
    | {("resource.k8s.io", "resourceclaimtemplates", verb) for verb in ("create", "patch")}
    | {("", "configmaps", verb) for verb in ("create", "patch")},
    "scepsy-submit": {("argoproj.io", "workflows", verb) for verb in ("create", "get", "list", "watch")}
    | {("argoproj.io", "workflowtemplates", "get")},
}


@pytest.mark.parametrize("account", sorted(MAY))
def test_an_account_may_do_its_part_in_its_namespace_and_nothing_else(account: str, profiling: Profiling) -> None:
    api = profiling.account(account)
    assert allowed(api, profiling.namespace) == MAY[account]
    assert allowed(api, "default") == set()
    assert allowed(api, "kube-system") == set()


def test_argo_s_container_in_a_measuring_pod_is_the_account_that_reports_results(profiling: Profiling) -> None:
    assert allowed(profiling.executor(), profiling.namespace) == RESULTS


# ---- how it runs


def test_a_sweep_measures_every_point_on_exactly_its_gpus_one_after_the_other(argo: ArgoWorkflows) -> None:
    gpus = {"one": ["GPU-a1"], "two": ["GPU-a2", "GPU-a3"]}
    points = [point(1, 10, "one"), point(2, 10, "two", shm="2Gi"), point(1, 5, "one", resume="journal")]
    argo.submit(workflow("sweep", argo.namespace, points, gpus))
    taken: dict[str, frozenset[str]] = {}

    def measure(pod: Object) -> End | None:
        # Each is alone, and the others say which lock they wait for.
        assert [item["metadata"]["name"] for item in argo.pods()] == [pod["metadata"]["name"]]
        taken[pod["metadata"]["labels"]["scepsy.dev/point"]] = argo.gpus(pod)
        waiting = [n for n in argo.nodes("sweep") if n.get("synchronizationStatus", {}).get("waiting")]
        assert len(waiting) == len(points) - len(taken)
        lock = f"{argo.namespace}/ConfigMap/scepsy-profiling/{PRODUCT}"
        assert all(node["synchronizationStatus"]["waiting"] == lock for node in waiting)
        assert all(lock in node["message"] for node in waiting)
        return End(0, {"outcome": "{}", "profile": f"packed {pod['metadata']['labels']['scepsy.dev/point']}"})

    ended = argo.finish("sweep", measure)

    assert ended["status"]["phase"] == "Succeeded", argo.explain()
    assert taken == {"tp1-s10": {"GPU-a1"}, "tp2-s10": {"GPU-a2", "GPU-a3"}, "tp1-s5": {"GPU-a1"}}
    for name in taken:
        assert outputs(argo.point("sweep", name)) == {"outcome": "{}", "profile": f"packed {name}", "partial": ""}
    owners = [{"apiVersion": ARGO, "kind": "Workflow", "name": "sweep"}]
    for name, spec in gpus.items():
        made = argo.api.get(CLAIM, "ResourceClaimTemplate", name, argo.namespace)
        assert made is not None
        assert made["spec"]["spec"] == claim(name, spec)["spec"]["spec"]
        assert [{key: o[key] for key in owners[0]} for o in made["metadata"]["ownerReferences"]] == owners
    read = argo.api.get("v1", "ConfigMap", "sweep-inputs", argo.namespace)
    assert read is not None
    assert set(read["data"]) == {"calls", "resume-tp1-s10", "resume-tp2-s10", "resume-tp1-s5"}
    assert (read["data"]["resume-tp1-s5"], read["data"]["resume-tp1-s10"]) == ("journal", "")
    # No GPU stays claimed by a pod that is done.
    eventually(lambda: not argo.api.list(CLAIM, "ResourceClaim", argo.namespace), within=30, why=argo.explain)


def test_the_measuring_container_gets_what_it_needs_and_no_token(argo: ArgoWorkflows) -> None:
    points = [point(2, 10, "one", shm="2Gi"), point(1, 5, "one")]
    argo.submit(workflow("sweep", argo.namespace, points, ONE, sharing="dra-mps"))
    argo.finish("sweep", lambda _: MEASURED)
    pods = {pod["metadata"]["labels"].get("scepsy.dev/point", ""): pod for pod in argo.seen.values()}

    pod = pods["tp2-s10"]
    [main] = [c for c in pod["spec"]["containers"] if c["name"] == "main"]
    # Argo's program goes first; then the command as it stands in the template.
    words = main["command"][main["command"].index("--") + 1 :]
    assert words == ["scepsy", "profile", "run", "--serve", "--job", "/scepsy"]
    assert [word for word in main["args"] if word.startswith(("--model=", "--revision=", "--tp=", "--share="))] == [
        "--model=Qwen/Qwen3-8B", "--revision=", "--tp=2", "--share=1.0"
    ]  # fmt: skip
    assert {"name": "SCEPSY_IMAGE_DIGEST", "value": "sha256:" + "ab" * 32} in main["env"]
    assert main["resources"] == {"requests": {"cpu": "4", "memory": "8Gi"}, "claims": [{"name": "gpus"}]}
    assert pod["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["enableServiceLinks"] is False
    mounts = {c["name"]: {m["mountPath"] for m in c["volumeMounts"]} for c in pod["spec"]["containers"]}
    assert not any("serviceaccount" in path for path in mounts["main"])
    assert any("serviceaccount" in path for path in mounts["wait"])
    # Argo's container outlives the runner when the pod is told to go, or it would collect nothing.
    [wait] = [c for c in pod["spec"]["containers"] if c["name"] == "wait"]
    patience = wait["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 30 <= patience < pod["spec"]["terminationGracePeriodSeconds"]

    # Under MPS, NVIDIA's driver mounts a /dev/shm of its own.
    assert "/dev/shm" in mounts["main"]
    assert "shm" not in {volume["name"] for volume in pods["tp1-s5"]["spec"]["volumes"]}


def test_a_point_that_fails_does_not_stop_the_others_but_the_sweep_has_failed(argo: ArgoWorkflows) -> None:
    points = [point(1, 10, "one"), point(1, 5, "one"), point(1, 2, "one")]
    argo.submit(workflow("sweep", argo.namespace, points, ONE))

    ended = argo.finish("sweep", lambda pod: FAILED if at(pod, "tp1-s10") else MEASURED)

    assert ended["status"]["phase"] == "Failed"
    phases = {p["name"]: argo.point("sweep", p["name"])["phase"] for p in points}
    assert phases == {"tp1-s10": "Failed", "tp1-s5": "Succeeded", "tp1-s2": "Succeeded"}
    # Exit status 1: another attempt would not help. What it said is in the node of all attempts, too.
    assert len(argo.attempts("sweep", "tp1-s10")) == 1
    assert json.loads(outputs(argo.point("sweep", "tp1-s10"))["outcome"])["reason"] == "no such model"


def test_what_may_do_better_is_tried_three_times_and_each_attempt_keeps_its_outputs(argo: ArgoWorkflows) -> None:
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one"), point(1, 5, "one")], ONE))
    tries: dict[str, int] = {"tp1-s10": 0, "tp1-s5": 0}

    def measure(pod: Object) -> End:
        name = pod["metadata"]["labels"]["scepsy.dev/point"]
        tries[name] += 1
        return MEASURED if name == "tp1-s5" and tries[name] == 2 else INTERRUPTED

    ended = argo.finish("sweep", measure)

    assert ended["status"]["phase"] == "Failed"
    assert tries == {"tp1-s10": 3, "tp1-s5": 2}
    assert [node["phase"] for node in argo.attempts("sweep", "tp1-s10")] == ["Failed"] * 3
    assert [outputs(node)["partial"] for node in argo.attempts("sweep", "tp1-s5")] == ["journal", ""]
    assert outputs(argo.point("sweep", "tp1-s5"))["profile"] == "packed"
    assert outputs(argo.point("sweep", "tp1-s10"))["partial"] == "journal"


@pytest.mark.parametrize("code", [137, 143])
def test_a_killed_container_is_tried_again(code: int, argo: ArgoWorkflows) -> None:
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one")], ONE))
    ends = iter([End(code), MEASURED])

    assert argo.finish("sweep", lambda _: next(ends))["status"]["phase"] == "Succeeded"
    assert len(argo.attempts("sweep", "tp1-s10")) == 2


def test_a_pod_that_was_deleted_is_tried_again(argo: ArgoWorkflows) -> None:
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one")], ONE))
    [pod] = argo.until(lambda: argo.pods() or None, lambda _: None)
    # One that goes in its first 10 s is made anew by Argo, as the same attempt.
    age = time.monotonic() + 11
    argo.until(lambda: time.monotonic() > age, lambda _: None)
    argo.api.delete({"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"]})

    assert argo.finish("sweep", lambda _: MEASURED)["status"]["phase"] == "Succeeded"
    assert [node["phase"] for node in argo.attempts("sweep", "tp1-s10")] == ["Error", "Succeeded"]


def test_a_pod_ends_at_its_deadline_and_is_not_tried_again(argo: ArgoWorkflows) -> None:
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one"), point(1, 5, "one")], ONE, deadline="3"))

    ended = argo.finish("sweep", lambda pod: None if at(pod, "tp1-s10") else MEASURED)

    assert ended["status"]["phase"] == "Failed"
    [attempt] = argo.attempts("sweep", "tp1-s10")
    assert attempt["phase"] == "Failed"
    assert DEADLINE in attempt["message"]
    assert argo.point("sweep", "tp1-s5")["phase"] == "Succeeded"


def test_two_sweeps_share_the_pool(argo: ArgoWorkflows) -> None:
    for name, tenths in (("first", 10), ("second", 5)):
        gpus = {f"{name}-one": ["GPU-a1"]}
        points = [point(1, tenths, f"{name}-one"), point(2, tenths, f"{name}-one")]
        argo.submit(workflow(name, argo.namespace, points, gpus))

    def measure(pod: Object) -> End:
        assert len(argo.pods()) == 1
        return MEASURED

    argo.finish("first", measure)
    argo.finish("second", measure)
    assert {argo.workflow(name)["status"]["phase"] for name in ("first", "second")} == {"Succeeded"}


def test_as_many_points_run_as_the_pool_has_places(argo: ArgoWorkflows) -> None:
    points = [point(1, 10, "a"), point(1, 5, "b"), point(1, 2, "c")]
    gpus = {"a": ["GPU-a1"], "b": ["GPU-a2"], "c": ["GPU-a3"]}
    argo.submit(workflow("sweep", argo.namespace, points, gpus, pool="two"))

    argo.until(lambda: len(argo.pods()) == 2, lambda _: None)
    for _ in range(10):
        argo.play(lambda _: None)
        assert len(argo.pods()) == 2
    assert argo.finish("sweep", lambda _: MEASURED)["status"]["phase"] == "Succeeded"


def test_a_product_without_a_place_in_the_pools_is_not_measured(argo: ArgoWorkflows) -> None:
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one")], ONE, pool="NVIDIA-B200"))

    ended = argo.finish("sweep", lambda _: MEASURED)

    assert ended["status"]["phase"] in ("Failed", "Error")
    assert any("NVIDIA-B200" in node.get("message", "") for node in argo.nodes("sweep"))
    assert argo.pods() == []


def test_a_point_waits_for_gpus_that_are_taken(argo: ArgoWorkflows) -> None:
    points = [point(1, 10, "one"), point(1, 5, "one")]
    argo.submit(workflow("sweep", argo.namespace, points, ONE, pool="two"))

    argo.until(lambda: len(argo.pods()) == 2, lambda _: None)
    assert sorted(pod["status"]["phase"] for pod in argo.pods()) == ["Pending", "Running"]
    assert argo.finish("sweep", lambda _: MEASURED)["status"]["phase"] == "Succeeded"


def test_long_traces_and_many_points_leave_room_in_the_object(argo: ArgoWorkflows) -> None:
    # As packed texts are: nothing in them can be compressed again.
    calls = os.urandom(48 * 1024).hex()[: 64 * 1024]
    points = [point(1, 10, "one", name=f"tp1-s{number}", resume=calls[: 8 * 1024]) for number in range(1, 11)]
    argo.submit(workflow("sweep", argo.namespace, points, ONE, calls=calls, pool="two"))

    ended = argo.finish("sweep", lambda _: End(0, {"outcome": "{}", "profile": "p" * 4096}), within=180)

    assert ended["status"]["phase"] == "Succeeded"
    assert "nodes" in ended["status"]
    read = argo.api.get("v1", "ConfigMap", "sweep-inputs", argo.namespace)
    assert read is not None
    assert read["data"]["calls"] == calls
    assert len(json.dumps(ended)) < 600_000
    measured = [argo.template(pod) for pod in argo.seen.values() if "scepsy.dev/point" in pod["metadata"]["labels"]]
    assert all(len(json.dumps(item)) < 10_000 for item in measured)


def test_journals_and_models_stay_on_volumes_a_folder_per_sweep(argo: ArgoWorkflows) -> None:
    argo.profiling.add("profiling-journal", "profiling-models")
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one")], ONE))

    [pod] = argo.until(lambda: argo.pods() or None, lambda _: None)

    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for name in ("journal", "models"):
        assert volumes[name]["persistentVolumeClaim"]["claimName"] == f"scepsy-profiling-{name}"
    [main] = [c for c in pod["spec"]["containers"] if c["name"] == "main"]
    folders = {mount["mountPath"]: mount.get("subPath") for mount in main["volumeMounts"]}
    assert folders["/scepsy/journal"] == "0123456789"
    assert folders["/models"] is None


def test_a_manifest_can_make_nothing_but_a_claim_template(argo: ArgoWorkflows) -> None:
    evil = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "scepsy-profiling", "namespace": argo.namespace},
        "data": {PRODUCT: "99"},
        "spec": claim("one", ["GPU-a1"])["spec"],
    }
    given = workflow("sweep", argo.namespace, [point(1, 10, "one")], ONE)
    [claims] = [p for p in given["spec"]["arguments"]["parameters"] if p["name"] == "claims"]
    claims["value"] = json.dumps([{"name": "one", "manifest": json.dumps(evil)}])
    argo.submit(given)

    assert argo.finish("sweep", lambda _: MEASURED)["status"]["phase"] == "Succeeded"
    pools = argo.api.get("v1", "ConfigMap", "scepsy-profiling", argo.namespace)
    assert pools is not None
    assert pools["data"][PRODUCT] == "1"


@pytest.mark.parametrize(
    "value", ['x", "hostPID": true, "y": "', "{{workflow.name}}", "x\n  hostPID: true", "'} }) + ''"]
)
def test_a_value_never_becomes_part_of_the_pod(value: str, argo: ArgoWorkflows) -> None:
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one", shm=value)], ONE))

    ended = argo.finish("sweep", lambda _: MEASURED)

    # It is no quantity, so the pod is refused; it is nowhere else than it belongs.
    assert ended["status"]["phase"] in ("Failed", "Error")
    assert argo.seen == {
        name: pod for name, pod in argo.seen.items() if "scepsy.dev/point" not in pod["metadata"]["labels"]
    }


def test_who_submits_cannot_change_what_runs(argo: ArgoWorkflows) -> None:
    argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one")], ONE))
    account = argo.profiling.account("scepsy-submit")
    path = f"{argo.api.path(ARGO, 'Workflow', argo.namespace)}/sweep"
    for method, body in (("DELETE", None), ("PATCH", {"spec": {"suspend": True}})):
        with pytest.raises(ApiError) as refused:
            account.request(method, path, body, "application/merge-patch+json" if body else "application/json")
        assert refused.value.status == 403
    # A second sweep of the same name joins the first.
    with pytest.raises(ApiError) as again:
        argo.submit(workflow("sweep", argo.namespace, [point(1, 10, "one")], ONE))
    assert again.value.status == 409


def at(pod: Object, name: str) -> bool:
    return bool(pod["metadata"]["labels"]["scepsy.dev/point"] == name)
