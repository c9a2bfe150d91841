"""Finds and reads the committed Plan of a cluster."""

from __future__ import annotations

from pathlib import PurePosixPath

from scepsy.documents import DocumentError, Plan, Workspace, contained
from scepsy.documents.loading import validate
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.errors import ScepsyError
from scepsy.repository import WorkTree
from scepsy.repository.worktree import read_at_head


def plan_path(workspace: Workspace, cluster: str) -> PurePosixPath:
    """Return the file of a cluster's Plan, relative to the repository."""
    setting = workspace.project.document.spec.paths.plans
    directory = PurePosixPath(workspace.relative(contained(workspace.root, setting, workspace.directory)))
    return directory / f"{cluster}.yaml"


def committed_plan(workspace: Workspace, tree: WorkTree | None, cluster: str) -> Plan:
    """Return the committed Plan; without a repository the one in the directory.

    Raises:
        ScepsyError: there is none, or this version cannot read it.
    """
    path = plan_path(workspace, cluster)
    file = workspace.root / path
    if tree is not None:
        data = read_at_head(tree, path) if tree.head is not None else None
    else:
        data = file.read_bytes() if file.is_file() else None
    if data is None:
        state = "committed" if tree else "written"
        raise ScepsyError(f'no plan of cluster "{cluster}" is {state} yet', "run: scepsy compile --commit")
    try:
        return validate(parse(SourceFile(path.as_posix(), data))[0], Plan)
    except (DocumentError, IndexError) as error:
        message = f"the committed {path} is not a Plan that this version can read"
        raise ScepsyError(message, "compile again with this version: scepsy compile --commit") from error
