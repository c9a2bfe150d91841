"""`scepsy profile estimate`: profiles from a tool's tables of kernels, without a GPU."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import numpy as np

from scepsy.cli.options import project_option
from scepsy.demand import demand_of
from scepsy.documents import (
    PROJECT_FILE,
    DocumentError,
    Loaded,
    Profile,
    Workflow,
    Workspace,
    contained,
    did_you_mean,
)
from scepsy.documents.profile import TensorParallel
from scepsy.errors import ScepsyError
from scepsy.profiling.estimating import (
    HEADER,
    STANDARD,
    AiConfigurator,
    Curve,
    Estimator,
    Mix,
    Product,
    curve,
    equal_calls,
    parse_mix,
    product_of,
    profile_name,
    recorded_calls,
    render_profile,
    spread,
)
from scepsy.repository.partial_project import read_part
from scepsy.repository.single_file import write_at_once
from scepsy.traces.trace import Trace
from scepsy.traces.trace_reader import read_trace

DEGREES: tuple[int, ...] = get_args(TensorParallel)


@dataclass(frozen=True)
class _Wanted:
    """What to estimate.

    Attributes:
        mixes: per model the calls to estimate for.
        suffix: what the profiles' names end in.
        options: the options that name these calls, as the command in the document repeats them.
        trace_digest: digest of the trace that they were taken from.
    """

    mixes: dict[str, tuple[Mix, ...]]
    suffix: str = ""
    options: tuple[str, ...] = ()
    trace_digest: str | None = None


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
    wanted = _wanted(models, mixes, workflow, trace, llm, project)
    target = _target(output, project)
    tool = AiConfigurator()
    files: list[tuple[Path, bytes, str]] = []
    for model, calls in wanted.mixes.items():
        for product in chosen:
            name = profile_name(model, product, wanted.suffix)
            curves, spreads = _curves(tool, model, product, tps, calls)
            command = _command(model, product, degrees, wanted.options)
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
            files.append((target / f"{name}.yaml", document, _summary(curves, spreads)))
    for path, _, _ in files:
        _check_replaceable(path)
    for path, document, summary in files:
        write_at_once(path, document)
        click.echo(f"Wrote {path}: {summary}")
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


def _wanted(
    models: Sequence[str],
    mixes: Sequence[str],
    workflow: str | None,
    trace: Path | None,
    llm: str | None,
    project: Path,
) -> _Wanted:
    models = list(dict.fromkeys(models))
    if workflow is not None:
        return _of_workflow(models, workflow, project)
    if trace is not None and llm is not None:
        calls, digest = read_trace(trace, trace.name)
        mix = _recorded(calls, llm)
        return _Wanted(dict.fromkeys(models, (mix,)), llm, ("--trace", trace.name, "--llm", llm), digest)
    parsed = tuple(parse_mix(text) for text in mixes) or STANDARD
    return _Wanted(dict.fromkeys(models, parsed), "", tuple(word for text in mixes for word in ("--mix", text.strip())))


def _of_workflow(models: Sequence[str], name: str, project: Path) -> _Wanted:
    part = read_part(project, Workflow)
    # The project need not be complete: without profiles there is no complete one, and this makes them.
    workspace = Workspace(part.root, part.directory, part.project, part.documents, {}, {})
    if name not in workspace.workflows:
        if part.problems:
            raise DocumentError(part.problems)
        raise ScepsyError(f'there is no workflow "{name}"', did_you_mean(name, list(workspace.workflows)))
    loaded = workspace.workflows[name]
    called = [llm.model for llm in loaded.document.spec.llms]
    for model in models:
        if model not in called:
            raise ScepsyError(f'the workflow "{name}" does not call the model "{model}"', did_you_mean(model, called))
    by_llm, digest = _workflow_mixes(workspace, loaded)
    mixes = {
        model: tuple(by_llm[llm.name] for llm in loaded.document.spec.llms if llm.model == model)
        for model in models or dict.fromkeys(called)
    }
    return _Wanted(mixes, name, ("--workflow", name), digest)


def _workflow_mixes(workspace: Workspace, loaded: Loaded[Workflow]) -> tuple[dict[str, Mix], str | None]:
    """Return the calls per LLM, as recorded where the workflow names a trace, and that trace's digest."""
    demand, _ = demand_of(workspace, loaded)
    source = loaded.document.spec.demand
    if source.traces is None:
        return {name: equal_calls(llm.input.mean, max(1.0, llm.output.mean)) for name, llm in demand.llms.items()}, None
    path = contained(workspace.root, source.traces, (workspace.directory / loaded.source.file.name).parent)
    trace, digest = read_trace(path, workspace.relative(path), [llm.name for llm in loaded.document.spec.llms])
    return {name: _recorded(trace, name) for name in trace.llms}, digest


def _recorded(trace: Trace, llm: str) -> Mix:
    if llm not in trace.llms:
        raise ScepsyError(f'no call of the trace goes to "{llm}"', did_you_mean(llm, list(trace.llms)))
    calls = np.flatnonzero(trace.llm == trace.llms.index(llm))
    return recorded_calls(trace.input[calls], trace.output[calls])


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


def _curves(
    tool: Estimator, model: str, product: Product, degrees: Sequence[int], mixes: Sequence[Mix]
) -> tuple[list[Curve], list[tuple[float, float]]]:
    """Return the curves that have points, and how far calls of several sizes differ from calls of the mean size."""
    architecture = tool.architecture(model)
    curves, spreads = [], []
    for tp in (tp for tp in degrees if architecture.attention_heads % tp == 0):
        ask = tool.instance(model, product, tp)
        for mix in mixes:
            one, equal = (curve(ask, tp, m, product.budget, architecture.layers) for m in (mix, mix.mean))
            curves += [one] if one.points else []
            between = spread(one, equal)
            spreads += [between] if between else []
    if not curves:
        raise ScepsyError(f"{model} does not fit into the memory of {product.name} at any of these degrees")
    return curves, spreads


def _command(model: str, product: Product, degrees: str | None, options: Sequence[str]) -> str:
    """Return the command that regenerates a document, without paths of this machine."""
    words = ["scepsy", "profile", "estimate", model, "--product", product.name]
    return shlex.join([*words, *(["--tp", degrees] if degrees else []), *options])


def _summary(curves: Sequence[Curve], spreads: Sequence[tuple[float, float]]) -> str:
    degrees = ", ".join(str(tp) for tp in dict.fromkeys(one.tp for one in curves))
    text = f"{len(curves)} series (TP {degrees}), {sum(len(one.points) for one in curves)} points"
    if spreads:
        least, most = min(low for low, _ in spreads), max(high for _, high in spreads)
        text += f"; the sizes of the recorded calls change latencies by {least:+.1%} to {most:+.1%} against their means"
    return text


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    try:
        first = path.read_bytes()[: len(HEADER.encode())]
    except OSError as error:
        raise ScepsyError(f"cannot read {path}: {error.strerror or error}") from error
    if first != HEADER.encode():
        raise ScepsyError(
            f"{path} exists and is no estimate of this command: it may hold measurements",
            "move it away, or name another directory with -o",
        )
