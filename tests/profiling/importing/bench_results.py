"""Results as `vllm bench serve` writes them, of a server whose every call takes R(k)."""

from __future__ import annotations

import heapq
import json
import random
from pathlib import Path
from typing import Any

OUTPUT = 33
INPUT = 512
DETAILS = ("ttfts", "itls", "latencies", "start_times", "input_lens", "output_lens")


def service(k: int) -> float:
    """R(k) of the server: 1 s alone, and a twentieth more for each further call."""
    return 1 + (k - 1) / 20


def closed(k: int, calls: int, *, spread: float = 0.0, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A run with `--max-concurrency k`; at its end fewer and fewer calls run, and they are faster."""
    chance = random.Random(seed)
    free = [0.0] * k
    starts, latencies = [], []
    for number in range(calls):
        start = heapq.heappop(free)
        running = min(k, calls - number) if number >= calls - k else k
        latency = service(running) * chance.uniform(1 - spread, 1 + spread)
        starts.append(start)
        latencies.append(latency)
        heapq.heappush(free, start + latency)
    return result(starts, latencies, max_concurrency=k, **more)


def arriving(rate: float, calls: int, latency: float, *, behind: float = 0.0, **more: Any) -> dict[str, Any]:
    """A run with `--request-rate`; each call waits `behind` seconds longer than the one before."""
    starts = [number / rate for number in range(calls)]
    return result(
        starts,
        [latency + number * behind for number in range(calls)],
        duration=max(calls / rate, starts[-1] + latency + (calls - 1) * behind) if behind else calls / rate + latency,
        request_rate=rate,
        **more,
    )


def result(
    starts: list[float],
    latencies: list[float],
    *,
    detailed: bool = True,
    output: int = OUTPUT,
    tokens: int = INPUT,
    **more: Any,
) -> dict[str, Any]:
    """A result with these calls; a fifth of each is before its first token."""
    calls = len(starts)
    duration = more.pop("duration", max(s + latency for s, latency in zip(starts, latencies, strict=True)))
    mean = sum(latencies) / calls
    ordered = sorted(latencies)
    document: dict[str, Any] = {
        "date": "20261120-233902",
        "endpoint_type": "openai",
        "backend": "openai",
        "label": None,
        "model_id": "tiny",
        "tokenizer_id": "./tiny",
        "num_prompts": calls,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": None,
        "duration": duration,
        "completed": calls,
        "failed": 0,
        "total_input_tokens": tokens * calls,
        "total_output_tokens": output * calls,
        "request_throughput": calls / duration,
        "mean_ttft_ms": 200 * mean,
        "mean_tpot_ms": 800 * mean / max(1, output - 1),
        "mean_e2el_ms": 1000 * mean,
        "median_e2el_ms": 1000 * ordered[calls // 2],
        "p99_e2el_ms": 1000 * ordered[int(0.99 * calls)],
        "input_lens": [tokens] * calls,
        "output_lens": [output] * calls,
        "ttfts": [0.2 * latency for latency in latencies],
        "itls": [[0.8 * latency / max(1, output - 1)] * max(1, output - 1) for latency in latencies],
        "latencies": latencies,
        "start_times": starts,
    }
    if not detailed:
        document = {key: value for key, value in document.items() if key not in DETAILS}
    return document | more


def written(path: Path, *documents: Any, indent: int | None = None) -> Path:
    """Write documents into a file, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(document, indent=indent) for document in documents))
    return path
