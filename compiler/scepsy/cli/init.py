"""`scepsy init`: a new project, and the files that a platform team installs."""

from __future__ import annotations

from pathlib import Path

import click

from scepsy.cli.init_gitops import add
from scepsy.repository.new_project import create, examples


def _list_examples(context: click.Context, parameter: click.Parameter, example: str | None) -> str | None:
    """Print the examples and end, if the name is `list`."""
    if example == "list":
        for name, about in examples().items():
            click.echo(f"{name:18} {about}")
        context.exit()
    return example


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--example",
    is_eager=True,  # `list` needs no DIRECTORY
    callback=_list_examples,
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
    "Also works in an existing project; no file of it is changed.",
)
def command(directory: Path, example: str | None, gitops: bool) -> None:
    """Start a project in DIRECTORY: a Git repository with scepsy.yaml."""
    lines: list[str] = []
    if example is not None or not gitops or not (directory / "scepsy.yaml").exists():
        lines += create(directory, example)
    if gitops:
        lines += add(directory)
    for line in lines:
        click.echo(line)
