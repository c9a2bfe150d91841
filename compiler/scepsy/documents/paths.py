"""Paths that documents name: relative, and inside the repository whatever `..` and symlinks try."""

from __future__ import annotations

import os
from pathlib import Path

from scepsy.errors import ScepsyError


class PathEscapes(ScepsyError):
    """A path that leaves the repository, or enters its `.git`.

    Attributes:
        path: the path as it was written.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f'the path "{path}" {reason}', "use a path inside the repository")
        self.path = path


def contained(root: Path, path: str, base: Path) -> Path:
    """Resolve `path`, written relative to `base`, and make sure that it stays inside `root`.

    Symlinks are followed, and may point anywhere inside `root`. The path need not exist.

    Args:
        root: the repository's top, a real path.
        path: what a document says.
        base: the directory that it is relative to.

    Raises:
        PathEscapes: it is absolute, leaves `root`, or lies in `.git`.
    """
    if os.path.isabs(path) or "\0" in path:
        raise PathEscapes(path, "is not a relative path")
    resolved = Path(os.path.realpath(base / path))
    if resolved != root and root not in resolved.parents:
        raise PathEscapes(path, "leaves the repository")
    if any(part.lower() == ".git" for part in resolved.relative_to(root).parts):
        raise PathEscapes(path, "lies in the repository's .git directory")
    return resolved
