"""`scepsy profile`: the list of its commands."""

from __future__ import annotations

import click

from scepsy.cli.lazy import LazyGroup


@click.group(
    "profile",
    cls=LazyGroup,
    lazy={
        "plan": (
            "scepsy.cli.profile.plan",
            "List missing measurements and stale profiles.",
        ),
        "submit": (
            "scepsy.cli.profile.submit",
            "Measure what is missing on the cluster, with Argo Workflows.",
        ),
        "collect": (
            "scepsy.cli.profile.collect",
            "Commit the Profiles of finished jobs on a branch.",
        ),
        "run": (
            "scepsy.cli.profile.run",
            "Measure a vLLM server with recorded calls, and write a Profile.",
        ),
        "import": (
            "scepsy.cli.profile.import_",
            "Import results of `vllm bench` as a Profile.",
        ),
        "estimate": (
            "scepsy.cli.profile.estimate",
            "Estimate Profiles of MODELs without a GPU.",
        ),
        "show": (
            "scepsy.cli.profile.show",
            "Show measured and estimated curves of MODEL.",
        ),
    },
)
def command() -> None:
    """Measure, estimate, import and show how fast models run."""
