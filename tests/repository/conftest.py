"""A real Git repository for each test, and a git of which nothing of this machine's settings is visible."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Git = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (home / ".gitconfig").write_text(
        "[user]\n name = Ada Lovelace\n email = ada@example.com\n[init]\n defaultBranch = main\n"
        '[protocol "file"]\n allow = always\n'
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one commit: a spec and a file that is none of our business."""
    root = tmp_path / "repo"
    root.mkdir()
    run(root, "init", "-q")
    (root / "spec.yaml").write_bytes(b"rate: 4\n")
    (root / "notes.txt").write_bytes(b"theirs\n")
    run(root, "add", ".")
    run(root, "commit", "-q", "-m", "Add the spec")
    return root


@pytest.fixture
def git(root: Path) -> Git:
    """Run git in the repository, as its user would."""
    return lambda *arguments, **options: run(options.get("at", root), *arguments)


def run(at: Path, *arguments: str) -> str:
    """Run git, fail the test when it fails, and return what it printed."""
    done = subprocess.run(["git", *arguments], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")
