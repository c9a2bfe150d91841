"""Files that the compiler owns: what would change, and changing all of it or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from scepsy.documents.paths import output_path
from scepsy.errors import ScepsyError
from scepsy.repository.staging import (
    drop_journal,
    keep_journal,
    opened,
    read_journal,
    staging_directory_for,
    write_durably,
)
from scepsy.repository.worktree import with_line_feeds

_SHOWN = 5  # of the paths in a message
_OBSTACLE = "a directory (or another thing that is no file) is where a file must go"


class WouldOverwrite(ScepsyError):
    """Writing would destroy what another program or person wrote.

    Args:
        changes: what was about to be written.
    """

    def __init__(self, changes: Changes) -> None:
        parts = []
        if changes.edited:
            parts.append(f"edited by hand since the last compile: {_some(changes.edited)}")
        if changes.foreign:
            parts.append(f"not written by scepsy: {_some(changes.foreign)}")
        super().__init__(
            "; ".join(parts), "move those changes into the specs, or overwrite them: scepsy compile --force"
        )
        self.changes = changes


class WriteFailed(ScepsyError):
    """Files could not be written; the message says in which state they are."""


@dataclass(frozen=True)
class Changes:
    """What writing would do, as sorted paths relative to the root.

    Every wanted path is in exactly one of ``added``, ``changed`` and ``unchanged``. ``edited`` and ``foreign`` are
    warnings about paths that are also in ``changed`` or ``removed``.

    Attributes:
        added: wanted, and not there.
        changed: wanted, and there with other content.
        removed: owned, no longer wanted, and there.
        unchanged: wanted, and there as wanted.
        edited: owned, and changed by hand since the previous compile.
        foreign: wanted, never owned, and there with other content.
    """

    added: tuple[PurePosixPath, ...] = ()
    changed: tuple[PurePosixPath, ...] = ()
    removed: tuple[PurePosixPath, ...] = ()
    unchanged: tuple[PurePosixPath, ...] = ()
    edited: tuple[PurePosixPath, ...] = ()
    foreign: tuple[PurePosixPath, ...] = ()

    @property
    def any(self) -> bool:
        """Whether writing would change anything."""
        return bool(self.added or self.changed or self.removed)


def plan_changes(root: Path, files: Mapping[PurePosixPath, bytes], owned: Mapping[PurePosixPath, str]) -> Changes:
    """Compare what the compiler wants with what is there; nothing is written.

    A file whose line ends a checkout turned into CRLF is taken for the file itself.

    Args:
        root: the work tree.
        files: everything the compiler wants to exist, by path relative to the root.
        owned: the files that the previous compile wrote, with the sha256 (hexadecimal) of each.

    Returns:
        What would change.

    Raises:
        PathEscapes: when a path leads out of the root, into ``.git`` or through a symlink.
        WriteFailed: when a directory is where a file should be, or a file cannot be read.
    """
    root = Path(os.path.realpath(root))
    known = _merged({path: frozenset((digest,)) for path, digest in owned.items()}, read_journal(root))
    found: dict[str, list[PurePosixPath]] = {name: [] for name in Changes.__dataclass_fields__}
    for path in sorted({*files, *known}):
        there = _read(output_path(root, path), path)
        wanted = files.get(path)
        if there is None:
            if wanted is not None:
                found["added"].append(path)
            continue
        if wanted is not None and wanted in (there, with_line_feeds(there)):
            found["unchanged"].append(path)
            continue
        found["removed" if wanted is None else "changed"].append(path)
        if path not in known:
            found["foreign"].append(path)
        elif not known[path] & {_digest(there), _digest(with_line_feeds(there))}:
            found["edited"].append(path)
    return Changes(**{name: tuple(paths) for name, paths in found.items()})


def write(root: Path, files: Mapping[PurePosixPath, bytes], changes: Changes, *, overwrite: bool = False) -> None:
    """Bring the files to what is wanted: all of them, or none.

    Every new file is first written to the side and synced; then each is renamed into place, removals last; then the
    directories that the removals emptied go. On a failure, what was already done is undone. A kill during this leaves
    each file whole, old or new, and the next :func:`plan_changes` and ``write`` carry on from there.

    Args:
        root: the work tree.
        files: everything the compiler wants to exist, as given to :func:`plan_changes`.
        changes: what :func:`plan_changes` answered.
        overwrite: also replace what was edited by hand or is not ours.

    Raises:
        WouldOverwrite: when there is something edited or foreign, and ``overwrite`` is not set.
        PathEscapes: when a path leads out of the root, into ``.git`` or through a symlink.
        WriteFailed: when it could not be done, after undoing it.
        Busy: when another process writes in the same repository.
    """
    if not overwrite and (changes.edited or changes.foreign):
        raise WouldOverwrite(changes)
    root = Path(os.path.realpath(root))
    puts = {output_path(root, path): files[path] for path in (*changes.added, *changes.changed)}
    drops = [output_path(root, path) for path in changes.removed]
    not_undone: list[str] = []
    try:
        home = staging_directory_for(root, root / "any")
        staging_of = {target: staging_directory_for(root, target) for target in (*puts, *drops)}
        staging_directories = sorted({home, *staging_of.values()})
        if not changes.any and not any(directory.exists() for directory in staging_directories):
            return
        with ExitStack() as benches:
            staging_for = {directory: benches.enter_context(opened(directory)) for directory in staging_directories}
            earlier = read_journal(root)
            if changes.any:
                keep_journal(root, staging_for[home], _merged(earlier, _ours(root, files, changes)))
            try:
                _apply(puts, drops, {target: staging_for[place] for target, place in staging_of.items()}, not_undone)
            except BaseException:
                if not_undone:
                    _rescue(staging_for)
                elif not earlier:  # what a killed run left is still there to be explained
                    drop_journal(root)
                raise
            _prune(root, {*drops, *(root / path for path in earlier if path not in files)})
            drop_journal(root)
    except OSError as error:
        raise _failure(root, error, not_undone) from None


def _apply(
    puts: Mapping[Path, bytes], drops: list[Path], staging_for: Mapping[Path, Path], not_undone: list[str]
) -> None:
    """Do the work, or undo it and let the error out; what could not be undone is added to ``not_undone``."""
    staged = {}
    for number, (target, data) in enumerate(puts.items()):
        staged[target] = staging_for[target] / f"{number}.new"
        write_durably(staged[target], data)

    with ExitStack() as undo:
        # Each undo is registered before its step and does nothing if that did not happen: an interrupt (Ctrl-C) may
        # come between any two lines.
        def on_failure(step: Callable[[], object], target: Path) -> None:
            def attempt() -> None:
                try:
                    step()
                except OSError:
                    not_undone.append(str(target))

            undo.callback(attempt)

        for number, (target, new) in enumerate(staged.items()):
            _make_parents(target, on_failure)
            backup = staging_for[target] / f"{number}.old"
            if _is_file(target):
                _copy_aside(target, backup)
                on_failure(partial(os.replace, backup, target), target)
            else:
                on_failure(partial(_remove_added, target, new), target)
            os.replace(new, target)
        for number, target in enumerate(drops):
            if _is_file(target):
                backup = staging_for[target] / f"{number}.gone"
                on_failure(partial(_put_back, backup, target), target)
                os.replace(target, backup)
        for directory in sorted({target.parent for target in (*staged, *drops)}):
            _sync(directory)
        undo.pop_all()


def _make_parents(target: Path, on_failure: Callable[[Callable[[], object], Path], None]) -> None:
    missing = []
    directory = target.parent
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for new in reversed(missing):
        if os.path.lexists(new):
            raise NotADirectoryError(errno.ENOTDIR, "a file is where a directory must go", str(new))
        on_failure(partial(_remove_directory, new), new)
        new.mkdir(mode=0o755)


def _is_file(target: Path) -> bool:
    """Tell whether there is a file to keep; refuse what a rename would silently replace, or could not."""
    try:
        kind = target.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(kind):
        return True
    raise OSError(errno.EEXIST, _OBSTACLE, str(target))


def _copy_aside(target: Path, backup: Path) -> None:
    try:
        os.link(target, backup)  # the very file: putting it back restores its times too
    except OSError:
        shutil.copy2(target, backup)  # no hard links on this file system


def _remove_added(target: Path, staged: Path) -> None:
    if not staged.exists():  # it was renamed to the target
        target.unlink(missing_ok=True)


def _remove_directory(directory: Path) -> None:
    with suppress(FileNotFoundError):
        directory.rmdir()


def _put_back(backup: Path, target: Path) -> None:
    if backup.exists():
        os.replace(backup, target)


def _sync(directory: Path) -> None:
    """Make renames durable; where a file system cannot, they are no less done."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _prune(root: Path, dropped: Iterable[Path]) -> None:
    """Remove the directories that removals emptied; git knows no empty ones, and rmdir spares all others."""
    for target in sorted(dropped):
        directory = target.parent
        with suppress(OSError):
            while directory != root:
                directory.rmdir()
                directory = directory.parent


def _rescue(staging_for: Mapping[Path, Path]) -> None:
    """Keep the old files that could not be put back where the next run does not clear them away."""
    for staging in staging_for.values():
        with suppress(OSError):
            os.rename(staging, staging.with_name(f"rescued-{os.getpid()}"))


def _failure(root: Path, error: OSError, not_undone: list[str]) -> WriteFailed:
    place = error.filename2 or error.filename
    what = f"cannot write{f' {place}' if place else ''}: {error.strerror or error}"
    if not_undone:
        return WriteFailed(
            f"{what}; and these could not be put back as they were: {', '.join(sorted(set(not_undone)))}",
            f"their old content is kept in {staging_directory_for(root, root / 'any')}, or in Git: git restore <file>",
        )
    return WriteFailed(f"{what}; nothing was changed", "fix this, then compile again")


def _ours(root: Path, files: Mapping[PurePosixPath, bytes], changes: Changes) -> dict[PurePosixPath, frozenset[str]]:
    """List the bytes that are ours in each file to be touched: the old ones, unless written by others, and the new."""
    others = {*changes.edited, *changes.foreign}
    ours = {}
    for path in (*changes.added, *changes.changed, *changes.removed):
        old = None if path in others else _read(root / path, path)
        ours[path] = frozenset(_digest(data) for data in (old, files.get(path)) if data is not None)
    return ours


def _merged(
    one: Mapping[PurePosixPath, frozenset[str]], other: Mapping[PurePosixPath, frozenset[str]]
) -> dict[PurePosixPath, frozenset[str]]:
    nothing: frozenset[str] = frozenset()
    return {path: one.get(path, nothing) | other.get(path, nothing) for path in {*one, *other}}


def _read(target: Path, path: PurePosixPath) -> bytes | None:
    try:
        if not stat.S_ISREG(target.lstat().st_mode):
            raise WriteFailed(
                f"cannot write {target}: {_OBSTACLE}; nothing was changed", f"move {path} away, then compile again"
            )
        return target.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WriteFailed(
            f"cannot read {target}: {error.strerror}; nothing was changed", "fix this, then compile again"
        ) from None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _some(paths: tuple[PurePosixPath, ...]) -> str:
    shown = ", ".join(str(path) for path in paths[:_SHOWN])
    return shown + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
