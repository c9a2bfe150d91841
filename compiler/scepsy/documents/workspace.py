"""A whole repository of documents, read and checked as one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from scepsy.documents.checks import (
    check_cluster,
    check_engine,
    check_profiles,
    check_shared_llms,
    check_workflow,
)
from scepsy.documents.cluster import Cluster
from scepsy.documents.diagnostics import Diagnostic, DocumentError, Position, did_you_mean
from scepsy.documents.loading import Loaded, load_file, validate
from scepsy.documents.model import Document
from scepsy.documents.observed import ObservedCluster, ObservedWorkflow, without
from scepsy.documents.paths import PathEscapes, contained
from scepsy.documents.profile import Profile
from scepsy.documents.project import Project
from scepsy.documents.workflow import Workflow
from scepsy.documents.yaml_source import SourceFile, parse, read_bytes
from scepsy.errors import ScepsyError

PROJECT_FILE = "scepsy.yaml"
OBSERVED_CLUSTERS = "clusters"
"""Subdirectory of the observed documents that holds those of clusters."""

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Workspace:
    """Every document of a project.

    Attributes:
        root: top of the repository, a real path; nothing outside it is read or written.
        directory: where `scepsy.yaml` is, a real path.
        project: the Project.
        workflows: by name, in name order.
        clusters: by name, in name order.
        profiles: by name, in name order.
        inputs: sha256 of each file that was read, by its path relative to `root`.
        templates: directory of templates that override the shipped ones; None for none.
        observed: by cluster and workflow, what drift detection observed of it there.
        missing: by cluster, what drift detection found missing there.
    """

    root: Path
    directory: Path
    project: Loaded[Project]
    workflows: dict[str, Loaded[Workflow]]
    clusters: dict[str, Loaded[Cluster]]
    profiles: dict[str, Loaded[Profile]]
    inputs: dict[str, str] = field(default_factory=dict)
    templates: Path | None = None
    observed: dict[tuple[str, str], Loaded[ObservedWorkflow]] = field(default_factory=dict)
    missing: dict[str, Loaded[ObservedCluster]] = field(default_factory=dict)

    def cluster(self, name: str) -> Loaded[Cluster]:
        """Return the cluster of that name, less what was observed to be missing of it.

        Raises:
            ScepsyError: there is none.
        """
        if name not in self.clusters:
            raise ScepsyError(f'there is no cluster "{name}"', did_you_mean(name, list(self.clusters)))
        whole, loaded = self.clusters[name], self.missing.get(name)
        if loaded is None:
            return whole
        missing = loaded.document.spec
        return replace(whole, document=without(whole.document, missing.missing_nodes, missing.missing_gpus))

    def one_cluster(self, name: str | None) -> str:
        """Return the name of the cluster that was asked for; of the only one if None.

        Raises:
            ScepsyError: there is no such cluster, or several to choose from.
        """
        if name is not None:
            return self.cluster(name).document.metadata.name
        if len(self.clusters) > 1:
            raise ScepsyError(
                "the project has several clusters", f"name one with --cluster: {', '.join(self.clusters)}"
            )
        return next(iter(self.clusters))

    def observed_in(self, cluster: str) -> dict[str, Loaded[ObservedWorkflow]]:
        """Return by workflow what drift detection observed of it in a cluster."""
        return {workflow: loaded for (where, workflow), loaded in self.observed.items() if where == cluster}

    def relative(self, path: Path) -> str:
        """Return a path below `root` as it stands in Plans and messages."""
        return path.relative_to(self.root).as_posix()


def with_observed(workspace: Workspace, files: Mapping[PurePosixPath, bytes | None]) -> Workspace:
    """Return a project with other Observed documents, as if they had been read.

    Args:
        workspace: the project.
        files: content of files with one Observed document each, relative to `root`; None where one goes.

    Raises:
        DocumentError: one is wrong.
    """
    observed, missing, inputs = dict(workspace.observed), dict(workspace.missing), dict(workspace.inputs)
    for path, data in files.items():
        shown = PurePosixPath(os.path.relpath(workspace.root / path, workspace.directory)).as_posix()
        observed = {name: loaded for name, loaded in observed.items() if loaded.source.file.name != shown}
        missing = {name: loaded for name, loaded in missing.items() if loaded.source.file.name != shown}
        inputs.pop(path.as_posix(), None)
        if data is None:
            continue
        source = parse(SourceFile(shown, data))[0]
        if source.root.plain().get("kind") == "ObservedCluster":
            cluster = validate(source, ObservedCluster)
            missing[cluster.metadata.name] = Loaded(cluster, source)
        else:
            workflow = validate(source, ObservedWorkflow)
            observed[workflow.spec.cluster, workflow.metadata.name] = Loaded(workflow, source)
        inputs[path.as_posix()] = digest(data)
    return replace(
        workspace,
        observed=dict(sorted(observed.items())),
        missing=dict(sorted(missing.items())),
        inputs=dict(sorted(inputs.items())),
    )


def digest(data: bytes) -> str:
    """Return the digest of a file's content as it stands in Plans: `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def load_workspace(
    directory: Path,
    root: Path,
    *,
    needs_profiles: bool = True,
    cluster_checks: Sequence[Callable[[Loaded[Cluster]], list[Diagnostic]]] = (),
) -> Workspace:
    """Read and check every document of the project in `directory`.

    Args:
        directory: holds `scepsy.yaml`.
        root: top of the repository, or `directory` itself where there is none.
        needs_profiles: whether it is a problem that there is no profile yet.
        cluster_checks: checks on clusters besides those of `documents.checks`, such as `CLUSTER_CHECKS` of `sharing`.

    Raises:
        DocumentError: with every problem in every file.
        ScepsyError: there is no project here.
    """
    reader, project = _open(directory, root)
    paths = project.document.spec.paths
    workflows = reader.directory(project, ("workflows", paths.workflows), Workflow)
    clusters = reader.directory(project, ("clusters", paths.clusters), Cluster)
    profiles = reader.directory(project, ("profiles", paths.profiles), Profile, needed=needs_profiles)
    observed = reader.observed(project)
    below = f"{paths.observed}/{OBSERVED_CLUSTERS}"
    missing = reader.directory(project, ("observed", below), ObservedCluster, needed=False)
    reader.outputs(project)
    templates = reader.templates(project)
    for workflow in workflows.values():
        reader.problems.extend(check_workflow(workflow))
    for cluster in clusters.values():
        for check in (check_cluster, *cluster_checks):
            reader.problems.extend(check(cluster))
    reader.problems.extend(check_shared_llms(workflows.values()))
    reader.problems.extend(check_profiles(profiles.values()))
    reader.problems.extend(check_engine(project))
    if reader.problems:
        raise DocumentError(reader.problems)
    inputs = dict(sorted(reader.inputs.items()))
    return Workspace(
        reader.root, reader.base, project, workflows, clusters, profiles, inputs, templates, observed, missing
    )


def load_clusters(directory: Path, root: Path) -> tuple[Project, dict[str, Loaded[Cluster]]]:
    """Read only the Project and the Cluster documents; there may be no Cluster document.

    Args:
        directory: holds `scepsy.yaml`.
        root: top of the repository, or `directory` itself where there is none.

    Raises:
        DocumentError: with every problem in these files.
        ScepsyError: there is no project here.
    """
    reader, project = _open(directory, root)
    setting = ("clusters", project.document.spec.paths.clusters)
    clusters = reader.directory(project, setting, Cluster, needed=False)
    if reader.problems:
        raise DocumentError(reader.problems)
    return project.document, clusters


def _open(directory: Path, root: Path) -> tuple[_Reader, Loaded[Project]]:
    directory, root = Path(os.path.realpath(directory)), Path(os.path.realpath(root))
    path = directory / PROJECT_FILE
    if not path.exists():
        raise ScepsyError(f"there is no {PROJECT_FILE} in {directory}", "start a project with: scepsy init DIR")
    reader = _Reader(root, directory)
    return reader, reader.project(contained(root, PROJECT_FILE, directory))


_FIRST = {
    "Workflow": "write one; scepsy init DIR --example makes a project that has one",
    "Cluster": "write what a cluster has: scepsy cluster discover NAME --write",
    "Profile": "scepsy profile estimate MODEL --product PRODUCT writes one, scepsy profile plan says what to measure",
}
"""How to make the first document of a kind."""


class _Reader:
    """Reads files below a root and collects problems and digests."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root, self.base = root, directory
        self.problems: list[Diagnostic] = []
        self.inputs: dict[str, str] = {}

    def add(self, path: Path, file: SourceFile) -> None:
        self.inputs[path.relative_to(self.root).as_posix()] = digest(file.data)

    def project(self, path: Path) -> Loaded[Project]:
        file, loaded, problems = load_file(path, PROJECT_FILE, Project)
        if problems:
            raise DocumentError(problems)
        if len(loaded) > 1:
            raise DocumentError([loaded[1].problem((), f"{PROJECT_FILE} holds exactly one Project")])
        self.add(path, file)
        return loaded[0]

    def directory(
        self, project: Loaded[Project], setting: tuple[str, str], kind: type[D], *, needed: bool = True
    ) -> dict[str, Loaded[D]]:
        """Load every YAML file below a directory that the project names; there must be one if it is `needed`."""
        found: dict[str, Loaded[D]] = {}
        for item in self.files(project, setting, kind, needed=needed, deep=True):
            title = item.document.metadata.name  # type: ignore[attr-defined]
            if title in found:
                first = found[title].source.position("metadata", "name")
                message = f'the {kind.__name__} name "{title}" is already used: first at {first}'
                self.problems.append(item.problem(("metadata", "name"), message, "give it another name"))
            else:
                found[title] = item
        return dict(sorted(found.items()))

    def observed(self, project: Loaded[Project]) -> dict[tuple[str, str], Loaded[ObservedWorkflow]]:
        """Load what was observed of workflows, by cluster and workflow."""
        found: dict[tuple[str, str], Loaded[ObservedWorkflow]] = {}
        setting = ("observed", project.document.spec.paths.observed)
        for item in self.files(project, setting, ObservedWorkflow, needed=False, deep=False):
            key = (item.document.spec.cluster, item.document.metadata.name)
            if key in found:
                first = found[key].source.position("metadata", "name")
                message = f'workflow "{key[1]}" was observed in cluster "{key[0]}" already: at {first}'
                self.problems.append(item.problem(("metadata", "name"), message, "remove one of them"))
            found.setdefault(key, item)
        return dict(sorted(found.items()))

    def files(
        self, project: Loaded[Project], setting: tuple[str, str], kind: type[D], *, needed: bool, deep: bool
    ) -> Iterator[Loaded[D]]:
        """Load every YAML file in a directory that the project names, and if `deep` below it."""
        key, name = setting
        location = ("spec", "paths", key)
        try:
            folder = contained(self.root, name, self.base)
        except PathEscapes as error:
            self.problems.append(project.problem(location, error.message, error.hint))
            return
        there = (folder.rglob("*") if deep else folder.glob("*")) if folder.is_dir() else ()
        files = sorted(p for p in there if p.suffix in (".yaml", ".yml"))
        if not files and needed:
            message = f'there is no {kind.__name__} document: no .yaml file in "{name}"'
            self.problems.append(project.problem(location, message, _FIRST.get(kind.__name__, "")))
        for path in files:
            shown = PurePosixPath(os.path.relpath(path, self.base)).as_posix()
            try:
                real = contained(self.root, os.path.relpath(path, self.base), self.base)
                file, loaded, problems = load_file(real, shown, kind)
            except PathEscapes as error:
                self.problems.append(Diagnostic(Position(shown), error.message, error.hint))
                continue
            except DocumentError as error:
                self.problems.extend(error.diagnostics)
                continue
            self.add(real, file)
            self.problems.extend(problems)
            yield from loaded

    def templates(self, project: Loaded[Project]) -> Path | None:
        """Add the override templates to the inputs; their content is checked when they are rendered."""
        setting = project.document.spec.paths.templates
        if setting is None:
            return None
        location = ("spec", "paths", "templates")
        try:
            folder = contained(self.root, setting, self.base)
            if not folder.is_dir():
                self.problems.append(project.problem(location, f'there is no directory "{setting}"'))
                return None
            for path in sorted(p for p in folder.iterdir() if p.suffix == ".j2"):
                real = contained(self.root, os.path.relpath(path, self.base), self.base)
                self.add(real, SourceFile(path.name, read_bytes(real, path.name)))
        except PathEscapes as error:
            self.problems.append(project.problem(location, error.message, error.hint))
            return None
        except DocumentError as error:
            self.problems.extend(error.diagnostics)
        return folder

    def outputs(self, project: Loaded[Project]) -> None:
        """Check the directories that are written: inside the repository, apart from each other and from the inputs."""
        paths = project.document.spec.paths
        resolved: dict[str, Path] = {}
        for key in ("workflows", "clusters", "profiles", "observed", "plans", "rendered", "templates"):
            value = getattr(paths, key)
            if value is None:
                continue
            try:
                resolved[key] = contained(self.root, value, self.base)
            except PathEscapes as error:
                self.problems.append(project.problem(("spec", "paths", key), error.message, error.hint))
        for written in ("plans", "rendered"):
            for other, path in resolved.items():
                output = resolved.get(written)
                if other == written or output is None:
                    continue
                if output == path or output in path.parents or path in output.parents:
                    message = f"the directory for {written} overlaps the one for {other}"
                    self.problems.append(project.problem(("spec", "paths", written), message, "keep them apart"))
