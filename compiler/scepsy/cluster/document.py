"""A live cluster → a Cluster document: a new one, or the existing one with only the differences changed.

Values only; :mod:`scepsy.cluster.yaml_layout` writes the text.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from scepsy.cluster.differences import Difference, compare
from scepsy.cluster.discovery import LiveCluster, LiveNode
from scepsy.cluster.nvlink_topology import Links
from scepsy.cluster.yaml_layout import new_indices, shown
from scepsy.documents import API_VERSION, Cluster, Node
from scepsy.documents.cluster import KubernetesVersion
from scepsy.documents.units import format_memory
from scepsy.errors import ScepsyError
from scepsy.sharing import backend_of, default_backend

_VERSIONS: tuple[str, ...] = typing.get_args(KubernetesVersion)


@dataclass(frozen=True, slots=True)
class Discovered:
    """A Cluster document that matches the live cluster.

    Attributes:
        cluster: the document.
        changes: differences from the document before, one line each.
        notes: warnings, one line each.
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
        live: its GPUs.
        topology: per node, how GPUs are connected, if given.

    Raises:
        ScepsyError: it has no GPUs, or does not fit a Cluster document.
    """
    notes = list(live.notes)
    nodes = []
    for node in live.nodes:
        if not node.gpus or node.incomplete:
            continue
        domains = _known_domains(node, [gpu.uuid for gpu in node.gpus], topology, notes)
        nodes.append(_plain(node, domains or ()))
    if not nodes:
        raise ScepsyError(
            f"no node publishes a GPU: {_nodes_without_gpus(live)}", "docs/clusters.md lists what is read"
        )
    notes += [
        f"{node.name}: {node.incomplete}; left out: re-run when it is complete"
        for node in live.nodes
        if node.incomplete
    ]
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
    notes += [*_warnings(live), *_unknown_nodes(topology, live)]
    return Discovered(_valid(plain), (), tuple(notes))


def merged(cluster: Cluster, live: LiveCluster, topology: Mapping[str, Links]) -> Discovered:
    """Return a document updated from the live cluster, everything else unchanged.

    Removed: nodes that are gone, GPUs that are gone or are in another node. Added: new nodes after the others, new
    GPUs after those of their node. Corrected: product, memory, version of Kubernetes. `reserved` and `nvlinkDomains`
    are indices: they are rewritten to refer to the same GPUs.

    Args:
        cluster: the document.
        live: the GPUs that the driver of the document's `sharing` publishes.
        topology: per node, how GPUs are connected; replaces `nvlinkDomains` of its nodes.

    Raises:
        ScepsyError: the cluster has no GPUs, or does not fit a Cluster document.
    """
    found = compare(cluster, live)
    if all(node.gpus == () for node in live.nodes):
        raise ScepsyError(
            f"no node publishes a GPU through the driver {live.driver}, which sharing: {cluster.spec.sharing} uses: "
            + _nodes_without_gpus(live),
            "check that the driver is installed; if the cluster shares GPUs in another way, change spec.sharing first",
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
            notes.append(f"{new.name}: {new.incomplete}; left out: re-run when it is complete")
            continue
        domains = _known_domains(new, [gpu.uuid for gpu in new.gpus], topology, notes)
        nodes.append(_plain(new, domains or ()))
        changes.append(f"{new.name}: new, {_gpus(len(new.gpus))} {new.product}")
    plain = cluster.plain()
    if live.version in _VERSIONS and live.version != cluster.spec.kubernetes:
        changes.append(f"kubernetes: {cluster.spec.kubernetes} -> {live.version}")
        plain["spec"]["kubernetes"] = live.version
    plain["spec"]["nodes"] = nodes
    notes += [*_warnings(live), *_unknown_nodes(topology, live)]
    return Discovered(_valid(plain), tuple(changes), tuple(notes))


def _merged_node(
    node: Node,
    now: LiveNode | None,
    found: Sequence[Difference],
    topology: Mapping[str, Links],
    changes: list[str],
    notes: list[str],
) -> dict[str, Any] | None:
    """Return a node of the document, updated; None if it is removed."""
    kinds = {difference.kind for difference in found}
    if "node-gone" in kinds:
        changes.append(f"{node.name}: gone, with {_gpus(len(node.gpus))}")
        return None
    if "node-silent" in kinds:
        notes.append(f"{node.name}: no driver publishes its GPUs now; kept: remove the node by hand if it has no GPUs")
    if "node-incomplete" in kinds:
        missing = next(d.now for d in found if d.kind == "node-incomplete")
        notes.append(f"{node.name}: {missing}; kept: re-run when it is complete")
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
    changes += [f"{node.name}: {uuid} {how}{_settings_of(node, uuid)}" for uuid, how in lost.items()]
    gpus = [{**g, "memory": memory.get(g["uuid"], g["memory"])} for g in plain["gpus"] if g["uuid"] not in lost]
    plain["gpus"] = [*gpus, *new]
    if not plain["gpus"]:
        changes.append(f"{node.name}: no GPUs left, node removed")
        return None
    index = {gpu["uuid"]: i for i, gpu in enumerate(plain["gpus"])}
    at = new_indices(node, index)
    plain["reserved"] = [at[i] for i in node.reserved if i in at]
    domains = tuple(tuple(at[i] for i in domain if i in at) for domain in node.nvlink_domains)
    domains = tuple(domain for domain in domains if domain)
    if now is not None:
        # A document without domains, or whose domains all went with their GPUs, gets them from a label; an explicit
        # empty list stays.
        given = "nvlink_domains" in node.model_fields_set and bool(domains or not node.nvlink_domains)
        known = _known_domains(now, list(index), topology, notes, topology_only=given)
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
    topology_only: bool = False,
) -> tuple[tuple[int, ...], ...] | None:
    """Return which GPUs NVLink connects, as indices; None if unknown. It is never guessed from the product.

    Args:
        node: the node.
        gpus: UUIDs in the order of the document.
        topology: per node, how GPUs are connected.
        notes: gets a line if the domains are unknown.
        topology_only: whether the node's label is ignored.
    """
    links = topology.get(node.name)
    if links is not None:
        domains = links.domains(gpus)
        if domains is None:
            notes.append(
                f"{node.name}: only some of its GPUs are connected, so the topology file must identify each: "
                "add the output of nvidia-smi -L"
            )
        elif links.cut:
            notes.append(f"{node.name}: its links do not form separate sets; in each domain, every pair has a link")
        if domains is not None:
            return domains
    if topology_only:
        return None
    if node.connected and len(gpus) > 1:
        return (tuple(range(len(gpus))),)
    if len(gpus) > 1:
        notes.append(f"{node.name}: unknown NVLink domains, so no GPUs are treated as connected: give --topology FILE")
    return None


def _settings_of(node: Node, uuid: str) -> str:
    """Return the settings of a document that refer to a GPU."""
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


def _warnings(live: LiveCluster) -> list[str]:
    """Return warnings about a cluster that its document cannot hold."""
    lines = []
    if live.version not in _VERSIONS:
        known = f"{_VERSIONS[0]} to {_VERSIONS[-1]}"
        lines.append(f"the cluster runs Kubernetes {live.version}; manifests support {known}")
    if not live.has_class:
        lines.append(
            f"there is no DeviceClass {live.driver}, so no GPU can be claimed: install the driver's DeviceClasses"
        )
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
    return [f"the topology file has node {name}, but the cluster has no such node with GPUs" for name in gone]


def _nodes_without_gpus(live: LiveCluster) -> str:
    labelled = [node.name for node in live.nodes]
    if labelled:
        return f"{len(labelled)} nodes have the product label, but no ResourceSlices of {live.driver} are complete"
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
        raise ScepsyError(f"the cluster does not fit a Cluster document: {place}: {first['msg']}") from error
