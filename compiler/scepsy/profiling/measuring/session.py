"""`scepsy profile run`: measure a server, one that is up or one of our own, and write a Profile."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import click
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from scepsy import __version__
from scepsy.documents import API_VERSION, Architecture, Profile, emit
from scepsy.documents.cluster import Sharing
from scepsy.documents.diagnostics import printable
from scepsy.documents.model import FileMetadata, ModelId, NodeName, Product, Revision
from scepsy.documents.profile import Engine as EngineVersion
from scepsy.documents.profile import Neighbours, ProfileSpec, Provenance, Series, TensorParallel, Unusable
from scepsy.documents.units import option_duration, parse_memory, parse_share
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import startup_seconds
from scepsy.profiling.measuring.interruption import Interrupted, Interruption
from scepsy.remote_api.credentials import check_encrypted, read_token
from scepsy.repository.single_file import checked_target, write_at_once
from scepsy.sharing import backend_of

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
    from scepsy.profiling.measuring.huggingface import fetched, parameters_of
    from scepsy.profiling.measuring.job_directory import Job
    from scepsy.profiling.measuring.journal import OtherJournal, TakenJournal, check_free
    from scepsy.profiling.measuring.vllm_server import (
        DoesNotRun,
        Neighbour,
        NotUnderstood,
        Serving,
        TryAgain,
        Vllm,
        check_gpus,
        engine_version,
        find_vllm,
    )
except ModuleNotFoundError as missing:
    if missing.name != "aiohttp":
        raise
    raise ScepsyError("profile run needs the package aiohttp", "pip install aiohttp, or scepsy[profiling]") from missing

DEFAULT = Path("profile.yaml")
"""The file that is written, if nothing else is said."""
_UP_WITHIN = "10min"
"""Time in which a server that somebody else started must become healthy, if nothing else is said."""


class Place(Protocol):
    """Where the calls come from, and where goes what is measured."""

    @property
    def journal(self) -> Path:
        """Where complete points are kept."""

    def prepare(self, point: str) -> None:
        """Check that it can be used, before anything takes time."""

    def calls(self) -> AbstractContextManager[Path]:
        """Give the recorded calls."""

    def grew(self) -> None:
        """Take notice that the journal has one more point."""

    def other(self, error: ScepsyError) -> None:
        """Make room for a journal of these arguments, or raise."""

    def deliver(self, profile: Profile) -> None:
        """Write the Profile."""


@dataclass(frozen=True)
class Files:
    """Files that the user names.

    Attributes:
        trace: the calls to replay.
        output: the file to write.
    """

    trace: Path
    output: Path

    @property
    def journal(self) -> Path:
        """Beside the output."""
        return self.output.with_name(self.output.name + ".partial")

    def prepare(self, point: str) -> None:
        """Check that the output can be written, and is not there yet."""
        target = checked_target(self.output, "-o", [self.trace])
        if target.exists():
            raise ScepsyError(f"{self.output} exists", "name another file with -o, or delete it")
        check_free(self.journal)

    def calls(self) -> AbstractContextManager[Path]:
        """Give the trace."""
        return nullcontext(self.trace)

    def grew(self) -> None:
        """Do nothing: the journal is what the user has."""

    def other(self, error: ScepsyError) -> None:
        """Raise: the user decides."""
        raise error

    def deliver(self, profile: Profile) -> None:
        """Write the output."""
        write_at_once(Path(os.path.realpath(self.output)), emit(profile.plain()))


@dataclass(frozen=True)
class Up:
    """A server that is up.

    Attributes:
        base_url: where it listens.
        served_as: the name under which it serves the model.
        api_key_env: the environment variable with its API key.
    """

    base_url: str
    served_as: str | None
    api_key_env: str | None


@dataclass(frozen=True)
class Own:
    """A server of our own.

    Attributes:
        memory: a quantity, of one card.
        sharing: how GPUs are shared.
        max_model_len: longest call in tokens; the model's own if None.
        neighbours: what the rest of each GPU does meanwhile.
    """

    memory: str
    sharing: Sharing
    max_model_len: int | None
    neighbours: Neighbours


@dataclass(frozen=True)
class Options:
    """What the command was given; texts as they stand on the command line.

    Attributes:
        server: what is measured.
        place: where calls come from and results go.
        model: the model's id.
        revision: its revision.
        llm: the LLM's name in the trace.
        product: the GPU product.
        tp: the engine's tensor-parallel degree.
        share: its share of each GPU.
        config: the model's config.json; of the hub if None.
        parameters: its number of parameters, where it cannot be counted.
        max_num_seqs: most calls that the engine runs at once.
        budget: a duration for all points together.
        wait: a duration in which the server must become healthy.
        date: the day of the measurement, YYYY-MM-DD; today if None.
        image_digest: digest of the engine's image, or the image with it.
        driver: version of the GPU's driver.
        flags: the engine's flags.
        trace_digest: digest of the trace from which the calls were taken.
    """

    server: Up | Own
    place: Place
    model: str
    revision: str | None
    llm: str
    product: str
    tp: int
    share: float
    config: Path | None
    parameters: int | None
    max_num_seqs: int
    budget: str
    wait: str | None
    date: str | None
    image_digest: str | None
    driver: str | None
    flags: tuple[str, ...]
    trace_digest: str | None


@dataclass(frozen=True)
class _Inputs:
    """What the options come to.

    Attributes:
        scope: what is measured.
        architecture: the model's shape.
        key: the API key of a server that is up.
        serving: how a server of our own serves.
        share: the share.
        wait: seconds in which the server must become healthy.
        name: the Profile's name.
        calls: digest of the calls.
        image_digest: digest of the engine's image.
        driver: version of the driver.
        notes: what else is to be said of the measurement.
        date: the day, YYYY-MM-DD.
    """

    scope: Scope
    architecture: Architecture
    key: str | None
    serving: Serving | None
    share: float
    wait: float
    name: str
    calls: str
    image_digest: str | None
    driver: str | None
    notes: tuple[str, ...]
    date: str

    @property
    def neighbours(self) -> Neighbours:
        """What the rest of each GPU does meanwhile."""
        return "idle" if self.serving is None else self.serving.neighbours


def run(given: Mapping[str, Any]) -> int:
    """Measure, and write the Profile; a journal holds what is complete until then.

    Args:
        given: the command's options by their names.

    Returns:
        The exit code.

    Raises:
        ScepsyError: something is wrong; then there is no Profile. A job says that in its directory instead.
    """
    with Interruption() as interruption, _progress() as (say, status):
        if given["job"] is not None:
            job = Job(given["job"], say)
            return job.conclude(lambda: _run(_options(given, job), interruption, say, status), interruption)
        document = _run_by_hand(_options(given, None), interruption, say, status)
    written = given["output"] or DEFAULT
    if document.spec.unusable:
        _say(f"wrote {written}: this shape does not run: {document.spec.unusable[0].reason}")
    else:
        _say(f"wrote {written}: R(k) at {len(document.spec.series[0].points)} concurrencies")
    return 0


def refuse(directory: Path, message: str) -> None:
    """Say in the directory of a job that its command line was not understood."""
    Job(directory, _say).refuse(message)


def _options(given: Mapping[str, Any], job: Job | None) -> Options:
    """Put the options into groups, and check that they go together."""
    if (given["base_url"] is None) != given["serve"]:
        raise ScepsyError("give either --base-url, of a server that is up, or --serve, to start one")
    server: Up | Own
    if given["serve"]:
        _only(given, "--base-url", "served_as", "api_key_env")
        if given["memory"] is None:
            raise ScepsyError("--serve needs --memory, the memory of one GPU, such as 80Gi")
        server = Own(given["memory"], given["sharing"], given["max_model_len"], given["neighbours"] or "idle")
    else:
        _only(given, "--serve", "memory", "max_model_len", "neighbours")
        server = Up(_address(given["base_url"]), given["served_as"], given["api_key_env"])
    place: Place
    if job is not None:
        _only(given, "-o", "trace", "output")
        place = job
    elif given["trace"] is None:
        raise ScepsyError("--trace is missing: the recorded calls that are replayed")
    else:
        place = Files(given["trace"], given["output"] or DEFAULT)
    grouped = {"base_url", "served_as", "api_key_env", "serve", "memory", "sharing", "max_model_len", "neighbours"}
    grouped |= {"job", "trace", "output"}
    return Options(server, place, **{name: value for name, value in given.items() if name not in grouped})


def _address(url: str) -> str:
    """Return the address of a server, where it is one; without secrets, since it is shown and becomes part of a file.

    Raises:
        ScepsyError: it is none, or holds what may be a secret.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        bare = printable(url.rpartition("@")[2].partition("?")[0])[:100]
        raise ScepsyError(f'--base-url: "{bare}" is not the address of a server', "write http://HOST:PORT")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ScepsyError(
            "--base-url: the address must not hold a password, nor a query", "give the key with --api-key-env"
        )
    return url


def _only(given: Mapping[str, Any], other: str, *names: str) -> None:
    for name in names:
        if given[name] is not None:
            raise ScepsyError(f"--{name.replace('_', '-')} goes with {other} only")


def _run_by_hand(options: Options, interruption: Interruption, say: Any, status: Any) -> Profile:
    """Measure, and tell the person who waits how to go on when it does not end well."""
    partial = options.place.journal
    try:
        return _run(options, interruption, say, status)
    except Interrupted:
        kept = "give the same command to go on after the last complete point" if partial.exists() else ""
        raise ScepsyError(f"interrupted; {partial} was kept" if kept else "interrupted", kept) from None
    except ScepsyError as error:
        if error.hint or not partial.exists():
            raise
        raise ScepsyError(
            error.message, f"{partial} was kept: the same command goes on, deleting it begins anew"
        ) from error


def _run(options: Options, interruption: Interruption, say: Any, status: Any) -> Profile:
    """Measure and deliver."""
    inputs = _inputs(options)
    try:
        if inputs.serving is not None:
            inputs.serving.check()
        document = interruption.run(_measure(options, inputs, say, status))
    except DoesNotRun as error:
        reason = error.message if len(error.message) <= 1000 else error.message[:999] + "…"
        version = engine_version()
        unusable = Unusable(tp=_degree(options), share=inputs.share, reason=reason, max_model_len=error.longest)
        document = _profile(options, inputs, version, inputs.date, inputs.notes, unusable=(unusable,))
        options.place.deliver(document)
        options.place.journal.unlink(missing_ok=True)
    return document


async def _measure(options: Options, inputs: _Inputs, say: Any, status: Any) -> Profile:
    scope, place = inputs.scope, options.place

    def told(line: str) -> None:
        place.grew()
        say(line)

    async with _engine(options, inputs, say, status) as engine:
        longest = await engine.longest()
        if longest is not None and longest < scope.workload.longest:
            raise _too_long(scope, longest, "the server")
        version = await engine.version()
        if not await engine.forget_prefixes():
            say(
                "the server cannot empty its prefix cache (it could with VLLM_SERVER_DEV_MODE=1): "
                "every point gets prompts of its own"
            )
        journal = _journal(options, inputs, version)
        try:
            measured, notes = await _points(engine, inputs, journal, told, status)
            series = series_of(measured, scope.workload, _degree(options), inputs.share, inputs.neighbours)
            notes = (measured.notes, *notes, *inputs.notes)
            document = _profile(options, inputs, version, journal.date, notes, series=(series,))
            place.deliver(document)
            journal.remove()
        except NoGoodPoint:
            # Whoever mends the server wants to begin anew.
            journal.remove()
            raise
        finally:
            journal.close()
    return document


async def _points(
    engine: Engine, inputs: _Inputs, journal: Journal, told: Any, status: Any
) -> tuple[Measured, tuple[str, ...]]:
    """Rehearse and measure, beside a busy neighbour where that is asked for; return what is to be said of it, too.

    Raises:
        TryAgain: the neighbour ended; no point that was measured without it is in the journal.
    """

    async def points(check: Callable[[], None]) -> Measured:
        status("rehearsing: the longest call, then as many as may run at once")
        await rehearse(engine, inputs.scope)
        return await measure(engine, inputs.scope, journal, told, status, check)

    if inputs.serving is None or inputs.neighbours == "idle":
        return await points(lambda: None), ()
    status("waiting for the neighbour")
    async with Neighbour(inputs.serving, told) as neighbour:
        await neighbour.ready()
        measured = await neighbour.beside(points(neighbour.check))
        return measured, (await neighbour.stop(),)


@asynccontextmanager
async def _engine(options: Options, inputs: _Inputs, say: Any, status: Any) -> AsyncIterator[Engine]:
    """Give a server that is healthy.

    Raises:
        DoesNotRun: it ran out of memory, sooner or later.
        NotUnderstood: it does not take its flags.
        TryAgain: whatever else went wrong with it.
    """
    try:
        if isinstance(options.server, Up):
            name = options.server.served_as or options.model
            async with Engine(options.server.base_url, name, inputs.key) as engine:
                health = f"waiting for {engine.base_url}/health"
                status(health)
                await engine.wait(inputs.wait, lambda problem: status(f"{health}: {problem}"))
                yield engine
            return
        assert inputs.serving is not None  # noqa: S101 - made with such a server
        async with Vllm(inputs.serving, say) as vllm, Engine(vllm.url, inputs.serving.name, vllm.key) as engine:
            status(f"waiting for vLLM with {inputs.serving.model}")
            await vllm.healthy(engine, inputs.wait)
            try:
                yield engine
            except ScepsyError as error:
                verdict = await vllm.verdict() if await engine.healthy() is not None else None
                if verdict is None:
                    raise
                raise verdict from error
    except (DoesNotRun, NotUnderstood, TryAgain, TakenJournal, OtherJournal):
        raise
    except ScepsyError as error:
        raise TryAgain(error.message, error.hint) from error


def _journal(options: Options, inputs: _Inputs, version: str) -> Journal:
    """Open the journal: that of an earlier attempt, if it is one of the same arguments."""
    arguments = _arguments(options, inputs, version)
    try:
        return Journal(options.place.journal, arguments, inputs.date)
    except OtherJournal as error:
        options.place.other(error)
        return Journal(options.place.journal, arguments, inputs.date)


def _inputs(options: Options) -> _Inputs:
    """Check everything that can be checked without the server."""
    share, server, place = _share(options.share), options.server, options.place
    _valid(ModelId, options.model, "--model")
    _valid(Product, options.product, "--product")
    if options.revision is not None:
        _valid(Revision, options.revision, "--revision")
    point = f"tp{options.tp}-s{round(share * 10)}"
    if isinstance(place, Files):
        name = _valid(NodeName, _slug(place.output.stem), "-o")
    else:
        name = _valid(NodeName, f"{_slug(options.model.rpartition('/')[2])[:200]}-{point}", "--model")
    place.prepare(point)
    if isinstance(server, Own):
        find_vllm()
    config = read_config(options.config or fetched(options.model, options.revision, "config.json"))
    with place.calls() as calls:
        # The file of a job is a temporary one of ours.
        workload, digest = read_workload(calls, options.llm, calls.name if isinstance(place, Job) else "")
    parameters = options.parameters
    if parameters is None and options.config is None:
        parameters = parameters_of(options.model, options.revision, config)
    architecture = architecture_of(config, parameters, options.flags)
    image, notes = _image(options.image_digest)
    inputs = _Inputs(
        scope=Scope(workload, vocabulary_of(config), options.max_num_seqs, option_duration(options.budget, "--budget")),
        architecture=architecture,
        key=_key(server) if isinstance(server, Up) else None,
        serving=None,
        share=share,
        wait=option_duration(options.wait or _UP_WITHIN, "--wait"),
        name=name,
        calls=digest,
        image_digest=image,
        driver=options.driver,
        notes=notes,
        date=_date(options.date),
    )
    return _with_serving(options, server, inputs) if isinstance(server, Own) else inputs


def _with_serving(options: Options, server: Own, inputs: _Inputs) -> _Inputs:
    """Add how a server of our own serves, and look at the GPUs that it will have."""
    try:
        card = parse_memory(int(server.memory) if server.memory.isdecimal() else server.memory)
    except ValueError as error:
        raise ScepsyError(f"--memory: {error}") from error
    serving = Serving(
        name=options.llm,
        model=options.model,
        revision=options.revision,
        architecture=inputs.architecture,
        tp=options.tp,
        share=inputs.share,
        sharing=server.sharing,
        card=card,
        max_model_len=server.max_model_len or inputs.architecture.context_length,
        max_num_seqs=options.max_num_seqs,
        extra=options.flags,
        neighbours=server.neighbours,
    )
    if inputs.scope.workload.longest > serving.max_model_len:
        raise _too_long(inputs.scope, serving.max_model_len, "--max-model-len")
    whole = inputs.share == 1.0 or backend_of(server.sharing).shows_whole_card
    driver = check_gpus(options.product, options.tp, card if whole else None)
    unseen = ("There is no nvidia-smi, so nobody verified that the GPU is the product.",) if driver is None else ()
    return replace(
        inputs,
        serving=serving,
        wait=startup_seconds(serving.weights) if options.wait is None else inputs.wait,
        driver=options.driver or driver,
        notes=(*inputs.notes, *unseen),
    )


def _too_long(scope: Scope, longest: int, who: str) -> ScepsyError:
    return ScepsyError(
        f"the longest recorded call has {scope.workload.longest} tokens, {who} allows {longest}",
        f"start it with --max-model-len {scope.workload.longest} or more",
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")


def _degree(options: Options) -> TensorParallel:
    return options.tp  # type: ignore[return-value]  # click offers these four only


def _image(given: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the digest in what may be an image, and what is to be said where there is none."""
    if given is None:
        return None, ()
    digest = given.rpartition("@")[2]
    if re.fullmatch(r"[a-z0-9]+:[0-9a-f]{32,}", digest):
        return digest, ()
    return None, (f"The image {given} was not pinned by its digest.",)


def _valid(kind: Any, value: str, option: str) -> str:
    try:
        checked: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ScepsyError(
            f"{option}: {printable(str(error.errors()[0]['msg']).removeprefix('Value error, '))}"
        ) from error
    return checked


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


def _key(server: Up) -> str | None:
    variable = server.api_key_env
    if variable is None:
        return None
    key = read_token(os.environ, variable)
    if key is None:
        raise ScepsyError(f"--api-key-env: the environment variable {variable} is not set")
    address = urlsplit(server.base_url)
    check_encrypted(address.scheme, address.hostname or "", "API key")
    return key


def _flags(options: Options, inputs: _Inputs) -> tuple[str, ...]:
    return options.flags if inputs.serving is None else inputs.serving.flags


def _arguments(options: Options, inputs: _Inputs, version: str) -> Mapping[str, Any]:
    """Return what must be the same for a measurement to go on; the server may have moved, and its key changed."""
    return {
        "model": options.model,
        "revision": options.revision,
        "engine": version,
        "trace": inputs.calls,
        "llm": options.llm,
        "product": options.product,
        "tp": options.tp,
        "share": inputs.share,
        "max-num-seqs": options.max_num_seqs,
        "vocabulary": inputs.scope.vocabulary,
        "budget": inputs.scope.budget,
        "image-digest": inputs.image_digest,
        "driver": inputs.driver,
        "flags": list(_flags(options, inputs)),
        # Left out where they are idle, as in journals of before there were others.
        **({"neighbours": "busy"} if inputs.neighbours == "busy" else {}),
    }


def _profile(
    options: Options,
    inputs: _Inputs,
    version: str,
    day: str,
    notes: Sequence[str],
    series: tuple[Series, ...] = (),
    unusable: tuple[Unusable, ...] = (),
) -> Profile:
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
                image_digest=inputs.image_digest,
                driver=inputs.driver,
                flags=_flags(options, inputs),
                trace_digest=options.trace_digest or inputs.calls,
                llm=options.llm,
                date=day,
                notes=" ".join(notes) or None,
            ),
            series=series,
            unusable=unusable,
        ),
    )


def command(options: Options) -> str:
    """Return the command that reproduces a measurement, without secrets and without folders of this machine."""
    words: list[tuple[str, str | int | None]] = []
    server, place = options.server, options.place
    if isinstance(server, Up):
        words += [
            ("--base-url", server.base_url),
            ("--served-as", server.served_as),
            ("--api-key-env", server.api_key_env),
        ]
    else:
        words += [("--memory", server.memory), ("--sharing", server.sharing), ("--max-model-len", server.max_model_len)]
        words += [("--neighbours", server.neighbours)] if server.neighbours == "busy" else []
        words += [("--flag", flag) for flag in options.flags]
    words += [("--model", options.model), ("--revision", options.revision)]
    words += [("--trace", place.trace.name if isinstance(place, Files) else "calls.jsonl")]
    words += [
        ("--llm", options.llm),
        ("--product", options.product),
        ("--tp", options.tp),
        ("--share", f"{options.share:g}"),
        ("--config", options.config.name if options.config else None),
        ("--parameters", options.parameters),
        ("--max-num-seqs", options.max_num_seqs),
        ("--budget", options.budget),
    ]
    words += [("-o", place.output.name)] if isinstance(place, Files) else []
    given = [str(word) for name, value in words if value is not None for word in (name, value)]
    return shlex.join(["scepsy", "profile", "run", *(["--serve"] if isinstance(server, Own) else []), *given])


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
