"""The `scepsy` command.

Each command imports what it needs when it runs, so that `scepsy --help` stays quick.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scepsy import __version__
from scepsy.cli.cluster.group import cluster
from scepsy.cli.output import console, output_option, print_json, reporting
from scepsy.cli.profile.group import profile
from scepsy.cli.trace.group import trace
from scepsy.errors import ScepsyError

if TYPE_CHECKING:
    from scepsy.documents.command_results import CompileResult, ExplainResult, Failure
    from scepsy.documents.drift_result import DriftResult
    from scepsy.reconcile.recompile import How

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_PROJECT = click.option(
    "--project",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current directory",
    help="Directory with scepsy.yaml.",
)

ERROR = 1
OUT_OF_DATE = 2


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="scepsy")
def cli() -> None:
    """Compile agentic workflows into Kubernetes manifests that share GPUs among their LLMs."""


def _listing(context: click.Context, parameter: click.Parameter, example: str | None) -> str | None:
    """Print the examples where they are asked for, and end."""
    if example == "list":
        from scepsy.cli.init import examples

        for name, about in examples().items():
            click.echo(f"{name:18} {about}")
        context.exit()
    return example


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--example",
    is_eager=True,  # `list` needs no DIRECTORY
    callback=_listing,
    is_flag=False,
    flag_value="rag-reranker",
    default=None,
    metavar="[NAME]",
    help="Fill it with an example (default rag-reranker) and commit that; NAME `list` lists them.",
)
@click.option(
    "--gitops",
    is_flag=True,
    help="Add gitops/: what Argo CD, RBAC and drift checks need, and an environment for each cluster. "
    "Also for a project that is there; no file of it is changed.",
)
def init(directory: Path, example: str | None, gitops: bool) -> None:
    """Start a project in DIRECTORY: a Git repository with scepsy.yaml."""
    from scepsy.cli.init import create
    from scepsy.cli.init_gitops import add

    lines: list[str] = []
    if example is not None or not gitops or not (directory / "scepsy.yaml").exists():
        lines += create(directory, example)
    if gitops:
        lines += add(directory)
    for line in lines:
        click.echo(line)


@cli.command("compile")
@_PROJECT
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
@click.option("--timeout", metavar="DURATION", default="24h", show_default=True, help="How long --profile may wait.")
@click.option("--context", metavar="NAME", help="For --profile: context of the kubeconfig.")
@click.option("--argo-server", metavar="URL", help="For --profile: reach Argo through its server (token: ARGO_TOKEN).")
@output_option("CompileResult")
def compile_(
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
    timeout: str,
    context: str | None,
    argo_server: str | None,
    output: str,
) -> None:
    """Compile the project's workflows into a Plan and manifests.

    Exit codes: 0 done (or up to date), 1 error, 2 out of date (with --check).
    """
    if check and (commit or force):
        raise click.UsageError("--check writes nothing, so it cannot go with --commit or --force")
    if check and measure:
        raise click.UsageError("--check writes nothing, so it cannot go with --profile")
    if push and not commit:
        raise click.UsageError("--push pushes the commit, so it needs --commit")
    if (branch is not None or remote is not None or repository is not None) and not push:
        raise click.UsageError("--branch, --remote and --repository are for --push")
    if remote is not None and repository is not None:
        raise click.UsageError("--remote and --repository both say where to push: give one")
    if (context or argo_server) and not measure:
        raise click.UsageError("--context and --argo-server are for --profile")
    from scepsy.documents import API_VERSION
    from scepsy.documents.command_results import CompileResult

    def failed(failure: Failure) -> CompileResult:
        return CompileResult(api_version=API_VERSION, checked=check, error=failure)

    def compiled() -> CompileResult:
        if not push:
            from scepsy.cli.compile import run

            return run(project, cluster, check, commit, force)
        from scepsy.publishing.publish import Destination
        from scepsy.publishing.publish import run as publish

        return publish(project, cluster, Destination(remote, branch, repository), force)

    def work() -> CompileResult:
        if not measure:
            return compiled()
        from scepsy.profiling.jobs.lifecycle import Where, measured_first

        where = Where(project, cluster, context, argo_server)
        return measured_first(where, timeout, commit, compiled)

    result = reporting(work, output, failed)
    if output == "json":
        print_json(result)
    else:
        from scepsy.cli.compile import show

        show(console(), result)
    if check and (result.gone or not all(c.up_to_date for c in result.clusters)):
        sys.exit(OUT_OF_DATE)


@cli.command()
@click.argument("workflow", required=False)
@_PROJECT
@click.option("--cluster", metavar="NAME", help="The cluster; needed when the project has several.")
@output_option("ExplainResult")
def explain(workflow: str | None, project: Path, cluster: str | None, output: str) -> None:
    """Say why the allocation is as it is: latency shares, bottleneck, next-best options, other budgets."""
    from scepsy.cli.explain import run
    from scepsy.documents import API_VERSION
    from scepsy.documents.command_results import ExplainResult

    def failed(failure: Failure) -> ExplainResult:
        return ExplainResult(api_version=API_VERSION, error=failure)

    result = reporting(lambda: run(project, cluster, workflow), output, failed)
    if output == "json":
        print_json(result)
    else:
        from scepsy.report import show_explanation

        show_explanation(console(), result)


@cli.command()
@_PROJECT
@click.option("--cluster", metavar="NAME", help="The cluster; needed when the project has several.")
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
def drift(
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
    from scepsy.documents import API_VERSION
    from scepsy.documents.drift_result import DriftResult
    from scepsy.reconcile.check import Lookout, Options
    from scepsy.reconcile.recompile import Recompilation

    def failed(failure: Failure) -> DriftResult:
        return DriftResult(api_version=API_VERSION, cluster=cluster or "", error=failure)

    def show(result: DriftResult) -> None:
        if output == "json":
            print_json(result)
            return
        from scepsy.report.drift_terminal import show_drift

        show_drift(console(), result)

    options = Options(project, cluster, prometheus, match, window, alarms, below, older, context, application)
    how: How = "push" if push else "propose" if pull_request else "write"
    recompilation = Recompilation(project, how, context) if recompile else None
    if watch:
        from scepsy.reconcile.watch import watch as look_on
        from scepsy.reconcile.watch import watching

        look_on(project, Lookout(options), recompilation, watching(interval, listen), show)
        return

    def work() -> DriftResult:
        looked = Lookout(options).look()
        return looked.result if recompilation is None else recompilation.answer(looked)

    result = reporting(work, output, failed)
    show(result)
    if result.error is not None:
        raise ScepsyError(result.error.message, result.error.hint)
    if result.drift:
        sys.exit(OUT_OF_DATE)


@cli.command()
@click.argument("kind", required=False)
def schema(kind: str | None) -> None:
    """Print the JSON Schema of KIND, or the list of kinds."""
    from scepsy.documents import PUBLISHED, did_you_mean, schema_text

    if kind is None:
        width = max(map(len, PUBLISHED))
        for name, model in PUBLISHED.items():
            click.echo(f"{name:{width}} {(model.__doc__ or '').strip().splitlines()[0]}")
        return
    names = {name.lower(): name for name in PUBLISHED}
    if kind.lower() not in names:
        raise ScepsyError(f'there is no kind "{kind}"', did_you_mean(kind, list(PUBLISHED)))
    click.echo(schema_text(names[kind.lower()]), nl=False)


cli.add_command(trace)
cli.add_command(profile)
cli.add_command(cluster)


def _tell(error: ScepsyError) -> None:
    """Print an error; what of it came from a server or a file does nothing to the terminal."""
    from scepsy.documents.diagnostics import printable

    click.echo("\n".join(printable(line) for line in f"error: {error}".split("\n")), err=True)


def main() -> None:
    """Run the command line; every error a user can cause ends as a message and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
    except click.ClickException as error:
        error.show()
    except ScepsyError as error:
        _tell(error)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        click.echo(f"error: {error.strerror or error}: {error.filename or 'standard output'}", err=True)
        os._exit(ERROR)  # what is left in the buffer of a full disk cannot be written at exit either
    sys.exit(ERROR)
