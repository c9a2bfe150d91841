"""ResourceClaims: which pods may use which GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scepsy.documents.plan import Instance, Plan
from scepsy.sharing import DeviceRequest, backend_of


@dataclass(frozen=True, slots=True)
class Claim:
    """The GPUs of one instance, or of all that share a GPU set.

    Attributes:
        prefix: the name without the hash of its content.
        driver: DeviceClass and driver.
        requests: what is claimed.
        parameters: the driver's opaque parameters for all requests; None for none.
        instances: names of its instances.
    """

    prefix: str
    driver: str
    requests: tuple[DeviceRequest, ...]
    parameters: dict[str, Any] | None
    instances: tuple[str, ...]


def claims(plan: Plan) -> list[Claim]:
    """Return the claims of a plan, in order of their names.

    GPUs are claimed per instance, not per GPU set: when one instance hands its GPU to another, the scheduler then holds
    the second claim back until the first is released. Under MPS, shared GPUs are claimed per set, since only the pods
    of one claim share its MPS daemon.
    """
    backend = backend_of(plan.spec.sharing)
    memory = {llm.name: llm.memory_per_gpu for llm in plan.spec.llms}
    tenants: dict[tuple[str, tuple[str, ...]], list[Instance]] = {}
    for instance in plan.spec.instances:
        prefix = "shared" if backend.claim_per_gpu_set and instance.share < 1.0 else instance.name
        tenants.setdefault((prefix, tuple(sorted(instance.gpus))), []).append(instance)
    return [
        Claim(
            prefix,
            backend.driver,
            backend.requests(gpus, len(gpus), group[0].share, memory.get(group[0].llm, 0)),
            backend.claim_parameters(group[0].share),
            tuple(sorted(instance.name for instance in group)),
        )
        for (prefix, gpus), group in sorted(tenants.items())
    ]
