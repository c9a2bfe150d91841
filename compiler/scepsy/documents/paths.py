"""Paths that documents name: kept inside the repository, and away from its ``.git``."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from scepsy.errors import ScepsyError

_MOST_LINKS = 40  # as Linux: more symlinks than this on one path are a loop


class PathEscapes(ScepsyError):
    """A path leads, or could lead, out of the repository."""


def contained(root: Path, path: str | Path, base: Path) -> Path:
    """Resolve a path that a document names, for reading.

    Args:
        root: the work tree that must contain it.
        path: what the document says; ``..`` may be used as long as it stays inside.
        base: the directory of the document, absolute or relative to ``root``.

    Returns:
        The absolute path with every symlink resolved; nothing need exist there.

    Raises:
        PathEscapes: when the path is absolute, leaves the root (by ``..`` or by a symlink), or enters ``.git``.
    """
    return follow(root, path, base)[0]


def follow(root: Path, path: str | Path, base: Path) -> tuple[Path, tuple[Path, ...]]:
    """Resolve as :func:`contained` does, and return which symlinks were passed.

    Args:
        root: the work tree that must contain it.
        path: what the document says.
        base: the directory of the document, absolute or relative to ``root``.

    Returns:
        The resolved absolute path, and the absolute paths of the symlinks on the way, in order.

    Raises:
        PathEscapes: as :func:`contained`.
    """
    text = os.fspath(path)
    _refuse_null(text)
    if os.path.isabs(text):
        raise PathEscapes(f"{text!r} is an absolute path", "name it relative to the document that mentions it")
    real_root = Path(os.path.realpath(root))
    here = Path(os.path.realpath(real_root / base))
    if not here.is_relative_to(real_root):
        raise PathEscapes(f"{str(base)!r} is outside the repository {real_root}", "keep documents in the repository")

    links: list[Path] = []
    ahead = _components(text)
    while ahead:
        name = ahead.pop(0)
        if name == "..":
            if here == real_root:
                raise PathEscapes(
                    f"{text!r} leads out of the repository {real_root}", "name a file inside the repository"
                )
            here = here.parent
            continue
        _refuse_git(name, text)
        step = here / name
        if not _is_link(step, text):
            here = step
            continue
        links.append(step)
        if len(links) > _MOST_LINKS:
            raise PathEscapes(f"{text!r} goes through a loop of symlinks", f"remove the symlink {step}")
        target = os.readlink(step)
        if os.path.isabs(target):
            if not Path(target).is_relative_to(real_root):
                raise PathEscapes(
                    f"{text!r} goes through the symlink {step}, which leads out of the repository to {target}",
                    "commit the file itself instead of a link to it",
                )
            here, target = real_root, os.path.relpath(target, real_root)
        ahead = _components(target) + ahead
    return here, tuple(links)


def output_path(root: Path, path: PurePosixPath) -> Path:
    """Return the path of a file to write or delete; no part of it may be a symlink.

    Args:
        root: the work tree, a real path.
        path: the file, relative to the root.

    Returns:
        The absolute path.

    Raises:
        PathEscapes: when the path is absolute, has ``..``, enters ``.git`` or passes through (or is) a symlink.
    """
    check_output_name(path)
    here = root
    for name in path.parts:
        here = here / name
        if _is_link(here, str(path)):
            raise PathEscapes(
                f"{str(path)!r} would be written through the symlink {here}",
                "remove the link: output is only written to real directories and files",
            )
    return root / path


def check_output_name(path: PurePosixPath) -> None:
    """Check the name of an output path, without the file system.

    Args:
        path: the file, relative to the root.

    Raises:
        PathEscapes: when it is empty or absolute, has ``..`` or a NUL byte, or enters ``.git``.
    """
    _refuse_null(str(path))
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise PathEscapes(
            f"{str(path)!r} is not a path below the repository's root", "use a relative path without '..'"
        )
    for name in path.parts:
        _refuse_git(name, str(path))


def _components(text: str) -> list[str]:
    return [part for part in text.split("/") if part not in ("", ".")]


def _is_link(step: Path, text: str) -> bool:
    try:
        return stat.S_ISLNK(step.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # no permission, a name too long or not encodable
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PathEscapes(f"{text!r} cannot be followed: {reason}", "name a path that can be opened") from None


def _refuse_null(text: str) -> None:
    if "\0" in text:
        raise PathEscapes(f"{text!r} holds a NUL byte", "remove it from the path")


def _refuse_git(name: str, text: str) -> None:
    # Whatever the case: on some file systems .GIT is the same directory.
    if name.casefold() == ".git":
        raise PathEscapes(f"{text!r} is inside {name}, which belongs to git", "name a file outside it")


def relative(root: Path, paths: Sequence[Path]) -> tuple[PurePosixPath, ...]:
    """Return absolute paths as paths relative to the root.

    Args:
        root: the work tree.
        paths: paths below it.

    Returns:
        The same paths, relative, in the same order.
    """
    return tuple(PurePosixPath(path.relative_to(root).as_posix()) for path in paths)
