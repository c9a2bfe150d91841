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
            "Say which measurements the workflows and a cluster still need, and which profiles are stale.",
        ),
        "submit": (
            "scepsy.cli.profile.submit",
            "Have the cluster measure what is missing: one Argo Workflow per model, GPU product and token mix.",
        ),
        "collect": (
            "scepsy.cli.profile.collect",
            "Commit the Profiles of finished jobs on a branch, before their time to live ends.",
        ),
        "run": (
            "scepsy.cli.profile.run",
            "Measure a vLLM server with recorded calls, and write a Profile.",
        ),
        "import": (
            "scepsy.cli.profile.import_",
            "Import results of `vllm bench serve` and directories of `vllm bench sweep` as a Profile.",
        ),
        "estimate": (
            "scepsy.cli.profile.estimate",
            "Estimate profiles of MODELs from tables of kernels, without a GPU (needs scepsy[estimate]).",
        ),
        "show": (
            "scepsy.cli.profile.show",
            "Show what is known of how fast MODEL runs: measured and estimated curves, and how far they differ.",
        ),
    },
)
def command() -> None:
    """Find out how fast models run: measure, estimate, import, and show."""
