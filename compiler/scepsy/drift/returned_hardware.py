"""Missing nodes and GPUs that are usable again, once they have been healthy for long enough."""

from __future__ import annotations

from scepsy.cluster.discovery import LiveCluster, LiveNode
from scepsy.documents import Cluster
from scepsy.documents.drift_result import FindingKind
from scepsy.documents.project import DriftSettings
from scepsy.drift.finding import Check, Finding, unix
from scepsy.drift.lost_hardware import Missing

RETURNED = DriftSettings().settle
"""Seconds for which lost hardware must be healthy before it is used again, where no spec.drift.settle is given."""


def returned_hardware(
    cluster: Cluster, live_cluster: LiveCluster, missing: Missing, now: float, returned: float
) -> tuple[list[Finding], list[Check]]:
    """Return which missing hardware is usable again, and which has not been so for long enough.

    Args:
        cluster: the committed Cluster document, missing hardware included.
        live_cluster: the live cluster.
        missing: the hardware that the plan does without.
        now: Unix seconds.
        returned: seconds for which it must be healthy.
    """
    findings: list[Finding] = []
    checks: list[Check] = []
    for node in live_cluster.nodes:
        if not (node.ready and node.schedulable and node.gpus and not node.taints):
            continue
        ready = unix(node.ready_since)
        if node.name in missing.nodes:
            if reason := _too_recent("ready", ready, now, returned):
                checks.append(Check("cluster", node.name, "return", reason))
                continue
            what = f"node {node.name} is back with {gpu_count(str(len(node.gpus)))}; the plan does without it"
            findings.append(Finding(FindingKind.NODE_BACK, "info", node.name, what, since=ready))
        healthy = _healthy_since(node, missing)
        for uuid in _healthy_at_home(cluster, node, missing):
            if reason := _too_recent("healthy", healthy, now, returned):
                checks.append(Check("cluster", uuid, "return", reason))
                continue
            what = f"GPU {uuid} of node {node.name} is healthy again; the plan does without it"
            findings.append(Finding(FindingKind.GPU_BACK, "info", uuid, what, since=healthy))
    return findings, checks


def _healthy_at_home(cluster: Cluster, node: LiveNode, missing: Missing) -> list[str]:
    """Return the missing GPUs of a node that are healthy, and that the Cluster document has in this node.

    A GPU in another node does not count as returned: the next check would find it as moved, and so as missing again.
    """
    home = {gpu.uuid for planned in cluster.spec.nodes if planned.name == node.name for gpu in planned.gpus}
    return [gpu.uuid for gpu in node.gpus if gpu.sick is None and gpu.uuid in missing.gpus & home]


def _healthy_since(node: LiveNode, missing: Missing) -> float | None:
    """Return the earliest time from which the GPUs of a node may have been healthy; None if not known.

    A removed taint leaves no time. But the GPU was not healthy when it was written to be missing, nor while the node
    was not ready; and the driver has neither set nor removed a taint since it last changed what it publishes.
    """
    times = (missing.at, unix(node.ready_since), unix(node.published_since))
    return max((time for time in times if time is not None), default=None)


def _too_recent(how: str, since: float | None, now: float, returned: float) -> str:
    """Return why something has not been back for long enough; empty if it has, or if the time is not known."""
    if since is None or now - since >= returned:
        return ""
    return f"{how} again for {max(0.0, now - since):.0f} s; counts after {returned:.0f} s"


def gpu_count(count: str) -> str:
    """Return a number of GPUs in words: `1 GPU`, `8 GPUs`."""
    return f"{count} GPU{'s' if count != '1' else ''}"
