"""Accounts of a namespace: the API server as their pods see it, and what they may do there."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.end_to_end.api import Api
from tests.end_to_end.cluster import ClusterUnderTest

Permission = tuple[str, str, str]
"""Group, resource and verb."""
RESULTS: set[Permission] = {("argoproj.io", "workflowtaskresults", verb) for verb in ("create", "patch")}
"""What Argo's own container needs."""
# What every account may: ask what it may do.
_ASKING = ("authorization.k8s.io", "authentication.k8s.io")


class Accounts:
    """The accounts of one namespace.

    Args:
        cluster: the cluster.
        namespace: theirs.
        directory: where kubeconfigs are written.
    """

    def __init__(self, cluster: ClusterUnderTest, namespace: str, directory: Path) -> None:
        self.api = cluster.api
        self.namespace = namespace
        self._template = cluster.kubeconfig
        self._directory = directory

    def account(self, name: str) -> Api:
        """Return the API server as an account sees it, with a token as its pods have one."""
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return self.with_token(name, self.api.request("POST", path, body).body["status"]["token"])

    def with_token(self, name: str, token: str) -> Api:
        """Return the API server as the owner of a token sees it."""
        settings = yaml.safe_load(self._template.read_text(encoding="utf-8"))
        settings["users"][0]["user"] = {"token": token}
        settings["contexts"][0]["context"]["namespace"] = self.namespace
        path = self.kubeconfig(name)
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return Api(path)

    def kubeconfig(self, name: str) -> Path:
        """Return where the kubeconfig of an account lies."""
        return self._directory / f"{name}.kubeconfig"


def allowed(api: Api, namespace: str) -> set[Permission]:
    """Return all that an account may do in a namespace, as the API server says."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    return {
        (group, resource, verb)
        for rule in answer.body["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if group not in _ASKING
    }
