"""`hami-dra`: parts of single GPUs through HAMi's DRA driver; the scheduler adds up the parts."""

from __future__ import annotations

from typing import Any

from scepsy.documents.cluster import Sharing
from scepsy.documents.units import format_memory
from scepsy.sharing.backend import DeviceRequest, SharingBackend

HAMI = "hami-core-gpu.project-hami.io"
"""DeviceClass and driver; its devices can be allocated in part (consumable capacity `cores` and `memory`)."""


class Hami(SharingBackend):
    """Parts of single GPUs, enforced by the scheduler and by HAMi's limiter inside the container."""

    name: Sharing = "hami-dra"
    driver = HAMI
    device_type = "hami-gpu"
    least_kubernetes = (1, 36)
    """Consumable capacity (KEP 5075) is on by default since 1.36."""
    least_kubernetes_reason = "where devices can be allocated in part by default"
    alternative = "dra-mps"
    discovery_note = ""
    fractions = True
    group_fractions = False
    """HAMi's limiter in front of NCCL is known to hang where a group has only part of each GPU."""
    claim_per_gpu_set = False
    shows_whole_card = False
    busy_neighbours = False

    def requests(self, gpus: tuple[str, ...], count: int, share: float, memory: int) -> tuple[DeviceRequest, ...]:
        """Return one request per GPU: a single request could get two parts of the same GPU."""
        capacity = {"cores": str(round(share * 100)), "memory": format_memory(memory)}
        if count == 1:
            return (DeviceRequest("gpu-0", 1, gpus, capacity),)
        return tuple(DeviceRequest(f"gpu-{i}", 1, (gpu,), capacity) for i, gpu in enumerate(gpus[:count]))

    def claim_parameters(self, share: float) -> dict[str, Any] | None:
        """Return None: the capacity of the requests says it all."""
        return None

    def environment(self, share: float, memory: int, gpus: int) -> dict[str, str]:
        """Return nothing: HAMi's driver sets the limits."""
        return {}

    def flags(self, tp: int) -> list[str]:
        """Return the flag without which the custom all-reduce of a tensor-parallel group hangs under HAMi."""
        return ["--disable-custom-all-reduce"] if tp > 1 else []

    def mounts_shm(self, share: float) -> bool:
        """Return False."""
        return False
