"""Submitting jobs, and following them: who comes second joins the first, and what failed is tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.argo_client import Jobs
from scepsy.profiling.jobs.results import DONE, Outcome, outcomes_of
from scepsy.profiling.jobs.workflow import LABELS, SWEEP, Job, attempt_name, workflow_of
from scepsy.remote_api.retry import CLOCK, Clock

How = Literal["submitted", "joined", "finished"]

POLL = 10.0
"""Seconds between two looks at running jobs."""
ABSENT = 600.0
"""Seconds for which the cluster may be out of reach while jobs are followed: its API server may be renewed."""
_RACES = 5


class TimeIsUp(ScepsyError):
    """The jobs did not end within the time that the caller had."""


class Gone(ScepsyError):
    """A Workflow is no longer there."""


@dataclass(frozen=True)
class Submitted:
    """What became of a submission.

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


def submit(jobs: Jobs, job: Job) -> Submitted:
    """Submit a job, unless it runs or is done already, be it as part of another one.

    Of a finished one, only the points that lack a Profile are measured, and go on where the last attempt ended.

    Args:
        jobs: the cluster.
        job: the job.

    Raises:
        ScepsyError: the cluster refuses it, or cannot be reached.
    """
    for _ in range(_RACES):
        found = outcomes_of(jobs.find(job.namespace, f"{SWEEP}={job.digest}"))
        # Its own attempts first.
        found.sort(key=lambda outcome: outcome.base != job.name)
        attempt, points, resume = 1, job.points, dict[str, str]()
        for outcome in found:
            own = outcome.base == job.name
            last = outcome.last
            have = {point.name for point in outcome.points if point.state in DONE}
            under_way = set() if last.finished else {point.name for point in last.points}
            if under_way and (own or under_way | have >= set(job.points)):
                return Submitted(job, last.name, outcome.base, "joined", tuple(p.name for p in last.points))
            if have >= set(job.points):
                return Submitted(job, last.name, outcome.base, "finished", job.points)
            resume = {point.name: point.partial for point in outcome.points if point.partial} | resume
            if own:
                attempt = last.attempt + 1
                points = tuple(name for name in job.points if name not in have)
        if jobs.create(job.namespace, workflow_of(job, attempt, points, resume)):
            return Submitted(job, attempt_name(job.name, attempt), job.name, "submitted", points, attempt)
        # Somebody else was faster: look at what they submitted.
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


def of_project(jobs: Jobs, namespace: str, project: str, cluster: str) -> list[Outcome]:
    """Return what became of all jobs of a project for a cluster.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    labels = ",".join(f"{key}={value}" for key, value in LABELS.items())
    return [
        outcome
        for outcome in outcomes_of(jobs.find(namespace, labels))
        if (outcome.request.project, outcome.request.cluster) == (project, cluster)
    ]


def follow(
    jobs: Jobs,
    submitted: Sequence[Submitted],
    show: Callable[[Sequence[Outcome]], None],
    timeout: float,
    clock: Clock = CLOCK,
) -> list[Outcome]:
    """Wait until jobs are over.

    Args:
        jobs: the cluster.
        submitted: what to wait for.
        show: gets the state of all after every look.
        timeout: seconds.
        clock: tells the time, and waits.

    Returns:
        What became of each, in order; once where two are one.

    Raises:
        TimeIsUp: not within the time.
        Gone: one of them is no longer there.
        ScepsyError: the cluster refuses, or cannot be reached any longer.
    """
    until = clock.now() + timeout
    jobs.patience = min(ABSENT, timeout)
    digests = sorted({one.job.digest for one in submitted})
    # At most 20 in one request: a selector is part of the address.
    parts = [digests[i : i + 20] for i in range(0, len(digests), 20)]
    namespace = submitted[0].job.namespace
    while True:
        found = [w for part in parts for w in jobs.find(namespace, f"{SWEEP} in ({','.join(part)})")]
        by_name = {outcome.base: outcome for outcome in outcomes_of(found)}
        gone = [one.name for one in submitted if one.base not in by_name]
        if gone:
            raise Gone(
                f"{', '.join(gone)} no longer exists in namespace {namespace}: deleted, or its time to live ended",
                "re-run the command to measure again",
            )
        outcomes = [by_name[base] for base in dict.fromkeys(one.base for one in submitted)]
        show(outcomes)
        if all(outcome.finished for outcome in outcomes):
            return outcomes
        if clock.now() + POLL > until:
            raise TimeIsUp("--timeout expired; the jobs continue")
        clock.sleep(POLL)


def states(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Return how many points are in which state, in the order of a point's life; states of none are left out."""
    count = dict.fromkeys(("waiting", "running", *DONE, "failed"), 0)
    for point in (point for outcome in outcomes for point in outcome.points):
        count[point.state] += 1
    return {state: number for state, number in count.items() if number}
