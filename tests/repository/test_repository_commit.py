"""One commit of exactly our files, whatever else goes on in the repository."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from pathlib import Path, PurePosixPath

import pytest

from scepsy.repository import (
    CannotCommit,
    GitFailed,
    HeadMoved,
    PathEscapes,
    StagedChange,
    check_committable,
    commit,
    differing,
    open_worktree,
    plan_changes,
    read_at_head,
    trailers,
    write,
)

P = PurePosixPath
PLAN, MANIFEST = P("plans/prod.yaml"), P("rendered/prod/a.yaml")
FILES = {PLAN: b"plan\n", MANIFEST: b"a: 1\n"}
MESSAGE = "Compile prod\n\nBody.\n"


def put(root: Path, files: dict[PurePosixPath, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def compiled(root: Path, files: dict[PurePosixPath, bytes | None] = FILES, message: str = MESSAGE) -> str | None:
    """Put the files into the work tree and commit them."""
    put(root, {path: data for path, data in files.items() if data is not None})
    for path in (path for path, data in files.items() if data is None):
        (root / path).unlink(missing_ok=True)
    return commit(open_worktree(root), files, message)


def test_a_commit_holds_exactly_our_files_on_top_of_head(root, git):
    before = git("rev-parse", "HEAD")

    made = compiled(root)

    assert git("rev-parse", "HEAD", "HEAD^").split() == [made, before]
    assert git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert git("diff", "--name-status", "HEAD^", "HEAD").split() == ["A", str(PLAN), "A", str(MANIFEST)]
    assert git("show", "HEAD:plans/prod.yaml") == "plan"
    assert git("log", "-1", "--format=%B%an <%ae>") == "Compile prod\n\nBody.\nAda Lovelace <ada@example.com>"
    assert git("ls-tree", "HEAD", str(PLAN)).startswith("100644 ")
    assert git("status", "--porcelain") == ""
    assert git("reflog", "-1", "--format=%gs") == "scepsy: Compile prod"
    assert git("fsck", "--strict") == ""
    assert not (root / ".git/scepsy").exists()


def test_files_are_deleted_and_deleting_what_is_not_there_is_nothing(root, git):
    compiled(root)

    compiled(root, {PLAN: b"plan 2\n", MANIFEST: None, P("never/was.yaml"): None})

    assert git("diff", "--name-status", "HEAD^", "HEAD").split() == ["M", str(PLAN), "D", str(MANIFEST)]
    assert git("status", "--porcelain") == ""


def test_the_same_content_makes_no_commit(root, git):
    compiled(root)
    before = git("rev-parse", "HEAD")

    assert compiled(root) is None
    assert compiled(root, {}) is None
    assert git("rev-parse", "HEAD") == before


def test_what_the_user_staged_and_left_unstaged_stays_as_it_is(root, git):
    (root / "notes.txt").write_text("staged\n")
    git("add", "notes.txt")
    (root / "notes.txt").write_text("not staged\n")
    (root / "mine.txt").write_text("new\n")
    git("add", "-N", "mine.txt")
    before = git("status", "--porcelain"), git("diff", "--cached"), git("diff")

    compiled(root)

    assert (git("status", "--porcelain"), git("diff", "--cached"), git("diff")) == before
    git("commit", "-q", "-m", "theirs")
    assert git("diff", "--name-only", "HEAD^", "HEAD") == "notes.txt"
    assert git("show", f"HEAD:{PLAN}") == "plan"


def test_an_edit_in_the_same_instant_as_the_commit_is_not_lost_to_git_status(root, git):
    """Git compares times with the index's own; a copied index must not look younger than it is."""
    for turn in range(3):
        (root / "notes.txt").write_text(f"{turn}a\n")
        git("add", "notes.txt")
        (root / "notes.txt").write_text(f"{turn}b\n")
        compiled(root, {PLAN: b"%d\n" % turn})
        assert git("diff", "--name-only") == "notes.txt"


@pytest.mark.parametrize("staged", ["another content", "deletion", "addition"])
def test_another_change_staged_in_one_of_our_files_is_refused_before_anything_is_written(root, git, staged):
    if staged != "addition":
        compiled(root)
    if staged == "deletion":
        git("rm", "-q", str(PLAN))
    else:
        put(root, {PLAN: b"theirs\n"})
        git("add", str(PLAN))
    before = git("rev-parse", "HEAD"), git("ls-files", "--stage")

    files = {PLAN: b"plan 2\n"}
    with pytest.raises(StagedChange, match=r"already staged in: plans/prod\.yaml") as caught:
        check_committable(open_worktree(root), files)
    with pytest.raises(StagedChange):
        compiled(root, files)

    assert (git("rev-parse", "HEAD"), git("ls-files", "--stage")) == before
    assert caught.value.hint.endswith(f"git reset -q -- {PLAN}")


def test_our_own_files_may_be_staged_already(root, git):
    put(root, FILES)
    git("add", ".")

    compiled(root)

    assert git("status", "--porcelain") == ""


def test_an_unmerged_file_of_ours_is_refused(root, git):
    compiled(root)
    put(root, {PLAN: b"x\n"})
    git("stash", "-q")
    compiled(root, {PLAN: b"y\n"})
    with pytest.raises(AssertionError):
        git("stash", "pop", "-q")

    with pytest.raises(StagedChange):
        check_committable(open_worktree(root), {PLAN: b"z\n"})


def test_a_commit_on_a_detached_head_moves_head_alone(root, git):
    git("checkout", "-q", "--detach")
    branch = git("rev-parse", "main")

    made = compiled(root)

    assert git("rev-parse", "HEAD", "main").split() == [made, branch]
    assert open_worktree(root).branch is None


@pytest.mark.parametrize("hashes", ["sha1", "sha256"])
def test_the_first_commit_of_a_repository_has_no_parent(tmp_path, git, hashes):
    root = tmp_path / "new"
    git("init", "-q", f"--object-format={hashes}", str(root), at=tmp_path)
    assert compiled(root, {}) is None

    made = compiled(root)
    again = compiled(root, {PLAN: b"plan 2\n", MANIFEST: None})

    assert git("rev-list", "HEAD", at=root).split() == [again, made]
    assert git("ls-files", at=root) == str(PLAN)
    assert git("status", "--porcelain", at=root) == ""


def test_a_linked_work_tree_commits_to_its_own_branch(root, git, tmp_path):
    main = git("rev-parse", "main")
    git("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    side = tmp_path / "side"

    write(side, FILES, plan_changes(side, FILES, {}))
    made = commit(open_worktree(side), FILES, MESSAGE)

    assert git("rev-parse", "side", "main").split() == [made, main]
    assert git("status", "--porcelain", at=side) == git("status", "--porcelain") == ""


def test_a_submodule_is_committed_to_without_its_parent(root, git, tmp_path):
    git("clone", "-q", str(root), str(tmp_path / "origin"), at=tmp_path)
    git("submodule", "--quiet", "add", str(tmp_path / "origin"), "sub")
    git("commit", "-q", "-m", "sub")
    parent, sub = git("rev-parse", "HEAD"), root / "sub"

    write(sub, FILES, plan_changes(sub, FILES, {}))
    made = commit(open_worktree(sub), FILES, MESSAGE)

    assert [git("rev-parse", "HEAD", at=sub), git("rev-parse", "HEAD")] == [made, parent]
    assert git("status", "--porcelain", at=sub) == ""
    with pytest.raises(CannotCommit, match=r"sub is a file"):
        check_committable(open_worktree(root), {P("sub/x"): b""})


def test_a_partial_clone_commits_without_fetching_what_it_lacks(root, git, tmp_path):
    compiled(root)
    git("config", "uploadpack.allowFilter", "true")
    git("clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{root}", str(tmp_path / "part"))
    part, marker, program = tmp_path / "part", tmp_path / "marker", tmp_path / "program"
    git("sparse-checkout", "set", "--cone", "nothing", at=part)
    git("checkout", "-q", at=part)
    program.write_text(f'#!/bin/sh\ntouch {marker}\nexec git-upload-pack "$@"\n')
    program.chmod(0o755)
    git("config", "remote.origin.uploadpack", str(program), at=part)

    made = commit(open_worktree(part), {MANIFEST.with_name("b.yaml"): b"1\n"}, MESSAGE)

    assert made
    assert not marker.exists()
    with pytest.raises(GitFailed, match="git cat-file failed"):
        read_at_head(open_worktree(part), MANIFEST)


@pytest.mark.parametrize("sparse_index", ["--sparse-index", "--no-sparse-index"])
def test_a_sparse_checkout_stays_sparse(root, git, sparse_index):
    put(root, {P("in/a"): b"1\n", P("out/b"): b"1\n", P("rendered/old/x.yaml"): b"1\n"})
    git("add", ".")
    git("commit", "-q", "-m", "dirs")
    git("sparse-checkout", "set", "--cone", sparse_index, "in")

    made = compiled(root, {**FILES, P("rendered/old/x.yaml"): None})

    assert git("ls-tree", "-r", "--name-only", str(made)).split() == [
        "in/a",
        "notes.txt",
        "out/b",
        "plans/prod.yaml",
        "rendered/prod/a.yaml",
        "spec.yaml",
    ]
    assert git("status", "--porcelain") == ""
    assert not (root / "out").exists()


def test_a_split_index_is_kept_whole(root, git):
    git("update-index", "--split-index")
    (root / "notes.txt").write_text("staged\n")
    git("add", "notes.txt")

    compiled(root)

    assert git("status", "--porcelain") == "M  notes.txt"
    assert git("fsck") == ""


@pytest.mark.parametrize("name", ["a\nb", 'quo"te', "*", "tab\t", "ü", os.fsdecode(b"\xff")])
def test_odd_file_names_are_just_names(root, git, name):
    files = {P("rendered") / name: b"1\n"}
    write(root, files, plan_changes(root, files, {}))

    commit(open_worktree(root), files, MESSAGE)

    assert read_at_head(open_worktree(root), P("rendered") / name) == b"1\n"
    assert git("status", "--porcelain") == ""


def test_a_head_that_moved_in_the_meantime_is_not_overwritten(root, git):
    tree = open_worktree(root)
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    theirs = git("rev-parse", "HEAD")

    with pytest.raises(HeadMoved, match="HEAD moved from main at") as caught:
        commit(tree, FILES, MESSAGE)

    assert git("rev-parse", "HEAD") == theirs
    assert "re-run the command" in caught.value.hint


def test_a_switch_to_another_branch_at_the_same_commit_counts_as_a_move(root, git):
    tree = open_worktree(root)
    git("checkout", "-q", "-b", "other")

    with pytest.raises(HeadMoved, match=r"from main at .* to other at"):
        commit(tree, FILES, MESSAGE)


def test_a_move_in_the_last_moment_is_caught_by_git_itself(root, git, monkeypatch):
    """Between our look at HEAD and git's own: the old value that we hand over no longer holds."""
    tree, moved = open_worktree(root), []
    module = commit.__globals__
    genuine = module["_move_head"]

    def late(*arguments):
        git("update-ref", "HEAD", git("commit-tree", "-m", "theirs", "-p", "HEAD", "HEAD^{tree}"))
        moved.append(git("rev-parse", "HEAD"))
        genuine(*arguments)

    monkeypatch.setitem(module, "_move_head", late)
    with pytest.raises(HeadMoved):
        commit(tree, FILES, MESSAGE)

    assert git("rev-parse", "HEAD") == moved[0]
    assert git("ls-files").split() == ["notes.txt", "spec.yaml"]
    assert not (root / ".git/index.lock").exists()


def conflicting(root, git):
    git("checkout", "-q", "-b", "side")
    (root / "notes.txt").write_text("side\n")
    git("commit", "-q", "-am", "side")
    git("checkout", "-q", "main")
    (root / "notes.txt").write_text("main\n")
    git("commit", "-q", "-am", "main")


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (["merge", "side"], "a merge"),
        (["rebase", "side"], "a rebase"),
        (["rebase", "--apply", "side"], "a rebase"),
        (["cherry-pick", "side"], "a cherry-pick"),
        (["revert", "--no-edit", "HEAD~1"], "a revert"),
        (["bisect", "start"], "a bisection"),
    ],
)
def test_in_the_midst_of_another_operation_the_error_says_how_to_finish_it(root, git, begin, name):
    conflicting(root, git)
    if name == "a revert":
        (root / "notes.txt").write_text("again\n")
        git("commit", "-q", "-am", "again")
    if name == "a bisection":
        git(*begin)
    else:
        with pytest.raises(AssertionError):
            git(*begin)
    before = git("rev-parse", "HEAD")

    with pytest.raises(CannotCommit, match=f"{name}.* is in progress") as caught:
        compiled(root)

    assert begin[0] in caught.value.hint
    assert git("rev-parse", "HEAD") == before


def test_without_an_identity_the_error_gives_the_two_commands(root, tmp_path):
    (tmp_path / "home" / ".gitconfig").unlink()

    with pytest.raises(CannotCommit, match="Git has no author identity for the commit") as caught:
        check_committable(open_worktree(root), FILES)

    assert "git config user.name" in caught.value.hint
    assert "git config user.email" in caught.value.hint


def test_an_identity_may_come_from_the_environment(root, git, tmp_path, monkeypatch):
    (tmp_path / "home" / ".gitconfig").unlink()
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "CI")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ci@example.com")

    compiled(root)

    assert git("log", "-1", "--format=%an %ce") == "CI ci@example.com"


def test_a_locked_index_is_an_error_before_anything_is_committed(root, git):
    before = git("rev-parse", "HEAD")
    (root / ".git/index.lock").touch()

    with pytest.raises(CannotCommit, match=r"index\.lock exists; nothing was committed"):
        compiled(root)

    assert git("rev-parse", "HEAD") == before
    assert (root / ".git/index.lock").exists()  # not ours to remove


def test_an_index_that_is_locked_after_the_check_stops_the_commit_as_well(root, git, monkeypatch):
    before = git("rev-parse", "HEAD")
    module = commit.__globals__
    genuine = module["check_committable"]

    def then_lock(*arguments):
        genuine(*arguments)
        (root / ".git/index.lock").touch()

    monkeypatch.setitem(module, "check_committable", then_lock)
    with pytest.raises(CannotCommit, match=r"index\.lock exists"):
        compiled(root)

    assert git("rev-parse", "HEAD") == before
    assert (root / ".git/index.lock").exists()


def test_what_is_staged_after_the_check_stops_the_commit_as_well(root, git, monkeypatch):
    before = git("rev-parse", "HEAD")
    module = commit.__globals__
    genuine = module["check_committable"]

    def then_stage(*arguments):
        genuine(*arguments)
        put(root, {PLAN: b"theirs\n"})
        git("add", str(PLAN))

    monkeypatch.setitem(module, "check_committable", then_stage)
    with pytest.raises(StagedChange):
        compiled(root)

    assert git("rev-parse", "HEAD") == before
    assert git("show", f":{PLAN}") == "theirs"
    assert not (root / ".git/index.lock").exists()


def test_a_locked_branch_leaves_neither_a_commit_nor_a_lock(root, git):
    before = git("rev-parse", "HEAD")
    (root / ".git/refs/heads/main.lock").touch()

    with pytest.raises(CannotCommit, match=r"refs/heads/main could not be moved.*main\.lock"):
        compiled(root)

    assert git("rev-parse", "HEAD") == before
    assert not (root / ".git/index.lock").exists()
    assert git("ls-files").split() == ["notes.txt", "spec.yaml"]


def test_a_repository_that_takes_no_objects_is_a_readable_error(root, git):
    shutil.rmtree(root / ".git/objects/pack")
    before = git("rev-parse", "HEAD")
    for fan in range(256):
        directory = root / ".git/objects" / f"{fan:02x}"
        if not directory.exists():
            directory.write_text("a file where a directory must go")

    with pytest.raises(GitFailed, match="git hash-object failed"):
        compiled(root)

    assert git("rev-parse", "HEAD") == before
    assert not (root / ".git/index.lock").exists()


@pytest.mark.parametrize("path", ["../x", ".git/hooks/pre-commit", "/x", "a/.GIT/x"])
def test_a_path_outside_the_tree_is_refused(root, path):
    with pytest.raises(PathEscapes):
        commit(open_worktree(root), {P(path): b""}, MESSAGE)


def test_a_file_of_theirs_where_we_need_a_directory_is_not_dropped(root, git):
    (root / "notes.txt").unlink()

    with pytest.raises(CannotCommit, match=r"notes\.txt is a file in HEAD"):
        compiled(root, {P("notes.txt/a.yaml"): b""})

    put(root, {P("notes.txt/a.yaml"): b""})
    commit(open_worktree(root), {P("notes.txt"): None, P("notes.txt/a.yaml"): b""}, MESSAGE)
    assert git("ls-files").split() == ["notes.txt/a.yaml", "spec.yaml"]


def test_a_directory_of_theirs_where_we_need_a_file_is_not_dropped(root, git):
    put(root, {P("d/theirs"): b""})
    git("add", ".")
    git("commit", "-q", "-m", "d")

    with pytest.raises(CannotCommit, match="d is a directory"):
        check_committable(open_worktree(root), {P("d"): b""})


def test_no_program_of_the_repository_ever_runs(root, git, tmp_path):
    marker = tmp_path / "marker"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho ran >> {marker}\ncat\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    compiled(root)
    git("config", "core.fsmonitor", str(program))
    git("update-index", "--fsmonitor")
    (root / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    git("add", ".gitattributes")
    git("commit", "-q", "-m", "attributes")
    (root / ".git/hooks").mkdir(exist_ok=True)
    for hook in (
        *("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "post-rewrite", "post-checkout"),
        *("reference-transaction", "post-index-change", "fsmonitor-watchman", "pre-auto-gc"),
    ):
        shutil.copy(program, root / ".git/hooks" / hook)
    for key in (
        *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv", "diff.evil.command"),
        *("core.pager", "core.editor", "core.askPass", "core.sshCommand", "credential.helper"),
        *("gpg.program", "merge.evil.driver", "diff.external", "sequence.editor", "pager.log"),
    ):
        git("config", key, str(program))
    for key in ("commit.gpgSign", "log.showSignature", "filter.evil.required"):
        git("config", key, "true")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n\n"
    (tmp_path / "raw").write_text(git("cat-file", "commit", "HEAD").replace("\n\n", "\n" + signature, 1) + "\n")
    git("update-ref", "HEAD", git("hash-object", "-t", "commit", "-w", "--no-filters", str(tmp_path / "raw")))
    marker.write_text("")  # from here on it is us

    tree = open_worktree(root)
    new = {PLAN: b"plan 2\n", MANIFEST: None}
    differing(tree, [PLAN, MANIFEST, P("spec.yaml")])
    read_at_head(tree, PLAN)
    write(root, {PLAN: b"plan 2\n"}, plan_changes(root, {PLAN: b"plan 2\n"}, {}), overwrite=True)
    check_committable(tree, new)
    made = commit(tree, new, "Compile\n\n" + trailers(tree, {}))

    assert made
    assert marker.read_text() == ""
    assert git("-c", "core.fsmonitor=false", "cat-file", "blob", f"HEAD:{PLAN}") == "plan 2"


@pytest.mark.parametrize("turn", range(1, 16))
def test_a_kill_at_any_call_of_git_leaves_all_or_nothing(root, git, turn):
    put(root, FILES)
    before = git("rev-parse", "HEAD")
    (root / "notes.txt").write_text("staged\n")
    git("add", "notes.txt")
    child = os.fork()
    if child == 0:
        import subprocess  # noqa: PLC0415

        genuine, count = subprocess.run, [0]

        def deadly(*arguments, **options):
            count[0] += 1
            if count[0] == turn + 10:  # the checks before only read
                os.kill(os.getpid(), signal.SIGKILL)
            return genuine(*arguments, **options)

        subprocess.run = deadly
        try:
            commit(open_worktree(root), FILES, MESSAGE)
        finally:
            os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    done = git("rev-parse", "HEAD") != before
    assert killed or done

    lock = root / ".git/index.lock"
    check_committable(open_worktree(root), FILES)
    assert not lock.exists()
    assert bool(compiled(root)) != done
    assert git("status", "--porcelain") == "M  notes.txt"
    assert git("rev-parse", "HEAD^") == before


def test_locks_that_a_killed_run_left_go_and_those_of_others_stay(root: Path, git) -> None:
    git_dir, head = root / ".git", git("rev-parse", "HEAD")
    staging = git_dir / "scepsy" / "work"

    def left(content: str, seconds_ago: float = 0.0) -> bool:
        staging.mkdir(parents=True)
        (staging / "made").write_text(json.dumps(["a" * 40, ["HEAD.lock", "refs/heads/main.lock", "../outside.lock"]]))
        for lock in (git_dir / "refs/heads/main.lock", root / "outside.lock"):
            lock.write_text(content)
            now = lock.stat().st_mtime - seconds_ago
            os.utime(lock, (now, now))
        check_committable_after_clearing(root)
        assert (root / "outside.lock").exists()
        return (git_dir / "refs/heads/main.lock").exists()

    def check_committable_after_clearing(root: Path) -> None:
        from scepsy.repository.staging import opened, staging_directory_in  # noqa: PLC0415

        with opened(staging_directory_in(root / ".git")):
            pass

    assert not left("")
    assert not left("a" * 40 + "\n")
    assert left(head)
    assert left("", seconds_ago=60)
