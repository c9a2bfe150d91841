"""`dra-exclusive`: whole GPUs only, one instance per GPU, through NVIDIA's DRA driver."""

from __future__ import annotations

from typing import Any

from scepsy.documents.cluster import Sharing
from scepsy.sharing.backend import NVIDIA, DeviceRequest, SharingBackend


class Exclusive(SharingBackend):
    """Whole GPUs only."""

    name: Sharing = "dra-exclusive"
    driver = NVIDIA
    device_type = "gpu"
    least_kubernetes = (1, 34)
    least_kubernetes_reason = "where resource.k8s.io/v1 is generally available"
    alternative = ""
    discovery_note = "sharing is dra-exclusive, whole GPUs only; dra-mps hands out parts of GPUs through NVIDIA MPS"
    fractions = False
    group_fractions = False
    claim_per_gpu_set = False
    shows_whole_card = True
    busy_neighbours = False

    def requests(self, gpus: tuple[str, ...], count: int, share: float, memory: int) -> tuple[DeviceRequest, ...]:
        """Return one request for all GPUs."""
        return (DeviceRequest("gpus", count, gpus),)

    def claim_parameters(self, share: float) -> dict[str, Any] | None:
        """Return None: the driver's defaults give whole GPUs."""
        return None

    def environment(self, share: float, memory: int, gpus: int) -> dict[str, str]:
        """Return nothing: there is no limit to set."""
        return {}

    def flags(self, tp: int) -> list[str]:
        """Return nothing."""
        return []

    def mounts_shm(self, share: float) -> bool:
        """Return False."""
        return False
