"""Fake nodes with GPUs, made from a Cluster document: the same names, products and UUIDs."""

from __future__ import annotations

from scepsy.documents import Cluster, Gpu, Node
from scepsy.sharing.backend import NVIDIA
from scepsy.sharing.hami import HAMI
from tests.end_to_end.api import Object

TYPES = {NVIDIA: "gpu", HAMI: "hami-gpu"}
"""The attribute `type` of the devices, by driver."""
FAKE = {"kwok.x-k8s.io/node": "fake"}
LABEL = {"scepsy.dev/fake": "gpu-node"}
# More of everything but GPUs than any plan asks for.
CAPACITY = {"cpu": "256", "memory": "4Ti", "pods": "250"}


def objects(cluster: Cluster) -> list[Object]:
    """Return what a cluster's nodes and the DRA driver of its way of sharing would publish."""
    driver = HAMI if cluster.spec.sharing == "hami-dra" else NVIDIA
    made = (item for node in cluster.spec.nodes for item in (machine(node), gpus(node, driver)))
    return [device_class(driver), *made]


def machine(node: Node) -> Object:
    """Return a Node that kwok plays."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {"kubernetes.io/hostname": node.name, "nvidia.com/gpu.product": node.product, **LABEL},
            "annotations": FAKE,
        },
        # As GPU nodes usually are: what does not tolerate it, such as the gateway, must find another node.
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {"allocatable": CAPACITY, "capacity": CAPACITY},
    }


def plain_machine(name: str) -> Object:
    """Return a Node without GPUs, for what needs none."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **LABEL}, "annotations": FAKE},
        "status": {"allocatable": CAPACITY, "capacity": CAPACITY},
    }


def gpus(node: Node, driver: str) -> Object:
    """Return the ResourceSlice of a node's GPUs, as NVIDIA's or HAMi's DRA driver would publish it."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node.name}-{driver}", "labels": LABEL},
        "spec": {
            "driver": driver,
            "nodeName": node.name,
            "pool": {"name": node.name, "generation": 1, "resourceSliceCount": 1},
            "devices": [
                {
                    "name": f"gpu-{index}",
                    "attributes": {
                        "uuid": {"string": gpu.uuid},
                        "type": {"string": TYPES[driver]},
                        # The driver has blanks where the node's label has dashes.
                        "productName": {"string": node.product.replace("-", " ")},
                    },
                    **(whole(gpu) if driver == NVIDIA else divisible(gpu)),
                }
                for index, gpu in enumerate(node.gpus)
            ],
        },
    }


def whole(gpu: Gpu) -> Object:
    """Return the capacity of a device that is allocated as a whole."""
    return {"capacity": {"memory": {"value": str(gpu.memory)}}}


def divisible(gpu: Gpu) -> Object:
    """Return the capacity of a device that several claims may share, in per cent of its cores and bytes of memory."""
    return {
        "allowMultipleAllocations": True,
        "capacity": {
            "cores": {"value": "100", "requestPolicy": policy("100", "0", "1")},
            "memory": {"value": str(gpu.memory), "requestPolicy": policy(str(gpu.memory), "1Mi", "1Mi")},
        },
    }


def policy(most: str, least: str, step: str) -> Object:
    """Return what may be requested of a capacity; all of it if nothing is said."""
    return {"default": most, "validRange": {"min": least, "max": most, "step": step}}


def device_class(driver: str) -> Object:
    """Return the DeviceClass that a driver installs."""
    kind = f"device.driver == '{driver}' && device.attributes['{driver}'].type == '{TYPES[driver]}'"
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": driver},
        "spec": {"selectors": [{"cel": {"expression": kind}}]},
    }
