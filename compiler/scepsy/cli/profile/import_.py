"""`scepsy profile import`: results of `vllm bench serve` as a Profile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from scepsy.cli.options import project_option
from scepsy.documents import PROJECT_FILE, Architecture, DocumentError, Profile, Series, emit
from scepsy.documents.model import ModelId, NodeName, Product, Revision, Version
from scepsy.documents.profile import TensorParallel
from scepsy.documents.units import parse_share, significant
from scepsy.errors import ScepsyError, printable
from scepsy.profiling.importing import Closed, Imported, Left, Open, Origin, Result, runs_of, series_of
from scepsy.profiling.importing.options import Options, valid
from scepsy.profiling.importing.profile_document import imported_profile
from scepsy.profiling.measuring.architecture import architecture_of, read_config
from scepsy.report.trace_text import brief
from scepsy.repository.partial_project import Part, read_part
from scepsy.repository.single_file import checked_target, write_at_once

_LISTED = 30
"""Files that are listed with the reason why they are left out; the rest is counted."""
_KS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@click.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE_OR_DIR..."
)
@click.option("--model", metavar="ID", required=True, help="The model's id, as workflows name it.")
@click.option("--product", required=True, help="GPU product, as in the node label nvidia.com/gpu.product.")
@click.option(
    "--tp",
    type=click.Choice(["1", "2", "4", "8"]),
    help="Tensor-parallel degree; default: that of a sweep, else 1.",
)
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of each GPU, in tenths.")
@click.option("--engine-version", metavar="VERSION", help="vLLM's version, unless --metadata version=… has it.")
@click.option("--revision", help="The model's revision, if it was pinned.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The model's config.json; default: the shape in the project's profiles.",
)
@click.option("--parameters", type=click.IntRange(min=1), help="Number of parameters, if it cannot be computed (MoE).")
@click.option("--image-digest", help="Digest of the engine's image.")
@click.option("--driver", help="Version of the GPU's driver.")
@click.option("--flag", "flags", metavar="FLAG", multiple=True, help="An engine flag to note; may be repeated.")
@click.option("--self-timed", is_flag=True, help="Runs without a rate replayed a trace at the recorded times.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write; one among the project's profiles by default.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@project_option
def command(tp: str | None, **given: Any) -> None:
    """Import results of `vllm bench` as a Profile."""
    options = Options(tp=None if tp is None else int(tp), **given)
    share = _checked(options)
    home = read_part(options.project, Profile) if (options.project / PROJECT_FILE).exists() else None
    target = _target(options, home)
    name = valid(NodeName, _slug(target.stem), "-o")
    architecture = _architecture(options, home)
    runs, left = runs_of(options)
    degree: TensorParallel = options.tp or 1  # type: ignore[assignment]  # click offers these four only
    imported = _series(runs, Origin(degree, share))
    left = [*left, *imported.left]
    if not imported.series:
        raise ScepsyError(_nothing(runs, left), _advice(options, [run.result for run in runs]))
    document = imported_profile(options, name, architecture, imported)
    write_at_once(target, emit(document.plain()), replace=options.force)
    _show(options, document, imported, left, target)


def _series(runs: Sequence[Closed | Open], origin: Origin) -> Imported:
    try:
        return series_of(runs, origin)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        where, what = ".".join(map(str, wrong["loc"])), str(wrong["msg"]).removeprefix("Value error, ")
        raise ScepsyError(f"the results are not a valid Profile: {where}: {printable(what)}") from error


def _checked(options: Options) -> float:
    """Check what needs no file, and return the share."""
    valid(ModelId, options.model, "--model")
    valid(Product, options.product, "--product")
    if options.revision is not None:
        valid(Revision, options.revision, "--revision")
    if options.engine_version is not None:
        valid(Version, options.engine_version, "--engine-version")
    try:
        return parse_share(options.share)
    except ValueError as error:
        raise ScepsyError(f"--share: {error}") from error


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+|\.(?![a-z0-9])|(?<![a-z0-9])\.", "-", text.lower()).strip("-")


def _target(options: Options, home: Part[Profile] | None) -> Path:
    if options.output is not None:
        wanted = options.output
    elif home is not None:
        # The directory of profiles is made where it is missing.
        slug = _slug(f"{options.model.rpartition('/')[2]}-{options.product.removeprefix('NVIDIA-')}-imported")
        wanted = home.folder / f"{slug}.yaml"
    else:
        raise ScepsyError(
            f"there is no {PROJECT_FILE} in {options.project.absolute()}, so there is no profiles/ to write to",
            "name the file to write with -o, or the project with --project",
        )
    if options.output is None and not wanted.parent.exists():
        target = wanted
    else:
        target = checked_target(wanted, "-o", options.files)
    if target.exists() and not options.force:
        raise ScepsyError(f"{target} exists", "name another file with -o, or replace it with --force")
    return target


def _architecture(options: Options, home: Part[Profile] | None) -> Architecture:
    """Return the model's shape: from its config.json, else from a profile that the project has of it."""
    if options.config is not None:
        return architecture_of(read_config(options.config), options.parameters, options.flags)
    for loaded in home.documents.values() if home else ():
        if loaded.document.spec.model == options.model:
            return loaded.document.spec.architecture
    if home is not None and home.problems:
        raise DocumentError(home.problems)
    where = "no profile of the project has" if home else "there is no project here with"
    raise ScepsyError(
        f"the shape of {options.model} is not known: {where} the model",
        "give the model's config.json: --config config.json",
    )


def _nothing(runs: Sequence[Closed | Open], left: Sequence[Left]) -> str:
    if runs:
        message = (
            "all good results are open-loop runs: a Profile needs R(k), the latency while k calls run at all times, "
            "and their means do not give it, because the number of calls in flight varies"
        )
    else:
        message = "there is no result that can be imported"
    return message + "".join(f"\n  {line}" for line in _lines(left))


def _lines(left: Sequence[Left]) -> list[str]:
    # What failed matters most.
    ordered = sorted(left, key=lambda one: not one.failed)
    lines = [f"{printable(one.name)}: {printable(one.reason)}" for one in ordered[:_LISTED]]
    return lines + ([f"… and {len(left) - _LISTED} more"] if len(left) > _LISTED else [])


def _advice(options: Options, results: Sequence[Result]) -> str:
    """Return the runs to make, with the calls of the results that there are."""
    best = max(results, key=lambda result: result.completed, default=None)
    tokens = (round(best.input), round(best.output)) if best else (512, 128)
    model = options.model
    ks = " ".join(map(str, _KS))
    return (
        f"run, with the lengths of your calls:\n    for k in {ks}; do vllm bench serve --model {model} "
        f"--dataset-name random --random-input-len {tokens[0]} --random-output-len {tokens[1]} --ignore-eos "
        "--max-concurrency $k --num-prompts $((40 + 10 * k)) --percentile-metrics ttft,tpot,e2el "
        "--save-result --save-detailed --result-dir results; done\n  and then: scepsy profile import results …"
    )


def _show(options: Options, document: Profile, imported: Imported, left: Sequence[Left], target: Path) -> None:
    spec = document.spec
    for series in spec.series:
        click.echo(_described(series))
    others = {result.served for result in imported.used} - {"", options.model, options.model.rpartition("/")[2]}
    for served in sorted(others):
        click.echo(f'note: the server called the model "{printable(served)[:120]}"')
    if left:
        failed = sum(one.failed for one in left)
        click.echo(f"Left out: {_many(failed, 'result')}, and {_many(len(left) - failed, 'other file')}:")
        for line in _lines(left):
            click.echo(f"  {line}")
    for thin in imported.thin:
        click.echo(f"warning: {thin}", err=True)
    if imported.thin:
        click.echo(f"  {_advice(options, imported.used)}", err=True)
    points = sum(len(series.points) + len(series.open_loop) for series in spec.series)
    click.echo(
        f"Wrote {target}: {len(spec.series)} series, {_many(points, 'point')} of {_many(len(imported.used), 'result')}"
    )


def _described(series: Series) -> str:
    ks = ", ".join(str(point.concurrency) for point in series.points)
    first = series.points[0]
    best = max(series.points, key=lambda point: point.concurrency / point.latency)
    rates = f"; open loop at {_many(len(series.open_loop), 'rate')}" if series.open_loop else ""
    return (
        f"TP {series.tp}, share {series.share:g}, {significant(series.mix.input, 3)}/"
        f"{significant(series.mix.output, 3)} tokens: R(k) at k = {ks}; {brief(first.latency)} at {first.concurrency}, "
        f"{significant(best.concurrency / best.latency, 3)} calls/s at {best.concurrency}{rates}"
    )


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
