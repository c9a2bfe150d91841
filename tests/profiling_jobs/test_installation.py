"""What `gitops/profiling` installs: who the jobs are, what they may, and the image that they run."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scepsy.documents.project import EngineSettings, ProfilingSettings
from scepsy.manifests.engine import USER
from tests.profiling_jobs.sweep_workflow import PRODUCT, ROOT, Object, parts, template

GITOPS = ROOT / "gitops"
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on the PATH")


def documents(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def named(kind: str) -> dict[str, Object]:
    found = [item for name in ("jobs", "submit") for item in documents(GITOPS / "profiling" / f"{name}.yaml")]
    return {item["metadata"]["name"]: item for item in found if item["kind"] == kind}


def rendered(folder: Path) -> dict[str, Object]:
    built = subprocess.run([str(KUBECTL), "kustomize", folder], check=True, capture_output=True, text=True)
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in yaml.safe_load_all(built.stdout)}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A copy of the example, for another namespace."""
    shutil.copytree(GITOPS, tmp_path / "gitops")
    shutil.copytree(ROOT / "profiling-jobs", tmp_path / "profiling-jobs")
    path = tmp_path / "gitops/profiling-example/environment.yaml"
    path.write_text(path.read_text().replace("namespace: scepsy-profiling", "namespace: elsewhere"))
    return path.parent


# ---- least privilege


def test_every_account_has_its_rules_and_no_more() -> None:
    results = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    assert {name: role["rules"] for name, role in named("Role").items()} == {
        "scepsy-profile": [results],
        "scepsy-profile-inputs": [
            results,
            {
                "apiGroups": ["resource.k8s.io"],
                "resources": ["resourceclaimtemplates"],
                "verbs": ["create", "patch"],
            },
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]},
        ],
        "scepsy-submit": [
            {
                "apiGroups": ["argoproj.io"],
                "resources": ["workflows"],
                "verbs": ["create", "get", "list", "watch"],
            },
            {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get"]},
        ],
    }


def test_every_account_has_its_own_role_and_nobody_else_has_one() -> None:
    accounts = {"scepsy-profile", "scepsy-profile-inputs", "scepsy-submit"}
    assert set(named("ServiceAccount")) == set(named("Role")) == set(named("RoleBinding")) == accounts
    for name, binding in named("RoleBinding").items():
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "namespace"}]


def test_only_the_account_of_argo_s_own_program_is_mounted() -> None:
    mounted = {name: item.get("automountServiceAccountToken", True) for name, item in named("ServiceAccount").items()}
    assert mounted == {"scepsy-profile": False, "scepsy-profile-inputs": True, "scepsy-submit": False}
    # Argo mounts this one, in its own containers; Kubernetes writes the token, so that there is none in Git.
    assert named("Secret") == {
        "scepsy-profile.service-account-token": {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "scepsy-profile.service-account-token",
                "namespace": "namespace",
                "annotations": {"kubernetes.io/service-account.name": "scepsy-profile"},
            },
            "type": "kubernetes.io/service-account-token",
        }
    }


def test_the_namespace_takes_restricted_pods_only() -> None:
    [namespace] = documents(GITOPS / "profiling/namespace.yaml")
    assert namespace["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }


# ---- values in one place


def test_the_example_fits_the_defaults_of_scepsy_yaml() -> None:
    environment, pools = documents(GITOPS / "profiling-example/environment.yaml")
    assert environment["data"]["namespace"] == ProfilingSettings().namespace
    [semaphore] = parts()["measure"]["synchronization"]["semaphores"]
    assert pools["metadata"]["name"] == semaphore["configMapKeyRef"]["name"]
    assert PRODUCT in pools["data"]
    assert all(re.fullmatch("[1-9][0-9]*", places) for places in pools["data"].values())


@needs_kubectl
def test_the_namespace_of_the_one_file_is_everywhere(environment: Path) -> None:
    found = rendered(environment)
    assert set(found) == {
        "Namespace/elsewhere",
        *(f"{kind}/{name}" for kind in ("ServiceAccount", "Role", "RoleBinding") for name in named("Role")),
        "Secret/scepsy-profile.service-account-token",
        "ConfigMap/scepsy-profiling",
        "WorkflowTemplate/scepsy-profile",
    }
    for key, item in found.items():
        assert key == "Namespace/elsewhere" or item["metadata"]["namespace"] == "elsewhere"
        assert all(subject["namespace"] == "elsewhere" for subject in item.get("subjects", []))
    made = found["WorkflowTemplate/scepsy-profile"]
    assert {**made, "metadata": template()["metadata"]} == template()


@needs_kubectl
@pytest.mark.parametrize("names", [("journal",), ("models",), ("journal", "models")])
def test_journals_and_models_outlive_pods_where_the_platform_team_wants_it(
    names: tuple[str, ...], environment: Path
) -> None:
    path = environment / "kustomization.yaml"
    for name in names:
        text = path.read_text()
        assert text.count(f"# - ../profiling-{name}") == 1
        path.write_text(text.replace(f"# - ../profiling-{name}", f"- ../profiling-{name}"))
    found = rendered(environment)
    volumes = {item["metadata"]["name"]: item for item in found.values() if item["kind"] == "PersistentVolumeClaim"}
    assert set(volumes) == {f"scepsy-profiling-{name}" for name in names}
    for name in names:
        volume = volumes[f"scepsy-profiling-{name}"]
        assert volume["metadata"]["namespace"] == "elsewhere"
        assert volume["spec"]["storageClassName"] == "shared-files"
        assert volume["spec"]["resources"]["requests"]["storage"] == {"journal": "1Gi", "models": "500Gi"}[name]
    # Nothing of the template changes but the volumes.
    measure = parts()["measure"]
    for index, volume in enumerate(measure["volumes"]):
        if volume["name"] in names:
            claim = {"claimName": f"scepsy-profiling-{volume['name']}"}
            measure["volumes"][index] = {"name": volume["name"], "persistentVolumeClaim": claim}
    if "journal" in names:
        # A folder per sweep: points of several sweeps have the same name.
        [mount] = [item for item in measure["container"]["volumeMounts"] if item["name"] == "journal"]
        mount["subPath"] = "{{workflow.labels.scepsy.dev/sweep}}"
    assert found["WorkflowTemplate/scepsy-profile"]["spec"]["templates"][3] == measure


# ---- the images


def dockerfile(folder: str = "profiling-jobs") -> str:
    return (ROOT / folder / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize(("folder", "more"), [("profiling-jobs", set()), ("gitops/drift", {"requirements.lock"})])
def test_an_image_is_built_of_everything_that_the_package_is_made_of(folder: str, more: set[str]) -> None:
    copied = {
        word.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(folder), re.MULTILINE)
        for word in line.split()
    }
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.split("/")[0] for path in settings["tool"]["setuptools"]["package-dir"].values()}
    files = {"pyproject.toml", settings["project"]["readme"], *settings["project"]["license-files"]}
    assert copied == folders | files | more
    ignored = (ROOT / folder / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_is_the_engine_s_and_runs_as_the_engines_user() -> None:
    [version] = re.findall(r"^ARG VLLM_VERSION=(\S+)$", dockerfile(), re.MULTILINE)
    assert EngineSettings().image == f"vllm/vllm-openai:{version}"
    assert f"USER {USER}:{USER}" in dockerfile()
    assert template()["spec"]["securityContext"]["runAsUser"] == USER
    assert "ENTRYPOINT []" in dockerfile()
