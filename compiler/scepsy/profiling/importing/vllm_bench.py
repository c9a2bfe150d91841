"""Results of `vllm bench serve`.

The keys are those of vllm/benchmarks/serve.py (0.8 … 0.32). A sweep adds its parameters for the server and for the
benchmark at the same level, `--metadata` its own; all come from strangers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from scepsy.documents.diagnostics import printable
from scepsy.performance.curves import Array
from scepsy.profiling.importing.benchmark_result import CALLS, E2EL, PARTS, Calls, Reader, Result

_TOOL = "vllm bench serve"
_PERCENTILES = (50, 95, 99)
_TP = ("tensor_parallel_size", "tp")
_UNKNOWN_SHAPE = ("pipeline_parallel_size", "pp", "data_parallel_size", "dp")
_FLAGS = frozenset(
    [
        "async_scheduling",
        "attention_backend",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "dtype",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "no_enable_prefix_caching",
        "num_gpu_blocks_override",
        "quantization",
        "scheduling_policy",
        "speculative_config",
    ]
)
"""Parameters of `vllm serve` that are told from those of the benchmark by their name alone: with named combinations the
sweep's directories do not say which is which."""
_STARTED = re.compile(r"(20[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])-[0-9]{6}")
_VERSION = re.compile(r"v?([0-9]+(?:\.[0-9]+)+[-.+a-z0-9]*)")


class _Bad(Exception):
    """The result says something that cannot be."""


def is_result(value: Any) -> bool:
    """Tell whether a JSON value is a result of `vllm bench serve` at all."""
    return isinstance(value, dict) and {"duration", "completed", "request_throughput"} <= value.keys()


def result_of(value: Mapping[str, Any], name: str, folder: str, digest: str) -> Result | str:
    """Return what a result says, or why it is no good.

    Args:
        value: the JSON object; see `is_result`.
        name: where it stands.
        folder: the directory in which its file lies.
        digest: its file's.
    """
    try:
        return _result(value, name, folder, digest)
    except _Bad as error:
        return str(error)


def _result(value: Mapping[str, Any], name: str, folder: str, digest: str) -> Result:
    completed, duration = _whole(value, "completed"), _number(value, "duration")
    failed = _failed(value, completed)
    if completed == 0:
        raise _Bad("no request was completed; vllm bench serve ends with 0 all the same")
    if failed:
        raise _Bad(f"{failed} of {completed + failed} requests failed")
    if not duration > 0:
        raise _Bad('"duration" is not greater than zero')
    if value.get("run_number") == -1:
        raise _Bad("the warm-up of a sweep")
    if "mean_ttft_ms" not in value and not value.get("ttfts"):
        raise _Bad(
            'no time to the first token: neither "mean_ttft_ms" nor "ttfts" (--percentile-metrics ttft,tpot,e2el, and '
            "a model that generates)"
        )
    shape = _shape(value, folder)
    output = _number(value, "total_output_tokens") / completed
    if output < 1:
        raise _Bad(f"{output:.2g} tokens were generated per request")
    calls = _calls(value, completed)
    ttft = float(calls.ttft.mean()) if calls and calls.ttft is not None else _milliseconds(value, "mean_ttft_ms")
    if not ttft > 0:
        raise _Bad("no time to the first token: the server did not stream")
    latency, source, percentiles = _latency(value, calls, ttft, output)
    single = calls.latency if calls is not None else np.array([latency])
    if not (single.min() >= 1e-6 and single.max() <= 1e6 and 1e-6 <= completed / duration <= 1e6):
        raise _Bad("latencies or the duration are out of range")
    if latency < ttft * (1 - 1e-6):
        raise _Bad("the mean latency is shorter than the mean time to the first token")
    return Result(
        tool=_TOOL,
        name=name,
        digest=digest,
        identity=tuple(str(value.get(key)) for key in ("date", "duration", "completed", "total_input_tokens")),
        day=_day(value.get("date")),
        served=str(value.get("model_id") or ""),
        version=_version(value.get("version")),
        tp=shape[0],
        flags=shape[1],
        rate=_rate(value),
        cap=_cap(value),
        burstiness=_number(value, "burstiness") if "burstiness" in value else 1.0,
        ramp=value.get("ramp_up_strategy") is not None,
        probed=value.get("probe_completed") is not None,
        completed=completed,
        duration=duration,
        input=_number(value, "total_input_tokens") / completed,
        output=output,
        latency=latency,
        source=source,
        ttft=ttft,
        percentiles=percentiles,
        calls=calls,
    )


def _failed(value: Mapping[str, Any], completed: int) -> int:
    if "failed" in value:
        return _whole(value, "failed")
    # Before it counted failures, vLLM only said how many were to be sent.
    return max(0, _whole(value, "num_prompts") - completed) if "num_prompts" in value else 0


def _rate(value: Mapping[str, Any]) -> float:
    given = value.get("request_rate", "inf")
    # A sweep writes its own parameters over the result's: as texts, where the JSON file had texts.
    try:
        rate = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else math.nan
    except ValueError:
        rate = math.nan
    # Infinite: none. What documents take for a rate is a rate here too.
    if not (1e-9 <= rate <= 1e6 or rate == math.inf):
        raise _Bad('"request_rate" is not a rate')
    return rate


def _cap(value: Mapping[str, Any]) -> int | None:
    given = value.get("max_concurrency")
    if given is None:
        return None
    if isinstance(given, str) and given.isascii() and given.isdigit():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= 1_000_000:
        raise _Bad('"max_concurrency" is not a number of requests')
    return given


def _calls(value: Mapping[str, Any], completed: int) -> Calls | None:
    """Return the single calls, if the result holds them whole: `latencies`, or `ttfts` and `itls`."""
    start, ttft = _array(value.get("start_times"), completed), _array(value.get("ttfts"), completed)
    latency = _array(value.get("latencies"), completed)
    if latency is None and ttft is not None:
        between = value.get("itls")
        if isinstance(between, list) and len(between) == completed:
            try:
                # The times between chunks of a stream, however many tokens each brought, add up to the rest of it.
                latency = ttft + np.array([math.fsum(gaps) for gaps in between])
            except (TypeError, ValueError, OverflowError):
                latency = None
    if latency is None or not np.isfinite(latency).all() or latency.min() <= 0:
        return None
    order = np.argsort(start, kind="stable") if start is not None else np.arange(completed)
    return Calls(latency[order], ttft[order] if ttft is not None else None, start[order] if start is not None else None)


def _array(values: Any, count: int) -> Array | None:
    if not isinstance(values, list) or len(values) != count:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        return None
    array = np.array(values, dtype=float)
    return array if np.isfinite(array).all() else None


def _latency(
    value: Mapping[str, Any], calls: Calls | None, ttft: float, output: float
) -> tuple[float, str, dict[int, float]]:
    if calls is not None:
        quantiles = np.percentile(calls.latency, _PERCENTILES)
        return float(calls.latency.mean()), CALLS, dict(zip(_PERCENTILES, map(float, quantiles), strict=True))
    known = {50: "median_e2el_ms", **{p: f"p{p}_e2el_ms" for p in _PERCENTILES if f"p{p}_e2el_ms" in value}}
    percentiles = {p: _milliseconds(value, key) for p, key in known.items() if key in value}
    if "mean_e2el_ms" in value:
        return _milliseconds(value, "mean_e2el_ms"), E2EL, percentiles
    if output > 1 and "mean_tpot_ms" not in value:
        raise _Bad('no latency: neither "mean_e2el_ms" nor "mean_tpot_ms" (--percentile-metrics ttft,tpot,e2el)')
    further = _milliseconds(value, "mean_tpot_ms") * (output - 1) if output > 1 else 0.0
    return ttft + further, PARTS, {}


def _shape(value: Mapping[str, Any], folder: str) -> tuple[int | None, tuple[str, ...]]:
    """Return the tensor-parallel degree and the other flags of the server, as far as they are said."""
    names = {key: key.replace("-", "_") for key in value if isinstance(key, str)}
    for key, plain in names.items():
        if plain in _UNKNOWN_SHAPE and str(value[key]) != "1":
            raise _Bad(f"{printable(key)} is {printable(str(value[key]))[:40]}: only tensor parallelism is modelled")
    degrees = {str(value[key]) for key, plain in names.items() if plain in _TP}
    if len(degrees) > 1 or not degrees <= {"1", "2", "4", "8"}:
        raise _Bad(f"the tensor-parallel degree is {printable(' and '.join(sorted(degrees)))[:60]}: not 1, 2, 4 or 8")
    # SERVE--max_num_seqs=16-BENCH--seed=3-WL--request_rate=5: what stands before the others is the server's.
    of_server = re.split("-(?:BENCH|WL)--", folder, maxsplit=1)[0] if folder.startswith("SERVE--") else ""
    flags = sorted(
        _flag(plain, value[key])
        for key, plain in names.items()
        if plain not in _TP and (plain in _FLAGS or f"-{key}=" in of_server)
    )
    return (int(next(iter(degrees))) if degrees else None), tuple(flags)


def _flag(name: str, value: Any) -> str:
    """Write a parameter as the sweep gave it to the server (vllm/benchmarks/sweep/param_sweep.py)."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {printable(str(value))[:200]}"


def _day(text: Any) -> str | None:
    """Turn `20261120-233902` into a day."""
    found = _STARTED.fullmatch(text) if isinstance(text, str) else None
    return "-".join(found.groups()) if found else None


def _version(text: Any) -> str | None:
    found = _VERSION.fullmatch(text) if isinstance(text, str) and len(text) <= 40 else None
    return found[1] if found else None


def _milliseconds(value: Mapping[str, Any], key: str) -> float:
    return _number(value, key) / 1000


def _number(value: Mapping[str, Any], key: str) -> float:
    given = value.get(key)
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise _Bad(f'"{key}" is not a number')
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not 0 <= number <= 1e12:
        raise _Bad(f'"{key}" is out of range')
    return number


def _whole(value: Mapping[str, Any], key: str) -> int:
    number = _number(value, key)
    if number != int(number):
        raise _Bad(f'"{key}" is not a whole number')
    return int(number)


READER = Reader(_TOOL, is_result, result_of)
"""Results of `vllm bench serve`, single or of a sweep."""
