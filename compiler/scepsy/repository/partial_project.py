"""The documents of one kind of a project that need not be complete: traces and profiles often come before the rest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from scepsy.documents import (
    PROJECT_FILE,
    Diagnostic,
    DocumentError,
    Loaded,
    PathEscapes,
    Position,
    Profile,
    Project,
    Workflow,
    contained,
    load_file,
)
from scepsy.errors import ScepsyError
from scepsy.repository.worktree import open_worktree_or_none

D = TypeVar("D", Workflow, Profile)


@dataclass(frozen=True)
class Part(Generic[D]):
    """What was found.

    Attributes:
        root: top of the repository, or `directory` where there is none.
        directory: where `scepsy.yaml` lies, a real path.
        project: the Project.
        folder: where these documents lie, or would; a real path.
        shown: that folder, relative to `directory`.
        documents: by name, in name order.
        problems: of files and documents that cannot be read; they matter where they may hide what is asked for.
    """

    root: Path
    directory: Path
    project: Loaded[Project]
    folder: Path
    shown: str
    documents: dict[str, Loaded[D]]
    problems: tuple[Diagnostic, ...]

    def path(self, loaded: Loaded[D]) -> Path:
        """Return the file that a document is in."""
        return self.directory / loaded.source.file.name


def read_part(project: Path, kind: type[D]) -> Part[D]:
    """Read a project's settings and its documents of one kind, and nothing else of it.

    Args:
        project: directory with `scepsy.yaml`.
        kind: Workflow or Profile.

    Raises:
        ScepsyError: there is no project.
        DocumentError: its settings cannot be read.
    """
    directory = Path(os.path.realpath(project))
    if not (directory / PROJECT_FILE).exists():
        raise ScepsyError(f"there is no {PROJECT_FILE} in {directory}", "name the project with --project")
    tree = open_worktree_or_none(directory)
    root = Path(os.path.realpath(tree.root)) if tree else directory
    _, settings, problems = load_file(contained(root, PROJECT_FILE, directory), PROJECT_FILE, Project)
    if problems or len(settings) != 1:
        raise DocumentError(problems or [settings[1].problem((), f"{PROJECT_FILE} holds exactly one Project")])
    paths = settings[0].document.spec.paths
    shown = paths.workflows if kind is Workflow else paths.profiles
    folder = contained(root, shown, directory)
    found: dict[str, Loaded[D]] = {}
    hidden: list[Diagnostic] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml")) if folder.is_dir() else []:
        name = PurePosixPath(os.path.relpath(path, directory)).as_posix()
        try:
            _, documents, problems = load_file(contained(root, name, directory), name, kind)
        except PathEscapes as error:
            hidden.append(Diagnostic(Position(name), error.message, error.hint))
            continue
        except DocumentError as error:
            hidden += error.diagnostics
            continue
        hidden += problems
        for loaded in documents:
            title = loaded.document.metadata.name
            if title in found:
                hidden.append(loaded.problem(("metadata", "name"), f'the {kind.__name__} name "{title}" is taken'))
            else:
                found[title] = loaded
    return Part(root, directory, settings[0], folder, shown, dict(sorted(found.items())), tuple(hidden))
