"""The Cluster document: which GPUs there are, how they are connected, and how they may be shared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scepsy.documents.model import Document, GpuUuid, Items, Metadata, Model, NodeName, Product
from scepsy.documents.units import Memory

Index = Annotated[int, Field(ge=0, le=63)]
Sharing = Literal["dra-exclusive", "dra-mps", "hami-dra"]
KubernetesVersion = Literal["1.34", "1.35", "1.36", "1.37"]


class Gpu(Model):
    """One GPU."""

    uuid: GpuUuid
    """The driver's UUID; unique in the cluster."""
    memory: Memory
    """Memory of the card, such as `80Gi`."""


class Node(Model):
    """One machine."""

    name: NodeName
    """The node's name in Kubernetes; also the value of its `kubernetes.io/hostname` label."""
    product: Product
    """The node label `nvidia.com/gpu.product`; all GPUs of a node are of one product."""
    gpus: Annotated[Items[Gpu], Field(min_length=1, max_length=64)]
    """Its GPUs; their position in this list is the index that the other fields use."""
    nvlink_domains: Items[Items[Index]] = ()
    """Sets of GPUs that NVLink connects; tensor-parallel groups stay inside one. A GPU in none stands alone."""
    reserved: Items[Index] = ()
    """GPUs that the planner leaves alone: for profiling, or for other tenants."""


class ClusterSpec(Model):
    """The machines and how their GPUs are handed out."""

    kubernetes: KubernetesVersion = "1.36"
    """Version of Kubernetes that the manifests are for."""
    sharing: Sharing = "dra-exclusive"
    """`dra-exclusive`: whole GPUs only. `dra-mps`: fractions too, through NVIDIA MPS, added up by the compiler.
    `hami-dra`: fractions of single GPUs through HAMi's driver, enforced by the scheduler (Kubernetes 1.36 or later)."""
    nodes: Annotated[Items[Node], Field(min_length=1, max_length=5000)]
    """The machines with GPUs."""


class Cluster(Document):
    """A Kubernetes cluster with GPUs."""

    kind: Literal["Cluster"]
    """The kind of document."""
    metadata: Metadata
    """Its name."""
    spec: ClusterSpec
    """Its content."""
