"""A remote that is down, slow, forgetful, or refuses; a disk that is full, or cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Scepsy, git
from tests.publishing.git_server import ASK, FETCH, PUSH, Fault, GitServer, hook
from tests.publishing.project_edits import WORKFLOW, commit_all, edit, push, state
from tests.small_disk import mounted

from scepsy.publishing.remote import Remote
from scepsy.publishing.transport import _failure
from scepsy.repository.git import RemoteOutput


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scepsy.publishing.push._FIRST", 0.01)


TELLING = [
    ("401", [(ASK, 401)], "rejects the credentials (401)"),
    ("403", [(ASK, 403)], "denies access (403)"),
    ("403 on push", [("service=git-receive-pack", 403)], "denies access (403)"),
    ("404", [(ASK, 404)], "has no such repository"),
    ("503", [(ASK, 503)] * 3, "is unavailable"),
    ("503 on push", [("/git-receive-pack", 503)] * 4, "is unavailable"),
    ("a page", [(ASK, "page")] * 9, "is not a Git repository"),
    ("a page on push", [("service=git-receive-pack", "page")] * 9, "is not a Git repository"),
    ("a line on push", [("service=git-receive-pack", "line")] * 9, "is not a Git repository"),
    ("slow", [(ASK, "slow")], "did not answer within 1 s"),
    ("slow on push", [("/git-receive-pack", "slow")], "did not answer within 1 s"),
    ("dropped", [("/git-receive-pack", "drop")] * 9, "is unavailable"),
]


@pytest.mark.parametrize(("faults", "message"), [t[1:] for t in TELLING], ids=[t[0] for t in TELLING])
def test_what_the_remote_does_is_told_nothing_changed_and_the_next_run_works(
    project: Path, remote: Path, server: GitServer, scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch,
    faults: list[tuple[str, Fault]], message: str,
) -> None:  # fmt: skip
    if "slow" in dict(faults).values():
        monkeypatch.setenv("SCEPSY_GIT_TIMEOUT", "1")
    before, there = state(project), git(remote, "rev-parse", "main")
    server.faults = list(faults)
    error = push(scepsy, project, code=1)["error"]
    assert error["message"].startswith(f"origin ({server.url}/specs.git) {message}"), error
    assert error["hint"]
    server.faults = []
    assert (state(project), git(remote, "rev-parse", "main")) == (before, there)
    monkeypatch.delenv("SCEPSY_GIT_TIMEOUT", raising=False)
    assert push(scepsy, project)["pushed"]["commit"] == git(remote, "rev-parse", "main")


def test_what_git_says_and_nobody_foresaw_is_told_with_what_to_look_at() -> None:
    remote = Remote("origin", "https://git.acme.com/a/b", "https")
    error = _failure(remote, RemoteOutput(128, "", "fatal: the disc is upside down\n"))
    assert error.message == ("origin (https://git.acme.com/a/b) could not be used\n    fatal: the disc is upside down")
    assert error.hint == "check the address; see the output of: git ls-remote origin"


@pytest.mark.parametrize(("where", "fault"), [(ASK, 503), (ASK, "drop"), (FETCH, 429), (FETCH, "drop"), (PUSH, 503)])
def test_a_fault_that_passes_is_passed_over(
    project: Path, other: Path, remote: Path, server: GitServer, scepsy: Scepsy, where: str, fault: Fault
) -> None:
    edit(other / "README.md", "", "Theirs.\n")
    commit_all(other, "Theirs")
    git(other, "push", "-q")
    server.faults = [(where, fault)]
    push(scepsy, project)
    assert server.faults == []
    assert git(remote, "log", "--format=%s", "main").splitlines()[:2] == ["Compile one-node", "Theirs"]


def test_a_push_whose_answer_is_lost_is_found_to_be_done(
    project: Path, remote: Path, server: GitServer, scepsy: Scepsy
) -> None:
    count = int(git(remote, "rev-list", "--count", "main"))
    server.faults = [("/git-receive-pack", "lost")]
    result = push(scepsy, project)
    assert result["pushed"]["commit"] == git(remote, "rev-parse", "main") == git(project, "rev-parse", "HEAD")
    assert int(git(remote, "rev-list", "--count", "main")) == count + 1


@pytest.mark.parametrize(("name", "words"), [
    ("pre-receive", "pre-receive hook declined"),
    ("update", "hook declined"),
])  # fmt: skip
def test_a_branch_that_needs_a_review_is_named_with_a_way_out(
    project: Path, remote: Path, scepsy: Scepsy, name: str, words: str
) -> None:
    hook(remote, name, "echo 'GH006: Protected branch update failed for refs/heads/main.'; printf '\\033[2J'; exit 1")
    before, there = state(project), git(remote, "rev-parse", "main")
    error = push(scepsy, project, code=1)["error"]
    assert error["message"].startswith(f"origin rejects commits on the branch main: {words}")
    assert "GH006: Protected branch update failed for refs/heads/main." in error["message"]
    assert "\033" not in error["message"]
    assert "--branch" in error["hint"]
    assert (state(project), git(remote, "rev-parse", "main")) == (before, there)
    (remote / "hooks" / name).unlink()
    push(scepsy, project)


def test_a_remote_that_is_down_is_told_soon(project: Path, scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[int] = []
    monkeypatch.setattr("scepsy.publishing.push._pause", lambda attempt: pauses.append(attempt) or 0.0)
    git(project, "remote", "set-url", "origin", "http://127.0.0.1:9/specs.git")
    before = state(project)
    error = push(scepsy, project, code=1)["error"]
    assert error["message"].startswith("origin (http://127.0.0.1:9/specs.git) is unavailable")
    assert error["hint"] == "re-run when it is available"
    assert pauses == [1, 2]
    assert state(project) == before


def test_somebody_who_is_always_faster_is_given_way_to_in_the_end(
    project: Path, other: Path, server: GitServer, scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scepsy.publishing.push.ATTEMPTS", 2)

    def faster() -> None:
        git(other, "commit", "-q", "--allow-empty", "-m", "Faster")
        git(other, "push", "-q")

    usual = server.fault
    monkeypatch.setattr(server, "fault", lambda path: faster if _is_ours(path, server) else usual(path))
    before = state(project)
    error = push(scepsy, project, code=1)["error"]
    assert (
        "gave up after 2 attempts: each time another push moved main at origin first; nothing was changed"
        in error["message"]
    )
    assert state(project) == before


def _is_ours(path: str, server: GitServer) -> bool:
    # Every second push is the other person's, which must get through.
    if not path.endswith("/git-receive-pack"):
        return False
    server.turn = not getattr(server, "turn", False)  # type: ignore[attr-defined]
    return bool(server.turn)  # type: ignore[attr-defined]


def test_a_timeout_that_is_no_number_is_said(project: Path, scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCEPSY_GIT_TIMEOUT", "soon")
    assert "SCEPSY_GIT_TIMEOUT is 'soon', not a number of seconds" in push(scepsy, project, code=1)["error"]["message"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    with mounted(tmp_path / "disk", "2m") as disk:
        yield disk


def test_on_a_full_disk_nothing_changes_and_with_room_it_works(
    project: Path, remote: Path, small_disk: Path, scepsy: Scepsy
) -> None:
    git(small_disk, "clone", "-q", git(project, "remote", "get-url", "origin"), "demo")
    demo, filler = small_disk / "demo", small_disk / "filler"
    told = set()
    for room in (0, 8, 64, 128, 192, 256, 320):
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        before, there = state(demo), git(remote, "rev-parse", "main")
        filler.write_bytes(b"x" * max(0, free - room * 1024))
        ran = scepsy("compile", "--project", demo, "--commit", "--push")
        if ran.code != 0:
            assert (state(demo), git(remote, "rev-parse", "main")) == (before, there), ran.err
            assert "Traceback" not in ran.err
            told.update(words for words in ("No space left on device", "disk is full") if words in ran.err)
        elif "Your checkout was not updated" in ran.out:
            assert state(demo)[:2] == before[:2]
        filler.unlink()
    assert told
    assert push(scepsy, demo)["left"] == ""
    assert git(demo, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")
    assert git(demo, "status", "--porcelain") == ""


def test_a_tree_that_cannot_be_written_is_told(project: Path, remote: Path, scepsy: Scepsy, tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", project, project], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here: " + mounted.stderr.decode().strip())
    try:
        there = git(remote, "rev-parse", "main")
        error = push(scepsy, project, code=1)["error"]
    finally:
        subprocess.run(["umount", project], check=True)
    assert "Read-only file system; nothing was pushed or changed" in error["message"]
    assert git(remote, "rev-parse", "main") == there


def test_a_second_push_from_the_same_checkout_is_told_to_wait(project: Path, scepsy: Scepsy) -> None:
    from scepsy.publishing.scratch_worktree import scratch_directory  # noqa: PLC0415
    from scepsy.repository import open_worktree  # noqa: PLC0415

    with scratch_directory(open_worktree(project)):
        assert "another scepsy process pushes from" in push(scepsy, project, code=1)["error"]["message"]
    push(scepsy, project)


def test_ctrl_c_while_the_remote_is_slow_changes_nothing(project: Path, server: GitServer) -> None:
    before = state(project)
    server.faults = [("/git-receive-pack", "slow")]
    command = [sys.executable, "-m", "scepsy", "compile", "--project", str(project), "--commit", "--push"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while server.faults:
        time.sleep(0.02)
    process.send_signal(2)
    assert "interrupted" in process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert state(project) == before


def test_a_run_that_died_while_it_brought_the_checkout_forward_is_finished_by_the_next(
    project: Path, other: Path, remote: Path, scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(other / WORKFLOW, "12/s", "3/s")
    commit_all(other, "Less")
    git(other, "push", "-q")

    def dies(*arguments: object) -> None:
        os._exit(1)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr("scepsy.publishing.fast_forward.advance", dies)
        try:
            push(scepsy, project)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert "3/s" in (project / WORKFLOW).read_text()
    assert git(project, "log", "-1", "--format=%s").startswith("Start from")
    git(other, "pull", "-q")
    edit(other / WORKFLOW, "3/s", "4/s")
    commit_all(other, "More")
    git(other, "push", "-q")
    result = push(scepsy, project)
    assert (result["left"], "pushed" in result) == ("", True)
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")
