"""Git and files: where a repository is, what it holds, and one atomic write and one commit of what was compiled.

The order of a compile: :func:`open_worktree`; read inputs at :func:`contained` paths; refuse when inputs are
:func:`differing` from HEAD; :func:`plan_changes`; :func:`check_committable`; :func:`write`; :func:`commit` with a
:func:`message` that carries :func:`trailers`. No program that the repository configures ever runs: no hook, filter,
pager, file system monitor or credential helper.

To push, :mod:`.push` does that in a private tree (:mod:`.sidetree`) on top of what the remote has (:mod:`.wire`), with
the person's own credentials (:mod:`.remote`), and then brings the checkout forward (:mod:`.forward`).
"""

from __future__ import annotations

from scepsy.documents.paths import PathEscapes, contained
from scepsy.repository.commit import (
    CannotCommit,
    HeadMoved,
    StagedChange,
    check_branch,
    check_committable,
    commit,
    commit_to_branch,
    holders,
)
from scepsy.repository.commit_message import message, trailers
from scepsy.repository.files import Changes, WouldOverwrite, WriteFailed, plan_changes, write
from scepsy.repository.git import GitFailed
from scepsy.repository.init import create_repository, open_worktree_or_none
from scepsy.repository.staging import Busy
from scepsy.repository.worktree import NotAWorkTree, WorkTree, differing, open_worktree, read_at_head

__all__ = [
    "Busy",
    "CannotCommit",
    "Changes",
    "GitFailed",
    "HeadMoved",
    "NotAWorkTree",
    "PathEscapes",
    "StagedChange",
    "WorkTree",
    "WouldOverwrite",
    "WriteFailed",
    "check_branch",
    "check_committable",
    "commit",
    "commit_to_branch",
    "contained",
    "create_repository",
    "differing",
    "holders",
    "message",
    "open_worktree",
    "open_worktree_or_none",
    "plan_changes",
    "read_at_head",
    "trailers",
    "write",
]
