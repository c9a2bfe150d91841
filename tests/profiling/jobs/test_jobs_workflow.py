"""A sweep becomes a Workflow: on GPUs that no instance uses, under a name that says what is measured, in the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests import kubernetes_schemas

from scepsy.demand.job_calls import JobCalls
from scepsy.documents import API_VERSION, Cluster, Plan, Project, emit
from scepsy.documents.cluster import ClusterSpec, Gpu, Node, Sharing
from scepsy.documents.compressed_text import pack
from scepsy.documents.model import Metadata
from scepsy.documents.project import EngineSettings, ProfilingSettings, ProjectSpec
from scepsy.errors import ScepsyError
from scepsy.performance import Mix
from scepsy.profiling.jobs.gpus import MOST_NAMED, allowed_gpus
from scepsy.profiling.jobs.workflow import Job, job_of, parsed_name, shape_of, workflow_of
from scepsy.profiling.planning.sweep import Missing, Shape, Sweep

PRODUCT = "NVIDIA-H100-80GB-HBM3"
GIB = 1 << 30
TEXT = '{"execution":"1","model":"generator","start":0.0,"end":1.0,"inputTokens":10,"outputTokens":5}\n'
CALLS = JobCalls(TEXT, pack(TEXT), "recorded", "sha256:" + "ab" * 32, 1, 12)


def cluster(*nodes: Node, sharing: Sharing = "dra-mps") -> Cluster:
    return Cluster(api_version=API_VERSION, kind="Cluster", metadata=Metadata(name="prod-eu"), spec=ClusterSpec(sharing=sharing, nodes=nodes))  # fmt: skip


def node(name: str = "a", gpus: int = 4, domains: Sequence[Sequence[int]] = ((0, 1, 2, 3),), reserved: Sequence[int] = (), memory: int = 80 * GIB) -> Node:  # fmt: skip
    return Node(
        name=name,
        product=PRODUCT,
        gpus=tuple(Gpu(uuid=f"GPU-{name}-{i}", memory=memory) for i in range(gpus)),
        nvlink_domains=tuple(tuple(d) for d in domains),
        reserved=tuple(reserved),
    )


def plan(*used: str) -> Plan:
    """A plan as far as jobs read it: instances on GPUs."""
    instances = [type("Instance", (), {"gpus": (uuid,)}) for uuid in used]
    return type("Plan", (), {"spec": type("Spec", (), {"instances": instances})})  # type: ignore[return-value]


def sweep(*shapes: Shape, **changes: Any) -> Sweep:
    made = Sweep(
        model="Qwen/Qwen3-8B",
        revision=None,
        product=PRODUCT,
        llm="generator",
        workflow="rag",
        mix=Mix(10, 5, 0),
        max_num_seqs=256,
        max_model_len=None,
        points=tuple(Missing(shape, "not profiled", 0.6) for shape in shapes or (Shape(1, 10),)),
        roles=(("rag", "generator"),),
        trace_digest=None,
    )
    return replace(made, **changes)


def project(**settings: Any) -> Project:
    profiling = ProfilingSettings(**{"image": "registry.example.com/scepsy-vllm:1", **settings})
    return Project(api_version=API_VERSION, kind="Project", metadata=Metadata(name="demo"), spec=ProjectSpec(engine=EngineSettings(version="0.24.0"), profiling=profiling))  # fmt: skip


def job(*shapes: Shape, on: Cluster | None = None, calls: JobCalls = CALLS, settings: dict[str, Any] | None = None, **changes: Any) -> Job:  # fmt: skip
    return job_of(sweep(*shapes, **changes), project(**settings or {}), on or cluster(node()), None, calls, 16 * GIB)


def parameters(workflow: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in workflow["spec"]["arguments"]["parameters"]}


# ------------------------------------------------------------------------------------------------------------- GPUs


def test_reserved_gpus_are_taken_even_where_others_are_free() -> None:
    there = cluster(node(reserved=[2]), node("b", reserved=[0, 3]))
    assert allowed_gpus(there, PRODUCT, 1, None).gpus == ("GPU-a-2", "GPU-b-0", "GPU-b-3")
    assert allowed_gpus(there, PRODUCT, 1, None).reserved


def test_without_reserved_ones_those_are_taken_that_no_instance_uses() -> None:
    allowed = allowed_gpus(cluster(node()), PRODUCT, 1, plan("GPU-a-0", "GPU-a-3"))
    assert (allowed.gpus, allowed.reserved) == (("GPU-a-1", "GPU-a-2"), False)


def test_a_group_stays_in_one_nvlink_domain_and_prefers_reserved_gpus() -> None:
    pairs = cluster(node(domains=[(0, 1), (2, 3)], reserved=[1, 2, 3]))
    assert allowed_gpus(pairs, PRODUCT, 2, None).gpus == ("GPU-a-2", "GPU-a-3")


def test_where_too_few_of_a_domain_are_reserved_unused_ones_of_it_are_added() -> None:
    there = cluster(node("a"), node("b", reserved=[1]))
    allowed = allowed_gpus(there, PRODUCT, 2, plan("GPU-b-0"))
    assert (allowed.gpus, allowed.reserved) == (("GPU-b-1", "GPU-b-2", "GPU-b-3"), False)


@pytest.mark.parametrize(("tp", "domains", "used", "message", "hint"), [
    (1, [(0, 1, 2, 3)], 4, f"no GPU {PRODUCT} may be used for profiling: none is reserved, and instances of the plan use all", "list them as `reserved`"),
    (4, [(0, 1, 2, 3)], 1, f"no 4 GPUs {PRODUCT} in one NVLink domain may be used for profiling", "list them as `reserved`"),
    (4, [(0, 1), (2, 3)], 0, f"no NVLink domain of cluster prod-eu has 4 GPUs {PRODUCT}; the largest has 2", "tensorParallel"),
])  # fmt: skip
def test_no_gpus_is_an_error_that_says_what_to_do(tp: int, domains: list[tuple[int, ...]], used: int, message: str, hint: str) -> None:  # fmt: skip
    with pytest.raises(ScepsyError) as error:
        allowed_gpus(cluster(node(domains=domains)), PRODUCT, tp, plan(*(f"GPU-a-{i}" for i in range(used))))
    assert message in error.value.message
    assert hint in error.value.hint


def test_a_claim_never_names_more_gpus_than_an_expression_holds() -> None:
    there = cluster(*(node(f"node-{n:04d}", gpus=8, domains=[range(8)]) for n in range(40)))
    allowed = allowed_gpus(there, PRODUCT, 1, None)
    assert len(allowed.gpus) == MOST_NAMED
    claims = json.loads(parameters(workflow_of(job(on=there)))["claims"])
    expression = json.loads(claims[0]["manifest"])["spec"]["spec"]["devices"]["requests"][0]["exactly"]["selectors"][0][
        "cel"
    ]["expression"]
    assert len(expression) < 10 * 1024


def test_shapes_for_which_there_are_no_gpus_now_are_left_out_with_the_reason() -> None:
    made = job_of(sweep(Shape(1, 10), Shape(4, 10)), project(), cluster(node()), plan("GPU-a-0"), CALLS)
    assert made.points == ("tp1-s10",)
    assert made.left_out[0][0] == Shape(4, 10)
    assert "no 4 GPUs" in made.left_out[0][1]


# --------------------------------------------------------------------------------------------------------- Workflow


def test_the_workflow_of_a_sweep() -> None:
    there = cluster(node(reserved=[0, 1]))
    workflow = workflow_of(job(Shape(1, 5), Shape(2, 10), on=there, revision="0123abc", max_model_len=4096))
    name = workflow["metadata"]["name"]
    assert len(name.removeprefix("profile-qwen3-8b-")) == 10
    digest = workflow["metadata"]["labels"]["scepsy.dev/sweep"]
    assert len(digest) == 10
    labels = {"app.kubernetes.io/part-of": "scepsy", "app.kubernetes.io/component": "profiling"}
    given = parameters(workflow)
    del workflow["spec"]["arguments"]
    assert json.loads(workflow["metadata"]["annotations"].pop("scepsy.dev/request")) == {
        "project": "demo", "cluster": "prod-eu", "model": "Qwen/Qwen3-8B", "revision": "0123abc", "product": PRODUCT, "llm": "generator", "workflow": "rag",
        "traceDigest": "sha256:" + "ab" * 32, "engine": "0.24.0", "calls": "recorded", "replayed": 1, "of": 12,
    }  # fmt: skip
    assert workflow == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "namespace": "scepsy-profiling", "labels": {**labels, "scepsy.dev/sweep": digest}, "annotations": {}},
        "spec": {"workflowTemplateRef": {"name": "scepsy-profile"}},
    }  # fmt: skip
    claims, points = json.loads(given.pop("claims")), json.loads(given.pop("points"))
    assert given == {
        "image": "registry.example.com/scepsy-vllm:1",
        "model": "Qwen/Qwen3-8B",
        "revision": "0123abc",
        "llm": "generator",
        "product": PRODUCT,
        "memory": "85899345920",
        "sharing": "dra-mps",
        "max-num-seqs": "256",
        "max-model-len": "4096",
        "budget": "1800s",
        "deadline": str(300 + 328 + 1800 + 900),
        "trace-digest": "sha256:" + "ab" * 32,
        "pool": PRODUCT,
        "calls": pack(TEXT),
    }
    assert points == [
        {"name": "tp1-s5", "tp": "1", "share": "0.5", "neighbours": "idle", "claim": f"{name}-tp1-s5", "cpu": "3", "host-memory": "6Gi", "resume": ""},
        {"name": "tp2-s10", "tp": "2", "share": "1.0", "neighbours": "idle", "claim": f"{name}-tp2-s10", "cpu": "4", "host-memory": "8Gi", "shm": "2Gi", "resume": ""},
    ]  # fmt: skip

    def manifest(claim: str, count: int, **more: Any) -> dict[str, Any]:
        expression = 'device.attributes["gpu.nvidia.com"].uuid in ["GPU-a-0", "GPU-a-1"]'
        exactly = {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": count, "selectors": [{"cel": {"expression": expression}}]}  # fmt: skip
        return {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": claim, "namespace": "scepsy-profiling", "labels": labels},
            "spec": {"spec": {"devices": {"requests": [{"name": "gpus", "exactly": exactly}], **more}}},
        }

    mps = {"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": {"strategy": "MPS"}}
    config = [{"requests": ["gpus"], "opaque": {"driver": "gpu.nvidia.com", "parameters": mps}}]
    assert [(claim["name"], json.loads(claim["manifest"])) for claim in claims] == [
        (f"{name}-tp1-s5", manifest(f"{name}-tp1-s5", 1, config=config)),
        (f"{name}-tp2-s10", manifest(f"{name}-tp2-s10", 2)),
    ]


@pytest.mark.parametrize(("sharing", "half"), [("dra-mps", ("busy", "4")), ("hami-dra", ("idle", "3"))])
def test_shares_of_a_gpu_have_busy_neighbours_where_that_is_set_and_can_be(sharing: Sharing, half: tuple[str, str]) -> None:  # fmt: skip
    made = job(Shape(1, 5), Shape(1, 10), on=cluster(node(), sharing=sharing), settings={"neighbours": "busy"})
    points = json.loads(parameters(workflow_of(made))["points"])
    # A neighbour has a separate core.
    assert [(point["neighbours"], point["cpu"]) for point in points] == [half, ("idle", "3")]


def test_under_hami_a_point_claims_a_part_of_each_of_its_gpus() -> None:
    there = cluster(node(memory=81 * GIB), sharing="hami-dra")
    claims = json.loads(parameters(workflow_of(job(Shape(1, 5), Shape(2, 10), on=there)))["claims"])
    requests = [json.loads(claim["manifest"])["spec"]["spec"]["devices"]["requests"] for claim in claims]
    parts = [
        [(r["name"], r["exactly"]["count"], r["exactly"]["capacity"]["requests"]) for r in request]
        for request in requests
    ]
    assert parts == [
        [("gpu-0", 1, {"cores": "50", "memory": "40Gi"})],
        [("gpu-0", 1, {"cores": "100", "memory": "80Gi"}), ("gpu-1", 1, {"cores": "100", "memory": "80Gi"})],
    ]
    named = [r["exactly"]["selectors"][0]["cel"]["expression"].partition("uuid ")[2] for r in requests[1]]
    assert named == ['== "GPU-a-0"', '== "GPU-a-1"']


@pytest.mark.parametrize("sharing", ["dra-exclusive", "dra-mps", "hami-dra"])
def test_claims_are_valid(sharing: Sharing) -> None:
    workflow = workflow_of(job(Shape(1, 5), Shape(1, 10), Shape(2, 10), on=cluster(node(), sharing=sharing)))
    for claim in json.loads(parameters(workflow)["claims"]):
        kubernetes_schemas.validate(json.loads(claim["manifest"]), "1.36")


def test_the_same_sweep_gives_the_same_bytes_and_the_same_name() -> None:
    assert emit(workflow_of(job())) == emit(workflow_of(job()))


@pytest.mark.parametrize("other", [
    job(model="Qwen/Qwen3-0.6B"),
    job(revision="0123abc"),
    job(llm="reranker"),
    job(max_num_seqs=8),
    job(max_model_len=4096),
    job(calls=replace(CALLS, text=TEXT * 2)),
    job(settings={"image": "registry.example.com/scepsy-vllm:2"}),
    job(settings={"budget": "10min"}),
    job(on=cluster(node(), sharing="hami-dra")),
    job(settings={"neighbours": "busy"}),
])  # fmt: skip
def test_whatever_decides_the_result_decides_the_name(other: Job) -> None:
    assert other.digest != job().digest
    assert other.name != job().name


@pytest.mark.parametrize("other", [job(Shape(1, 5)), job(Shape(1, 10), Shape(1, 5))])
def test_other_points_are_another_workflow_of_the_same_measurement(other: Job) -> None:
    assert other.digest == job().digest
    assert other.name != job().name


@pytest.mark.parametrize("same", [
    job(on=cluster(node(reserved=[3]))),
    job(workflow="other"),
    job(settings={"namespace": "elsewhere"}),
    job(settings={"neighbours": "idle"}),
])  # fmt: skip
def test_what_does_not_decide_the_result_does_not(same: Job) -> None:
    assert same.name == job().name


@pytest.mark.parametrize(("model", "slug"), [
    ("Qwen/Qwen3-0.6B", "qwen3-0-6b"),
    ("meta-llama/Llama-3.1-8B-Instruct", "llama-3-1-8b-instruct"),
    ("x" * 120, "x" * 36),
    ("org/--.--", "model"),
])  # fmt: skip
def test_names_fit_into_kubernetes(model: str, slug: str) -> None:
    name = workflow_of(job(model=model), attempt=999_999)["metadata"]["name"]
    assert name.startswith(f"profile-{slug}-")
    assert len(name) <= 63
    assert parsed_name(name) == (name.removesuffix("-r999999"), 999_999)


def test_another_attempt_measures_only_what_lacks_and_takes_journals_along() -> None:
    made = job(Shape(1, 10), Shape(1, 5), Shape(2, 10))
    workflow = workflow_of(made, 2, ["tp1-s5", "tp2-s10"], {"tp1-s5": "journal", "tp2-s10": "x" * 40_000})
    assert workflow["metadata"]["name"] == f"{made.name}-r2"
    assert workflow["metadata"]["labels"]["scepsy.dev/sweep"] == made.digest
    points = json.loads(parameters(workflow)["points"])
    # A journal that is too long for an object is left behind: that point starts from the beginning.
    assert [(point["name"], point["claim"], point["resume"]) for point in points] == [
        ("tp1-s5", f"{made.name}-r2-tp1-s5", "journal"),
        ("tp2-s10", f"{made.name}-r2-tp2-s10", ""),
    ]


def test_all_shapes_with_full_journals_stay_far_below_what_an_object_may_have() -> None:
    shapes = [Shape(tp, tenths) for tp in (1, 2, 4) for tenths in range(10, 0, -1)]
    there = cluster(*(node(f"node-with-a-long-name-{n}") for n in range(20)))
    full = replace(CALLS, packed="x" * 65_536)
    made = job(*shapes, on=there, calls=full)
    workflow = workflow_of(made, 2, None, dict.fromkeys(made.points, "y" * 20000))
    assert len(json.dumps(workflow)) < 400_000


def test_without_an_image_nothing_can_be_submitted() -> None:
    with pytest.raises(ScepsyError, match="no image is set for profiling jobs") as error:
        job_of(sweep(), project(image=None), cluster(node()), None, CALLS)
    assert "spec.profiling.image" in error.value.hint


@pytest.mark.parametrize("name", ["tp3-s10", "tp1-s0", "tp1-s11", "tp1", "TP1-S10", "tp1-s10\n", ""])
def test_names_that_are_no_points_are_reported(name: str) -> None:
    assert shape_of(name) is None
    assert shape_of("tp8-s3") == Shape(8, 3)
