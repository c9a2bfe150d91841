"""Collecting the results of finished jobs."""

from __future__ import annotations

from scepsy.profiling.jobs.argo_client import Jobs
from scepsy.profiling.jobs.following import counted
from scepsy.profiling.jobs.output import Output
from scepsy.profiling.jobs.profile_files import keep
from scepsy.profiling.jobs.results import Outcome, outcomes_of
from scepsy.profiling.jobs.target import Target
from scepsy.profiling.jobs.workflow import LABELS
from scepsy.repository.project import open_project


def collect(target: Target, branch: str | None, output: Output) -> None:
    """Keep the results of finished jobs.

    Args:
        target: the cluster.
        branch: for the Profiles; None for one named after them.
        output: where messages go.

    Raises:
        ScepsyError: the project is invalid, the cluster refuses or cannot be reached, or the branch cannot be made.
    """
    workspace, _ = open_project(target.project, needs_profiles=False)
    cluster = target.cluster_name(workspace)
    jobs = target.connect(output.notice)
    project = workspace.project.document
    outcomes = jobs_of_project(jobs, project.spec.profiling.namespace, project.metadata.name, cluster)
    if not outcomes:
        output.result(
            f"Nothing to collect: {jobs.place} has no jobs of project {project.metadata.name} for cluster {cluster}."
        )
        return
    for outcome in outcomes:
        if not outcome.finished:
            output.result(f"still running: {outcome.last.name}: {counted([outcome])}")
    finished = []
    for outcome in (outcome for outcome in outcomes if outcome.finished):
        engine = project.spec.engine.version
        if outcome.request.engine != engine:
            output.result(
                f"not collected: {outcome.base}: measured with vLLM {outcome.request.engine}, the project uses {engine}"
            )
            continue
        finished.append(outcome)
        for point in outcome.lacking:
            output.notice(f"failed: {outcome.base} {point.name}: {point.reason}")
    keep(target, finished, branch, output)


def jobs_of_project(jobs: Jobs, namespace: str, project: str, cluster: str) -> list[Outcome]:
    """Return the outcomes of all jobs of a project for a cluster.

    Raises:
        ScepsyError: the cluster refuses, or cannot be reached.
    """
    labels = ",".join(f"{key}={value}" for key, value in LABELS.items())
    return [
        outcome
        for outcome in outcomes_of(jobs.find(namespace, labels))
        if (outcome.request.project, outcome.request.cluster) == (project, cluster)
    ]
