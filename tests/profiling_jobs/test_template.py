"""The WorkflowTemplate of the profiling jobs: valid for every supported Argo Workflows, and no more open than it must be."""

from __future__ import annotations

import copy
import importlib
import json
import re
from typing import Any

import jsonschema
import pytest

from scepsy.cli.profile.run import command as profile_run
from tests.profiling_jobs.argo_schemas import needs_crds, validate
from tests.profiling_jobs.sweep_workflow import TEMPLATE, Object, claim, parts, point, template, workflow

POINTS = [point(1, 10, "sweep-one"), point(2, 5, "sweep-two", shm="2Gi", resume="packed")]
CLAIMS = {"sweep-one": ["GPU-1"], "sweep-two": ["GPU-2", "GPU-3"]}
EXAMPLE = workflow("sweep", "scepsy-profiling", POINTS, CLAIMS)


def measure() -> Object:
    return parts()["measure"]


def container() -> Object:
    return dict(measure()["container"])


# ---- validity


@needs_crds
@pytest.mark.parametrize(("kind", "item"), [("WorkflowTemplate", template()), ("Workflow", EXAMPLE)])
def test_the_crds_know_every_field(kind: str, item: Object) -> None:
    validate(item, kind)


@needs_crds
@pytest.mark.parametrize(
    "path",
    [
        ("spec", "typo"),
        ("spec", "templates", 3, "typo"),
        ("spec", "templates", 3, "container", "typo"),
        ("spec", "templates", 3, "synchronization", "semaphore"),
        ("spec", "templates", 3, "retryStrategy", "typo"),
    ],
)
def test_a_typo_would_be_found(path: tuple[str | int, ...]) -> None:
    item: Any = template()
    found = item
    for step in path[:-1]:
        found = found[step]
    found[path[-1]] = {}
    with pytest.raises(jsonschema.ValidationError):
        validate(item, "WorkflowTemplate")


@pytest.mark.parametrize(("kind", "item"), [("WorkflowTemplate", template()), ("Workflow", EXAMPLE)])
def test_the_models_of_the_python_client_know_every_field(kind: str, item: Object) -> None:
    argo = pytest.importorskip("argo_workflows", reason="the package argo-workflows is not installed")
    models = importlib.import_module("argo_workflows.models")
    convert = importlib.import_module("argo_workflows.model_utils").validate_and_convert_types
    model = getattr(models, f"IoArgoprojWorkflowV1alpha1{kind}")
    configuration = argo.Configuration()
    configuration.discard_unknown_keys = False
    made = convert(copy.deepcopy(item), (model,), ["item"], True, True, configuration=configuration)
    assert unknown(made) == []


def unknown(found: Any, where: str = "") -> list[str]:
    """Return the fields that a model keeps though it does not declare them."""
    if isinstance(found, list):
        return [name for index, value in enumerate(found) for name in unknown(value, f"{where}[{index}]")]
    if not hasattr(found, "_data_store"):
        return []
    known = set(getattr(found, "openapi_types", {}))
    fields = [f"{where}.{key}" for key in found._data_store if known and key not in known]
    return fields + [name for key, value in found._data_store.items() for name in unknown(value, f"{where}.{key}")]


def test_argo_3_6_to_4_know_every_form_that_is_used() -> None:
    text = json.dumps(template())
    # Gone in 4.0: the singular forms. Not in 3.6: a claim or pod resources as fields of a template.
    for form in ('"semaphore"', '"mutex"', '"schedule"', '"podPriority"', '"podResources"', '"database"'):
        assert form not in text
    assert not any("resourceClaims" in part for part in template()["spec"]["templates"])


# ---- parameters


def tags() -> list[str]:
    """Return what stands between {{ and }} anywhere in the template."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.extend(match.strip() for match in re.findall(r"\{\{(.*?)\}\}", value, re.DOTALL))
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(template())
    return found


def used(kind: str, tag: str) -> set[str]:
    names = re.findall(rf"{kind}\.parameters\.([a-z-]+)|{kind}\.parameters\['([a-z-]+)'\]", tag)
    return {plain or quoted for plain, quoted in names}


def test_every_argument_is_used_and_every_used_one_is_declared() -> None:
    declared = {item["name"] for item in template()["spec"]["arguments"]["parameters"]}
    assert set().union(*(used("workflow", tag) for tag in tags())) == declared
    assert {item["name"] for item in EXAMPLE["spec"]["arguments"]["parameters"]} == declared
    # No default: what is forgotten is an error, not a guess.
    assert all(set(item) == {"name"} for item in template()["spec"]["arguments"]["parameters"])


@pytest.mark.parametrize("name", ["claim", "measure"])
def test_every_input_is_given_and_every_given_one_is_an_input(name: str) -> None:
    part = parts()[name]
    declared = {item["name"] for item in part["inputs"]["parameters"]}
    [step] = [step for group in parts()["sweep"]["steps"] for step in group if step["name"] == name]
    assert {item["name"] for item in step["arguments"]["parameters"]} == declared
    text = " ".join(re.findall(r"\{\{(.*?)\}\}", "\n".join(strings(part)), re.DOTALL))
    assert used("inputs", text) <= declared
    if name == "measure":
        assert used("inputs", text) == declared


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_every_field_of_a_point_and_of_a_claim_is_used() -> None:
    taken = {a or b for a, b in re.findall(r"== item\)(?:\.([a-z]+)|\['([a-z-]+)'\])", "\n".join(strings(template())))}
    # `name` is what a point is found by; journals travel with the inputs.
    assert taken | {"name", "resume"} == {*POINTS[1], "manifest"}


# ---- nothing becomes code


def test_the_command_is_ours_and_no_shell() -> None:
    assert container()["command"] == ["scepsy", "profile", "run", "--serve", "--job", "/scepsy"]
    # An option and its value are one word, so that no value is taken for an option.
    assert all(re.fullmatch(r"--[a-z-]+=\{\{[a-z.-]+\}\}", word) for word in container()["args"])
    assert [word.partition("=")[0] for word in container()["args"]] == [
        "--model", "--revision", "--llm", "--product", "--memory", "--sharing", "--tp", "--share", "--neighbours",
        "--max-num-seqs", "--max-model-len", "--budget", "--trace-digest",
    ]  # fmt: skip
    assert not any("script" in part for part in template()["spec"]["templates"])


def test_the_runner_knows_every_option() -> None:
    known = {name for parameter in profile_run.params for name in parameter.opts}
    given = [*container()["command"][3:], *container()["args"]]
    assert {word.partition("=")[0] for word in given if word.startswith("--")} <= known


def test_what_is_parsed_is_made_by_to_json() -> None:
    parsed = [measure()["podSpecPatch"], parts()["inputs"]["resource"]["manifest"]]
    [step] = [step for step in parts()["sweep"]["steps"][0] if step["name"] == "claim"]
    parsed += [item["value"] for item in step["arguments"]["parameters"] if item["name"] == "manifest"]
    for text in parsed:
        values = [tag for tag in re.findall(r"\{\{(.*?)\}\}", text, re.DOTALL) if "parameters" in tag]
        assert values
        assert all(tag.startswith("=toJson(") for tag in values)
    # The Workflow's name is a Kubernetes name already.
    assert re.findall(r"\{\{([^=].*?)\}\}", "\n".join(parsed)) == ["workflow.name"]


def test_resource_templates_apply_and_nothing_else() -> None:
    for name in ("inputs", "claim"):
        resource = parts()[name]["resource"]
        assert resource["action"] == "apply"
        assert resource["setOwnerReference"] is True
        # Never over files of another owner.
        assert resource["flags"] == ["--server-side", "--field-manager=scepsy"]


# ---- what a pod may


def test_the_security_context_is_restricted() -> None:
    assert template()["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 2000,
        "runAsGroup": 2000,
        "fsGroup": 2000,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"drop": ["ALL"]},
    }
    for volume in measure()["volumes"]:
        assert set(volume) - {"name"} <= {"configMap", "emptyDir"}


def test_the_measuring_pod_mounts_no_token_and_the_others_run_argo_s_program_alone() -> None:
    assert measure()["automountServiceAccountToken"] is False
    assert measure()["executor"] == {"serviceAccountName": "scepsy-profile"}
    assert "serviceAccountName" not in measure()
    assert template()["spec"]["serviceAccountName"] == "scepsy-profile"
    assert {name: part.get("serviceAccountName") for name, part in parts().items()} == {
        "sweep": None,
        "inputs": "scepsy-profile-inputs",
        "claim": "scepsy-profile-inputs",
        "measure": None,
    }


def test_the_environment_is_the_engines() -> None:
    env = {item["name"]: item.get("value", item.get("valueFrom")) for item in container()["env"]}
    assert env.pop("SCEPSY_IMAGE_DIGEST").startswith("{{=")
    assert env == {
        "HOME": "/home/vllm",
        "USER": "vllm",
        "HF_HOME": "/models",
        "HF_TOKEN": {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}},
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    mounts = {item["mountPath"]: item.get("readOnly", False) for item in container()["volumeMounts"]}
    assert mounts == {
        "/scepsy/in": True,
        "/scepsy/journal": False,
        "/scepsy/out": False,
        "/home/vllm": False,
        "/models": False,
    }
    assert {item["name"] for item in container()["volumeMounts"]} == {item["name"] for item in measure()["volumes"]}


# ---- how it ends


def test_everything_ends_some_day() -> None:
    spec = template()["spec"]
    assert spec["activeDeadlineSeconds"] == 3 * 86400
    assert spec["ttlStrategy"] == {"secondsAfterCompletion": 7 * 86400}
    assert spec["podGC"] == {"strategy": "OnPodSuccess", "deleteDelayDuration": "10m"}
    assert spec["parallelism"] == 8
    assert measure()["activeDeadlineSeconds"] == "{{workflow.parameters.deadline}}"
    for name in ("inputs", "claim", "measure"):
        assert "activeDeadlineSeconds" in parts()[name]
        assert parts()[name]["retryStrategy"]["limit"] == "2"


def test_points_wait_for_a_place_in_their_pool_one_by_one() -> None:
    [semaphore] = measure()["synchronization"]["semaphores"]
    assert semaphore == {"configMapKeyRef": {"name": "scepsy-profiling", "key": "{{workflow.parameters.pool}}"}}
    assert "synchronization" not in template()["spec"]


def test_outputs_are_there_even_when_nothing_was_written() -> None:
    assert measure()["outputs"]["parameters"] == [
        {"name": name, "valueFrom": {"path": f"/scepsy/out/{name}", "default": ""}}
        for name in ("outcome", "profile", "partial")
    ]


def test_a_failed_point_does_not_end_the_others() -> None:
    # Steps go on by default, and a Workflow with a failed step has failed; `continueOn` would make it a success.
    assert "dag" not in parts()["sweep"]
    assert "continueOn" not in TEMPLATE.read_text()
    assert "failFast" not in TEMPLATE.read_text()


def test_claims_of_the_example_are_what_the_template_takes_of_them() -> None:
    [given] = [item for item in EXAMPLE["spec"]["arguments"]["parameters"] if item["name"] == "claims"]
    first = json.loads(given["value"])[0]
    assert json.loads(first["manifest"])["spec"] == claim("sweep-one", ["GPU-1"])["spec"]
