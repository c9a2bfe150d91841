"""`scepsy cluster …`: what the live cluster has."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def cluster() -> None:
    """Look at a live cluster."""


@cluster.command()
@click.argument("name", required=False)
@click.option("--write", is_flag=True, help="Write the document into the project; only what differs is changed.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig; its current one by default.")
@click.option(
    "--topology",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Which GPUs NVLink connects: per node a line `node: NAME`, nvidia-smi -L and nvidia-smi topo -m.",
)
@click.option("--project", type=click.Path(path_type=Path), default=Path(), help="Directory with scepsy.yaml.")
def discover(name: str | None, write: bool, context: str | None, topology: Path | None, project: Path) -> None:
    """Print the Cluster document NAME as the live cluster has it; with --write, keep it in the project.

    Comments, layout and settings of a document that is there stay: only nodes, GPUs, products, memory and the
    version of Kubernetes are taken from the cluster.
    """
    from scepsy.cli.cluster.discover import run

    run(name, write, context, topology, project)
