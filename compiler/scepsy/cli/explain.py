"""`scepsy explain`."""

from __future__ import annotations

from pathlib import Path

import click

from scepsy.cli.options import cluster_option, output_option, project_option
from scepsy.cli.output import console, print_json, reporting
from scepsy.compilation import compile_plan
from scepsy.documents import API_VERSION, did_you_mean
from scepsy.documents.command_results import ExplainResult
from scepsy.errors import ScepsyError
from scepsy.explanation import explain
from scepsy.report import show_explanation
from scepsy.repository.outputs import previous_plans
from scepsy.repository.project import open_project


@click.command("explain")
@click.argument("workflow", required=False)
@project_option
@cluster_option
@output_option("ExplainResult")
def command(workflow: str | None, project: Path, cluster: str | None, output: str) -> None:
    """Explain the allocation: latency shares, bottleneck, next-best options, other budgets."""
    result = reporting(
        lambda: _explained(project, cluster, workflow),
        output,
        lambda failure: ExplainResult(api_version=API_VERSION, error=failure),
    )
    if output == "json":
        print_json(result)
    else:
        show_explanation(console(), result)


def _explained(project: Path, cluster: str | None, workflow: str | None) -> ExplainResult:
    workspace, tree = open_project(project)
    cluster = workspace.one_cluster(cluster)
    if workflow is not None and workflow not in workspace.workflows:
        raise ScepsyError(f'there is no workflow "{workflow}"', did_you_mean(workflow, list(workspace.workflows)))
    return explain(compile_plan(workspace, cluster, previous_plans(workspace, tree, cluster)), workflow)
