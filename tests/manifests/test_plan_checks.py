"""Every trap of sharing GPUs is found on the Plan, before anything is rendered."""

from __future__ import annotations

from typing import Any

import pytest
from tests.manifests.manifest_values import cluster, gpu, instance, plan, plan_values, project

from scepsy.manifests import UnsafePlan, check, render


def violations(change: Any, **spec: Any) -> str:
    values = plan_values()
    change(values["spec"])
    with pytest.raises(UnsafePlan) as caught:
        check(plan(values), cluster(**spec))
    return "\n".join(caught.value.violations)


def test_a_sound_plan_passes() -> None:
    check(plan(), cluster())


def test_shares_of_a_gpu_sum_to_at_most_one() -> None:
    def change(spec: Any) -> None:
        spec["llms"][1]["share"] = spec["instances"][1]["share"] = 0.6

    assert "the shares of generator-0, reranker-0 on GPU-a-2 sum to 1.1" in violations(change)


def test_ten_tenths_fit_exactly() -> None:
    values = plan_values()
    values["spec"]["llms"] = [dict(values["spec"]["llms"][0], share=0.1, replicas=10, memoryPerGpu="7Gi")]
    values["spec"]["instances"] = [instance(f"g-{i}", "generator", [gpu("a", 2)], 0.1, wave=i) for i in range(10)]
    check(plan(values), cluster())


def test_memory_of_a_gpu_is_not_exceeded() -> None:
    def change(spec: Any) -> None:
        spec["llms"][1]["memoryPerGpu"] = "42Gi"

    assert "generator-0, reranker-0 use 81Gi of GPU-a-2, which has 80Gi" in violations(change)


def test_co_tenants_have_the_same_gpu_set() -> None:
    def change(spec: Any) -> None:
        spec["instances"][1] |= {"gpus": [gpu("b", 0)], "node": "b"}

    assert "coder-0, reranker-0 share GPU-b-0 but not all their GPUs" in violations(change)


def test_co_tenants_start_one_by_one() -> None:
    def change(spec: Any) -> None:
        spec["instances"][1]["wave"] = 0

    assert "generator-0, reranker-0 share GPU-a-2 and a sync wave" in violations(change)


def test_a_tensor_parallel_group_stays_in_one_nvlink_domain() -> None:
    def change(spec: Any) -> None:
        spec["instances"][2]["gpus"] = [gpu("a", 1), gpu("a", 2)]

    assert "the GPUs of judge-0 are not in one NVLink domain of node a" in violations(change)


def test_a_tensor_parallel_group_stays_on_one_node() -> None:
    def change(spec: Any) -> None:
        spec["instances"][2]["gpus"] = [gpu("a", 1), gpu("b", 0)]

    assert "judge-0 is on GPU-b-0, which node a does not have" in violations(change)


@pytest.mark.parametrize("gpus", [[gpu("a", 0)], [gpu("a", 0), gpu("a", 0)]])
def test_the_number_of_gpus_is_the_tensor_parallel_degree(gpus: list[str]) -> None:
    def change(spec: Any) -> None:
        spec["instances"][2]["gpus"] = gpus

    assert "judge-0 has 1 GPU(s), tensor parallelism is 2" in violations(change)


def test_reserved_gpus_are_left_alone() -> None:
    def change(spec: Any) -> None:
        spec["instances"][0]["gpus"] = [gpu("a", 3)]

    assert "generator-0 is on GPU-a-3, which the cluster document reserves" in violations(change)


def test_the_node_exists() -> None:
    def change(spec: Any) -> None:
        spec["instances"][0]["node"] = "gone"

    assert "generator-0 is on node gone, which the cluster does not have" in violations(change)


def test_the_gpu_exists() -> None:
    def change(spec: Any) -> None:
        spec["instances"][0]["gpus"] = ["GPU-gone"]

    assert "generator-0 is on GPU-gone, which node a does not have" in violations(change)


def test_the_product_is_the_planned_one() -> None:
    def change(spec: Any) -> None:
        spec["llms"][0]["product"] = "NVIDIA-L40S"

    assert "generator-0 is on a NVIDIA-H100-80GB-HBM3, its LLM generator was planned for NVIDIA-L40S" in violations(
        change
    )


def test_an_instance_has_the_share_of_its_llm() -> None:
    def change(spec: Any) -> None:
        spec["instances"][0]["share"] = 0.4

    assert "generator-0 has share 0.4, its LLM generator has 0.5" in violations(change)


def test_whole_gpu_sharing_has_only_whole_shares_and_single_tenants() -> None:
    def change(spec: Any) -> None:
        spec["sharing"] = "dra-exclusive"

    found = violations(change, sharing="dra-exclusive")
    assert "generator-0 has share 0.5; dra-exclusive hands out whole GPUs only" in found
    assert "generator-0, reranker-0 share GPU-a-2; dra-exclusive allows one instance per GPU" in found


def test_every_instance_serves_an_llm_of_the_plan() -> None:
    def change(spec: Any) -> None:
        spec["instances"][0]["llm"] = "stranger"

    found = violations(change)
    assert "1 instance(s) serve stranger, which is not an LLM of the plan" in found
    assert "LLM generator has 0 instance(s), the plan says replicas: 1" in found


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_are_what_the_plan_says(replicas: int) -> None:
    def change(spec: Any) -> None:
        spec["llms"][0]["replicas"] = replicas

    assert f"LLM generator has 1 instance(s), the plan says replicas: {replicas}" in violations(change)


def test_names_are_unique() -> None:
    def change(spec: Any) -> None:
        spec["instances"][1]["name"] = "generator-0"
        spec["llms"][3]["name"] = "judge"

    found = violations(change)
    assert "2 instances have the name generator-0" in found
    assert "2 LLMs have the name judge" in found


def test_no_instance_takes_the_gateways_name() -> None:
    def change(spec: Any) -> None:
        spec["instances"][0]["name"] = "gateway"

    assert "an instance has the name gateway" in violations(change)


def test_plan_and_cluster_belong_together() -> None:
    def change(spec: Any) -> None:
        spec |= {"cluster": "other", "sharing": "dra-exclusive"}

    found = violations(change)
    assert "the plan is for cluster other, not for prod" in found
    assert "the plan is for sharing by dra-exclusive, the cluster shares by dra-mps" in found


def test_kubernetes_is_new_enough_for_claims() -> None:
    old = cluster().model_copy(update={"spec": cluster().spec.model_copy(update={"kubernetes": "1.33"})})
    with pytest.raises(UnsafePlan, match=r"runs Kubernetes 1\.33; ResourceClaims need 1\.34"):
        check(plan(), old)


def test_all_violations_are_listed_at_once_and_nothing_is_rendered() -> None:
    values = plan_values()
    values["spec"]["instances"][0] |= {"wave": 1, "share": 0.9}
    with pytest.raises(UnsafePlan) as caught:
        render(plan(values), cluster(), project())
    assert len(caught.value.violations) == 3
    assert str(caught.value).count("\n  - ") == 3
