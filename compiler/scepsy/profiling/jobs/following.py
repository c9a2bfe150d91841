"""Following jobs: polling them until they are over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.argo_client import Jobs
from scepsy.profiling.jobs.output import Output, ShowProgress
from scepsy.profiling.jobs.results import DONE, Outcome, outcomes_of
from scepsy.profiling.jobs.submit import Submitted
from scepsy.profiling.jobs.target import Target
from scepsy.profiling.jobs.workflow import SWEEP
from scepsy.remote_api.retry import CLOCK, Clock

POLL = 10.0
"""Seconds between two requests for the state of running jobs."""
ABSENT = 600.0
"""Seconds for which the cluster may be unreachable while jobs are followed: its API server may be upgraded."""


class TimeIsUp(ScepsyError):
    """The jobs did not end within the timeout."""


class Gone(ScepsyError):
    """A Workflow no longer exists."""


def follow(
    jobs: Jobs,
    submitted: Sequence[Submitted],
    show: ShowProgress,
    timeout: float,
    clock: Clock = CLOCK,
) -> list[Outcome]:
    """Wait until jobs are over.

    Args:
        jobs: the cluster.
        submitted: what to wait for.
        show: gets the state of all after every poll.
        timeout: seconds.
        clock: gives the time, and waits.

    Returns:
        The outcome of each, in order; two submissions with the same Workflow have one outcome.

    Raises:
        TimeIsUp: not within the timeout.
        Gone: one of them no longer exists.
        ScepsyError: the cluster refuses, or is unreachable for longer than `ABSENT`.
    """
    until = clock.now() + timeout
    jobs.patience = min(ABSENT, timeout)
    digests = sorted({one.job.digest for one in submitted})
    # At most 20 in one request: a selector is part of the address.
    parts = [digests[i : i + 20] for i in range(0, len(digests), 20)]
    namespace = submitted[0].job.namespace
    while True:
        workflows = [w for part in parts for w in jobs.find(namespace, f"{SWEEP} in ({','.join(part)})")]
        by_name = {outcome.base: outcome for outcome in outcomes_of(workflows)}
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


def wait_for(
    jobs: Jobs, submitted: Sequence[Submitted], timeout: float, target: Target, output: Output
) -> list[Outcome]:
    """Wait for jobs and show their progress; on any error the jobs continue, and the hint says how to collect.

    Raises:
        ScepsyError: as `follow`, or interrupted.
    """
    hint = f"collect the results later: {target.command('profile collect')}"
    try:
        with output.progress() as show:
            return follow(jobs, submitted, show, timeout)
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


def counted(outcomes: Iterable[Outcome]) -> str:
    """Return how many points are in which state, in the order of a point's life; states without points are left out."""
    count = dict.fromkeys(("waiting", "running", *DONE, "failed"), 0)
    for point in (point for outcome in outcomes for point in outcome.points):
        count[point.state] += 1
    return ", ".join(f"{number} {state}" for state, number in count.items() if number)
