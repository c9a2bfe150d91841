"""`scepsy profile estimate`: profiles from a tool's tables of kernels, without a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from scepsy.cli.options import project_option
from scepsy.documents import PROJECT_FILE, Profile
from scepsy.documents.profile import TensorParallel
from scepsy.errors import ScepsyError
from scepsy.profiling.estimating import AiConfigurator, product_of, profile_name, render_profile
from scepsy.profiling.estimating.calls_to_estimate import calls_to_estimate
from scepsy.profiling.estimating.curves import curves_of, summary
from scepsy.profiling.estimating.rendering import check_replaceable, regenerating_command
from scepsy.repository.partial_project import read_part
from scepsy.repository.single_file import write_at_once

DEGREES: tuple[int, ...] = get_args(TensorParallel)


@click.command("estimate")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--product", "products", metavar="PRODUCT", multiple=True, required=True, help="GPU product.")
@click.option("--tp", "degrees", metavar="1,2,…", help="Tensor-parallel degrees; all that the model allows by default.")
@click.option("--mix", "mixes", metavar="IN/OUT", multiple=True, help="Tokens of a call; five usual mixes by default.")
@click.option("--workflow", metavar="NAME", help="Estimate for the calls of a workflow of the project instead.")
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE", help="Estimate for recorded calls instead,")
@click.option("--llm", metavar="NAME", help="those to this LLM.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write; the project's profiles by default.",
)
@project_option
def command(
    models: tuple[str, ...],
    products: tuple[str, ...],
    degrees: str | None,
    mixes: tuple[str, ...],
    workflow: str | None,
    trace: Path | None,
    llm: str | None,
    output: Path | None,
    project: Path,
) -> None:
    """Estimate Profiles of MODELs without a GPU."""
    _check_choice(models, mixes, workflow, trace, llm)
    chosen = [product_of(name) for name in products]
    tps = _degrees(degrees)
    wanted = calls_to_estimate(models, mixes, workflow, trace, llm, project)
    target = _target(output, project)
    tool = AiConfigurator()
    files: list[tuple[Path, bytes, str]] = []
    for model, calls in wanted.mixes.items():
        for product in chosen:
            name = profile_name(model, product, wanted.suffix)
            curves, spreads = curves_of(tool, model, product, tps, calls)
            command = regenerating_command(model, product, degrees, wanted.options)
            document = render_profile(
                name,
                model,
                product,
                tool.architecture(model),
                tool=tool.tool,
                table=tool.table(product),
                command=command,
                curves=curves,
                trace_digest=wanted.trace_digest,
            )
            files.append((target / f"{name}.yaml", document, summary(curves, spreads)))
    for path, _, _ in files:
        check_replaceable(path)
    for path, document, line in files:
        write_at_once(path, document)
        click.echo(f"Wrote {path}: {line}")
    click.echo("These are estimates: measure what you rely on (scepsy profile run).")


def _check_choice(
    models: Sequence[str], mixes: Sequence[str], workflow: str | None, trace: Path | None, llm: str | None
) -> None:
    given = [name for name, value in (("--mix", mixes), ("--workflow", workflow), ("--trace", trace)) if value]
    if len(given) > 1:
        raise ScepsyError(f"{' and '.join(given)} both select the calls to estimate for", "pass only one of them")
    if (trace is None) != (llm is None):
        raise ScepsyError("--trace and --llm belong together: a trace, and the LLM in it whose calls to take")
    if not models and workflow is None:
        raise ScepsyError("no model is named", "name models such as Qwen/Qwen3-8B, or a workflow with --workflow")


def _degrees(text: str | None) -> tuple[int, ...]:
    if text is None:
        return DEGREES
    parts = [part.strip() for part in text.split(",")]
    if not all(part in {str(degree) for degree in DEGREES} for part in parts):
        raise ScepsyError(f'--tp "{text[:40]}" is not a list of 1, 2, 4 and 8', "write such as --tp 1,2")
    return tuple(sorted({int(part) for part in parts}))


def _target(output: Path | None, project: Path) -> Path:
    if output is not None:
        target = Path(os.path.realpath(output))
    elif (project / PROJECT_FILE).exists():
        target = read_part(project, Profile).folder
    else:
        raise ScepsyError(
            f"there is no {PROJECT_FILE} in {project.absolute()}, so there is no profiles/ to write to",
            "name the directory to write to with -o, or the project with --project",
        )
    if target.exists() and not target.is_dir():
        raise ScepsyError(f"{target} is not a directory", "name a directory to write to: -o DIR")
    if not target.parent.is_dir():
        raise ScepsyError(f"there is no directory {target.parent}", "create it first")
    return target
