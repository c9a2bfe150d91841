"""An engine of our own to measure: `vllm serve` as a child process, started as an instance starts it.

And what may run beside it: a neighbour on the rest of its GPUs. Neither outlives whoever started it (`child`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from statistics import mean
from types import TracebackType
from typing import Any, Self, TypeVar

from scepsy.documents.cluster import Sharing
from scepsy.documents.diagnostics import printable
from scepsy.documents.profile import Architecture, Neighbours
from scepsy.documents.units import significant
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import QUIET, arguments
from scepsy.performance import InstanceMemory, fit
from scepsy.performance.memory import CARD_RESERVE, MIB
from scepsy.pipeline import shortage
from scepsy.profiling.measuring import neighbour
from scepsy.profiling.measuring.child_process import Child, Ended
from scepsy.profiling.measuring.vllm_client import Engine
from scepsy.sharing import BACKENDS, backend_of

T = TypeVar("T")

TAIL = 50
"""Lines of its log that are kept."""
NEIGHBOUR = 2 << 30
"""Bytes that a neighbour may use of each GPU: two buffers, and the CUDA context, which counts too."""
_ENDING = 10.0
"""Seconds in which an engine that failed a call may take to end, and to say why."""
_ASK = 300.0
"""Seconds for a program that only prints something; vLLM imports for half a minute on a busy machine."""

Say = Callable[[str], None]


class DoesNotRun(ScepsyError):
    """The shape cannot serve the model: that is a result, not a failure.

    Args:
        message: why.
        longest: tokens of the longest call that it should have held, if shorter ones might fit.
    """

    def __init__(self, message: str, longest: int | None = None) -> None:
        super().__init__(message)
        self.longest = longest


class NotUnderstood(ScepsyError):
    """vLLM does not take its command line, and will not another time."""


class TryAgain(ScepsyError):
    """Something failed that may go well another time."""


@dataclass(frozen=True)
class Serving:
    """An engine on a shape of its own, as `manifests.engine.Served` has it.

    Attributes:
        name: what clients send as `model`.
        model: the model's id.
        revision: its revision.
        architecture: its shape, from which its memory follows.
        tp: tensor-parallel degree.
        share: share of each GPU.
        sharing: how GPUs are shared.
        card: bytes of one GPU.
        max_model_len: longest call in tokens.
        max_num_seqs: most calls that run at once.
        extra: more flags.
        neighbours: what the rest of each GPU does meanwhile.
    """

    name: str
    model: str
    revision: str | None
    architecture: Architecture
    tp: int
    share: float
    sharing: Sharing
    card: int
    max_model_len: int
    max_num_seqs: int
    extra: tuple[str, ...] = ()
    neighbours: Neighbours = "idle"

    @property
    def memory(self) -> InstanceMemory:
        """How it divides its part of each GPU."""
        return fit(self.architecture, self.card, self.tp, round(self.share * 10))

    @property
    def memory_per_gpu(self) -> int:
        """Bytes that it may use of each GPU."""
        return self.memory.total

    @property
    def kv_cache_per_gpu(self) -> int:
        """Part of them that is KV cache."""
        return self.memory.kv_cache

    @property
    def weights(self) -> int:
        """Bytes of its weights over all GPUs."""
        return self.memory.weights * self.tp

    def check(self) -> None:
        """Check that it can run at all.

        Raises:
            DoesNotRun: the shape cannot hold the model and one call.
            ScepsyError: the sharing has no such share or neighbours, or the model no such long calls.
        """
        own = self.architecture
        if self.share < 1.0 and not backend_of(self.sharing).fractions:
            names = " or ".join(backend.name for backend in BACKENDS if backend.fractions)
            raise ScepsyError(f"--share {self.share:g} of a GPU needs --sharing {names}")
        if self.neighbours == "busy":
            self._check_neighbours()
        if self.max_model_len > own.context_length:
            raise ScepsyError(
                f"--max-model-len is {self.max_model_len}, the model has a context of {own.context_length} tokens"
            )
        if own.attention_heads % self.tp:
            raise DoesNotRun(f"the model's {own.attention_heads} attention heads cannot be divided by TP {self.tp}")
        short = shortage(self.memory, self.max_model_len)
        if short is not None:
            raise DoesNotRun(short, self.max_model_len if self.memory.kv_cache > 0 else None)

    def arguments(self, port: int) -> list[str]:
        """Return the arguments of `vllm serve`: those of an instance, on loopback."""
        return [*arguments(self, self.card, self.sharing, port), "--host=127.0.0.1", *self.extra]

    @property
    def flags(self) -> tuple[str, ...]:
        """What of them decides over the figures."""
        elsewhere = ("--served-model-name=", "--port=", "--host=", "--shutdown-timeout=")
        return tuple(word for word in self.arguments(0)[1:] if not word.startswith(elsewhere))

    def environment(self) -> dict[str, str]:
        """Return what an engine of this shape has in its environment, the API key left out."""
        limits = backend_of(self.sharing).environment(self.share, self.memory_per_gpu, self.tp)
        # Emptying the prefix cache is an endpoint of vLLM's development mode.
        return {**QUIET, **limits, "VLLM_SERVER_DEV_MODE": "1"}

    def neighbour_environment(self) -> dict[str, str]:
        """Return what a neighbour has in its environment: all SMs that are not the engine's, and little memory."""
        return backend_of(self.sharing).environment(1 - self.share, NEIGHBOUR, self.tp)

    def _check_neighbours(self) -> None:
        if self.share == 1.0:
            raise ScepsyError("--neighbours busy needs a --share below 1: nothing else runs on a whole GPU")
        if not backend_of(self.sharing).busy_neighbours:
            names = " or ".join(backend.name for backend in BACKENDS if backend.busy_neighbours)
            raise ScepsyError(
                f"--neighbours busy needs --sharing {names}, not {self.sharing}",
                "only under MPS can another process of the job have the rest of the GPU",
            )
        if importlib.util.find_spec("torch") is None:
            raise ScepsyError(
                "--neighbours busy needs torch beside Scepsy",
                "run this in vLLM's image, or pip install 'scepsy[profiling]'",
            )
        rest = self.card - CARD_RESERVE - self.memory_per_gpu
        if rest < NEIGHBOUR:
            raise ScepsyError(
                f"--share {self.share:g} leaves {rest // MIB} MiB of each GPU, "
                f"a busy neighbour needs {NEIGHBOUR // MIB} MiB"
            )


class Vllm:
    """`vllm serve`, for as long as its context lasts.

    Args:
        serving: what it serves.
        say: gets the lines of its log.

    Raises:
        ScepsyError: (on entering) there is no `vllm`.
    """

    def __init__(self, serving: Serving, say: Say) -> None:
        self.serving = serving
        self.key = secrets.token_urlsafe(32)
        self._log = Log([self.key, os.environ.get("HF_TOKEN", "")], say)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        program = find_vllm()
        self._port = _free_port()
        environment = {"USER": "vllm", **os.environ, **self.serving.environment(), "VLLM_API_KEY": self.key}
        self._child = Child((program, "serve", *self.serving.arguments(self._port)), environment, self._log.add)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._child.stop()

    async def healthy(self, engine: Engine, seconds: float) -> None:
        """Wait until it is healthy.

        Args:
            engine: a client of it.
            seconds: how long at most.

        Raises:
            DoesNotRun: it ended for want of GPU memory.
            NotUnderstood: it did not take its command line.
            TryAgain: it ended for another reason.
            ScepsyError: it is not healthy after so many seconds.
        """
        try:
            await self._child.beside(engine.wait(seconds))
        except Ended:
            raise await self._verdict() from None

    async def verdict(self) -> ScepsyError | None:
        """Return why it ended, once a call to it has failed; None if it did not."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._child.ended(), _ENDING)
            return await self._verdict()
        return None

    async def _verdict(self) -> ScepsyError:
        await self._child.read()
        log = self._log
        if log.foreign:
            return TryAgain(f"the GPU is in use by something else: {log.foreign}")
        if log.memory:
            longest = self.serving.max_model_len if _LENGTH.search(log.memory) else None
            return DoesNotRun(f"out of memory: {log.memory}", longest)
        how = self._child.how
        message = f"vLLM {how}: {log.reason}" if log.reason else f"vLLM {how}, and said nothing"
        return NotUnderstood(message) if self._child.status == 2 and "error: " in log.reason else TryAgain(message)


class Neighbour:
    """A program that keeps the rest of an engine's GPUs busy (`measuring.neighbour`), for as long as its context lasts.

    Args:
        serving: the engine beside which it runs; both are clients of one MPS daemon.
        say: gets what it prints.
    """

    def __init__(self, serving: Serving, say: Say) -> None:
        self.serving = serving
        self._log = Log([os.environ.get("HF_TOKEN", "")], lambda line: say(f"neighbour: {line}"))
        self._ready = threading.Event()
        self._report = b""

    async def __aenter__(self) -> Self:
        # As a file, which loads nothing else of Scepsy; -P: nor what lies beside it, whose names torch may import.
        command = (sys.executable, "-P", neighbour.__file__)
        self._child = Child(command, {**os.environ, **self.serving.neighbour_environment()}, self._add)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._child.stop()

    async def ready(self) -> None:
        """Wait until it keeps all GPUs busy.

        Raises:
            TryAgain: it ended, or takes too long.
        """
        try:
            await asyncio.wait_for(self._child.beside(self._busy()), _ASK)
        except Ended:
            await self._child.read()
            raise self._gone() from None
        except TimeoutError:
            raise TryAgain(f"the neighbour did not run within {_ASK:g} s") from None

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Measure something, for as long as it runs.

        Raises:
            TryAgain: it ended first.
        """
        try:
            return await self._child.beside(work)
        except Ended:
            await self._child.read()
            raise self._gone() from None

    def check(self) -> None:
        """Check that it still runs: what was measured without it is not what was asked for.

        Raises:
            TryAgain: it does not.
        """
        if self._child.status is not None:
            raise self._gone()

    async def stop(self) -> str:
        """Stop it, and return in a sentence what it drew."""
        await self._child.stop()
        other = round((1 - self.serving.share) * 100)
        kernel = f"Neighbours: a copy kernel on the other {other} % of the SMs"
        with contextlib.suppress(ValueError, KeyError, TypeError):
            rates = [float(rate) for rate in json.loads(self._report)["bytesPerSecond"]]
            if rates and min(rates) > 0:
                each = " of each GPU" if len(rates) > 1 else ""
                return f"{kernel} drew {significant(mean(rates) / 1e9, 3)} GB/s{each}."
        return f"{kernel} ran all the time, and did not say what it drew."

    async def _busy(self) -> None:
        while not self._ready.is_set():
            await asyncio.sleep(0.1)

    def _gone(self) -> TryAgain:
        reason = f", {self._log.reason}" if self._log.reason else ""
        return TryAgain(f"the neighbour {self._child.how}{reason}: {_UNTRUE}")

    def _add(self, line: bytes) -> None:
        if line.strip() == neighbour.READY.encode():
            self._ready.set()
        elif line.startswith(b"{"):
            self._report = line
        else:
            self._log.add(line)


_UNTRUE = "what was measured since is not to be trusted, and was left out"


class Log:
    """What an engine prints: passed on, and searched for why it ended.

    Args:
        secrets: texts that are not passed on.
        say: gets the lines; those of successful requests are left out.

    Attributes:
        tail: its last lines.
        memory: the first line that says that GPU memory was too small.
        foreign: the first line that says that something else has the memory.
    """

    def __init__(self, secrets: Sequence[str], say: Say) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.memory = self.foreign = self._error = ""
        self._secrets = [secret for secret in secrets if secret]
        self._say = say

    @property
    def reason(self) -> str:
        """The last line that names an error which is not the consequence of another one; else the last line."""
        return self._error or next((_bare(line) for line in reversed(self.tail) if _bare(line)), "")

    def add(self, line: bytes) -> None:
        """Take a line."""
        text = _COLOUR.sub("", line.decode("utf-8", "replace")).rstrip()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if not text or _ACCESS.search(text):
            return
        text = printable(text)
        self.tail.append(text)
        self._say(text)
        if _HARMLESS.search(text):
            return
        bare = _bare(text)[:600]
        if not self.foreign and _FOREIGN.search(bare):
            self.foreign = bare
        if not self.memory and _MEMORY.search(bare):
            self.memory = bare
        if _ERROR.search(bare) and not _CONSEQUENCE.search(bare):
            self._error = bare


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ACCESS = re.compile(r'"(GET|POST) /\S* HTTP/1\.[01]" 200')
# As vllm.logger and the prefixes of its processes write them: (EngineCore pid=12) ERROR 11-21 17:00:00 [core.py:1510] …
_HARMLESS = re.compile(r"^(\(.{1,60}?\) )?(INFO|DEBUG|WARNING)[: ]")
_PREFIX = re.compile(r"^(\([^()]* pid=\d+\) ?)?(\w+ \d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \[[^\]]*\] ?)?")
# vllm/v1/core/kv_cache_utils.py, _check_enough_kv_cache_memory; the second one until 0.8.
_LENGTH = re.compile(
    r"larger than the available KV cache memory"
    r"|larger than the maximum number of tokens that can be stored in KV cache"
)
_MEMORY = re.compile(
    # torch, and CUDA behind it.
    r"OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    # NCCL.
    r"|Cuda failure \d* ?'out of memory'"
    # vllm/v1/worker/gpu_model_runner.py, load_model.
    r"|not enough GPU memory"
    r"|No available memory for the cache blocks|" + _LENGTH.pattern
)
# vllm/v1/worker/utils.py, request_memory; vllm/v1/worker/cpu_worker.py says the same of a CPU's.
_FOREIGN = re.compile(r"(Free|Available) memory on .{1,200} is less than ")
_ERROR = re.compile(r"^\s*([\w.]*(Error|Exception)\b.*?: |Value error, )|: error: |: not found$")
_CONSEQUENCE = re.compile(r"initialization failed|failed to start|EngineDeadError|See (root cause|stack trace)")


def _bare(line: str) -> str:
    """Return a line without the time and place that vLLM puts before it."""
    return " ".join(_PREFIX.sub("", line).split())


def find_vllm() -> str:
    """Return the path of the program `vllm`.

    Raises:
        ScepsyError: there is none.
    """
    program = shutil.which("vllm")
    if program is None:
        raise ScepsyError(
            "there is no program `vllm` to serve the model with",
            "run this in vLLM's image, pip install 'scepsy[profiling]', or measure a server that is up: --base-url",
        )
    return program


def engine_version() -> str:
    """Return what `vllm --version` says; for an engine that never answered.

    Raises:
        ScepsyError: it says none.
    """
    try:
        done = subprocess.run(  # noqa: S603 - from PATH, no shell
            [find_vllm(), "--version"],
            env={**os.environ, **QUIET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_ASK,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScepsyError(f"cannot run `vllm --version`: {error}") from error
    # Warnings may come before it.
    words = done.stdout.split()
    if done.returncode or not words:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        raise ScepsyError(f"`vllm --version` does not say a version: {printable(said)[:300]}")
    return words[-1]


def check_gpus(product: str, tp: int, memory: int | None) -> str | None:
    """Check, where there is an `nvidia-smi`, that the GPUs are what they are said to be.

    Args:
        product: the GPU product, as in the node label `nvidia.com/gpu.product`: its name with dashes for spaces.
        tp: so many there must be.
        memory: bytes of a card; None where what is seen is no whole card.

    Returns:
        The driver's version; None where there is no `nvidia-smi`.

    Raises:
        TryAgain: it fails.
        ScepsyError: the GPUs are others: their figures would be false.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - from PATH, no shell
            query, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=_ASK
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TryAgain(f"cannot run nvidia-smi: {error}") from error
    rows = [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not rows or any(len(row) != 3 for row in rows):
        said = printable(" ".join((done.stderr or done.stdout).split()))[:300]
        raise TryAgain(f"nvidia-smi does not say which GPUs there are: {said or f'status {done.returncode}'}")
    for name, _, total in rows:
        label = re.sub(r"\s+", "-", name)
        if label != product:
            raise ScepsyError(
                f"the GPU is a {label}, not a {product}", "nothing was measured: figures belong to a card"
            )
        # A profile's memory is the cluster's, which people round: the reserve of a card covers that.
        if memory is not None and total.isdecimal() and int(total) * MIB < memory - CARD_RESERVE:
            raise ScepsyError(f"the GPU has {int(total)} MiB, --memory says {memory // MIB} MiB")
    if len(rows) < tp:
        raise ScepsyError(f"there are {len(rows)} GPUs, TP {tp} needs {tp}")
    return rows[0][1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
