"""`scepsy profile run`: measure a server that is up, and write a Profile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from scepsy import __version__
from scepsy.documents import API_VERSION, Architecture, Profile, emit
from scepsy.documents.diagnostics import printable
from scepsy.documents.model import FileMetadata, ModelId, NodeName, Product, Revision
from scepsy.documents.profile import Engine as EngineVersion
from scepsy.documents.profile import ProfileSpec, Provenance, TensorParallel
from scepsy.documents.units import parse_duration, parse_share
from scepsy.errors import ScepsyError

try:
    from scepsy.profiling.measuring import (
        Engine,
        Journal,
        Measured,
        NoGoodPoint,
        Scope,
        architecture_of,
        measure,
        read_config,
        read_workload,
        rehearse,
        series_of,
        vocabulary_of,
    )
except ModuleNotFoundError as missing:
    if missing.name != "aiohttp":
        raise
    raise ScepsyError("profile run needs the package aiohttp", "pip install aiohttp, or scepsy[profiling]") from missing


@dataclass(frozen=True)
class Options:
    """What the command was given; texts as they stand on the command line.

    Attributes:
        base_url: where the server listens.
        model: the model's id.
        served_as: the name under which it is served.
        revision: its revision.
        api_key_env: the environment variable with the API key.
        trace: the calls to replay.
        llm: the LLM's name in the trace.
        product: the GPU product.
        tp: the engine's tensor-parallel degree.
        share: its share of each GPU.
        config: the model's config.json.
        parameters: its number of parameters, where it cannot be counted.
        max_num_seqs: most calls that the engine runs at once.
        budget: a duration for all points together.
        wait: a duration in which the server must become healthy.
        date: the day of the measurement, YYYY-MM-DD; today if None.
        image_digest: digest of the engine's image.
        driver: version of the GPU's driver.
        flags: the engine's flags.
        output: the file to write.
    """

    base_url: str
    model: str
    served_as: str | None
    revision: str | None
    api_key_env: str | None
    trace: Path
    llm: str
    product: str
    tp: int
    share: float
    config: Path
    parameters: int | None
    max_num_seqs: int
    budget: str
    wait: str
    date: str | None
    image_digest: str | None
    driver: str | None
    flags: tuple[str, ...]
    output: Path


@dataclass(frozen=True)
class _Inputs:
    """What the options come to.

    Attributes:
        scope: what is measured.
        architecture: the model's shape.
        key: the API key.
        share: the share.
        wait: seconds in which the server must become healthy.
        name: the Profile's name.
        trace_digest: digest of the trace.
        date: the day, YYYY-MM-DD.
    """

    scope: Scope
    architecture: Architecture
    key: str | None
    share: float
    wait: float
    name: str
    trace_digest: str
    date: str


def run(options: Options) -> None:
    """Measure, and write the Profile; a journal beside it holds what is complete until then.

    Raises:
        ScepsyError: something is wrong; then there is no Profile.
    """
    inputs = _inputs(options)
    with _progress() as (say, status):
        document = asyncio.run(_measured(options, inputs, say, status))
    points, calls = len(document.spec.series[0].points), len(inputs.scope.workload.calls)
    _say(f"wrote {options.output}: R(k) at {points} concurrencies, with {calls} recorded calls")


async def _measured(options: Options, inputs: _Inputs, say: Any, status: Any) -> Profile:
    """Measure and write, until a signal ends it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    partial = _partial(options.output)
    try:
        return await _measure(options, inputs, say, status)
    except asyncio.CancelledError:
        kept = "give the same command to go on after the last complete point" if partial.exists() else ""
        raise ScepsyError(f"interrupted; {partial} was kept" if kept else "interrupted", kept) from None
    except ScepsyError as error:
        if error.hint or not partial.exists():
            raise
        raise ScepsyError(
            error.message, f"{partial} was kept: the same command goes on, deleting it begins anew"
        ) from error
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _measure(options: Options, inputs: _Inputs, say: Any, status: Any) -> Profile:
    scope = inputs.scope
    async with Engine(options.base_url, options.served_as or options.model, inputs.key) as engine:
        status(f"waiting for {engine.base_url}/health")
        await engine.wait(inputs.wait)
        longest = await engine.longest()
        if longest is not None and longest < scope.workload.longest:
            raise ScepsyError(
                f"the longest recorded call has {scope.workload.longest} tokens, the server allows {longest}",
                f"start it with --max-model-len {scope.workload.longest} or more",
            )
        version = await engine.version()
        if not await engine.forget_prefixes():
            say(
                "the server cannot empty its prefix cache (it could with VLLM_SERVER_DEV_MODE=1): "
                "every point gets prompts of its own"
            )
        journal = Journal(_partial(options.output), _arguments(options, inputs, version), inputs.date)
        try:
            status("rehearsing: the longest call, then as many as may run at once")
            await rehearse(engine, scope)
            measured = await measure(engine, scope, journal, say, status)
            document = _profile(options, inputs, version, measured, journal.date)
            _write(options.output, emit(document.plain()))
            journal.remove()
        except NoGoodPoint:
            # Whoever mends the server wants to begin anew.
            journal.remove()
            raise
        finally:
            journal.close()
    return document


def _inputs(options: Options) -> _Inputs:
    """Check everything that can be checked without the server."""
    if options.output.exists():
        raise ScepsyError(f"{options.output} exists", "name another file with -o, or delete it")
    name = _valid(NodeName, re.sub(r"[^a-z0-9.-]+", "-", options.output.stem.lower()).strip("-."), "-o")
    _valid(ModelId, options.model, "--model")
    _valid(Product, options.product, "--product")
    if options.revision is not None:
        _valid(Revision, options.revision, "--revision")
    config = read_config(options.config)
    workload, digest = read_workload(options.trace, options.llm)
    architecture = architecture_of(config, options.parameters, options.flags)
    return _Inputs(
        scope=Scope(workload, vocabulary_of(config), options.max_num_seqs, _seconds(options.budget, "--budget")),
        architecture=architecture,
        key=_key(options.api_key_env),
        share=_share(options.share),
        wait=_seconds(options.wait, "--wait"),
        name=name,
        trace_digest=digest,
        date=_date(options.date),
    )


def _valid(kind: Any, value: str, option: str) -> str:
    try:
        checked: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ScepsyError(
            f"{option}: {printable(str(error.errors()[0]['msg']).removeprefix('Value error, '))}"
        ) from error
    return checked


def _seconds(text: str, option: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ScepsyError(f"{option}: {error}") from error


def _share(value: float) -> float:
    try:
        return parse_share(value)
    except ValueError as error:
        raise ScepsyError(f"--share: {error}") from error


def _date(text: str | None) -> str:
    if text is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ScepsyError(f'--date: "{text}" is not a day such as 2026-01-31') from error


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ScepsyError(f"--api-key-env: the environment variable {variable} is not set")
    return key


def _arguments(options: Options, inputs: _Inputs, version: str) -> Mapping[str, Any]:
    """Return what must be the same for a measurement to go on; the server may have moved, and its key changed."""
    return {
        "model": options.model,
        "revision": options.revision,
        "engine": version,
        "trace": inputs.trace_digest,
        "llm": options.llm,
        "product": options.product,
        "tp": options.tp,
        "share": inputs.share,
        "max-num-seqs": options.max_num_seqs,
        "vocabulary": inputs.scope.vocabulary,
        "budget": inputs.scope.budget,
        "image-digest": options.image_digest,
        "driver": options.driver,
        "flags": list(options.flags),
    }


def _profile(options: Options, inputs: _Inputs, version: str, measured: Measured, day: str) -> Profile:
    tp: TensorParallel = options.tp  # type: ignore[assignment]  # click offers these four only
    return Profile(
        api_version=API_VERSION,
        kind="Profile",
        metadata=FileMetadata(name=inputs.name),
        spec=ProfileSpec(
            source="measured",
            model=options.model,
            revision=options.revision,
            product=options.product,
            engine=EngineVersion(name="vllm", version=version),
            architecture=inputs.architecture,
            provenance=Provenance(
                tool=f"scepsy {__version__}",
                command=command(options),
                image_digest=options.image_digest,
                driver=options.driver,
                flags=options.flags,
                trace_digest=inputs.trace_digest,
                date=day,
                notes=measured.notes,
            ),
            series=(series_of(measured, inputs.scope.workload, tp, inputs.share),),
        ),
    )


def command(options: Options) -> str:
    """Return the command that reproduces a measurement, without secrets and without folders of this machine."""
    words: list[tuple[str, str | None]] = [
        ("--base-url", re.sub(r"//[^/@]*@", "//", options.base_url)),
        ("--model", options.model),
        ("--served-as", options.served_as),
        ("--revision", options.revision),
        ("--api-key-env", options.api_key_env),
        ("--trace", options.trace.name),
        ("--llm", options.llm),
        ("--product", options.product),
        ("--tp", str(options.tp)),
        ("--share", f"{options.share:g}"),
        ("--config", options.config.name),
        ("--parameters", None if options.parameters is None else str(options.parameters)),
        ("--max-num-seqs", str(options.max_num_seqs)),
        ("--budget", options.budget),
        ("-o", options.output.name),
    ]
    given: Sequence[str] = [word for name, value in words if value is not None for word in (name, value)]
    return shlex.join(["scepsy", "profile", "run", *given])


def _partial(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def _write(output: Path, text: bytes) -> None:
    """Write a file whole or not at all."""
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with draft.open("xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _progress() -> Iterator[tuple[Any, Any]]:
    """Give two functions: one for lines that stay, one for what is being done just now."""
    if not sys.stderr.isatty():
        yield _say, _say
        return
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as spinner:
        yield (
            lambda line: console.print(line, markup=False),
            lambda line: spinner.update(line.replace("[", r"\[")),
        )


def _say(line: str) -> None:
    """Print to standard error; whoever reads that may have gone, the measurement goes on all the same."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)
