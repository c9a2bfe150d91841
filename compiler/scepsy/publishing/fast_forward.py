"""Fast-forward the user's checkout to a commit that was pushed, if no local change is in the way; or leave it.

Only files that differ between HEAD and the commit are touched, each replaced whole, all or none, by us: git would run
the repository's filters. A file may be replaced when it is as HEAD has it, as the commit has it, or as a commit between
them had it (a run that died while it brought the checkout forward). Then branch and index move as in a commit.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from scepsy.documents.paths import output_path
from scepsy.errors import ScepsyError
from scepsy.publishing.remote import redacted
from scepsy.publishing.scratch_worktree import ScratchWorktree
from scepsy.repository.commit import advance, check_committable
from scepsy.repository.git import git, no_filters
from scepsy.repository.worktree import (
    WorkTree,
    entries_in_index,
    is_one_of,
    on_disk,
    raw_differences,
    read_at_head,
    versions_between,
    where_head_is,
)
from scepsy.repository.write_files import Changes, plan_changes, write

_FILE, _NONE = "100644", "000000"
_SHOWN = 3


class _InTheWay(ScepsyError):
    """A file of the user would be lost."""


class _Edited(_InTheWay):
    """Local edits would be lost."""


@dataclass(frozen=True)
class CheckoutUpdate:
    """Whether a checkout was fast-forwarded.

    Attributes:
        why: why it was not; empty if it is at the commit.
        edited: whether local edits are the reason, over which git would not pull either.
    """

    why: str = ""
    edited: bool = False

    def remedy(self, remote: str, branch: str) -> str:
        """Return the command that fast-forwards the checkout to the branch of a remote."""
        if not self.why:
            return ""
        pull = shlex.join(["git", "pull", "--ff-only", remote, branch])
        return f"git stash -u && {pull} && git stash pop" if self.edited else pull


@dataclass(frozen=True)
class _Step:
    """One path that differs: git's modes and hashes before and after."""

    old_mode: str
    mode: str
    old: str
    oid: str


def fast_forward(
    tree: WorkTree,
    scratch: ScratchWorktree,
    commit: str,
    ours: Iterable[PurePosixPath] = (),
    tracking: str | None = None,
) -> CheckoutUpdate:
    """Fast-forward the checkout.

    Args:
        tree: the user's work tree, as it was when the run began.
        scratch: where the commit is.
        commit: has HEAD among its ancestors.
        ours: output files that may be replaced, or removed, whatever they hold.
        tracking: the reference of the remote's branch, and moves too.

    Returns:
        How it was left.

    Raises:
        ScepsyError: files were written, but could not be put back as they were.
    """
    wanted = frozenset(ours)
    if commit == tree.head and not wanted:
        return CheckoutUpdate()
    try:
        check_committable(tree, {})
        if commit != tree.head:
            _take_objects(tree, scratch, commit)
        _forward(tree, commit, wanted, tracking)
    except ScepsyError as error:
        return CheckoutUpdate(redacted(error.message), isinstance(error, _Edited))
    return CheckoutUpdate()


def _take_objects(tree: WorkTree, scratch: ScratchWorktree, commit: str) -> None:
    # As one pack, which is there whole or not at all, even if something is there already.
    pack = git(scratch.root, "pack-objects", "--revs", "--stdout", "-q", stdin=f"{commit}\n^{tree.head}\n".encode())
    git(tree.root, "index-pack", "--stdin", stdin=pack)


def _forward(tree: WorkTree, commit: str, ours: frozenset[PurePosixPath], tracking: str | None) -> None:
    steps = _steps(tree, commit)
    filtered = _filtered(tree, steps)
    between = versions_between(tree.root, str(tree.head), commit)
    index = entries_in_index(tree)
    kept: list[PurePosixPath] = []
    for path, step in steps.items():
        target = output_path(tree.root, path)
        if {step.mode, step.old_mode} - {_FILE, _NONE} or path in filtered:
            raise _InTheWay(f"{path} is not a plain file that could be brought forward here")
        entry = index.get(path)
        if entry is not None and (entry.skipped or entry.unmerged):
            raise _InTheWay(f"{path} is left out of this checkout, or unmerged")
        known = {step.old, step.oid, *between.get(path, ())}
        there, content = on_disk(target)
        if not there:
            # Removed by the user, or not created yet.
            lost = _NONE not in (step.old_mode, step.mode) and path not in ours
        else:
            lost = path not in ours and (content is None or not is_one_of(known, *content))
        if lost:
            kept.append(path)
    if kept:
        names = ", ".join(str(path) for path in kept[:_SHOWN]) + (" ..." if len(kept) > _SHOWN else "")
        raise _Edited(f"local changes in {names}")
    after = replace(tree, head=commit)
    contents = {path: read_at_head(after, path) for path in {*steps, *ours, *_strays(tree, between, steps)}}
    files = {path: data for path, data in contents.items() if data is not None}
    before = {path: content[1] for path in contents if (content := on_disk(tree.root / path)[1]) is not None}
    _put(tree, files, contents)
    if commit == tree.head:
        return
    entries = {path: step.oid if step.mode == _FILE else None for path, step in steps.items()}
    try:
        advance(tree, commit, entries, tracking)
    except BaseException:
        if where_head_is(tree.root)[0] != commit:
            _put(tree, before, contents)
        raise


def _strays(
    tree: WorkTree, between: Mapping[PurePosixPath, set[str]], steps: Iterable[PurePosixPath]
) -> set[PurePosixPath]:
    """Return files that a commit on the way had and the last has not: a run that died may have left them."""
    found = set()
    for path in {*between} - {*steps}:
        content = on_disk(output_path(tree.root, path))[1]
        if content is not None and content[0] == _FILE and is_one_of(between[path], *content):
            found.add(path)
    return found


def _put(tree: WorkTree, files: Mapping[PurePosixPath, bytes], paths: Iterable[PurePosixPath]) -> None:
    """Make the paths hold these files, and nothing where there is none."""
    changes = plan_changes(tree.root, files, dict.fromkeys(paths, ""))
    write(tree.root, files, Changes(changes.added, changes.changed, changes.removed, changes.unchanged))


def _steps(tree: WorkTree, commit: str) -> dict[PurePosixPath, _Step]:
    listed = git(tree.root, "diff-tree", "-r", "-z", "--no-renames", "--no-commit-id", str(tree.head), commit)
    return {path: _Step(*fields) for path, *fields in raw_differences(listed)}


def _filtered(tree: WorkTree, paths: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    """Return the paths whose content a program, or another encoding, would change on checkout."""
    asked = b"".join(os.fsencode(str(path)) + b"\0" for path in paths)
    attributes = ("filter", "working-tree-encoding", "ident")
    output = git(tree.root, "check-attr", "-z", "--stdin", *attributes, stdin=asked, variables=no_filters(tree.root))
    fields = output.split(b"\0")
    triples = zip(fields[0::3], fields[1::3], fields[2::3], strict=False)
    return {PurePosixPath(os.fsdecode(name)) for name, _, value in triples if value not in (b"unspecified", b"unset")}
