"""`scepsy profile submit` and `collect`, and what `scepsy compile --profile` does before it compiles."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import click

from scepsy.demand.job_calls import JobCalls
from scepsy.demand.replay import calls_of
from scepsy.documents import DocumentError, Profile, Workspace, contained
from scepsy.documents.diagnostics import printable
from scepsy.documents.emit import emit
from scepsy.documents.loading import validate
from scepsy.documents.source import SourceFile, parse
from scepsy.documents.units import format_rate
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs import submission
from scepsy.profiling.jobs.argo_client import Jobs, connect
from scepsy.profiling.jobs.results import Outcome, Point, file_of
from scepsy.profiling.jobs.submission import Gone, Submitted, TimeIsUp
from scepsy.profiling.jobs.workflow import Job, job_of, point_name, workflow_of
from scepsy.profiling.planning import plan_profiles
from scepsy.repository import (
    CannotCommit,
    WorkTree,
    check_branch,
    check_committable,
    commit,
    commit_to_branch,
    differing,
    holders,
    message,
    plan_changes,
    read_at_head,
    trailers,
    write,
)
from scepsy.repository.outputs import previous_plans
from scepsy.repository.project import open_project

R = TypeVar("R")
_BRANCH = "profiles"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Where:
    """Which cluster, and how to reach it.

    Attributes:
        project: directory with `scepsy.yaml`.
        cluster: the cluster's name in the project; None for the only one.
        context: a context of the kubeconfig.
        argo_server: address of an argo-server.
    """

    project: Path
    cluster: str | None
    context: str | None
    argo_server: str | None

    def again(self, command: str) -> str:
        """Return a command for the same cluster, as it would be typed."""
        words = ["scepsy", *command.split()]
        given = {"--cluster": self.cluster, "--context": self.context, "--argo-server": self.argo_server}
        words += [word for option, value in given.items() if value is not None for word in (option, value)]
        words += ["--project", str(self.project)] if self.project != Path() else []
        return shlex.join(words)


@dataclass(frozen=True)
class _Plan:
    """What is to be submitted.

    Attributes:
        workspace: the project.
        tree: the Git work tree around it, if any.
        cluster: the cluster's name.
        jobs: the jobs.
        left_out: what cannot be measured now, one line each.
    """

    workspace: Workspace
    tree: WorkTree | None
    cluster: str
    jobs: tuple[Job, ...]
    left_out: tuple[str, ...]


def submit(where: Where, wait: bool, dry_run: bool, seconds: float, branch: str | None) -> None:
    """Submit what a cluster's measurements lack; print it, or wait and keep the results, as asked.

    Args:
        where: the cluster.
        wait: until the jobs are over; then write the Profiles.
        dry_run: only print the Workflows.
        seconds: how long to wait.
        branch: for the Profiles; None for one named after them.

    Raises:
        ScepsyError: something is wrong, or points failed.
    """
    planned = _planned(where)
    for line in planned.left_out:
        _tell(line)
    if dry_run:
        click.echo(emit(*(workflow_of(job) for job in planned.jobs)).decode(), nl=False)
        if not planned.jobs:
            _tell("nothing to measure: all shapes are measured or ruled out (scepsy profile plan)")
        return
    if not planned.jobs:
        click.echo("Nothing to measure: all shapes are measured or ruled out (scepsy profile plan).")
        return
    if wait and planned.tree is not None:
        # Before hours of measuring, not after.
        check_branch(planned.tree, branch or f"{_BRANCH}/new")
    jobs = _connected(where)
    submitted = _submitted(jobs, planned.jobs, click.echo)
    if not wait:
        when = "" if all(one.how == "finished" for one in submitted) else ", when they are done"
        click.echo(f"Next{when}: {where.again('profile collect')}")
        return
    outcomes = _followed(jobs, submitted, seconds, where)
    _keep(where, outcomes, branch)
    _fail_for(outcomes, "re-run the command: only these points are measured again")


def submit_missing(where: Where) -> list[str]:
    """Submit what a cluster's measurements lack, or join what runs already; return what became of it, a line each.

    Raises:
        ScepsyError: something is wrong.
    """
    planned = _planned(where)
    said = list(planned.left_out)
    if planned.jobs:
        _submitted(_connected(where), planned.jobs, said.append)
    return said


def collect(where: Where, branch: str | None) -> None:
    """Keep the results of finished jobs.

    Args:
        where: the cluster.
        branch: for the Profiles; None for one named after them.

    Raises:
        ScepsyError: something is wrong.
    """
    workspace, _ = open_project(where.project, needs_profiles=False)
    cluster = _cluster(workspace, where.cluster)
    jobs = _connected(where)
    project = workspace.project.document
    found = submission.of_project(jobs, project.spec.profiling.namespace, project.metadata.name, cluster)
    if not found:
        click.echo(
            f"Nothing to collect: {jobs.place} has no jobs of project {project.metadata.name} for cluster {cluster}."
        )
        return
    for outcome in found:
        if not outcome.finished:
            click.echo(f"still running: {outcome.last.name}: {_counted([outcome])}")
    finished = []
    for outcome in (outcome for outcome in found if outcome.finished):
        engine = project.spec.engine.version
        if outcome.request.engine != engine:
            click.echo(f"not collected: {outcome.base}: of vLLM {outcome.request.engine}, the engine is {engine}")
            continue
        finished.append(outcome)
        _show_lacking(outcome)
    _keep(where, finished, branch)


def measured_first(where: Where, seconds: float, commits: bool, compiled: Callable[[], R]) -> R:
    """Measure what is missing, commit the Profiles on the current branch, then compile.

    Outside a repository the Profiles are only written. Points that failed matter only if a compile cannot do without.

    Args:
        where: the cluster.
        seconds: how long to wait.
        commits: whether the outputs will be committed too, so that every input must be.
        compiled: compiles.

    Raises:
        ScepsyError: something is wrong; says which points failed, if any did.
    """
    failed = _measured(where, seconds, commits)
    try:
        result = compiled()
    except ScepsyError as error:
        if not failed:
            raise
        raise ScepsyError(f"{error.message}\nthese measurements failed:\n{failed}", error.hint) from error
    if failed:
        _tell(f"warning: compiled without these measurements, which failed:\n{failed}")
    return result


def _measured(where: Where, seconds: float, commits: bool) -> str:
    """Measure what is missing, and return which points failed and why, one line each."""
    planned = _planned(where)
    for line in planned.left_out:
        _tell(line)
    if not planned.jobs:
        return ""
    if planned.tree is not None:
        # Before hours of measuring, not after.
        check_committable(planned.tree, {})
        if commits:
            _check_inputs(planned.tree, planned.workspace)
    jobs = _connected(where)
    outcomes = _followed(jobs, _submitted(jobs, planned.jobs, _tell), seconds, where)
    workspace, tree = open_project(where.project, needs_profiles=False)
    files = _files(workspace, tree, outcomes)
    if files:
        _write_here(workspace, tree, files, outcomes)
    lacking = [f"  {outcome.base} {point.name}: {point.reason}" for outcome in outcomes for point in outcome.lacking]
    return "\n".join([*(f"  {line}" for line in planned.left_out), *lacking])


# -------------------------------------------------------------------------------------------------------- submitting


def _planned(where: Where) -> _Plan:
    workspace, tree = open_project(where.project, needs_profiles=False)
    name = _cluster(workspace, where.cluster)
    sweeps = plan_profiles(workspace, name).sweeps
    in_force = previous_plans(workspace, tree, name) if sweeps else []
    known = {loaded.document.spec.model: loaded.document.spec.architecture for loaded in workspace.profiles.values()}
    calls: dict[tuple[str, str], JobCalls] = {}
    jobs: list[Job] = []
    left_out: list[str] = []
    problem: ScepsyError | None = None
    for sweep in sweeps:
        role = (sweep.workflow, sweep.llm)
        if role not in calls:
            calls[role] = calls_of(workspace, *role)
        shape = known.get(sweep.model)
        weights = round(shape.parameters * shape.bytes_per_parameter) if shape else None
        try:
            job = job_of(
                sweep,
                workspace.project.document,
                workspace.cluster(name).document,
                in_force[0] if in_force else None,
                calls[role],
                weights,
            )
        except ScepsyError as error:
            if workspace.project.document.spec.profiling.image is None:
                raise
            problem = problem or error
            left_out.append(f"left out: {sweep.model} on {sweep.product}: {error.message}")
            continue
        jobs.append(job)
        left_out += [f"left out: {sweep.model} {point_name(shape)}: {reason}" for shape, reason in job.left_out]
    if problem is not None and not jobs:
        raise problem
    return _Plan(workspace, tree, name, tuple(jobs), tuple(left_out))


def _cluster(workspace: Workspace, name: str | None) -> str:
    if name is not None:
        return workspace.cluster(name).document.metadata.name
    if len(workspace.clusters) > 1:
        raise ScepsyError(
            "the project has several clusters, and jobs run on one",
            f"name it: --cluster {'|'.join(workspace.clusters)}",
        )
    return next(iter(workspace.clusters))


def _connected(where: Where) -> Jobs:
    jobs = connect(where.context, where.argo_server)
    jobs.say = _tell
    return jobs


def _submitted(jobs: Jobs, wanted: Sequence[Job], say: Say) -> list[Submitted]:
    submission.check(jobs, wanted)
    submitted = []
    for job in wanted:
        one = submission.submit(jobs, job)
        hours = sum(point.gpu_hours for point in job.sweep.points if point_name(point.shape) in one.points)
        about = f"{job.sweep.model} on {job.sweep.product}, {_points(one.points)}"
        match one.how:
            case "submitted":
                again = f"; attempt {one.attempt}, for what failed" if one.attempt > 1 else ""
                say(f"submitted  {one.name}: {about}, about {hours:.2g} GPU-hours{again}")
            case "joined":
                say(f"joined     {one.name}: {about}; it runs already")
            case "finished":
                say(f"finished   {one.name}: {about}; measured already")
        submitted.append(one)
    return submitted


def _points(names: Sequence[str]) -> str:
    return f"{len(names)} point{'s' if len(names) != 1 else ''} ({' '.join(names)})"


# ----------------------------------------------------------------------------------------------------------- waiting


def _followed(jobs: Jobs, submitted: Sequence[Submitted], seconds: float, where: Where) -> list[Outcome]:
    """Wait for jobs, and show how they are; however the waiting ends, they go on."""
    hint = f"collect the results later: {where.again('profile collect')}"
    try:
        with _progress() as show:
            return submission.follow(jobs, submitted, show, seconds)
    except KeyboardInterrupt:
        raise ScepsyError("interrupted; the jobs continue", hint) from None
    except TimeIsUp as error:
        raise ScepsyError(error.message, hint) from None
    except Gone:
        raise
    except ScepsyError as error:
        raise ScepsyError(
            f"{error.message}; the jobs continue", "; ".join(h for h in (error.hint, hint) if h)
        ) from error


@contextmanager
def _progress() -> Iterator[Callable[[Sequence[Outcome]], None]]:
    """Give a function that shows the states of all points: a bar, or a line per change where there is no terminal."""
    if not sys.stderr.isatty():
        shown: dict[tuple[str, str], str] = {}

        def lines(outcomes: Sequence[Outcome]) -> None:
            for outcome in outcomes:
                for point in outcome.points:
                    key = (outcome.base, point.name)
                    if shown.get(key) != point.state:
                        shown[key] = point.state
                        _tell(f"{outcome.base} {point.name}: {_told(point)}")

        yield lines
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("points"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def update(outcomes: Sequence[Outcome]) -> None:
            total = sum(len(outcome.points) for outcome in outcomes)
            over = sum(point.state not in ("waiting", "running") for o in outcomes for point in o.points)
            bar.update(task, total=total, completed=over, description=_counted(outcomes))

        yield update


def _told(point: Point) -> str:
    return f"{point.state}: {point.reason}" if point.reason else point.state


def _counted(outcomes: Iterable[Outcome]) -> str:
    return ", ".join(f"{number} {state}" for state, number in submission.states(outcomes).items())


def _show_lacking(outcome: Outcome) -> None:
    for point in outcome.lacking:
        _tell(f"failed: {outcome.base} {point.name}: {point.reason}")


def _fail_for(outcomes: Sequence[Outcome], hint: str) -> None:
    lacking = [(outcome.base, point) for outcome in outcomes for point in outcome.lacking]
    if lacking:
        total = sum(len(outcome.points) for outcome in outcomes)
        listed = "".join(f"\n    {base} {point.name}: {point.reason}" for base, point in lacking)
        raise ScepsyError(f"{len(lacking)} of {total} points failed:{listed}", hint)


# ----------------------------------------------------------------------------------------------------------- keeping


def _keep(where: Where, outcomes: Sequence[Outcome], branch: str | None) -> None:
    """Write the Profiles of finished jobs: as one commit on a branch, or as files where there is no repository."""
    # Hours may have passed: look again.
    workspace, tree = open_project(where.project, needs_profiles=False)
    files = _files(workspace, tree, outcomes)
    if not files:
        click.echo("Nothing new: the project has all results.")
        return
    names = " ".join(sorted(path.as_posix() for path in files))
    if tree is None:
        _write_here(workspace, None, files, outcomes)
        click.echo(f"Wrote {names}")
        click.echo("Next: scepsy compile")
        return
    holding = holders(tree, files)
    if holding:
        click.echo(f"Nothing new: {names} {'is' if len(files) == 1 else 'are'} on {_short(holding[0])} already.")
        return
    name = branch or f"{_BRANCH}/{_digest(files)}"
    made = commit_to_branch(tree, name, files, _message(tree, files, outcomes))
    click.echo(f"Committed {made[:12]} on branch {name}: {names}")
    click.echo(f"Next: git push origin {shlex.quote(name)}, and open a pull request")


def _files(workspace: Workspace, tree: WorkTree | None, outcomes: Sequence[Outcome]) -> dict[PurePosixPath, bytes]:
    """Return the files with Profiles that the project does not have yet, by path in the repository."""
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


def _write_here(
    workspace: Workspace, tree: WorkTree | None, files: Mapping[PurePosixPath, bytes], outcomes: Sequence[Outcome]
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
    made = commit(tree, files, _message(tree, files, outcomes))
    if made:
        _tell(f"committed {made[:12]}: {' '.join(sorted(path.as_posix() for path in files))}")


def _check_inputs(tree: WorkTree, workspace: Workspace) -> None:
    paths = [PurePosixPath(path) for path in workspace.inputs]
    different = differing(tree, paths) if tree.head is not None else dict.fromkeys(paths, "untracked")
    if different:
        listed = "".join(f"\n    {path}: {reason}" for path, reason in sorted(different.items()))
        raise CannotCommit(
            f"these inputs differ from HEAD, so the commit would not show what it was compiled from:{listed}",
            "commit them first (git add, git commit), then compile again",
        )


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


def _tell(line: str) -> None:
    click.echo(line, err=True)
