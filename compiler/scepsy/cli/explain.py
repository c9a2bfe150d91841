"""`scepsy explain`."""

from __future__ import annotations

from pathlib import Path

from scepsy.cli.compile import open_project
from scepsy.compilation import compile_plan
from scepsy.documents import did_you_mean
from scepsy.documents.command_results import ExplainResult
from scepsy.errors import ScepsyError
from scepsy.explanation import explain
from scepsy.repository.outputs import previous_plans


def run(project: Path, cluster: str | None, workflow: str | None) -> ExplainResult:
    """Compile one cluster and explain the result; nothing is written.

    Raises:
        ScepsyError: the documents are wrong, or a name is unknown.
    """
    workspace, tree = open_project(project)
    if cluster is None:
        if len(workspace.clusters) > 1:
            raise ScepsyError(
                "the project has several clusters", f"name one with --cluster: {', '.join(workspace.clusters)}"
            )
        cluster = next(iter(workspace.clusters))
    if workflow is not None and workflow not in workspace.workflows:
        raise ScepsyError(f'there is no workflow "{workflow}"', did_you_mean(workflow, list(workspace.workflows)))
    return explain(compile_plan(workspace, cluster, previous_plans(workspace, tree, cluster)), workflow)
