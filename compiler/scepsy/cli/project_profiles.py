"""The profiles of a project that need not be complete: they are often looked at before there is anything to compile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scepsy.documents import (
    PROJECT_FILE,
    Diagnostic,
    DocumentError,
    Loaded,
    PathEscapes,
    Position,
    Profile,
    Project,
    contained,
    load_file,
)
from scepsy.errors import ScepsyError
from scepsy.repository import open_worktree_or_none


@dataclass(frozen=True)
class ProjectProfiles:
    """What was found.

    Attributes:
        root: top of the repository, or `directory` where there is none.
        directory: where `scepsy.yaml` lies, a real path.
        project: the Project.
        folder: where its profiles lie, or would; a real path.
        shown: that folder, relative to `directory`.
        profiles: by name, in name order.
        problems: of files and documents that cannot be read.
    """

    root: Path
    directory: Path
    project: Loaded[Project]
    folder: Path
    shown: str
    profiles: dict[str, Loaded[Profile]]
    problems: tuple[Diagnostic, ...]


def read_profiles(project: Path) -> ProjectProfiles:
    """Read a project's settings and its profiles, and nothing else of it.

    Args:
        project: directory with `scepsy.yaml`.

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
    shown = settings[0].document.spec.paths.profiles
    folder = contained(root, shown, directory)
    profiles: dict[str, Loaded[Profile]] = {}
    hidden: list[Diagnostic] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml")) if folder.is_dir() else []:
        name = PurePosixPath(os.path.relpath(path, directory)).as_posix()
        try:
            _, documents, problems = load_file(contained(root, name, directory), name, Profile)
        except PathEscapes as error:
            hidden.append(Diagnostic(Position(name), error.message, error.hint))
            continue
        except DocumentError as error:
            hidden += error.diagnostics
            continue
        hidden += problems
        for loaded in documents:
            title = loaded.document.metadata.name
            if title in profiles:
                hidden.append(loaded.problem(("metadata", "name"), f'the Profile name "{title}" is taken'))
            else:
                profiles[title] = loaded
    return ProjectProfiles(root, directory, settings[0], folder, shown, dict(sorted(profiles.items())), tuple(hidden))
