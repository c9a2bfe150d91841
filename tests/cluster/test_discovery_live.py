"""What Kubernetes has, and what is made of it: nodes, GPUs, and what is wrong with them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.cluster.kubernetes_api import live_of, objects_of, read_of

from scepsy.cluster.differences import Difference, compare
from scepsy.cluster.discovery import LiveGpu, LiveNode, Trouble, live
from scepsy.documents import Cluster

Object = dict[str, Any]
H100 = "NVIDIA-H100-80GB-HBM3"
GIB = 2**30


def document(sharing: str = "dra-mps", **nodes: int) -> Cluster:
    """A cluster: `a=2` is a node gpu-a with two GPUs."""
    return Cluster.model_validate(
        {
            "apiVersion": "scepsy.dev/v1alpha1",
            "kind": "Cluster",
            "metadata": {"name": "prod"},
            "spec": {
                "sharing": sharing,
                "nodes": [
                    {
                        "name": f"gpu-{name}",
                        "product": H100,
                        "gpus": [{"uuid": f"GPU-{name}{i}", "memory": "80Gi"} for i in range(count)],
                    }
                    for name, count in nodes.items()
                ],
            },
        }
    )


def having(cluster: Cluster, **edits: Any) -> list[Object]:
    """Objects of a cluster, edited: `node=` and `slice=` are for those of the first node."""
    items = objects_of(cluster)
    for kind, key in (("Node", "node"), ("ResourceSlice", "slice")):
        if key in edits:
            edits[key](next(item for item in items if item["kind"] == kind))
    return items


def test_each_node_with_gpus_is_a_value() -> None:
    found = live_of(document(b=1, a=2))
    assert found.version == "1.36"
    assert found.driver == "gpu.nvidia.com"
    assert found.nodes == (
        LiveNode("gpu-a", H100, (LiveGpu("GPU-a0", 80 * GIB, H100), LiveGpu("GPU-a1", 80 * GIB, H100))),
        LiveNode("gpu-b", H100, (LiveGpu("GPU-b0", 80 * GIB, H100),)),
    )
    assert found.notes == ()


def test_gpus_stand_in_the_order_of_their_devices_ten_behind_nine() -> None:
    items = having(document(a=12), slice=lambda s: s["spec"]["devices"].reverse())
    assert [g.uuid for g in live(read_of(items)).nodes[0].gpus] == [f"GPU-a{i}" for i in range(12)]


def test_gpus_of_hami_are_taken_where_it_is_the_only_driver_or_the_one_that_is_meant() -> None:
    hami, nvidia = objects_of(document("hami-dra", a=1)), objects_of(document(a=1))
    assert live(read_of(hami)).driver == "hami-core-gpu.project-hami.io"
    both = [*hami, *[item for item in nvidia if item["kind"] != "Node"]]
    assert live(read_of(both)).driver == "gpu.nvidia.com"
    assert live(read_of(both)).notes == (
        "gpu.nvidia.com and hami-core-gpu.project-hami.io publish GPUs; using those of gpu.nvidia.com",
    )
    meant = live(read_of(both), "hami-core-gpu.project-hami.io")
    assert (meant.driver, len(meant.nodes[0].gpus), meant.notes) == ("hami-core-gpu.project-hami.io", 1, ())


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ({"gitVersion": "v1.36.3"}, "1.36"),
        ({"gitVersion": "v1.35.4-gke.1000", "major": "1", "minor": "35+"}, "1.35"),
        ({"major": "1", "minor": "34+"}, "1.34"),
    ],
)
def test_the_version_is_the_servers_whatever_a_provider_adds(said: Object, version: str) -> None:
    read = read_of(objects_of(document(a=1)))
    assert live(type(read)(said, read.nodes, read.slices, read.classes)).version == version


@pytest.mark.parametrize(
    ("odd", "notes"),
    [
        ({"spec": "x"}, []),
        ({"spec": {"pool": "x"}}, ["ResourceSlice slice has no pool; left out"]),
        ({"spec": {"pool": {"name": "p", "generation": "x", "resourceSliceCount": []}}}, []),
        ({"spec": {"devices": "x"}}, []),
        ({"spec": {"devices": ["x", {"name": "d"}]}}, ["node gpu-b: 1 devices of type unknown are not whole GPUs; left out"]),
        (
            {"spec": {"devices": [{"attributes": {"type": {"string": "gpu"}, "uuid": {"string": "GPU-1"}}, "capacity": 5}]}},
            ["device None of node gpu-b says '' as its memory; left out"],
        ),
        (
            {"spec": {"devices": [{"attributes": {"type": {"string": "gpu"}, "uuid": {"string": "GPU-1"}},
                                   "capacity": {"memory": {"value": "9" * 400}}}]}},
            [f"device None of node gpu-b says '{'9' * 40}' as its memory; left out"],
        ),
    ],
    ids=["spec", "pool", "generation", "devices", "device", "capacity", "memory"],
)  # fmt: skip
def test_a_slice_of_an_odd_shape_is_left_out_and_the_others_are_read(odd: Object, notes: list[str]) -> None:
    usual = {"driver": "gpu.nvidia.com", "nodeName": "gpu-b", "pool": {"name": "p", "resourceSliceCount": 1}}
    spec = {**usual, **odd["spec"]} if isinstance(odd["spec"], dict) else odd["spec"]
    slice_ = {"kind": "ResourceSlice", "metadata": {"name": "slice"}, "spec": spec}
    found = live(read_of([*objects_of(document(a=1)), {"kind": "Node", "metadata": {"name": "gpu-b"}}, slice_]))
    assert [len(node.gpus) for node in found.nodes if node.name == "gpu-a"] == [1]
    assert list(found.notes) == notes


@pytest.mark.parametrize("odd", [5, "x", ["x"], [{"effect": []}], {"labels": 5, "taints": 5, "conditions": 5}], ids=str)
@pytest.mark.parametrize("key", ["metadata.labels", "spec", "spec.taints", "status", "status.conditions"])
def test_a_node_of_an_odd_shape_is_read_as_far_as_it_goes(key: str, odd: object) -> None:
    items = objects_of(document(a=1))
    *path, last = key.split(".")
    part = next(item for item in items if item["kind"] == "Node")
    for name in path:
        part = part.setdefault(name, {})
    part[last] = odd
    assert [node.name for node in live(read_of(items)).nodes] == ["gpu-a"]


# ---- nodes


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady",
                                        "lastTransitionTime": "2026-05-01T10:00:00Z"}]}},
            {"unready": Trouble("not ready: KubeletNotReady", "2026-05-01T10:00:00Z")},
        ),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}},
            {"unready": Trouble("not ready: NodeStatusUnknown")},
        ),
        ({"status": {}}, {"unready": Trouble("not ready: no status reported yet")}),
        (
            {"spec": {"unschedulable": True, "taints": [
                {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "timeAdded": "2026-05-01T10:00:00Z"}]}},
            {"cordoned": Trouble("cordoned", "2026-05-01T10:00:00Z")},
        ),
        (
            {"spec": {"taints": [
                {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},
                {"key": "team", "value": "vision", "effect": "NoSchedule"},
                {"key": "soft", "effect": "PreferNoSchedule"},
                {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
                {"key": "drain", "effect": "NoExecute"}]}},
            {"taints": ("team=vision:NoSchedule", "drain:NoExecute")},
        ),
        (
            {"metadata": {"name": "gpu-a", "labels": {"nvidia.com/gpu.product": H100, "nvidia.com/gpu.clique": "x.1"}}},
            {"connected": True},
        ),
        (
            {"metadata": {"name": "gpu-a", "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-SHARED"}}},
            {"product": "NVIDIA-H100-80GB-HBM3-SHARED"},
        ),
    ],
    ids=["not ready", "silent", "new", "cordoned", "taints", "an NVLink fabric", "another label"],
)  # fmt: skip
def test_what_is_said_of_a_node(change: Object, expected: Object) -> None:
    found = live(read_of(having(document(a=1), node=lambda n: n.update(copy.deepcopy(change)))))
    usual: Object = {"gpus": (LiveGpu("GPU-a0", 80 * GIB, H100),)}
    if "spec" not in change and "status" not in change:
        usual |= {"taints": ()}
    [node] = found.nodes
    assert node == LiveNode("gpu-a", **{"product": H100, **usual, **expected})


@pytest.mark.parametrize(
    ("kind", "status", "bad"),
    [
        # node-problem-detector as AKS configures it
        ("GPUMissing", "True", True),
        ("XIDErrors", "True", True),
        ("NVLinkStatusInactive", "True", True),
        ("NVLinkStatusInactive", "False", False),
        ("NVLinkStatusInactive", "Unknown", False),
        ("UnhealthyNvidiaDevicePlugin", "True", False),
        ("UnhealthyNvidiaDCGMServices", "True", False),
        # NVSentinel
        ("GpuMemWatch", "True", True),
        ("SysLogsXIDError", "True", True),
        ("SysLogsGPUFallenOff", "True", True),
        ("GpuInforomWatch", "False", False),
        ("GpuDcgmConnectivityFailure", "True", False),
        # EKS node monitoring agent
        ("AcceleratedHardwareReady", "False", True),
        ("AcceleratedHardwareReady", "True", False),
        # Nebius, GCM
        ("NebiusGPUError", "True", True),
        ("GcmDcgmiNvlinkStatusProblem", "True", True),
        # others
        ("GpuHealthy", "False", True),
        ("MemoryPressure", "True", False),
        ("KernelDeadlock", "True", False),
        ("GPUClockThrottling", "True", False),
    ],
)
def test_conditions_by_which_monitors_report_sick_gpus(kind: str, status: str, bad: bool) -> None:
    condition = {
        "type": kind,
        "status": status,
        "message": "Xid\n79 on GPU-a0",
        "lastTransitionTime": "2026-05-01T10:00:00Z",
    }
    items = having(document(a=1), node=lambda n: n["status"]["conditions"].append(condition))
    expected = (Trouble(f"node condition {kind}={status}: Xid 79 on GPU-a0", "2026-05-01T10:00:00Z"),) if bad else ()
    assert live(read_of(items)).nodes[0].conditions == expected


# ---- devices


def taint(key: str, effect: str, value: str = "", time: str = "2026-05-01T10:00:00Z") -> Object:
    return {"key": key, "effect": effect, "timeAdded": time, **({"value": value} if value else {})}


@pytest.mark.parametrize(
    ("taints", "sick"),
    [
        ([], None),
        ([taint("gpu.nvidia.com/xid", "None", "43"), taint("gpu.nvidia.com/unmonitored", "None")], None),
        ([taint("gpu.nvidia.com/xid", "NoSchedule", "79")], "device taint gpu.nvidia.com/xid=79"),
        (
            [taint("gpu.nvidia.com/gpu-lost", "NoSchedule", time="2026-05-02T10:00:00Z"), taint("example.com/broken", "NoExecute")],
            "device taint gpu.nvidia.com/gpu-lost, example.com/broken",
        ),
        ([taint("gpu.nvidia.com/xid", "SomethingNew", "79")], None),
    ],
)  # fmt: skip
def test_device_taints_that_keep_work_away_make_a_gpu_sick(taints: list[Object], sick: str | None) -> None:
    items = having(document(a=1), slice=lambda s: s["spec"]["devices"][0].update(taints=taints))
    assert live(read_of(items)).nodes[0].gpus[0].sick == (Trouble(sick, "2026-05-01T10:00:00Z") if sick else None)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"attributes": {"type": {"string": "mig"}}}, "node gpu-a: 1 devices of type mig are not whole GPUs; left out"),
        ({"attributes": {}}, "node gpu-a: 1 devices of type unknown are not whole GPUs; left out"),
        (
            {"attributes": {"type": {"string": "gpu"}, "uuid": {"string": "GPU-\x1b[0m"}}},
            "device gpu-0 of node gpu-a has the UUID 'GPU-\\x1b[0m', which is not a GPU's; left out",
        ),
        ({"capacity": {"memory": {"value": "lots"}}}, "device gpu-0 of node gpu-a says 'lots' as its memory; left out"),
        ({"capacity": {}}, "device gpu-0 of node gpu-a says '' as its memory; left out"),
        (
            {"attributes": {"type": {"string": "gpu"}, "uuid": {"string": "GPU-a0"},
                            "productName": {"string": "NVIDIA L4"}}},
            "node gpu-a has GPUs of several products; 1 other than NVIDIA-H100-80GB-HBM3 are left out",
        ),
    ],
    ids=["MIG", "no type", "no UUID", "no size", "no capacity", "another product"],
)  # fmt: skip
def test_a_device_that_is_no_gpu_of_the_node_is_left_out_and_that_is_said(change: Object, note: str) -> None:
    found = live(read_of(having(document(a=2), slice=lambda s: s["spec"]["devices"][0].update(change))))
    assert [g.uuid for g in found.nodes[0].gpus] == ["GPU-a1"]
    assert found.notes == (note,)


def test_without_its_label_a_node_has_the_product_that_the_driver_names() -> None:
    found = live(read_of(having(document(a=1), node=lambda n: n["metadata"].update(labels={}))))
    assert found.nodes[0].product == H100
    assert found.notes == (f"node gpu-a has no label nvidia.com/gpu.product; using the driver's product name {H100}",)


# ---- pools


def pool(*generations: tuple[int, int, str]) -> list[Object]:
    """Objects of a node whose pool has these slices: generation, how many slices that has, and a GPU."""
    items = objects_of(document(a=1))
    [whole] = [item for item in items if item["kind"] == "ResourceSlice"]
    rest = [item for item in items if item is not whole]
    for number, (generation, count, uuid) in enumerate(generations):
        one = copy.deepcopy(whole)
        one["metadata"]["name"] += str(number)
        one["spec"]["pool"] |= {"generation": generation, "resourceSliceCount": count}
        one["spec"]["devices"][0]["name"] = f"gpu-{number}"
        one["spec"]["devices"][0]["attributes"]["uuid"]["string"] = f"GPU-{uuid}"
        rest.append(one)
    return rest


@pytest.mark.parametrize(
    ("generations", "gpus", "incomplete", "notes"),
    [
        ([(1, 2, "a0"), (1, 2, "a1")], ["a0", "a1"], "", ()),
        ([(1, 1, "old"), (2, 1, "new")], ["new"], "", ()),
        (
            [(1, 1, "old"), (2, 2, "new")],
            ["old"],
            "",
            ("pool gpu-a is being updated; its previous generation is used",),
        ),
        ([(1, 2, "a0")], ["a0"], "1 of 2 ResourceSlices of pool gpu-a are published", ()),
        ([(1, 2, "old"), (2, 3, "new")], ["new"], "1 of 3 ResourceSlices of pool gpu-a are published", ()),
    ],
    ids=["two slices", "a newer generation", "a newer one, not whole yet", "one of two slices", "none whole"],
)
def test_of_a_pool_the_newest_generation_that_is_whole_counts(
    generations: list[tuple[int, int, str]], gpus: list[str], incomplete: str, notes: tuple[str, ...]
) -> None:
    found = live(read_of(pool(*generations)))
    assert [g.uuid for g in found.nodes[0].gpus] == [f"GPU-{g}" for g in gpus]
    assert found.nodes[0].incomplete == incomplete
    assert found.notes == notes


@pytest.mark.parametrize(
    ("metadata", "since"),
    [
        ({}, ""),
        ({"creationTimestamp": "2026-05-01T08:00:00Z"}, "2026-05-01T08:00:00Z"),
        (
            {
                "creationTimestamp": "2026-05-01T08:00:00Z",
                "managedFields": [{"time": "2026-05-01T11:00:00Z"}, {"time": "2026-05-01T10:00:00Z"}, {}],
            },
            "2026-05-01T11:00:00Z",
        ),
        ({"creationTimestamp": None, "managedFields": "odd"}, ""),
    ],
    ids=["nothing says", "as it was made", "changed since", "odd"],
)
def test_when_the_driver_last_changed_what_it_publishes_of_a_node(metadata: Object, since: str) -> None:
    objects = objects_of(document(a=1, b=1))
    for item in objects:
        if item["kind"] == "ResourceSlice" and item["spec"]["nodeName"] == "gpu-a":
            item["metadata"] |= metadata
    assert [n.published_since for n in live(read_of(objects)).nodes] == [since, ""]


def test_a_gpu_counts_once_though_the_node_that_lost_it_still_publishes_it() -> None:
    items = objects_of(document(a=1, b=1))
    slices = [item for item in items if item["kind"] == "ResourceSlice"]
    slices[1]["spec"]["devices"][0]["attributes"]["uuid"]["string"] = "GPU-a0"
    next(i for i in items if i["kind"] == "Node")["status"] = {}
    found = live(read_of(items))
    assert [(n.name, [g.uuid for g in n.gpus]) for n in found.nodes] == [("gpu-a", []), ("gpu-b", ["GPU-a0"])]
    assert found.notes == ("GPU-a0 is published by gpu-b and gpu-a; the first is used",)


def test_slices_of_a_node_that_is_gone_are_no_gpus() -> None:
    items = [
        i for i in objects_of(document(a=1, b=1)) if not (i["kind"] == "Node" and i["metadata"]["name"] == "gpu-b")
    ]
    found = live(read_of(items))
    assert [n.name for n in found.nodes] == ["gpu-a"]
    assert found.notes == ("node gpu-b is gone, but its GPUs are still published",)


def test_odd_objects_are_no_traceback() -> None:
    odd: list[Object] = [
        {"kind": "Node", "metadata": {"name": "x"}},
        {"kind": "ResourceSlice", "metadata": {"name": "x"}},
        {"kind": "ResourceSlice", "spec": {"driver": "gpu.nvidia.com", "pool": {"name": "p"}, "devices": [1, {"name": "d"}]}},
        {"kind": "ResourceSlice", "spec": {"driver": "gpu.nvidia.com", "nodeName": "x", "pool": {"name": "q", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d", "attributes": {"type": "gpu"}}]}},
        {"kind": "ResourceSlice", "spec": {"driver": "gpu.nvidia.com", "allNodes": True, "pool": {"name": "r", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d"}]}},
        {"kind": "DeviceClass"},
    ]  # fmt: skip
    found = live(read_of(odd))
    assert [n.gpus for n in found.nodes] == [()]
    assert "pool r has no node for its 1 devices; left out" in found.notes


# ---- differences


def test_what_differs_between_a_document_and_the_cluster() -> None:
    there = live_of(document(a=2, b=1, d=3))
    was = document(a=3, b=1, c=1)
    assert compare(document(a=2, b=1, d=3), there) == []
    assert compare(was, there) == [
        Difference("gpu-gone", "gpu-a", "GPU-a2"),
        Difference("node-gone", "gpu-c", was="1"),
        Difference("node-new", "gpu-d", now="3"),
    ]
