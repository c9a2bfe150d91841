"""A commit on a branch of its own: HEAD, index and work tree stay as they are."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from tests.conftest import git

from scepsy.repository import CannotCommit, PathEscapes, commit_to_branch, holders, open_worktree

FILE = PurePosixPath("profiles/a.yaml")
FILES = {FILE: b"a: 1\n"}


@pytest.fixture
def repository(tmp_path: Path, git_home: Path) -> Path:
    directory = tmp_path / "repository"
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main")
    (directory / "scepsy.yaml").write_text("x\n")
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "-m", "First")
    return directory


def state(repository: Path) -> tuple[str, ...]:
    return tuple(git(repository, *words) for words in (("status", "--porcelain"), ("symbolic-ref", "HEAD"), ("rev-parse", "HEAD"), ("ls-files", "--stage")))  # fmt: skip


def test_a_commit_on_a_new_branch_starts_at_head_and_touches_nothing_else(repository: Path) -> None:
    (repository / "staged").write_text("mine")
    git(repository, "add", "staged")
    (repository / "scepsy.yaml").write_text("edited")
    hook = repository / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {repository}/.git/ran\n")
    hook.chmod(0o755)
    before = state(repository)
    made = commit_to_branch(open_worktree(repository), "profiles/new", FILES, "Profile x\n\nSaid-by: nobody\n")
    assert state(repository) == before
    assert git(repository, "rev-parse", "profiles/new", "profiles/new^") == f"{made}\n{before[2]}"
    assert git(repository, "ls-tree", "-r", "--name-only", made).split() == ["profiles/a.yaml", "scepsy.yaml"]
    assert git(repository, "show", f"{made}:profiles/a.yaml") == "a: 1"
    assert git(repository, "show", f"{made}:scepsy.yaml") == "x"
    assert git(repository, "log", "-1", "--format=%B%an", made) == "Profile x\n\nSaid-by: nobody\nAda Lovelace"
    assert not (repository / ".git" / "ran").exists()


def test_the_same_again_is_the_commit_that_is_there(repository: Path) -> None:
    made = commit_to_branch(open_worktree(repository), "b", FILES, "Profile")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Meanwhile")
    assert commit_to_branch(open_worktree(repository), "b", FILES, "Profile again") == made


def test_a_branch_with_something_else_is_never_moved(repository: Path) -> None:
    made = commit_to_branch(open_worktree(repository), "b", FILES, "Profile")
    for files in ({FILE: b"a: 2\n"}, {**FILES, PurePosixPath("profiles/b.yaml"): b"b: 1\n"}):
        with pytest.raises(CannotCommit, match="the branch b exists, with other content"):
            commit_to_branch(open_worktree(repository), "b", files, "Profile")
    assert git(repository, "rev-parse", "b") == made


@pytest.mark.parametrize("name", ["", "-f", "a..b", "a b", "x.lock", "@{-1}", "a\nb", "refs/heads/../x", "x/"])
def test_names_that_are_none_are_refused(repository: Path, name: str) -> None:
    with pytest.raises(CannotCommit, match="is not a valid branch name"):
        commit_to_branch(open_worktree(repository), name, FILES, "Profile")


def test_a_branch_in_the_way_of_the_name_is_told(repository: Path) -> None:
    git(repository, "branch", "profiles")
    with pytest.raises(CannotCommit, match="cannot create the branch profiles/new: the branch profiles exists"):
        commit_to_branch(open_worktree(repository), "profiles/new", FILES, "Profile")


def test_a_file_in_the_way_is_told(repository: Path) -> None:
    (repository / "profiles").write_text("a file")
    git(repository, "add", "profiles")
    git(repository, "commit", "-q", "-m", "In the way")
    with pytest.raises(CannotCommit, match=r"profiles/a\.yaml cannot be committed: profiles is a file"):
        commit_to_branch(open_worktree(repository), "b", FILES, "Profile")


def test_paths_out_of_the_repository_are_refused(repository: Path) -> None:
    for path in ("../x", ".git/config", "/etc/passwd"):
        with pytest.raises(PathEscapes):
            commit_to_branch(open_worktree(repository), "b", {PurePosixPath(path): b""}, "Profile")


def test_without_a_commit_or_an_identity_nothing_is_made(tmp_path: Path, git_home: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(CannotCommit, match="the repository has no commit to start a branch from"):
        commit_to_branch(open_worktree(tmp_path), "b", FILES, "Profile")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "First")
    (git_home / ".gitconfig").write_text("")
    with pytest.raises(CannotCommit, match="Git has no author identity for the commit"):
        commit_to_branch(open_worktree(tmp_path), "b", FILES, "Profile")
    assert git(tmp_path, "for-each-ref", "refs/heads/b") == ""


def test_a_detached_head_and_another_operation_do_not_matter(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    (repository / ".git" / "MERGE_HEAD").write_text(git(repository, "rev-parse", "HEAD") + "\n")
    assert commit_to_branch(open_worktree(repository), "b", FILES, "Profile") == git(repository, "rev-parse", "b")


def test_who_holds_files_is_found(repository: Path) -> None:
    tree = open_worktree(repository)
    assert holders(tree, FILES) == ()
    commit_to_branch(tree, "one", FILES, "Profile")
    commit_to_branch(tree, "two", {FILE: b"other"}, "Profile")
    git(repository, "update-ref", "refs/remotes/origin/three", "one")
    assert holders(tree, FILES) == ("refs/heads/one", "refs/remotes/origin/three")
    git(repository, "merge", "-q", "one")
    assert holders(open_worktree(repository), FILES)[0] == "HEAD"
    assert holders(tree, {**FILES, PurePosixPath("none"): b""}) == ()
