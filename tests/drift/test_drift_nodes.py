"""The committed Cluster document and Plan beside the live nodes, and the findings that follow."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.cluster.kubernetes_api import live_of
from tests.cluster.test_discovery_live import document

from scepsy.cluster.discovery import LiveCluster, LiveGpu, LiveNode, Trouble
from scepsy.documents import Plan
from scepsy.drift.finding import Check, unix
from scepsy.drift.lost_hardware import Missing
from scepsy.drift.nodes import check_nodes

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()
TWO = document(a=2, b=2)
GIB = 2**30


def plan(**instances: tuple[str, list[str]]) -> Plan:
    """A Plan: `x=("gpu-a", ["a0"])` is an instance on that node and GPU."""
    spec = {
        "compiler": "test", "cluster": "prod", "namespace": "llm-serving", "sharing": "dra-mps",
        "engineImage": "vllm/vllm-openai:v0.24.0", "workflows": [], "llms": [],
        "instances": [
            {"name": name, "llm": name, "node": node, "gpus": [f"GPU-{g}" for g in gpus], "share": 1.0}
            for name, (node, gpus) in instances.items()
        ],
        "free": {"gpus": 0, "largestTensorParallel": 0},
        "proof": {"objective": "o", "predictor": "p", "lowerBound": 1.0, "achieved": 1.0, "gap": 0.0,
                  "unplacedBound": 1.0, "candidates": 1},
        "inputs": {},
    }  # fmt: skip
    header = {"apiVersion": "scepsy.dev/v1alpha1", "kind": "Plan", "metadata": {"name": "prod"}}
    return Plan.model_validate({**header, "spec": spec})


PLAN = plan(big=("gpu-a", ["a0", "a1"]), small=("gpu-b", ["b0"]), other=("gpu-b", ["b0"]))


def live(**nodes: LiveNode | None) -> LiveCluster:
    """The live cluster of the document, with some of its nodes otherwise: `a=None` is gone."""
    there = live_of(TWO)
    changed = {f"gpu-{name}": node for name, node in nodes.items()}
    kept = [changed.get(node.name, node) for node in there.nodes]
    new = [node for name, node in changed.items() if name not in {n.name for n in there.nodes}]
    return replace(there, nodes=tuple(node for node in [*kept, *new] if node is not None))


def node(name: str, *gpus: str, **changes: object) -> LiveNode:
    made = tuple(LiveGpu(f"GPU-{g}", 80 * GIB, "NVIDIA-H100-80GB-HBM3") for g in gpus)
    return LiveNode(f"gpu-{name}", "NVIDIA-H100-80GB-HBM3", made, **changes)  # type: ignore[arg-type]


A, B = node("a", "a0", "a1"), node("b", "b0", "b1")
XID = Trouble("device taint gpu.nvidia.com/xid=79", "2026-05-01T11:00:00Z")
TEN, ELEVEN = NOW - 7200, NOW - 3600


def sick(node: LiveNode, *uuids: str) -> LiveNode:
    return replace(node, gpus=tuple(replace(g, sick=XID) if g.uuid[4:] in uuids else g for g in node.gpus))


def smaller(node: LiveNode, size: int) -> LiveNode:
    return replace(node, gpus=tuple(replace(g, memory=size * GIB) for g in node.gpus))


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (live(), []),
        (
            live(a=None),
            [("node-gone", "critical", "gpu-a", None, ("big",), "node gpu-a is gone, with 2 GPUs; affected: big")],
        ),
        (
            live(b=node("b", "b0")),
            [("gpu-gone", "warning", "GPU-b1", None, (), "GPU GPU-b1 of node gpu-b is gone")],
        ),
        (
            live(b=node("b", "b1")),
            [("gpu-gone", "critical", "GPU-b0", None, ("other", "small"),
              "GPU GPU-b0 of node gpu-b is gone; affected: other, small")],
        ),
        (
            live(a=node("a", "a0"), b=node("b", "b0", "b1", "a1")),
            [
                ("gpu-moved", "critical", "GPU-a1", None, ("big",),
                 "GPU GPU-a1 is in node gpu-b, the plan has it in gpu-a; affected: big"),
                ("gpu-new", "info", "GPU-a1", None, (), "GPU GPU-a1 of node gpu-b is new (80Gi); no plan uses it"),
            ],
        ),
        (
            live(c=node("c", "c0")),
            [("node-new", "info", "gpu-c", None, (),
              "node gpu-c is new, with 1 GPU NVIDIA-H100-80GB-HBM3; no plan uses it")],
        ),
        (
            live(a=replace(A, product="NVIDIA-H200")),
            [("product-changed", "warning", "gpu-a", None, ("big",),
              "node gpu-a has NVIDIA-H200, the plan is for NVIDIA-H100-80GB-HBM3; affected: big")],
        ),
        (
            live(b=smaller(B, 40)),
            [
                ("memory-changed", "warning", "GPU-b0", None, ("other", "small"),
                 "GPU GPU-b0 of node gpu-b has 40Gi of memory, the plan is for 80Gi; affected: other, small"),
                ("memory-changed", "info", "GPU-b1", None, (),
                 "GPU GPU-b1 of node gpu-b has 40Gi of memory, the plan is for 80Gi"),
            ],
        ),
        (
            live(a=smaller(A, 141)),
            [("memory-changed", "info", g, None, ("big",),
              f"GPU {g} of node gpu-a has 141Gi of memory, the plan is for 80Gi; affected: big") for g in ("GPU-a0", "GPU-a1")],
        ),
        (
            live(a=replace(A, unready=Trouble("not ready: NodeStatusUnknown", "2026-05-01T11:59:59Z"))),
            [("node-not-ready", "critical", "gpu-a", NOW - 1, ("big",),
              "node gpu-a is not ready: NodeStatusUnknown; affected: big")],
        ),
        (live(a=replace(A, unready=Trouble("not ready: KubeletNotReady", "2026-05-01T11:59:45Z"))), []),
        (
            live(a=replace(A, unready=Trouble("not ready: KubeletNotReady", "2026-05-01T10:00:00Z"))),
            [("node-not-ready", "critical", "gpu-a", TEN, ("big",),
              "node gpu-a is not ready: KubeletNotReady; affected: big")],
        ),
        (
            live(b=replace(B, cordoned=Trouble("cordoned", "2026-05-01T10:00:00Z"))),
            [("node-cordoned", "warning", "gpu-b", TEN, ("other", "small"),
              "node gpu-b is cordoned: new pods cannot start there; affected: other, small")],
        ),
        (
            live(b=replace(B, taints=("team=vision:NoSchedule",))),
            [("node-tainted", "warning", "gpu-b", None, ("other", "small"),
              "node gpu-b has the taint team=vision:NoSchedule, which engines do not tolerate; affected: other, small")],
        ),
        (
            live(b=sick(B, "b0", "b1")),
            [
                ("gpu-sick", "critical", "GPU-b0", ELEVEN, ("other", "small"),
                 "GPU GPU-b0 of node gpu-b is sick: device taint gpu.nvidia.com/xid=79; affected: other, small"),
                ("gpu-sick", "warning", "GPU-b1", ELEVEN, (),
                 "GPU GPU-b1 of node gpu-b is sick: device taint gpu.nvidia.com/xid=79"),
            ],
        ),
        (
            live(b=replace(B, conditions=(Trouble("node condition XIDErrors=True: Xid 79", "2026-05-01T11:00:00Z"),))),
            [("gpu-reported", "warning", "gpu-b", ELEVEN, ("other", "small"),
              "a monitor reports a problem with GPUs of node gpu-b: node condition XIDErrors=True: Xid 79; "
              "affected: other, small")],
        ),
        (
            live(b=replace(B, conditions=(Trouble("node condition GpuMemWatch=True: GPU_UUID:GPU-b1 failed"),))),
            [("gpu-reported", "warning", "GPU-b1", None, (),
              "a monitor reports a problem with GPUs of node gpu-b: node condition GpuMemWatch=True: "
              "GPU_UUID:GPU-b1 failed")],
        ),
        (
            live(a=node("a")),
            [("node-silent", "warning", "gpu-a", None, ("big",),
              "no driver publishes the GPUs of node gpu-a: new pods there cannot claim any; affected: big")],
        ),
        (live(a=replace(A, gpus=(), incomplete="1 of 2 ResourceSlices of pool gpu-a are published")), []),
        (
            replace(live(), has_class=False),
            [("device-class-gone", "critical", "gpu.nvidia.com", None, (),
              "DeviceClass gpu.nvidia.com does not exist: new pods cannot claim GPUs")],
        ),
        (
            replace(live(), version="1.37"),
            [("kubernetes-version", "info", "kubernetes", None, (),
              "the cluster runs Kubernetes 1.37; manifests are for 1.36")],
        ),
    ],
    ids=[
        "as planned", "a node gone", "an unused GPU gone", "a used GPU gone", "a GPU in another node", "a new node",
        "another product", "less memory", "more memory", "silent for a second", "not ready for 15 s",
        "not ready for two hours", "cordoned", "tainted", "sick GPUs", "a condition", "a condition that names a GPU",
        "nothing published", "not all published", "no DeviceClass", "another Kubernetes",
    ],
)  # fmt: skip
def test_what_is_found(there: LiveCluster, expected: list[tuple[object, ...]]) -> None:
    report = check_nodes(TWO, PLAN, there, NOW)
    assert [(f.kind, f.severity, f.subject, f.since, f.instances, f.what) for f in report.findings] == expected
    assert {f.area for f in report.findings} <= {"cluster"}


@pytest.mark.parametrize(
    ("there", "skipped"),
    [
        (live(), []),
        (
            live(a=replace(A, unready=Trouble("not ready: KubeletNotReady", "2026-05-01T11:59:45Z"))),
            [Check("cluster", "gpu-a", "readiness", "not ready: KubeletNotReady for 15 s; counts after 30 s")],
        ),
        (live(a=node("a")), [Check("cluster", "gpu-a", "GPUs", "no driver publishes its GPUs")]),
        (
            live(a=replace(A, incomplete="1 of 2 ResourceSlices of pool gpu-a are published")),
            [Check("cluster", "gpu-a", "GPUs", "1 of 2 ResourceSlices of pool gpu-a are published")],
        ),
    ],
    ids=["all is seen", "too young", "nothing published", "not all published"],
)
def test_checks_that_could_not_be_done_are_listed(there: LiveCluster, skipped: list[Check]) -> None:
    [first, *rest] = check_nodes(TWO, PLAN, there, NOW).checks
    assert (first.subject, first.reason) == ("nodes", "")
    assert first.note.endswith("the document has 4 in 2")
    assert rest == skipped


WITHOUT_A1 = Missing(gpus=frozenset({"GPU-a1"}), at=NOW - 7200)
WITHOUT_B = Missing(nodes=frozenset({"gpu-b"}), at=NOW - 7200)
LONG_READY, JUST_READY = "2026-05-01T08:00:00Z", "2026-05-01T11:58:00Z"


@pytest.mark.parametrize(
    ("missing", "there", "back", "young"),
    [
        (WITHOUT_A1, live(), [("gpu-back", "GPU-a1", TEN)], []),
        (replace(WITHOUT_A1, at=None), live(), [("gpu-back", "GPU-a1", None)], []),
        (WITHOUT_A1, live(a=sick(A, "a1")), [], []),
        (WITHOUT_A1, live(a=node("a", "a0"), b=node("b", "b0", "b1", "a1")), [], []),
        (replace(WITHOUT_A1, at=NOW - 60), live(), [], [("GPU-a1", "healthy again for 60 s; counts after 600 s")]),
        (replace(WITHOUT_A1, at=NOW + 60), live(), [], [("GPU-a1", "healthy again for 0 s; counts after 600 s")]),
        (WITHOUT_A1, live(a=replace(A, ready_since=JUST_READY)), [],
         [("GPU-a1", "healthy again for 120 s; counts after 600 s")]),
        (WITHOUT_A1, live(a=replace(A, ready_since=LONG_READY, published_since=JUST_READY)), [],
         [("GPU-a1", "healthy again for 120 s; counts after 600 s")]),
        (WITHOUT_A1, live(a=replace(A, ready_since=LONG_READY, published_since="2026-05-01T11:00:00Z")),
         [("gpu-back", "GPU-a1", ELEVEN)], []),
        (WITHOUT_B, live(), [("node-back", "gpu-b", None)], []),
        (WITHOUT_B, live(b=replace(B, ready_since="2026-05-01T10:00:00Z")), [("node-back", "gpu-b", TEN)], []),
        (WITHOUT_B, live(b=replace(B, ready_since=JUST_READY)), [],
         [("gpu-b", "ready again for 120 s; counts after 600 s")]),
        (WITHOUT_B, live(b=replace(B, taints=("team=vision:NoSchedule",))), [], []),
    ],
    ids=[
        "a GPU that is well", "nobody knows since when", "a sick GPU", "a GPU in another node", "missing since a minute",
        "a clock ahead", "in a node that was away", "published anew a moment ago", "published anew an hour ago",
        "a node", "a node that is ready since", "a node that was away", "a node that is tainted",
    ],
)  # fmt: skip
def test_returned_hardware_counts_at_home_and_once_it_has_been_healthy_for_long_enough(
    missing: Missing,
    there: LiveCluster,
    back: list[tuple[str, str, float | None]],
    young: list[tuple[str, str]],
) -> None:
    report = check_nodes(TWO, PLAN, there, NOW, missing=missing)
    assert [(f.kind, f.subject, f.since) for f in report.findings] == back
    assert [(j.subject, j.reason) for j in report.checks if j.what == "return"] == young


def test_a_gpu_that_moved_is_lost_once_and_stays_out() -> None:
    there = live(a=node("a", "a0", ready_since=LONG_READY), b=node("b", "b0", "b1", "a1", ready_since=LONG_READY))
    missing, seen = Missing(), []
    for hour in range(4):
        report = check_nodes(TWO, PLAN, there, NOW + hour * 3600, missing=missing)
        missing = replace(missing.after(report.findings), at=NOW + hour * 3600)
        seen.append([f.kind for f in report.findings])
    assert seen == [["gpu-moved", "gpu-new"], [], [], []]


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2026-05-01T12:00:00Z", NOW),
        ("2026-05-01T12:00:00.500000Z", NOW + 0.5),
        ("2026-05-01T14:00:00+02:00", NOW),
        ("2026-05-01T12:00:00", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_times_of_kubernetes(time: str, seconds: float | None) -> None:
    assert unix(time) == seconds
