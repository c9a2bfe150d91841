"""A Git work tree: where it is, what HEAD holds, and where files differ from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from scepsy.documents.paths import follow, relative
from scepsy.errors import ScepsyError
from scepsy.repository.git import GitFailed, ask, git, line

_LINK = "120000"
_FILES = ("100644", "100755")


class NotAWorkTree(ScepsyError):
    """There is no Git work tree to compile in.

    Args:
        message: what is there instead.
        hint: what to do next.
        repository: whether there is a repository all the same (a bare one, or its ``.git`` was entered).
    """

    def __init__(self, message: str, hint: str = "", repository: bool = False) -> None:
        super().__init__(message, hint)
        self.repository = repository


@dataclass(frozen=True)
class WorkTree:
    """A work tree as it was when it was opened.

    Attributes:
        root: its top directory, a real path.
        git_dir: the directory with its index and HEAD (of this work tree, where the repository has several).
        head: the hash of the commit at HEAD; None when there is none yet.
        branch: the branch that HEAD names, such as ``main``; None when HEAD is detached.
    """

    root: Path
    git_dir: Path
    head: str | None
    branch: str | None


@dataclass(frozen=True)
class Entry:
    """A file in a tree or in the index.

    Attributes:
        mode: git's octal mode, such as ``100644``.
        oid: the hash of its content.
        skipped: the work tree need not hold it (a sparse checkout).
        unmerged: a merge left several versions of it.
    """

    mode: str
    oid: str
    skipped: bool = False
    unmerged: bool = False

    def same_content(self, other: Entry | None) -> bool:
        """Tell whether another entry holds the same content as the same kind of file."""
        return other is not None and (self.mode, self.oid, self.unmerged) == (other.mode, other.oid, other.unmerged)


def open_worktree(path: Path) -> WorkTree:
    """Find the Git work tree that contains a path.

    Args:
        path: an existing directory or file.

    Returns:
        The work tree, with HEAD as it is now.

    Raises:
        NotAWorkTree: when the path does not exist, or is not inside a work tree.
        GitFailed: when git is not installed, or refuses the repository.
    """
    if not os.path.exists(path):  # also where we lack permission
        raise NotAWorkTree(f"{path} does not exist", "name a directory inside a Git repository")
    start = Path(os.path.realpath(path if os.path.isdir(path) else path.parent))
    try:
        bare = line(start, "rev-parse", "--is-bare-repository") == "true"
    except GitFailed as error:
        if "not a git repository" in error.stderr:
            raise NotAWorkTree(f"{start} is not in a Git repository", f"git init {start}") from None
        raise
    if bare:
        raise NotAWorkTree(f"{start} is a bare repository: it has no files", "clone it and compile in the clone", True)
    if line(start, "rev-parse", "--is-inside-work-tree") != "true":
        raise NotAWorkTree(f"{start} is inside a .git directory", "run in the work tree, one level above .git", True)
    root = Path(os.path.realpath(line(start, "rev-parse", "--show-toplevel")))
    git_dir = Path(os.path.realpath(line(start, "rev-parse", "--absolute-git-dir")))
    head, branch = where_head_is(root)
    return WorkTree(root=root, git_dir=git_dir, head=head, branch=branch)


def open_worktree_or_none(path: Path) -> WorkTree | None:
    """Find the Git work tree that contains a path, or None where there is no repository.

    Raises:
        NotAWorkTree: there is a repository, but no work tree (a bare one, or inside .git).
        GitFailed: git is not installed, or refuses the repository.
    """
    try:
        return open_worktree(path)
    except NotAWorkTree as error:
        if error.repository:
            raise
        return None


def where_head_is(root: Path) -> tuple[str | None, str | None]:
    """Look up HEAD now.

    Args:
        root: the work tree.

    Returns:
        The hash of the commit (None before the first), and the name of the branch (None when detached).

    Raises:
        GitFailed: when git fails.
    """
    reference = ask(root, "symbolic-ref", "-q", "HEAD")
    return ask(root, "rev-parse", "-q", "--verify", "HEAD"), reference and reference.removeprefix("refs/heads/")


def has_commit(where: Path, commit: str) -> bool:
    """Tell whether a repository has a commit.

    Args:
        where: a directory in it.
        commit: its hash.
    """
    try:
        git(where, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitFailed:
        return False
    return True


def entries_at_head(tree: WorkTree) -> Mapping[PurePosixPath, Entry]:
    """List every file of HEAD's tree.

    Args:
        tree: the work tree.

    Returns:
        The files by path, with submodules as entries of mode ``160000``; none before the first commit.

    Raises:
        GitFailed: when git fails.
    """
    return _entries_of(tree.root, tree.head) if tree.head else {}


@lru_cache(maxsize=4)  # a commit never changes, and a compile asks for every file that it owns
def _entries_of(root: Path, commit: str) -> Mapping[PurePosixPath, Entry]:
    listing = git(root, "ls-tree", "-r", "-z", "--full-tree", commit)
    entries = {}
    for record in listing.split(b"\0")[:-1]:
        about, _, name = record.partition(b"\t")
        mode, _, oid = about.decode().split(" ")
        entries[_path(name)] = Entry(mode, oid)
    return MappingProxyType(entries)


def entries_in_index(tree: WorkTree) -> dict[PurePosixPath, Entry]:
    """List every file of the index.

    Args:
        tree: the work tree.

    Returns:
        The entries by path.

    Raises:
        GitFailed: when git fails.
    """
    listing = git(tree.root, "ls-files", "-t", "--stage", "-z", "--full-name")
    entries = {}
    for record in listing.split(b"\0")[:-1]:
        about, _, name = record.partition(b"\t")
        tag, mode, oid, stage = about.decode().split(" ")
        entries[_path(name)] = Entry(mode, oid, skipped=tag == "S", unmerged=stage != "0")
    return entries


def read_at_head(tree: WorkTree, path: PurePosixPath) -> bytes | None:
    """Read a file as it was committed.

    Args:
        tree: the work tree.
        path: the file, relative to the root.

    Returns:
        Its bytes; None when HEAD holds no regular file there.

    Raises:
        GitFailed: when git fails.
    """
    entry = entries_at_head(tree).get(path)
    if entry is None or entry.mode not in _FILES:
        return None
    return git(tree.root, "cat-file", "blob", entry.oid)


def history(tree: WorkTree, path: PurePosixPath, most: int = 20) -> Iterator[bytes]:
    """Yield the contents that a file had, HEAD's first, then along the first parents; versions without it are left out.

    Args:
        tree: the work tree.
        path: the file, relative to the root.
        most: so many commits that changed it are read.

    Raises:
        GitFailed: when git fails.
    """
    if tree.head is None:
        return
    listed = git(tree.root, "rev-list", "--first-parent", f"--max-count={most}", tree.head, "--", str(path))
    for commit in listed.decode().split():
        data = read_at_head(replace(tree, head=commit), path)
        if data is not None:
            yield data


def changed_at(tree: WorkTree, path: PurePosixPath) -> float | None:
    """Return when a file last changed, along the first parents of HEAD.

    Args:
        tree: the work tree.
        path: the file, relative to the root.

    Returns:
        The committer's time, Unix seconds; None where no commit changed it, or where that may lie before the beginning
        of a shallow clone.

    Raises:
        GitFailed: when git fails.
    """
    if tree.head is None:
        return None
    asked = ("log", "-1", "--first-parent", "--format=%H %ct", tree.head, "--", str(path))
    found = git(tree.root, *asked).decode().split()
    shallow = tree.git_dir / "shallow"
    if not found or (shallow.is_file() and found[0] in shallow.read_text(encoding="ascii").split()):
        return None
    return float(found[1])


def differing(tree: WorkTree, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Tell which files are not, in the work tree and in the index, what HEAD holds.

    Bytes are compared, so that no filter of the repository runs. Two conversions that git makes on checkout are
    undone first: CRLF line ends, and Git LFS content in place of its pointer. A path that goes through symlinks
    differs also when one of the links does.

    Args:
        tree: the work tree.
        paths: files relative to the root.

    Returns:
        For each path that differs, in sorted order: ``untracked``, ``modified``, ``staged`` or ``deleted``.

    Raises:
        PathEscapes: when a path leads out of the repository.
        GitFailed: when git fails.
        ScepsyError: when a file cannot be read.
    """
    head, index = entries_at_head(tree), entries_in_index(tree)
    found = {}
    for path in sorted(set(paths)):
        final, links = follow(tree.root, str(path), tree.root)
        for step in relative(tree.root, (*links, final)):
            reason = _difference(tree, step, head.get(step), index.get(step))
            if reason:
                found[path] = reason
                break
    return found


def _difference(tree: WorkTree, path: PurePosixPath, head: Entry | None, index: Entry | None) -> str | None:
    there, content = on_disk(tree.root / path)
    if head is None:
        return "staged" if index else ("untracked" if there else None)
    if not there and not (index and index.skipped):
        return "deleted"
    if not head.same_content(index):
        return "staged"
    if there and (content is None or not is_checkout_of(head, *content)):
        return "modified"
    return None


def is_one_of(oids: Iterable[str], mode: str, data: bytes) -> bool:
    """Tell whether a file is what git would check out for one of these hashes, line ends and LFS aside."""
    return any(oid.strip("0") and is_checkout_of(Entry(_FILES[0], oid), mode, data) for oid in oids)


def versions_between(where: Path, old: str, new: str) -> dict[PurePosixPath, set[str]]:
    """Return the hashes of all contents that each changed path had on the way from a commit to a later one.

    Args:
        where: a directory in a repository with both.
        old: the earlier commit.
        new: the later one.

    Returns:
        Hashes by path; one of zeros where there was no file.

    Raises:
        GitFailed: when git fails.
    """
    flags = ("--format=", "--raw", "-z", "-m", "--no-abbrev", "--no-renames", "--no-show-signature")
    found: dict[PurePosixPath, set[str]] = {}
    for path, _, _, before, after in raw_differences(git(where, "log", *flags, f"{old}..{new}")):
        found.setdefault(path, set()).update((before, after))
    return found


def raw_differences(listed: bytes) -> Iterator[tuple[PurePosixPath, str, str, str, str]]:
    """Read git's raw format: path, modes before and after, hashes before and after."""
    fields = listed.split(b"\0")
    for about, name in pairwise(fields):
        if about.lstrip(b"\n").startswith(b":"):
            old_mode, mode, old, oid, _ = about.lstrip(b"\n")[1:].decode().split(" ")
            yield _path(name), old_mode, mode, old, oid


def on_disk(path: Path) -> tuple[bool, tuple[str, bytes] | None]:
    """Return whether something is there, and its mode and bytes when it is a file or a symlink.

    Raises:
        ScepsyError: it cannot be read.
    """
    try:
        if path.is_symlink():
            return True, (_LINK, os.fsencode(os.readlink(path)))
        if path.is_file():
            return True, (_FILES[0], path.read_bytes())
    except OSError as error:
        raise ScepsyError(f"cannot read {path}: {error.strerror}", "make the file readable") from None
    return os.path.lexists(path), None


def is_checkout_of(entry: Entry, mode: str, data: bytes) -> bool:
    """Tell whether a file or link in a work tree is what git would check out for an entry, line ends and LFS aside."""
    if (entry.mode == _LINK) != (mode == _LINK):
        return False
    # One after the other: the first form is the right one for nearly every file, and traces are long.
    forms = (form(data) for form in (bytes, with_line_feeds, _lfs_pointer))
    return any(entry.oid == blob_hash(form, like=entry.oid) for form in forms)


def _lfs_pointer(data: bytes) -> bytes:
    """Return what Git LFS commits in place of this content."""
    digest = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()


def blob_hash(data: bytes, like: str) -> str:
    """Return the hash that git gives to content.

    Args:
        data: the content.
        like: any hash of the repository, whose length tells its object format.

    Returns:
        The hash in hexadecimal digits.
    """
    # S324: SHA-1 is what git names objects with; nothing here relies on it for security.
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1()  # noqa: S324
    digest.update(b"blob %d\0" % len(data))
    digest.update(data)
    return digest.hexdigest()


def with_line_feeds(data: bytes) -> bytes:
    """Undo the line ends of a Windows checkout (``core.autocrlf``); binary content is left alone.

    Args:
        data: the content of a file.

    Returns:
        The content with LF line ends.
    """
    return data if b"\0" in data else data.replace(b"\r\n", b"\n")


def _path(name: bytes) -> PurePosixPath:
    return PurePosixPath(os.fsdecode(name))
