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
from scepsy.reconcile.check import Checker
from scepsy.reconcile.options import Options
from scepsy.reconcile.recompile import How, Recompilation
from scepsy.reconcile.watch import Reporting, watching
from scepsy.reconcile.watch import watch as run_watch
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
    help="A label that the series must have; may be repeated. Default: namespace of the plan.",
)
@click.option(
    "--window",
    metavar="TIME",
    default="1h",
    show_default=True,
    help="Lookback window read at full scrape resolution.",
)
@click.option(
    "--false-alarm-rate",
    metavar="RATE",
    default="1/10000h",
    show_default=True,
    help="Accepted false alarms, over all tests.",
)
@click.option("--alarms", metavar="RATE", hidden=True, help="Deprecated: --false-alarm-rate.")
@click.option(
    "--low-load-after",
    metavar="TIME",
    default="24h",
    show_default=True,
    help="How long a load must be too low to be reported; or never.",
)
@click.option("--below", metavar="TIME", hidden=True, help="Deprecated: --low-load-after.")
@click.option("--profiles-older-than", "older", metavar="TIME", help="Report profiles that are older, such as 180d.")
@click.option("--context", metavar="NAME", help="Check nodes and objects of this context of the kubeconfig too.")
@click.option(
    "--application", metavar="[NAMESPACE/]NAME", help="The Argo CD Application (namespace argocd if not given)."
)
@click.option("--recompile", is_flag=True, help="Compile again with the observed values, if that is worthwhile.")
@click.option("--push", is_flag=True, help="With --recompile: commit the result on top of the remote, and push it.")
@click.option(
    "--pull-request", is_flag=True, help="With --recompile: push the result to a new branch, and open a pull request."
)
@click.option("--watch", is_flag=True, help="Check again and again, until SIGTERM.")
@click.option(
    "--interval",
    metavar="TIME",
    default="60s",
    show_default=True,
    help="Time between checks; a change of a node triggers one at once.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="With --watch: address that serves /metrics.",
)
@output_option("DriftResult")
def command(
    project: Path,
    cluster: str | None,
    prometheus: str | None,
    match: tuple[str, ...],
    window: str,
    false_alarm_rate: str,
    alarms: str | None,
    low_load_after: str,
    below: str | None,
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
    """Compare the committed Plan with traffic, nodes, live objects and profiles.

    Exit codes: 0 no drift, 1 error (or no findings, but not everything could be checked), 2 drift.
    """
    if (push or pull_request) and not recompile:
        raise click.UsageError("--push and --pull-request need --recompile")
    if push and pull_request:
        raise click.UsageError("--push and --pull-request exclude each other")

    def show(result: DriftResult) -> None:
        if output == "json":
            print_json(result)
        else:
            show_drift(console(), result)

    false_alarm_rate, low_load_after = alarms or false_alarm_rate, below or low_load_after
    options = Options(
        project, cluster, prometheus, match, window, false_alarm_rate, low_load_after, older, context, application
    )
    how: How = "push" if push else "propose" if pull_request else "write"
    recompilation = Recompilation(project, how, context) if recompile else None
    if watch:
        reports = Reporting(show, lambda line: click.echo(line, err=True))
        run_watch(project, Checker(options), recompilation, watching(interval, listen), reports)
        return

    def work() -> DriftResult:
        checked = Checker(options).check()
        return checked.document if recompilation is None else recompilation.act_on(checked)

    result = reporting(
        work, output, lambda failure: DriftResult(api_version=API_VERSION, cluster=cluster or "", error=failure)
    )
    show(result)
    if result.error is not None:
        raise ScepsyError(result.error.message, result.error.hint)
    if result.drift:
        sys.exit(OUT_OF_DATE)
