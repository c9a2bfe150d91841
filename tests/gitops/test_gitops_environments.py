"""What the kustomize components of gitops/ build to: valid, one file of values, and no more permissions than are needed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests import kubernetes_schemas
from tests.profiling_jobs.argo_schemas import needs_crds, validate

ROOT = Path(__file__).resolve().parents[2]
GITOPS = ROOT / "gitops"
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on the PATH")
OPTIONAL = ("priority", "observe", "drift", "events")

Object = dict[str, Any]
Key = tuple[str, str, str]


def documents(path: str) -> list[Object]:
    return list(yaml.safe_load_all((GITOPS / path).read_text(encoding="utf-8")))


def values(name: str) -> dict[str, str]:
    """Return values of an environment that are like no other's."""
    return {
        "name": f"{name}-app",
        "repository": f"https://git.example.com/{name}.git",
        "revision": f"{name}-branch",
        "path": f"rendered/{name}-cluster/{name}-llms",
        "namespace": f"{name}-llms",
        "cluster": f"https://{name}.example.com",
        "argocdNamespace": "argo-cd",
        "driftNamespace": f"{name}-checks",
        "driftImage": f"registry.example.com/{name}:1",
        "project": f"{name}-directory",
        "planCluster": f"{name}-cluster",
        "application": f"argo-cd/{name}-app",
        "prometheus": f"https://prometheus.example.com/{name}",
        "driftAction": "pull-request",
        "eventsNamespace": "argo-bus",
    }


def build(folder: Path, given: Mapping[str, str], *components: str) -> dict[Key, Object]:
    """Return what an example builds to with these values and these optional components, in this order."""
    settings = folder / "environment.yaml"
    [shipped] = yaml.safe_load_all(settings.read_text())
    assert set(given) == set(shipped["data"]), "the example has other values"
    settings.write_text(yaml.safe_dump({**shipped, "data": dict(given)}))
    switches = folder / "kustomization.yaml"
    text = switches.read_text()
    if components:
        assert all(f"  # - ../{name}\n" in text for name in components)
        switches.write_text(text + "".join(f"  - ../{name}\n" for name in components))
    built = subprocess.run([str(KUBECTL), "kustomize", folder], capture_output=True, text=True, check=False)
    switches.write_text(text)
    assert built.returncode == 0, built.stderr
    return {key(item): item for item in yaml.safe_load_all(built.stdout)}


def key(item: Object) -> Key:
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of gitops/, to be changed."""
    return Path(shutil.copytree(GITOPS, tmp_path / "gitops"))


@pytest.fixture
def everything(copied: Path) -> dict[Key, Object]:
    return build(copied / "example", values("a"), *OPTIONAL)


@pytest.fixture
def all_clusters(copied: Path) -> dict[Key, Object]:
    kept = {name: values("a")[name] for name in ("name", "repository", "revision", "namespace", "argocdNamespace")}
    return build(copied / "applicationset-example", {**kept, "paths": "sub/rendered/*/*"})


def of(found: Mapping[Key, Object], kind: str, name: str = "") -> Object:
    [item] = [item for (its, _, called), item in found.items() if its == kind and name in ("", called)]
    return item


# ---- validity

# Of Argo Events there are no CRDs that say anything; its two kinds were validated by hand against its OpenAPI document.
UNKNOWN = {"Sensor", "EventSource"}
ARGO = {"Application", "ApplicationSet", "AppProject", "CronWorkflow", "WorkflowTemplate"}


@needs_kubectl
@needs_crds
def test_kubernetes_and_the_crds_know_every_field(
    everything: dict[Key, Object], all_clusters: dict[Key, Object]
) -> None:
    for kind, _, name in (found := everything | all_clusters):
        item = found[kind, _, name]
        if kind in ARGO:
            validate(item, kind)
        elif kind not in UNKNOWN:
            kubernetes_schemas.validate(item, "1.36")
    assert {kind for kind, _, _ in found} >= ARGO | UNKNOWN
    told = of(everything, "Sensor")["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
    validate(told, "Workflow")


@needs_crds
@pytest.mark.parametrize(
    ("kind", "file", "path"),
    [
        ("CronWorkflow", "drift/schedule.yaml", ("spec",)),
        ("CronWorkflow", "drift/schedule.yaml", ("spec", "workflowSpec")),
        ("WorkflowTemplate", "drift/check.yaml", ("spec", "templates", 0, "container")),
        ("ApplicationSet", "applicationset/applicationset.yaml", ("spec", "syncPolicy")),
        ("ApplicationSet", "applicationset/applicationset.yaml", ("spec", "template", "spec", "syncPolicy")),
    ],
)
def test_a_typo_would_be_found(kind: str, file: str, path: tuple[str | int, ...]) -> None:
    [item] = documents(file)
    found: Any = item
    for step in path:
        found = found[step]
    found["typo"] = {}
    with pytest.raises(jsonschema.ValidationError):
        validate(item, kind)


# ---- values in one place


@needs_kubectl
def test_every_value_is_everywhere_it_belongs(everything: dict[Key, Object]) -> None:
    here = {"a-llms", "a-checks", "argo-cd", "argo-bus"}
    for kind, namespace, name in everything:
        cluster_wide = kind in ("Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass")
        assert (namespace == "") if cluster_wide else (namespace in here), (kind, namespace, name)
    assert {name for kind, _, name in everything if kind == "Namespace"} == {"a-llms", "a-checks"}
    accounts = {(namespace, name) for kind, namespace, name in everything if kind == "ServiceAccount"}
    roles = {(kind, namespace, name) for kind, namespace, name in everything if kind in ("Role", "ClusterRole")}
    bindings = [item for (kind, *_), item in everything.items() if kind.endswith("Binding")]
    assert len(bindings) == 9
    for binding in bindings:
        [subject] = binding["subjects"]
        assert (subject["namespace"], subject["name"]) in accounts, binding
        role = binding["roleRef"]
        where = binding["metadata"].get("namespace", "") if role["kind"] == "Role" else ""
        assert (role["kind"], where, role["name"]) in roles, binding

    check = of(everything, "WorkflowTemplate")["spec"]
    assert {item["name"]: item["value"] for item in check["arguments"]["parameters"]} == {
        "image": "registry.example.com/a:1",
        "repository": "https://git.example.com/a.git",
        "revision": "a-branch",
        "project": "a-directory",
        "cluster": "a-cluster",
        "application": "argo-cd/a-app",
        "prometheus": "https://prometheus.example.com/a",
        "action": "pull-request",
    }
    sensor = of(everything, "Sensor")
    assert sensor["metadata"]["name"] == sensor["spec"]["template"]["serviceAccountName"] == "a-app"
    [dependency] = sensor["spec"]["dependencies"]
    assert dependency["filters"]["exprs"][0]["expr"] == 'told == "argo-cd/a-app"'
    told = sensor["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
    assert told["metadata"]["namespace"] == "a-checks"
    settings = of(everything, "ConfigMap", "argocd-notifications-cm")["data"]
    service = yaml.safe_load(settings["service.webhook.scepsy-drift"])
    assert service["url"] == "http://scepsy-drift-eventsource-svc.argo-bus.svc:12000/drift"
    [rule] = of(everything, "NetworkPolicy")["spec"]["ingress"]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "argo-cd"}
    subscribed = of(everything, "Application")["metadata"]["annotations"]
    assert subscribed["notifications.argoproj.io/subscribe.on-scepsy-drift.scepsy-drift"] == ""


@needs_kubectl
def test_without_its_components_an_environment_is_as_small_as_before(copied: Path) -> None:
    assert {kind for kind, _, _ in build(copied / "example", values("a"))} == {
        "Namespace", "ServiceAccount", "Role", "RoleBinding", "AppProject", "Application",
    }  # fmt: skip


@needs_kubectl
def test_components_may_stand_in_another_order(copied: Path, everything: dict[Key, Object]) -> None:
    assert build(copied / "example", values("a"), "events", "drift", "observe", "priority") == everything


@needs_kubectl
def test_environments_of_one_cluster_stand_side_by_side(copied: Path, everything: dict[Key, Object]) -> None:
    other = build(copied / "example", values("b"), *OPTIONAL)
    shared = set(everything) & set(other)
    assert {(kind, name) for kind, _, name in shared} == {
        ("ClusterRole", "scepsy-observe-cluster"),
        ("Role", "scepsy-observe-application"),
        ("PriorityClass", "scepsy-engine"),
        ("ConfigMap", "argocd-notifications-cm"),
        ("EventSource", "scepsy-drift"),
        ("NetworkPolicy", "scepsy-drift"),
        ("ServiceAccount", "scepsy-drift-source"),
    }
    for one in shared:
        assert everything[one] == other[one]


@needs_kubectl
def test_what_is_not_known_may_be_empty(copied: Path) -> None:
    found = build(copied / "example", {**values("a"), "prometheus": "", "application": ""}, "observe", "drift")
    given = {p["name"]: p["value"] for p in of(found, "WorkflowTemplate")["spec"]["arguments"]["parameters"]}
    assert (given["prometheus"], given["application"]) == ("", "")


# ---- least privilege


@needs_kubectl
def test_every_role_has_its_rules_and_no_more(everything: dict[Key, Object]) -> None:
    def rule(group: str, resource: str, *verbs: str) -> Object:
        return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}

    roles = {
        (namespace, name): item["rules"]
        for (kind, namespace, name), item in everything.items()
        if kind in ("Role", "ClusterRole") and name != "scepsy-sync"
    }
    assert roles == {
        ("a-checks", "scepsy-drift"): [rule("argoproj.io", "workflowtaskresults", "create", "patch")],
        ("a-checks", "scepsy-drift-start"): [rule("argoproj.io", "workflows", "create")],
        ("a-llms", "scepsy-observe"): [rule("", "pods", "list"), rule("resource.k8s.io", "resourceclaims", "list")],
        ("argo-cd", "scepsy-observe-application"): [rule("argoproj.io", "applications", "get")],
        ("", "scepsy-observe-cluster"): [
            rule("", "nodes", "list", "watch"),
            {"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices", "deviceclasses"], "verbs": ["list"]},
        ],
    }


@needs_kubectl
def test_every_account_has_what_it_is_for(everything: dict[Key, Object]) -> None:
    bound: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for (kind, namespace, _), item in everything.items():
        if kind.endswith("Binding"):
            [subject] = item["subjects"]
            who = (subject["namespace"], subject["name"])
            bound.setdefault(who, set()).add((namespace, item["roleRef"]["name"]))
    observed = {("a-llms", "scepsy-observe"), ("argo-cd", "scepsy-observe-application"), ("", "scepsy-observe-cluster")}
    assert bound == {
        ("a-llms", "scepsy-sync"): {("a-llms", "scepsy-sync")},
        ("a-llms", "scepsy-observe"): observed,
        ("a-checks", "scepsy-drift"): {*observed, ("a-checks", "scepsy-drift")},
        ("argo-bus", "a-app"): {("a-checks", "scepsy-drift-start")},
    }
    mounted = {
        (namespace, name)
        for (kind, namespace, name), item in everything.items()
        if kind == "ServiceAccount" and item.get("automountServiceAccountToken", True)
    }
    # The Sensor's alone: a check asks for its token itself.
    assert mounted == {("argo-bus", "a-app")}


@pytest.mark.parametrize("folder", ["namespace", "drift"])
def test_a_namespace_takes_restricted_pods_only(folder: str) -> None:
    [namespace] = documents(f"{folder}/namespace.yaml")
    assert namespace["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }


@needs_kubectl
@pytest.mark.parametrize("kind", ["Sensor", "EventSource"])
def test_pods_of_argo_events_are_restricted_too(kind: str, everything: dict[Key, Object]) -> None:
    template = of(everything, kind)["spec"]["template"]
    assert template["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 9731, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert template["container"]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


# ---- one Application, or one for each cluster and namespace


def test_an_applicationset_makes_what_the_application_is() -> None:
    [one] = documents("argocd/application.yaml")
    [many] = documents("applicationset/applicationset.yaml")
    made = many["spec"]["template"]
    path = {"path": "{{.path.path}}"}
    destination = {"name": "{{.path.path | dir | base}}", "namespace": "{{.path.basename}}"}
    assert made["spec"] == {**one["spec"], "source": {**one["spec"]["source"], **path}, "destination": destination}
    assert made["metadata"]["annotations"] == one["metadata"]["annotations"]


def test_a_folder_that_is_gone_and_an_applicationset_that_is_gone_take_nothing_with_them() -> None:
    [many] = documents("applicationset/applicationset.yaml")
    assert many["spec"]["syncPolicy"] == {"applicationsSync": "create-update", "preserveResourcesOnDeletion": True}
    # With one of its own in the template, Argo CD deletes what runs all the same.
    assert "finalizers" not in many["spec"]["template"]["metadata"]


def test_who_may_push_cannot_choose_the_project() -> None:
    [many] = documents("applicationset/applicationset.yaml")
    assert "{{" not in many["spec"]["template"]["spec"]["project"]


def test_its_project_allows_what_the_other_one_does_on_any_cluster() -> None:
    [one] = documents("argocd/project.yaml")
    [many] = documents("applicationset/project.yaml")
    for entry in (*one["spec"]["destinations"], *one["spec"]["destinationServiceAccounts"]):
        entry["server"] = "*"
    assert many == one


@needs_kubectl
def test_the_values_of_an_applicationset_are_everywhere(all_clusters: dict[Key, Object]) -> None:
    assert set(all_clusters) == {("AppProject", "argo-cd", "a-app"), ("ApplicationSet", "argo-cd", "a-app")}
    spec = of(all_clusters, "ApplicationSet")["spec"]
    assert spec["generators"] == [
        {
            "git": {
                "repoURL": "https://git.example.com/a.git",
                "revision": "a-branch",
                "directories": [{"path": "sub/rendered/*/*"}],
            }
        }
    ]
    assert spec["template"]["metadata"]["name"] == "a-app-{{.path.path | dir | base}}-{{.path.basename}}"
    assert spec["template"]["spec"]["project"] == "a-app"
    project = of(all_clusters, "AppProject")["spec"]
    assert project["sourceRepos"] == ["https://git.example.com/a.git"]
    assert project["destinations"] == [{"server": "*", "namespace": "a-llms"}]


# ---- priority


def test_engines_evict_nobody_and_are_not_evicted_for_batch_jobs() -> None:
    [item] = documents("priority/class.yaml")
    assert item["metadata"]["name"] == "scepsy-engine"
    assert (item["preemptionPolicy"], item["globalDefault"]) == ("Never", False)
    assert 0 < item["value"] < 1_000_000_000
