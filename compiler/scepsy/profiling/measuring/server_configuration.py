"""How vLLM is started for a measurement: flags, environment and memory, as an instance of a Plan gets them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from scepsy.documents.cluster import Sharing
from scepsy.documents.profile import Architecture, Neighbours
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import QUIET, arguments
from scepsy.performance import InstanceMemory, fit
from scepsy.performance.memory import CARD_RESERVE, MIB
from scepsy.pipeline import shortage
from scepsy.profiling.measuring.failures import DoesNotRun
from scepsy.sharing import BACKENDS, backend_of

NEIGHBOUR = 2 << 30
"""Bytes that a neighbour may use of each GPU: two buffers, and the CUDA context, which counts too."""


@dataclass(frozen=True)
class ServerConfiguration:
    """How one engine serves a model on a shape; see `manifests.engine.Served`.

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
        neighbours: load on the rest of each GPU.
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
        """How its memory on each GPU is divided."""
        return fit(self.architecture, self.card, self.tp, round(self.share * 10))

    @property
    def memory_per_gpu(self) -> int:
        """Bytes that it may use of each GPU."""
        return self.memory.total

    @property
    def kv_cache_per_gpu(self) -> int:
        """Bytes of them that are KV cache."""
        return self.memory.kv_cache

    @property
    def weights(self) -> int:
        """Bytes of its weights over all GPUs."""
        return self.memory.weights * self.tp

    def check(self) -> None:
        """Check that the shape can run.

        Raises:
            DoesNotRun: the shape cannot hold the model and one call.
            ScepsyError: the sharing mode does not allow the share or the neighbours, or the model so long calls.
        """
        architecture = self.architecture
        if self.share < 1.0 and not backend_of(self.sharing).fractions:
            names = " or ".join(backend.name for backend in BACKENDS if backend.fractions)
            raise ScepsyError(f"--share {self.share:g} of a GPU needs --sharing {names}")
        if self.neighbours == "busy":
            self._check_neighbours()
        if self.max_model_len > architecture.context_length:
            raise ScepsyError(
                f"--max-model-len is {self.max_model_len}, "
                f"the model has a context of {architecture.context_length} tokens"
            )
        if architecture.attention_heads % self.tp:
            raise DoesNotRun(
                f"the model's {architecture.attention_heads} attention heads cannot be divided by TP {self.tp}"
            )
        short = shortage(self.memory, self.max_model_len)
        if short is not None:
            raise DoesNotRun(short, self.max_model_len if self.memory.kv_cache > 0 else None)

    def arguments(self, port: int) -> list[str]:
        """Return the arguments of `vllm serve`: those of an instance, on loopback."""
        return [*arguments(self, self.card, self.sharing, port), "--host=127.0.0.1", *self.extra]

    @property
    def flags(self) -> tuple[str, ...]:
        """The arguments that affect latency."""
        unrelated = ("--served-model-name=", "--port=", "--host=", "--shutdown-timeout=")
        return tuple(word for word in self.arguments(0)[1:] if not word.startswith(unrelated))

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the engine, without the API key."""
        limits = backend_of(self.sharing).environment(self.share, self.memory_per_gpu, self.tp)
        # vLLM serves the endpoint that empties the prefix cache only in development mode.
        return {**QUIET, **limits, "VLLM_SERVER_DEV_MODE": "1"}

    def neighbour_environment(self) -> dict[str, str]:
        """Return the environment variables of a neighbour: all SMs that are not the engine's, and little memory."""
        return backend_of(self.sharing).environment(1 - self.share, NEIGHBOUR, self.tp)

    def _check_neighbours(self) -> None:
        if self.share == 1.0:
            raise ScepsyError("--neighbours busy needs a --share below 1: nothing else runs on a whole GPU")
        if not backend_of(self.sharing).busy_neighbours:
            names = " or ".join(backend.name for backend in BACKENDS if backend.busy_neighbours)
            raise ScepsyError(
                f"--neighbours busy needs --sharing {names}, not {self.sharing}",
                "only MPS lets another process of the job use the rest of the GPU",
            )
        if importlib.util.find_spec("torch") is None:
            raise ScepsyError(
                "--neighbours busy needs torch, which is not installed",
                "run this in vLLM's image, or pip install 'scepsy[profiling]'",
            )
        rest = self.card - CARD_RESERVE - self.memory_per_gpu
        if rest < NEIGHBOUR:
            raise ScepsyError(
                f"--share {self.share:g} leaves {rest // MIB} MiB of each GPU, "
                f"a busy neighbour needs {NEIGHBOUR // MIB} MiB"
            )
