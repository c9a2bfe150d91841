"""`hami-dra`: fractions that the stock scheduler itself enforces."""

from __future__ import annotations

import pytest

from scepsy.sharing.hami import HAMI
from tests.end_to_end.api import Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import Environment, planned
from tests.end_to_end.processes import eventually
from tests.end_to_end.project import MakeProject


@pytest.fixture
def environment(cluster: ClusterUnderTest, project: MakeProject) -> Environment:
    """Five LLMs on two GPUs, shared through consumable capacity; synced and healthy."""
    # The first plan already, so that the tenants of a GPU come one wave after another. On top of a plan for another way
    # of sharing all would change in a circle and start at once. Then kube-scheduler 1.36 may count the capacity of a
    # claim twice while it writes its allocation (GatherAllocatedState adds what is in flight to what the informer has
    # already brought), refuse a pod that fits, and try it again only 5 minutes later, since nothing is released.
    repository = project("oversubscribed", sharing="hami-dra")
    tenants = [(gpu, instance.wave) for instance in repository.plan.spec.instances for gpu in instance.gpus]
    assert len(tenants) == len(set(tenants))
    made = cluster.with_nodes(repository.cluster).syncing(repository)
    made.synced_and_healthy(within=90)
    return made


def test_fractions_are_allocated_on_the_gpus_of_the_plan_and_stay_in_sync(environment: Environment) -> None:
    plan = environment.project.plan
    assert any(instance.share < 1 for instance in plan.spec.instances)
    assert environment.allocated() == planned(plan)
    environment.refresh()
    assert environment.out_of_sync() == []
    assert environment.differences() == {}


def test_the_scheduler_refuses_what_would_oversubscribe_a_gpu(environment: Environment) -> None:
    plan = environment.project.plan
    gpu = plan.spec.instances[0].gpus[0]
    taken = sum(round(100 * i.share) for i in plan.spec.instances if gpu in i.gpus)
    assert 0 < taken <= 100
    for name, cores in (("fits", 100 - taken), ("too-much", 100 - taken + 1)):
        if cores:
            environment.api.apply(claim(environment.namespace, name, gpu, cores))
            environment.api.apply(pod(environment.namespace, name, plan.spec.instances[0].node))
    refused = pod(environment.namespace, "too-much", "")
    eventually(lambda: unschedulable(environment.live(refused)), within=60, why=environment.explain)


def unschedulable(item: Object | None) -> bool:
    conditions = (item or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "PodScheduled" and c["status"] == "False" and "claim" in c["message"] for c in conditions)


def claim(namespace: str, name: str, gpu: str, cores: int) -> Object:
    exactly = {
        "deviceClassName": HAMI,
        "allocationMode": "ExactCount",
        "count": 1,
        "selectors": [{"cel": {"expression": f'device.attributes["{HAMI}"].uuid == "{gpu}"'}}],
        "capacity": {"requests": {"cores": str(cores), "memory": "1Mi"}},
    }
    spec = {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": spec}


def pod(namespace: str, name: str, node: str) -> Object:
    security = {
        "allowPrivilegeEscalation": False, "runAsNonRoot": True, "runAsUser": 1000,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": name}],
        "containers": [
            {"name": "c", "image": "x", "securityContext": security, "resources": {"claims": [{"name": "gpu"}]}}
        ],
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
