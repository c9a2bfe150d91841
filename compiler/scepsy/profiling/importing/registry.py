"""The benchmark tools whose results can be imported."""

from __future__ import annotations

from typing import Any

from scepsy.profiling.importing import vllm_bench
from scepsy.profiling.importing.benchmark_result import Reader

READERS: tuple[Reader, ...] = (vllm_bench.READER,)
"""In the order in which a value is compared with them."""


def reader_of(value: Any) -> Reader | None:
    """Return the reader of a JSON value; None if it is a result of none of the tools."""
    return next((reader for reader in READERS if reader.matches(value)), None)


def tools() -> str:
    """Return the names of all tools, for messages."""
    return " or ".join(reader.tool for reader in READERS)
