"""`scepsy drift`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from scepsy.cli.exit_codes import OUT_OF_DATE
from scepsy.cli.options import cluster_option, output_option, project_option
from scepsy.cli.output import console, print_json, reporting
from scepsy.documents import API_VERSION
from scepsy.documents.drift_result import DriftResult
from scepsy.errors import ScepsyError
from scepsy.reconcile.check import Lookout, Options
from scepsy.reconcile.recompile import How, Recompilation
from scepsy.reconcile.watch import watch as run_watch
from scepsy.reconcile.watch import watching
from scepsy.report.drift_terminal import show_drift


@click.command("drift")
@project_option
@cluster_option
@click.option(
    "--prometheus",
    metavar="URL",
    envvar="PROMETHEUS_URL",
    help="Prometheus that scrapes the engines and the gateway (token: PROMETHEUS_TOKEN or PROMETHEUS_TOKEN_FILE).",
)
@click.option(
    "--match",
    metavar="LABEL=VALUE",
    multiple=True,
    help="A label that the series must have; may be repeated. namespace is the plan's unless given.",
)
@click.option("--window", metavar="TIME", default="1h", show_default=True, help="Time that is read as it was scraped.")
@click.option(
    "--alarms", metavar="RATE", default="1/10000h", show_default=True, help="False alarms that are allowed, over all."
)
@click.option(
    "--below", metavar="TIME", default="24h", show_default=True, help="How long a load must be too low; or never."
)
@click.option("--profiles-older-than", "older", metavar="TIME", help="Find profiles measured longer ago, such as 180d.")
@click.option("--context", metavar="NAME", help="Look at nodes and objects of this context of the kubeconfig too.")
@click.option(
    "--application", metavar="[NAMESPACE/]NAME", help="The Argo CD Application (namespace argocd if not given)."
)
@click.option("--recompile", is_flag=True, help="Compile again with what was observed, where that is worth it.")
@click.option("--push", is_flag=True, help="With --recompile: commit and push it, on top of whatever others push.")
@click.option(
    "--pull-request", is_flag=True, help="With --recompile: push it to a branch of its own, and open a pull request."
)
@click.option("--watch", is_flag=True, help="Look again and again, until SIGTERM.")
@click.option(
    "--interval",
    metavar="TIME",
    default="60s",
    show_default=True,
    help="Time between looks; changes of nodes are looked at at once.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="With --watch: where /metrics is served.",
)
@output_option("DriftResult")
def command(
    project: Path,
    cluster: str | None,
    prometheus: str | None,
    match: tuple[str, ...],
    window: str,
    alarms: str,
    below: str,
    older: str | None,
    context: str | None,
    application: str | None,
    recompile: bool,
    push: bool,
    pull_request: bool,
    watch: bool,
    interval: str,
    listen: str,
    output: str,
) -> None:
    """Compare the committed Plan with the world: traffic, nodes, live objects, profiles.

    Exit codes: 0 no drift, 1 error (or not all could be looked at, and nothing was found), 2 drift.
    """
    if (push or pull_request) and not recompile:
        raise click.UsageError("--push and --pull-request are for --recompile")
    if push and pull_request:
        raise click.UsageError("--push and --pull-request both say what becomes of a compile: give one")

    def show(result: DriftResult) -> None:
        if output == "json":
            print_json(result)
        else:
            show_drift(console(), result)

    options = Options(project, cluster, prometheus, match, window, alarms, below, older, context, application)
    how: How = "push" if push else "propose" if pull_request else "write"
    recompilation = Recompilation(project, how, context) if recompile else None
    if watch:
        run_watch(project, Lookout(options), recompilation, watching(interval, listen), show)
        return

    def work() -> DriftResult:
        looked = Lookout(options).look()
        return looked.result if recompilation is None else recompilation.answer(looked)

    result = reporting(
        work, output, lambda failure: DriftResult(api_version=API_VERSION, cluster=cluster or "", error=failure)
    )
    show(result)
    if result.error is not None:
        raise ScepsyError(result.error.message, result.error.hint)
    if result.drift:
        sys.exit(OUT_OF_DATE)
