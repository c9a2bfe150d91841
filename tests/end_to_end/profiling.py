"""What `gitops/profiling` installs, and Argo Workflows with the tests in place of what its pods would do."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tests.end_to_end.accounts import Accounts
from tests.end_to_end.api import Api, ApiError, Object
from tests.end_to_end.argocd import objects
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import is_going
from tests.end_to_end.processes import eventually
from tests.profiling_jobs.sweep_workflow import ROOT, SHARED

ARGO = "argoproj.io/v1alpha1"
CLAIM = "resource.k8s.io/v1"
CRDS = SHARED / "crds"
CONTROLLER = "workflow-controller"
EXECUTOR = "argoexec"
KINDS = (
    "Workflow",
    "WorkflowTemplate",
    "ClusterWorkflowTemplate",
    "CronWorkflow",
    "WorkflowTaskSet",
    "WorkflowTaskResult",
)
NODE = "workflows.argoproj.io/node-id"
WORKFLOW = "workflows.argoproj.io/workflow"
POINT = "scepsy.dev/point"
DEADLINE = "Pod was active on the node longer than the specified deadline"


@dataclass(frozen=True)
class End:
    """How a pod's main container ends.

    Attributes:
        code: its exit status.
        outputs: the output parameters that it wrote; the others are empty.
    """

    code: int
    outputs: Mapping[str, str] = field(default_factory=dict)


Play = Callable[[Object], End | None]
"""Says of a measuring pod how it ends, or None while it goes on."""


def has_schemas() -> bool:
    """Tell whether Argo Workflows' CRDs are at hand."""
    return CRDS.is_dir()


def installation(
    kubectl: Path, directory: Path, namespace: str, pools: Mapping[str, str], components: Sequence[str] = ()
) -> list[Object]:
    """Return what `gitops/profiling-example` builds to, once its one file of values is filled in.

    Args:
        kubectl: the program.
        directory: an empty folder.
        namespace: where the jobs run.
        pools: how many points measure at a time, by pool.
        components: the optional components that are switched on.
    """
    for folder in ("gitops", "profiling-jobs"):
        shutil.copytree(ROOT / folder, directory / folder)
    path = directory / "gitops" / "profiling-example" / "environment.yaml"
    environment, semaphore = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    environment["data"]["namespace"] = namespace
    semaphore["data"] = dict(pools)
    path.write_text(yaml.safe_dump_all([environment, semaphore]), encoding="utf-8")
    switches = path.with_name("kustomization.yaml")
    for name in components:
        text = switches.read_text(encoding="utf-8")
        assert f"  # - ../{name}\n" in text
        switches.write_text(text.replace(f"  # - ../{name}\n", f"  - ../{name}\n"), encoding="utf-8")
    built = subprocess.run([kubectl, "kustomize", path.parent], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(built.stdout))


class Profiling(Accounts):
    """The namespace of the profiling jobs."""

    def __init__(self, cluster: ClusterUnderTest, namespace: str, pools: Mapping[str, str]) -> None:
        super().__init__(cluster, namespace, cluster.directory / f"profiling-{secrets.token_hex(3)}")
        self._cluster = cluster
        self._pools = pools
        self._directory.mkdir()
        self.installed = installation(cluster.programs["kubectl"], self._directory, namespace, pools)

    def install(self) -> dict[str, tuple[str, ...]]:
        """Apply everything; return what the API server warned of, by object."""
        install_schemas(self.api)
        return {
            f"{item['kind']} {item['metadata']['name']}": self.api.apply(item, manager="platform-team").warnings
            for item in self.installed
        }

    def add(self, *components: str) -> None:
        """Install optional components as well."""
        directory = self._directory / "-".join(components)
        kubectl = self._cluster.programs["kubectl"]
        for item in installation(kubectl, directory, self.namespace, self._pools, components):
            self.api.apply(item, manager="platform-team")

    def remove(self) -> None:
        """Remove everything, and wait until its GPUs are free."""
        for api_version, kind in ((ARGO, "Workflow"), ("v1", "Pod"), (CLAIM, "ResourceClaim")):
            for item in self.api.list(api_version, kind, self.namespace):
                # Argo's finalizers wait for a controller that may be gone.
                if item["metadata"].get("finalizers") and kind != "ResourceClaim":
                    self._forgiving(lambda item=item: self.api.merge(item, {"metadata": {"finalizers": None}}))
                self._forgiving(lambda item=item: self.api.delete(item, propagationPolicy="Background"))
        eventually(
            lambda: not self.api.list(CLAIM, "ResourceClaim", self.namespace),
            within=60,
            why=f"the claims of {self.namespace} do not go",
        )
        self.api.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

    @staticmethod
    def _forgiving(change: Callable[[], object]) -> None:
        try:
            change()
        except ApiError as error:
            if error.status != 404:
                raise

    # Who may do what

    def executor(self) -> Api:
        """Return the same for Argo's container in a measuring pod, with the token from the Secret that it mounts."""
        name = "scepsy-profile.service-account-token"

        def token() -> str | None:
            found: str | None = ((self.api.get("v1", "Secret", name, self.namespace) or {}).get("data", {})).get(
                "token"
            )
            return found

        return self.with_token("executor", base64.b64decode(eventually(token, within=30)).decode())


class ArgoWorkflows:
    """A real workflow-controller, and a stand-in for what runs in its pods.

    The stand-in does with the pods' own tokens what Argo's programs would do in them, and what a kubelet would: it applies the
    manifests of `resource` templates, reports outputs as WorkflowTaskResults, ends pods, also at their deadlines.
    """

    def __init__(self, profiling: Profiling) -> None:
        self.api = profiling.api
        self.profiling = profiling
        self.namespace = profiling.namespace
        self._accounts: dict[str, Api] = {}
        self._played: set[str] = set()
        self.seen: dict[str, Object] = {}
        self.said: list[str] = []

    # Workflows

    def submit(self, workflow: Object) -> Object:
        """Create a Workflow as the submitting account."""
        path = self.api.path(ARGO, "Workflow", self.namespace)
        return self._account("scepsy-submit").request("POST", path, workflow).body

    def workflow(self, name: str) -> Object:
        """Return a Workflow as the submitting account reads it."""
        path = f"{self.api.path(ARGO, 'Workflow', self.namespace)}/{name}"
        return self._account("scepsy-submit").request("GET", path).body

    def nodes(self, name: str) -> list[Object]:
        """Return the nodes of a Workflow."""
        return list(self.workflow(name).get("status", {}).get("nodes", {}).values())

    def point(self, name: str, point: str) -> Object:
        """Return the node of a point: of all its attempts together."""
        [found] = [n for n in self.nodes(name) if n["type"] == "Retry" and parameters(n).get("name") == point and n["templateName"] == "measure"]  # fmt: skip
        return found

    def attempts(self, name: str, point: str) -> list[Object]:
        """Return the nodes of a point's attempts, in their order."""
        found = [n for n in self.nodes(name) if n["type"] == "Pod" and n["templateName"] == "measure" and parameters(n).get("name") == point]  # fmt: skip
        return sorted(found, key=lambda node: int(re.findall(r"\((\d+)\)$", node["name"])[0]))

    # Pods

    def pods(self, label: str = POINT) -> list[Object]:
        """Return the measuring pods that have not ended."""
        found = self.api.list("v1", "Pod", self.namespace, labelSelector=label)
        return [pod for pod in found if pod["status"].get("phase") in ("Pending", "Running") and not is_going(pod)]

    def gpus(self, pod: Object) -> frozenset[str]:
        """Return the UUIDs of the GPUs that the scheduler allocated to a pod."""
        uuids = {
            (item["spec"]["pool"]["name"], device["name"]): device["attributes"]["uuid"]["string"]
            for item in self.api.list(CLAIM, "ResourceSlice")
            for device in item["spec"].get("devices", [])
        }
        found: set[str] = set()
        for status in pod["status"].get("resourceClaimStatuses", []):
            claim = self.api.get(CLAIM, "ResourceClaim", status["resourceClaimName"], self.namespace)
            devices = (claim or {}).get("status", {}).get("allocation", {}).get("devices", {})
            found |= {uuids[result["pool"], result["device"]] for result in devices.get("results", [])}
        return frozenset(found)

    def template(self, pod: Object) -> Object:
        """Return the template that Argo hands to its program in a pod."""
        [init] = [c for c in pod["spec"]["initContainers"] if c["name"] == "init"]
        [text] = [variable["value"] for variable in init["env"] if variable["name"] == "ARGO_TEMPLATE"]
        if text == "offloaded":
            # Too long for an environment variable: in a ConfigMap, of the pod's name.
            kept = self.api.get("v1", "ConfigMap", pod["metadata"]["name"], self.namespace)
            assert kept is not None
            text = kept["data"]["ARGO_TEMPLATE"]
        found: Object = json.loads(text)
        return found

    # What happens in them

    def until(self, ask: Callable[[], Any], play: Play, within: float = 60) -> Any:
        """Play the pods until the answer is true."""

        def asked() -> Any:
            self.play(play)
            return ask()

        return eventually(asked, within=within, every=0.2, why=self.explain)

    def finish(self, name: str, play: Play, within: float = 90) -> Object:
        """Play the pods until a Workflow has ended, and return it."""

        def ended() -> Object | None:
            found = self.workflow(name)
            return found if found.get("status", {}).get("finishedAt") else None

        found: Object = self.until(ended, play, within)
        return found

    def play(self, play: Play) -> None:
        """Do one round of what would happen in the pods that run now."""
        for pod in self.api.list("v1", "Pod", self.namespace, labelSelector=WORKFLOW):
            name = pod["metadata"]["name"]
            if pod["status"].get("phase") != "Running" or is_going(pod) or name in self._played:
                continue
            self.seen[name] = pod
            if POINT in pod["metadata"].get("labels", {}):
                self._measure(pod, play)
            else:
                self._resource(pod)

    def _resource(self, pod: Object) -> None:
        """Do what the pod's main container does, with its account: run Argo's own program where there is one."""
        found = self.template(pod)
        name = pod["spec"]["serviceAccountName"]
        account = self._account(name)
        program = shutil.which(EXECUTOR)
        # A variable of the environment has at most 128 KiB.
        if program is not None and len(json.dumps(found)) < 100_000:
            [main] = [c for c in pod["spec"]["containers"] if c["name"] == "main"]
            given = {item["name"]: item.get("value", "") for item in main["env"]}
            environment = {
                **given,
                "ARGO_TEMPLATE": json.dumps(found),
                "ARGO_POD_NAME": pod["metadata"]["name"],
                "ARGO_POD_UID": pod["metadata"]["uid"],
                "KUBECONFIG": str(self.profiling.kubeconfig(name)),
                "HOME": str(self.profiling.kubeconfig(name).parent),
                "PATH": os.environ["PATH"],
            }
            ran = subprocess.run(
                [program, "resource", found["resource"]["action"]],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            self.said.append(ran.stderr)
            self._end(pod, ran.returncode)
            return
        manifest = yaml.safe_load(found["resource"]["manifest"])
        manifest["metadata"].setdefault("namespace", self.namespace)
        # Without force, as the template says.
        query = {"fieldManager": "scepsy", "fieldValidation": "Strict"}
        account.request("PATCH", self.api.path_of(manifest), manifest, "application/apply-patch+yaml", **query)
        self._report(pod, {}, account)
        self._end(pod, 0)

    def _measure(self, pod: Object, play: Play) -> None:
        started = datetime.fromisoformat(pod["status"]["startTime"])
        if (datetime.now(UTC) - started).total_seconds() > pod["spec"]["activeDeadlineSeconds"]:
            self._end(pod, 143, reason="DeadlineExceeded", message=DEADLINE)
        elif (end := play(pod)) is not None:
            self._report(pod, {"outcome": "", "profile": "", "partial": "", **end.outputs}, self._account("executor"))
            self._end(pod, end.code)

    def _report(self, pod: Object, outputs: Mapping[str, str], account: Api) -> None:
        """Report outputs, as Argo's container does when the main one has ended."""
        metadata = pod["metadata"]
        parameters = self.template(pod).get("outputs", {}).get("parameters", [])
        declared = {p["name"]: {"globalName": p["globalName"]} for p in parameters if "globalName" in p}
        item = {
            "apiVersion": ARGO,
            "kind": "WorkflowTaskResult",
            "metadata": {
                "name": metadata["annotations"][NODE],
                "namespace": self.namespace,
                "labels": {
                    WORKFLOW: metadata["labels"][WORKFLOW],
                    "workflows.argoproj.io/report-outputs-completed": "true",
                },
            },
            "outputs": {
                "parameters": [{**declared.get(key, {}), "name": key, "value": value} for key, value in outputs.items()]
            },
        }
        account.request("POST", self.api.path(ARGO, "WorkflowTaskResult", self.namespace), item)

    def _end(self, pod: Object, code: int, **why: str) -> None:
        """End all containers, as the kubelet tells it."""
        self._played.add(pod["metadata"]["name"])
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

        def ended(name: str, code: int) -> Object:
            state = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": now, "finishedAt": now}
            return {"name": name, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": state}}  # fmt: skip

        spec = pod["spec"]
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [ended(c["name"], code if c["name"] == "main" else 0) for c in spec["containers"]],
            "initContainerStatuses": [ended(c["name"], 0) for c in spec.get("initContainers", [])],
            **why,
        }
        self.api.merge({"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"]}, {"status": status}, "status")

    def _account(self, name: str) -> Api:
        if name not in self._accounts:
            self._accounts[name] = self.profiling.executor() if name == "executor" else self.profiling.account(name)
        return self._accounts[name]

    def explain(self) -> str:
        """Return what an engineer would look at first."""
        lines = []
        for item in self.api.list(ARGO, "Workflow", self.namespace):
            status = item.get("status", {})
            lines.append(f"{item['metadata']['name']} {status.get('phase')}: {status.get('message')}")
            for node in status.get("nodes", {}).values():
                lines.append(f"  {node['displayName']} ({node['type']}) {node['phase']}: {node.get('message')}")
        for pod in self.api.list("v1", "Pod", self.namespace):
            waits = [c.get("message") for c in pod["status"].get("conditions", []) if c["status"] != "True"]
            lines.append(f"pod {pod['metadata']['name']} {pod['status'].get('phase')}: {waits}")
        return "\n".join([*lines, *self.said])


def parameters(node: Object) -> dict[str, str]:
    """Return a node's inputs."""
    return {item["name"]: item["value"] for item in node.get("inputs", {}).get("parameters", [])}


def outputs(node: Object) -> dict[str, str]:
    """Return a node's outputs."""
    return {item["name"]: item["value"] for item in node.get("outputs", {}).get("parameters", [])}


def install_schemas(api: Api) -> None:
    """Install the CRDs of Argo Workflows; a cluster that has some keeps them."""
    if all(api.serves(ARGO, kind) for kind in KINDS):
        return
    for item in objects(CRDS, "argo-*.yaml"):
        if api.get(item["apiVersion"], item["kind"], item["metadata"]["name"]) is None:
            api.apply(item)
    for kind in KINDS:
        eventually(lambda kind=kind: _is_served(api, kind), within=30, why=f"{kind} is not served")


def _is_served(api: Api, kind: str) -> bool:
    try:
        return api.serves(ARGO, kind) and isinstance(api.list(ARGO, kind), list)
    except ApiError as error:
        # A kind is known before there is a place for its objects.
        if error.status != 429:
            raise
        return False


def start_controller(cluster: ClusterUnderTest, program: str) -> None:
    """Start a workflow-controller for all namespaces."""
    install_schemas(cluster.api)
    namespace = "argo"
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "workflow-controller-configmap", "namespace": namespace},
        # It would listen to all of the network.
        "data": {"metricsConfig": "enabled: false\n", "telemetryConfig": "enabled: false\n"},
    }
    cluster.api.apply(settings)
    cluster.processes.start(
        CONTROLLER,
        program,
        f"--kubeconfig={cluster.kubeconfig}",
        f"--namespace={namespace}",
        "--executor-image=argoexec",
        environment={
            "PATH": os.environ["PATH"],
            "HOME": str(cluster.directory),
            "LEADER_ELECTION_DISABLE": "true",
            # It looks again after this long.
            "DEFAULT_REQUEUE_TIME": "1s",
        },
    )
    started = "Starting Workflow Controller"
    cluster.processes.ready(CONTROLLER, lambda: started in cluster.processes.log(CONTROLLER))
