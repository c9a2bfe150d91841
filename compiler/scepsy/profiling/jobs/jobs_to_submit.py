"""Which jobs to submit: one for each sweep of measurements that a cluster lacks."""

from __future__ import annotations

from dataclasses import dataclass

from scepsy.demand.job_calls import JobCalls
from scepsy.demand.replay import calls_of
from scepsy.documents import Workspace
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.target import Target
from scepsy.profiling.jobs.workflow import Job, job_of, point_name
from scepsy.profiling.planning import plan_profiles
from scepsy.repository import WorkTree
from scepsy.repository.outputs import previous_plans
from scepsy.repository.project import open_project


@dataclass(frozen=True)
class JobsToSubmit:
    """The jobs to submit.

    Attributes:
        workspace: the project.
        tree: the Git work tree around it, if any.
        jobs: the jobs.
        left_out: what cannot be measured now, one line each.
    """

    workspace: Workspace
    tree: WorkTree | None
    jobs: tuple[Job, ...]
    left_out: tuple[str, ...]


def jobs_to_submit(target: Target) -> JobsToSubmit:
    """Return the jobs for the measurements that a cluster lacks.

    Raises:
        ScepsyError: the project is invalid, or no job can be made.
    """
    workspace, tree = open_project(target.project, needs_profiles=False)
    name = target.cluster_name(workspace)
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
        architecture = known.get(sweep.model)
        weights = round(architecture.parameters * architecture.bytes_per_parameter) if architecture else None
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
    return JobsToSubmit(workspace, tree, tuple(jobs), tuple(left_out))
