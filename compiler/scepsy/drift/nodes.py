"""Compares the Plan's cluster with the live one: nodes and GPUs that are gone, sick, changed, or new."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scepsy.cluster.differences import Difference, compare
from scepsy.cluster.discovery import LiveCluster, LiveNode, Trouble, live, read
from scepsy.cluster.document import driver_of
from scepsy.cluster.kubernetes import Reader
from scepsy.documents import Cluster, Plan
from scepsy.documents.drift_result import FindingKind, Severity
from scepsy.documents.observed import without
from scepsy.documents.units import parse_memory
from scepsy.drift.finding import Check, Finding, Report, unix
from scepsy.drift.lost_hardware import NOTHING, Missing
from scepsy.drift.returned_hardware import RETURNED, gpu_count, returned_hardware

NOT_READY_FOR = 30.0
"""Seconds for which a node may report itself as not ready before that counts: a restarted kubelet does so. A node with
`NodeStatusUnknown` counts at once: it has been silent for 40 seconds or more."""

_UUID = re.compile(r"GPU-[A-Za-z0-9-]+")


@dataclass(frozen=True)
class _Placement:
    """Which instances the Plan places where.

    Attributes:
        plan: the committed Plan.
    """

    plan: Plan

    def on_node(self, node: str) -> tuple[str, ...]:
        """Return the instances on a node."""
        return tuple(sorted(i.name for i in self.plan.spec.instances if i.node == node))

    def on_gpus(self, *uuids: str) -> tuple[str, ...]:
        """Return the instances on any of these GPUs."""
        return tuple(sorted(i.name for i in self.plan.spec.instances if set(i.gpus) & set(uuids)))


def read_and_check(
    cluster: Cluster, plan: Plan, reader: Reader, now: float, missing: Missing = NOTHING, returned: float = RETURNED
) -> Report:
    """Read the live cluster and check it.

    Args:
        cluster: the committed Cluster document, missing hardware included.
        plan: the committed Plan.
        reader: the live cluster.
        now: Unix seconds.
        missing: the hardware that the plan does without.
        returned: seconds for which missing hardware must be healthy.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    live_cluster = live(read(reader), driver_of(cluster))
    return check_nodes(cluster, plan, live_cluster, now, missing=missing, returned=returned)


def check_nodes(
    cluster: Cluster,
    plan: Plan,
    live_cluster: LiveCluster,
    now: float,
    not_ready_for: float = NOT_READY_FOR,
    missing: Missing = NOTHING,
    returned: float = RETURNED,
) -> Report:
    """Compare the live cluster with the one that the Plan was made for.

    Args:
        cluster: the committed Cluster document, missing hardware included.
        plan: the committed Plan.
        live_cluster: the live cluster, seen through the driver of the document's sharing backend.
        now: Unix seconds.
        not_ready_for: seconds for which a node may report itself as not ready.
        missing: the hardware that the plan does without.
        returned: seconds for which missing hardware must be healthy.
    """
    planned, placement = without(cluster, missing.nodes, missing.gpus), _Placement(plan)
    findings: list[Finding] = []
    checks = [Check("cluster", "nodes", "nodes and GPUs", note=_counts(cluster, live_cluster))]
    for difference in compare(planned, live_cluster):
        if _is_missing(difference, live_cluster, missing):
            continue  # that it exists is expected; whether it has returned is checked below
        finding = _of_difference(difference, placement, live_cluster)
        if finding is not None:
            findings.append(finding)
        if difference.kind in ("node-silent", "node-incomplete"):
            reason = difference.now or "no driver publishes its GPUs"
            checks.append(Check("cluster", difference.node, "GPUs", reason))
    for node in planned.spec.nodes:
        live_node = live_cluster.node(node.name)
        if live_node is not None:
            troubles, skipped = _troubles(live_node, placement, now, not_ready_for, missing)
            findings += troubles
            checks += skipped
    back, skipped = returned_hardware(cluster, live_cluster, missing, now, returned)
    findings += [*back, *_of_versions(cluster, live_cluster)]
    return Report(tuple(findings), tuple(checks + skipped))


def _of_versions(cluster: Cluster, live_cluster: LiveCluster) -> Iterator[Finding]:
    """Return what is wrong with the cluster as a whole: its DeviceClass, its Kubernetes version."""
    if not live_cluster.has_class:
        driver = live_cluster.driver
        what = f"DeviceClass {driver} does not exist: new pods cannot claim GPUs"
        yield _finding(FindingKind.DEVICE_CLASS_GONE, "critical", driver, what)
    if live_cluster.version != cluster.spec.kubernetes:
        what = f"the cluster runs Kubernetes {live_cluster.version}; manifests are for {cluster.spec.kubernetes}"
        yield _finding(FindingKind.KUBERNETES_VERSION, "info", "kubernetes", what)


def _is_missing(difference: Difference, live_cluster: LiveCluster, missing: Missing) -> bool:
    """Return whether a difference is about missing hardware; a node is missing if all its GPUs are."""
    node = live_cluster.node(difference.node)
    gpus = {gpu.uuid for gpu in node.gpus} if node is not None else set()
    whole = difference.kind == "node-new" and bool(gpus) and gpus <= missing.gpus
    return difference.gpu in missing.gpus or difference.node in missing.nodes or whole


def _of_difference(difference: Difference, placement: _Placement, live_cluster: LiveCluster) -> Finding | None:
    node, gpu = difference.node, difference.gpu
    on_node, on_gpu = placement.on_node(node), placement.on_gpus(gpu)
    match difference.kind:
        case "node-gone":
            what = f"node {node} is gone, with {gpu_count(difference.was)}{_affected(on_node)}"
            return _finding(FindingKind.NODE_GONE, _severity(on_node), node, what, instances=on_node)
        case "node-silent":
            what = f"no driver publishes the GPUs of node {node}: new pods there cannot claim any{_affected(on_node)}"
            return _finding(FindingKind.NODE_SILENT, "warning", node, what, instances=on_node)
        case "node-new":
            new = live_cluster.node(node)
            product = new.product if new is not None else "GPUs"
            what = f"node {node} is new, with {gpu_count(difference.now)} {product}; no plan uses it"
            return _finding(FindingKind.NODE_NEW, "info", node, what)
        case "product":
            what = f"node {node} has {difference.now}, the plan is for {difference.was}{_affected(on_node)}"
            return _finding(FindingKind.PRODUCT_CHANGED, "warning", node, what, instances=on_node)
        case "gpu-gone":
            what = f"GPU {gpu} of node {node} is gone{_affected(on_gpu)}"
            return _finding(FindingKind.GPU_GONE, _severity(on_gpu), gpu, what, instances=on_gpu)
        case "gpu-moved":
            what = f"GPU {gpu} is in node {difference.now}, the plan has it in {node}{_affected(on_gpu)}"
            return _finding(FindingKind.GPU_MOVED, _severity(on_gpu), gpu, what, instances=on_gpu)
        case "gpu-new":
            what = f"GPU {gpu} of node {node} is new ({difference.now}); no plan uses it"
            return _finding(FindingKind.GPU_NEW, "info", gpu, what)
        case "memory":
            less = parse_memory(difference.now) < parse_memory(difference.was)
            severity: Severity = "warning" if less and on_gpu else "info"
            what = f"GPU {gpu} of node {node} has {difference.now} of memory, the plan is for {difference.was}"
            return _finding(FindingKind.MEMORY_CHANGED, severity, gpu, what + _affected(on_gpu), instances=on_gpu)
        case "node-incomplete":
            return None


def _troubles(
    node: LiveNode, placement: _Placement, now: float, not_ready_for: float, missing: Missing
) -> tuple[list[Finding], list[Check]]:
    """Return what is wrong with a node, its missing GPUs aside, and what has not been so for long enough to count."""
    on_node = placement.on_node(node.name)
    findings: list[Finding] = []
    checks: list[Check] = []
    if node.unready is not None:
        since = unix(node.unready.since)
        if "NodeStatusUnknown" not in node.unready.what and since is not None and now - since < not_ready_for:
            reason = f"{node.unready.what} for {now - since:.0f} s; counts after {not_ready_for:.0f} s"
            checks.append(Check("cluster", node.name, "readiness", reason))
        else:
            what = f"node {node.name} is {node.unready.what}{_affected(on_node)}"
            findings.append(
                _finding(FindingKind.NODE_NOT_READY, _severity(on_node), node.name, what, node.unready, on_node)
            )
    if node.cordoned is not None:
        severity: Severity = "warning" if on_node else "info"
        what = f"node {node.name} is cordoned: new pods cannot start there{_affected(on_node)}"
        findings.append(_finding(FindingKind.NODE_CORDONED, severity, node.name, what, node.cordoned, on_node))
    for taint in node.taints if on_node else ():
        what = f"node {node.name} has the taint {taint}, which engines do not tolerate{_affected(on_node)}"
        findings.append(_finding(FindingKind.NODE_TAINTED, "warning", node.name, what, instances=on_node))
    for gpu in node.gpus:
        if gpu.sick is not None and gpu.uuid not in missing.gpus:
            on_gpu = placement.on_gpus(gpu.uuid)
            what = f"GPU {gpu.uuid} of node {node.name} is sick: {gpu.sick.what}{_affected(on_gpu)}"
            findings.append(_finding(FindingKind.GPU_SICK, _severity(on_gpu), gpu.uuid, what, gpu.sick, on_gpu))
    findings += _reported(node, placement)
    return findings, checks


def _reported(node: LiveNode, placement: _Placement) -> Iterator[Finding]:
    """Return what monitors report about a node's GPUs: about those that the report names, else about all of them."""
    uuids = {gpu.uuid for gpu in node.gpus}
    for condition in node.conditions:
        named = [uuid for uuid in dict.fromkeys(_UUID.findall(condition.what)) if uuid in uuids]
        hit = placement.on_gpus(*named) if named else placement.on_node(node.name)
        subject = named[0] if len(named) == 1 else node.name
        which = f" (GPUs {', '.join(named)})" if len(named) > 1 else ""
        what = f"a monitor reports a problem with GPUs of node {node.name}{which}: {condition.what}{_affected(hit)}"
        yield _finding(FindingKind.GPU_REPORTED, "warning", subject, what, condition, hit)


def _finding(
    kind: FindingKind,
    severity: Severity,
    subject: str,
    what: str,
    trouble: Trouble | None = None,
    instances: tuple[str, ...] = (),
) -> Finding:
    since = unix(trouble.since) if trouble is not None else None
    return Finding(kind, severity, subject, what, since=since, instances=instances)


def _severity(instances: Sequence[str]) -> Severity:
    return "critical" if instances else "warning"


def _affected(instances: Iterable[str]) -> str:
    names = list(instances)
    if not names:
        return ""
    return f"; affected: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _counts(cluster: Cluster, live_cluster: LiveCluster) -> str:
    planned = sum(len(node.gpus) for node in cluster.spec.nodes)
    live_gpus = sum(len(node.gpus) for node in live_cluster.nodes)
    return (
        f"{live_gpus} GPUs in {len(live_cluster.nodes)} nodes, the document has {planned} in {len(cluster.spec.nodes)}"
    )
