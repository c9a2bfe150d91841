"""`scepsy cluster`: the list of its commands."""

from __future__ import annotations

import click

from scepsy.cli.lazy import LazyGroup


@click.group(
    "cluster",
    cls=LazyGroup,
    lazy={
        "discover": ("scepsy.cli.cluster.discover", "Print the Cluster document NAME, updated from the live cluster.")
    },
)
def command() -> None:
    """Read a live cluster."""
