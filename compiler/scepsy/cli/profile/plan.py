"""`scepsy profile plan`."""

from __future__ import annotations

from pathlib import Path

import click

from scepsy.cli.options import cluster_option, output_option, project_option
from scepsy.cli.output import console, print_json, reporting
from scepsy.documents import API_VERSION, Workspace
from scepsy.documents.profile_plan_result import (
    CoveredShape,
    MeasuredMix,
    MissingShape,
    PlannedSweep,
    ProfilePlanResult,
    RuledOutShape,
    StaleProfile,
    WorkflowLlm,
)
from scepsy.profiling.planning import ProfilePlan, Sweep, plan_profiles
from scepsy.report.profile_plan_terminal import show_profile_plan
from scepsy.repository.project import open_project


@click.command("plan")
@cluster_option
@project_option
@output_option("ProfilePlanResult")
def command(cluster: str | None, project: Path, output: str) -> None:
    """List missing measurements and stale profiles."""
    result = reporting(
        lambda: _planned(project, cluster),
        output,
        lambda failure: ProfilePlanResult(api_version=API_VERSION, error=failure),
    )
    if output == "json":
        print_json(result)
    else:
        show_profile_plan(console(), result)


def _planned(project: Path, cluster: str | None) -> ProfilePlanResult:
    workspace, _ = open_project(project, needs_profiles=False)
    return result_of(workspace, plan_profiles(workspace, workspace.one_cluster(cluster)))


def result_of(workspace: Workspace, plan: ProfilePlan) -> ProfilePlanResult:
    """Return a plan as what is printed."""
    settings = workspace.project.document.spec
    return ProfilePlanResult(
        api_version=API_VERSION,
        cluster=plan.cluster,
        engine=settings.engine.version,
        budget=settings.profiling.budget,
        image=settings.profiling.image,
        gpu_hours=round(plan.gpu_hours, 3),
        sweeps=tuple(_sweep(sweep) for sweep in plan.sweeps),
        covered=tuple(
            CoveredShape(
                model=row.model,
                product=row.product,
                llm=row.llm,
                tp=row.shape.tp,
                share=row.shape.share,
                profile=row.profile,
            )
            for row in plan.covered
        ),
        ruled_out=tuple(
            RuledOutShape(
                model=row.model,
                product=row.product,
                llm=row.llm,
                tp=row.shape.tp,
                share=row.shape.share,
                reason=row.reason,
            )
            for row in plan.ruled_out
        ),
        stale=tuple(StaleProfile(profile=row.profile, reason=row.reason) for row in plan.stale),
        memory_unknown=plan.memory_unknown,
    )


def _sweep(sweep: Sweep) -> PlannedSweep:
    return PlannedSweep(
        model=sweep.model,
        revision=sweep.revision,
        product=sweep.product,
        llm=sweep.llm,
        workflow=sweep.workflow,
        mix=MeasuredMix(input=sweep.mix.input, output=sweep.mix.output, cached=sweep.mix.cached),
        max_num_seqs=sweep.max_num_seqs,
        max_model_len=sweep.max_model_len,
        serves=tuple(WorkflowLlm(workflow=workflow, llm=llm) for workflow, llm in sweep.roles),
        points=tuple(
            MissingShape(tp=point.shape.tp, share=point.shape.share, why=point.why, gpu_hours=point.gpu_hours)
            for point in sweep.points
        ),
        gpu_hours=round(sweep.gpu_hours, 3),
    )
