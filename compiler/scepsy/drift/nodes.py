"""The cluster that the Plan was made for against the live one: nodes and GPUs that are gone, sick, changed, or new."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from scepsy.cluster.differences import Difference, compare
from scepsy.cluster.discovery import LiveCluster, LiveNode, Trouble, live, read
from scepsy.cluster.document import driver_of
from scepsy.cluster.kubernetes import Reader
from scepsy.documents import Cluster, Plan
from scepsy.documents.observed import without
from scepsy.documents.units import parse_memory
from scepsy.drift.finding import Finding, Judged, Report, Severity, unix
from scepsy.drift.lost_hardware import NOTHING, Missing

SETTLE = 30.0
"""Seconds for which a node may report itself as not ready before that counts: a restarted kubelet does. One that
Kubernetes has given up on (`NodeStatusUnknown`) counts at once: it was silent for 40 seconds or more by then."""

RETURNED = 600.0
"""Seconds for which what was lost must be well again before it is planned with, unless the project says otherwise."""

_UUID = re.compile(r"GPU-[A-Za-z0-9-]+")


@dataclass(frozen=True)
class _Committed:
    """What was committed.

    Attributes:
        plan: the Plan.
    """

    plan: Plan

    def on_node(self, node: str) -> tuple[str, ...]:
        """Return the instances on a node."""
        return tuple(sorted(i.name for i in self.plan.spec.instances if i.node == node))

    def on_gpus(self, *uuids: str) -> tuple[str, ...]:
        """Return the instances on any of these GPUs."""
        return tuple(sorted(i.name for i in self.plan.spec.instances if set(i.gpus) & set(uuids)))


def look(
    cluster: Cluster, plan: Plan, reader: Reader, now: float, missing: Missing = NOTHING, returned: float = RETURNED
) -> Report:
    """Read the live cluster and judge it.

    Args:
        cluster: the committed Cluster document, with what is missing.
        plan: the committed Plan.
        reader: the live cluster.
        now: Unix seconds.
        missing: what is planned without.
        returned: seconds for which what was missing must be well.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    there = live(read(reader), driver_of(cluster))
    return judge(cluster, plan, there, now, missing=missing, returned=returned)


def judge(
    cluster: Cluster,
    plan: Plan,
    there: LiveCluster,
    now: float,
    settle: float = SETTLE,
    missing: Missing = NOTHING,
    returned: float = RETURNED,
) -> Report:
    """Return in what the live cluster differs from what the Plan was made for.

    Args:
        cluster: the committed Cluster document, with what is missing.
        plan: the committed Plan.
        there: the live cluster, seen through the driver that the document's way of sharing uses.
        now: Unix seconds.
        settle: seconds for which a node may say that it is not ready.
        missing: what is planned without.
        returned: seconds for which what was missing must be well.
    """
    planned, committed = without(cluster, missing.nodes, missing.gpus), _Committed(plan)
    every = compare(planned, there)
    # What is planned without is no news when it is there; that it is back may be.
    differences = [d for d in every if not _is_missing(d, there, missing)]
    findings: list[Finding] = []
    judged = [Judged("cluster", "nodes", "nodes and GPUs", note=_counted(cluster, there))]
    for difference in differences:
        finding = _of_difference(difference, committed, there)
        if finding is not None:
            findings.append(finding)
        if difference.kind in ("node-silent", "node-incomplete"):
            reason = difference.now or "no driver publishes GPUs of it"
            judged.append(Judged("cluster", difference.node, "GPUs", reason))
    for node in planned.spec.nodes:
        now_there = there.node(node.name)
        if now_there is not None:
            found, young = _troubles(now_there, committed, now, settle, missing)
            findings += found
            judged += young
    found, young = _back(cluster, there, missing, now, returned)
    findings += found
    judged += young
    if not there.has_class:
        what = f"there is no DeviceClass {there.driver}: pods that start can claim no GPU"
        findings.append(_finding("device-class-gone", "critical", there.driver, what))
    if there.version != cluster.spec.kubernetes:
        what = f"the cluster runs Kubernetes {there.version}; manifests were made for {cluster.spec.kubernetes}"
        findings.append(_finding("kubernetes-version", "info", "kubernetes", what))
    return Report(tuple(findings), tuple(judged))


def _is_missing(difference: Difference, there: LiveCluster, missing: Missing) -> bool:
    """Tell whether a difference is about what is planned without; a node is if all its GPUs are."""
    node = there.node(difference.node)
    own = {gpu.uuid for gpu in node.gpus} if node is not None else set()
    whole = difference.kind == "node-new" and bool(own) and own <= missing.gpus
    return difference.gpu in missing.gpus or difference.node in missing.nodes or whole


def _back(
    cluster: Cluster, there: LiveCluster, missing: Missing, now: float, returned: float
) -> tuple[list[Finding], list[Judged]]:
    """Return what is there again of that which is planned without, and what is not yet."""
    findings: list[Finding] = []
    judged: list[Judged] = []
    for node in there.nodes:
        if not (node.ready and node.schedulable and node.gpus and not node.taints):
            continue
        ready = unix(node.ready_since)
        if node.name in missing.nodes:
            if young := _young("ready", ready, now, returned):
                judged.append(Judged("cluster", node.name, "return", young))
                continue
            what = f"node {node.name}, which the plan does without, is back with {_gpus(str(len(node.gpus)))}"
            findings.append(replace(_finding("node-back", "info", node.name, what), since=ready))
        well = _well_since(node, missing)
        for uuid in _well_at_home(cluster, node, missing):
            if young := _young("well", well, now, returned):
                judged.append(Judged("cluster", uuid, "return", young))
                continue
            what = f"GPU {uuid} of node {node.name}, which the plan does without, is well again"
            findings.append(replace(_finding("gpu-back", "info", uuid, what), since=well))
    return findings, judged


def _well_at_home(cluster: Cluster, node: LiveNode, missing: Missing) -> list[str]:
    """Return the missing GPUs of a node that are well, and in the node that the Cluster document has them in.

    One in another node is no GPU that the plan could have back: there it would be found as moved, and be missing again.
    """
    home = {gpu.uuid for own in cluster.spec.nodes if own.name == node.name for gpu in own.gpus}
    return [gpu.uuid for gpu in node.gpus if gpu.sick is None and gpu.uuid in missing.gpus & home]


def _well_since(node: LiveNode, missing: Missing) -> float | None:
    """Return since when the GPUs of a node have been well at most; None if nothing tells.

    A taint that is gone leaves no time. But the GPU was not well when it was written to be missing, nor while the node
    was not ready; and the driver has not set a taint, nor taken one away, since it last changed what it publishes.
    """
    times = (missing.at, unix(node.ready_since), unix(node.published_since))
    return max((time for time in times if time is not None), default=None)


def _young(how: str, since: float | None, now: float, returned: float) -> str:
    """Return why something is back for too short a time to count; empty if it counts, or if nothing tells."""
    if since is None or now - since >= returned:
        return ""
    return f"{how} again for {max(0.0, now - since):.0f} s; counts after {returned:.0f} s"


def _of_difference(difference: Difference, committed: _Committed, there: LiveCluster) -> Finding | None:
    node, gpu = difference.node, difference.gpu
    on_node, on_gpu = committed.on_node(node), committed.on_gpus(gpu)
    match difference.kind:
        case "node-gone":
            what = f"node {node} is gone, with {_gpus(difference.was)}{_hit(on_node)}"
            return _finding("node-gone", _grave(on_node), node, what, instances=on_node)
        case "node-silent":
            what = f"no driver publishes GPUs of node {node}: pods that start there can claim none{_hit(on_node)}"
            return _finding("node-silent", "warning", node, what, instances=on_node)
        case "node-new":
            new = there.node(node)
            product = new.product if new is not None else "GPUs"
            what = f"node {node} is new, with {_gpus(difference.now)} {product} that no plan uses"
            return _finding("node-new", "info", node, what)
        case "product":
            what = f"node {node} has {difference.now} now, the plan is for {difference.was}{_hit(on_node)}"
            return _finding("product-changed", "warning", node, what, instances=on_node)
        case "gpu-gone":
            what = f"GPU {gpu} of node {node} is gone{_hit(on_gpu)}"
            return _finding("gpu-gone", _grave(on_gpu), gpu, what, instances=on_gpu)
        case "gpu-moved":
            what = f"GPU {gpu} is in node {difference.now} now, the plan has it in {node}{_hit(on_gpu)}"
            return _finding("gpu-moved", _grave(on_gpu), gpu, what, instances=on_gpu)
        case "gpu-new":
            what = f"GPU {gpu} of node {node} is new, {difference.now}; no plan uses it"
            return _finding("gpu-new", "info", gpu, what)
        case "memory":
            less = parse_memory(difference.now) < parse_memory(difference.was)
            severity: Severity = "warning" if less and on_gpu else "info"
            what = f"GPU {gpu} of node {node} has {difference.now} of memory, the plan is for {difference.was}"
            return _finding("memory-changed", severity, gpu, what + _hit(on_gpu), instances=on_gpu)
        case "node-incomplete":
            return None


def _troubles(
    node: LiveNode, committed: _Committed, now: float, settle: float, missing: Missing
) -> tuple[list[Finding], list[Judged]]:
    """Return what is wrong with a node that is there, less GPUs that are missing; and what is too young to count."""
    on_node = committed.on_node(node.name)
    findings: list[Finding] = []
    judged: list[Judged] = []
    if node.unready is not None:
        since = unix(node.unready.since)
        if "NodeStatusUnknown" not in node.unready.what and since is not None and now - since < settle:
            reason = f"{node.unready.what} for {now - since:.0f} s; counts after {settle:.0f} s"
            judged.append(Judged("cluster", node.name, "readiness", reason))
        else:
            what = f"node {node.name} is {node.unready.what}{_hit(on_node)}"
            findings.append(_finding("node-not-ready", _grave(on_node), node.name, what, node.unready, on_node))
    if node.cordoned is not None:
        severity: Severity = "warning" if on_node else "info"
        what = f"node {node.name} is cordoned: nothing starts there any more{_hit(on_node)}"
        findings.append(_finding("node-cordoned", severity, node.name, what, node.cordoned, on_node))
    for taint in node.taints if on_node else ():
        what = f"node {node.name} has the taint {taint}, which engines do not tolerate{_hit(on_node)}"
        findings.append(_finding("node-tainted", "warning", node.name, what, instances=on_node))
    for gpu in node.gpus:
        if gpu.sick is not None and gpu.uuid not in missing.gpus:
            on_gpu = committed.on_gpus(gpu.uuid)
            what = f"GPU {gpu.uuid} of node {node.name} is sick: {gpu.sick.what}{_hit(on_gpu)}"
            findings.append(_finding("gpu-sick", _grave(on_gpu), gpu.uuid, what, gpu.sick, on_gpu))
    findings += _reported(node, committed)
    return findings, judged


def _reported(node: LiveNode, committed: _Committed) -> Iterator[Finding]:
    """Return what monitors report of a node's GPUs: of some of them where the report names them, else of all."""
    own = {gpu.uuid for gpu in node.gpus}
    for condition in node.conditions:
        named = [uuid for uuid in dict.fromkeys(_UUID.findall(condition.what)) if uuid in own]
        hit = committed.on_gpus(*named) if named else committed.on_node(node.name)
        subject = named[0] if len(named) == 1 else node.name
        which = f" (GPUs {', '.join(named)})" if len(named) > 1 else ""
        what = f"a monitor reports trouble with GPUs of node {node.name}{which}: {condition.what}{_hit(hit)}"
        yield _finding("gpu-reported", "warning", subject, what, condition, hit)


def _finding(
    kind: str,
    severity: Severity,
    subject: str,
    what: str,
    trouble: Trouble | None = None,
    instances: tuple[str, ...] = (),
) -> Finding:
    since = unix(trouble.since) if trouble is not None else None
    return Finding("cluster", kind, severity, subject, what, since=since, instances=instances)


def _grave(instances: Sequence[str]) -> Severity:
    return "critical" if instances else "warning"


def _hit(instances: Iterable[str]) -> str:
    names = list(instances)
    if not names:
        return ""
    return f"; hit: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _gpus(count: str) -> str:
    return f"{count} GPU{'s' if count != '1' else ''}"


def _counted(cluster: Cluster, there: LiveCluster) -> str:
    planned = sum(len(node.gpus) for node in cluster.spec.nodes)
    live_gpus = sum(len(node.gpus) for node in there.nodes)
    return f"{live_gpus} GPUs in {len(there.nodes)} nodes, the document has {planned} in {len(cluster.spec.nodes)}"
