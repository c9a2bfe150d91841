"""Checks on a Plan before it is rendered: what would not run on Kubernetes, or would harm what runs."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from scepsy.documents.cluster import Cluster, Node
from scepsy.documents.plan import Instance, Plan, PlannedLlm
from scepsy.documents.units import format_memory
from scepsy.errors import ScepsyError
from scepsy.sharing import backend_of

MINIMUM_KUBERNETES = (1, 34)
"""The first version in which resource.k8s.io/v1 is generally available."""


class UnsafePlan(ScepsyError):
    """A Plan that would not run, or would harm what runs.

    Attributes:
        violations: every violation that was found, one line each.
    """

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)
        lines = "\n".join(f"  - {violation}" for violation in self.violations)
        super().__init__(f"the plan must not be rendered:\n{lines}", "compile again; do not edit a Plan by hand")


def check(plan: Plan, cluster: Cluster) -> None:
    """Verify that a Plan can run on a cluster as it says.

    Raises:
        UnsafePlan: with all violations.
    """
    llms = {llm.name: llm for llm in plan.spec.llms}
    known = [instance for instance in plan.spec.instances if instance.llm in llms]
    violations = [
        *_header(plan, cluster),
        *_names(plan),
        *_replicas(plan, llms),
        *_places(known, llms, cluster),
        *_tenants(plan, known, llms, cluster),
    ]
    if violations:
        raise UnsafePlan(violations)


def _header(plan: Plan, cluster: Cluster) -> Iterator[str]:
    version = cluster.spec.kubernetes
    if tuple(map(int, version.split("."))) < MINIMUM_KUBERNETES:
        yield f"cluster {cluster.metadata.name} runs Kubernetes {version}; ResourceClaims need 1.34"
    if plan.spec.cluster != cluster.metadata.name:
        yield f"the plan is for cluster {plan.spec.cluster}, not for {cluster.metadata.name}"
    if plan.spec.sharing != cluster.spec.sharing:
        yield f"the plan is for sharing by {plan.spec.sharing}, the cluster shares by {cluster.spec.sharing}"
    least = backend_of(cluster.spec.sharing).least_kubernetes
    if least > MINIMUM_KUBERNETES and tuple(map(int, version.split("."))) < least:
        needs = f"sharing by {cluster.spec.sharing} needs {least[0]}.{least[1]}"
        yield f"cluster {cluster.metadata.name} runs Kubernetes {version}; {needs}"


def _names(plan: Plan) -> Iterator[str]:
    for what, names in (
        ("LLM", [llm.name for llm in plan.spec.llms]),
        ("instance", [instance.name for instance in plan.spec.instances]),
    ):
        yield from (f"{count} {what}s have the name {name}" for name, count in Counter(names).items() if count > 1)
    if any(instance.name == "gateway" for instance in plan.spec.instances):
        yield "an instance has the name gateway, which is reserved for the gateway's Deployment"


def _replicas(plan: Plan, llms: Mapping[str, PlannedLlm]) -> Iterator[str]:
    running = Counter(instance.llm for instance in plan.spec.instances)
    for name in sorted(set(running) - set(llms)):
        yield f"{running[name]} instance(s) serve {name}, which is not an LLM of the plan"
    for llm in llms.values():
        if running[llm.name] != llm.replicas:
            yield f"LLM {llm.name} has {running[llm.name]} instance(s), the plan says replicas: {llm.replicas}"


def _places(instances: Sequence[Instance], llms: Mapping[str, PlannedLlm], cluster: Cluster) -> Iterator[str]:
    """Every instance sits on GPUs that exist, are free to use, and are connected."""
    nodes = {node.name: node for node in cluster.spec.nodes}
    for instance in instances:
        llm, node = llms[instance.llm], nodes.get(instance.node)
        if instance.share != llm.share:
            yield f"{instance.name} has share {instance.share}, its LLM {llm.name} has {llm.share}"
        if len(instance.gpus) != llm.tp or len(set(instance.gpus)) != llm.tp:
            yield f"{instance.name} has {len(set(instance.gpus))} GPU(s), tensor parallelism is {llm.tp}"
        if node is None:
            yield f"{instance.name} is on node {instance.node}, which the cluster does not have"
            continue
        if node.product != llm.product:
            yield f"{instance.name} is on a {node.product}, its LLM {llm.name} was planned for {llm.product}"
        index = {gpu.uuid: position for position, gpu in enumerate(node.gpus)}
        missing = [uuid for uuid in instance.gpus if uuid not in index]
        yield from (f"{instance.name} is on {uuid}, which node {node.name} does not have" for uuid in missing)
        positions = {index[uuid] for uuid in instance.gpus if uuid in index}
        for position in sorted(positions & set(node.reserved)):
            yield f"{instance.name} is on {node.gpus[position].uuid}, which the cluster document reserves"
        if not missing and len(positions) > 1 and not _connected(node, positions):
            yield f"the GPUs of {instance.name} are not in one NVLink domain of node {node.name}"


def _connected(node: Node, positions: set[int]) -> bool:
    return any(positions <= set(domain) for domain in node.nvlink_domains)


def _tenants(
    plan: Plan, instances: Sequence[Instance], llms: Mapping[str, PlannedLlm], cluster: Cluster
) -> Iterator[str]:
    """Instances that share a GPU fit on it, see the same GPUs, and start one by one."""
    backend = backend_of(plan.spec.sharing)
    cards = {gpu.uuid: gpu.memory for node in cluster.spec.nodes for gpu in node.gpus}
    tenants: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        for uuid in dict.fromkeys(instance.gpus):
            tenants[uuid].append(instance)
        if not backend.fractions and instance.share != 1.0:
            yield f"{instance.name} has share {instance.share}; {backend.name} hands out whole GPUs only"
        elif not backend.group_fractions and instance.share != 1.0 and len(instance.gpus) > 1:
            yield f"{instance.name} has share {instance.share} of several GPUs; under {backend.name} such groups hang"
    for uuid, group in sorted(tenants.items()):
        names = ", ".join(sorted(instance.name for instance in group))
        tenths = sum(round(instance.share * 10) for instance in group)
        memory = sum(llms[instance.llm].memory_per_gpu for instance in group)
        if tenths > 10:
            yield f"the shares of {names} on {uuid} sum to {tenths / 10:g}"
        if uuid in cards and memory > cards[uuid]:
            yield f"{names} use {format_memory(memory)} of {uuid}, which has {format_memory(cards[uuid])}"
        if len(group) > 1 and not backend.fractions:
            yield f"{names} share {uuid}; {backend.name} allows one instance per GPU"
        if backend.claim_per_gpu_set and len({frozenset(instance.gpus) for instance in group}) > 1:
            yield f"{names} share {uuid} but not all their GPUs; one container talks to one MPS daemon only"
        if _start_together(group, plan.spec.change.circles if plan.spec.change else ()):
            yield f"{names} share {uuid} and a sync wave; instances on one GPU must start one by one"


def _start_together(group: Sequence[Instance], circles: Sequence[Sequence[str]]) -> bool:
    """Return whether two tenants of a GPU share a wave without taking GPUs from each other in a circle."""
    return any(
        a.wave == b.wave and not any({a.name, b.name} <= set(circle) for circle in circles)
        for a, b in itertools.combinations(group, 2)
    )
