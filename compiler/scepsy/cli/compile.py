"""`scepsy compile`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from scepsy.cli.exit_codes import OUT_OF_DATE
from scepsy.cli.options import DURATION, output_option, project_option
from scepsy.cli.output import console, print_json, reporting
from scepsy.cli.profile.job_progress import job_output
from scepsy.documents import API_VERSION
from scepsy.documents.command_results import CompileResult
from scepsy.profiling.jobs.measure import measure_then_compile
from scepsy.profiling.jobs.target import Target
from scepsy.publishing.build import build_here
from scepsy.publishing.publish import Destination, publish
from scepsy.report.compile_terminal import show_compile


@click.command("compile")
@project_option
@click.option("--cluster", metavar="NAME", help="Only this cluster; all of them if not given.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 2 when the committed output is out of date.")
@click.option("--commit", is_flag=True, help="Commit what was written.")
@click.option(
    "--push", is_flag=True, help="Push the commit; when the remote moved, compile on top of it. Never forces."
)
@click.option("--branch", metavar="NAME", help="For --push: a branch for the output alone, such as environments/prod.")
@click.option("--remote", metavar="NAME", help="For --push: the remote; the one git would push to if not given.")
@click.option("--repository", metavar="URL", help="For --push: another repository, for the output alone.")
@click.option("--force", is_flag=True, help="Overwrite output files that were edited by hand.")
@click.option("--profile", "measure", is_flag=True, help="First measure what is missing on the cluster, and commit it.")
@click.option("--timeout", type=DURATION, default="24h", show_default=True, help="How long --profile may wait.")
@click.option("--context", metavar="NAME", help="For --profile: context of the kubeconfig.")
@click.option("--argo-server", metavar="URL", help="For --profile: reach Argo through its server (token: ARGO_TOKEN).")
@output_option("CompileResult")
def command(
    project: Path,
    cluster: str | None,
    check: bool,
    commit: bool,
    push: bool,
    branch: str | None,
    remote: str | None,
    repository: str | None,
    force: bool,
    measure: bool,
    timeout: float,
    context: str | None,
    argo_server: str | None,
    output: str,
) -> None:
    """Compile the project's workflows into a Plan and manifests.

    Exit codes: 0 done (or up to date), 1 error, 2 out of date (with --check).
    """
    destination = Destination(remote, branch, repository)
    _check_options(check, commit, push, force, measure, destination)
    if (context or argo_server) and not measure:
        raise click.UsageError("--context and --argo-server are for --profile")

    def compiled() -> CompileResult:
        if push:
            return publish(project, cluster, destination, force)
        return build_here(project, cluster, check, commit, force)

    def work() -> CompileResult:
        if not measure:
            return compiled()
        target = Target(project, cluster, context, argo_server)
        return measure_then_compile(target, timeout, commit, compiled, job_output())

    result = reporting(
        work, output, lambda failure: CompileResult(api_version=API_VERSION, checked=check, error=failure)
    )
    if output == "json":
        print_json(result)
    else:
        show_compile(console(), result)
    if check and (result.gone or not all(c.up_to_date for c in result.clusters)):
        sys.exit(OUT_OF_DATE)


def _check_options(check: bool, commit: bool, push: bool, force: bool, measure: bool, destination: Destination) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: they do.
    """
    if check and (commit or force):
        raise click.UsageError("--check writes nothing, so it cannot go with --commit or --force")
    if check and measure:
        raise click.UsageError("--check writes nothing, so it cannot go with --profile")
    if push and not commit:
        raise click.UsageError("--push pushes the commit, so it needs --commit")
    if destination != Destination() and not push:
        raise click.UsageError("--branch, --remote and --repository are for --push")
    if destination.remote is not None and destination.repository is not None:
        raise click.UsageError("--remote and --repository both name a destination: pass only one")
