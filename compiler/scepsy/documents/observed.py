"""The Observed documents: what drift detection observed that the hand-written documents do not say.

`scepsy drift --recompile` writes them, into separate files: hand-written documents are never rewritten. What they say
of things that the project no longer has is ignored; to discard an observation, remove its file.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from scepsy.documents.cluster import Cluster, Node
from scepsy.documents.model import Document, GpuUuid, Items, KubernetesName, Metadata, Model, NodeName, text_like
from scepsy.documents.units import Rate

Amount = Annotated[float, Field(gt=0, le=1e9)]
_moment = text_like(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", "a time such as 2026-11-21T20:00:00Z", 20
)
Moment = Annotated[str, _moment[0], _moment[1]]


class ObservedLlm(Model):
    """How one LLM is called, where that differs from the demand of the Workflow."""

    llm: KubernetesName
    """The LLM's name in the workflow."""
    calls: Amount | None = None
    """Mean number of calls per execution."""
    input_tokens: Amount | None = None
    """Mean prompt tokens per call, cached ones included."""
    output_tokens: Amount | None = None
    """Mean generated tokens per call."""


class ObservedWorkflowSpec(Model):
    """What was observed, and when."""

    cluster: KubernetesName
    """The cluster where it was observed; plans of other clusters ignore it."""
    at: Moment
    """When it was written: UTC, RFC 3339."""
    rate: Rate | None = None
    """Executions per second. Planned for is the larger of this and the target; this alone for `target: observed`."""
    llms: Items[ObservedLlm] = ()
    """The LLMs whose calls differ; these values replace the demand's."""


class ObservedWorkflow(Document):
    """How often a workflow runs, and how it calls its LLMs, as observed by `scepsy drift`."""

    kind: Literal["ObservedWorkflow"]
    """The kind of document."""
    metadata: Metadata
    """The name of the Workflow."""
    spec: ObservedWorkflowSpec
    """Its content."""

    def llm(self, name: str) -> ObservedLlm:
        """Return what was observed of an LLM; only its name if nothing was."""
        return next((entry for entry in self.spec.llms if entry.llm == name), ObservedLlm(llm=name))


class ObservedClusterSpec(Model):
    """What of a cluster must not be used, and since when."""

    at: Moment
    """When it was written: UTC, RFC 3339."""
    missing_nodes: Items[NodeName] = ()
    """Nodes that are gone, or not ready."""
    missing_gpus: Items[GpuUuid] = ()
    """GPUs that are gone, or unhealthy."""


class ObservedCluster(Document):
    """What is missing of a cluster, as observed by `scepsy drift`."""

    kind: Literal["ObservedCluster"]
    """The kind of document."""
    metadata: Metadata
    """The name of the Cluster."""
    spec: ObservedClusterSpec
    """Its content."""


def without(cluster: Cluster, nodes: Collection[str], gpus: Collection[str]) -> Cluster:
    """Return a cluster less some nodes and some GPUs; a node without any GPU left goes too."""
    if not nodes and not gpus:
        return cluster
    kept = (_less(node, gpus) for node in cluster.spec.nodes if node.name not in nodes)
    left = tuple(node for node in kept if node is not None)
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"nodes": left})})


def _less(node: Node, missing: Collection[str]) -> Node | None:
    """Return a node less some GPUs, the rest renumbered; None if no GPU is left."""
    left = [index for index, gpu in enumerate(node.gpus) if gpu.uuid not in missing]
    if len(left) == len(node.gpus):
        return node
    if not left:
        return None
    place = {index: new for new, index in enumerate(left)}
    domains = (tuple(place[i] for i in domain if i in place) for domain in node.nvlink_domains)
    return node.model_copy(
        update={
            "gpus": tuple(node.gpus[index] for index in left),
            "nvlink_domains": tuple(domain for domain in domains if domain),
            "reserved": tuple(place[i] for i in node.reserved if i in place),
        }
    )
