"""`dra-mps`: parts of GPUs through NVIDIA MPS and NVIDIA's DRA driver; the compiler adds up the parts.

A share below 1.0 goes through MPS even without a neighbour: its profile was measured under MPS.
"""

from __future__ import annotations

from typing import Any

from scepsy.documents.cluster import Sharing
from scepsy.sharing.backend import NVIDIA, DeviceRequest, SharingBackend

MIB = 1 << 20


class Mps(SharingBackend):
    """Parts of GPUs and of groups of GPUs, limited by the MPS clients' environment."""

    name: Sharing = "dra-mps"
    driver = NVIDIA
    device_type = "gpu"
    least_kubernetes = (1, 34)
    least_kubernetes_reason = "where resource.k8s.io/v1 is generally available"
    alternative = ""
    discovery_note = ""
    fractions = True
    group_fractions = True
    claim_per_gpu_set = True
    """The driver starts an MPS daemon per claim, and a container talks to one daemon only."""
    shows_whole_card = True
    """The limit lowers the free memory; the total stays the card's."""
    busy_neighbours = True

    def requests(self, gpus: tuple[str, ...], count: int, share: float, memory: int) -> tuple[DeviceRequest, ...]:
        """Return one request for all GPUs: they are allocated whole, to all pods of the claim."""
        return (DeviceRequest("gpus", count, gpus),)

    def claim_parameters(self, share: float) -> dict[str, Any] | None:
        """Return the MPS strategy; no mpsConfig, since each client's environment sets its limits."""
        if share == 1.0:
            return None
        return {
            "apiVersion": "resource.nvidia.com/v1beta1",
            "kind": "GpuConfig",
            "sharing": {"strategy": "MPS"},
        }

    def environment(self, share: float, memory: int, gpus: int) -> dict[str, str]:
        """Return the limits of an MPS client, which may only lower those of its daemon; nothing for whole GPUs.

        `M` is 1024² bytes, the unit that NVIDIA's DRA driver writes too; GPUs are numbered as the container sees them.
        """
        if share == 1.0:
            return {}
        return {
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(round(share * 100)),
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": ",".join(f"{index}={memory // MIB}M" for index in range(gpus)),
        }

    def flags(self, tp: int) -> list[str]:
        """Return nothing."""
        return []

    def mounts_shm(self, share: float) -> bool:
        """Return whether the pod uses MPS: the driver then mounts the /dev/shm of the MPS daemon."""
        return share < 1.0
