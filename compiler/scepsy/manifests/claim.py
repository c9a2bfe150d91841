"""ResourceClaims: which pods may use which GPUs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from scepsy.documents.plan import Instance, Plan

DEVICE_CLASS = "gpu.nvidia.com"
"""DeviceClass and driver name of NVIDIA's DRA driver; also the domain of its device attributes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The GPUs of one instance, or of all that share a GPU set.

    Attributes:
        prefix: the name without the hash of its content.
        gpus: UUIDs, sorted.
        shared: whether several pods use it through MPS.
        instances: names of its instances.
    """

    prefix: str
    gpus: tuple[str, ...]
    shared: bool
    instances: tuple[str, ...]


def claims(plan: Plan) -> list[Claim]:
    """Return the claims of a plan, in order of their names.

    Whole GPUs are claimed per instance, not per GPU set: when one instance hands its GPU to another, the scheduler then
    holds the second claim back until the first is released. Shared GPUs are claimed per set, since only the pods of one
    claim share its MPS daemon. A share below 1.0 goes through MPS even without a neighbour: its figures assume that.
    """
    result: dict[tuple[str, tuple[str, ...]], list[Instance]] = {}
    for instance in plan.spec.instances:
        prefix = "shared" if is_shared(instance) else instance.name
        result.setdefault((prefix, tuple(sorted(instance.gpus))), []).append(instance)
    return [
        Claim(prefix, gpus, is_shared(tenants[0]), tuple(sorted(instance.name for instance in tenants)))
        for (prefix, gpus), tenants in sorted(result.items())
    ]


def is_shared(instance: Instance) -> bool:
    """Tell whether an instance uses its GPUs through MPS."""
    return instance.share < 1.0


def selector(gpus: tuple[str, ...]) -> str:
    """Return the CEL expression that matches exactly these GPUs, in the driver's attribute `uuid`."""
    attribute = f'device.attributes["{DEVICE_CLASS}"].uuid'
    return f"{attribute} == {json.dumps(gpus[0])}" if len(gpus) == 1 else f"{attribute} in {json.dumps(gpus)}"
