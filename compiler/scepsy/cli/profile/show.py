"""`scepsy profile show`: measured and estimated curves of a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from rich.console import Console

from scepsy.cli.options import project_option
from scepsy.documents import Profile
from scepsy.report.profile_comparison import known_of
from scepsy.report.profile_page import page
from scepsy.report.profile_selection import profiles_of, replayed_groups
from scepsy.report.profile_terminal import LEAST, MOST, show_profiles
from scepsy.repository.partial_project import read_part
from scepsy.repository.single_file import checked_target, write_at_once

_PIPE = 100
"""Columns where the terminal's width is unknown."""


@click.command("show")
@click.argument("model")
@click.option("--product", metavar="PRODUCT", help="Only profiles of this GPU product.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write a page with the curves and all points."
)
@project_option
def command(model: str, product: str | None, html: Path | None, project: Path) -> None:
    """Show measured and estimated curves of MODEL."""
    home = read_part(project, Profile)
    profiles = profiles_of(home, model, product)
    page_to = checked_target(html, "--html", [home.folder]) if html is not None else None
    known = known_of(
        profiles[0].spec.model, home.project.document.spec.engine.version, profiles, replayed_groups(home, profiles)
    )
    show_profiles(_console(), known, "" if page_to else "; --html FILE shows all of them")
    for problem in home.problems:
        click.echo(f"warning: {problem}", err=True)
    if page_to is not None:
        write_at_once(page_to, page(known).encode())
        click.echo(f"Wrote {page_to}")


def _console() -> Console:
    console = Console(highlight=False)
    width = console.width if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE
    return Console(highlight=False, width=max(LEAST, min(width, MOST)))
