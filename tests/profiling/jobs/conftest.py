"""The server, and ways to reach it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.profiling.jobs.argo_api import TOKEN, FakeArgo

from scepsy.profiling.jobs import argo_client as clients


@pytest.fixture
def argo() -> Iterator[FakeArgo]:
    made = FakeArgo()
    yield made
    made.close()


@pytest.fixture
def kubeconfig(argo: FakeArgo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with two contexts: `here` is the server, `elsewhere` nothing."""
    for name in ("ARGO_SERVER", "ARGO_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, argo.url)
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def write_kubeconfig(path: Path, url: str, token: str = TOKEN) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": url}},
            {"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
            {"name": "elsewhere", "context": {"cluster": "nowhere", "user": "u"}},
        ],
        "current-context": "here",
    }
    path.write_text(json.dumps(config))


@pytest.fixture(params=["kubernetes", "argo-server"])
def jobs(request: pytest.FixtureRequest, argo: FakeArgo, kubeconfig: Path) -> clients.Jobs:
    """Both clients, with a clock that does not wait."""
    waits = Waits()
    clock = clients.Clock(waits.now, waits.sleep)
    made: clients.Jobs
    if request.param == "kubernetes":
        made = clients.KubernetesJobs(clock=clock)
    else:
        made = clients.ArgoJobs(argo.url, TOKEN, clock=clock)
    made.waits = waits  # type: ignore[attr-defined]
    return made


class Waits(list[float]):
    """A clock that only passes when a caller waits, and notes how long."""

    def now(self) -> float:
        return sum(self)

    def sleep(self, seconds: float) -> None:
        self.append(seconds)
