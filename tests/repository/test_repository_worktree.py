"""Finding the work tree, and telling what differs from HEAD, without running anything the repository brings."""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePosixPath

import pytest

from scepsy.repository import GitFailed, NotAWorkTree, differing, open_worktree, read_at_head
from scepsy.repository.git import environment

P = PurePosixPath


def test_a_work_tree_is_found_from_any_directory_or_file_in_it(root, git):
    (root / "deep" / "er").mkdir(parents=True)

    for path in (root, root / "deep" / "er", root / "spec.yaml"):
        tree = open_worktree(path)
        assert (tree.root, tree.head, tree.branch) == (root, git("rev-parse", "HEAD"), "main")


def test_the_root_is_a_real_path_and_may_have_an_odd_name(root, tmp_path):
    odd = root.rename(tmp_path / "a b\n")
    (tmp_path / "alias").symlink_to(odd)

    assert open_worktree(tmp_path / "alias").root == odd


def test_before_the_first_commit_there_is_a_branch_but_no_head(tmp_path, git):
    git("init", "-q", "new", at=tmp_path)

    tree = open_worktree(tmp_path / "new")

    assert (tree.head, tree.branch) == (None, "main")
    assert read_at_head(tree, P("spec.yaml")) is None


def test_a_detached_head_has_no_branch(root, git):
    git("checkout", "-q", "--detach")

    tree = open_worktree(root)

    assert (tree.head, tree.branch) == (git("rev-parse", "HEAD"), None)


def test_outside_a_repository_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(NotAWorkTree, match="not in a Git repository") as caught:
        open_worktree(tmp_path)
    assert caught.value.hint.startswith("git init")
    assert not caught.value.repository


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(NotAWorkTree, match="nowhere does not exist"):
        open_worktree(tmp_path / "nowhere")


def test_a_bare_repository_is_to_be_cloned(tmp_path, git):
    git("init", "-q", "--bare", "bare.git", at=tmp_path)

    with pytest.raises(NotAWorkTree, match="bare") as caught:
        open_worktree(tmp_path / "bare.git")
    assert "clone it" in caught.value.hint
    assert caught.value.repository


def test_the_git_directory_is_no_place_to_compile(root):
    with pytest.raises(NotAWorkTree, match=r"inside a \.git directory"):
        open_worktree(root / ".git" / "refs")


def test_a_missing_git_is_said(root, monkeypatch):
    monkeypatch.setenv("PATH", str(root))

    with pytest.raises(GitFailed, match="git is not installed"):
        open_worktree(root)


def test_a_repository_of_another_user_is_refused_with_the_remedy(root, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")

    with pytest.raises(GitFailed, match="belongs to another user") as caught:
        open_worktree(root)
    assert caught.value.hint.endswith(f"git config --global --add safe.directory {root}")


def test_a_git_directory_in_the_environment_does_not_lead_elsewhere(root, tmp_path, monkeypatch, git):
    git("init", "-q", "other", at=tmp_path)
    for name, value in {"GIT_DIR": ".git", "GIT_WORK_TREE": ".", "GIT_INDEX_FILE": "x"}.items():
        monkeypatch.setenv(name, str(tmp_path / "other" / value))
    monkeypatch.setenv("GIT_GLOB_PATHSPECS", "1")  # fatal together with --literal-pathspecs

    tree = open_worktree(root)

    assert tree.root == root
    assert differing(tree, [P("spec.yaml")]) == {}


def test_who_commits_and_the_persons_own_settings_reach_git():
    kept = {"GIT_AUTHOR_NAME": "a", "GIT_COMMITTER_EMAIL": "c", "GIT_CONFIG_GLOBAL": "g", "EMAIL": "e"}

    assert environment({**kept, "GIT_CONFIG": "x", "GIT_OBJECT_DIRECTORY": "y"}).items() >= kept.items()
    assert (
        not {"GIT_CONFIG", "GIT_OBJECT_DIRECTORY"}
        & environment({"GIT_CONFIG": "x", "GIT_OBJECT_DIRECTORY": "y"}).keys()
    )


def test_a_file_is_read_as_it_was_committed(root):
    (root / "spec.yaml").write_bytes(b"rate: 5\n")

    tree = open_worktree(root)

    assert read_at_head(tree, P("spec.yaml")) == b"rate: 4\n"
    assert read_at_head(tree, P("other.yaml")) is None


def test_files_that_differ_from_head_are_told_with_the_reason(root, git):
    for name in ("same", "modified", "staged", "staged and put back", "deleted", "removed"):
        (root / name).write_bytes(b"1\n")
    git("add", ".")
    git("commit", "-q", "-m", "more")
    for name in ("modified", "staged", "staged and put back", "untracked", "new"):
        (root / name).write_bytes(b"2\n")
    git("add", "staged", "staged and put back", "new")
    (root / "staged and put back").write_bytes(b"1\n")
    (root / "deleted").unlink()
    git("rm", "-q", "removed")
    (root / "same").touch()

    names = ("same", "modified", "staged", "staged and put back", "untracked", "new", "deleted", "removed", "nowhere")

    assert differing(open_worktree(root), map(P, names)) == {
        P("deleted"): "deleted",
        P("modified"): "modified",
        P("new"): "staged",
        P("removed"): "deleted",
        P("staged"): "staged",
        P("staged and put back"): "staged",
        P("untracked"): "untracked",
    }


@pytest.mark.parametrize("name", ["a\nb", 'quo"te', "*", ":(glob)x", "tab\t", "ü", os.fsdecode(b"\xff")])
def test_odd_file_names_are_just_names(root, git, name):
    (root / name).write_bytes(b"1\n")
    git("add", ".")
    git("commit", "-q", "-m", "odd")
    tree = open_worktree(root)

    assert read_at_head(tree, P(name)) == b"1\n"
    assert differing(tree, [P(name)]) == {}
    (root / name).write_bytes(b"2\n")
    assert differing(tree, [P(name)]) == {P(name): "modified"}


def test_a_checkout_with_windows_line_ends_does_not_differ(root, git):
    git("config", "core.autocrlf", "true")
    (root / "spec.yaml").unlink()
    git("checkout", "spec.yaml")
    assert (root / "spec.yaml").read_bytes() == b"rate: 4\r\n"

    assert differing(open_worktree(root), [P("spec.yaml")]) == {}


def test_the_content_behind_a_git_lfs_pointer_does_not_differ_but_other_content_does(root, git):
    data = b"trace\n" * 100
    (root / "traces.jsonl").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n"
    )
    git("add", ".")
    git("commit", "-q", "-m", "lfs")
    tree = open_worktree(root)

    (root / "traces.jsonl").write_bytes(data)
    assert differing(tree, [P("traces.jsonl")]) == {}
    (root / "traces.jsonl").write_bytes(data + b"more\n")
    assert differing(tree, [P("traces.jsonl")]) == {P("traces.jsonl"): "modified"}


def test_a_path_through_a_symlink_differs_when_the_link_or_its_target_does(root, git):
    (root / "real").mkdir()
    (root / "real" / "x").write_bytes(b"1\n")
    (root / "link").symlink_to("real")
    git("add", ".")
    git("commit", "-q", "-m", "link")
    tree = open_worktree(root)
    assert differing(tree, [P("link/x")]) == {}

    (root / "real" / "x").write_bytes(b"2\n")
    assert differing(tree, [P("link/x")]) == {P("link/x"): "modified"}

    (root / "other").mkdir()
    (root / "link").unlink()
    (root / "link").symlink_to("other")
    assert differing(tree, [P("link/x")]) == {P("link/x"): "modified"}


def test_a_directory_in_place_of_a_file_is_a_modification(root):
    (root / "spec.yaml").unlink()
    (root / "spec.yaml").mkdir()

    assert differing(open_worktree(root), [P("spec.yaml")]) == {P("spec.yaml"): "modified"}


def test_what_a_sparse_checkout_leaves_out_is_not_deleted(root, git):
    for name in ("in/a", "out/b"):
        (root / name).parent.mkdir()
        (root / name).write_bytes(b"1\n")
    git("add", ".")
    git("commit", "-q", "-m", "dirs")
    git("sparse-checkout", "set", "--cone", "--sparse-index", "in")
    assert not (root / "out").exists()

    assert differing(open_worktree(root), [P("in/a"), P("out/b")]) == {}


def test_a_repository_of_sha256_objects_is_read_alike(tmp_path, git):
    root = tmp_path / "new"
    git("init", "-q", "--object-format=sha256", str(root), at=tmp_path)
    (root / "a").write_bytes(b"1\n")
    (root / "b").write_bytes(b"1\n")
    git("add", ".", at=root)
    git("commit", "-q", "-m", "one", at=root)
    (root / "b").write_bytes(b"2\n")

    assert differing(open_worktree(root), [P("a"), P("b")]) == {P("b"): "modified"}
