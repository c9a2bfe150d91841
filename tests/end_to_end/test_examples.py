"""Every shipped example runs on the GPUs that its Plan names, and Argo CD finds nothing to complain about."""

from __future__ import annotations

import pytest

from scepsy.repository.new_project import examples
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import planned
from tests.end_to_end.project import MakeProject


@pytest.mark.parametrize("example", sorted(examples()))
def test_an_example_runs_on_exactly_the_gpus_of_its_plan_and_stays_in_sync(
    example: str, cluster: ClusterUnderTest, project: MakeProject
) -> None:
    repository = project(example)
    environment = cluster.with_nodes(repository.cluster).syncing(repository)

    environment.synced_and_healthy(within=90)
    assert environment.allocated() == planned(repository.plan)
    assert environment.nodes() == {instance.name: instance.node for instance in repository.plan.spec.instances}

    # A second look finds nothing either, neither Argo CD's nor the API server's own.
    before = [environment.live(item) for item in environment.rendered()]
    environment.refresh()
    assert environment.out_of_sync() == []
    assert environment.differences() == {}
    assert [environment.live(item) for item in environment.rendered()] == before
