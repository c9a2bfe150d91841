"""Many compilers for long, and runs that are killed at any moment: not part of `make test`, see `make test-push`."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Scepsy, git
from tests.publishing.concurrent_compilers import check_history, crowd
from tests.publishing.git_server import GitServer
from tests.publishing.project_edits import WORKFLOW, commit_all, push

from scepsy.cli import main

KILLS = int(os.environ.get("SCEPSY_TEST_KILLS", "200"))
COMPILERS, CHANGES = 8, int(os.environ.get("SCEPSY_TEST_CHANGES", "25"))


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a figure where it is seen."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return say


def test_eight_compilers_push_twenty_five_changes_each(
    tmp_path: Path, project: Path, remote: Path, scepsy: Scepsy, tell: Callable[[str], None]
) -> None:
    push(scepsy, project)
    first, began = git(remote, "rev-parse", "main"), time.monotonic()
    (tmp_path / "clones").mkdir()
    attempts = crowd(tmp_path / "clones", git(project, "remote", "get-url", "origin"), COMPILERS, CHANGES)
    assert len(attempts) == COMPILERS * CHANGES
    check_history(remote, first, COMPILERS, CHANGES)
    commits = int(git(remote, "rev-list", "--count", f"{first}..main"))
    tell(
        f"{COMPILERS} compilers x {CHANGES} changes: {commits} commits in a line, none lost; {sum(attempts)} attempts,"
        f" at most {max(attempts)} for one; {time.monotonic() - began:.0f} s"
    )


def descendants(process: int) -> list[int]:
    """Return the processes that a process started, and those that they did."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def started(project: Path, branch: list[str]) -> int:
    """Fork a run of the command; return its process id."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(null, handle)
        sys.argv = ["scepsy", "compile", "--project", str(project), "--commit", "--push", *branch]
        try:
            main()
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 0)
        finally:
            os._exit(99)
    return child


def kill(process: int, with_children: bool) -> None:
    """Kill it, alone or with all that it started, as when a pod ends."""
    os.kill(process, signal.SIGSTOP)
    for one in reversed(descendants(process) if with_children else [process]):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.waitpid(process, 0)


def check_whole(project: Path, remote: Path, branch: str, before: dict[str, Any]) -> str:
    """Check that everything is as before, or as after; return which."""
    there = git(remote, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
    git(remote, "fsck", "--no-dangling", "--connectivity-only")
    if there != before["there"]:
        assert git(remote, "log", "-1", "--format=%s", there) == "Compile one-node"
        source = git(remote, "log", "-1", "--format=%(trailers:key=Argocd-reference-commit-sha,valueonly)", there)
        assert source == before["base"]
        assert git(remote, "rev-list", "--count", there) == str(before["count"] + 1)
    head = git(project, "rev-parse", "HEAD")
    assert head in (before["head"], before["base"], there)
    assert (git(project, "symbolic-ref", "HEAD"), git(project, "rev-parse", "main")) == ("refs/heads/main", head)
    git(project, "fsck", "--no-dangling", "--connectivity-only")
    if there and branch == "main":
        # Each file is whole: as it was, or as it will be.
        allowed: dict[str, set[str]] = {}
        for place, commit in ((project, before["head"]), (before["at"], before["base"]), (remote, there)):
            for line in git(place, "ls-tree", "-r", commit).splitlines():
                about, _, name = line.partition("\t")
                allowed.setdefault(name, set()).add(about.split()[2])
        for name, hashes in allowed.items():
            if (project / name).is_file():
                assert git(project, "hash-object", "--no-filters", name) in hashes, name
    return "after" if there != before["there"] else "before"


def test_runs_that_are_killed_leave_before_or_after_and_the_next_just_works(
    project: Path,
    other: Path,
    remote: Path,
    server: GitServer,
    scepsy: Scepsy,
    tell: Callable[[str], None],
) -> None:
    push(scepsy, project)
    dice, seen = random.Random(7), Counter[str]()
    began = time.monotonic()
    usual = 1.5
    for number in range(KILLS):
        kind = ("behind", "ahead", "environment")[number % 3]
        at = other if kind == "behind" else project
        git(at, "fetch", "-q")
        git(at, "reset", "-q", "--hard", "origin/main")
        with (at / WORKFLOW).open("a") as file:
            file.write(f"# {number}\n")
        commit_all(at, f"Change {number}")
        if kind != "ahead":
            git(at, "push", "-q", "origin", "HEAD:main")
        branch = "environments/x" if kind == "environment" else "main"
        there = git(remote, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        start = git(at, "rev-parse", "HEAD") if branch == "main" else there
        before = {
            "at": at,
            "head": git(project, "rev-parse", "HEAD"),
            "base": git(at, "rev-parse", "HEAD"),
            "there": there,
            "count": int(git(at if branch == "main" else remote, "rev-list", "--count", start)) if start else 0,
        }
        options = ["--branch", branch] if branch != "main" else []
        process, since = started(project, options), time.monotonic()
        time.sleep(dice.uniform(0.0, usual * 1.1))
        done = os.waitpid(process, os.WNOHANG)[0] != 0
        if not done:
            kill(process, with_children=bool(number % 2))
        time.sleep(0.05)  # what it started may still end
        outcome = check_whole(project, remote, branch, before)
        seen["done" if done else outcome] += 1
        if done:
            usual = 0.9 * usual + 0.1 * min(usual, time.monotonic() - since)
        locks = sorted(p.name for p in (*(project / ".git").glob("*.lock"), *(project / ".git/refs").rglob("*.lock")))
        seen.update(f"with {name}" for name in locks)
        result = push(scepsy, project, *options)
        assert result["left"] == "", (number, kind, result["left"])
        assert git(project, "status", "--porcelain") == "", (number, kind)
        assert not [*(project / ".git").glob("*.lock"), *(project / ".git/refs").rglob("*.lock")]
        assert not (project / ".git/scepsy").exists()
        head = git(project, "rev-parse", "HEAD")
        assert head == (git(remote, "rev-parse", "main") if branch == "main" else before["head"])
        if branch == "main":
            assert int(git(remote, "rev-list", "--count", "main")) == before["count"] + 1
        assert int(git(remote, "rev-list", "--count", "--merges", "main")) == 0
    assert not (project / ".git/scepsy-push").exists()
    told = ", ".join(f"{count} {name}" for name, count in sorted(seen.items()))
    tell(f"{KILLS} runs killed at a random moment: {told}; every next run worked; {time.monotonic() - began:.0f} s")
    assert seen["before"]
    assert seen["after"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scepsy.publishing.push._FIRST", 0.02)
