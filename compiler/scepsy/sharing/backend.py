"""What every way to share GPUs must define."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from scepsy.documents.cluster import Sharing

NVIDIA = "gpu.nvidia.com"
"""DeviceClass and driver name of NVIDIA's DRA driver; also the domain of its device attributes."""


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """One entry of `requests` in a ResourceClaim.

    Attributes:
        name: its name in the claim.
        count: number of devices.
        gpus: UUIDs of the GPUs that match.
        capacity: what it takes of each device; None for the whole device.
    """

    name: str
    count: int
    gpus: tuple[str, ...]
    capacity: Mapping[str, str] | None = None

    def selector(self, driver: str) -> str:
        """Return the CEL expression that matches exactly these GPUs, in the driver's attribute `uuid`."""
        attribute = f'device.attributes["{driver}"].uuid'
        if len(self.gpus) == 1:
            return f"{attribute} == {json.dumps(self.gpus[0])}"
        return f"{attribute} in {json.dumps(self.gpus)}"


class SharingBackend(Protocol):
    """One way to share GPUs. Every member is required: the type checker reports a backend that lacks one.

    Attributes:
        name: its name in Cluster documents.
        driver: DeviceClass, and name of the DRA driver.
        device_type: the attribute `type` of whole GPUs in the driver's ResourceSlices.
        least_kubernetes: the oldest Kubernetes that it runs on.
        least_kubernetes_reason: what that version brings; ends the sentence "NAME needs Kubernetes VERSION, …".
        alternative: what to use on an older Kubernetes, for a hint.
        discovery_note: what `cluster discover` reports when it chooses this backend for a new document; may be empty.
        fractions: whether an instance may have part of a GPU.
        group_fractions: whether a tensor-parallel group may have part of each of its GPUs.
        claim_per_gpu_set: whether instances with parts of the same GPUs use one ResourceClaim. If so, all instances on
            a GPU must have the same GPUs.
        shows_whole_card: whether an engine with part of a GPU sees the memory of the whole card.
        busy_neighbours: whether another process of a profiling pod can use the rest of the GPU.
    """

    name: Sharing
    driver: str
    device_type: str
    least_kubernetes: tuple[int, int]
    least_kubernetes_reason: str
    alternative: str
    discovery_note: str
    fractions: bool
    group_fractions: bool
    claim_per_gpu_set: bool
    shows_whole_card: bool
    busy_neighbours: bool

    def requests(self, gpus: tuple[str, ...], count: int, share: float, memory: int) -> tuple[DeviceRequest, ...]:
        """Return the requests of a ResourceClaim.

        Args:
            gpus: UUIDs of the GPUs that may be allocated, at least `count`.
            count: GPUs that are needed.
            share: share of each GPU.
            memory: bytes that may be used of each GPU.
        """

    def claim_parameters(self, share: float) -> dict[str, Any] | None:
        """Return the driver's opaque parameters in a ResourceClaim for this share of each GPU; None for none."""

    def environment(self, share: float, memory: int, gpus: int) -> dict[str, str]:
        """Return the environment that limits a process to its part of its GPUs.

        Args:
            share: share of each GPU.
            memory: bytes that it may use of each GPU.
            gpus: number of GPUs.
        """

    def flags(self, tp: int) -> list[str]:
        """Return additional flags of `vllm serve` for a tensor-parallel degree."""

    def mounts_shm(self, share: float) -> bool:
        """Return whether the driver mounts its own /dev/shm into containers with this share of each GPU."""
