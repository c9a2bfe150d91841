"""Writing what was compiled: all of it or nothing, and never over somebody else's work."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest
from tests.small_disk import mounted

from scepsy.repository import Busy, Changes, WouldOverwrite, WriteFailed, plan_changes, write

P = PurePosixPath
PLAN, OLD, NEW, SAME = P("plans/p.yaml"), P("rendered/a/old.yaml"), P("rendered/b/c/new.yaml"), P("rendered/same.yaml")
BEFORE = {PLAN: b"plan 1\n", OLD: b"old\n", SAME: b"same\n"}
AFTER = {PLAN: b"plan 2\n", NEW: b"new\n", SAME: b"same\n"}


def digests(files: Mapping[PurePosixPath, bytes]) -> dict[PurePosixPath, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def on_disk(root: Path) -> dict[PurePosixPath, bytes]:
    """Return every file outside .git, with empty directories as paths without content."""
    found = {}
    for path in sorted(root.rglob("*")):
        if ".git" in path.relative_to(root).parts or path.name in ("spec.yaml", "notes.txt"):
            continue
        if path.is_file():
            found[P(path.relative_to(root))] = path.read_bytes()
        elif not any(path.iterdir()):
            found[P(path.relative_to(root))] = b"(empty directory)"
    return found


def leftovers(root: Path) -> list[Path]:
    return [*root.glob(".git/scepsy*"), *root.rglob(".scepsy-tmp*")]


@pytest.fixture
def compiled(root: Path) -> Path:
    """A repository after a first compile."""
    write(root, BEFORE, plan_changes(root, BEFORE, {}))
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A repository on a file system of its own, of 256 KiB."""
    with mounted(tmp_path / "disk", "256k") as disk:
        (disk / ".git").mkdir()
        yield disk


def test_a_first_compile_adds_everything_with_mode_0644(root):
    old = os.umask(0o077)
    try:
        changes = plan_changes(root, BEFORE, {})
        write(root, BEFORE, changes)
    finally:
        os.umask(old)

    assert changes == Changes(added=(PLAN, OLD, SAME))
    assert on_disk(root) == BEFORE
    assert {(root / path).stat().st_mode & 0o777 for path in BEFORE} == {0o644}
    assert leftovers(root) == []


def test_planning_writes_nothing(root):
    plan_changes(root, BEFORE, {})

    assert on_disk(root) == {}
    assert leftovers(root) == []


def test_a_compile_adds_changes_and_removes_and_empty_directories_go(compiled):
    changes = plan_changes(compiled, AFTER, digests(BEFORE))
    assert changes == Changes(added=(NEW,), changed=(PLAN,), removed=(OLD,), unchanged=(SAME,))

    write(compiled, AFTER, changes)

    assert on_disk(compiled) == AFTER
    assert leftovers(compiled) == []


def test_compiling_again_touches_nothing(compiled):
    def times() -> list[int]:
        return [path.stat().st_mtime_ns for path in (compiled, compiled / ".git", *compiled.rglob("rendered/**/*"))]

    before = times()
    changes = plan_changes(compiled, BEFORE, digests(BEFORE))
    write(compiled, BEFORE, changes)

    assert changes == Changes(unchanged=(PLAN, OLD, SAME))
    assert not changes.any
    assert times() == before


def test_a_directory_with_somebody_elses_file_stays(compiled):
    (compiled / OLD.parent / "README").write_text("mine")

    write(compiled, AFTER, plan_changes(compiled, AFTER, digests(BEFORE)))

    assert on_disk(compiled) == {**AFTER, OLD.parent / "README": b"mine"}


def test_a_hand_edit_is_noticed_also_in_a_file_to_be_removed_and_is_not_overwritten(compiled):
    (compiled / PLAN).write_bytes(b"edited\n")
    (compiled / OLD).write_bytes(b"edited\n")
    edited = on_disk(compiled)

    changes = plan_changes(compiled, AFTER, digests(BEFORE))

    assert changes.edited == (PLAN, OLD)
    with pytest.raises(
        WouldOverwrite, match=r"edited by hand since the last compile: plans/p\.yaml, rendered/a/old\.yaml"
    ):
        write(compiled, AFTER, changes)
    assert on_disk(compiled) == edited
    write(compiled, AFTER, changes, overwrite=True)
    assert on_disk(compiled) == AFTER


def test_an_edit_that_says_what_is_wanted_is_none(compiled):
    (compiled / PLAN).write_bytes(AFTER[PLAN])

    changes = plan_changes(compiled, AFTER, digests(BEFORE))

    assert (changes.edited, changes.unchanged) == ((), (PLAN, SAME))


def test_an_owned_file_that_was_deleted_is_added_again_or_is_simply_gone(compiled):
    (compiled / PLAN).unlink()
    (compiled / OLD).unlink()

    changes = plan_changes(compiled, AFTER, digests(BEFORE))

    assert changes == Changes(added=(PLAN, NEW), unchanged=(SAME,))


def test_a_file_that_was_never_ours_is_not_overwritten_unless_it_is_equal(compiled):
    (compiled / NEW).parent.mkdir(parents=True)
    (compiled / NEW).write_bytes(b"theirs\n")

    changes = plan_changes(compiled, AFTER, digests(BEFORE))

    assert changes.foreign == (NEW,)
    with pytest.raises(WouldOverwrite, match=r"not written by scepsy: rendered/b/c/new\.yaml"):
        write(compiled, AFTER, changes)
    (compiled / NEW).write_bytes(AFTER[NEW])
    assert plan_changes(compiled, AFTER, digests(BEFORE)).foreign == ()


def test_a_checkout_with_windows_line_ends_is_neither_a_change_nor_an_edit(compiled):
    for path, data in BEFORE.items():
        (compiled / path).write_bytes(data.replace(b"\n", b"\r\n"))

    assert plan_changes(compiled, BEFORE, digests(BEFORE)) == Changes(unchanged=(PLAN, OLD, SAME))
    assert plan_changes(compiled, AFTER, digests(BEFORE)).edited == ()


def test_a_symlink_that_appears_after_planning_is_not_followed(compiled, tmp_path):
    changes = plan_changes(compiled, AFTER, digests(BEFORE))
    (tmp_path / "elsewhere").mkdir()
    (compiled / "rendered/b").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Exception, match="symlink"):
        write(compiled, AFTER, changes)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def state(root: Path) -> list[tuple[str, int, bytes]]:
    found = [path for path in sorted(root.rglob("*/*.yaml")) if path.is_file()]
    return [(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in found]


@pytest.mark.parametrize("obstacle", ["file for directory", "directory for file"])
def test_when_something_is_in_the_way_nothing_changes(compiled, obstacle):
    changes = plan_changes(compiled, AFTER, digests(BEFORE))
    (compiled / "rendered/b").mkdir()
    if obstacle == "file for directory":
        (compiled / "rendered/b/c").write_text("mine")
    else:
        (compiled / NEW).mkdir(parents=True)
    before = state(compiled)

    with pytest.raises(WriteFailed, match=r"rendered/b/c.*is where a .* must go; nothing was changed"):
        write(compiled, AFTER, changes)

    assert state(compiled) == before
    assert leftovers(compiled) == []


def test_a_full_disk_changes_nothing(small_disk):
    files = {P(f"rendered/{n}.yaml"): bytes([n]) * 30_000 for n in range(3)}
    write(small_disk, files, plan_changes(small_disk, files, {}))
    before = state(small_disk)
    more = {path: b"new" + data for path, data in files.items()} | {P("rendered/x.yaml"): b"x" * 100_000}

    with pytest.raises(WriteFailed, match="No space left on device; nothing was changed"):
        write(small_disk, more, plan_changes(small_disk, more, digests(files)))

    assert state(small_disk) == before
    assert leftovers(small_disk) == []


def test_a_read_only_file_system_changes_nothing(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(WriteFailed, match="Read-only file system; nothing was changed"):
        write(small_disk, BEFORE, plan_changes(small_disk, BEFORE, {}))


def test_a_tree_on_another_file_system_than_its_git_directory_is_written_as_well(small_disk, tmp_path):
    (small_disk / ".git").rmdir()
    (tmp_path / "git").mkdir()
    (small_disk / ".git").write_text(f"gitdir: {tmp_path / 'git'}\n")

    write(small_disk, BEFORE, plan_changes(small_disk, BEFORE, {}))
    write(small_disk, AFTER, plan_changes(small_disk, AFTER, digests(BEFORE)))

    assert on_disk(small_disk) == AFTER
    assert leftovers(small_disk) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs a directory of another user")
def test_a_directory_without_permission_changes_nothing(compiled, tmp_path):
    """Real EACCES: as another user, who may write everywhere but in the directory that is written to last."""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    changes = plan_changes(compiled, AFTER, digests(BEFORE))
    for path in (compiled, *compiled.rglob("*")):
        os.chown(path, 65534, 65534)
    os.chown(compiled / "rendered", 0, 0)
    before = state(compiled)

    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            write(compiled, AFTER, changes)
        except WriteFailed as error:
            os._exit(0 if "Permission denied; nothing was changed" in error.message else 1)
        os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert state(compiled) == before


@pytest.mark.parametrize("call", ["replace", "link", "mkdir", "fsync"])
def test_whichever_step_fails_everything_is_as_it_was(compiled, monkeypatch, call):
    before = state(compiled)
    changes = plan_changes(compiled, AFTER, digests(BEFORE))
    genuine, survived = getattr(os, call), []

    for failing in range(20):
        count = [0]

        def flaky(*arguments, count=count, failing=failing, **options):
            count[0] += 1
            if count[0] == failing + 1:
                raise OSError(errno.EIO, "Input/output error")
            return genuine(*arguments, **options)

        error = None
        with monkeypatch.context() as patch:
            patch.setattr(os, call, flaky)
            try:
                write(compiled, AFTER, changes)
            except WriteFailed as failed:
                error = failed
        if error:
            assert error.message.endswith("Input/output error; nothing was changed")
            assert state(compiled) == before
            assert P("rendered/b") not in on_disk(compiled)
            assert leftovers(compiled) == []
        else:
            survived.append(failing)
            write(compiled, BEFORE, plan_changes(compiled, BEFORE, digests(AFTER)))
            before = state(compiled)

    assert survived[-1] == 19  # beyond the last call nothing fails any more: every call had its turn


def test_when_even_undoing_fails_the_error_says_which_files_and_where_the_old_ones_are(compiled, monkeypatch):
    changes = plan_changes(compiled, AFTER, digests(BEFORE))
    genuine, broken = os.replace, []

    def breaking(source, target):
        if str(source).endswith("old.yaml"):
            broken.append(True)
        if broken:
            raise OSError(errno.EIO, "Input/output error")
        genuine(source, target)

    monkeypatch.setattr(os, "replace", breaking)
    with pytest.raises(WriteFailed, match=r"could not be put back as they were: .*plans/p\.yaml") as caught:
        write(compiled, AFTER, changes)
    monkeypatch.undo()

    kept = [path.read_bytes() for path in (compiled / ".git/scepsy").rglob("*") if path.is_file()]
    assert BEFORE[PLAN] in kept
    assert str(compiled / ".git/scepsy") in caught.value.hint
    assert plan_changes(compiled, AFTER, digests(BEFORE)).edited == ()


def test_ctrl_c_in_the_midst_undoes_everything(compiled, monkeypatch):
    before = state(compiled)
    genuine = os.replace

    def interrupted(source, target):
        genuine(source, target)
        if str(target).endswith("p.yaml"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(compiled, AFTER, plan_changes(compiled, AFTER, digests(BEFORE)))
    monkeypatch.undo()

    assert state(compiled) == before
    assert leftovers(compiled) == []


def killed_at(root: Path, changes: Changes, call: str, turn: int) -> bool:
    """Write in a child that is killed by SIGKILL before a call of os; tell whether it came to that."""
    child = os.fork()
    if child == 0:
        genuine, count = getattr(os, call), [0]

        def deadly(*arguments, **options):
            count[0] += 1
            if count[0] == turn:
                os.kill(os.getpid(), signal.SIGKILL)
            return genuine(*arguments, **options)

        setattr(os, call, deadly)
        try:
            write(root, AFTER, changes)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("call", ["replace", "fsync", "rmdir", "unlink"])
def test_after_a_kill_at_any_point_the_next_run_just_works_even_from_other_inputs(compiled, call):
    kills = 0
    for turn in range(1, 20):
        for later in (AFTER, {PLAN: b"plan 3\n", P("rendered/b/c/other.yaml"): b"x\n"}):
            if not killed_at(compiled, plan_changes(compiled, AFTER, digests(BEFORE)), call, turn):
                assert kills
                return
            kills += 1
            # Which Plan the next run reads depends on how far the killed one came.
            plan_then = BEFORE if (compiled / PLAN).read_bytes() == BEFORE[PLAN] else AFTER

            changes = plan_changes(compiled, later, digests(plan_then))
            assert (changes.edited, changes.foreign) == ((), ())
            write(compiled, later, changes)
            assert on_disk(compiled) == later
            assert leftovers(compiled) == []

            write(compiled, BEFORE, plan_changes(compiled, BEFORE, digests(later)))
            assert on_disk(compiled) == BEFORE
    pytest.fail("the child never finished")


def test_after_two_kills_and_a_failure_the_next_run_still_knows_its_own_files(compiled, monkeypatch):
    assert killed_at(compiled, plan_changes(compiled, AFTER, digests(BEFORE)), "replace", 4)
    assert (compiled / PLAN).read_bytes() == AFTER[PLAN]
    third = {PLAN: b"plan 3\n", NEW: b"new 3\n"}

    # The second run begins from what the first left, and is killed before it replaced anything.
    changes = plan_changes(compiled, AFTER, digests(BEFORE))
    assert killed_at(compiled, changes, "replace", 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        patch.setattr("shutil.copy2", os.link)
        with pytest.raises(WriteFailed):
            write(compiled, third, plan_changes(compiled, third, digests(BEFORE)))

    changes = plan_changes(compiled, third, digests(BEFORE))
    assert (changes.edited, changes.foreign) == ((), ())
    write(compiled, third, changes)
    assert on_disk(compiled) == third


def test_after_a_kill_a_real_hand_edit_is_still_noticed(compiled):
    assert killed_at(compiled, plan_changes(compiled, AFTER, digests(BEFORE)), "replace", 3)
    (compiled / PLAN).write_bytes(b"edited\n")

    assert plan_changes(compiled, AFTER, digests(BEFORE)).edited == (PLAN,)


def test_leftovers_of_a_killed_run_go_even_when_there_is_nothing_to_write(compiled):
    assert killed_at(compiled, plan_changes(compiled, AFTER, digests(BEFORE)), "fsync", 2)
    assert leftovers(compiled)

    write(compiled, BEFORE, plan_changes(compiled, BEFORE, digests(BEFORE)))

    assert leftovers(compiled) == []


def test_two_runs_do_not_write_at_the_same_time(compiled):
    handle = os.open(compiled / ".git", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another scepsy process"):
            write(compiled, AFTER, plan_changes(compiled, AFTER, digests(BEFORE)))
    finally:
        os.close(handle)
    assert on_disk(compiled) == BEFORE


def test_a_file_size_limit_is_an_error_like_a_full_disk(compiled):
    script = (
        "import resource, sys; from pathlib import Path, PurePosixPath as P\n"
        "from scepsy.repository import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "root, files = Path(sys.argv[1]), {P('rendered/same.yaml'): b'ok', P('rendered/z.yaml'): b'x' * 2000}\n"
        "try: write(root, files, plan_changes(root, files, {}), overwrite=True)\n"
        "except WriteFailed as error: print(error.message)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        [sys.executable, "-c", script, str(compiled)], env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert "File too large; nothing was changed" in said
    assert on_disk(compiled) == BEFORE
