"""Options that several commands share, and types of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scepsy.documents.units import parse_duration

C = TypeVar("C", bound=Callable[..., Any])


if TYPE_CHECKING:
    FloatType = click.ParamType[float]
else:  # generic since click 8.4 only
    FloatType = click.ParamType


class Duration(FloatType):
    """A duration with its unit, such as `30min`; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; a usage error that names the option if it is not a duration."""
        try:
            return value if isinstance(value, float) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()

project_option = click.option(
    "--project",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current directory",
    help="Directory with scepsy.yaml.",
)
cluster_option = click.option("--cluster", metavar="NAME", help="The cluster; needed when the project has several.")
context_option = click.option(
    "--context", metavar="NAME", help="Context of the kubeconfig; its current one by default."
)
argo_server_option = click.option(
    "--argo-server",
    metavar="URL",
    help="Reach Argo through its server instead (ARGO_SERVER); its token is read from ARGO_TOKEN.",
)


def output_option(kind: str) -> Callable[[C], C]:
    """Return the option `--output` of a command.

    Args:
        kind: what it prints as JSON.
    """
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help=f"How to print the result; json prints one versioned object (scepsy schema {kind}).",
    )
