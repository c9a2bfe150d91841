"""`scepsy profile collect`."""

from __future__ import annotations

from pathlib import Path

import click

from scepsy.cli.options import argo_server_option, cluster_option, context_option, project_option
from scepsy.cli.profile.job_progress import job_output
from scepsy.profiling.jobs.collect import collect
from scepsy.profiling.jobs.target import Target


@click.command("collect")
@cluster_option
@context_option
@argo_server_option
@click.option("--branch", metavar="NAME", help="Branch for the Profiles; profiles/DIGEST by default.")
@project_option
def command(
    cluster: str | None, context: str | None, argo_server: str | None, branch: str | None, project: Path
) -> None:
    """Commit the Profiles of finished jobs on a branch."""
    collect(Target(project, cluster, context, argo_server), branch, job_output())
