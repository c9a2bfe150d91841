"""Langfuse: observations as the UI, the API and the export to blob storage write them.

Fields are documented in Langfuse's "Blob Storage Export Field Reference" (snake_case) and its API reference
(camelCase). Types of tokens in `usageDetails` exclude each other ("Usage types are mutually exclusive buckets" in
"Token & Cost Tracking"): `input` is without `input_cached_tokens`, so the prompt is the sum of all of them. Where
`total` says otherwise, it is believed: some code sends a provider's inclusive counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scepsy.traces.importers import json_values as values
from scepsy.traces.importers.format import Format
from scepsy.traces.importers.span import FOREIGN, NO_MODEL, Request, Skipped, Span, counts, span

_CALLS = {"GENERATION": None, "EMBEDDING": "embeddings"}
"""Operation by the types of observations that are LLM calls."""


def matches(record: dict[str, Any]) -> bool:
    """Tell whether a record has the shape of this format."""
    listed = record.get("data")
    items = listed[:50] if isinstance(listed, list) else [record]
    return all(isinstance(item, dict) and _is_one(item) for item in items)


def _is_one(record: dict[str, Any]) -> bool:
    if isinstance(record.get("observations"), list):
        return True
    traced, started = ("traceId" in record or "trace_id" in record), ("startTime" in record or "start_time" in record)
    return traced and started and "type" in record and "run_type" not in record


def spans(record: Any) -> Iterator[Span | Skipped]:
    """Yield the spans of an observation, a trace with its observations, or a page of either."""
    todo: list[tuple[Any, str | None]] = [(record, None)]
    while todo:
        item, trace = todo.pop()
        if not isinstance(item, dict):
            yield Skipped(FOREIGN)
        elif isinstance(item.get("data"), list) and "type" not in item:
            todo += [(inner, None) for inner in reversed(item["data"])]
        elif isinstance(item.get("observations"), list):
            todo += [(inner, values.identifier(item.get("id"))) for inner in reversed(item["observations"])]
        elif "type" in item:
            yield _span(item, trace)
        else:
            yield Skipped(FOREIGN)


def _span(item: dict[str, Any], trace: str | None) -> Span | Skipped:
    trace = values.identifier(values.first(item, "traceId", "trace_id")) or trace
    parent = values.identifier(values.first(item, "parentObservationId", "parent_observation_id"))
    kind = (values.text(item.get("type")) or "").upper()
    return span(
        trace,
        values.identifier(item.get("id")),
        None if parent == trace else parent,
        (
            values.time(values.first(item, "startTime", "start_time")),
            values.time(values.first(item, "endTime", "end_time")),
        ),
        _request(item, _CALLS[kind]) if kind in _CALLS else None,
    )


def _request(item: dict[str, Any], operation: str | None) -> Request | Skipped:
    model = values.text(values.first(item, "model", "providedModelName", "provided_model_name"))
    if model is None:
        return Skipped(NO_MODEL)
    given, made, cached = _usage(item)
    streamed = values.time(values.first(item, "completionStartTime", "completion_start_time"))
    failed = values.text(item.get("level")) == "ERROR"
    message = values.fault(values.first(item, "statusMessage", "status_message"))
    return Request(
        model,
        operation,
        given,
        made,
        cached,
        streamed[0] if streamed else None,
        (message or "error") if failed else None,
        values.letters([item.get("input")]) if given is None else 0,
        values.letters([item.get("output")]) if made is None else 0,
    )


def _usage(item: dict[str, Any]) -> tuple[float | None, float | None, float]:
    """Return input tokens with the cached ones, output tokens and cached tokens."""
    details = _tokens(values.first(item, "usageDetails", "usage_details"))
    if details:
        return _summed(details)
    usage = values.mapping(item.get("usage"))
    # The unit of older observations; there are also characters, seconds, images.
    if (values.text(usage.get("unit")) or "TOKENS").upper() == "TOKENS" and (usage := _tokens(usage)):
        return _summed(usage)
    given, made = (_count(item, "promptTokens", "prompt_tokens"), _count(item, "completionTokens", "completion_tokens"))
    total = _count(item, "totalTokens", "total_tokens")
    if not (given or made or total):
        return None, None, 0.0  # zeros stand for unknown there
    return *counts(given, made, total), 0.0


def _count(item: dict[str, Any], *keys: str) -> float | None:
    return values.tokens(values.first(item, *keys))


def _tokens(value: Any) -> dict[str, float]:
    """Return the counts of an object that may be written as a JSON string; without any that is not zero, none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    found = {key.lower(): values.tokens(count) for key, count in values.mapping(value).items()}
    found = {key: count for key, count in found.items() if count is not None and "cost" not in key}
    return {key: count for key, count in found.items() if count is not None} if any(found.values()) else {}


def _summed(usage: dict[str, float]) -> tuple[float | None, float | None, float]:
    """Add up types of tokens: those whose names contain `input` or `output`, as Langfuse's UI does."""
    total = usage.pop("total", usage.pop("total_tokens", usage.pop("totaltokens", None)))
    cached = sum(n for key, n in usage.items() if "cache" in key and "creation" not in key and "write" not in key)
    given = {key: n for key, n in usage.items() if "input" in key or "prompt" in key or "cache" in key}
    made = {key: n for key, n in usage.items() if key not in given and ("output" in key or "completion" in key)}
    plain_in = next(
        (given[key] for key in ("input", "prompt_tokens", "prompttokens", "input_tokens") if key in given), None
    )
    plain_out = next(
        (made[key] for key in ("output", "completion_tokens", "completiontokens", "output_tokens") if key in made), None
    )
    if total is not None and plain_in is not None and plain_out is not None and plain_in + plain_out == total:
        return plain_in, plain_out, min(cached, plain_in)
    both = counts(sum(given.values()) if given else None, sum(made.values()) if made else None, total)
    return *both, cached


FORMAT = Format(
    "langfuse", 'observations with "traceId", "type" and "startTime"', matches, lambda record, _: spans(record)
)
