"""ResourceClaims: which pods may use which GPUs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from scepsy.documents.plan import Instance, Plan
from scepsy.documents.units import format_memory

NVIDIA = "gpu.nvidia.com"
"""DeviceClass and driver name of NVIDIA's DRA driver; also the domain of its device attributes."""
HAMI = "hami-core-gpu.project-hami.io"
"""The same of HAMi's DRA driver, whose devices can be allocated in part (consumable capacity `cores` and `memory`)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The GPUs of one instance, or of all that share a GPU set.

    Attributes:
        prefix: the name without the hash of its content.
        driver: DeviceClass and driver.
        requests: name, number of devices, CEL selector, and capacity per device (None for all of it).
        mps: whether several pods use it through MPS.
        instances: names of its instances.
    """

    prefix: str
    driver: str
    requests: tuple[tuple[str, int, str, dict[str, str] | None], ...]
    mps: bool
    instances: tuple[str, ...]


def claims(plan: Plan) -> list[Claim]:
    """Return the claims of a plan, in order of their names.

    Whole GPUs are claimed per instance, not per GPU set: when one instance hands its GPU to another, the scheduler then
    holds the second claim back until the first is released. Under MPS, shared GPUs are claimed per set, since only the
    pods of one claim share its MPS daemon. A share below 1.0 goes through MPS even without a neighbour: its figures
    assume that. Under HAMi every instance claims its part of each GPU, and the scheduler adds up the parts.
    """
    if plan.spec.sharing == "hami-dra":
        return [_part(instance, plan) for instance in sorted(plan.spec.instances, key=lambda i: i.name)]
    result: dict[tuple[str, tuple[str, ...]], list[Instance]] = {}
    for instance in plan.spec.instances:
        prefix = "shared" if is_shared(instance) else instance.name
        result.setdefault((prefix, tuple(sorted(instance.gpus))), []).append(instance)
    return [
        Claim(
            prefix,
            NVIDIA,
            (("gpus", len(gpus), selector(NVIDIA, gpus), None),),
            is_shared(tenants[0]),
            tuple(sorted(instance.name for instance in tenants)),
        )
        for (prefix, gpus), tenants in sorted(result.items())
    ]


def _part(instance: Instance, plan: Plan) -> Claim:
    """Return an instance's claim to part of each of its GPUs; a request per GPU, or one could be allocated twice."""
    llm = next(llm for llm in plan.spec.llms if llm.name == instance.llm)
    capacity = {"cores": str(round(instance.share * 100)), "memory": format_memory(llm.memory_per_gpu)}
    requests = tuple((f"gpu-{i}", 1, selector(HAMI, (gpu,)), capacity) for i, gpu in enumerate(sorted(instance.gpus)))
    return Claim(instance.name, HAMI, requests, False, (instance.name,))


def is_shared(instance: Instance) -> bool:
    """Tell whether an instance has only part of its GPUs."""
    return instance.share < 1.0


def selector(driver: str, gpus: tuple[str, ...]) -> str:
    """Return the CEL expression that matches exactly these GPUs, in the driver's attribute `uuid`."""
    attribute = f'device.attributes["{driver}"].uuid'
    return f"{attribute} == {json.dumps(gpus[0])}" if len(gpus) == 1 else f"{attribute} in {json.dumps(gpus)}"
