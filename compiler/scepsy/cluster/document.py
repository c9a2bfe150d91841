"""What a live cluster has → a Cluster document: a new one, or one that is there with nothing changed that need not be.

Values only; :mod:`scepsy.cluster.yaml_layout` makes text of them.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from scepsy.cluster.differences import Difference, compare
from scepsy.cluster.discovery import LiveCluster, LiveNode
from scepsy.cluster.topology import Links
from scepsy.cluster.yaml_layout import new_indices, shown
from scepsy.documents import API_VERSION, Cluster, Node
from scepsy.documents.cluster import KubernetesVersion
from scepsy.documents.units import format_memory
from scepsy.errors import ScepsyError
from scepsy.sharing import backend_of, default_backend

_VERSIONS: tuple[str, ...] = typing.get_args(KubernetesVersion)


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a Cluster document should say.

    Attributes:
        cluster: the document.
        changes: what is different from the one before, one line each.
        notes: what the reader should know besides, one line each.
    """

    cluster: Cluster
    changes: tuple[str, ...]
    notes: tuple[str, ...]


def driver_of(cluster: Cluster) -> str:
    """Return the driver through which a cluster shares its GPUs."""
    return backend_of(cluster.spec.sharing).driver


def fresh(name: str, live: LiveCluster, topology: Mapping[str, Links]) -> Discovered:
    """Return a new document.

    Args:
        name: the cluster's name.
        live: what it has.
        topology: per node, how GPUs are connected, as far as that was given.

    Raises:
        ScepsyError: it has no GPUs, or what it has fits no document.
    """
    notes = list(live.notes)
    nodes = []
    for node in live.nodes:
        if not node.gpus or node.incomplete:
            continue
        domains = _known_domains(node, [gpu.uuid for gpu in node.gpus], topology, notes)
        nodes.append(_plain(node, domains or ()))
    if not nodes:
        raise ScepsyError(f"no node publishes a GPU: {_nothing(live)}", "see docs/clusters.md for what is read")
    notes += [f"{node.name}: {node.incomplete}; left out, run this again" for node in live.nodes if node.incomplete]
    version = live.version if live.version in _VERSIONS else _VERSIONS[-1]
    backend = default_backend(live.driver)
    if backend.discovery_note:
        notes.append(backend.discovery_note)
    plain = {
        "apiVersion": API_VERSION,
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"kubernetes": version, "sharing": backend.name, "nodes": nodes},
    }
    notes += [*_about(live), *_unknown_nodes(topology, live)]
    return Discovered(_valid(plain), (), tuple(notes))


def merged(cluster: Cluster, live: LiveCluster, topology: Mapping[str, Links]) -> Discovered:
    """Return a document as the cluster has it now, everything else as it is.

    What goes: nodes that are gone, GPUs that are gone or sit in another node. What comes: new nodes behind the others,
    new GPUs behind those of their node. What is corrected: product, memory, version of Kubernetes. `reserved` and
    `nvlinkDomains` are indices: they are rewritten to mean the same GPUs.

    Args:
        cluster: the document.
        live: what the cluster has, of the driver that the document's way of sharing uses.
        topology: per node, how GPUs are connected; replaces `nvlinkDomains` of the nodes that it has.

    Raises:
        ScepsyError: the cluster has none of the GPUs, or what it has fits no document.
    """
    found = compare(cluster, live)
    if all(node.gpus == () for node in live.nodes):
        raise ScepsyError(
            f"no node publishes a GPU through the driver {live.driver}, which sharing: {cluster.spec.sharing} uses: "
            + _nothing(live),
            "is the driver installed? if GPUs are shared in another way now, change spec.sharing first",
        )
    of: dict[str, list[Difference]] = {}
    for difference in found:
        of.setdefault(difference.node, []).append(difference)
    changes: list[str] = []
    notes = list(live.notes)
    nodes: list[dict[str, Any]] = []
    for node in cluster.spec.nodes:
        kept = _merged_node(node, live.node(node.name), of.get(node.name, []), topology, changes, notes)
        if kept is not None:
            nodes.append(kept)
    known = {node.name for node in cluster.spec.nodes}
    for new in live.nodes:
        if new.name in known or new.name not in of:
            continue
        if new.incomplete:
            notes.append(f"{new.name}: {new.incomplete}; left out, run this again")
            continue
        domains = _known_domains(new, [gpu.uuid for gpu in new.gpus], topology, notes)
        nodes.append(_plain(new, domains or ()))
        changes.append(f"{new.name}: new, {_gpus(len(new.gpus))} {new.product}")
    plain = cluster.plain()
    if live.version in _VERSIONS and live.version != cluster.spec.kubernetes:
        changes.append(f"kubernetes: {cluster.spec.kubernetes} -> {live.version}")
        plain["spec"]["kubernetes"] = live.version
    plain["spec"]["nodes"] = nodes
    notes += [*_about(live), *_unknown_nodes(topology, live)]
    return Discovered(_valid(plain), tuple(changes), tuple(notes))


def _merged_node(
    node: Node,
    now: LiveNode | None,
    found: Sequence[Difference],
    topology: Mapping[str, Links],
    changes: list[str],
    notes: list[str],
) -> dict[str, Any] | None:
    """Return a node of the document as it is now; None if it goes."""
    kinds = {difference.kind for difference in found}
    if "node-gone" in kinds:
        changes.append(f"{node.name}: gone, with {_gpus(len(node.gpus))}")
        return None
    if "node-silent" in kinds:
        notes.append(f"{node.name}: no driver publishes its GPUs now; kept as it is, remove it by hand if it has none")
    if "node-incomplete" in kinds:
        notes.append(f"{node.name}: {next(d.now for d in found if d.kind == 'node-incomplete')}; kept, run this again")
    plain = node.plain()
    lost: dict[str, str] = {}
    memory: dict[str, str] = {}
    new: list[dict[str, str]] = []
    for difference in found:
        match difference.kind:
            case "product":
                plain["product"] = difference.now
                changes.append(f"{node.name}: product {difference.was} -> {difference.now}")
            case "gpu-gone" | "gpu-moved":
                lost[difference.gpu] = f"is in node {difference.now} now" if difference.now else "is gone"
            case "memory":
                memory[difference.gpu] = difference.now
                changes.append(f"{node.name}: {difference.gpu} memory {difference.was} -> {difference.now}")
            case "gpu-new":
                new.append({"uuid": difference.gpu, "memory": difference.now})
                changes.append(f"{node.name}: {difference.gpu} is new, {difference.now}")
    changes += [f"{node.name}: {uuid} {how}{_meant(node, uuid)}" for uuid, how in lost.items()]
    gpus = [{**g, "memory": memory.get(g["uuid"], g["memory"])} for g in plain["gpus"] if g["uuid"] not in lost]
    plain["gpus"] = [*gpus, *new]
    if not plain["gpus"]:
        changes.append(f"{node.name}: no GPU is left, so it goes")
        return None
    index = {gpu["uuid"]: i for i, gpu in enumerate(plain["gpus"])}
    at = new_indices(node, index)
    plain["reserved"] = [at[i] for i in node.reserved if i in at]
    domains = tuple(tuple(at[i] for i in domain if i in at) for domain in node.nvlink_domains)
    domains = tuple(domain for domain in domains if domain)
    if now is not None:
        # A document that says nothing of domains is filled from a label, as is one whose domains all went with their
        # GPUs; one that says there are none is believed.
        given = "nvlink_domains" in node.model_fields_set and bool(domains or not node.nvlink_domains)
        known = _known_domains(now, list(index), topology, notes, asked_only=given)
        if known is not None and _sets(known) != _sets(domains):
            changes.append(f"{node.name}: nvlinkDomains {shown(domains)} -> {shown(known)}")
            domains = known
    connected = {i for domain in domains for i in domain}
    alone = [gpu["uuid"] for gpu in new if index[gpu["uuid"]] not in connected] if domains else []
    if alone:
        notes.append(f"{node.name}: {', '.join(alone)} in no NVLink domain: add to nvlinkDomains, or give --topology")
    plain["nvlinkDomains"] = [list(domain) for domain in domains]
    return plain


def _known_domains(
    node: LiveNode,
    gpus: Sequence[str],
    topology: Mapping[str, Links],
    notes: list[str],
    asked_only: bool = False,
) -> tuple[tuple[int, ...], ...] | None:
    """Return which GPUs NVLink connects, as indices; None if nothing says. It is never guessed from the product.

    Args:
        node: the node.
        gpus: UUIDs in the order of the document.
        topology: what was given.
        notes: gets a line if nothing is known.
        asked_only: whether only what was given counts, not the node's label.
    """
    links = topology.get(node.name)
    if links is not None:
        domains = links.domains(gpus)
        if domains is None:
            notes.append(
                f"{node.name}: only some of its GPUs are connected, so the topology file must say which is which: "
                "add what nvidia-smi -L prints"
            )
        elif links.cut:
            notes.append(f"{node.name}: links make no separate sets; in each domain, every pair has a link")
        if domains is not None:
            return domains
    if asked_only:
        return None
    if node.connected and len(gpus) > 1:
        return (tuple(range(len(gpus))),)
    if len(gpus) > 1:
        notes.append(f"{node.name}: no NVLink domains are known, so each GPU stands alone: give --topology FILE")
    return None


def _meant(node: Node, uuid: str) -> str:
    """Say what settings were about a GPU of a document."""
    i = next(index for index, gpu in enumerate(node.gpus) if gpu.uuid == uuid)
    settings = ["reserved"] if i in node.reserved else []
    settings += [f"in NVLink domain {shown((domain,))}" for domain in node.nvlink_domains if i in domain]
    behind = f", was {' and '.join(settings)}" if settings else ""
    return f" (index {i}{behind})"


def _plain(node: LiveNode, domains: Iterable[Iterable[int]]) -> dict[str, Any]:
    return {
        "name": node.name,
        "product": node.product,
        "gpus": [{"uuid": gpu.uuid, "memory": format_memory(gpu.memory)} for gpu in node.gpus],
        "nvlinkDomains": [list(domain) for domain in domains],
    }


def _about(live: LiveCluster) -> list[str]:
    """Return what to know about a cluster that its document does not say."""
    lines = []
    if live.version not in _VERSIONS:
        known = f"{_VERSIONS[0]} to {_VERSIONS[-1]}"
        lines.append(f"the cluster runs Kubernetes {live.version}; manifests are made for {known}")
    if not live.has_class:
        lines.append(f"there is no DeviceClass {live.driver}, so no GPU can be claimed: install the driver's classes")
    for node in live.nodes:
        for trouble in (node.unready, node.cordoned, *node.conditions):
            if trouble is not None:
                lines.append(f"{node.name}: {trouble.what}{f' since {trouble.since}' if trouble.since else ''}")
        lines += [f"{node.name}: taint {taint}, which pods of engines do not tolerate" for taint in node.taints]
        for gpu in node.gpus:
            if gpu.sick is not None:
                since = f" since {gpu.sick.since}" if gpu.sick.since else ""
                lines.append(f"{node.name}: {gpu.uuid} is sick: {gpu.sick.what}{since}")
    return lines


def _unknown_nodes(topology: Mapping[str, Links], live: LiveCluster) -> list[str]:
    names = {node.name for node in live.nodes if node.gpus}
    gone = sorted(topology.keys() - names)
    return [f"the topology file has node {name}, the cluster has no such node with GPUs" for name in gone]


def _nothing(live: LiveCluster) -> str:
    labelled = [node.name for node in live.nodes]
    if labelled:
        return f"{len(labelled)} nodes have the product label, but no ResourceSlices of {live.driver} are whole"
    return f"{len(live.others)} nodes, none with ResourceSlices of {live.driver}"


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count != 1 else ''}"


def _sets(domains: Iterable[Iterable[int]]) -> set[frozenset[int]]:
    return {frozenset(domain) for domain in domains}


def _valid(plain: dict[str, Any]) -> Cluster:
    try:
        return Cluster.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ScepsyError(f"what the cluster has fits no Cluster document: {place}: {first['msg']}") from error
