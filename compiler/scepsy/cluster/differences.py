"""Differences between a Cluster document and the live cluster: for `cluster discover` and for drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from scepsy.cluster.discovery import LiveCluster
from scepsy.documents import Cluster, Node
from scepsy.documents.units import format_memory

Kind = Literal[
    "node-gone", "node-new", "node-silent", "node-incomplete", "product", "gpu-gone", "gpu-moved", "gpu-new", "memory"
]
"""`silent`: the node exists, but no driver publishes its GPUs; `incomplete`: only some are published."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        kind: what it is.
        node: the node of the document, or the new one.
        gpu: the GPU; empty for a difference of the node.
        was: the document's value.
        now: the cluster's value.
    """

    kind: Kind
    node: str
    gpu: str = ""
    was: str = ""
    now: str = ""


def compare(cluster: Cluster, live: LiveCluster) -> list[Difference]:
    """Return how a cluster differs from its document: nodes in the document's order, then new ones by name.

    No GPU of a node that publishes none, or only some, counts as gone: a restart of the driver is not lost hardware.
    """
    where = {gpu.uuid: node.name for node in live.nodes for gpu in node.gpus}
    found = [difference for node in cluster.spec.nodes for difference in _of_node(node, live, where)]
    known = {node.name for node in cluster.spec.nodes}
    for new in live.nodes:
        if new.name not in known and new.incomplete:
            found.append(Difference("node-incomplete", new.name, now=new.incomplete))
        elif new.name not in known and new.gpus:
            found.append(Difference("node-new", new.name, now=str(len(new.gpus))))
    return found


def _of_node(node: Node, live: LiveCluster, where: Mapping[str, str]) -> Iterator[Difference]:
    """Return how a node differs; `where` maps a GPU to its node."""
    now = live.node(node.name)
    if now is None and node.name not in live.others:
        yield Difference("node-gone", node.name, was=str(len(node.gpus)))
        return
    moved = {g.uuid: where[g.uuid] for g in node.gpus if where.get(g.uuid, node.name) != node.name}
    for uuid, to in moved.items():
        yield Difference("gpu-moved", node.name, uuid, now=to)
    if now is None or not (now.gpus or now.incomplete):
        yield Difference("node-silent", node.name, was=str(len(node.gpus)))
        return
    if now.incomplete:
        yield Difference("node-incomplete", node.name, now=now.incomplete)
        return
    if now.product and now.product != node.product:
        yield Difference("product", node.name, was=node.product, now=now.product)
    published = {gpu.uuid: gpu for gpu in now.gpus}
    for gpu in node.gpus:
        found = published.pop(gpu.uuid, None)
        if found is not None and found.memory != gpu.memory:
            yield Difference("memory", node.name, gpu.uuid, format_memory(gpu.memory), format_memory(found.memory))
        # MIG devices are never found: only whole GPUs are read.
        if found is None and gpu.uuid not in moved and not gpu.uuid.startswith("MIG-"):
            yield Difference("gpu-gone", node.name, gpu.uuid)
    for new in published.values():
        yield Difference("gpu-new", node.name, new.uuid, now=format_memory(new.memory))
