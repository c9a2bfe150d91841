"""`scepsy profile submit`."""

from __future__ import annotations

from pathlib import Path

import click

from scepsy.cli.options import DURATION, argo_server_option, cluster_option, context_option, project_option
from scepsy.cli.profile.job_progress import job_output
from scepsy.profiling.jobs.measure import submit
from scepsy.profiling.jobs.target import Target


@click.command("submit")
@cluster_option
@click.option("--wait", is_flag=True, help="Wait for the results, and commit the Profiles on a branch.")
@click.option("--dry-run", is_flag=True, help="Print the Workflows; contact no server.")
@click.option("--timeout", type=DURATION, default="24h", show_default=True, help="How long to wait.")
@context_option
@argo_server_option
@click.option("--branch", metavar="NAME", help="Branch for the Profiles; profiles/DIGEST by default.")
@project_option
def command(
    cluster: str | None,
    wait: bool,
    dry_run: bool,
    timeout: float,
    context: str | None,
    argo_server: str | None,
    branch: str | None,
    project: Path,
) -> None:
    """Measure what is missing on the cluster, with Argo Workflows.

    A job that runs already is joined; of a failed job, only the points that failed are measured again.
    """
    if dry_run and wait:
        raise click.UsageError("--dry-run submits nothing, so it excludes --wait")
    if branch is not None and not wait:
        raise click.UsageError("--branch is for the results, so it needs --wait")
    submit(Target(project, cluster, context, argo_server), wait, dry_run, timeout, branch, job_output())
