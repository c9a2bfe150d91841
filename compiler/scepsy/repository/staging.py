"""Where files wait before they are put in place: a private folder, for one process at a time.

It lies in the repository's ``.git`` when that is on the same file system (a rename is atomic only there), so that
nothing half-made is ever seen in the work tree, not even after a kill. Its ``journal`` outlives a killed run: it holds
the digests that an unfinished write may have left, so that the next run does not take them for edits by hand.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from scepsy.errors import ScepsyError
from scepsy.repository.git import GitFailed, ask, line

_IN_GIT = "scepsy"
_IN_TREE = ".scepsy-tmp"
_JOURNAL = "journal"
_MOMENT = 5.0  # seconds that git may need to move a reference
_LOCK, _FILLED, _MADE = "index-lock", "index-filled", "made"


class Busy(ScepsyError):
    """Another Scepsy process works in the same repository."""


def staging_directory_for(root: Path, target: Path) -> Path:
    """Choose the directory for a file.

    Args:
        root: the work tree, a real path.
        target: the file that is to be put in place, below the root; it need not exist.

    Returns:
        A directory (which may not exist yet) on the file system of the target.
    """
    place = target.parent
    while not place.is_dir():
        place = place.parent
    device = place.stat().st_dev
    git_dir = _git_dir(root)
    if git_dir and git_dir.stat().st_dev == device:
        return git_dir / _IN_GIT
    while place != root and place.parent.stat().st_dev == device:
        place = place.parent
    return place / _IN_TREE


def staging_directory_in(git_dir: Path) -> Path:
    """Return the directory of a git directory.

    Args:
        git_dir: the git directory of a work tree.

    Returns:
        A directory, which may not exist yet.
    """
    return git_dir / _IN_GIT


@contextmanager
def opened(directory: Path) -> Iterator[Path]:
    """Lock the directory and clear away what a killed run left in it.

    Args:
        directory: as chosen by :func:`staging_directory_for`.

    Yields:
        An empty directory to work in; it is removed at the end.

    Raises:
        Busy: when another process has it.
        OSError: when the folder cannot be made.
    """
    # The kernel drops this lock when the process dies, however it dies: no stale lock file to clean up.
    handle = os.open(directory.parent, os.O_RDONLY)
    try:
        _lock(handle, directory)
        if directory.is_symlink():
            directory.unlink()  # a name that a hostile commit could hold, where it leads out of the tree
        staging = directory / "work"
        _settle(directory.parent, staging)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):  # the journal of an unfinished write keeps it
                directory.rmdir()
    finally:
        os.close(handle)


def take_index_lock(git_dir: Path, staging: Path) -> None:
    """Take git's lock of the index, so that it is known for ours when this process dies.

    Args:
        git_dir: the git directory of a work tree.
        staging: the opened directory in it.

    Raises:
        FileExistsError: another process holds the lock.
        OSError: it cannot be made.
    """
    mine, lock = staging / _LOCK, git_dir / "index.lock"
    os.close(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        os.link(mine, lock)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system: a lock that is left then stays
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def fill_index_lock(git_dir: Path, staging: Path, draft: Path, made: str, references: Iterable[str]) -> None:
    """Put the new index into the lock, so that it can be put in place when HEAD is at the commit `made`.

    Args:
        git_dir: the git directory of a work tree.
        staging: the opened directory in it, where the lock was taken.
        draft: the new index.
        made: the commit.
        references: what is about to move there.

    Raises:
        OSError: that fails.
    """
    locks = [line(git_dir, "rev-parse", "--git-path", f"{name}.lock") for name in references]
    (staging / _MADE).write_text(json.dumps([made, locks]), encoding="ascii")
    with suppress(OSError):
        os.link(draft, staging / _FILLED)
    os.replace(draft, git_dir / "index.lock")


def _settle(git_dir: Path, staging: Path) -> None:
    """Finish, or undo, what a killed run left in git's locks."""
    lock = git_dir / "index.lock"
    with suppress(OSError, GitFailed, ValueError, TypeError):
        made = None
        if (staging / _MADE).exists():
            made, locks = json.loads((staging / _MADE).read_text(encoding="ascii"))
            common = (git_dir / line(git_dir, "rev-parse", "--git-common-dir")).resolve()
            for place in [(git_dir / name).resolve() for name in locks if name.endswith(".lock")]:
                if place.is_relative_to(common):
                    _drop_reference_lock(place, made, (staging / _MADE).stat().st_mtime)
        filled = _same(lock, staging / _FILLED)
        if not filled and not _same(lock, staging / _LOCK):
            return
        if filled and made and ask(git_dir, "rev-parse", "-q", "--verify", "HEAD") == made:
            os.replace(lock, git_dir / "index")
        else:
            lock.unlink()


def _drop_reference_lock(lock: Path, made: str, since: float) -> None:
    """Remove git's lock of a reference if the run that was killed left it: of that time, empty or with its commit."""
    with suppress(FileNotFoundError):
        recent = -_MOMENT <= lock.stat().st_mtime - since <= _MOMENT
        if recent and lock.read_text(encoding="ascii").strip() in ("", made):
            lock.unlink()


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _lock(handle: int, directory: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(
            f"another scepsy process is writing in {directory.parent}", "wait until it ends, then re-run"
        ) from None
    except OSError:
        pass  # some network file systems know no such lock; two runs at once are rare enough to go on


def read_journal(root: Path) -> dict[PurePosixPath, frozenset[str]]:
    """Read which bytes an unfinished write may have left in which files.

    Args:
        root: the work tree, a real path.

    Returns:
        For each path, sha256 digests that are ours; empty when the last write finished.
    """
    try:
        text = (_home(root) / _JOURNAL).read_text(encoding="ascii")
        return {PurePosixPath(path): frozenset(digests) for path, digests in json.loads(text).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # replaced atomically, so unreadable means not ours; without it files only look edited by hand


def keep_journal(root: Path, staging: Path, ours: Mapping[PurePosixPath, frozenset[str]]) -> None:
    """Note, before the first file is touched, which bytes a write may leave.

    Args:
        root: the work tree, a real path.
        staging: the opened directory of the root.
        ours: for each path, sha256 digests.

    Raises:
        OSError: when it cannot be written.
    """
    draft = staging / _JOURNAL
    text = json.dumps({str(path): sorted(digests) for path, digests in ours.items()})
    write_durably(draft, text.encode("ascii"))
    os.replace(draft, _home(root) / _JOURNAL)


def drop_journal(root: Path) -> None:
    """Forget the journal: the write is finished, or undone.

    Args:
        root: the work tree, a real path.
    """
    with suppress(OSError):  # a journal too many only means that fewer edits are noticed
        (_home(root) / _JOURNAL).unlink()


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file with mode 0644 and wait until the disk has it.

    Args:
        path: the file, which must not exist.
        data: its content.

    Raises:
        OSError: when that fails.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, 0o644)  # whatever the umask
        file.write(data)
        file.flush()
        os.fsync(handle)


def _home(root: Path) -> Path:
    return staging_directory_for(root, root / _JOURNAL)


def _git_dir(root: Path) -> Path | None:
    """Find the git directory without git: writing also works in a tree that git refuses."""
    place = root / ".git"
    if place.is_file():  # a linked work tree or a submodule
        with suppress(OSError, ValueError):
            place = root / place.read_text(encoding="utf-8").removeprefix("gitdir: ").rstrip("\n")
    return place.resolve() if place.is_dir() else None
