"""Argo CD keeps the namespace as the repository has it: no more, no less, and nothing that is not its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.end_to_end.api import Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import Environment, planned
from tests.end_to_end.processes import eventually
from tests.end_to_end.project import MakeProject

# As much of the Prometheus operator as Argo CD looks at.
POD_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "PodMonitor", "plural": "podmonitors"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@contextmanager
def installed(cluster: ClusterUnderTest, definition: Object) -> Iterator[None]:
    """Have a custom resource for a while."""
    cluster.api.apply(definition)
    try:
        names = definition["spec"]["names"]
        eventually(lambda: cluster.api.serves(f"{definition['spec']['group']}/v1", names["kind"]), within=30)
        yield
    finally:
        cluster.remove_environments()
        cluster.api.delete(definition)


@pytest.fixture
def environment(cluster: ClusterUnderTest, project: MakeProject) -> Environment:
    """The example rag-reranker, synced and healthy."""
    repository = project("rag-reranker")
    made = cluster.with_nodes(repository.cluster).syncing(repository)
    made.synced_and_healthy()
    return made


def foreign(namespace: str) -> Object:
    metadata = {"name": "notes", "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "scepsy"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"of": "somebody else"}}


def deployment(environment: Environment) -> Object:
    """Return the manifest of an engine."""
    return next(item for item in environment.rendered() if item["metadata"]["name"] == "generator-0")


def names(objects: list[Object]) -> set[tuple[str, str]]:
    return {(item["kind"], item["metadata"]["name"]) for item in objects}


def test_what_a_plan_no_longer_has_is_pruned_and_foreign_objects_stay(environment: Environment) -> None:
    environment.api.apply(foreign(environment.namespace))
    before = environment.rendered()
    environment.project.edit("workflows/rag-reranker.yaml", "target: {rate: 12/s}", "target: {rate: 1/s}")
    environment.project.compile()
    environment.project.push()
    stale = names(before) - names(environment.rendered())
    assert stale, "the change must drop something, or this shows nothing"

    environment.synced_and_healthy()

    gone = [item for item in before if (item["kind"], item["metadata"]["name"]) in stale]
    assert [environment.live(item) for item in gone] == [None] * len(gone)
    assert environment.allocated() == planned(environment.project.plan)
    assert environment.live(foreign(environment.namespace)) is not None


def test_what_was_changed_by_hand_is_healed(environment: Environment) -> None:
    edited = deployment(environment)
    by_hand = {"replicas": 0, "progressDeadlineSeconds": 7}
    environment.api.merge(edited, {"spec": by_hand})
    eventually(
        lambda: all(environment.live(edited)["spec"][field] == edited["spec"][field] for field in by_hand),
        within=60,
        why=environment.explain,
    )
    environment.synced_and_healthy()
    assert environment.allocated() == planned(environment.project.plan)


def test_what_was_deleted_by_hand_comes_back(environment: Environment) -> None:
    deleted = deployment(environment)
    environment.api.delete(deleted)
    eventually(lambda: environment.live(deleted), within=60, why=environment.explain)
    environment.synced_and_healthy()
    assert environment.allocated() == planned(environment.project.plan)


def test_labels_that_others_add_are_left_alone(environment: Environment) -> None:
    labelled = deployment(environment)
    environment.api.merge(labelled, {"metadata": {"labels": {"example.com/cost-centre": "42"}}})
    environment.refresh()
    assert environment.out_of_sync() == []
    assert environment.live(labelled)["metadata"]["labels"]["example.com/cost-centre"] == "42"


def test_pod_monitors_are_synced_too_where_the_prometheus_operator_is(
    cluster: ClusterUnderTest, project: MakeProject
) -> None:
    with installed(cluster, POD_MONITORS):
        repository = project("rag-reranker", push=False)
        repository.edit("scepsy.yaml", "spec:\n", "spec:\n  podMonitor: true\n")
        repository.compile()
        repository.push()
        environment = cluster.with_nodes(repository.cluster).syncing(repository)
        environment.synced_and_healthy()
        monitors = cluster.api.list("monitoring.coreos.com/v1", "PodMonitor", environment.namespace)
        assert {item["metadata"]["name"] for item in monitors} == {"engines", "gateway", "gateway-workflows"}


def test_deleting_the_application_removes_all_of_it_and_nothing_else(environment: Environment) -> None:
    environment.api.apply(foreign(environment.namespace))
    assert environment.leftovers()
    environment.delete()
    eventually(lambda: not environment.application, within=60, why=environment.explain)
    eventually(lambda: not environment.leftovers(), within=60, why=lambda: str(environment.leftovers()))
    assert environment.allocated() == {}
    assert environment.live(foreign(environment.namespace)) is not None


def test_a_folder_that_is_gone_removes_nothing_and_says_so(environment: Environment) -> None:
    """A wrong path or a bad merge must not end everything that serves; deleting the Application is the way."""
    before = environment.allocated()
    for path in (environment.project.directory / environment.project.path).iterdir():
        path.unlink()
    environment.project.commit("Everything is gone")
    environment.refresh()
    conditions = environment.application["status"]["conditions"]
    assert any("app path does not exist" in condition["message"] for condition in conditions)
    assert environment.allocated() == before
