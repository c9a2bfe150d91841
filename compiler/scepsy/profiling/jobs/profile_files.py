"""The files with measured Profiles: which ones are new, writing them, and committing them."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from scepsy.documents import DocumentError, Profile, Workspace, contained
from scepsy.documents.diagnostics import printable
from scepsy.documents.loading import validate
from scepsy.documents.units import format_rate
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.output import Output, Print
from scepsy.profiling.jobs.results import Outcome, file_of
from scepsy.profiling.jobs.target import Target
from scepsy.repository import (
    WorkTree,
    check_committable,
    commit,
    commit_to_branch,
    holders,
    message,
    plan_changes,
    read_at_head,
    trailers,
    write,
)
from scepsy.repository.project import open_project

BRANCH = "profiles"
"""Prefix of the branches for Profiles."""


def keep(target: Target, outcomes: Sequence[Outcome], branch: str | None, output: Output) -> None:
    """Write the Profiles of finished jobs: as one commit on a branch, or as files where there is no repository.

    Raises:
        ScepsyError: a file or the branch cannot be written.
    """
    # Hours may have passed: read the project again.
    workspace, tree = open_project(target.project, needs_profiles=False)
    files = new_files(workspace, tree, outcomes)
    if not files:
        output.result("Nothing new: the project has all results.")
        return
    names = " ".join(sorted(path.as_posix() for path in files))
    if tree is None:
        write_here(workspace, None, files, outcomes, output.result)
        output.result(f"Wrote {names}")
        output.result("Next: scepsy compile")
        return
    holding = holders(tree, files)
    if holding:
        output.result(f"Nothing new: {names} {'is' if len(files) == 1 else 'are'} already on {_short(holding[0])}.")
        return
    name = branch or f"{BRANCH}/{_digest(files)}"
    sha = commit_to_branch(tree, name, files, _message(tree, files, outcomes))
    output.result(f"Committed {sha[:12]} on branch {name}: {names}")
    output.result(f"Next: git push origin {shlex.quote(name)}, and open a pull request")


def new_files(workspace: Workspace, tree: WorkTree | None, outcomes: Sequence[Outcome]) -> dict[PurePosixPath, bytes]:
    """Return the files with Profiles that the project lacks, by path in the repository."""
    settings = workspace.project.document.spec.paths.profiles
    folder = PurePosixPath(workspace.relative(contained(workspace.root, settings, workspace.directory)))
    known = {name: loaded.document for name, loaded in workspace.profiles.items()}
    files = {}
    for outcome in outcomes:
        if all(known.get(profile.metadata.name) == profile for profile in outcome.profiles):
            continue  # none, or all of them are there, in whatever file
        path = folder / f"{outcome.base}.yaml"
        files[path] = file_of(outcome, _profiles_in(workspace.root, tree, path))
    return files


def _profiles_in(root: Path, tree: WorkTree | None, path: PurePosixPath) -> list[Profile]:
    """Return what a file holds now: in HEAD, or on disk where there is no repository."""
    if tree is not None:
        data = read_at_head(tree, path)
    else:
        data = (root / path).read_bytes() if (root / path).is_file() else None
    try:
        return [validate(source, Profile) for source in parse(SourceFile(path.as_posix(), data))] if data else []
    except DocumentError as error:
        raise ScepsyError(f"{path} cannot be added to: {error.message}", "fix or remove it") from error


def write_here(
    workspace: Workspace,
    tree: WorkTree | None,
    files: Mapping[PurePosixPath, bytes],
    outcomes: Sequence[Outcome],
    notice: Print,
) -> None:
    """Write files into the project, and commit them on the current branch where there is a repository."""
    if tree is not None:
        check_committable(tree, files)
    before = {path: (workspace.root / path) for path in files}
    owned = {
        path: hashlib.sha256(read_at_head(tree, path) or b"" if tree else file.read_bytes()).hexdigest()
        for path, file in before.items()
        if file.is_file()
    }
    write(workspace.root, files, plan_changes(workspace.root, files, owned))
    if tree is None:
        return
    sha = commit(tree, files, _message(tree, files, outcomes))
    if sha:
        notice(f"committed {sha[:12]}: {' '.join(sorted(path.as_posix() for path in files))}")


def _message(tree: WorkTree, files: Mapping[PurePosixPath, bytes], outcomes: Sequence[Outcome]) -> str:
    written = [outcome for outcome in outcomes if any(path.stem == outcome.base for path in files)]
    what = list(dict.fromkeys(f"{outcome.request.model} on {outcome.request.product}" for outcome in written))
    subject = f"Profile {what[0]}" + (f" and {len(what) - 1} more" if len(what) > 1 else "")
    lines = []
    for outcome in written:
        for profile in outcome.profiles:
            lines.append(f"{outcome.request.model}: {_line(profile)}")
    return message(subject, "\n".join(lines), trailers(tree, {}))


def _line(profile: Profile) -> str:
    spec = profile.spec
    if not spec.series:
        entry = spec.unusable[0]
        return f"tp {entry.tp} share {entry.share:g} unusable: {printable(entry.reason)[:200]}"
    series = spec.series[0]
    upto = f", sustains {format_rate(series.saturation.low)}" if series.saturation else ""
    return f"tp {series.tp} share {series.share:g} measured at {len(series.points)} concurrencies{upto}"


def _digest(files: Mapping[PurePosixPath, bytes]) -> str:
    whole = hashlib.sha256()
    for path, data in sorted(files.items()):
        whole.update(f"{path}\0{len(data)}\0".encode() + data)
    return whole.hexdigest()[:8]


def _short(reference: str) -> str:
    for prefix in ("refs/heads/", "refs/remotes/"):
        if reference.startswith(prefix):
            return f"branch {reference.removeprefix(prefix)}"
    return reference
