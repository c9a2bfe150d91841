"""Measuring from the command line: submit, wait if asked, keep the Profiles; `compile --profile` measures first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from scepsy.documents import Workspace
from scepsy.documents.canonical_yaml import emit
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.following import wait_for
from scepsy.profiling.jobs.jobs_to_submit import jobs_to_submit
from scepsy.profiling.jobs.output import Output
from scepsy.profiling.jobs.profile_files import BRANCH, keep, new_files, write_here
from scepsy.profiling.jobs.results import Outcome
from scepsy.profiling.jobs.submit import submit_all
from scepsy.profiling.jobs.target import Target
from scepsy.profiling.jobs.workflow import workflow_of
from scepsy.repository import CannotCommit, WorkTree, check_branch, check_committable, differing
from scepsy.repository.project import open_project

R = TypeVar("R")


def submit(target: Target, wait: bool, dry_run: bool, timeout: float, branch: str | None, output: Output) -> None:
    """Submit jobs for the measurements that a cluster lacks; print them, or wait and keep the results, as asked.

    Args:
        target: the cluster.
        wait: until the jobs are over; then write the Profiles.
        dry_run: only print the Workflows.
        timeout: how long to wait, in seconds.
        branch: for the Profiles; None for one named after them.
        output: where messages go.

    Raises:
        ScepsyError: the project is invalid, the cluster refuses or cannot be reached, or points failed.
    """
    wanted = jobs_to_submit(target)
    for line in wanted.left_out:
        output.notice(line)
    if not wanted.jobs:
        if dry_run:
            output.notice("nothing to measure: all shapes are measured or ruled out (scepsy profile plan)")
        else:
            output.result("Nothing to measure: all shapes are measured or ruled out (scepsy profile plan).")
        return
    if dry_run:
        output.result(emit(*(workflow_of(job) for job in wanted.jobs)).decode().removesuffix("\n"))
        return
    if wait and wanted.tree is not None:
        # Before hours of measuring, not after.
        check_branch(wanted.tree, branch or f"{BRANCH}/new")
    jobs = target.connect(output.notice)
    submitted = submit_all(jobs, wanted.jobs, output.result)
    if not wait:
        when = "" if all(one.how == "finished" for one in submitted) else ", when they are done"
        output.result(f"Next{when}: {target.command('profile collect')}")
        return
    outcomes = wait_for(jobs, submitted, timeout, target, output)
    keep(target, outcomes, branch, output)
    _fail_for(outcomes, "re-run the command: only these points are measured again")


def _fail_for(outcomes: Sequence[Outcome], hint: str) -> None:
    lacking = [(outcome.base, point) for outcome in outcomes for point in outcome.lacking]
    if lacking:
        total = sum(len(outcome.points) for outcome in outcomes)
        listed = "".join(f"\n    {base} {point.name}: {point.reason}" for base, point in lacking)
        raise ScepsyError(f"{len(lacking)} of {total} points failed:{listed}", hint)


def measure_then_compile(target: Target, timeout: float, commits: bool, compiled: Callable[[], R], output: Output) -> R:
    """Measure what is missing, commit the Profiles on the current branch, then compile.

    Outside a repository the Profiles are only written. Points that failed matter only if compiling needs them.

    Args:
        target: the cluster.
        timeout: how long to wait, in seconds.
        commits: whether the outputs will be committed too, so that every input must be.
        compiled: compiles.
        output: where messages go.

    Raises:
        ScepsyError: measuring or compiling fails; the message lists the points that failed, if any.
    """
    failed = _measured(target, timeout, commits, output)
    try:
        result = compiled()
    except ScepsyError as error:
        if not failed:
            raise
        raise ScepsyError(f"{error.message}\nthese measurements failed:\n{failed}", error.hint) from error
    if failed:
        output.notice(f"warning: compiled without these measurements, which failed:\n{failed}")
    return result


def _measured(target: Target, timeout: float, commits: bool, output: Output) -> str:
    """Measure what is missing, and return which points failed and why, one line each."""
    wanted = jobs_to_submit(target)
    for line in wanted.left_out:
        output.notice(line)
    if not wanted.jobs:
        return ""
    if wanted.tree is not None:
        # Before hours of measuring, not after.
        check_committable(wanted.tree, {})
        if commits:
            _check_inputs(wanted.tree, wanted.workspace)
    jobs = target.connect(output.notice)
    outcomes = wait_for(jobs, submit_all(jobs, wanted.jobs, output.notice), timeout, target, output)
    workspace, tree = open_project(target.project, needs_profiles=False)
    files = new_files(workspace, tree, outcomes)
    if files:
        write_here(workspace, tree, files, outcomes, output.notice)
    lacking = [f"  {outcome.base} {point.name}: {point.reason}" for outcome in outcomes for point in outcome.lacking]
    return "\n".join([*(f"  {line}" for line in wanted.left_out), *lacking])


def _check_inputs(tree: WorkTree, workspace: Workspace) -> None:
    paths = [PurePosixPath(path) for path in workspace.inputs]
    different = differing(tree, paths) if tree.head is not None else dict.fromkeys(paths, "untracked")
    if different:
        listed = "".join(f"\n    {path}: {reason}" for path, reason in sorted(different.items()))
        raise CannotCommit(
            f"these inputs differ from HEAD, so the commit would not show what it was compiled from:{listed}",
            "commit them first (git add, git commit), then re-run this",
        )
