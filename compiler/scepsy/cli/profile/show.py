"""`scepsy profile show`: what is known of how fast a model runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from scepsy.cli.options import project_option
from scepsy.demand import demand_of
from scepsy.documents import (
    DocumentError,
    Loaded,
    Profile,
    Workflow,
    Workspace,
    did_you_mean,
)
from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError
from scepsy.report.profile_comparison import Groups, known_of
from scepsy.report.profile_page import page
from scepsy.report.profile_terminal import LEAST, MOST, show_profiles
from scepsy.repository.partial_project import Part, read_part
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
    profiles = _chosen(home, model, product)
    page_to = checked_target(html, "--html", [home.folder]) if html is not None else None
    known = known_of(
        profiles[0].spec.model, home.project.document.spec.engine.version, profiles, _groups(home, profiles)
    )
    show_profiles(_console(), known, "" if page_to else "; --html FILE shows all of them")
    for problem in home.problems:
        click.echo(f"warning: {problem}", err=True)
    if page_to is not None:
        write_at_once(page_to, page(known).encode())
        click.echo(f"Wrote {page_to}")


def _chosen(home: Part[Profile], model: str, product: str | None) -> list[Profile]:
    everything = [loaded.document for loaded in home.documents.values()]
    if not everything:
        if home.problems:
            raise DocumentError(home.problems)
        raise ScepsyError(f"there are no profiles in {home.folder}", _how_to_get_one(model))
    models = sorted({profile.spec.model for profile in everything})
    # Few type the organisation.
    named = [name for name in models if name == model] or [name for name in models if name.endswith(f"/{model}")]
    if len(named) > 1:
        raise ScepsyError(f'"{printable(model)}" may be one of: {", ".join(named)}', "name it with its organisation")
    if not named:
        if home.problems:
            raise DocumentError(home.problems)
        near = did_you_mean(model, models + [name.rpartition("/")[2] for name in models])
        if near.startswith("did you mean"):
            hint = f"{near} Else: {_how_to_get_one(model)}"
        else:
            hint = f"there are profiles of {', '.join(models[:12])}; {_how_to_get_one(model)}"
        raise ScepsyError(f'there is no profile of the model "{printable(model)}"', hint)
    profiles = [profile for profile in everything if profile.spec.model == named[0]]
    chosen = [profile for profile in profiles if product in (None, profile.spec.product)]
    if not chosen:
        products = sorted({profile.spec.product for profile in profiles})
        raise ScepsyError(
            f'{named[0]} is not profiled on product "{printable(product or "")}"',
            did_you_mean(product or "", products),
        )
    return chosen


def _groups(home: Part[Profile], profiles: Sequence[Profile]) -> dict[str, Groups]:
    """Return the groups of the calls that were replayed, by profile, where a workflow of the project names their trace.

    Without them the page shows less, so that what is wrong with a workflow is of no matter here.
    """
    replayed = {
        profile.metadata.name: profile
        for profile in profiles
        if profile.spec.provenance.trace_digest and any(series.open_loop for series in profile.spec.series)
    }
    found: dict[str, Groups] = {}
    for workflow in _workflows(home.directory) if replayed else ():
        try:
            demand, files = demand_of(Workspace(home.root, home.directory, home.project, {}, {}, {}), workflow)
        except ScepsyError:
            continue
        for name, profile in replayed.items():
            called = [llm.name for llm in workflow.document.spec.llms if llm.model == profile.spec.model]
            # The runner notes whose calls it replayed, in its command at least; of one alone there is no doubt.
            words = (profile.spec.provenance.command or "").split()
            given = [llm for llm, option in zip(words[1:], words, strict=False) if option == "--llm"]
            candidates = [llm for llm in (profile.spec.provenance.llm, *given) if llm in called]
            llm = (candidates or called)[0] if candidates or len(called) == 1 else None
            if profile.spec.provenance.trace_digest in files.values() and llm in demand.llms:
                found.setdefault(name, demand.llms[llm].groups)
    return found


def _workflows(project: Path) -> Iterator[Loaded[Workflow]]:
    with suppress(ScepsyError):
        yield from read_part(project, Workflow).documents.values()


def _how_to_get_one(model: str) -> str:
    name = printable(model)
    return (
        f"measure it (scepsy profile run), import results of vllm bench serve (scepsy profile import), "
        f"or start with an estimate: scepsy profile estimate {name} --product NVIDIA-H100-80GB-HBM3"
    )


def _console() -> Console:
    console = Console(highlight=False)
    width = console.width if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE
    return Console(highlight=False, width=max(LEAST, min(width, MOST)))
