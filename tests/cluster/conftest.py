"""The server, and a kubeconfig for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.kubernetes_api import FakeKubernetes
from tests.profiling.jobs.conftest import write_kubeconfig


@pytest.fixture
def world() -> Iterator[FakeKubernetes]:
    made = FakeKubernetes()
    yield made
    made.close()


@pytest.fixture
def kubeconfig(world: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with two contexts: `here` is the server, `elsewhere` nothing."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, world.url)
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path
