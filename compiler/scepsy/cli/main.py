"""The `scepsy` command: its group, and how a run ends."""

from __future__ import annotations

import io
import os
import sys

import click

from scepsy import __version__
from scepsy.cli.exit_codes import ERROR
from scepsy.cli.lazy import LazyGroup
from scepsy.errors import ScepsyError


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    lazy={
        "init": ("scepsy.cli.init", "Start a project in DIRECTORY: a Git repository with scepsy.yaml."),
        "compile": ("scepsy.cli.compile", "Compile the project's workflows into a Plan and manifests."),
        "explain": (
            "scepsy.cli.explain",
            "Explain the allocation: latency shares, bottleneck, next-best options, other budgets.",
        ),
        "drift": (
            "scepsy.cli.drift",
            "Compare the committed Plan with traffic, nodes, live objects and profiles.",
        ),
        "schema": ("scepsy.cli.schema", "Print the JSON Schema of KIND, or the list of kinds."),
        "trace": (
            "scepsy.cli.trace.group",
            "Record the LLM calls of a workflow, import them from other tools, and see what they demand.",
        ),
        "profile": (
            "scepsy.cli.profile.group",
            "Measure, estimate, import and show how fast models run.",
        ),
        "cluster": ("scepsy.cli.cluster.group", "Read a live cluster."),
    },
)
@click.version_option(__version__, prog_name="scepsy")
def command() -> None:
    """Compile agentic workflows into Kubernetes manifests that share GPUs among their LLMs."""


def _print_error(error: ScepsyError) -> None:
    """Print an error; control characters that came from a server or a file do nothing to the terminal."""
    from scepsy.documents.diagnostics import printable  # noqa: PLC0415 - slow to import

    click.echo("\n".join(printable(line) for line in f"error: {error}".split("\n")), err=True)


def main() -> None:
    """Run the command line; every error a user can cause ends as a message and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(command.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
    except click.ClickException as error:
        error.show()
    except ScepsyError as error:
        _print_error(error)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        click.echo(f"error: {error.strerror or error}: {error.filename or 'standard output'}", err=True)
        os._exit(ERROR)  # what is left in the buffer of a full disk cannot be written at exit either
    sys.exit(ERROR)
