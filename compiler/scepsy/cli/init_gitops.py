"""`scepsy init --gitops`: what a platform team installs, as files of the project's repository."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath

from scepsy.documents import Project
from scepsy.documents.paths import output_path
from scepsy.documents.workspace import load_clusters
from scepsy.errors import ScepsyError
from scepsy.publishing.remote import origin
from scepsy.repository import WorkTree, open_worktree_or_none

_FOLDER = "gitops"
_COMPONENTS = (
    "applicationset",
    "argocd",
    "drift",
    "events",
    "installation",
    "namespace",
    "observe",
    "priority",
)
_ONE_CLUSTER, _ALL_CLUSTERS = "example", "applicationset-example"
_VALUES = "environment.yaml"
_LINE = re.compile(r"^  (?P<key>\w+): .*$", re.MULTILINE)


@dataclass(frozen=True)
class _Place:
    """A project, and the repository around it.

    Attributes:
        root: top of the repository; the project's directory where there is none.
        directory: where `scepsy.yaml` lies, relative to it.
        tree: the repository.
        project: the Project.
        clusters: the names of its clusters, sorted.
    """

    root: Path
    directory: PurePosixPath
    tree: WorkTree | None
    project: Project
    clusters: tuple[str, ...]


def add(directory: Path) -> list[str]:
    """Add `gitops/` to a project: the components as they ship, and an environment for each cluster.

    Files that are there stay as they are.

    Args:
        directory: holds `scepsy.yaml`.

    Returns:
        lines for the user: what was done, what to do next.

    Raises:
        DocumentError: the project's or a cluster's document is wrong.
        ScepsyError: there is no project, or it cannot be written to.
    """
    place = _place(directory)
    url = origin(place.tree) if place.tree is not None else ""
    written, kept = 0, []
    for path, text in sorted(_files(place, url).items()):
        name = PurePosixPath(_FOLDER) / path
        found = _write(output_path(place.root, place.directory / name), text)
        if found is None:
            written += 1
        elif found != text.encode():
            kept.append(name)
    done = [f"Wrote {written} file{'s' * (written != 1)} to {directory / _FOLDER}"]
    if kept:
        done.append(f"Kept unchanged: {', '.join(map(str, kept))}")
    return [*done, *_following(directory, place, bool(url))]


def _place(directory: Path) -> _Place:
    tree = open_worktree_or_none(directory)
    real = Path(os.path.realpath(directory))
    root = tree.root if tree is not None else real
    project, clusters = load_clusters(directory, root)
    return _Place(root, PurePosixPath(real.relative_to(root).as_posix()), tree, project, tuple(clusters))


def _files(place: _Place, url: str) -> dict[PurePosixPath, str]:
    """Return what belongs below `gitops/`: components as they ship, examples with the project's values."""
    spec = place.project.spec
    rendered = os.path.normpath(place.directory / spec.paths.rendered)
    common = {"namespace": spec.namespace}
    if url:
        common["repository"] = url
    if place.tree is not None and place.tree.branch is not None:
        common["revision"] = place.tree.branch
    made = {}
    for path, text in _shipped():
        if path.parts[0] == _ALL_CLUSTERS:
            made[path] = _filled(text, {**common, "name": place.project.metadata.name, "paths": f"{rendered}/*/*"})
        elif path.parts[0] != _ONE_CLUSTER:
            made[path] = text
        else:
            for cluster in place.clusters:
                name = f"{place.project.metadata.name}-{cluster}"
                settings = {
                    "name": name,
                    "path": f"{rendered}/{cluster}/{spec.namespace}",
                    "driftNamespace": f"{spec.namespace}-drift",
                    "project": place.directory.as_posix(),
                    "planCluster": cluster,
                    "application": f"argocd/{name}",
                }
                # One folder deeper than the example.
                deeper = text.replace("../", "../../")
                made[PurePosixPath("environments", cluster, path.name)] = _filled(deeper, common | settings)
    return made


def _shipped() -> Iterator[tuple[PurePosixPath, str]]:
    with as_file(files("scepsy.gitops")) as shipped:
        for name in (*_COMPONENTS, _ONE_CLUSTER, _ALL_CLUSTERS):
            for path in sorted((shipped / name).glob("*.yaml")):
                yield PurePosixPath(name, path.name), path.read_text(encoding="utf-8")


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Return a file of values with these instead of the example's; every other file unchanged."""

    def line(found: re.Match[str]) -> str:
        key = found["key"]
        # As JSON, so that no name is taken for a number or a truth.
        return f"  {key}: {json.dumps(values[key])}" if key in values else found[0]

    head, data, lines = text.partition("\ndata:\n")
    return head + data + _LINE.sub(line, lines)


def _write(path: Path, text: str) -> bytes | None:
    """Write a file where there is none, and return None; else what is there, which stays.

    Raises:
        ScepsyError: it cannot be written.
    """
    try:
        if path.exists():
            return path.read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScepsyError(
            f"cannot write {path}: {error.strerror}", "files written so far are kept; re-run the command"
        ) from error
    return None


def _following(directory: Path, place: _Place, known: bool) -> list[str]:
    if not place.clusters:
        first = "scepsy cluster discover NAME --write"
        return [f"Next: add a cluster ({first}), then its environment: scepsy init {directory} --gitops"]
    environments = [directory / _FOLDER / "environments" / cluster for cluster in place.clusters]
    ask = "" if known else "; set `repository` there, since Git has no remote `origin`"
    installation = directory / _FOLDER / "installation/argocd-cm.yaml"
    return [
        "Next:",
        *(f"  read {path / _VALUES}, and kustomization.yaml beside it{ask}" for path in environments),
        f"  commit {directory / _FOLDER}",
        f"  once per Argo CD, read {installation}, then",
        f"  kubectl apply --server-side --field-manager=scepsy -f {installation}",
        *(f"  kubectl apply --server-side -k {path}" for path in environments),
    ]
