"""`scepsy profile import`: results of `vllm bench serve` as a Profile."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from scepsy.cli.options import project_option
from scepsy.documents import API_VERSION, PROJECT_FILE, Architecture, DocumentError, Profile, Series, emit
from scepsy.documents.diagnostics import printable
from scepsy.documents.model import FileMetadata, ModelId, NodeName, Product, Revision, Version
from scepsy.documents.profile import Engine, ProfileSpec, Provenance, TensorParallel
from scepsy.documents.units import parse_share, significant
from scepsy.errors import ScepsyError
from scepsy.profiling.importing import (
    Closed,
    Imported,
    Left,
    Open,
    Origin,
    Result,
    kind_of,
    read_files,
    result_of,
    series_of,
)
from scepsy.profiling.importing.vllm_bench import is_result
from scepsy.profiling.measuring.architecture import architecture_of, read_config
from scepsy.report.trace_text import brief
from scepsy.repository.partial_project import Part, read_part
from scepsy.repository.single_file import checked_target, write_at_once

_LISTED = 30
"""Files that are listed with the reason why they are left out; the rest is counted."""
_KS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Options:
    """What the command was given.

    Attributes:
        files: results and directories of them.
        model: the model's id.
        product: the GPU product.
        tp: the engine's tensor-parallel degree; None for what the results say, else 1.
        share: its share of each GPU.
        engine_version: the engine's version; None for what the results' metadata say.
        revision: the model's revision, if it was pinned.
        config: the model's config.json; None for the shape in a profile of the project.
        parameters: its number of parameters, where it cannot be counted.
        image_digest: digest of the engine's image.
        driver: version of the GPU's driver.
        flags: flags of the engine beside those that the results say.
        self_timed: results without a rate and without a limit replayed a trace at its own times.
        output: the file to write; None for one among the project's profiles.
        force: replace the file if it exists.
        project: directory with `scepsy.yaml`, if there is one.
    """

    files: tuple[Path, ...]
    model: str
    product: str
    tp: int | None
    share: float
    engine_version: str | None
    revision: str | None
    config: Path | None
    parameters: int | None
    image_digest: str | None
    driver: str | None
    flags: tuple[str, ...]
    self_timed: bool
    output: Path | None
    force: bool
    project: Path


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
    name = _valid(NodeName, _slug(target.stem), "-o")
    architecture = _architecture(options, home)
    runs, left = _runs(options)
    _check_one_engine([run.result for run in runs])
    degree: TensorParallel = options.tp or 1  # type: ignore[assignment]  # click offers these four only
    imported = _series(runs, Origin(degree, share))
    left = [*left, *imported.left]
    if not imported.series:
        raise ScepsyError(_nothing(runs, left), _advice(options, [run.result for run in runs]))
    version = _version(options, imported.used)
    document = _profile(options, name, architecture, version, imported)
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
    _valid(ModelId, options.model, "--model")
    _valid(Product, options.product, "--product")
    if options.revision is not None:
        _valid(Revision, options.revision, "--revision")
    if options.engine_version is not None:
        _valid(Version, options.engine_version, "--engine-version")
    try:
        return parse_share(options.share)
    except ValueError as error:
        raise ScepsyError(f"--share: {error}") from error


def _valid(kind: Any, value: str, option: str) -> str:
    try:
        checked: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        message = printable(str(error.errors()[0]["msg"]).removeprefix("Value error, "))
        raise ScepsyError(f"{option}: {message}") from error
    return checked


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+|\.(?![a-z0-9])|(?<![a-z0-9])\.", "-", text.lower()).strip("-")


def _target(options: Options, home: Part[Profile] | None) -> Path:
    if options.output is not None:
        given = options.output
    elif home is not None:
        # The directory of profiles is made where it is missing.
        slug = _slug(f"{options.model.rpartition('/')[2]}-{options.product.removeprefix('NVIDIA-')}-imported")
        given = home.folder / f"{slug}.yaml"
    else:
        raise ScepsyError(
            f"there is no {PROJECT_FILE} in {options.project.absolute()}, so there is no profiles/ to write to",
            "name the file to write with -o, or the project with --project",
        )
    if options.output is None and not given.parent.exists():
        target = given
    else:
        target = checked_target(given, "-o", options.files)
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


def _runs(options: Options) -> tuple[list[Closed | Open], list[Left]]:
    """Return the runs that are good for something, and what is left out."""
    runs: list[Closed | Open] = []
    left: list[Left] = []
    seen: dict[tuple[Any, ...], str] = {}
    for file in read_files(options.files):
        if isinstance(file, Left):
            left.append(file)
            continue
        if not any(map(is_result, file.values)):
            left.append(Left(file.name, "no result of vllm bench serve"))
            continue
        for number, value in enumerate(file.values, 1):
            name = file.name if len(file.values) == 1 else f"{file.name} ({number})"
            if not is_result(value):
                left.append(Left(name, "no result of vllm bench serve", failed=True))
                continue
            result = result_of(value, name, file.folder, file.digest)
            if isinstance(result, str):
                left.append(Left(name, result, failed=True))
            elif result.identity in seen:
                left.append(Left(name, f"the same run as {seen[result.identity]}"))
            else:
                seen[result.identity] = name
                kind = _kind(result, options)
                if isinstance(kind, str):
                    left.append(Left(name, kind, failed=True))
                else:
                    runs.append(kind)
    return runs, left


def _kind(result: Result, options: Options) -> Closed | Open | str:
    if options.tp is not None and result.tp not in (None, options.tp):
        return f"its tensor-parallel degree is {result.tp}, --tp says {options.tp}"
    return kind_of(result, self_timed=options.self_timed)


def _check_one_engine(results: Sequence[Result]) -> None:
    """Refuse results of several models or settings: their series could not be told apart in one Profile."""
    for what, values in (
        ("models", {result.served for result in results if result.served}),
        ("versions of the engine", {result.version for result in results if result.version}),
        ("settings of the engine", {" ".join(result.flags) or "(none)" for result in results}),
    ):
        if len(values) > 1:
            shown = "".join(f"\n    {printable(value)[:200]}" for value in sorted(values)[:8])
            raise ScepsyError(
                f"the results are of {len(values)} {what}, a Profile is of one:{shown}",
                "name the files or directories of one of them, and import the others with another -o",
            )


def _version(options: Options, results: Sequence[Result]) -> str:
    said = next((result.version for result in results if result.version), None)
    if options.engine_version and said and options.engine_version != said:
        raise ScepsyError(f"the results say version={said}, --engine-version says {options.engine_version}")
    version = options.engine_version or said
    if version is None:
        raise ScepsyError(
            "the results do not contain the version of vLLM",
            "use --engine-version 0.24.0 (next time: vllm bench serve --metadata version=…)",
        )
    return _valid(Version, version, "--engine-version")


def _profile(options: Options, name: str, architecture: Architecture, version: str, imported: Imported) -> Profile:
    digests = {result.digest for result in imported.used}
    flags = dict.fromkeys((*options.flags, *(flag for result in imported.used for flag in result.flags)))
    return Profile(
        api_version=API_VERSION,
        kind="Profile",
        metadata=FileMetadata(name=name),
        spec=ProfileSpec(
            source="imported",
            model=options.model,
            revision=options.revision,
            product=options.product,
            engine=Engine(name="vllm", version=version),
            architecture=architecture,
            provenance=Provenance(
                tool="vllm bench serve",
                database=f"{_many(len(digests), 'result file')}, {digest_of(digests)}",
                command=_command(options),
                image_digest=options.image_digest,
                driver=options.driver,
                flags=tuple(flags),
                date=max((result.day for result in imported.used if result.day), default=None),
                notes=" ".join(imported.notes),
            ),
            series=imported.series,
        ),
    )


def digest_of(digests: Iterable[str]) -> str:
    """Return one digest for all files: of one its own, else that of `sha256sum FILE… | cut -c1-64 | sort`."""
    lines = sorted(digest.removeprefix("sha256:") for digest in set(digests))
    if len(lines) == 1:
        return f"sha256:{lines[0]}"
    return "sha256:" + hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def _command(options: Options) -> str:
    """Return the command that imports the same files again, without folders of this machine."""
    words: list[tuple[str, str | None]] = [
        ("--model", options.model),
        ("--product", options.product),
        ("--tp", None if options.tp is None else str(options.tp)),
        ("--share", None if options.share == 1 else f"{options.share:g}"),
        ("--engine-version", options.engine_version),
        ("--revision", options.revision),
        ("--config", None if options.config is None else options.config.name),
        ("--parameters", None if options.parameters is None else str(options.parameters)),
        ("--image-digest", options.image_digest),
        ("--driver", options.driver),
        *(("--flag", flag) for flag in options.flags),
    ]
    files = dict.fromkeys(printable(Path(os.path.realpath(file)).name) for file in options.files)
    given = [word for name, value in words if value is not None for word in (name, value)]
    return shlex.join(
        ["scepsy", "profile", "import", *files, *given, *(["--self-timed"] if options.self_timed else [])]
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
