"""The serving pods: vLLM's command line, its environment, and what the pods of an LLM may add.

The Deployment itself, with its probes, is templates/deployment-engine.yaml.j2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from scepsy.documents.cluster import Sharing
from scepsy.documents.plan import Instance, PlannedLlm
from scepsy.documents.project import EngineSettings
from scepsy.documents.units import format_memory
from scepsy.documents.workflow import PodTemplate
from scepsy.errors import ScepsyError
from scepsy.sharing import backend_of

PORT = 8000
"""Port of the OpenAI API, `/health` and `/metrics`."""
USER = 2000
"""UID and GID of all engines: co-tenants of an MPS daemon must have the same, or it serves them one after another."""
HOME = "/home/vllm"
"""An emptyDir; the image's home belongs to root."""
CACHE = "/models"
"""Where the model cache is mounted; `HF_HOME`."""

PRE_STOP = 15
"""Seconds between the removal of a pod from its Services and SIGTERM: gateways learn of it meanwhile."""
SHUTDOWN = 120
"""Seconds in which a stopping engine finishes running requests (vLLM's --shutdown-timeout)."""
GRACE = PRE_STOP + SHUTDOWN + 30
"""Seconds until the kubelet kills a stopping pod."""

GIB = 1 << 30
MIB = 1 << 20
START = 300
"""Seconds an engine takes to start beside reading its weights: imports, compilation, CUDA graphs."""
READ_RATE = 50 * MIB
"""Bytes of weights per second that a slow hub or volume delivers."""
STARTUP_PROBE_PERIOD = 10
"""Seconds between two startup probes."""
CONTEXT = GIB
"""Bytes of an instance's part in use before vLLM measures free memory: its CUDA context and the MPS server's."""
SHM = 2 * GIB
"""Limit of /dev/shm: with several workers vLLM needs 160 MiB (tried), NCCL a few MiB per pair; the rest is reserve."""
QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Environment that turns usage statistics off."""

_TAKEN_ENV = re.compile(
    r"(CUDA_MPS|NVIDIA)_.*|CUDA_VISIBLE_DEVICES|HF_HOME|HF_TOKEN|HUGGING_FACE_HUB_TOKEN"
    r"|HF_HUB_DISABLE_TELEMETRY|VLLM_NO_USAGE_STATS|DO_NOT_TRACK|HOME|USER"
)
_TAKEN_KEY = re.compile(r"([^/]*\.)?(scepsy\.dev|argocd\.argoproj\.io)/.*|app\.kubernetes\.io/.*")
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,252}")
_TOLERATION: Mapping[str, type] = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}


class BadPodTemplate(ScepsyError):
    """A `podTemplate` that Kubernetes would refuse.

    Attributes:
        problems: every problem, one line each.
    """

    def __init__(self, llm: str, problems: list[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"the podTemplate of LLM {llm} is not valid:\n{lines}", "fix it in the Workflow document")


class Served(Protocol):
    """An LLM on a shape, as far as its engine's command line depends on it; `PlannedLlm` is one."""

    @property
    def name(self) -> str:
        """What clients send as `model`."""

    @property
    def model(self) -> str:
        """The model."""

    @property
    def revision(self) -> str | None:
        """Its revision."""

    @property
    def tp(self) -> int:
        """Tensor-parallel degree."""

    @property
    def max_model_len(self) -> int:
        """Longest call in tokens."""

    @property
    def max_num_seqs(self) -> int:
        """Most calls that run at once."""

    @property
    def memory_per_gpu(self) -> int:
        """Bytes that the instance may use of each of its GPUs."""

    @property
    def kv_cache_per_gpu(self) -> int:
        """Part of them that is KV cache."""


def arguments(llm: Served, card: int, sharing: Sharing, port: int = PORT) -> list[str]:
    """Return the arguments of `vllm serve`, each flag and its value in one word: of instances, and of measurements.

    Flags as in `vllm serve --help=all`. `--kv-cache-memory-bytes` sizes the cache whatever neighbours
    hold; `--gpu-memory-utilization` then only decides whether the engine starts: it refuses when less is free.

    Args:
        llm: the LLM.
        card: bytes of one of its GPUs.
        sharing: how GPUs are shared.
        port: where it listens.
    """
    backend = backend_of(sharing)
    visible = card if backend.shows_whole_card else llm.memory_per_gpu
    pinned = [f"--revision={llm.revision}", f"--tokenizer-revision={llm.revision}"] if llm.revision else []
    return [
        llm.model,
        f"--served-model-name={llm.name}",
        *pinned,
        f"--port={port}",
        f"--tensor-parallel-size={llm.tp}",
        f"--max-model-len={llm.max_model_len}",
        f"--max-num-seqs={llm.max_num_seqs}",
        f"--kv-cache-memory-bytes={llm.kv_cache_per_gpu}",
        f"--gpu-memory-utilization={utilization(llm.memory_per_gpu, visible)}",
        *backend.flags(llm.tp),
        f"--shutdown-timeout={SHUTDOWN}",
    ]


def utilization(memory: int, card: int) -> str:
    """Return `--gpu-memory-utilization`: (memory − what contexts keep) ÷ card, rounded down to 3 digits.

    vLLM compares this × the card with the memory that is free, which under an MPS limit is what the limit leaves (the
    total stays the card's).

    Args:
        memory: bytes that the instance may use.
        card: bytes of the card.
    """
    return f"{max(math.floor((memory - CONTEXT) / card * 1000), 10) / 1000:.3f}"


def environment(
    instance: Instance, llm: PlannedLlm, settings: EngineSettings, sharing: Sharing
) -> list[dict[str, Any]]:
    """Return the engine container's environment: Scepsy's variables, then those of the podTemplate."""
    variables = {
        "HOME": HOME,
        # Without an entry in /etc/passwd, Python's getpass.getuser() (used by torch) fails unless USER is set.
        "USER": "vllm",
        "HF_HOME": CACHE,
        **QUIET,
        **backend_of(sharing).environment(instance.share, llm.memory_per_gpu, len(instance.gpus)),
    }
    token: list[dict[str, Any]] = []
    if settings.token is not None:
        token = [{"name": "HF_TOKEN", "secret": settings.token.name, "key": settings.token.key}]
    # A podTemplate never sets variables for GPUs, files or secrets: a token in it would be in Git.
    added = {key: value for key, value in sorted(llm.pod_template.env.items()) if not _TAKEN_ENV.fullmatch(key)}
    return [*({"name": key, "value": value} for key, value in variables.items()), *token, *_pairs(added)]


def _pairs(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    # Kubernetes expands $(NAME) in values and reads `$$` as `$`: doubled, a value arrives as it was written.
    return ({"name": key, "value": value.replace("$", "$$")} for key, value in values.items())


def requests(llm: PlannedLlm) -> dict[str, str]:
    """Return the pod's CPU and memory requests.

    vLLM wants a core each for its API server, its scheduler and every worker; an instance with a share of the GPU uses
    them for that share of the time. Host memory: a Python process with CUDA libraries per worker and two more. No
    limits: reading weights fills the page cache, and throttling a scheduler loop would stall the GPU.
    """
    millicores = max(500, round((2 + llm.tp) * llm.share * 10) * 100)
    # In the API server's spelling, which it would otherwise change.
    cpu = str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"
    return {"cpu": cpu, "memory": format_memory((4 + 2 * llm.tp) * GIB)}


def startup_seconds(weights: int) -> int:
    """Return how long an engine may take to start, in seconds.

    Args:
        weights: bytes of weights, which at worst are downloaded first.
    """
    return START + math.ceil(weights / READ_RATE)


def overlay(llm: str, template: PodTemplate) -> dict[str, Any]:
    """Return what a `podTemplate` adds to the pods, without the keys that are Scepsy's.

    Args:
        llm: the LLM's name, for messages.
        template: the additions.

    Raises:
        BadPodTemplate: Kubernetes would refuse it.
    """
    problems = list(_problems(template))
    if problems:
        raise BadPodTemplate(llm, problems)
    gpu_taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    tolerations = [gpu_taint, *(dict(sorted(item.items())) for item in template.tolerations)]
    return {
        "annotations": _free(template.annotations),
        "labels": _free(template.labels),
        "node_selector": {
            key: value for key, value in sorted(template.node_selector.items()) if key != "kubernetes.io/hostname"
        },
        "tolerations": [item for index, item in enumerate(tolerations) if item not in tolerations[:index]],
    }


def _free(values: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in sorted(values.items()) if not _TAKEN_KEY.fullmatch(key)}


def _problems(template: PodTemplate) -> Iterator[str]:
    for field, values in (("labels", template.labels), ("nodeSelector", template.node_selector)):
        for key, value in values.items():
            if not _is_key(key):
                yield f"{field}: {key!r:.80} is not a label key"
            if not _LABEL.fullmatch(value):
                yield f"{field}: {value!r:.80} is not a label value"
    yield from (f"annotations: {key!r:.80} is not a key" for key in template.annotations if not _is_key(key))
    yield from (f"env: {key!r:.80} is not a name" for key in template.env if not _ENV.fullmatch(key))
    for item in template.tolerations:
        for key, value in item.items():
            if key not in _TOLERATION or type(value) is not _TOLERATION[key]:
                yield f"tolerations: {key!r:.80}: {value!r:.80} is not part of a toleration"


def _is_key(text: str) -> bool:
    prefix, slash, _ = text.rpartition("/")
    return _KEY.fullmatch(text) is not None and (not slash or len(prefix) <= 253)
