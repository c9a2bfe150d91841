"""Several compilers push at once: a line of commits, and nobody's change is lost."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Scepsy, git
from tests.publishing.concurrent_compilers import check_history, crowd
from tests.publishing.project_edits import push


def test_three_compilers_push_two_changes_each(tmp_path: Path, project: Path, remote: Path, scepsy: Scepsy) -> None:
    push(scepsy, project)
    first = git(remote, "rev-parse", "main")
    (tmp_path / "clones").mkdir()
    attempts = crowd(tmp_path / "clones", git(project, "remote", "get-url", "origin"), 3, 2)
    print(f"attempts: {attempts}")
    assert len(attempts) == 6
    check_history(remote, first, 3, 2)
    assert push(scepsy, project)["left"] == ""
    assert scepsy("compile", "--project", project, "--check").code == 0
