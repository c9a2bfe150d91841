"""`hami-dra`: every instance claims its part of a GPU, and the scheduler adds up the parts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests import kubernetes_schemas
from tests.manifests.manifest_values import CLUSTER, plan_values

from scepsy.documents import Cluster, Plan, Project
from scepsy.manifests import UnsafePlan, check, render

PROJECT = Project.model_validate({"apiVersion": "scepsy.dev/v1alpha1", "kind": "Project", "metadata": {"name": "p"}})


def values() -> tuple[dict[str, Any], dict[str, Any]]:
    cluster, plan = copy.deepcopy(CLUSTER), plan_values()
    cluster["spec"]["sharing"] = plan["spec"]["sharing"] = "hami-dra"
    plan["spec"]["llms"] = [llm for llm in plan["spec"]["llms"] if llm["name"] != "coder"]
    plan["spec"]["instances"] = [i for i in plan["spec"]["instances"] if i["llm"] != "coder"]
    return cluster, plan


@pytest.fixture
def objects() -> dict[str, Any]:
    cluster, plan = values()
    files = render(Plan.model_validate(plan), Cluster.model_validate(cluster), PROJECT)
    return {name: YAML(typ="safe", pure=True).load(data) for name, data in files.items()}


def claims(objects: dict[str, Any]) -> dict[str, Any]:
    return {
        o["metadata"]["name"].rsplit("-", 1)[0]: o["spec"] for o in objects.values() if o["kind"] == "ResourceClaim"
    }


def test_co_tenants_claim_their_parts_of_one_gpu_separately(objects: dict[str, Any]) -> None:
    found = claims(objects)
    assert set(found) == {"generator-0", "reranker-0", "judge-0"}
    assert found["generator-0"]["devices"] == {
        "requests": [
            {
                "name": "gpu-0",
                "exactly": {
                    "deviceClassName": "hami-core-gpu.project-hami.io",
                    "allocationMode": "ExactCount",
                    "count": 1,
                    "selectors": [
                        {"cel": {"expression": 'device.attributes["hami-core-gpu.project-hami.io"].uuid == "GPU-a-2"'}}
                    ],
                    "capacity": {"requests": {"cores": "50", "memory": "39Gi"}},
                },
            }
        ]
    }
    assert found["reranker-0"]["devices"]["requests"][0]["exactly"]["capacity"]["requests"]["cores"] == "30"


def test_a_group_asks_for_each_of_its_gpus_by_name_so_that_none_is_given_twice(objects: dict[str, Any]) -> None:
    requests = claims(objects)["judge-0"]["devices"]["requests"]
    assert [r["name"] for r in requests] == ["gpu-0", "gpu-1"]
    assert ["GPU-a-0" in str(requests[0]), "GPU-a-1" in str(requests[1])] == [True, True]
    assert {r["exactly"]["capacity"]["requests"]["cores"] for r in requests} == {"100"}


def test_the_slice_looks_like_the_whole_card_and_mps_is_out_of_the_way(objects: dict[str, Any]) -> None:
    container = objects["deployment-generator-0.yaml"]["spec"]["template"]["spec"]["containers"][0]
    assert "--gpu-memory-utilization=0.974" in container["args"]  # of 39Gi, not of the card
    assert not any(e["name"].startswith("CUDA_MPS") for e in container["env"])
    judge = objects["deployment-judge-0.yaml"]["spec"]["template"]["spec"]["containers"][0]
    assert "--disable-custom-all-reduce" in judge["args"]
    assert any(m["mountPath"] == "/dev/shm" for m in judge["volumeMounts"])


@pytest.mark.parametrize("version", ["1.36", "1.37"])
def test_the_objects_are_valid_by_the_strict_schema(objects: dict[str, Any], version: str) -> None:
    for item in objects.values():
        kubernetes_schemas.validate(item, version)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c, p: c["spec"].update(kubernetes="1.35"), "sharing by hami-dra needs 1.36"),
        (lambda c, p: p["spec"]["llms"][0].update(share=0.8) or p["spec"]["instances"][0].update(share=0.8),
         "the shares of generator-0, reranker-0 on GPU-a-2 sum to 1.1"),
        (lambda c, p: p["spec"]["llms"][2].update(share=0.5) or p["spec"]["instances"][2].update(share=0.5),
         "under hami-dra such groups hang"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_it_is_rendered(change: Any, expected: str) -> None:
    cluster, plan = values()
    change(cluster, plan)
    with pytest.raises(UnsafePlan, match=expected):
        check(Plan.model_validate(plan), Cluster.model_validate(cluster))
