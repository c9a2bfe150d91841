"""What `gitops/drift` and `gitops/events` install beside an environment, and their checks, run where the tests run."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.end_to_end.accounts import Accounts
from tests.end_to_end.api import ApiError, Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import Environment, installation, is_going
from tests.end_to_end.profiling import ARGO, WORKFLOW, ArgoWorkflows, End, Play, install_schemas

COMPONENTS = ("observe", "drift", "events", "priority")
TOKEN = "ghp_aTokenOfTheRepository"


class DriftChecks(Accounts):
    """The namespace of an environment's checks.

    Args:
        cluster: the cluster.
        environment: what they look at.
        repository: where they clone it from.
    """

    def __init__(self, cluster: ClusterUnderTest, environment: Environment, repository: str) -> None:
        directory = cluster.directory / f"drift-{secrets.token_hex(3)}"
        directory.mkdir()
        values = {**environment.values, "repository": repository}
        super().__init__(cluster, values["driftNamespace"], directory)
        self.directory = directory
        self.environment = environment
        self.events = Accounts(cluster, values["eventsNamespace"], directory)
        there = {_key(item) for item in environment.installed}
        built = installation(cluster.programs["kubectl"], directory, values, COMPONENTS)
        self.installed = [item for item in built if _key(item) not in there]

    def one(self, kind: str) -> Object:
        """Return the only object of a kind that is installed."""
        [found] = [item for item in self.installed if item["kind"] == kind]
        return found

    def install(self) -> dict[str, tuple[str, ...]]:
        """Apply everything that the API server has a kind for; return what it warned of, by object."""
        install_schemas(self.api)
        self.api.apply(_namespace(self.events.namespace))
        return {
            "{kind} {metadata[name]}".format(**item): self.api.apply(item, manager="platform-team").warnings
            for item in self.installed
            if self.api.serves(item["apiVersion"], item["kind"])
        }

    def remove(self) -> None:
        """Remove everything; what belongs to Argo CD goes back to it."""
        self.api.delete(self.one("CronWorkflow"))
        for item in self.api.list(ARGO, "Workflow", self.namespace):
            try:
                # Argo's finalizers wait for a controller that may be gone.
                self.api.merge(item, {"metadata": {"finalizers": None}})
            except ApiError as error:
                if error.status != 404:
                    raise
            self.api.delete(item, propagationPolicy="Background")
        for item in self.installed:
            if item["kind"] not in ("ConfigMap", "Namespace") and self.api.serves(item["apiVersion"], item["kind"]):
                self.api.delete(item)
        for name in (self.namespace, self.events.namespace):
            self.api.delete(_namespace(name))


class Checks(ArgoWorkflows):
    """A real workflow-controller, and a stand-in for what runs in the pods of checks."""

    def __init__(self, checks: DriftChecks, certificate: Path) -> None:
        super().__init__(checks)
        self.checks = checks
        self._certificate = certificate

    def workflow(self, name: str) -> Object:
        """Return a Workflow."""
        found = self.api.get(ARGO, "Workflow", name, self.namespace)
        assert found is not None
        return found

    def workflows(self) -> list[Object]:
        """Return all Workflows there are."""
        return self.api.list(ARGO, "Workflow", self.namespace)

    def start(self, name: str) -> None:
        """Make a Workflow as the CronWorkflow would."""
        spec = self.checks.one("CronWorkflow")["spec"]["workflowSpec"]
        metadata = {"name": name, "namespace": self.namespace}
        path = self.api.path(ARGO, "Workflow", self.namespace)
        self.api.request("POST", path, {"apiVersion": ARGO, "kind": "Workflow", "metadata": metadata, "spec": spec})

    def play(self, play: Play) -> None:
        """End the pods that run now, as the tests say."""
        for pod in self.api.list("v1", "Pod", self.namespace, labelSelector=WORKFLOW):
            name = pod["metadata"]["name"]
            if pod["status"].get("phase") != "Running" or is_going(pod) or name in self._played:
                continue
            self.seen[name] = pod
            if (end := play(pod)) is not None:
                # With the account that the pod has, as Argo's container beside the check does.
                self._report(pod, end.outputs, self._account(pod["spec"]["serviceAccountName"]))
                self._end(pod, end.code)

    def really(self, pod: Object) -> End:
        """Run the container's own command here, as the pod's account, and say how it ended."""
        [main] = [item for item in pod["spec"]["containers"] if item["name"] == "main"]
        room = self.checks.directory / pod["metadata"]["name"]
        folders = {name: room / name for name in ("secrets", "out", "work")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        (folders["secrets"] / "git-token").write_text(TOKEN)
        account = pod["spec"]["serviceAccountName"]
        self._account(account)
        environment = {
            **{item["name"]: item["value"] for item in main["env"] if "value" in item},
            "SECRETS": str(folders["secrets"]),
            "OUT": str(folders["out"]),
            "HOME": str(folders["work"]),
            "TMPDIR": str(folders["work"]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # What makes it a pod's: Kubernetes sets the one, and the other stands for the files that it mounts.
            "KUBERNETES_SERVICE_HOST": "here",
            "KUBECONFIG": str(self.checks.kubeconfig(account)),
            "GIT_SSL_CAINFO": str(self._certificate),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        # Argo's program goes first.
        command = [*main["command"][main["command"].index("--") + 1 :], *main["args"]]
        ran = subprocess.run(command, cwd=folders["work"], env=environment, capture_output=True, text=True, check=False)
        self.said.append(ran.stdout + ran.stderr)
        assert TOKEN not in ran.stdout + ran.stderr
        return End(ran.returncode, {path.name: path.read_text().strip() for path in folders["out"].iterdir()})


def ends(*ends: End) -> Callable[[Object], End]:
    """Return what ends one pod after the other."""
    left = iter(ends)
    return lambda _: next(left)


def _key(item: Object) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
