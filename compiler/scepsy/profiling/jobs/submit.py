"""Submitting jobs: a job that runs already is joined, and points that failed are measured again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.argo_client import Jobs
from scepsy.profiling.jobs.jobs_to_submit import jobs_to_submit
from scepsy.profiling.jobs.output import Print
from scepsy.profiling.jobs.results import DONE, outcomes_of
from scepsy.profiling.jobs.target import Target
from scepsy.profiling.jobs.workflow import SWEEP, Job, attempt_name, point_name, workflow_of

How = Literal["submitted", "joined", "finished"]

_RACES = 5
"""Tries to create a Workflow whose name others take at the same time."""


@dataclass(frozen=True)
class Submitted:
    """The result of a submission.

    Attributes:
        job: the job.
        name: the Workflow that measures now, or measured last.
        base: the name of its first attempt.
        how: `submitted`, `joined` one that runs already, or `finished`: every point is measured.
        points: the points that this Workflow measures.
        attempt: its number, if it was submitted.
    """

    job: Job
    name: str
    base: str
    how: How
    points: tuple[str, ...]
    attempt: int = 1


def submit_job(jobs: Jobs, job: Job) -> Submitted:
    """Submit a job, unless it runs or is done already, alone or as part of another one.

    Of a finished job, only the points without a Profile are measured; they resume where the last attempt ended.

    Args:
        jobs: the cluster.
        job: the job.

    Raises:
        ScepsyError: the cluster refuses it, or cannot be reached.
    """
    for _ in range(_RACES):
        outcomes = outcomes_of(jobs.find(job.namespace, f"{SWEEP}={job.digest}"))
        # Attempts of this job first.
        outcomes.sort(key=lambda outcome: outcome.base != job.name)
        attempt, points, resume = 1, job.points, dict[str, str]()
        for outcome in outcomes:
            same_job = outcome.base == job.name
            last = outcome.last
            have = {point.name for point in outcome.points if point.state in DONE}
            running = set() if last.finished else {point.name for point in last.points}
            if running and (same_job or running | have >= set(job.points)):
                return Submitted(job, last.name, outcome.base, "joined", tuple(p.name for p in last.points))
            if have >= set(job.points):
                return Submitted(job, last.name, outcome.base, "finished", job.points)
            resume = {point.name: point.partial for point in outcome.points if point.partial} | resume
            if same_job:
                attempt = last.attempt + 1
                points = tuple(name for name in job.points if name not in have)
        if jobs.create(job.namespace, workflow_of(job, attempt, points, resume)):
            return Submitted(job, attempt_name(job.name, attempt), job.name, "submitted", points, attempt)
        # Another client created one of that name first: read what it submitted.
    raise ScepsyError(
        f"{attempt_name(job.name, attempt)} in namespace {job.namespace} of {jobs.place} is not a Scepsy job",
        "check it (kubectl get workflow), and delete it if it is not needed",
    )


def check(jobs: Jobs, wanted: Iterable[Job]) -> None:
    """Have the server check all jobs before any of them is created.

    Raises:
        ScepsyError: it would refuse one.
    """
    for job in wanted:
        jobs.check_installed(job.namespace)
        jobs.create(job.namespace, workflow_of(job), dry_run=True)


def submit_all(jobs: Jobs, wanted: Sequence[Job], line: Print) -> list[Submitted]:
    """Have the server check all jobs, then submit each; `line` gets one line per job.

    Raises:
        ScepsyError: the cluster refuses one, or cannot be reached.
    """
    check(jobs, wanted)
    submitted = []
    for job in wanted:
        one = submit_job(jobs, job)
        hours = sum(point.gpu_hours for point in job.sweep.points if point_name(point.shape) in one.points)
        about = f"{job.sweep.model} on {job.sweep.product}, {_points(one.points)}"
        match one.how:
            case "submitted":
                retry = f"; attempt {one.attempt}, for points that failed" if one.attempt > 1 else ""
                line(f"submitted  {one.name}: {about}, about {hours:.2g} GPU-hours{retry}")
            case "joined":
                line(f"joined     {one.name}: {about}; already running")
            case "finished":
                line(f"finished   {one.name}: {about}; already measured")
        submitted.append(one)
    return submitted


def _points(names: Sequence[str]) -> str:
    return f"{len(names)} point{'s' if len(names) != 1 else ''} ({' '.join(names)})"


def submit_missing(target: Target, notice: Print) -> list[str]:
    """Submit jobs for the measurements that a cluster lacks, or join running ones; return one line for each.

    Raises:
        ScepsyError: the project is invalid, or the cluster refuses or cannot be reached.
    """
    wanted = jobs_to_submit(target)
    lines = list(wanted.left_out)
    if wanted.jobs:
        submit_all(target.connect(notice), wanted.jobs, lines.append)
    return lines
