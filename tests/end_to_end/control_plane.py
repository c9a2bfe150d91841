"""Kubernetes without machines: etcd, the API server, the scheduler, the controllers, and kwok in place of kubelets."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import yaml
from kubernetes.config import ConfigException

from tests.end_to_end.api import Api, ApiError
from tests.end_to_end.processes import Processes, free_ports, listens
from tests.end_to_end.programs import Programs

STAGES = Path(__file__).parent / "stages.yaml"
LOOPBACK = "127.0.0.1"


def start(programs: Programs, processes: Processes, directory: Path) -> Path:
    """Start Kubernetes on loopback, with everything it writes in a directory.

    Returns:
        a kubeconfig of an administrator.
    """
    client, peer, secure, scheduler, controllers = free_ports(5)
    etcd = f"http://{LOOPBACK}:{client}"
    kubeconfig = directory / "kubeconfig"
    token = secrets.token_urlsafe(24)
    certificates = directory / "certificates"
    _write_kubeconfig(kubeconfig, f"https://{LOOPBACK}:{secure}", certificates / "apiserver.crt", token)
    private, public = _account_keys(directory)
    tokens = directory / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f'{token},admin,admin,"system:masters"\n', encoding="utf-8")
    processes.start(
        "etcd",
        programs["etcd"],
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        f"--listen-peer-urls=http://{LOOPBACK}:{peer}",
        # Nothing here outlives the tests.
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    processes.ready("etcd", listens(client))
    processes.start(
        "kube-apiserver",
        programs["kube-apiserver"],
        f"--etcd-servers={etcd}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        # No endpoints of the Service `kubernetes`: they may not be of loopback, and nothing here would use them.
        "--endpoint-reconciler-type=none",
        f"--secure-port={secure}",
        f"--cert-dir={certificates}",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        # Room for the Services of thousands of instances.
        "--service-cluster-ip-range=10.96.0.0/16",
    )
    processes.ready("kube-apiserver", lambda: is_ready(kubeconfig))
    processes.start(
        "kube-scheduler",
        programs["kube-scheduler"],
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={scheduler}",
    )
    processes.start(
        "kube-controller-manager",
        programs["kube-controller-manager"],
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={controllers}",
        f"--service-account-private-key-file={private}",
        f"--root-ca-file={certificates / 'apiserver.crt'}",
    )
    play_nodes(programs, processes, kubeconfig, "fake")
    return kubeconfig


def play_nodes(programs: Programs, processes: Processes, kubeconfig: Path, kind: str) -> str:
    """Start a kwok that plays the nodes of a kind (their annotation); return the process' name."""
    name = f"kwok-{kind}"
    processes.start(
        name,
        programs["kwok"],
        f"--kubeconfig={kubeconfig}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node={kind}",
        f"--node-ip={LOOPBACK}",
        # Without leases the node controller finds its nodes dead after 40 s.
        "--node-lease-duration-seconds=40",
        f"--config={STAGES}",
    )
    return name


def is_ready(kubeconfig: Path) -> bool:
    """Tell whether the API server behind a kubeconfig serves."""
    try:
        return Api(kubeconfig).request("GET", "/readyz").body == {"text": "ok"}
    except (ApiError, ConfigException) as error:  # no certificate yet, or not all of it is ready
        raise ConnectionError(str(error)) from error


def _write_kubeconfig(path: Path, server: str, certificate: Path, token: str) -> None:
    # The API server signs a certificate for itself when it starts.
    cluster = {"server": server, "certificate-authority": str(certificate)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "current-context": "tests",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _account_keys(directory: Path) -> tuple[Path, Path]:
    """Make the key pair that signs tokens of service accounts."""
    private, public = directory / "accounts.key", directory / "accounts.pub"
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True)
    subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public
