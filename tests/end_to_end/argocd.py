"""Argo CD without its web server: the part that reads Git and the part that syncs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.end_to_end.api import Api
from tests.end_to_end.processes import Processes, free_ports, listens
from tests.end_to_end.programs import Programs

GITOPS = Path(__file__).resolve().parents[2] / "gitops"
# Of the ConfigMap argocd-cmd-params-cm: what Argo CD's own Deployments read their environment from.
PARAMETERS = {"controller.sync.timeout.seconds": "ARGOCD_APPLICATION_CONTROLLER_SYNC_TIMEOUT"}


def start(programs: Programs, processes: Processes, directory: Path, kubeconfig: Path, namespace: str) -> str:
    """Start Argo CD against a cluster; it serves the Applications of one namespace.

    It is installed as its own manifests say, and then as `gitops/installation` says.

    Returns:
        The address of its part that reads Git.
    """
    api = Api(kubeconfig)
    parameters = install(api, programs, namespace)
    redis, repository, repository_metrics, controller_metrics = free_ports(4)
    home = directory / "home"
    for folder in (home / ".kube", directory / "tls", directory / "ssh", directory / "tmp"):
        folder.mkdir(parents=True)
    shutil.copyfile(kubeconfig, home / ".kube" / "config")
    # Git of the machine may know credentials, hooks and rewritten URLs; none of it is for here.
    (home / ".gitconfig").write_text("[safe]\n directory = *\n", encoding="utf-8")
    environment = {
        "PATH": f"{programs.bin}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(directory / "tmp"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "KUBECONFIG": str(kubeconfig),
        # "https://kubernetes.default.svc" is then the cluster of the kubeconfig.
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_TLS_DATA_PATH": str(directory / "tls"),
        "ARGOCD_SSH_DATA_PATH": str(directory / "ssh"),
        "ARGOCD_ASK_PASS_SOCK": str(directory / "ask"),
        **parameters,
    }
    processes.start("redis", "redis-server", "--bind", "127.0.0.1", "--port", redis, "--save", "", "--dir", directory)
    processes.ready("redis", listens(redis))
    processes.start(
        "argocd-repo-server",
        programs["argocd-repo-server"],
        "--address=127.0.0.1",
        f"--port={repository}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={repository_metrics}",
        f"--redis=127.0.0.1:{redis}",
        "--disable-tls",
        environment={**environment, "ARGOCD_NAMESPACE": namespace},
    )
    processes.ready("argocd-repo-server", listens(repository))
    processes.start(
        "argocd-application-controller",
        programs["argocd-application-controller"],
        f"--kubeconfig={kubeconfig}",
        f"--namespace={namespace}",
        f"--repo-server=127.0.0.1:{repository}",
        "--repo-server-plaintext",
        f"--redis=127.0.0.1:{redis}",
        f"--metrics-port={controller_metrics}",
        "--metrics-cache-expiration=0",
        environment=environment,
    )
    processes.ready("argocd-application-controller", listens(controller_metrics))
    return f"127.0.0.1:{repository}"


def install(api: Api, programs: Programs, namespace: str) -> dict[str, str]:
    """Apply CRDs and configuration, and return the environment that the configuration stands for."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for item in objects(programs.argocd_manifests / "crds"):
        # A cluster with an Argo CD of its own keeps its CRDs.
        if api.get(item["apiVersion"], item["kind"], item["metadata"]["name"]) is None:
            api.apply(item)
    shipped = objects(programs.argocd_manifests / "base/config")
    for item in [*shipped, *objects(GITOPS / "installation")]:
        manager = "argocd" if item in shipped else "scepsy"
        api.apply({**item, "metadata": {**item["metadata"], "namespace": namespace}}, manager=manager)
    given = (api.get("v1", "ConfigMap", "argocd-cmd-params-cm", namespace) or {}).get("data", {})
    return {variable: given[key] for key, variable in PARAMETERS.items() if key in given}


def objects(directory: Path, pattern: str = "*.yaml") -> list[dict[str, Any]]:
    """Return the objects in a folder's files, without those for kustomize."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(directory.glob(pattern))]
    # CRDs hold bare `=`, which YAML 1.1 gives a meaning that nobody wants.
    found = [item for text in texts for item in yaml.load_all(text, Loader=_Loader)]
    return [item for item in found if item and item["kind"] != "Kustomization"]


class _Loader(yaml.CSafeLoader):
    pass


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)
