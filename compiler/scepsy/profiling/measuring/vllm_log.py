"""The log of vLLM: which of its lines says why it ended."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence

from scepsy.documents.diagnostics import printable

Say = Callable[[str], None]

TAIL = 50
"""Lines of the log that are kept."""


class VllmLog:
    """Lines of vLLM, passed on and searched for the reason why it ended.

    Args:
        secrets: texts that are removed.
        say: gets the lines; those of successful requests are left out.

    Attributes:
        tail: its last lines.
        memory: the first line that reports too little GPU memory.
        foreign: the first line that reports that another process uses the memory.
    """

    def __init__(self, secrets: Sequence[str], say: Say) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.memory = self.foreign = self._error = ""
        self._secrets = [secret for secret in secrets if secret]
        self._say = say

    @property
    def too_long(self) -> bool:
        """Whether memory was too small for the longest call, so that shorter calls may fit."""
        return _LENGTH.search(self.memory) is not None

    @property
    def reason(self) -> str:
        """The last line with an error that is not the consequence of another one; else the last line."""
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
# vllm/v1/worker/utils.py, request_memory; vllm/v1/worker/cpu_worker.py reports the same of a CPU's memory.
_FOREIGN = re.compile(r"(Free|Available) memory on .{1,200} is less than ")
_ERROR = re.compile(r"^\s*([\w.]*(Error|Exception)\b.*?: |Value error, )|: error: |: not found$")
_CONSEQUENCE = re.compile(r"initialization failed|failed to start|EngineDeadError|See (root cause|stack trace)")


def _bare(line: str) -> str:
    """Return a line without the time and place that vLLM puts before it."""
    return " ".join(_PREFIX.sub("", line).split())
