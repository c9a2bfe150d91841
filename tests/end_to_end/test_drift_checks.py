"""The drift checks of `gitops/` on a real API server, and under a real workflow-controller where one is on the PATH."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from scepsy.cluster.kubernetes import Kubernetes
from scepsy.drift import nodes as inventory
from scepsy.drift import objects
from tests.conftest import git
from tests.end_to_end.accounts import RESULTS, Permission, allowed
from tests.end_to_end.api import ApiError, Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.drift_checks import TOKEN, Checks, DriftChecks, ends
from tests.end_to_end.environment import Environment
from tests.end_to_end.processes import eventually
from tests.end_to_end.profiling import ARGO, CRDS, End, outputs
from tests.end_to_end.project import MakeProject
from tests.publishing.git_server import identity, serving

pytestmark = pytest.mark.skipif(not CRDS.is_dir(), reason=f"no CRDs of Argo Workflows at {CRDS}")

README = Path(__file__).resolve().parents[2] / "gitops/README.md"
NONE = End(0, {"drift": "0", "report": "No drift"})
DRIFT = End(0, {"drift": "1", "report": "Drift: 1 finding"})
FAILED = End(1)


@pytest.fixture
def environment(cluster: ClusterUnderTest, project: MakeProject) -> Environment:
    """An environment without a commit: whether anything runs in it does not matter here."""
    return cluster.syncing(project("rag-reranker", push=False))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate of the repository's server."""
    return identity(tmp_path)


@pytest.fixture
def checks(cluster: ClusterUnderTest, environment: Environment, certificate: Path) -> Iterator[DriftChecks]:
    """The checks of the environment, whose repository asks for a token."""
    remote = environment.project.remote
    with serving(remote.parent, certificate) as server:
        server.login = ("x-access-token", TOKEN)
        made = DriftChecks(cluster, environment, f"{server.url}/{remote.name}")
        made.install()
        yield made
        made.remove()


@pytest.fixture
def argo(cluster: ClusterUnderTest, controller: None, checks: DriftChecks, certificate: Path) -> Checks:
    """Argo Workflows, with retries that are not waited for, and no check that comes unasked."""
    cluster.with_nodes(checks.environment.project.cluster)
    template = checks.one("WorkflowTemplate")
    template["spec"]["templates"][0]["retryStrategy"]["backoff"] = {"duration": "1s"}
    cluster.api.apply(template, manager="platform-team")
    cluster.api.merge(checks.one("CronWorkflow"), {"spec": {"suspend": True}})
    return Checks(checks, certificate)


# ---- what is installed


def test_the_api_server_accepts_everything_strictly_and_without_warnings(
    cluster: ClusterUnderTest, environment: Environment
) -> None:
    made = DriftChecks(cluster, environment, "https://git.example.com/x.git")
    try:
        said = made.install()
        assert said == dict.fromkeys(said, ())
        for name in ("CronWorkflow scepsy-drift", "WorkflowTemplate scepsy-drift", "PriorityClass scepsy-engine"):
            assert name in said
        # Of Argo Events there are no CRDs here; the Workflow that its Sensor makes is tried below.
        assert {item["kind"] for item in made.installed} - {name.split()[0] for name in said} == {
            "EventSource",
            "Sensor",
        }
    finally:
        made.remove()


CLUSTER: set[Permission] = {
    ("", "nodes", "list"),
    ("", "nodes", "watch"),
    ("resource.k8s.io", "resourceslices", "list"),
    ("resource.k8s.io", "deviceclasses", "list"),
}
ENGINES: set[Permission] = {("", "pods", "list"), ("resource.k8s.io", "resourceclaims", "list")}
APPLICATION: set[Permission] = {("argoproj.io", "applications", "get")}
START: set[Permission] = {("argoproj.io", "workflows", "create")}


def test_a_check_may_look_and_report_and_nothing_else(checks: DriftChecks, cluster: ClusterUnderTest) -> None:
    api = checks.account("scepsy-drift")
    assert {where: allowed(api, where) - CLUSTER for where in where(checks, cluster)} == {
        checks.namespace: RESULTS,
        checks.environment.namespace: ENGINES,
        cluster.argocd: APPLICATION,
        checks.events.namespace: set(),
        "default": set(),
        "kube-system": set(),
    }
    assert allowed(api, "default") == CLUSTER


def test_who_tells_may_start_a_check_and_who_listens_nothing(checks: DriftChecks, cluster: ClusterUnderTest) -> None:
    sensor = checks.one("Sensor")["spec"]["template"]["serviceAccountName"]
    source = checks.one("EventSource")["spec"]["template"]["serviceAccountName"]
    for account, may in ((sensor, START), (source, set())):
        api = checks.events.account(account)
        assert {where for where in where(checks, cluster) if allowed(api, where)} == (
            {checks.namespace} if may else set()
        )
        assert allowed(api, checks.namespace) == may


def where(checks: DriftChecks, cluster: ClusterUnderTest) -> tuple[str, ...]:
    here = (checks.namespace, checks.events.namespace, checks.environment.namespace, cluster.argocd)
    return (*here, "default", "kube-system")


def test_that_is_enough_for_what_drift_reads(
    checks: DriftChecks, cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = checks.environment.project
    cluster.with_nodes(project.cluster)
    checks.account("scepsy-drift")
    monkeypatch.setenv("KUBECONFIG", str(checks.kubeconfig("scepsy-drift")))
    reader = Kubernetes()
    seen = {node["metadata"]["name"] for node in inventory.read(reader).nodes}
    assert seen >= {node.name for node in project.cluster.spec.nodes}
    objects.read(reader, project.namespace, (cluster.argocd, checks.environment.name))


def test_however_much_is_told_there_is_one_check_of_it_at_a_time(checks: DriftChecks) -> None:
    sensor = checks.one("Sensor")
    [trigger] = sensor["spec"]["triggers"]
    made = trigger["template"]["k8s"]["source"]["resource"]
    api = checks.events.account(sensor["spec"]["template"]["serviceAccountName"])
    path = api.path(ARGO, "Workflow", made["metadata"]["namespace"])
    api.request("POST", path, made, fieldValidation="Strict")
    with pytest.raises(ApiError) as again:
        api.request("POST", path, made, fieldValidation="Strict")
    assert again.value.status == 409


# ---- how it runs


def test_a_schedule_that_is_due_checks_and_says_what_it_found(
    argo: Checks, checks: DriftChecks, cluster: ClusterUnderTest
) -> None:
    checks.environment.project.push()
    checks.environment.synced_and_healthy()
    # Every minute, so that it is due soon.
    cron = checks.one("CronWorkflow")
    cron["spec"] |= {"schedules": ["* * * * *"], "suspend": False}
    cluster.api.apply(cron, manager="platform-team")

    [made] = argo.until(lambda: argo.workflows() or None, lambda _: None, within=90)
    cluster.api.merge(cron, {"spec": {"suspend": True}})
    ended = argo.finish(made["metadata"]["name"], argo.really)

    assert ended["status"]["phase"] == "Succeeded", argo.explain()
    assert ended["metadata"]["labels"]["workflows.argoproj.io/cron-workflow"] == "scepsy-drift"
    assert found(ended)["drift"] == "0"
    assert "No drift (" in found(ended)["report"]
    assert_restricted(*argo.seen.values())

    # A node is cordoned.
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-a"}}
    cluster.api.merge(node, {"spec": {"unschedulable": True}})
    argo.start("again")
    ended = argo.finish("again", argo.really)
    cluster.api.merge(node, {"spec": {"unschedulable": None}})

    # As gitops/README.md has it.
    shown = [line.strip() for line in README.read_text().splitlines() if line.startswith("    kubectl get workflow")]
    assert len(shown) == 2
    for line, wanted in zip(shown, ("again Succeeded 1", found(ended)["report"]), strict=True):
        command = line.replace("NAME -n", "again -n").replace("-n llm-serving-drift", f"-n {checks.namespace}")
        said = subprocess.run(
            ["sh", "-c", command.replace("kubectl", str(cluster.programs["kubectl"]), 1)],
            # Where kubectl keeps what it learned of the server.
            env={"PATH": os.environ["PATH"], "HOME": str(cluster.directory), "KUBECONFIG": str(cluster.kubeconfig)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert " ".join(wanted.split()) in " ".join(said.stdout.split())

    # That there is drift is no failure of the check.
    assert ended["status"]["phase"] == "Succeeded", argo.explain()
    assert found(ended)["drift"] == "1"
    assert "gpu-a" in found(ended)["report"]
    assert not [c for c in ended["status"].get("conditions", []) if c["type"] == "MetricsError"]


def assert_restricted(pod: Object) -> None:
    spec = pod["spec"]
    assert spec["serviceAccountName"] == "scepsy-drift"
    assert spec["activeDeadlineSeconds"] == 1200
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    containers = {c["name"]: c["securityContext"] for c in [*spec["initContainers"], *spec["containers"]]}
    assert set(containers) == {"init", "wait", "main"}
    assert all(c["allowPrivilegeEscalation"] is False for c in containers.values())
    assert containers["main"]["readOnlyRootFilesystem"] is True
    [secret] = [volume["secret"] for volume in spec["volumes"] if volume["name"] == "secrets"]
    assert (secret["secretName"], secret["optional"]) == ("scepsy-drift", True)


def found(workflow: Object) -> dict[str, str]:
    """Return what a check found, where `kubectl get workflows` can show it."""
    return outputs(workflow["status"])


def test_what_could_not_look_is_tried_once_more_and_then_has_failed(argo: Checks) -> None:
    argo.start("helped")
    assert argo.finish("helped", ends(FAILED, DRIFT))["status"]["phase"] == "Succeeded"

    argo.start("failed")
    ended = argo.finish("failed", ends(FAILED, FAILED))
    assert ended["status"]["phase"] == "Failed"
    assert len(argo.seen) == 4


def test_a_check_that_is_told_of_waits_for_the_scheduled_one(argo: Checks, checks: DriftChecks) -> None:
    argo.start("first")
    argo.until(lambda: argo.pods("workflows.argoproj.io/workflow"), lambda _: None)
    told = checks.one("Sensor")["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
    argo.api.apply(told)

    def waits() -> bool:
        nodes = argo.workflow("scepsy-drift-told").get("status", {}).get("nodes", {}).values()
        return any("Mutex/scepsy-drift" in n.get("synchronizationStatus", {}).get("waiting", "") for n in nodes)

    argo.until(waits, lambda _: None)
    assert len(argo.pods("workflows.argoproj.io/workflow")) == 1
    assert argo.finish("first", lambda _: NONE)["status"]["phase"] == "Succeeded"
    ended = argo.finish("scepsy-drift-told", lambda _: NONE)
    assert ended["status"]["phase"] == "Succeeded"
    # It makes room for the next one before the others do.
    assert ended["status"]["storedWorkflowTemplateSpec"]["ttlStrategy"]["secondsAfterCompletion"] == 600


# ---- what Argo CD tells


def ago(minutes: int) -> str:
    """Stand for a time before now; collecting the tests may take a while."""
    return f"{minutes} minutes ago"


def at(text: str) -> str:
    """Write such times as Kubernetes does."""
    now = datetime.now(UTC)
    moment = lambda found: (now - timedelta(minutes=int(found[1]))).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: E731
    return re.sub(r"(\d+) minutes ago", moment, text)


DONE = {"phase": "Succeeded", "startedAt": ago(100), "finishedAt": ago(90), "syncResult": {"revision": "a"}}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({}, ""),
        ({"operationState": {"phase": "Running", "startedAt": ago(1)}}, ""),
        ({"operationState": {"phase": "Running", "startedAt": ago(1), "retryCount": 2}}, ""),
        ({"operationState": {"phase": "Running", "startedAt": ago(1), "retryCount": 3}}, "sync"),
        ({"operationState": {"phase": "Failed", "startedAt": ago(1)}}, "sync"),
        ({"health": {"status": "Healthy", "lastTransitionTime": ago(5)}, "operationState": DONE}, ""),
        ({"health": {"status": "Degraded", "lastTransitionTime": ago(1)}}, ""),
        ({"health": {"status": "Degraded", "lastTransitionTime": ago(3)}}, "health"),
        ({"health": {"status": "Missing", "lastTransitionTime": ago(3)}}, "health"),
        ({"health": {"status": "Degraded"}}, ""),
        ({"sync": {"status": "Synced", "revision": "a"}, "operationState": DONE}, ""),
        # A new commit, which is about to be synced.
        ({"sync": {"status": "OutOfSync", "revision": "b"}, "operationState": DONE}, ""),
        ({"sync": {"status": "OutOfSync", "revision": "a"}, "operationState": DONE}, "out of sync"),
        (
            {"sync": {"status": "OutOfSync", "revision": "a"}, "operationState": {**DONE, "finishedAt": ago(1)}},
            "",
        ),
    ],
)
def test_argo_cd_tells_of_what_lasts(
    status: Object, told: str, cluster: ClusterUnderTest, environment: Environment, tmp_path: Path
) -> None:
    made = DriftChecks(cluster, environment, "https://git.example.com/x.git")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(made.one("ConfigMap")))
    application = {
        "apiVersion": ARGO,
        "kind": "Application",
        "metadata": {"name": "x", "namespace": "argocd"},
        "spec": {"project": "x", "source": {"repoURL": "https://git.example.com/x.git"}},
        "status": status,
    }
    (tmp_path / "application.yaml").write_text(at(json.dumps(application)))
    ran = subprocess.run(
        [
            *(cluster.programs["argocd"], "admin", "notifications", "trigger", "run", "on-scepsy-drift"),
            *("application.yaml", "--config-map", "settings.yaml", "--secret", ":empty"),
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr.strip() == ""
    _, *lines = ran.stdout.strip().splitlines()
    results = [line.split()[-1] for line in lines]
    assert dict(zip(("sync", "health", "out of sync"), results, strict=True)) == {
        name: str(name == told).lower() for name in ("sync", "health", "out of sync")
    }


# ---- one Application per cluster and namespace


@pytest.fixture
def applications(cluster: ClusterUnderTest, environment: Environment) -> Iterator[None]:
    """Argo CD's controller of ApplicationSets, in whose eyes this cluster has the name of the Cluster document."""
    name = "argocd-applicationset-controller"
    cluster.processes.start(
        name,
        cluster.programs["argocd"],
        f"--kubeconfig={cluster.kubeconfig}",
        f"--namespace={cluster.argocd}",
        f"--argocd-repo-server={cluster.reader}",
        "--repo-server-plaintext",
        *("--metrics-addr=127.0.0.1:0", "--probe-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0"),
        environment={
            "PATH": f"{cluster.programs.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(cluster.directory / "home"),
            "ARGOCD_BINARY_NAME": name,
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "NAMESPACE": cluster.argocd,
        },
    )
    known = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "cluster-under-test",
            "namespace": cluster.argocd,
            "labels": {"argocd.argoproj.io/secret-type": "cluster"},
        },
        "stringData": {
            "name": environment.project.cluster.metadata.name,
            "server": "https://kubernetes.default.svc",
            "config": "{}",
        },
    }
    cluster.api.apply(known)
    yield None
    cluster.api.delete(known)
    cluster.processes.stop_one(name)


def test_an_applicationset_makes_the_application_and_keeps_it_when_its_folder_goes(
    cluster: ClusterUnderTest, environment: Environment, applications: None, tmp_path: Path
) -> None:
    project = environment.project
    project.push()
    folder = tmp_path / "gitops"
    shutil.copytree(Path(__file__).resolve().parents[2] / "gitops", folder)
    settings = folder / "applicationset-example/environment.yaml"
    values = yaml.safe_load(settings.read_text())
    same = {key: environment.values[key] for key in ("repository", "revision", "namespace", "argocdNamespace")}
    settings.write_text(yaml.safe_dump({**values, "data": {**values["data"], **same, "name": "all"}}))
    built = subprocess.run(
        [cluster.programs["kubectl"], "kustomize", settings.parent], check=True, capture_output=True, text=True
    )
    items = list(yaml.safe_load_all(built.stdout))
    [made] = [item for item in items if item["kind"] == "ApplicationSet"]
    name = f"all-{project.cluster.metadata.name}-{project.namespace}"

    def application() -> Object | None:
        return cluster.api.get(ARGO, "Application", name, cluster.argocd)

    # The environment's own would share its objects.
    environment.delete()
    for item in items:
        assert cluster.api.apply(item, manager="platform-team").warnings == ()
    try:
        there = eventually(
            application, within=60, why=lambda: cluster.processes.log("argocd-applicationset-controller")
        )
        [expected] = [item["spec"] for item in environment.installed if item["kind"] == "Application"]
        destination = {"name": project.cluster.metadata.name, "namespace": project.namespace}
        assert told(there["spec"]) == told({**expected, "project": "all", "destination": destination})
        assert "finalizers" not in there["metadata"]
        eventually(
            lambda: (application() or {}).get("status", {}).get("health", {}).get("status"),
            within=60,
            why="Argo CD does not look at it",
        )

        git(project.directory, "rm", "-r", "--quiet", "rendered")
        project.commit("A mistake")
        refresh = {"metadata": {"annotations": {"argocd.argoproj.io/application-set-refresh": "true"}}}
        cluster.api.merge(made, refresh)

        log = lambda: cluster.processes.log("argocd-applicationset-controller")  # noqa: E731
        eventually(lambda: "generated 0 applications" in log(), within=60, why=log)
        assert application() is not None
    finally:
        cluster.api.delete(made, propagationPolicy="Background")
        cluster.api.delete(
            {"apiVersion": ARGO, "kind": "Application", "metadata": {"name": name, "namespace": cluster.argocd}}
        )
        [owner] = [item for item in items if item["kind"] == "AppProject"]
        cluster.api.delete(owner)


def told(value: object) -> object:
    """Return an object without what is no news: Argo CD leaves out what is false, and fills in what is empty."""
    if isinstance(value, dict):
        return {key: told(item) for key, item in value.items() if item not in (False, {}, None)}
    return value
