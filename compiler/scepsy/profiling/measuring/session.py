"""One measurement, from options to Profile: check, start or reach the server, measure, write, resume."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from scepsy.documents import Profile
from scepsy.documents.profile import Unusable
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.interruption import Interrupted, Interruption

try:
    from scepsy.profiling.measuring import Engine, Journal, Measured, NoGoodPoint, measure, rehearse, series_of
    from scepsy.profiling.measuring.failures import DoesNotRun, NotUnderstood, TryAgain
    from scepsy.profiling.measuring.inputs import Inputs, check_inputs, too_long
    from scepsy.profiling.measuring.job_directory import JobDirectory
    from scepsy.profiling.measuring.journal import OtherJournal, TakenJournal
    from scepsy.profiling.measuring.neighbour import BusyNeighbour
    from scepsy.profiling.measuring.options import DEFAULT, Options, RunningServer, options_of
    from scepsy.profiling.measuring.profile_document import journal_arguments, profile_document, tensor_parallel
    from scepsy.profiling.measuring.vllm_server import VllmServer, engine_version
except ModuleNotFoundError as missing:
    if missing.name != "aiohttp":
        raise
    raise ScepsyError("profile run needs the package aiohttp", "pip install aiohttp, or scepsy[profiling]") from missing

Say = Callable[[str], None]


def run(values: Mapping[str, Any], say: Say, status: Say) -> int:
    """Measure, and write the Profile; until then a journal keeps the complete points.

    Args:
        values: the command's options by their names.
        say: gets the lines that stay.
        status: gets what is being done now.

    Returns:
        The exit code.

    Raises:
        ScepsyError: the measurement failed, and there is no Profile. A job reports that in its directory instead.
    """
    with Interruption() as interruption:
        if values["job"] is not None:
            job = JobDirectory(values["job"], say)
            return job.conclude(lambda: _run(options_of(values, job), interruption, say, status), interruption)
        document = _run_interactively(options_of(values, None), interruption, say, status)
    written = values["output"] or DEFAULT
    if document.spec.unusable:
        say(f"wrote {written}: this shape does not run: {document.spec.unusable[0].reason}")
    else:
        say(f"wrote {written}: R(k) at {len(document.spec.series[0].points)} concurrencies")
    return 0


def refuse(directory: Path, message: str, say: Say) -> None:
    """Report an invalid command line in a job's directory."""
    JobDirectory(directory, say).refuse(message)


def _run_interactively(options: Options, interruption: Interruption, say: Say, status: Say) -> Profile:
    """Measure; an error or an interruption says how to resume."""
    partial = options.files.journal
    try:
        return _run(options, interruption, say, status)
    except Interrupted:
        kept = "re-run the same command to resume after the last complete point" if partial.exists() else ""
        raise ScepsyError(f"interrupted; {partial} was kept" if kept else "interrupted", kept) from None
    except ScepsyError as error:
        if error.hint or not partial.exists():
            raise
        raise ScepsyError(
            error.message, f"{partial} was kept: re-run the same command to resume, or delete the file to start over"
        ) from error


def _run(options: Options, interruption: Interruption, say: Say, status: Say) -> Profile:
    """Measure and write the Profile."""
    inputs = check_inputs(options)
    try:
        if inputs.serving is not None:
            inputs.serving.check()
        document = interruption.run(_measure(options, inputs, say, status))
    except DoesNotRun as error:
        reason = error.message if len(error.message) <= 1000 else error.message[:999] + "…"
        version = engine_version()
        unusable = Unusable(tp=tensor_parallel(options), share=inputs.share, reason=reason, max_model_len=error.longest)
        document = profile_document(options, inputs, version, inputs.date, inputs.notes, unusable=(unusable,))
        options.files.deliver(document)
        options.files.journal.unlink(missing_ok=True)
    return document


async def _measure(options: Options, inputs: Inputs, say: Say, status: Say) -> Profile:
    scope, files = inputs.scope, options.files

    def report(line: str) -> None:
        files.update()
        say(line)

    async with _engine(options, inputs, say, status) as engine:
        longest = await engine.longest()
        if longest is not None and longest < scope.workload.longest:
            raise too_long(scope, longest, "the server")
        version = await engine.version()
        if not await engine.forget_prefixes():
            say(
                "the server cannot empty its prefix cache (VLLM_SERVER_DEV_MODE=1 is not set): "
                "every point uses different prompts"
            )
        journal = _journal(options, inputs, version)
        try:
            measured, notes = await _points(engine, inputs, journal, report, status)
            series = series_of(measured, scope.workload, tensor_parallel(options), inputs.share, inputs.neighbours)
            notes = (measured.notes, *notes, *inputs.notes)
            document = profile_document(options, inputs, version, journal.date, notes, series=(series,))
            files.deliver(document)
            journal.remove()
        except NoGoodPoint:
            # Once the server is fixed, its old points are no longer valid.
            journal.remove()
            raise
        finally:
            journal.close()
    return document


async def _points(
    engine: Engine, inputs: Inputs, journal: Journal, report: Say, status: Say
) -> tuple[Measured, tuple[str, ...]]:
    """Rehearse and measure, beside a busy neighbour if asked; return the points, and notes on the neighbour.

    Raises:
        TryAgain: the neighbour ended; the journal has no point that was measured without it.
    """

    async def points(check: Callable[[], None]) -> Measured:
        status("rehearsing: the longest call, then as many as may run at once")
        await rehearse(engine, inputs.scope)
        return await measure(engine, inputs.scope, journal, report, status, check)

    if inputs.serving is None or inputs.neighbours == "idle":
        return await points(lambda: None), ()
    status("waiting for the neighbour")
    async with BusyNeighbour(inputs.serving, report) as neighbour:
        await neighbour.ready()
        measured = await neighbour.beside(points(neighbour.check))
        return measured, (await neighbour.stop(),)


@asynccontextmanager
async def _engine(options: Options, inputs: Inputs, say: Say, status: Say) -> AsyncIterator[Engine]:
    """Yield a client of a healthy server.

    Raises:
        DoesNotRun: the server ran out of memory.
        NotUnderstood: the server does not accept its flags.
        TryAgain: the server failed for another reason.
    """
    try:
        if isinstance(options.server, RunningServer):
            name = options.server.served_as or options.model
            async with Engine(options.server.base_url, name, inputs.key) as engine:
                health = f"waiting for {engine.base_url}/health"
                status(health)
                await engine.wait(inputs.wait, lambda problem: status(f"{health}: {problem}"))
                yield engine
            return
        assert inputs.serving is not None  # noqa: S101 - made with such a server
        async with VllmServer(inputs.serving, say) as vllm, Engine(vllm.url, inputs.serving.name, vllm.key) as engine:
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


def _journal(options: Options, inputs: Inputs, version: str) -> Journal:
    """Open the journal; that of an earlier attempt with the same arguments is resumed."""
    arguments = journal_arguments(options, inputs, version)
    try:
        return Journal(options.files.journal, arguments, inputs.date)
    except OtherJournal as error:
        options.files.replace_journal(error)
        return Journal(options.files.journal, arguments, inputs.date)
