"""The few metrics of an engine's `/metrics` that measuring needs.

vLLM writes the Prometheus text format, where a sample is `name{labels} value [timestamp]` on a line of its own. Only
plain counters and gauges are read, so a regular expression does what a parser would: labels may hold anything but a
newline, the value is what follows the last brace.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{.*\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an engine says of itself at one time; None where it does not say it.

    Attributes:
        at: seconds, on the clock of the measurement.
        running: requests in the batch (`vllm:num_requests_running`).
        waiting: requests in the queue (`vllm:num_requests_waiting`).
        kv_usage: part of the KV cache in use, 0 … 1 (`vllm:kv_cache_usage_perc`).
        queries: prompt tokens looked up in the prefix cache so far (`vllm:prefix_cache_queries_total`).
        hits: those that it held (`vllm:prefix_cache_hits_total`).
    """

    at: float
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    queries: float | None = None
    hits: float | None = None


def parse(text: str, at: float) -> Snapshot:
    """Read the text of `/metrics`. Engines of one server (data parallelism) are added up, KV usage is the largest.

    Args:
        text: the page.
        at: when it was asked for, seconds.
    """
    values: dict[str, list[float]] = {}
    for match in _SAMPLE.finditer(text):
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value):
            values.setdefault(match[1], []).append(value)

    def total(name: str) -> float | None:
        return sum(values[name]) if name in values else None

    usage = values.get("vllm:kv_cache_usage_perc")
    return Snapshot(
        at=at,
        running=total("vllm:num_requests_running"),
        waiting=total("vllm:num_requests_waiting"),
        kv_usage=min(1.0, max(0.0, *usage)) if usage else None,
        queries=total("vllm:prefix_cache_queries_total"),
        hits=total("vllm:prefix_cache_hits_total"),
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """What snapshots over a time have in common; None where the engine does not say it.

    Attributes:
        waiting: most requests in the queue.
        kv_usage: largest part of the KV cache in use.
        prefix_hits: part of the prompt tokens that the prefix cache held.
    """

    waiting: float | None
    kv_usage: float | None
    prefix_hits: float | None


def usage_of(snapshots: list[Snapshot], since: float) -> Usage:
    """Sum up the snapshots from a time on; the last one counts in any case.

    A counter that fell belongs to a server that was restarted: then the prefix cache is not reported.
    """
    chosen = [s for s in snapshots if s.at >= since] or snapshots[-1:]
    waiting = [s.waiting for s in chosen if s.waiting is not None]
    usage = [s.kv_usage for s in chosen if s.kv_usage is not None]
    # The snapshot before counts calls that ended since.
    before = [s for s in snapshots if s.at < since][-1:] or chosen[:1]
    hits = None
    if before and chosen:
        first, last = before[0], chosen[-1]
        if first.queries is not None and first.hits is not None and last.queries is not None and last.hits is not None:
            queries = last.queries - first.queries
            if queries > 0 and 0 <= last.hits - first.hits <= queries:
                hits = (last.hits - first.hits) / queries
    return Usage(max(waiting, default=None), max(usage, default=None), hits)
