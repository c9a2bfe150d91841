"""A live cluster → plain values: nodes, their GPUs, and their faults.

Sources. The GPUs and their health are what NVIDIA's and HAMi's DRA drivers publish in ResourceSlices (attributes
`uuid`, `type` and `productName`, capacity `memory`, device taints such as `gpu.nvidia.com/xid`). The product is the
node label `nvidia.com/gpu.product` of GPU feature discovery, which also sets `nvidia.com/gpu.clique` where NVLink
connects the GPUs of several nodes, and so those of each. What monitors report is in a node's conditions:
node-problem-detector (AKS: `GPUMissing`, `XIDErrors`, `NVLinkStatusInactive`), NVSentinel, which asks DCGM
(`GpuMemWatch`, `SysLogsXIDError`), the EKS node monitoring agent (`AcceleratedHardwareReady`), Nebius
(`NebiusGPUError`), and others alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from scepsy.cluster.connection import mapping, mappings
from scepsy.cluster.kubernetes import CLASSES, NODES, SLICES, Object, Reader
from scepsy.documents.units import parse_memory
from scepsy.sharing import BACKENDS, DRIVERS

PRODUCT_LABEL = "nvidia.com/gpu.product"
CLIQUE_LABEL = "nvidia.com/gpu.clique"
_WHOLE = {backend.device_type for backend in BACKENDS}
"""The attribute `type` of whole GPUs; others are MIG devices, and GPUs passed through to virtual machines."""
_UUID = re.compile(r"GPU-[A-Za-z0-9-]{1,76}")
_ABOUT_GPUS = re.compile(r"gpu|xid|nvlink|nvswitch|nvidia|dcgm|accelerated", re.IGNORECASE)
_ABOUT_MONITORS = re.compile(r"dcgm.?(connectivity|service)|device.?plugin|throttl", re.IGNORECASE)
_GOOD_IF_TRUE = re.compile(r"(ready|healthy|ok)$", re.IGNORECASE)
_EFFECTS = {"NoSchedule", "NoExecute"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault of a node or a GPU.

    Attributes:
        what: the fault, for messages.
        since: its start, as Kubernetes writes it (RFC 3339); empty if unknown.
    """

    what: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class LiveGpu:
    """A GPU that a driver publishes.

    Attributes:
        uuid: the driver's UUID.
        memory: bytes.
        product: the driver's name, with dashes for blanks, as in the node label.
        sick: why nothing new is placed on it; None for a healthy one.
    """

    uuid: str
    memory: int
    product: str
    sick: Trouble | None = None


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that has GPUs, or has the label of one that does.

    Attributes:
        name: its name.
        product: of its GPUs; empty if unknown.
        gpus: in the driver's order.
        ready: whether it reports to be ready.
        unready: why not, and since when; None for a ready one.
        cordoned: since when nothing new is placed on it; None for other nodes.
        conditions: faults of its GPUs that monitors report.
        taints: its other taints, as `key=value:effect`.
        incomplete: why the list of its GPUs may be incomplete; empty if it is complete.
        connected: whether NVLink is known to connect all its GPUs.
        ready_since: since when it has been ready, as Kubernetes writes it; empty if it is not, or unknown.
        published_since: when the driver last changed the node's ResourceSlices; empty if unknown.
    """

    name: str
    product: str
    gpus: tuple[LiveGpu, ...]
    unready: Trouble | None = None
    cordoned: Trouble | None = None
    conditions: tuple[Trouble, ...] = ()
    taints: tuple[str, ...] = ()
    incomplete: str = ""
    connected: bool = False
    ready_since: str = ""
    published_since: str = ""

    @property
    def ready(self) -> bool:
        """Whether it reports to be ready."""
        return self.unready is None

    @property
    def schedulable(self) -> bool:
        """Whether pods may be placed on it."""
        return self.cordoned is None


@dataclass(frozen=True)
class LiveCluster:
    """The GPUs of a live cluster.

    Attributes:
        version: of Kubernetes, such as `1.36`.
        driver: the driver that publishes them.
        nodes: those with GPUs, in name order.
        others: names of the other nodes.
        has_class: whether there is a DeviceClass of the driver's name, through which GPUs are claimed.
        notes: what is invalid, or left out, one line each.
    """

    version: str
    driver: str
    nodes: tuple[LiveNode, ...]
    others: frozenset[str] = frozenset()
    has_class: bool = True
    notes: tuple[str, ...] = ()

    def node(self, name: str) -> LiveNode | None:
        """Return a node; None if it has no GPUs, or is not there."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, LiveNode]:
        return {node.name: node for node in self.nodes}


@dataclass(frozen=True)
class Objects:
    """The Kubernetes objects that discovery reads.

    Attributes:
        version: the response of `/version`.
        nodes: Nodes.
        slices: ResourceSlices.
        classes: DeviceClasses.
    """

    version: Object
    nodes: Sequence[Object]
    slices: Sequence[Object]
    classes: Sequence[Object]


def read(cluster: Reader) -> Objects:
    """Read the objects that `live` needs.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    version = cluster.version()
    # Nodes after slices: a node that is new in between has no slices yet, rather than slices without a node.
    slices = cluster.objects(SLICES)
    return Objects(version, cluster.objects(NODES), slices, cluster.objects(CLASSES))


def live(objects: Objects, driver: str | None = None) -> LiveCluster:
    """Return the GPUs of a cluster from its Kubernetes objects.

    Args:
        objects: the objects.
        driver: the driver that publishes the GPUs; None for the first of `DRIVERS` that publishes any.
    """
    notes: list[str] = []
    published = {str(mapping(item.get("spec")).get("driver")) for item in objects.slices}
    if driver is None:
        publishing = [name for name in DRIVERS if name in published]
        driver = next(iter(publishing), DRIVERS[0])
        if len(publishing) > 1:
            notes.append(f"{' and '.join(publishing)} publish GPUs; using those of {driver}")
    devices, incomplete = _devices(objects.slices, driver, notes)
    made: list[LiveNode] = []
    others = set()
    for item in sorted(objects.nodes, key=lambda item: natural(_name(item))):
        name = _name(item)
        if name in devices or name in incomplete or PRODUCT_LABEL in _labels(item):
            made.append(_node(item, devices.pop(name, []), incomplete.get(name, ""), notes))
        else:
            others.add(name)
    for name in sorted(devices):
        notes.append(f"node {name} is gone, but its GPUs are still published")
    classes, changed = {_name(item) for item in objects.classes}, _changed(objects.slices, driver)
    nodes = tuple(replace(n, published_since=changed.get(n.name, "")) for n in _once(made, notes))
    return LiveCluster(_version(objects.version), driver, nodes, frozenset(others), driver in classes, tuple(notes))


def _once(nodes: Sequence[LiveNode], notes: list[str]) -> Iterable[LiveNode]:
    """Return nodes such that each GPU is in one: the node that had it before may still publish it."""
    owner: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: not node.ready):
        for gpu in node.gpus:
            owner.setdefault(gpu.uuid, node.name)
    for node in nodes:
        gpus = tuple(gpu for gpu in node.gpus if owner[gpu.uuid] == node.name)
        for gpu in node.gpus:
            if gpu not in gpus:
                notes.append(f"{gpu.uuid} is published by {owner[gpu.uuid]} and {node.name}; the first is used")
        yield replace(node, gpus=gpus)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts `gpu-10` behind `gpu-9`."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"[0-9]+|[^0-9]+", text)]


# ----------------------------------------------------------------------------------------------------------- devices


def _devices(slices: Sequence[Object], driver: str, notes: list[str]) -> tuple[dict[str, list[Object]], dict[str, str]]:
    """Return the devices of each node, and why those of a node may be incomplete.

    A pool's newest generation counts, as for the scheduler; while it is being written, the one before it if that is
    still whole.
    """
    pools: dict[str, dict[int, list[Object]]] = {}
    for item in slices:
        spec = mapping(item.get("spec"))
        identity = mapping(spec.get("pool"))
        if spec.get("driver") != driver:
            continue
        if "name" not in identity:
            notes.append(f"ResourceSlice {_name(item)} has no pool; left out")
            continue
        pools.setdefault(str(identity["name"]), {}).setdefault(_count(identity.get("generation")), []).append(spec)
    devices: dict[str, list[Object]] = {}
    incomplete: dict[str, str] = {}
    for pool, generations in sorted(pools.items()):
        newest = max(generations)
        whole = [g for g, specs in generations.items() if _is_whole(specs)]
        chosen = max(whole, default=newest)
        if chosen != newest:
            notes.append(f"pool {pool} is being updated; its previous generation is used")
        missing = ""
        if not whole:
            count = generations[newest][0]["pool"].get("resourceSliceCount")
            missing = f"{len(generations[newest])} of {count} ResourceSlices of pool {pool} are published"
        for spec in generations[chosen]:
            for name, found in _by_node(spec, notes):
                devices.setdefault(name, []).extend(found)
                if missing:
                    incomplete[name] = missing
    return devices, incomplete


def _changed(slices: Sequence[Object], driver: str) -> dict[str, str]:
    """Return by node when a driver last changed its ResourceSlices, where that is known.

    The server records the time of a writer's last change, not of writes that change nothing:
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    changed: dict[str, str] = {}
    for item in slices:
        spec, metadata = mapping(item.get("spec")), mapping(item.get("metadata"))
        if spec.get("driver") != driver:
            continue
        written = [metadata.get("creationTimestamp")]
        written += [entry.get("time") for entry in mappings(metadata.get("managedFields"))]
        newest = max(str(time or "") for time in written)
        for placed in (spec, *mappings(spec.get("devices"))):
            name = str(placed.get("nodeName") or "")
            changed[name] = max(newest, changed.get(name, ""))
    return changed


def _is_whole(specs: list[Object]) -> bool:
    return len(specs) == _count(specs[0]["pool"].get("resourceSliceCount"))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _by_node(spec: Object, notes: list[str]) -> Iterable[tuple[str, list[Object]]]:
    """Return the devices of a slice by node; GPUs are always those of one."""
    listed = mappings(spec.get("devices"))
    if spec.get("nodeName"):
        return [(str(spec["nodeName"]), listed)]
    if spec.get("perDeviceNodeSelection"):
        return [(str(device["nodeName"]), [device]) for device in listed if device.get("nodeName")]
    if listed:
        notes.append(f"pool {spec['pool']['name']} has no node for its {len(listed)} devices; left out")
    return []


def _gpu(device: Object, notes: list[str], node: str) -> LiveGpu | None:
    """Return a device as a GPU; None if it is not a valid one."""
    attributes = mapping(device.get("attributes"))
    where = f"device {device.get('name')} of node {node}"
    uuid = _attribute(attributes, "uuid")
    if not _UUID.fullmatch(uuid):
        notes.append(f"{where} has the UUID {uuid[:80]!r}, which is not a GPU's; left out")
        return None
    memory = mapping(mapping(device.get("capacity")).get("memory")).get("value", "")
    try:
        size = parse_memory(memory)
    except ValueError:
        notes.append(f"{where} says {str(memory)[:40]!r} as its memory; left out")
        return None
    product = re.sub(r"[^A-Za-z0-9._-]+", "-", _attribute(attributes, "productName").strip())
    return LiveGpu(uuid, size, product, _sick(mappings(device.get("taints"))))


def _attribute(attributes: Object, name: str) -> str:
    value = attributes.get(name)
    return str(value.get("string") or "") if isinstance(value, dict) else ""


def _sick(taints: Sequence[Object]) -> Trouble | None:
    """Return the fault of a device, from its taints.

    Taints with the effect `None` only inform: an error of an application, a device that is not monitored.
    """
    bad = [taint for taint in taints if str(taint.get("effect")) in _EFFECTS]
    if not bad:
        return None
    words = ", ".join(f"{t.get('key')}={t['value']}" if t.get("value") else str(t.get("key")) for t in bad)
    return Trouble(f"device taint {words}", min((str(t.get("timeAdded") or "") for t in bad), default=""))


# ------------------------------------------------------------------------------------------------------------- nodes


def _node(item: Object, devices: list[Object], incomplete: str, notes: list[str]) -> LiveNode:
    name, labels = _name(item), _labels(item)
    gpus = []
    seen: set[str] = set()
    kinds = Counter(_attribute(mapping(device.get("attributes")), "type") for device in devices)
    for kind, count in sorted(kinds.items()):
        if kind not in _WHOLE:
            notes.append(f"node {name}: {count} devices of type {kind or 'unknown'} are not whole GPUs; left out")
    whole = [device for device in devices if _attribute(mapping(device.get("attributes")), "type") in _WHOLE]
    for device in sorted(whole, key=lambda device: natural(str(device.get("name")))):
        gpu = _gpu(device, notes, name)
        if gpu is not None and gpu.uuid not in seen:
            seen.add(gpu.uuid)
            gpus.append(gpu)
    product = str(labels.get(PRODUCT_LABEL) or "")
    products = sorted({gpu.product for gpu in gpus if gpu.product})
    if not product and products:
        product = products[0]
        notes.append(f"node {name} has no label {PRODUCT_LABEL}; using the driver's product name {product}")
    if len(products) > 1 and product in products:
        # A node of the document has one product.
        others = [gpu for gpu in gpus if gpu.product != product]
        gpus = [gpu for gpu in gpus if gpu.product == product]
        notes.append(f"node {name} has GPUs of several products; {len(others)} other than {product} are left out")
    spec, conditions = mapping(item.get("spec")), mappings(mapping(item.get("status")).get("conditions"))
    return LiveNode(
        name=name,
        product=product,
        gpus=tuple(gpus),
        unready=_unready(conditions),
        cordoned=_cordoned(spec),
        conditions=tuple(_conditions(conditions)),
        taints=tuple(_taints(spec)),
        incomplete=incomplete,
        connected=bool(labels.get(CLIQUE_LABEL)),
        ready_since=_ready_since(conditions),
    )


def _ready_since(conditions: Sequence[Object]) -> str:
    ready = (c for c in conditions if c.get("type") == "Ready" and c.get("status") == "True")
    return next((str(c.get("lastTransitionTime") or "") for c in ready), "")


def _unready(conditions: Sequence[Object]) -> Trouble | None:
    for condition in conditions:
        if condition.get("type") == "Ready":
            if condition.get("status") == "True":
                return None
            reason = str(condition.get("reason") or "")
            return Trouble(
                f"not ready: {reason}" if reason else "not ready", str(condition.get("lastTransitionTime") or "")
            )
    return Trouble("not ready: no status reported yet")


def _cordoned(spec: Object) -> Trouble | None:
    if not spec.get("unschedulable"):
        return None
    times = [
        str(taint.get("timeAdded") or "")
        for taint in mappings(spec.get("taints"))
        if taint.get("key") == "node.kubernetes.io/unschedulable"
    ]
    return Trouble("cordoned", times[0] if times else "")


def _taints(spec: Object) -> Iterable[str]:
    """Return the taints that pods of engines do not tolerate, without those that Kubernetes sets itself."""
    for taint in mappings(spec.get("taints")):
        key = str(taint.get("key"))
        if key == "nvidia.com/gpu" or key.startswith("node.kubernetes.io/") or str(taint.get("effect")) not in _EFFECTS:
            continue
        yield f"{key}={taint['value']}:{taint['effect']}" if taint.get("value") else f"{key}:{taint['effect']}"


def _conditions(conditions: Sequence[Object]) -> Iterable[Trouble]:
    """Return the conditions in which a monitor reports a fault of GPUs.

    A condition that ends in Ready or Healthy is a fault when False, any other when True; Unknown is none. Faults of
    the monitor itself, and thermal throttling, do not make a GPU sick.
    """
    for condition in sorted(conditions, key=lambda c: str(c.get("type"))):
        kind, status = str(condition.get("type")), condition.get("status")
        if not _ABOUT_GPUS.search(kind) or _ABOUT_MONITORS.search(kind):
            continue
        if status == ("False" if _GOOD_IF_TRUE.search(kind) else "True"):
            message = " ".join(str(condition.get("message") or condition.get("reason") or "").split())[:300]
            words = f"node condition {kind}={status}"
            yield Trouble(f"{words}: {message}" if message else words, str(condition.get("lastTransitionTime") or ""))


def _version(answer: Object) -> str:
    """Return `1.36` from the response of `/version`; some providers add a `+` to the minor version."""
    match = re.match(r"v?([0-9]+)\.([0-9]+)", str(answer.get("gitVersion") or ""))
    if match:
        return f"{match[1]}.{match[2]}"
    return f"{answer.get('major', '')}.{answer.get('minor', '')}".rstrip("+")


def _name(item: Any) -> str:
    return str(mapping(item.get("metadata")).get("name") or "")


def _labels(item: Any) -> dict[str, Any]:
    return mapping(mapping(item.get("metadata")).get("labels"))
