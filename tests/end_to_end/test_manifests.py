"""The API server takes every object as it is rendered, and warns of nothing."""

from __future__ import annotations

import pytest
import yaml

from scepsy.repository.new_project import examples
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.project import MakeProject


@pytest.mark.parametrize("example", sorted(examples()))
def test_the_api_server_accepts_every_object_strictly_and_without_warnings(
    example: str, cluster: ClusterUnderTest, project: MakeProject
) -> None:
    repository = project(example)
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": repository.namespace,
            "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            },
        },
    }
    cluster.api.apply(namespace)
    try:
        folder = repository.directory / repository.path
        said = {
            path.name: cluster.api.apply(yaml.safe_load(path.read_text()), dry_run=True).warnings
            for path in sorted(folder.glob("*.yaml"))
        }
        assert len(said) > 5
        assert said == dict.fromkeys(said, ())
    finally:
        cluster.api.delete(namespace)
