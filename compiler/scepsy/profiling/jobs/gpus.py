"""The GPUs on which a profiling pod may run, and its claim to them: never those of a running instance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scepsy.documents import Cluster, Plan
from scepsy.documents.cluster import Node, Sharing
from scepsy.errors import ScepsyError
from scepsy.performance.memory import CARD_RESERVE, MIB
from scepsy.profiling.planning.sweep import Shape
from scepsy.sharing import backend_of

MOST_NAMED = 64
"""GPUs that one claim names; a CEL expression has at most 10 kB."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """GPUs that a claim may name.

    Attributes:
        gpus: UUIDs, at least as many as the pod needs; in one NVLink domain where it needs several.
        memory: bytes of the smallest of their cards.
        reserved: whether the Cluster document keeps all of them back.
    """

    gpus: tuple[str, ...]
    memory: int
    reserved: bool


def allowed_gpus(cluster: Cluster, product: str, tp: int, plan: Plan | None) -> Allowed:
    """Return the GPUs of a product on which a shape may be measured.

    Reserved ones, if there are enough of them (for a tensor-parallel group in one NVLink domain). Otherwise also those
    that no instance of the plan uses.

    Args:
        cluster: the cluster.
        product: GPU product.
        tp: GPUs that are needed.
        plan: the plan in force; None if nothing runs.

    Raises:
        ScepsyError: there are not enough.
    """
    used = {uuid for instance in plan.spec.instances for uuid in instance.gpus} if plan is not None else set()
    domains = [(node, members) for node in cluster.spec.nodes if node.product == product for members in _domains(node)]
    if tp == 1:
        # Any GPU will do, so they need not be of one domain.
        everything = [(node, i) for node, members in domains for i in members]
        kept = [(node, i) for node, i in everything if i in node.reserved]
        free = [(node, i) for node, i in everything if node.gpus[i].uuid not in used]
        if kept or free:
            return _allowed((kept or free)[:MOST_NAMED])
    else:
        choices = []
        for node, members in domains:
            kept = [(node, i) for i in members if i in node.reserved]
            free = [(node, i) for i in members if i in node.reserved or node.gpus[i].uuid not in used]
            if len(kept) >= tp or len(free) >= tp:
                enough = len(kept) >= tp
                choices.append(((not enough, -len(kept), -len(free)), kept if enough else free))
        if choices:
            return _allowed(min(choices, key=lambda choice: choice[0])[1][:MOST_NAMED])
    largest = max((len(members) for _, members in domains), default=0)
    if largest < tp:
        raise ScepsyError(
            f"no NVLink domain of cluster {cluster.metadata.name} has {tp} GPUs {product}; the largest has {largest}",
            "name other degrees as tensorParallel in the workflow",
        )
    message = (
        f"no GPU {product} may be used for profiling: none is reserved, and instances of the plan use all of them"
        if tp == 1
        else f"no {tp} GPUs {product} in one NVLink domain may be used for profiling: too few are reserved or unused"
    )
    raise ScepsyError(
        message,
        f"reserve some: list them as `reserved` in the nodes of cluster {cluster.metadata.name}, then compile "
        "and let Argo CD sync, so that instances leave these GPUs",
    )


def _domains(node: Node) -> Iterator[tuple[int, ...]]:
    """Yield the NVLink domains of a node; a GPU outside all domains is a domain by itself."""
    connected = {i for domain in node.nvlink_domains for i in domain}
    alone = [(i,) for i in range(len(node.gpus)) if i not in connected]
    yield from sorted(tuple(sorted(members)) for members in [*node.nvlink_domains, *alone])


def _allowed(chosen: list[tuple[Node, int]]) -> Allowed:
    return Allowed(
        gpus=tuple(node.gpus[i].uuid for node, i in chosen),
        memory=min(node.gpus[i].memory for node, i in chosen),
        reserved=all(i in node.reserved for node, i in chosen),
    )


def claim_of(
    name: str, namespace: str, labels: dict[str, str], shape: Shape, allowed: Allowed, sharing: Sharing
) -> dict[str, Any]:
    """Return the ResourceClaimTemplate of a point.

    Args:
        name: its name.
        namespace: where.
        labels: its labels.
        shape: how many GPUs, and which part of each.
        allowed: which.
        sharing: how the cluster shares GPUs.
    """
    backend = backend_of(sharing)
    memory = (allowed.memory - CARD_RESERVE) * shape.tenths // 10 // MIB * MIB
    requests = [
        {
            "name": request.name,
            "exactly": {
                "deviceClassName": backend.driver,
                "allocationMode": "ExactCount",
                "count": request.count,
                "selectors": [{"cel": {"expression": request.selector(backend.driver)}}],
                **({"capacity": {"requests": request.capacity}} if request.capacity else {}),
            },
        }
        for request in backend.requests(allowed.gpus, shape.tp, shape.share, memory)
    ]
    devices: dict[str, Any] = {"requests": requests}
    parameters = backend.claim_parameters(shape.share)
    if parameters is not None:
        names = [request["name"] for request in requests]
        devices["config"] = [{"requests": names, "opaque": {"driver": backend.driver, "parameters": parameters}}]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"spec": {"devices": devices}},
    }
