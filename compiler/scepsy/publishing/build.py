"""Compile clusters into their files: Plans and manifests, and how they compare with what is committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scepsy.compilation import Compilation, compile_plan, unchanged_plan
from scepsy.documents import API_VERSION, Plan, Workspace
from scepsy.documents.command_results import ClusterResult, CompileResult, FileChanges, GoneCluster
from scepsy.errors import ScepsyError
from scepsy.manifests import check as check_manifests
from scepsy.manifests import render
from scepsy.repository import WorkTree
from scepsy.repository.outputs import (
    Output,
    State,
    apply,
    check_commit,
    check_inputs,
    commit_outputs,
    compare,
    gone,
    output_of,
    previous_plans,
)
from scepsy.repository.project import open_project


def build_here(project: Path, cluster: str | None, check: bool, commit: bool, force: bool) -> CompileResult:
    """Compile one cluster or all in the checkout; write and commit as asked.

    Raises:
        ScepsyError: something is wrong; nothing was written then.
    """
    workspace, tree = open_project(project)
    if commit and tree is None:
        raise ScepsyError(f"{project} is not in a Git repository, so nothing can be committed", "run: git init")
    names = [cluster] if cluster is not None else list(workspace.clusters)
    built = build(workspace, tree, names)
    left_over = gone(workspace) if cluster is None else []
    everything = [*built.outputs, *left_over]
    state = compare(workspace.root, tree, everything)
    made = None
    if not check:
        if commit and tree is not None:
            check_inputs(tree, everything)
            check_commit(tree, everything)
        apply(workspace.root, everything, state, force)
        if commit and tree is not None:
            made = commit_outputs(tree, everything)
    return built.result(state, left_over, check, made)


@dataclass(frozen=True)
class Built:
    """What was compiled for each cluster.

    Attributes:
        outputs: Plans and their files.
        notes: in the same order, what a re-plan kept, moved or spared; empty if nothing.
    """

    outputs: tuple[Output, ...]
    notes: tuple[str, ...]

    def result(self, state: State, left_over: Sequence[Output], checked: bool, commit: str | None) -> CompileResult:
        """Return what the command prints."""
        pairs = zip(self.outputs, self.notes, strict=True)
        return CompileResult(
            api_version=API_VERSION,
            clusters=tuple(_result(output, state, note) for output, note in pairs),
            gone=tuple(GoneCluster(cluster=o.plan.spec.cluster, changes=_changes(o, state)) for o in left_over),
            checked=checked,
            commit=commit,
        )


def build(workspace: Workspace, tree: WorkTree | None, names: Sequence[str]) -> Built:
    """Compile clusters; nothing is written.

    Args:
        workspace: the project.
        tree: the work tree whose HEAD holds the plans in force.
        names: the clusters.

    Raises:
        ScepsyError: something is wrong.
    """
    outputs, notes = [], []
    for name in names:
        previous = previous_plans(workspace, tree, name)
        plan, note = unchanged_plan(workspace, name, previous), ""
        if plan is None:
            compilation = compile_plan(workspace, name, previous)
            plan, note = compilation.plan, _note(compilation)
        outputs.append(_output(workspace, plan))
        notes.append(note)
    return Built(tuple(outputs), tuple(notes))


def _output(workspace: Workspace, plan: Plan) -> Output:
    cluster = workspace.cluster(plan.spec.cluster).document
    check_manifests(plan, cluster)
    return output_of(workspace, plan, render(plan, cluster, workspace.project.document, workspace.templates))


def _note(compilation: Compilation) -> str:
    """Say what a re-plan kept, moved or spared."""
    replanned = compilation.replanned
    if replanned is None:
        return ""
    if replanned.kept:
        return (
            f"Kept the plan in force: the best one would gain {replanned.gain:.2%}"
            f" and start {replanned.started_by_best} instances"
        )
    if replanned.started < replanned.started_by_best:
        spared = replanned.started_by_best - replanned.started
        better = f"the best plan, which is {replanned.gain:.2%} better"
        return f"Starts {replanned.started} instances, {spared} fewer than {better}"
    return f"Starts {replanned.started} instances" if replanned.started else ""


def _changes(output: Output, state: State) -> FileChanges:
    def of_output(paths: Sequence[PurePosixPath]) -> tuple[str, ...]:
        return tuple(p.as_posix() for p in paths if p == output.path or output.directory in p.parents)

    return FileChanges(
        added=of_output(state.changes.added),
        changed=of_output(state.changes.changed),
        removed=of_output(state.changes.removed),
        edited=of_output((*state.changes.edited, *state.changes.foreign)),
        uncommitted=of_output(state.uncommitted),
    )


def _result(output: Output, state: State, note: str) -> ClusterResult:
    changes, spec = _changes(output, state), output.plan.spec
    current = not (changes.added or changes.changed or changes.removed or changes.uncommitted)
    return ClusterResult(cluster=spec.cluster, up_to_date=current, plan=spec, changes=changes, note=note)
