"""Open a project: its documents, and the Git work tree around it."""

from __future__ import annotations

from pathlib import Path

from scepsy.documents import Workspace, load_workspace
from scepsy.repository.worktree import WorkTree, open_worktree_or_none
from scepsy.sharing import CLUSTER_CHECKS


def open_project(project: Path, *, needs_profiles: bool = True) -> tuple[Workspace, WorkTree | None]:
    """Load a project, and find the Git work tree around it, if any.

    Args:
        project: directory with `scepsy.yaml`.
        needs_profiles: whether it is a problem that there is no profile yet.

    Raises:
        ScepsyError: there is no project, or its documents are wrong.
    """
    tree = open_worktree_or_none(project)
    root = tree.root if tree else project
    return load_workspace(project, root, needs_profiles=needs_profiles, cluster_checks=CLUSTER_CHECKS), tree
