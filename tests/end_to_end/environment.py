"""One namespace that Argo CD keeps as a repository has it, and what tests ask of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from scepsy.documents import Plan
from tests.end_to_end.api import Api, Object
from tests.end_to_end.argocd import GITOPS
from tests.end_to_end.processes import eventually
from tests.end_to_end.project import BRANCH, ScepsyProject

Gpus = dict[str, frozenset[str]]
"""UUIDs by name of an instance."""

CLAIM = "resource.k8s.io/v1"
APPLICATION = "argoproj.io/v1alpha1"
TRACKING = "argocd.argoproj.io/tracking-id"
REFRESH = "argocd.argoproj.io/refresh"
# What the API server writes into every object by itself.
BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


def planned(plan: Plan) -> Gpus:
    """Return the GPUs that a plan gives to its instances."""
    return {instance.name: frozenset(instance.gpus) for instance in plan.spec.instances}


class Environment:
    """What `gitops/` installs for one environment, with its placeholders filled in."""

    def __init__(self, api: Api, kubectl: Path, directory: Path, project: ScepsyProject, argocd: str) -> None:
        self.api = api
        self.project = project
        self.namespace = project.namespace
        self.name = f"scepsy-{self.namespace}"
        self._argocd = argocd
        self.values = {
            "name": self.name,
            "repository": project.url,
            "revision": BRANCH,
            "path": project.path,
            "namespace": self.namespace,
            "cluster": "https://kubernetes.default.svc",
            "argocdNamespace": argocd,
            "driftNamespace": f"{self.namespace}-drift",
            "driftImage": "registry.example.com/scepsy:test",
            "project": ".",
            "planCluster": project.cluster.metadata.name,
            "application": f"{argocd}/{self.name}",
            "prometheus": "",
            "driftAction": "report",
            "eventsNamespace": f"{self.namespace}-events",
        }
        self.installed = installation(kubectl, directory, self.values)

    def install(self) -> None:
        """Apply the files of `gitops/`, in their order."""
        for item in self.installed:
            self.api.apply(item, manager="platform-team")

    # What Argo CD says

    @property
    def application(self) -> Object:
        """The Application; an empty object when there is none."""
        return self.api.get(APPLICATION, "Application", self.name, self._argocd) or {}

    def refresh(self) -> None:
        """Have Argo CD look at the repository and at the cluster now, and wait until it has."""
        self._ask_for_refresh()
        eventually(
            lambda: REFRESH not in self.application["metadata"].get("annotations", {}), within=60, why=self.explain
        )

    def synced_and_healthy(self, within: float = 60) -> None:
        """Wait until everything is as the last commit has it, and works.

        Args:
            within: seconds.

        Raises:
            AssertionError: with what is missing.
        """
        self._ask_for_refresh()
        eventually(self._is_synced_and_healthy, within=within, why=self.explain)

    def _is_synced_and_healthy(self) -> bool:
        status = self.application.get("status", {})
        sync = status.get("sync", {})
        return (
            sync.get("revision") == self.project.head
            and sync.get("status") == "Synced"
            and status.get("health", {}).get("status") == "Healthy"
            and status.get("operationState", {}).get("phase") == "Succeeded"
        )

    def sync_fails(self, within: float = 60) -> str:
        """Wait until a sync of the last commit has failed, and return all that Argo CD says about it."""

        def message() -> str | None:
            operation = self.application.get("status", {}).get("operationState", {})
            result = operation.get("syncResult", {})
            said = [operation.get("message", ""), *(item.get("message", "") for item in result.get("resources", []))]
            # A failed sync is tried again, and so goes on running.
            failed = operation.get("phase") in ("Failed", "Error") or operation.get("retryCount", 0) > 0
            return "\n".join(said) if failed and result.get("revision") == self.project.head else None

        self._ask_for_refresh()
        return eventually(message, within=within, why=self.explain)

    def out_of_sync(self) -> list[str]:
        """Return what differs from the repository, as Argo CD sees it."""
        return [
            f"{item['kind']} {item['name']}"
            for item in self.application["status"].get("resources", [])
            if item.get("status") != "Synced"
        ]

    def _ask_for_refresh(self) -> None:
        item = {"apiVersion": APPLICATION, "kind": "Application", "metadata": self._metadata}
        self.api.merge(item, {"metadata": {"annotations": {REFRESH: "hard"}}})

    @property
    def _metadata(self) -> dict[str, str]:
        return {"name": self.name, "namespace": self._argocd}

    # What runs where

    def allocated(self) -> Gpus:
        """Return the GPUs that the scheduler allocated to every instance that has a running pod."""
        uuids = {
            (item["spec"]["pool"]["name"], device["name"]): device["attributes"]["uuid"]["string"]
            for item in self.api.list("resource.k8s.io/v1", "ResourceSlice")
            for device in item["spec"].get("devices", [])
        }
        claims = {
            item["metadata"]["name"]: frozenset(
                uuids[result["pool"], result["device"]]
                for result in item.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
            )
            for item in self.api.list(CLAIM, "ResourceClaim", self.namespace)
        }
        return {
            pod["metadata"]["labels"]["scepsy.dev/instance"]: frozenset().union(
                *(claims[reference["resourceClaimName"]] for reference in pod["spec"]["resourceClaims"])
            )
            for pod in self._engines()
        }

    def nodes(self) -> dict[str, str]:
        """Return the node of every instance that has a running pod."""
        return {pod["metadata"]["labels"]["scepsy.dev/instance"]: pod["spec"]["nodeName"] for pod in self._engines()}

    def _engines(self) -> list[Object]:
        pods = self.api.list("v1", "Pod", self.namespace, labelSelector="scepsy.dev/instance")
        return [pod for pod in pods if pod["status"].get("phase") == "Running" and not is_going(pod)]

    # What is there

    def rendered(self) -> list[Object]:
        """Return the objects in the working copy's rendered folder."""
        folder = self.project.directory / self.project.path
        return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]

    def live(self, item: Object) -> Object | None:
        """Return the cluster's version of an object."""
        return self.api.get(item["apiVersion"], item["kind"], item["metadata"]["name"], self.namespace)

    def leftovers(self) -> list[str]:
        """Return what there still is of the objects that Argo CD deployed here."""
        kinds = {(item["apiVersion"], item["kind"]) for item in self.rendered()}
        return [
            f"{item['kind']} {item['metadata']['name']}"
            for api_version, kind in sorted(kinds)
            if self.api.serves(api_version, kind)
            for item in self.api.list(api_version, kind, self.namespace)
            if TRACKING in item["metadata"].get("annotations", {})
        ]

    def differences(self) -> dict[str, Any]:
        """Return what a server-side apply of the rendered objects would change, by object.

        The same as `kubectl diff --server-side`.
        """
        found = {}
        for item in self.rendered():
            before = self.live(item)
            after = self.api.apply(item, manager="scepsy-diff", dry_run=True).body
            if _essence(before) != _essence(after):
                found[f"{item['kind']} {item['metadata']['name']}"] = {"live": before, "applied": after}
        return found

    # How it ends

    def delete(self) -> None:
        """Delete the Application, as a user would."""
        self.api.delete({"apiVersion": APPLICATION, "kind": "Application", "metadata": self._metadata})

    def remove(self) -> None:
        """Remove everything, whatever state it is in, and wait until its GPUs are free."""
        item = {"apiVersion": APPLICATION, "kind": "Application", "metadata": self._metadata}
        if self.application:
            # Not by the finalizer: Argo CD may be stuck, and the namespace goes anyway.
            self.api.merge(item, {"metadata": {"finalizers": None}})
        # Workloads before the namespace: its controller looks only every 5 s whether they are gone.
        for api_version, kind in (("apps/v1", "Deployment"), ("v1", "Pod"), (CLAIM, "ResourceClaim")):
            path = self.api.path(api_version, kind, self.namespace)
            self.api.request("DELETE", path, {"propagationPolicy": "Background"})
        for installed in reversed(self.installed):
            if installed["kind"] != "Namespace":
                self.api.delete(installed)
        eventually(
            lambda: not self.api.list(CLAIM, "ResourceClaim", self.namespace),
            within=180,
            why=f"the claims of {self.namespace} are not deleted",
        )
        self.api.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

    def explain(self) -> str:
        """Return what an engineer would look at first."""
        status = self.application.get("status", {})
        operation = status.get("operationState", {})
        lines = [
            f"wanted {self.project.head[:8]}, is at {status.get('sync', {}).get('revision', 'nothing')[:8]}: "
            f"{status.get('sync', {}).get('status')}, {status.get('health', {}).get('status')}",
            f"operation {operation.get('phase')}: {operation.get('message')}",
            *(f"condition {c['type']}: {c['message']}" for c in status.get("conditions", [])),
            *_resources(status.get("resources", [])),
            *(
                f"{r['kind']} {r['name']}: {r.get('message')}"
                for r in operation.get("syncResult", {}).get("resources", [])
                if r.get("status") == "SyncFailed"
            ),
            *(
                f"pod {pod['metadata']['name']} {pod['status'].get('phase')}: {condition['message']}"
                for pod in self.api.list("v1", "Pod", self.namespace)
                for condition in pod["status"].get("conditions", [])
                if condition["status"] != "True" and condition.get("message")
            ),
        ]
        return "\n".join(lines)


def installation(
    kubectl: Path, directory: Path, values: dict[str, str], components: Iterable[str] = ()
) -> list[Object]:
    """Return what `gitops/example` builds to, once its one file of values is filled in.

    Args:
        kubectl: the program.
        directory: an empty folder.
        values: what stands in `environment.yaml`.
        components: the optional components that are switched on.
    """
    copy = directory / "gitops"
    shutil.copytree(GITOPS, copy)
    switches = copy / "example" / "kustomization.yaml"
    for name in components:
        text = switches.read_text(encoding="utf-8")
        assert f"  # - ../{name}\n" in text
        switches.write_text(text.replace(f"  # - ../{name}\n", f"  - ../{name}\n"), encoding="utf-8")
    path = copy / "example" / "environment.yaml"
    environment = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(values) == set(environment["data"]), "gitops/example/environment.yaml has other values"
    path.write_text(yaml.safe_dump({**environment, "data": values}), encoding="utf-8")
    built = subprocess.run([kubectl, "kustomize", copy / "example"], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(built.stdout))


def is_going(item: Object) -> bool:
    """Tell whether an object was deleted, and only waits for its finalizers or its grace period."""
    return "deletionTimestamp" in item["metadata"]


def _resources(resources: Iterable[Object]) -> Iterable[str]:
    for item in resources:
        health = item.get("health", {}).get("status", "Healthy")
        if item.get("status") != "Synced" or health != "Healthy":
            yield f"{item['kind']} {item['name']}: {item.get('status')}, {health}"


def _essence(item: Object | None) -> Object | None:
    if item is None:
        return None
    metadata = {key: value for key, value in item["metadata"].items() if key not in BOOKKEEPING}
    return {**item, "metadata": metadata}
