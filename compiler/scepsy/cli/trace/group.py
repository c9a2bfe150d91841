"""`scepsy trace`: the list of its commands."""

from __future__ import annotations

import click

from scepsy.cli.lazy import LazyGroup


@click.group(
    "trace",
    cls=LazyGroup,
    lazy={
        "record": (
            "scepsy.cli.trace.record",
            "Forward calls to OpenAI-compatible servers byte for byte, and write one line per call.",
        ),
        "import": ("scepsy.cli.trace.import_", "Turn exports of other tools into a trace of the workflow."),
        "stats": (
            "scepsy.cli.trace.stats",
            "Show the demand per execution in FILE, its confidence intervals, and how much executions differ.",
        ),
    },
)
def command() -> None:
    """Record the LLM calls of a workflow, import them from other tools, and see what they demand."""
