"""One commit of exactly the files we wrote, made beside whatever the person has staged or left unfinished.

Nothing is visible until the branch moves, and every step before that leaves at most objects that nothing refers to (git
collects them). In the order of :func:`commit`, a crash leaves:

1. after the objects are written: nothing that anyone can see;
2. after ``index.lock`` is taken: the same, and the lock, which the next run recognises and removes;
3. after the branch moved: the complete commit, and the new index waiting in ``index.lock``. The next run puts it in
   place; until then git asks to have it removed (then ``git reset -q -- <our paths>`` finishes the job).

The lock comes before the branch moves, so that an index which another process holds stops us while nothing has
happened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from scepsy.documents.paths import check_output_name
from scepsy.errors import ScepsyError
from scepsy.repository.git import GitFailed, ask, git, line, no_filters
from scepsy.repository.staging import Busy, fill_index_lock, opened, staging_directory_in, take_index_lock
from scepsy.repository.worktree import (
    Entry,
    WorkTree,
    blob_hash,
    entries_at_head,
    entries_in_index,
    where_head_is,
)

_FILE = "100644"

# What git leaves in its directory while it waits for the user to finish: marker, name, what to do.
_OPERATIONS = (
    ("rebase-merge", "a rebase", "git rebase --continue, or git rebase --abort"),
    ("rebase-apply", "a rebase or git am", "git rebase --continue or --abort, or git am --continue or --abort"),
    ("MERGE_HEAD", "a merge", "git merge --continue, or git merge --abort"),
    ("CHERRY_PICK_HEAD", "a cherry-pick", "git cherry-pick --continue, or git cherry-pick --abort"),
    ("REVERT_HEAD", "a revert", "git revert --continue, or git revert --abort"),
    ("sequencer", "a cherry-pick or revert of several commits", "git cherry-pick --continue, or --abort"),
    ("BISECT_LOG", "a bisection", "git bisect reset"),
)


class CannotCommit(ScepsyError):
    """The repository is not in a state to be committed to; nothing was done."""


class StagedChange(CannotCommit):
    """Somebody staged another change in a file that we are about to commit."""


class HeadMoved(CannotCommit):
    """HEAD is not where it was when the work tree was opened."""


def check_committable(tree: WorkTree, files: Mapping[PurePosixPath, bytes | None]) -> None:
    """Check, without writing anything, that :func:`commit` would work; call it before files are written.

    Args:
        tree: the work tree.
        files: what would be committed: the content of each path, or None where it is to be deleted.

    Raises:
        PathEscapes: when a path leads out of the root or into ``.git``.
        StagedChange: when the index holds another change at one of the paths.
        HeadMoved: when HEAD moved since the tree was opened.
        CannotCommit: during a merge, rebase or the like; without an identity; while the index is locked; when a
            committed file is where a path needs a directory, or the other way round.
        GitFailed: when git fails.
    """
    for path in files:
        check_output_name(path)
    _check_no_operation(tree)
    _check_head(tree)
    _check_identity(tree)
    if _lock_of(tree).exists():
        with suppress(Busy, OSError), opened(staging_directory_in(tree.git_dir)):
            pass  # opening it clears away a lock that a killed run left
    if _lock_of(tree).exists():
        raise _locked(tree)
    _check_index(tree, files)


def commit(tree: WorkTree, files: Mapping[PurePosixPath, bytes | None], message: str) -> str | None:
    """Commit the given content of the given paths, and nothing else.

    The work tree is not read. No hook and no filter runs, and the commit is not signed.

    Args:
        tree: the work tree, as it was when the compile began.
        files: the content of each path, or None where it is to be deleted.
        message: the commit message.

    Returns:
        The hash of the commit; None when HEAD already holds all of it.

    Raises:
        PathEscapes: as :func:`check_committable`.
        CannotCommit: as :func:`check_committable`.
        GitFailed: when git fails, for example because the disk is full; the branch has not moved then.
        Busy: when another scepsy process works in the repository.
    """
    check_committable(tree, files)
    try:
        with opened(staging_directory_in(tree.git_dir)) as staging:
            edits = _edits(tree, files)
            made = _write_commit(tree, edits, message, staging)
            if made is not None:
                reason = "scepsy: " + _text(message).decode().partition("\n")[0]
                _publish(tree, made, reason, files, edits=edits, staging=staging)
            return made
    except OSError as error:
        raise _disk_error(tree, error) from None


def make_commit(tree: WorkTree, files: Mapping[PurePosixPath, bytes | None], message: str) -> str | None:
    """Make the commit that :func:`commit` would, and leave branch and index as they are: nothing refers to it.

    Args:
        tree: the work tree; its HEAD becomes the parent.
        files: the content of each path, or None where it is to be deleted.
        message: the commit message.

    Returns:
        The hash of the commit; None when HEAD already holds all of it.

    Raises:
        PathEscapes: when a path leads out of the root or into ``.git``.
        CannotCommit: when a committed file is where a path needs a directory, or the disk refuses.
        GitFailed: when git fails.
        Busy: when another scepsy process works in the repository.
    """
    for path in files:
        check_output_name(path)
    deleted = {path for path, data in files.items() if data is None}
    _check_places({*files} - deleted, {*entries_at_head(tree)} - deleted)
    try:
        with opened(staging_directory_in(tree.git_dir)) as staging:
            return _write_commit(tree, _edits(tree, files), message, staging)
    except OSError as error:
        raise _disk_error(tree, error) from None


def _write_commit(tree: WorkTree, edits: bytes, message: str, staging: Path) -> str | None:
    """Write a commit with these edits on top of HEAD; None if they change nothing."""
    new_tree = _write_tree(tree, edits, staging / "tree-index")
    if new_tree == _head_tree(tree):
        return None
    parent = ("-p", tree.head) if tree.head else ()
    return line(tree.root, "commit-tree", "--no-gpg-sign", new_tree, *parent, "-F", "-", stdin=_text(message))


def _text(message: str) -> bytes:
    return (message.replace("\0", "").rstrip("\n") + "\n").encode(errors="backslashreplace")


def advance(tree: WorkTree, made: str, entries: Mapping[PurePosixPath, str | None], tracking: str | None) -> None:
    """Move the branch on to a commit that is there, and the index with it; the work tree is not read.

    Args:
        tree: the work tree.
        made: the commit, which has HEAD among its ancestors.
        entries: for each path in which it differs from HEAD the hash of the plain file there, or None for none.
        tracking: a reference that says where the remote's branch is, and moves too if it can be moved.

    Raises:
        CannotCommit: as :func:`check_committable`; nothing moved then.
        GitFailed: when git fails.
        Busy: when another scepsy process works in the repository.
    """
    none = "0" * len(made)
    edits = b"".join(
        _edit(_FILE, oid, path) if oid else _edit("0", none, path) for path, oid in sorted(entries.items())
    )
    try:
        with opened(staging_directory_in(tree.git_dir)) as staging:
            _publish(tree, made, "scepsy: fast-forward", entries, edits=edits, staging=staging, tracking=tracking)
    except OSError as error:
        raise _disk_error(tree, error) from None


def _disk_error(tree: WorkTree, error: OSError) -> CannotCommit:
    place = error.filename2 or error.filename or tree.git_dir
    return CannotCommit(f"cannot commit: {place}: {error.strerror or error}", "fix this and re-run")


def commit_to_branch(tree: WorkTree, branch: str, files: Mapping[PurePosixPath, bytes], message: str) -> str:
    """Commit the given content on a new branch that starts at HEAD; HEAD, index and work tree stay as they are.

    The branch comes to be with its commit, or not at all. No hook and no filter runs, and the commit is not signed.

    Args:
        tree: the work tree.
        branch: the branch's name, such as `profiles/0a1b2c3d`.
        files: the content of each path.
        message: the commit message.

    Returns:
        The hash of the commit; of the one that is there if the branch exists and holds all of it.

    Raises:
        PathEscapes: when a path leads out of the root or into ``.git``.
        CannotCommit: the name is not valid, the branch exists and holds something else, there is no commit to start
            at, or git does not know who commits.
        GitFailed: when git fails; there is no branch then.
        Busy: when another scepsy process works in the repository.
    """
    for path in files:
        check_output_name(path)
    check_branch(tree, branch)
    assert tree.head is not None  # noqa: S101 - checked
    reference = f"refs/heads/{branch}"
    existing = _existing(tree, reference, branch, files)
    if existing is not None:
        return existing
    _check_places(files, set(entries_at_head(tree)))
    try:
        with opened(staging_directory_in(tree.git_dir)) as staging:
            new_tree = _write_tree(tree, _edits(tree, files), staging / "tree-index")
            text = _text(message)
            made = line(tree.root, "commit-tree", "--no-gpg-sign", new_tree, "-p", tree.head, "-F", "-", stdin=text)
            reason = "scepsy: " + text.decode().partition("\n")[0]
            try:
                # The empty old value makes git refuse when the branch has come to be meanwhile.
                git(tree.root, "update-ref", "--no-deref", "-m", reason, reference, made, "")
            except GitFailed as error:
                existing = _existing(tree, reference, branch, files)
                if existing is not None:
                    return existing
                raise CannotCommit(f"cannot create the branch {branch}: {error.stderr}") from None
            return made
    except OSError as error:
        raise _disk_error(tree, error) from None


def check_branch(tree: WorkTree, branch: str) -> None:
    """Check, without writing anything, that :func:`commit_to_branch` could make a branch of this name.

    Args:
        tree: the work tree.
        branch: the branch's name; it may exist.

    Raises:
        CannotCommit: the name is not valid, another branch is in its way, there is no commit to start at, or git does
            not know who commits.
        GitFailed: when git fails.
    """
    check_branch_name(tree, branch)
    if tree.head is None:
        raise CannotCommit("the repository has no commit to start a branch from", "commit the project first")
    for parent in PurePosixPath(branch).parents[:-1]:
        if ask(tree.root, "rev-parse", "-q", "--verify", f"refs/heads/{parent}"):
            raise CannotCommit(
                f"cannot create the branch {branch}: the branch {parent} exists", "name another branch with --branch"
            )
    _check_identity(tree)


def check_branch_name(tree: WorkTree, branch: str) -> None:
    """Check that git takes a name for a branch's.

    Raises:
        CannotCommit: it does not.
        GitFailed: when git fails.
    """
    if branch.startswith("-") or ask(tree.root, "check-ref-format", f"refs/heads/{branch}") is None:
        raise CannotCommit(
            f"{branch!r:.80} is not a valid branch name", "use a name such as team/topic, without spaces and ~^:?*["
        )


def _existing(tree: WorkTree, reference: str, branch: str, files: Mapping[PurePosixPath, bytes]) -> str | None:
    """Return the commit of a branch that holds all files; None if there is no such branch.

    Raises:
        CannotCommit: it holds something else.
    """
    there = ask(tree.root, "rev-parse", "-q", "--verify", f"{reference}^{{commit}}")
    if there is None or reference in holders(tree, files, (reference,)):
        return there
    raise CannotCommit(f"the branch {branch} exists, with other content", "name another branch with --branch")


def holders(
    tree: WorkTree, files: Mapping[PurePosixPath, bytes], references: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Return the references whose commits hold all files with just this content.

    Args:
        tree: the work tree.
        files: the content of each path.
        references: which to search; HEAD, local branches and those of remotes if None.

    Raises:
        GitFailed: when git fails.
    """
    if references is None:
        listed = git(tree.root, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes")
        references = (*(("HEAD",) if tree.head else ()), *listed.decode(errors="surrogateescape").split())
    places = [(reference, path) for reference in references for path in sorted(files)]
    asked = b"".join(os.fsencode(f"{reference}:{path}") + b"\n" for reference, path in places)
    answers = (
        git(tree.root, "cat-file", "--batch-check=%(objectname)", stdin=asked).decode(errors="replace").split("\n")
    )
    lacking = {
        reference
        for (reference, path), answer in zip(places, answers, strict=False)
        if " " in answer or answer != blob_hash(files[path], like=answer)
    }
    return tuple(dict.fromkeys(reference for reference, _ in places if reference not in lacking))


def _publish(
    tree: WorkTree,
    made: str,
    reason: str,
    files: Mapping[PurePosixPath, bytes | str | None],
    *,
    edits: bytes,
    staging: Path,
    tracking: str | None = None,
) -> None:
    """Move the branch to the commit and our paths in the index along with it, by git's own protocol: lock, rename."""
    index, lock, draft = tree.git_dir / "index", _lock_of(tree), staging / "index"
    try:
        take_index_lock(tree.git_dir, staging)
    except FileExistsError:
        raise _locked(tree) from None
    try:
        _check_index(tree, files)  # again: from here on nothing can be staged by others
        if index.exists():
            shutil.copy2(index, draft)  # with its time: git compares it with the files' to notice late edits
        _edit_index(tree, edits, draft)
        references = [name for name in ("HEAD", tree.branch and f"refs/heads/{tree.branch}", tracking) if name]
        fill_index_lock(tree.git_dir, staging, draft, made, references)
        _move_head(tree, made, reason)
        if tracking:
            with suppress(GitFailed):
                git(tree.root, "update-ref", "--no-deref", "-m", reason, tracking, made)
    finally:
        # Asked, not remembered: an interrupt may come while git moves the branch.
        if _head_is(tree, made):
            _put_in_place(lock, index, made)
        else:
            lock.unlink(missing_ok=True)


def _put_in_place(lock: Path, index: Path, made: str) -> None:
    try:
        os.replace(lock, index)
    except OSError as error:
        raise ScepsyError(
            f"commit {made} was made, but {index} could not be updated: {error.strerror}",
            f"make it writable, then: mv {lock} {index}",
        ) from None


def _move_head(tree: WorkTree, made: str, reason: str) -> None:
    reference = f"refs/heads/{tree.branch}" if tree.branch else "HEAD"
    try:
        # The old value makes git refuse when another process moved it; empty means that it must not exist.
        git(tree.root, "update-ref", "--no-deref", "-m", reason, reference, made, tree.head or "")
    except GitFailed as error:
        _check_head(tree)
        raise CannotCommit(f"{reference} could not be moved to the new commit: {error.stderr}") from None


def _head_is(tree: WorkTree, made: str) -> bool:
    try:
        return where_head_is(tree.root)[0] == made
    except GitFailed:
        return False


def _edits(tree: WorkTree, files: Mapping[PurePosixPath, bytes | None]) -> bytes:
    """Store the new contents, and return as ``update-index --index-info`` what differs from HEAD."""
    head, lines = entries_at_head(tree), []
    for path, data in sorted(files.items()):
        old = head.get(path)
        if data is None:
            if old:
                lines.append(_edit("0", "0" * len(old.oid), path))
        elif not _holds(old, data):
            # From standard input and without a path: no attribute applies, so no filter runs.
            oid = line(tree.root, "hash-object", "-w", "--stdin", stdin=data)
            lines.append(_edit(_FILE, oid, path))
    return b"".join(lines)


def _edit(mode: str, oid: str, path: PurePosixPath) -> bytes:
    return f"{mode} {oid}\t".encode() + os.fsencode(str(path)) + b"\0"


def _edit_index(tree: WorkTree, edits: bytes, index: Path) -> None:
    variables = {"GIT_INDEX_FILE": str(index), **no_filters(tree.root)}
    git(tree.root, "update-index", "-z", "--index-info", stdin=edits, variables=variables)


def _write_tree(tree: WorkTree, edits: bytes, index: Path) -> str:
    variables = {"GIT_INDEX_FILE": str(index)}
    git(tree.root, "read-tree", tree.head or "--empty", variables=variables)
    _edit_index(tree, edits, index)
    # A partial clone lacks content that we neither touch nor need.
    return line(tree.root, "write-tree", "--missing-ok", variables=variables)


def _head_tree(tree: WorkTree) -> str:
    if tree.head is None:
        return line(tree.root, "hash-object", "-t", "tree", "--stdin")  # of nothing: the empty tree
    return line(tree.root, "rev-parse", "--verify", f"{tree.head}^{{tree}}")


def _holds(entry: Entry | None, wanted: bytes | str) -> bool:
    """Tell whether an entry is a plain file with this content, or with content of this hash."""
    if entry is None or entry.mode != _FILE or entry.unmerged:
        return False
    return entry.oid == (wanted if isinstance(wanted, str) else blob_hash(wanted, like=entry.oid))


def _check_no_operation(tree: WorkTree) -> None:
    for marker, name, remedy in _OPERATIONS:
        # Some reference formats keep the *_HEADs elsewhere than in files.
        if (tree.git_dir / marker).exists() or (
            marker.endswith("_HEAD") and ask(tree.root, "rev-parse", "-q", "--verify", marker)
        ):
            raise CannotCommit(f"{name} is in progress in {tree.root}", f"finish it first: {remedy}")


def _check_head(tree: WorkTree) -> None:
    now = where_head_is(tree.root)
    if now != (tree.head, tree.branch):
        before = _describe(tree.head, tree.branch)
        raise HeadMoved(f"HEAD moved from {before} to {_describe(*now)} during the run", "re-run the command")


def _describe(head: str | None, branch: str | None) -> str:
    return f"{branch or 'detached'} at {head[:12] if head else 'no commit'}"


def _check_identity(tree: WorkTree) -> None:
    for identity in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        try:
            git(tree.root, "var", identity)
        except GitFailed as error:
            reason = error.stderr.splitlines()[-1] if error.stderr else error.message
            raise CannotCommit(
                f"Git has no author identity for the commit: {reason}",
                'git config user.name "Your Name" && git config user.email you@example.com',
            ) from None


def _check_index(tree: WorkTree, files: Mapping[PurePosixPath, bytes | str | None]) -> None:
    head, index = entries_at_head(tree), entries_in_index(tree)
    staged = [path for path in sorted(files) if _is_staged_change(index.get(path), head.get(path), files[path])]
    if staged:
        names = " ".join(str(path) for path in staged)
        raise StagedChange(
            f"a change is already staged in: {', '.join(str(path) for path in staged)}",
            f"commit it first, or unstage it: git reset -q -- {names}",
        )
    deleted = {path for path, data in files.items() if data is None}
    _check_places({*files} - deleted, {*head, *index} - deleted)


def _is_staged_change(index: Entry | None, head: Entry | None, data: bytes | str | None) -> bool:
    unchanged = head is None if index is None else index.same_content(head)
    return not unchanged and not (index is None if data is None else _holds(index, data))


def _check_places(new: Iterable[PurePosixPath], kept: set[PurePosixPath]) -> None:
    """Refuse a file where another's directory is, or below another file: git would drop that other one."""
    directories = {parent for path in kept for parent in path.parents}
    for path in sorted(new):
        other = next((parent for parent in path.parents if parent in kept), path if path in directories else None)
        if other:
            what = "a directory" if other == path else "a file"
            raise CannotCommit(
                f"{path} cannot be committed: {other} is {what} in HEAD or in the index",
                f"remove it from Git first: git rm -r --cached {other}, and commit that",
            )


def _lock_of(tree: WorkTree) -> Path:
    return tree.git_dir / "index.lock"


def _locked(tree: WorkTree) -> CannotCommit:
    return CannotCommit(
        f"another process uses the index of {tree.root}: {_lock_of(tree)} exists; nothing was committed",
        "wait for it, then re-run; if no git process is running, remove that file",
    )
