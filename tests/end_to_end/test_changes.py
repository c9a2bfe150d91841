"""Changes that move GPUs end where the plan says, and never hang: real Argo CD, real scheduler."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from scepsy.documents import Cluster, Plan
from scepsy.documents.plan import Instance
from scepsy.placement import schedule
from tests.end_to_end.api import Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import Environment, planned
from tests.end_to_end.processes import eventually
from tests.end_to_end.project import MakeProject
from tests.placement.test_sync_waves import CHANGES, GPUS, instance

PAIRS = 50
SEED = 20260101
PRODUCT = "NVIDIA-H100-80GB-HBM3"


def two_nodes() -> Cluster:
    """Two nodes of eight GPUs, with the names and UUIDs that the changes use."""
    nodes = [
        {
            "name": f"gpu-{node}",
            "product": PRODUCT,
            "gpus": [{"uuid": f"GPU-{node}-{g}", "memory": "80Gi"} for g in range(8)],
            "nvlinkDomains": [list(range(8))],
        }
        for node in "ab"
    ]
    header = {"apiVersion": "scepsy.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "two-nodes"}}
    return Cluster.model_validate({**header, "spec": {"sharing": "dra-mps", "nodes": nodes}})


def plan_of(instances: Sequence[Instance], namespace: str, previous: Sequence[Sequence[Instance]]) -> Plan:
    """A Plan of given instances, with the waves that the change needs."""
    order = schedule(instances, previous)
    llms = {
        i.llm: {
            "name": i.llm, "workflows": ["w"], "model": "m", "product": PRODUCT, "tp": len(i.gpus), "share": i.share,
            "replicas": sum(other.llm == i.llm for other in instances), "maxModelLen": 1024, "maxNumSeqs": 8,
            "memoryPerGpu": f"{round(i.share * 79)}Gi", "kvCachePerGpu": "1Gi", "weights": "1Gi",
            "profile": {"name": "m", "source": "estimated"}, "predicted": {"load": "1/s", "utilisation": 0.1},
        }
        for i in instances
    }  # fmt: skip
    arranged = [i.model_copy(update={"wave": order.wave[i.name]}).plain() for i in instances]
    spec = {
        "compiler": "test", "cluster": "two-nodes", "namespace": namespace, "sharing": "dra-mps",
        "engineImage": "vllm/vllm-openai:v0.24.0", "workflows": [], "llms": list(llms.values()), "instances": arranged,
        "change": {"circles": [list(circle) for circle in order.circles]},
        "free": {"gpus": 0, "largestTensorParallel": 0},
        "proof": {"objective": "o", "predictor": "p", "lowerBound": 1.0, "achieved": 1.0, "gap": 0.0,
                  "unplacedBound": 1.0, "candidates": 1},
        "inputs": {},
    }  # fmt: skip
    header = {"apiVersion": "scepsy.dev/v1alpha1", "kind": "Plan", "metadata": {"name": "two-nodes"}}
    return Plan.model_validate({**header, "spec": spec})


class Walk:
    """One environment that goes from plan to plan."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.olds: list[Sequence[Instance]] = []

    def commit(self, instances: Sequence[Instance]) -> Plan:
        """Push a plan, and do not wait."""
        plan = plan_of(instances, self.environment.namespace, self.olds)
        self.environment.project.publish(plan)
        self.olds = [plan.spec.instances, *self.olds[:2]]
        return plan

    def to(self, instances: Sequence[Instance], within: float = 90) -> None:
        """Push a plan, and wait until it runs as it says."""
        plan = self.commit(instances)
        self.environment.synced_and_healthy(within=within)
        assert self.environment.allocated() == planned(plan)
        # Only the latest plan can be in force now.
        self.olds = self.olds[:1]


@pytest.fixture
def walk(cluster: ClusterUnderTest, project: MakeProject) -> Walk:
    repository = project("both", push=False)
    document = repository.directory / "clusters/two-nodes.yaml"
    text = document.read_text(encoding="utf-8")
    for node in "ab":
        text = text.replace(f"GPU-{node * 8}-0000-4000-8000-00000000000", f"GPU-{node}-")
    document.write_text(text, encoding="utf-8")
    assert repository.cluster.spec == two_nodes().spec
    repository.publish(plan_of([instance("first", "a0")], repository.namespace, []))
    return Walk(cluster.with_nodes(repository.cluster).syncing(repository))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_ends_on_the_gpus_of_the_plan(change: str, walk: Walk) -> None:
    before, after, _ = CHANGES[change]
    walk.to([instance(*i) for i in before])
    walk.to([instance(*i) for i in after])


def test_one_node_is_drained_and_everything_moves_at_once(walk: Walk) -> None:
    names = ["p", "q", "r", "s"]
    walk.to([instance(n, f"a{i}") for i, n in enumerate(names)] + [instance("big", "b0 b1 b2 b3")])
    walk.to([instance(n, f"b{i}") for i, n in enumerate(names)] + [instance("big", "b4 b5 b6 b7")])
    walk.to([instance(n, f"a{i}", 0.5) for i, n in enumerate(names)] + [instance("big", "a4 a5 a6 a7")])


def test_a_plan_that_was_never_applied_and_one_that_was_applied_in_part_do_no_harm(walk: Walk) -> None:
    walk.to([instance("x", "a0"), instance("y", "a1"), instance("z", "a2", 0.5)])
    walk.commit([instance("x", "a1"), instance("y", "a2"), instance("z", "a0", 0.5)])
    walk.commit([instance("x", "a2"), instance("w", "a1", 0.5), instance("z", "a1", 0.5)])
    walk.to([instance("x", "a0", 0.5), instance("y", "a0", 0.5), instance("z", "a1")])


def random_instances(rng: random.Random) -> list[Instance]:
    """A random valid plan, every instance of an LLM of its own, so that shapes change under one name."""
    found: list[Instance] = []
    names = [f"m{i}" for i in range(24)]
    rng.shuffle(names)
    for node in "ab":
        free = [g for g in GPUS if g[4] == node]
        rng.shuffle(free)
        while free:
            size = rng.choice([s for s in (1, 1, 1, 2, 2, 4) if s <= len(free)])
            gpus, free = sorted(free[:size]), free[size:]
            kind, left = rng.random(), 10
            if kind < 0.2 or not names:
                continue
            if kind < 0.6:
                found.append(instance(names.pop(), gpus))
                continue
            while left and names and rng.random() < 0.7:
                tenths = rng.randint(1, min(left, 6))
                found.append(instance(names.pop(), gpus, tenths / 10))
                left -= tenths
    return found or [instance("m0", "a0")]


def test_random_plans_one_after_another_all_end_where_they_say(walk: Walk) -> None:
    rng = random.Random(SEED)
    for _ in range(PAIRS + 1):
        walk.to(random_instances(rng), within=120)


def test_what_ran_on_a_node_that_is_gone_runs_elsewhere_under_new_names(
    cluster: ClusterUnderTest, project: MakeProject
) -> None:
    repository = project("both")
    environment = cluster.with_nodes(repository.cluster).syncing(repository)
    environment.synced_and_healthy(within=90)
    before = repository.plan.spec.instances

    text = (repository.directory / "clusters/two-nodes.yaml").read_text(encoding="utf-8")
    (repository.directory / "clusters/two-nodes.yaml").write_text(text.split("    - name: gpu-b")[0], encoding="utf-8")
    repository.compile()
    cluster.with_nodes(repository.cluster)
    repository.push()

    lost = {i.name for i in before if i.node == "gpu-b"}
    assert lost
    assert not lost & {i.name for i in repository.plan.spec.instances}
    environment.synced_and_healthy(within=180)
    assert environment.allocated() == planned(repository.plan)


def test_what_ran_on_a_node_that_stopped_answering_runs_elsewhere_and_later_commits_are_applied(
    cluster: ClusterUnderTest, project: MakeProject
) -> None:
    repository = project("both")
    environment = cluster.with_nodes(repository.cluster, mortal="gpu-b").syncing(repository)
    environment.synced_and_healthy(within=90)
    lost = {i.name for i in repository.plan.spec.instances if i.node == "gpu-b"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-b"}}
    try:
        cluster.silence()
        eventually(lambda: not ready(cluster.node("gpu-b")), within=120, why="the node is still ready")
        document = repository.directory / "clusters/two-nodes.yaml"
        text = document.read_text(encoding="utf-8")
        document.write_text(text.split("    - name: gpu-b")[0], encoding="utf-8")
        repository.compile()
        repository.push()
        eventually(lambda: runs_as_planned(environment, lost), within=120, why=environment.explain)

        repository.edit("workflows/rag-reranker.yaml", "rate: 12/s", "rate: 2/s")
        repository.compile()
        repository.push()
        eventually(lambda: runs_as_planned(environment, lost), within=120, why=environment.explain)
    finally:
        environment.api.delete(node)
        cluster.forget_node("gpu-b")


def runs_as_planned(environment: Environment, lost: set[str]) -> bool:
    """Tell whether the last commit was synced and runs; what is left of lost instances is not looked at."""
    status = environment.application.get("status", {})
    environment.refresh()
    running = {name: gpus for name, gpus in environment.allocated().items() if name not in lost}
    return (
        status.get("operationState", {}).get("phase") == "Succeeded"
        and status.get("operationState", {}).get("syncResult", {}).get("revision") == environment.project.head
        and running == planned(environment.project.plan)
    )


def ready(node: Object) -> bool:
    """Tell whether a node answers."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
