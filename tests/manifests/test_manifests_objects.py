"""What a plan becomes: objects that every supported Kubernetes accepts, and what is in them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import kubernetes_schemas
from tests.manifests.manifest_values import cluster, gpu, llm, plan, plan_values, project, with_pod_template

from scepsy.documents import Plan, Project
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.manifests import BadPodTemplate, BodyTooLarge, render

EVERYTHING = {
    "podMonitor": True,
    "engine": {
        "token": {"name": "hub", "key": "token"},
        "cache": {"claimName": "models"},
        "priorityClass": "inference",
    },
}
SHARED = Path(__file__).resolve().parents[3] / "shared"


def objects(p: Plan | None = None, settings: Project | None = None, **spec: Any) -> dict[str, Any]:
    files = render(p or plan(), cluster(**spec), settings or project())
    return {name.removesuffix(".yaml"): parse(SourceFile(name, data))[0].root.plain() for name, data in files.items()}


def pod(found: dict[str, Any], instance: str = "generator-0") -> dict[str, Any]:
    spec: dict[str, Any] = found[f"deployment-{instance}"]["spec"]["template"]["spec"]
    return spec


def container(found: dict[str, Any], instance: str = "generator-0") -> dict[str, Any]:
    return dict(pod(found, instance)["containers"][0])


def env(found: dict[str, Any], instance: str = "generator-0") -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container(found, instance)["env"]}


def claim_of(found: dict[str, Any], instance: str) -> dict[str, Any]:
    return dict(found["resourceclaim-" + pod(found, instance)["resourceClaims"][0]["resourceClaimName"]])


# ---- all objects


def test_one_object_per_file_named_by_kind_and_name() -> None:
    found = objects(settings=project(podMonitor=True))
    assert all(key == f"{item['kind'].lower()}-{item['metadata']['name']}" for key, item in found.items())
    assert {re.sub(r"-[0-9a-f]{10}$", "-#", key) for key in found} == {
        "configmap-gateway-#",
        *("deployment-coder-0", "deployment-gateway", "deployment-generator-0"),
        *("deployment-judge-0", "deployment-reranker-0"),
        *("poddisruptionbudget-gateway", "poddisruptionbudget-llm-coder", "poddisruptionbudget-llm-generator"),
        *("poddisruptionbudget-llm-judge", "poddisruptionbudget-llm-reranker"),
        *("podmonitor-engines", "podmonitor-gateway", "podmonitor-gateway-workflows"),
        *("resourceclaim-judge-0-#", "resourceclaim-shared-#"),
        *("service-engine-coder-0", "service-engine-generator-0", "service-engine-judge-0"),
        *("service-engine-reranker-0", "service-gateway"),
        *("service-llm-coder", "service-llm-generator", "service-llm-judge", "service-llm-reranker"),
    }


def test_the_same_plan_gives_the_same_bytes_in_the_same_order() -> None:
    first, second = render(plan(), cluster(), project()), render(plan(), cluster(), project())
    assert list(first.items()) == list(second.items())
    assert list(first) == sorted(first)


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36", "1.37"])
@pytest.mark.parametrize("settings", [project(), project(**EVERYTHING)], ids=["plain", "everything"])
def test_kubernetes_accepts_every_object(version: str, settings: Project) -> None:
    for key, item in objects(settings=settings, kubernetes=version).items():
        if not key.startswith("podmonitor-"):
            kubernetes_schemas.validate(item, version)


def test_the_prometheus_operator_accepts_pod_monitors() -> None:
    path = SHARED / "crds" / "podmonitor.schema.json"
    if not path.is_file():
        pytest.skip(f"no schema of PodMonitor at {path}")
    schema = closed(json.loads(path.read_text()))
    for key, item in objects(settings=project(podMonitor=True)).items():
        if key.startswith("podmonitor-"):
            jsonschema.validate(item, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(item | {"spec": {"typo": 1}}, schema)


def closed(schema: Any) -> Any:
    """A CRD's schema accepts unknown fields; this one does not."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if "properties" in schema and "apiVersion" in schema["properties"]:
            schema["properties"]["metadata"] = {"type": "object"}
    if isinstance(schema, list):
        schema = [closed(value) for value in schema]
    return schema


def test_every_object_names_its_namespace_and_owner_and_is_no_secret() -> None:
    for item in objects(settings=project(**EVERYTHING)).values():
        assert item["metadata"]["namespace"] == "models"
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "scepsy"
        assert "argocd.argoproj.io/tracking-id" not in item["metadata"]["annotations"]
        assert item["kind"] != "Secret"


def test_only_instances_wait_for_a_sync_wave() -> None:
    waves = {k: o["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for k, o in objects().items()}
    assert {key for key, wave in waves.items() if wave != "0"} == {"deployment-reranker-0"}
    assert waves["deployment-reranker-0"] == "1"


def test_selectors_select_what_they_are_for() -> None:
    found = objects(settings=project(podMonitor=True))
    pods = {
        key.removeprefix("deployment-"): item["spec"]["template"]["metadata"]["labels"]
        for key, item in found.items()
        if key.startswith("deployment-")
    }

    def selected(key: str) -> set[str]:
        selector = found[key]["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        return {name for name, labels in pods.items() if wanted <= labels.items()}

    assert selected("service-gateway") == selected("poddisruptionbudget-gateway") == {"gateway"}
    assert selected("podmonitor-gateway") == selected("deployment-gateway") == {"gateway"}
    assert selected("service-llm-judge") == selected("poddisruptionbudget-llm-judge") == {"judge-0"}
    assert selected("service-engine-coder-0") == selected("deployment-coder-0") == {"coder-0"}
    assert selected("podmonitor-engines") == set(pods) - {"gateway"}


def test_a_drain_is_never_blocked_by_a_single_replica() -> None:
    found = {key: item["spec"] for key, item in objects().items() if key.startswith("poddisruptionbudget-")}
    assert {key.split("-")[-1].removesuffix(".yaml"): spec["minAvailable"] for key, spec in found.items()} == {
        "coder": 0, "generator": 0, "judge": 0, "reranker": 0, "gateway": 1,
    }  # fmt: skip


# ---- claims


def test_instances_that_share_gpus_share_one_claim_with_mps_and_no_defaults() -> None:
    found = objects()
    claim = claim_of(found, "generator-0")
    assert claim == claim_of(found, "reranker-0")
    assert claim["spec"]["devices"] == {
        "requests": [
            {
                "name": "gpus",
                "exactly": {
                    "deviceClassName": "gpu.nvidia.com",
                    "allocationMode": "ExactCount",
                    "count": 1,
                    "selectors": [
                        {"cel": {"expression": 'device.attributes["gpu.nvidia.com"].uuid == "GPU-a-2"'}},
                    ],
                },
            }
        ],
        "config": [
            {
                "requests": ["gpus"],
                "opaque": {
                    "driver": "gpu.nvidia.com",
                    "parameters": {
                        "apiVersion": "resource.nvidia.com/v1beta1",
                        "kind": "GpuConfig",
                        "sharing": {"strategy": "MPS"},
                    },
                },
            }
        ],
    }


def test_whole_gpus_are_claimed_exclusively_also_where_mps_is_available() -> None:
    devices = claim_of(objects(), "judge-0")["spec"]["devices"]
    assert "config" not in devices
    request = devices["requests"][0]["exactly"]
    assert request["count"] == 2
    expression = 'device.attributes["gpu.nvidia.com"].uuid in ["GPU-a-0", "GPU-a-1"]'
    assert request["selectors"] == [{"cel": {"expression": expression}}]


def test_claims_are_pruned_last() -> None:
    for key, item in objects().items():
        if key.startswith("resourceclaim-"):
            assert item["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "PruneLast=true"


def test_a_claim_keeps_its_name_as_long_as_its_content_and_no_longer() -> None:
    values = plan_values()
    values["spec"]["instances"][2]["wave"] = 5
    values["spec"]["instances"][3]["gpus"].reverse()
    names = {key for key in objects() if key.startswith("resourceclaim-")}
    assert {key for key in objects(plan(values)) if key.startswith("resourceclaim-")} == names
    values["spec"]["instances"][2] |= {"gpus": [gpu("a", 1)]}
    values["spec"]["llms"][2]["tp"] = 1
    changed = {key for key in objects(plan(values)) if key.startswith("resourceclaim-")}
    assert len(changed - names) == len(names - changed) == 1


def test_another_instance_on_the_same_whole_gpus_has_another_claim() -> None:
    """With the same one, its pod would start beside the one that has still to leave."""
    values = plan_values()
    values["spec"]["instances"][2]["name"] = "judge-1"
    before = pod(objects(), "judge-0")["resourceClaims"]
    assert pod(objects(plan(values)), "judge-1")["resourceClaims"] != before


def test_a_container_lists_its_claim_once() -> None:
    for instance in ("generator-0", "judge-0"):
        assert container(objects(), instance)["resources"]["claims"] == [{"name": "gpus"}]
        assert [claim["name"] for claim in pod(objects(), instance)["resourceClaims"]] == ["gpus"]


# ---- engines


def test_the_command_line_is_the_planned_shape() -> None:
    item = container(objects(), "judge-0")
    assert item["command"] == ["vllm", "serve"]
    assert item["args"] == [
        "Qwen/judge",
        "--served-model-name=judge",
        "--revision=abc123",
        "--tokenizer-revision=abc123",
        "--port=8000",
        "--tensor-parallel-size=2",
        "--max-model-len=8192",
        "--max-num-seqs=64",
        f"--kv-cache-memory-bytes={20 << 30}",
        "--gpu-memory-utilization=0.975",  # (79 - 1) / 80
        "--shutdown-timeout=120",
    ]


def test_every_flag_is_one_of_vllms() -> None:
    path = SHARED / "vllm" / "serve_help.txt"
    if not path.is_file():
        pytest.skip(f"no help text of vllm serve at {path}")
    flags = set(re.findall(r"--[a-z][-a-z0-9]+", path.read_text()))
    used = {argument.split("=")[0] for argument in container(objects())["args"][1:]}
    assert used <= flags
    assert len(used) >= 10


def test_a_model_without_a_pinned_revision_names_none() -> None:
    values = plan_values()
    del values["spec"]["llms"][0]["revision"]
    assert not [a for a in container(objects(plan(values)))["args"] if "revision" in a]


def test_fractions_are_limited_per_container() -> None:
    found = objects()
    assert env(found, "reranker-0")["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "30"
    assert env(found, "reranker-0")["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"0={23 * 1024}M"
    assert env(found, "coder-0")["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"0={39 * 1024}M,1={39 * 1024}M"
    assert not [name for name in env(found, "judge-0") if name.startswith("CUDA_MPS")]


def test_an_engine_starts_although_its_neighbours_hold_their_part() -> None:
    """It refuses when less is free than utilization x card; under MPS its own limit bounds what is free."""
    [flag] = [a for a in container(objects(), "reranker-0")["args"] if a.startswith("--gpu-memory-utilization=")]
    assert float(flag.split("=")[1]) * 80 <= 23 - 1 < (float(flag.split("=")[1]) + 0.001) * 80


def test_shared_memory_is_mounted_for_tensor_parallelism_but_not_over_that_of_mps() -> None:
    found = objects()
    shm = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}
    assert shm in pod(found, "judge-0")["volumes"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in container(found, "judge-0")["volumeMounts"]
    for instance in ("generator-0", "coder-0"):
        assert "/dev/shm" not in [mount["mountPath"] for mount in container(found, instance)["volumeMounts"]]


def test_an_instance_is_pinned_to_its_node_through_the_scheduler_and_never_surges() -> None:
    found = objects()
    assert pod(found, "coder-0")["nodeSelector"] == {"kubernetes.io/hostname": "b"}
    assert "nodeName" not in pod(found, "coder-0")
    assert found["deployment-coder-0"]["spec"]["replicas"] == 1
    assert found["deployment-coder-0"]["spec"]["strategy"] == {"type": "Recreate"}


def test_all_co_tenants_run_as_one_user_without_privileges() -> None:
    found = objects()
    users = set()
    for key in found:
        if key.startswith("deployment-"):
            spec = pod(found, key.removeprefix("deployment-"))
            security, own = spec["securityContext"], spec["containers"][0]["securityContext"]
            assert spec["automountServiceAccountToken"] is False
            assert security["runAsNonRoot"] is True
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert own["readOnlyRootFilesystem"] is (key == "deployment-gateway")
            if key != "deployment-gateway":
                users.add(security["runAsUser"])
    assert len(users) == 1


def test_home_and_model_cache_are_writable() -> None:
    found = objects()
    mounts = {mount["mountPath"]: mount["name"] for mount in container(found)["volumeMounts"]}
    assert {env(found)["HOME"], env(found)["HF_HOME"]} <= set(mounts)
    assert {"name": "models", "emptyDir": {}} in pod(found)["volumes"]
    limited = objects(settings=project(engine={"cache": {"sizeLimit": "200Gi"}}))
    assert {"name": "models", "emptyDir": {"sizeLimit": "200Gi"}} in pod(limited)["volumes"]
    claimed = objects(settings=project(**EVERYTHING))
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "models"}} in pod(claimed)["volumes"]


def test_the_hubs_token_comes_from_a_secret_only() -> None:
    assert env(objects(settings=project(**EVERYTHING)))["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    leaked = objects(with_pod_template(env={"HF_TOKEN": "hf_leak", "HUGGING_FACE_HUB_TOKEN": "hf_leak"}))
    assert "hf_leak" not in json.dumps(leaked)


def test_nothing_is_reported_to_anyone() -> None:
    assert {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}.items() <= env(
        objects()
    ).items()


def test_a_large_model_gets_the_time_to_load() -> None:
    def seconds(instance: str) -> int:
        probe = container(objects(), instance)["startupProbe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])

    assert seconds("reranker-0") >= 300 + 2048 / 50
    assert seconds("judge-0") >= 300 + 140 * 1024 / 50
    deadline = objects()["deployment-judge-0"]["spec"]["progressDeadlineSeconds"]
    assert deadline > seconds("judge-0")


def test_a_stopping_pod_has_the_time_it_needs() -> None:
    for instance in ("generator-0", "gateway"):
        spec = pod(objects(), instance)
        sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep == 15
        drain = 120 if instance == "generator-0" else 600
        assert spec["terminationGracePeriodSeconds"] >= sleep + drain


def test_the_planned_image_runs() -> None:
    assert container(objects())["image"].endswith("@sha256:" + "0" * 64)


def test_long_names_stay_names() -> None:
    values = plan_values()
    long = "x" * 40
    values["spec"]["llms"][0] = llm(long)
    values["spec"]["instances"][0] |= {"llm": long, "name": long + "-" + "y" * 22}
    found = objects(plan(values))
    assert max(len(item["metadata"]["name"]) for key, item in found.items() if key.startswith("service-")) == 63
    for item in found.values():
        kubernetes_schemas.validate(item, "1.36")


# ---- what a podTemplate adds


def test_a_pod_template_adds() -> None:
    toleration = {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoExecute", "tolerationSeconds": 60}
    found = objects(
        with_pod_template(
            annotations={"example.com/owner": "ml"},
            labels={"team": "ml"},
            nodeSelector={"zone": "eu-1"},
            tolerations=[toleration],
            env={"VLLM_LOGGING_LEVEL": "DEBUG", "A": "$(HOME) $x $$"},
        )
    )
    template = found["deployment-generator-0"]["spec"]["template"]
    assert template["metadata"]["annotations"] == {"example.com/owner": "ml"}
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["spec"]["nodeSelector"] == {"zone": "eu-1", "kubernetes.io/hostname": "a"}
    gpus = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert template["spec"]["tolerations"] == [gpus, toleration]
    assert env(found)["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert env(found)["A"] == "$$(HOME) $$x $$$$", "Kubernetes expands $(NAME), and reads $$ as $"
    assert "team" not in found["deployment-reranker-0"]["spec"]["template"]["metadata"]["labels"]


def test_a_pod_template_replaces_nothing_of_scepsys() -> None:
    mine = {
        "labels": {"scepsy.dev/instance": "judge-0", "app.kubernetes.io/part-of": "me"},
        "annotations": {"argocd.argoproj.io/hook": "PreSync"},
        "nodeSelector": {"kubernetes.io/hostname": "b"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "env": {
            "HOME": "/root",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "100",
            "CUDA_VISIBLE_DEVICES": "7",
            "NVIDIA_VISIBLE_DEVICES": "all",
            "VLLM_NO_USAGE_STATS": "0",
        },
    }
    assert objects(with_pod_template(**mine)) == objects()


@pytest.mark.parametrize(
    ("mine", "problem"),
    [
        ({"labels": {"a b": "c"}}, "labels: 'a b' is not a label key"),
        ({"labels": {"a": "b c"}}, "labels: 'b c' is not a label value"),
        ({"nodeSelector": {"a": "x" * 64}}, "is not a label value"),
        ({"annotations": {"a/b/c": ""}}, "annotations: 'a/b/c' is not a key"),
        ({"env": {"1A": ""}}, "env: '1A' is not a name"),
        ({"tolerations": [{"effekt": "NoSchedule"}]}, "tolerations: 'effekt'"),
        ({"tolerations": [{"value": {"a": 1}}]}, "tolerations: 'value'"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_here(mine: Any, problem: str) -> None:
    with pytest.raises(BadPodTemplate) as caught:
        objects(with_pod_template(**mine))
    assert problem in str(caught.value)


BASE = objects()
TEXT = st.text(max_size=30) | st.sampled_from(
    [
        *("\n- evil: true", '"', "'", '"}\n---\nkind: Secret', "{{ 7*7 }}", "{% raw %}", "*a", "&a x", "!!python/x"),
        *("null", "yes", "1e3", "0x1f", "12:30", "~", "<<", "# no", "a: b", "\\", "\\n", "\x00", "\x7f", "\x85"),
        *("\U0001f600", "\u2028", "\ufeff", "\ufffe", " ", "\t", "...", "---", "=", "%", "@", "`", "|", ">", "?", "- "),
    ]
)


@settings(max_examples=60, deadline=None)
@given(env=st.dictionaries(st.from_regex(r"X_[A-Za-z_]{0,8}", fullmatch=True), TEXT, min_size=1, max_size=3), note=TEXT)
def test_no_text_of_a_pod_template_leaves_its_place(env: dict[str, str], note: str) -> None:
    found = objects(with_pod_template(env=env, annotations={"example.com/note": note}))
    expected = copy.deepcopy(BASE)
    template = expected["deployment-generator-0"]["spec"]["template"]
    template["metadata"]["annotations"] = {"example.com/note": note}
    template["spec"]["containers"][0]["env"] += [
        {"name": key, "value": text.replace("$", "$$")} for key, text in sorted(env.items())
    ]
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(field=st.sampled_from(["env", "annotations", "labels", "nodeSelector"]), key=TEXT, value=TEXT)
def test_a_hostile_key_is_refused_or_stays_a_key(field: str, key: str, value: str) -> None:
    try:
        found = objects(with_pod_template(**{field: {key: value}}))
    except BadPodTemplate:
        return
    assert found.keys() == BASE.keys()
    assert {k for k in found if found[k] != BASE[k]} <= {"deployment-generator-0"}
    assert repr(key) in repr(found) or found == BASE


# ---- the gateway


def test_a_gateways_restart_leaves_no_gap() -> None:
    found = objects(settings=project(gateway={"replicas": 3}))
    spec = found["deployment-gateway"]["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


def test_the_gateway_runs_its_configuration_and_no_master() -> None:
    found = objects()
    [key] = [key for key in found if key.startswith("configmap-")]
    assert found[key]["immutable"] is True
    assert pod(found, "gateway")["volumes"][0]["configMap"]["name"] == found[key]["metadata"]["name"]
    assert container(found, "gateway")["command"] == ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]


def test_a_changed_configuration_rolls_the_gateway() -> None:
    values = plan_values()
    values["spec"]["llms"][0]["maxNumSeqs"] = 65
    before, after = (container_map(objects()), container_map(objects(plan(values))))
    assert before != after


def container_map(found: dict[str, Any]) -> str:
    return str(pod(found, "gateway")["volumes"][0]["configMap"]["name"])


def test_clients_find_one_endpoint_on_port_80() -> None:
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in objects()["service-gateway"]["spec"]["ports"]}
    assert ports == {"http": (80, "http"), "metrics": (8404, "metrics")}


def test_the_gateways_memory_holds_two_full_buffers_per_connection() -> None:
    found = objects(settings=project(gateway={"maxBody": "1Mi"}))
    [config] = [item["data"]["haproxy.cfg"] for key, item in found.items() if key.startswith("configmap-")]
    buffer = int(re.search(r"tune\.bufsize (\d+)", config)[1])  # type: ignore[index]
    connections = int(re.search(r"^    maxconn (\d+)", config.partition("frontend openai")[2], re.M)[1])  # type: ignore[index]
    limit = container(found, "gateway")["resources"]["limits"]["memory"]
    assert buffer >= 1024 * 1024
    assert connections >= 2 * 4 * 64
    assert int(limit.removesuffix("Mi")) * 1024 * 1024 >= 2 * buffer * connections


def test_a_body_that_haproxy_cannot_buffer_is_refused() -> None:
    with pytest.raises(BodyTooLarge, match="HAProxy buffers at most"):
        objects(settings=project(gateway={"maxBody": "1Gi"}))
