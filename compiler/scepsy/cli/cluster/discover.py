"""`scepsy cluster discover`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click
from pydantic import TypeAdapter, ValidationError

from scepsy.cli.options import context_option, project_option
from scepsy.cluster.discovery import live, read
from scepsy.cluster.document import Discovered, driver_of, fresh, merged
from scepsy.cluster.kubernetes import Kubernetes
from scepsy.cluster.nvlink_topology import Links, read_topology
from scepsy.cluster.yaml_layout import checked, rewritten
from scepsy.documents import PROJECT_FILE, Cluster, DocumentError, Loaded, Project, contained, did_you_mean, load_file
from scepsy.documents.diagnostics import Diagnostic, printable
from scepsy.documents.model import KubernetesName
from scepsy.documents.yaml_source import SourceFile, read_bytes
from scepsy.errors import ScepsyError
from scepsy.repository import open_worktree_or_none
from scepsy.repository.single_file import write_at_once


@dataclass(frozen=True)
class _Found:
    """A Cluster document of the project.

    Attributes:
        path: its file.
        file: its content.
        number: which of its documents.
        loaded: the document.
    """

    path: Path
    file: SourceFile
    number: int
    loaded: Loaded[Cluster]


@dataclass(frozen=True)
class _Folder:
    """The project's folder of Cluster documents.

    Attributes:
        path: the directory; None where there is no project.
        shown: the directory, for messages.
        documents: by name.
    """

    path: Path | None
    shown: str
    documents: dict[str, _Found]


@click.command("discover")
@click.argument("name", required=False)
@click.option("--write", is_flag=True, help="Write the document into the project; only differences are changed.")
@context_option
@click.option(
    "--topology",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Which GPUs NVLink connects: per node a line `node: NAME`, nvidia-smi -L and nvidia-smi topo -m.",
)
@project_option
def command(name: str | None, write: bool, context: str | None, topology: Path | None, project: Path) -> None:
    """Print the Cluster document NAME, updated from the live cluster. With --write, save it in the project.

    An existing document keeps its comments, layout and settings: only nodes, GPUs, products, memory and the
    version of Kubernetes are taken from the cluster.
    """
    folder = _folder(project, write)
    name = _name(name, folder)
    links = _links(topology)
    cluster = Kubernetes(context)
    there = folder.documents.get(name)
    objects = read(cluster)
    if there is None:
        found = fresh(name, live(objects), links)
        target = _target(folder, name, write)
        data = checked(found.cluster, f"{folder.shown}{name}.yaml")
    else:
        before = there.loaded.document
        found = merged(before, live(objects, driver_of(before)), links)
        target = there.path
        data = rewritten(there.file, there.number, before, found.cluster)
    _print_changes(found, there is None, cluster.place)
    if not write:
        click.echo(data.decode("utf-8-sig"), nl=False)
        return
    assert target is not None  # noqa: S101 - without a project, _target has raised
    if there is not None and data == there.file.data:
        click.echo(f"{there.file.name} matches the cluster; nothing to write.")
        return
    if there is not None and read_bytes(target, there.file.name) != there.file.data:
        raise ScepsyError(f"{there.file.name} changed during the run", "re-run the command")
    write_at_once(target, data, replace=there is not None)
    click.echo(f"Wrote {there.file.name if there else f'{folder.shown}{name}.yaml'}")


def _print_changes(found: Discovered, new: bool, place: str) -> None:
    if not new:
        count = len(found.changes)
        what = f"{count} difference{'s' if count > 1 else ''}" if count else "no difference"
        click.echo(f"{what} between the document and {place}", err=True)
    for line in found.changes:
        click.echo(f"  {printable(line)}", err=True)
    for line in dict.fromkeys(found.notes):
        click.echo(f"note: {printable(line)}", err=True)


def _folder(project: Path, write: bool) -> _Folder:
    """Read the Cluster documents of a project; none where there is no project and --write is not given."""
    if not (project / PROJECT_FILE).exists():
        if write or project != Path():
            raise ScepsyError(f"there is no {PROJECT_FILE} in {project}", "start a project with: scepsy init DIR")
        return _Folder(None, "", {})
    tree = open_worktree_or_none(project)
    base = Path(os.path.realpath(project))
    root = tree.root if tree else base
    file, loaded, problems = load_file(contained(root, PROJECT_FILE, base), PROJECT_FILE, Project)
    if problems:
        raise DocumentError(problems)
    setting = loaded[0].document.spec.paths.clusters
    path = contained(root, setting, base)
    documents: dict[str, _Found] = {}
    problems = []
    for given in sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml")) if path.is_dir() else []:
        shown = PurePosixPath(os.path.relpath(given, base)).as_posix()
        real = contained(root, os.path.relpath(given, base), base)
        file, entries, wrong = load_file(real, shown, Cluster)
        problems += wrong
        for number, entry in enumerate(entries):
            _add(documents, _Found(real, file, number, entry), problems)
    if problems:
        raise DocumentError(problems)
    return _Folder(path, f"{PurePosixPath(os.path.relpath(path, base)).as_posix()}/", documents)


def _add(documents: dict[str, _Found], found: _Found, problems: list[Diagnostic]) -> None:
    name = found.loaded.document.metadata.name
    if name in documents:
        first = documents[name].loaded.source.position("metadata", "name")
        problems.append(
            found.loaded.problem(("metadata", "name"), f'the Cluster name "{name}" is already used: first at {first}')
        )
    documents[name] = found


def _name(name: str | None, folder: _Folder) -> str:
    if name is not None:
        try:
            return TypeAdapter(KubernetesName).validate_python(name)
        except ValidationError as error:
            raise ScepsyError(str(error.errors(include_url=False)[0]["ctx"]["error"])) from error
    if len(folder.documents) == 1:
        return next(iter(folder.documents))
    if folder.documents:
        names = "|".join(folder.documents)
        raise ScepsyError("the project has several clusters", f"name one: scepsy cluster discover {names}")
    raise ScepsyError("the project has no cluster yet, so a name is needed", "name it: scepsy cluster discover NAME")


def _target(folder: _Folder, name: str, write: bool) -> Path | None:
    """Return the path of a new document."""
    if folder.path is None or not write:
        return None
    target = folder.path / f"{name}.yaml"
    if target.exists():
        names: Sequence[str] = list(folder.documents)
        raise ScepsyError(
            f"{folder.shown}{name}.yaml exists, but has no cluster of that name", did_you_mean(name, names)
        )
    return target


def _links(topology: Path | None) -> dict[str, Links]:
    if topology is None:
        return {}
    try:
        text = read_bytes(topology, str(topology)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScepsyError(f"{topology} is not UTF-8", "save the output of nvidia-smi as UTF-8 text") from error
    return read_topology(text, str(topology))
