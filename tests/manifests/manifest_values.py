"""A small cluster and a plan on it, as values that tests change one by one."""

from __future__ import annotations

import copy
from typing import Any

from scepsy.documents import Cluster, Plan, Project


def gpu(node: str, index: int) -> str:
    return f"GPU-{node}-{index}"


CLUSTER: dict[str, Any] = {
    "apiVersion": "scepsy.dev/v1alpha1",
    "kind": "Cluster",
    "metadata": {"name": "prod"},
    "spec": {
        "kubernetes": "1.36",
        "sharing": "dra-mps",
        "nodes": [
            {
                "name": name,
                "product": "NVIDIA-H100-80GB-HBM3",
                "gpus": [{"uuid": gpu(name, index), "memory": "80Gi"} for index in range(4)],
                "nvlinkDomains": [[0, 1], [2, 3]],
                "reserved": [3],
            }
            for name in ("a", "b")
        ],
    },
}


def llm(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "workflows": ["rag"],
        "model": f"Qwen/{name}",
        "revision": "abc123",
        "product": "NVIDIA-H100-80GB-HBM3",
        "tp": 1,
        "share": 0.5,
        "replicas": 1,
        "maxModelLen": 8192,
        "maxNumSeqs": 64,
        "memoryPerGpu": "39Gi",
        "kvCachePerGpu": "20Gi",
        "weights": "16Gi",
        "profile": {"name": name, "source": "measured"},
        "predicted": {"load": "4/s", "utilisation": 0.5},
        **changes,
    }


def instance(name: str, of: str, gpus: list[str], share: float = 0.5, wave: int = 0, node: str = "a") -> dict[str, Any]:
    return {"name": name, "llm": of, "node": node, "gpus": gpus, "share": share, "wave": wave}


def plan_values() -> dict[str, Any]:
    """A generator and a reranker share a GPU; a judge has two whole GPUs, a coder half of two."""
    pair, half_pair = [gpu("a", 0), gpu("a", 1)], [gpu("b", 0), gpu("b", 1)]
    return {
        "apiVersion": "scepsy.dev/v1alpha1",
        "kind": "Plan",
        "metadata": {"name": "prod"},
        "spec": {
            "compiler": "scepsy 0.1.0",
            "cluster": "prod",
            "namespace": "models",
            "sharing": "dra-mps",
            "engineImage": "vllm/vllm-openai:v0.24.0@sha256:" + "0" * 64,
            "workflows": [],
            "llms": [
                llm("generator"),
                llm("reranker", share=0.3, memoryPerGpu="23Gi", kvCachePerGpu="10Gi", weights="2Gi"),
                llm("judge", tp=2, share=1.0, memoryPerGpu="79Gi", weights="140Gi"),
                llm("coder", tp=2, share=0.5),
            ],
            "instances": [
                instance("generator-0", "generator", [gpu("a", 2)]),
                instance("reranker-0", "reranker", [gpu("a", 2)], 0.3, wave=1),
                instance("judge-0", "judge", pair, 1.0),
                instance("coder-0", "coder", half_pair, node="b"),
            ],
            "free": {"gpus": 1, "largestTensorParallel": 1, "reserved": 2},
            "proof": {
                "objective": "slowdown",
                "predictor": "sum",
                "lowerBound": 1.0,
                "unplacedBound": 1.0,
                "achieved": 1.0,
                "gap": 0.0,
                "candidates": 1,
            },
            "inputs": {},
        },
    }


def plan(values: dict[str, Any] | None = None) -> Plan:
    return Plan.model_validate(plan_values() if values is None else values)


def with_pod_template(**pod_template: Any) -> Plan:
    values = plan_values()
    values["spec"]["llms"][0]["podTemplate"] = pod_template
    return plan(values)


def cluster(**spec: Any) -> Cluster:
    values = copy.deepcopy(CLUSTER)
    values["spec"] |= spec
    return Cluster.model_validate(values)


def project(**spec: Any) -> Project:
    return Project.model_validate(
        {"apiVersion": "scepsy.dev/v1alpha1", "kind": "Project", "metadata": {"name": "p"}, "spec": spec}
    )
