"""From a plan and its manifests to files in the work tree, and to a commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scepsy.documents import DocumentError, Plan, Workspace, contained, digest, emit, load_file
from scepsy.documents.loading import validate
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.errors import ScepsyError
from scepsy.repository.commit import CannotCommit, check_committable, commit, make_commit
from scepsy.repository.commit_message import message, trailers
from scepsy.repository.worktree import WorkTree, differing, history, is_one_of, on_disk, read_at_head, versions_between
from scepsy.repository.write_files import Changes, plan_changes, write

_NONE: Mapping[PurePosixPath, bytes | None] = {}
_HEADER = (
    "# Written by scepsy; do not edit. Reproduce with: scepsy compile --cluster {cluster}\n"
    "# Predictions are estimates: see spec.llms[].profile.source and spec.warnings.\n"
)


@dataclass(frozen=True)
class Output:
    """Everything that the compiler wants to exist for one cluster.

    Attributes:
        plan: the plan, its `files` filled in.
        path: where the plan lies, relative to the repository.
        files: content by path, the plan's included.
        directory: the directory below which all other files of this cluster lie.
    """

    plan: Plan
    path: PurePosixPath
    files: Mapping[PurePosixPath, bytes]
    directory: PurePosixPath


@dataclass(frozen=True)
class State:
    """How the outputs compare with the repository.

    Attributes:
        changes: against the work tree.
        uncommitted: outputs that are as wanted in the work tree, but not in HEAD.
    """

    changes: Changes
    uncommitted: tuple[PurePosixPath, ...]

    @property
    def up_to_date(self) -> bool:
        """Whether the committed output is what the compiler wants."""
        return not self.changes.any and not self.uncommitted


def output_of(workspace: Workspace, plan: Plan, manifests: Mapping[str, bytes]) -> Output:
    """Lay out a plan and its manifests in the repository.

    Args:
        workspace: has the paths.
        plan: the plan.
        manifests: content by file name.

    Raises:
        PathEscapes: an output directory leaves the repository.
    """
    paths = workspace.project.document.spec.paths
    plans = _place(workspace, paths.plans)
    directory = _place(workspace, paths.rendered) / plan.spec.cluster
    files = {directory / plan.spec.namespace / name: data for name, data in sorted(manifests.items())}
    owned = {path.as_posix(): digest(data) for path, data in files.items()}
    whole = plan.model_copy(update={"spec": plan.spec.model_copy(update={"files": owned})})
    path = plans / f"{plan.spec.cluster}.yaml"
    text = _HEADER.format(cluster=plan.spec.cluster).encode() + emit(whole.plain())
    return Output(whole, path, {**files, path: text}, directory)


EARLIER = 2
"""So many plans before HEAD's are read, in case Argo CD never applied HEAD's."""


def previous_plans(workspace: Workspace, tree: WorkTree | None, cluster: str) -> list[Plan]:
    """Return the plan in force for a cluster, then earlier ones with other instances, newest first.

    The plan in force is HEAD's; where there is no repository, the one in the directory. Plans that this version cannot
    read are passed over.

    Raises:
        PathEscapes: the plans' directory leaves the repository.
    """
    path = _place(workspace, workspace.project.document.spec.paths.plans) / f"{cluster}.yaml"
    if tree is None:
        file = workspace.root / path
        versions = iter([file.read_bytes()] if file.is_file() else [])
    else:
        versions = history(tree, path)
    found: list[Plan] = []
    for data in versions:
        plan = _plan_in(data, path)
        if plan is None or (found and plan.spec.instances == found[-1].spec.instances):
            continue
        found.append(plan)
        if len(found) > EARLIER:
            break
    return found


def _plan_in(data: bytes, path: PurePosixPath) -> Plan | None:
    try:
        sources = parse(SourceFile(path.as_posix(), data))
        return validate(sources[0], Plan) if sources else None
    except DocumentError:
        return None


def gone(workspace: Workspace, root: Path | None = None) -> list[Output]:
    """Return outputs that want nothing, for plans of clusters that the project no longer has.

    Args:
        workspace: the project.
        root: the work tree that holds the outputs, if another than the project's.

    Raises:
        PathEscapes: the plans' directory leaves the repository.
    """
    paths = workspace.project.document.spec.paths
    plans, rendered = _place(workspace, paths.plans), _place(workspace, paths.rendered)
    found = []
    for file in sorted(((root or workspace.root) / plans).glob("*.yaml")):
        path = plans / file.name
        plan = _plan_in(file.read_bytes(), path) if file.is_file() and file.stem not in workspace.clusters else None
        if plan is not None and plan.spec.cluster == file.stem:
            found.append(Output(plan, path, {}, rendered / file.stem))
    return found


def compare(
    root: Path, tree: WorkTree | None, outputs: Iterable[Output], others: Mapping[PurePosixPath, bytes | None] = _NONE
) -> State:
    """Compare the outputs with the work tree, and with HEAD where there is a repository.

    Args:
        root: the work tree's directory.
        tree: the work tree, if there is a repository.
        outputs: what was compiled.
        others: further files that are ours to write; None for one that goes.

    Raises:
        ScepsyError: an existing plan cannot be read, or a path is not ours to write.
    """
    wanted = list(outputs)
    files = _together(wanted) | {path: data for path, data in others.items() if data is not None}
    mine = {path: _there(root / path) for path in others}
    owned = _owned(root, wanted) | {path: known for path, known in mine.items() if known is not None}
    changes = plan_changes(root, files, owned)
    uncommitted: tuple[PurePosixPath, ...] = ()
    if tree is not None and tree.head is not None:
        uncommitted = tuple(sorted(differing(tree, changes.unchanged)))
    elif tree is not None:
        uncommitted = changes.unchanged
    return State(changes, uncommitted)


def _there(path: Path) -> str | None:
    """Return the sha256 of a file in hexadecimal; None if there is none."""
    return digest(path.read_bytes()).removeprefix("sha256:") if path.is_file() else None


def check_inputs(
    tree: WorkTree,
    outputs: Iterable[Output],
    others: Iterable[PurePosixPath] = (),
    source: WorkTree | None = None,
) -> None:
    """Refuse to commit what was compiled from inputs that HEAD does not hold.

    Args:
        tree: the work tree.
        outputs: what was compiled.
        others: further files that must be as HEAD holds them.
        source: what was compiled, if another work tree; files may also be as a commit on the way to its HEAD has them:
            a run that died may have brought them forward already.

    Raises:
        CannotCommit: an input is not committed; names all of them.
    """
    inputs = set(others)
    for output in outputs:
        before = read_at_head(tree, output.path)
        earlier = _plan_in(before, output.path) if before is not None else None
        # An input that is gone from the work tree is in the earlier plan only.
        inputs |= {PurePosixPath(path) for plan in (output.plan, earlier) if plan for path in plan.spec.inputs}
    different = differing(tree, inputs) if tree.head is not None else dict.fromkeys(inputs, "untracked")
    if different and source is not None and source.head not in (None, tree.head) and tree.head is not None:
        versions = versions_between(source.root, tree.head, str(source.head))
        different = {path: why for path, why in different.items() if not _is_on_the_way(tree, path, why, versions)}
    if different:
        listed = "".join(f"\n    {path}: {reason}" for path, reason in sorted(different.items()))
        raise CannotCommit(
            f"these inputs differ from HEAD, so the commit would not show what it was compiled from:{listed}",
            "commit them first (git add, git commit), then compile again",
        )


def apply(
    root: Path,
    outputs: Iterable[Output],
    state: State,
    force: bool,
    others: Mapping[PurePosixPath, bytes | None] = _NONE,
) -> None:
    """Write the outputs, and what was compared with them, into the work tree: all or nothing.

    Raises:
        WouldOverwrite: files were edited by hand, and not `force`.
        WriteFailed: the disk refuses; nothing changed then.
    """
    files = _together(list(outputs)) | {path: data for path, data in others.items() if data is not None}
    write(root, files, state.changes, overwrite=force)


def _is_on_the_way(tree: WorkTree, path: PurePosixPath, why: str, versions: Mapping[PurePosixPath, set[str]]) -> bool:
    """Tell whether a file is as a later commit has it, in the work tree alone."""
    there, content = on_disk(tree.root / path)
    known = versions.get(path, set())
    if not there:
        return any(not oid.strip("0") for oid in known)
    return why != "staged" and content is not None and is_one_of(known, *content)


def documents_of(workspace: Workspace, root: Path) -> set[PurePosixPath]:
    """Return the files in a work tree that the project would read as documents or templates.

    Args:
        workspace: has the paths.
        root: the work tree, which need not be the one that the workspace was read from.

    Raises:
        PathEscapes: a directory leaves the work tree.
    """
    directory = workspace.directory.relative_to(workspace.root)
    paths = workspace.project.document.spec.paths
    found = {PurePosixPath(directory / "scepsy.yaml")}
    for setting in (paths.workflows, paths.clusters, paths.profiles, paths.observed, paths.templates):
        folder = contained(root, setting, root / directory) if setting is not None else None
        if folder is not None and folder.is_dir():
            found |= {
                PurePosixPath(path.relative_to(root).as_posix())
                for path in folder.rglob("*")
                if path.suffix in (".yaml", ".yml", ".j2")
            }
    return found


def commit_outputs(tree: WorkTree, outputs: Iterable[Output]) -> str | None:
    """Commit the outputs; the work tree must hold them already.

    Returns:
        the commit, or None when HEAD holds them.

    Raises:
        CannotCommit: the repository is not in a state to be committed to.
    """
    wanted = list(outputs)
    return commit(tree, committed_files(tree, wanted), _message(tree, wanted))


def make_outputs(
    tree: WorkTree,
    outputs: Iterable[Output],
    others: Mapping[PurePosixPath, bytes | None],
    source: WorkTree,
    reason: str = "",
) -> str | None:
    """Make a commit of the outputs on top of HEAD; branch, index and files stay as they are.

    Args:
        tree: the work tree.
        outputs: what was compiled.
        others: further files of the commit.
        source: the work tree that it was compiled from.
        reason: why, for the message.

    Returns:
        the commit, or None when HEAD holds them.

    Raises:
        CannotCommit: it cannot be made.
    """
    wanted = list(outputs)
    return make_commit(tree, {**others, **committed_files(tree, wanted)}, _message(source, wanted, reason))


def _message(source: WorkTree, wanted: list[Output], reason: str = "") -> str:
    inputs = {PurePosixPath(p): d for output in wanted if output.files for p, d in output.plan.spec.inputs.items()}
    body = "\n\n".join(part for part in (reason, _body(wanted)) if part)
    return message(_subject(wanted), body, trailers(source, inputs))


def check_commit(tree: WorkTree, outputs: Iterable[Output]) -> None:
    """Check that `commit_outputs` would work; nothing is written.

    Raises:
        CannotCommit: it would not.
    """
    check_committable(tree, committed_files(tree, list(outputs)))


def committed_files(tree: WorkTree, outputs: list[Output]) -> dict[PurePosixPath, bytes | None]:
    """Return what the commit changes: every output, and None for files of HEAD's plans that are no longer needed."""
    files: dict[PurePosixPath, bytes | None] = dict(_together(outputs))
    for output in outputs:
        data = read_at_head(tree, output.path)
        if data is None:
            continue
        for path in (output.path, *_files_of(data, output)):
            if path not in files and read_at_head(tree, path) is not None:
                files[path] = None
    return files


def _together(outputs: list[Output]) -> dict[PurePosixPath, bytes]:
    return {path: data for output in outputs for path, data in output.files.items()}


def _place(workspace: Workspace, setting: str) -> PurePosixPath:
    return PurePosixPath(workspace.relative(contained(workspace.root, setting, workspace.directory)))


def _owned(root: Path, outputs: list[Output]) -> dict[PurePosixPath, str]:
    """Return the files that the plans in the work tree list as written, with their sha256 in hexadecimal."""
    owned: dict[PurePosixPath, str] = {}
    for output in outputs:
        path = root / output.path
        if not path.is_file():
            continue
        data = path.read_bytes()
        _, plans, _ = load_file(path, output.path.as_posix(), Plan)
        if not plans:
            raise ScepsyError(
                f"{output.path} is not a Plan that this version can read",
                "restore it (git checkout), or remove it to compile without a previous plan",
            )
        owned[output.path] = digest(data).removeprefix("sha256:")
        owned.update(_files_of(data, output))
    return owned


def _files_of(data: bytes, output: Output) -> dict[PurePosixPath, str]:
    """Return the files that a plan lists, below its own directory only: it is no licence to remove anything else."""
    documents = parse(SourceFile(output.path.as_posix(), data))
    plain = documents[0].root.plain() if documents else {}
    listed = (plain.get("spec") or {}).get("files") or {} if isinstance(plain, dict) else {}
    files = {}
    for name, value in listed.items() if isinstance(listed, dict) else ():
        path = PurePosixPath(str(name))
        if output.directory in path.parents and ".." not in path.parts:
            files[path] = str(value).removeprefix("sha256:")
    return files


def _subject(outputs: list[Output]) -> str:
    made = ", ".join(output.plan.spec.cluster for output in outputs if output.files)
    removed = ", ".join(output.plan.spec.cluster for output in outputs if not output.files)
    return f"Compile {made}" + (f"; remove {removed}" if removed else "")


def _body(outputs: list[Output]) -> str:
    lines = []
    for output in outputs:
        spec = output.plan.spec
        for llm in spec.llms if output.files else ():
            lines.append(f"{spec.cluster}: {llm.name} {llm.replicas} x {llm.product} tp {llm.tp} share {llm.share:g}")
    return "\n".join(lines)
