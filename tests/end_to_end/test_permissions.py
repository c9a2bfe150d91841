"""The account that Argo CD syncs as can do what a sync needs, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.api import Api, Object
from tests.end_to_end.argocd import GITOPS
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import Environment
from tests.end_to_end.project import MakeProject

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"

RENDERED = [
    ("apps", "deployments"),
    ("", "services"),
    ("", "configmaps"),
    ("policy", "poddisruptionbudgets"),
    ("resource.k8s.io", "resourceclaims"),
    ("monitoring.coreos.com", "podmonitors"),
]
FORBIDDEN = [
    # What would give it more than it has.
    ("", "secrets", "get"),
    ("", "secrets", "create"),
    ("", "pods", "create"),
    ("", "pods/exec", "create"),
    ("", "serviceaccounts", "create"),
    ("", "serviceaccounts", "impersonate"),
    ("", "serviceaccounts/token", "create"),
    ("rbac.authorization.k8s.io", "roles", "create"),
    ("rbac.authorization.k8s.io", "roles", "escalate"),
    ("rbac.authorization.k8s.io", "rolebindings", "create"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
    ("certificates.k8s.io", "certificatesigningrequests", "create"),
    # What a compiler of manifests has no business with.
    ("", "nodes", "patch"),
    ("", "namespaces", "patch"),
    ("", "persistentvolumeclaims", "delete"),
    ("apps", "deployments/scale", "patch"),
    ("apps", "daemonsets", "create"),
    ("batch", "jobs", "create"),
    ("resource.k8s.io", "resourceslices", "create"),
    ("resource.k8s.io", "resourceslices", "delete"),
    ("resource.k8s.io", "deviceclasses", "patch"),
    ("resource.k8s.io", "resourceclaims/status", "patch"),
    ("scheduling.k8s.io", "priorityclasses", "create"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "create"),
    ("argoproj.io", "applications", "patch"),
    ("argoproj.io", "appprojects", "patch"),
    # All at once.
    ("apps", "deployments", "deletecollection"),
    ("*", "*", "*"),
]


@pytest.fixture
def environment(cluster: ClusterUnderTest, project: MakeProject) -> Environment:
    """The files of `gitops/`, applied for a repository without a commit; whether anything runs does not matter here."""
    return cluster.syncing(project("rag-reranker", push=False))


def may(api: Api, environment: Environment, group: str, resource: str, verb: str, namespace: str) -> bool:
    """Ask whether the syncing account may do something."""
    name, _, subresource = resource.partition("/")
    account = f"system:serviceaccount:{environment.namespace}:scepsy-sync"
    what = {"group": group, "resource": name, "subresource": subresource, "verb": verb, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": account,
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{environment.namespace}",
                "system:authenticated",
            ],
            "resourceAttributes": what,
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(api.request("POST", path, review).body["status"]["allowed"])


def test_it_may_change_what_is_rendered_in_its_namespace_only(
    cluster: ClusterUnderTest, environment: Environment
) -> None:
    def allowed(namespace: str) -> set[tuple[str, str, str]]:
        verbs = ("get", "create", "patch", "delete", "list", "watch", "update", "deletecollection")
        return {
            (*kind, verb)
            for kind in RENDERED
            for verb in verbs
            if may(cluster.api, environment, *kind, verb, namespace)
        }

    assert allowed(environment.namespace) == {
        (*kind, verb) for kind in RENDERED for verb in ("get", "create", "patch", "delete")
    }
    assert allowed("default") == set()
    assert allowed("kube-system") == set()
    assert allowed("") == set()


def test_it_may_do_nothing_else(cluster: ClusterUnderTest, environment: Environment) -> None:
    scopes = (environment.namespace, "kube-system", "")
    allowed = [f for f in FORBIDDEN if any(may(cluster.api, environment, *f, scope) for scope in scopes)]
    assert allowed == []


def test_without_its_role_nothing_is_deployed_though_argo_cd_itself_may_do_anything(environment: Environment) -> None:
    environment.project.push()
    [binding] = [item for item in environment.installed if item["kind"] == "RoleBinding"]
    environment.api.delete(binding)

    message = environment.sync_fails()

    assert f'User "system:serviceaccount:{environment.namespace}:scepsy-sync" cannot' in message
    assert environment.leftovers() == []


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}, "Secret is not permitted in project"),
        (
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {}},
            "Job is not permitted in project",
        ),
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}, "Namespace is not permitted in project"),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "kube-system"}},
            "namespace kube-system is not permitted in project",
        ),
    ],
    ids=["a Secret", "a Job", "a Namespace", "another namespace"],
)
def test_what_else_is_in_the_folder_is_refused(item: Object, said: str, environment: Environment) -> None:
    folder = environment.project.directory / environment.project.path
    (folder / "x.yaml").write_text(yaml.safe_dump(item), encoding="utf-8")
    environment.project.commit("Something else")

    assert said in environment.sync_fails()
    assert environment.api.get(item["apiVersion"], item["kind"], "x", item["metadata"].get("namespace")) is None


def test_the_kinds_of_the_project_the_role_and_the_templates_are_the_same() -> None:
    project = yaml.safe_load((GITOPS / "argocd/project.yaml").read_text())
    [role] = [d for d in yaml.safe_load_all((GITOPS / "namespace/account.yaml").read_text()) if d["kind"] == "Role"]
    listed = {(entry["group"], entry["kind"]) for entry in project["spec"]["namespaceResourceWhitelist"]}
    ruled = {
        (group, resource) for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
    }
    rendered = {
        (api_version.rpartition("/")[0], kind)
        for path in TEMPLATES.glob("*.yaml.j2")
        for api_version, kind in re.findall(r"^apiVersion: (\S+)\nkind: (\S+)$", path.read_text(), re.MULTILINE)
    }
    assert listed == rendered
    assert ruled == {(group, f"{kind.lower()}s") for group, kind in rendered} == set(RENDERED)
