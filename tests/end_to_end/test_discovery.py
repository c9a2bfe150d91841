"""`scepsy cluster discover` and the inventory of drift against a real API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scepsy.cluster.kubernetes import Kubernetes
from scepsy.documents import Cluster
from scepsy.documents.loading import validate
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.drift import nodes as inventory
from scepsy.drift import objects
from scepsy.drift.finding import Finding
from scepsy.errors import ScepsyError
from tests.conftest import Scepsy
from tests.end_to_end import observer as observer_account
from tests.end_to_end.api import Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.processes import eventually
from tests.end_to_end.project import MakeProject, ScepsyProject

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples/clusters").glob("*.yaml"))


@pytest.fixture(autouse=True)
def kubeconfig(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `scepsy` reach the cluster."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory, scepsy: Scepsy) -> Path:
    """An empty project."""
    made = tmp_path_factory.mktemp("project") / "work"
    assert scepsy("init", made).code == 0
    return made


def document(text: str) -> Cluster:
    return validate(parse(SourceFile("c.yaml", text.encode()))[0], Cluster)


# ---- discover


@pytest.mark.parametrize("sharing", ["as it is", "hami-dra"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_cluster_gives_back_the_document_it_was_made_from(
    example: Path, sharing: str, cluster: ClusterUnderTest, directory: Path, scepsy: Scepsy
) -> None:
    text = example.read_text()
    if sharing == "hami-dra":
        text = text.replace("dra-exclusive", sharing).replace("dra-mps", sharing)
    wanted = document(text)
    cluster.with_nodes(wanted)

    # What is there says so already, byte for byte.
    path = directory / f"clusters/{wanted.metadata.name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    ran = scepsy("cluster", "discover", "--write", "--project", directory)
    assert (ran.code, ran.out) == (0, f"clusters/{path.name} matches the cluster; nothing to write.\n")
    assert path.read_text() == text

    # From nothing, with what nvidia-smi would say, and the way of sharing that only people know.
    path.unlink()
    links = directory / "topology.txt"
    links.write_text("".join(map(smi, wanted.spec.nodes)))
    made = scepsy("cluster", "discover", path.stem, "--topology", links, "--write", "--project", directory)
    assert (made.code, made.out) == (0, f"Wrote clusters/{path.name}\n")
    found = document(path.read_text())
    assert found.spec.nodes == wanted.spec.nodes
    assert found.spec.kubernetes == wanted.spec.kubernetes
    assert found.spec.sharing == ("hami-dra" if sharing == "hami-dra" else "dra-exclusive")


def smi(node: object) -> str:
    """What nvidia-smi would print on a node of an example, where a switch connects all."""
    gpus = node.gpus  # type: ignore[attr-defined]
    listed = [f"GPU {i}: NVIDIA (UUID: {gpu.uuid})" for i, gpu in enumerate(gpus)]
    heading = "\t" + "\t".join(f"GPU{i}" for i in range(len(gpus))) + "\tCPU Affinity"
    rows = [
        f"GPU{i}\t" + "\t".join(" X " if i == j else "NV18" for j in range(len(gpus))) + "\t0-63"
        for i in range(len(gpus))
    ]
    return "\n".join([f"node: {node.name}", *listed, heading, *rows, ""])  # type: ignore[attr-defined]


def test_what_is_changed_in_the_cluster_is_changed_in_the_file_and_no_comment_is_lost(
    cluster: ClusterUnderTest, directory: Path, scepsy: Scepsy
) -> None:
    [two] = [path for path in EXAMPLES if path.stem == "two-nodes"]
    text = two.read_text().replace(
        "7]]\n    - name: gpu-b", "7]]\n      reserved: [7]   # profiling\n    # the new rack\n    - name: gpu-b"
    )
    assert text.count("# profiling") == 1
    cluster.with_nodes(document(text))
    path = directory / "clusters/two-nodes.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)

    # A card is pulled from the first node.
    [published] = [
        s for s in cluster.api.list("resource.k8s.io/v1", "ResourceSlice") if s["spec"]["nodeName"] == "gpu-a"
    ]
    [gone] = [d for d in published["spec"]["devices"] if d["name"] == "gpu-2"]
    left = [d for d in published["spec"]["devices"] if d is not gone]
    pool = {**published["spec"]["pool"], "generation": 2}
    cluster.api.merge(published, {"spec": {"devices": left, "pool": pool}})
    ran = scepsy("cluster", "discover", "--write", "--project", directory)
    cluster.api.merge(published, {"spec": {"devices": [*left, gone], "pool": {**pool, "generation": 3}}})
    cluster.forget_node(published["metadata"]["name"])

    uuid = gone["attributes"]["uuid"]["string"]
    assert f"  gpu-a: {uuid} is gone (index 2, was in NVLink domain [[0, 1, 2, 3, 4, 5, 6, 7]])\n" in ran.err
    assert path.read_text() == (
        text.replace(f"        - {{uuid: {uuid}, memory: 80Gi}}\n", "")
        .replace("[[0, 1, 2, 3, 4, 5, 6, 7]]", "[[0, 1, 2, 3, 4, 5, 6]]", 1)
        .replace("reserved: [7] ", "reserved: [6] ")
    )


# ---- permissions


@pytest.fixture
def observer(cluster: ClusterUnderTest, project: MakeProject, tmp_path: Path) -> Iterator[tuple[Path, list[Object]]]:
    """A kubeconfig of the account of `gitops/observe`, installed beside an environment."""
    environment = cluster.syncing(project("rag-reranker", push=False))
    items = observer_account.installed(cluster, environment.namespace, tmp_path)
    path = observer_account.kubeconfig(cluster, environment.namespace, tmp_path)
    yield path, items
    for item in items:
        cluster.api.delete(item)


def test_the_account_of_observe_may_look_at_what_discover_and_drift_read_and_no_further(
    observer: tuple[Path, list[Object]], cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scepsy.cluster.kubernetes import APPLICATIONS, CLAIMS, NODES, PODS, Kind  # noqa: PLC0415

    path, items = observer
    monkeypatch.setenv("KUBECONFIG", str(path))
    [account] = [item for item in items if item["kind"] == "ServiceAccount"]
    namespace = account["metadata"]["namespace"]
    reader = Kubernetes()
    assert inventory.read(reader).nodes
    reader.objects(PODS, namespace)
    reader.objects(CLAIMS, namespace)
    reader.get(APPLICATIONS, cluster.argocd, "whatever")
    [binding] = [item for item in items if item["kind"] == "ClusterRoleBinding"]
    assert binding["metadata"]["name"] == f"scepsy-observe-cluster.{namespace}"
    for kind, where in (
        (Kind("secrets"), namespace), (Kind("configmaps"), namespace), (PODS, ""), (PODS, "default"), (CLAIMS, ""),
        (APPLICATIONS, cluster.argocd), (Kind("events"), namespace),
    ):  # fmt: skip
        with pytest.raises(ScepsyError, match=r"forbidden: the credentials cannot list .* \(403\)"):
            reader.objects(kind, where)
    with pytest.raises(ScepsyError, match=r"\(403\)"):
        reader.get(NODES, "", "gpu-a")


# ---- inventory


@pytest.fixture
def planned(project: MakeProject) -> ScepsyProject:
    """A plan for two nodes."""
    return project("both", push=False)


def found(project: ScepsyProject) -> list[Finding]:
    return list(inventory.read_and_check(project.cluster, project.plan, Kubernetes(), time.time()).findings)


def kinds(project: ScepsyProject) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(finding.kind, finding.subject, finding.instances) for finding in found(project)]


def on(project: ScepsyProject, node: str) -> tuple[str, ...]:
    names = tuple(sorted(i.name for i in project.plan.spec.instances if i.node == node))
    assert names
    return names


def test_a_cluster_as_it_was_planned_for_has_no_findings(cluster: ClusterUnderTest, planned: ScepsyProject) -> None:
    cluster.with_nodes(planned.cluster)
    assert found(planned) == []


def test_a_node_that_is_deleted_relabelled_or_cordoned_is_found(
    cluster: ClusterUnderTest, planned: ScepsyProject
) -> None:
    cluster.with_nodes(planned.cluster)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-a"}}

    cluster.api.merge(node, {"metadata": {"labels": {"nvidia.com/gpu.product": "NVIDIA-H200"}}})
    assert kinds(planned) == [("product-changed", "gpu-a", on(planned, "gpu-a"))]
    cluster.api.merge(node, {"metadata": {"labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}})

    cluster.api.merge(node, {"spec": {"unschedulable": True}})
    eventually(
        lambda: kinds(planned) == [("node-cordoned", "gpu-a", on(planned, "gpu-a"))], within=10, why="not cordoned"
    )
    eventually(lambda: found(planned)[0].since is not None, within=10, why="no time")
    cluster.api.merge(node, {"spec": {"unschedulable": None}})

    cluster.api.delete(node)
    cluster.forget_node("gpu-a")
    assert kinds(planned) == [("node-gone", "gpu-a", on(planned, "gpu-a"))]
    [gone] = found(planned)
    assert gone.severity == "critical"
    assert gone.what.startswith("node gpu-a is gone, with 8 GPUs; affected: ")


def test_a_gpu_with_a_taint_of_its_driver_is_found(cluster: ClusterUnderTest, planned: ScepsyProject) -> None:
    cluster.with_nodes(planned.cluster)
    instance = planned.plan.spec.instances[0]
    gpu = instance.gpus[0]
    began = time.time()
    for item in cluster.api.list("resource.k8s.io/v1", "ResourceSlice"):
        devices = item["spec"]["devices"]
        hit = [d for d in devices if d["attributes"]["uuid"]["string"] == gpu]
        if not hit:
            continue
        hit[0]["taints"] = [{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}]
        cluster.api.merge(item, {"spec": {"devices": devices}})
        [sick] = found(planned)
        del hit[0]["taints"]
        cluster.api.merge(item, {"spec": {"devices": devices}})
        cluster.forget_node(item["metadata"]["name"])
    assert (sick.kind, sick.subject, sick.severity) == ("gpu-sick", gpu, "critical")
    assert instance.name in sick.instances
    # The API server adds the time.
    assert sick.since is not None
    assert began - 1 <= sick.since <= time.time() + 1


def test_a_node_that_falls_silent_is_found_when_kubernetes_gives_it_up(
    cluster: ClusterUnderTest, planned: ScepsyProject
) -> None:
    # Anew: whoever played the node in another test would go on with it.
    cluster.api.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-b"}})
    cluster.forget_node("gpu-b")
    cluster.with_nodes(planned.cluster, mortal="gpu-b")
    assert found(planned) == []
    began = time.time()
    cluster.silence()
    try:
        eventually(lambda: kinds(planned) != [], within=120, why="the silent node is not found")
        [silent] = found(planned)
        assert (silent.kind, silent.subject, silent.severity) == ("node-not-ready", "gpu-b", "critical")
        assert silent.instances == on(planned, "gpu-b")
        assert "NodeStatusUnknown" in silent.what
        assert silent.since is not None
        assert began - 1 <= silent.since <= time.time() + 1
    finally:
        cluster.api.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-b"}})
        cluster.forget_node("gpu-b")


# ---- live objects


def test_live_objects_are_judged_as_argo_cd_and_the_scheduler_report_them(
    cluster: ClusterUnderTest, project: MakeProject
) -> None:
    repository = project("rag-reranker")
    environment = cluster.with_nodes(repository.cluster).syncing(repository)
    environment.synced_and_healthy(within=90)
    plan, reader = repository.plan, Kubernetes()
    name = (cluster.argocd, environment.name)

    def findings(later: float = 0) -> dict[str, Finding]:
        there = objects.read(reader, environment.namespace, name)
        report, _ = objects.check_objects(there, plan, time.time() + later, application=environment.name)
        return {finding.kind: finding for finding in report.findings}

    # As deployed, whenever one looks.
    assert findings() == findings(later=100_000) == {}

    # A pod that must start anew on a node where nothing may start, and a claim that no GPU fits.
    instance = plan.spec.instances[0]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": instance.node}}
    [claim, *_] = [item for item in environment.rendered() if item["kind"] == "ResourceClaim"]
    lone = {**claim, "metadata": {"name": "lone", "namespace": environment.namespace}}
    selector = f"scepsy.dev/instance={instance.name}"
    [pod] = cluster.api.list("v1", "Pod", environment.namespace, labelSelector=selector)
    try:
        cluster.api.merge(node, {"spec": {"unschedulable": True}})
        cluster.api.delete(pod, gracePeriodSeconds=0)
        cluster.api.apply(lone)
        eventually(lambda: "pod-pending" in findings(later=1000), within=30, why="no pod is Pending")
        found_now = findings(later=1000)
        assert findings().keys() <= {"application-unhealthy"}
        pending = found_now["pod-pending"]
        assert (pending.severity, pending.instances) == ("critical", (instance.name,))
        assert "Unschedulable: 0/" in pending.what
        assert "unschedulable" in pending.what
        assert found_now["claim-unallocated"].subject == "lone"
        assert found_now["claim-unallocated"].instances == ()
    finally:
        cluster.api.merge(node, {"spec": {"unschedulable": None}})
        cluster.api.delete(lone)
    environment.synced_and_healthy(within=90)
    eventually(lambda: findings(later=1000) == {}, within=60, why=lambda: str(findings(later=1000)))

    # A commit that Argo CD refuses to sync: it tries again and again.
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}
    path = repository.directory / repository.path / "x.yaml"
    path.write_text(yaml.safe_dump(secret))
    repository.commit("A Secret")

    def failing() -> bool:
        environment.refresh()
        return bool(findings().keys() & {"sync-failing", "sync-failed"})

    eventually(failing, within=120, why=environment.explain)
    assert "Secret is not permitted in project" in " ".join(finding.what for finding in findings().values())

    nobody = objects.read(reader, environment.namespace, (cluster.argocd, "nobody"))
    report, _ = objects.check_objects(nobody, plan, time.time(), application="nobody")
    assert [finding.kind for finding in report.findings] == ["application-gone"]
