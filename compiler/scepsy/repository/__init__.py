"""Git and files: where a repository is, what it holds, and one atomic write and one commit of what was compiled.

The order of a compile: :func:`open_worktree`; read inputs at :func:`contained` paths; refuse when inputs are
:func:`differing` from HEAD; :func:`plan_changes`; :func:`check_committable`; :func:`write`; :func:`commit` with a
:func:`message` that carries :func:`trailers`. No program that the repository configures ever runs: no hook, filter,
pager, file system monitor or credential helper.

What talks to a remote is in :mod:`scepsy.publishing`.
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
from scepsy.repository.git import GitFailed
from scepsy.repository.staging import Busy
from scepsy.repository.worktree import (
    NotAWorkTree,
    WorkTree,
    differing,
    open_worktree,
    open_worktree_or_none,
    read_at_head,
)
from scepsy.repository.write_files import Changes, WouldOverwrite, WriteFailed, plan_changes, write

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
