"""The account of `gitops/observe`, installed beside an environment, as a program outside the cluster uses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

from tests.end_to_end.accounts import Accounts
from tests.end_to_end.api import Object
from tests.end_to_end.argocd import GITOPS
from tests.end_to_end.cluster import ClusterUnderTest

CONTEXT = "observer"


def installed(cluster: ClusterUnderTest, namespace: str, directory: Path) -> list[Object]:
    """Apply what `gitops/observe` builds to for a namespace; return the objects.

    Args:
        cluster: where.
        namespace: of the engines.
        directory: an empty one.
    """
    folder = directory / "gitops"
    shutil.copytree(GITOPS, folder)
    settings = folder / "example/environment.yaml"
    config = yaml.safe_load(settings.read_text())
    config["data"] |= {"namespace": namespace, "argocdNamespace": cluster.argocd}
    settings.write_text(yaml.safe_dump(config))
    kustomization = folder / "example/kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("  - ../namespace\n  - ../argocd\n", "  - ../observe\n"))
    command = [cluster.programs["kubectl"], "kustomize", folder / "example"]
    built = subprocess.run(command, check=True, capture_output=True, text=True)
    items = list(yaml.safe_load_all(built.stdout))
    for item in items:
        cluster.api.apply(item)
    return items


def kubeconfig(cluster: ClusterUnderTest, namespace: str, directory: Path) -> Path:
    """Return a kubeconfig with a token of the account, in a context named `CONTEXT`."""
    accounts = Accounts(cluster, namespace, directory)
    accounts.account("scepsy-observe")
    path = accounts.kubeconfig("scepsy-observe")
    made = yaml.safe_load(path.read_text())
    made["contexts"][0]["name"] = made["current-context"] = CONTEXT
    path.write_text(yaml.safe_dump(made))
    return path
