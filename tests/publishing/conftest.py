"""A project at a real Git server, for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Demo, git
from tests.publishing.git_server import GitServer, bare, serving


@pytest.fixture
def server(tmp_path: Path, git_home: Path) -> Iterator[GitServer]:
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def remote(server: GitServer) -> Path:
    return bare(server.root)


@pytest.fixture
def project(tmp_path: Path, server: GitServer, remote: Path, demo: Demo) -> Path:
    """The example, pushed, nothing compiled yet."""
    made = demo(tmp_path / "demo")
    git(made, "remote", "add", "origin", f"{server.url}/{remote.name}")
    git(made, "push", "-q", "-u", "origin", "main")
    return made


@pytest.fixture
def other(tmp_path: Path, project: Path) -> Path:
    """Another person's clone."""
    git(tmp_path, "clone", "-q", git(project, "remote", "get-url", "origin"), "other")
    return tmp_path / "other"
