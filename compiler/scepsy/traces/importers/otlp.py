"""OTLP JSON: OpenTelemetry traces as the collector's file exporter, Tempo or Jaeger write them.

The shape is that of the OTLP specification, JSON Protobuf encoding (opentelemetry-proto, docs/specification.md):
`resourceSpans` → `scopeSpans` (formerly `instrumentationLibrarySpans`) → `spans`, 64-bit integers as strings, ids as
hexadecimal, which some tools write as base64. What a span is, and its tokens, follow the semantic conventions for
generative AI (open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md): input tokens include cached
ones, and spans such as `invoke_agent`, whose tokens are sums, are no calls. Older names are read too: those of
OpenLLMetry (`llm.usage.*`, `llm.request.type`) and OpenInference (spec/semantic_conventions.md).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from scepsy.traces.importers import json_values as values
from scepsy.traces.importers.format import Format
from scepsy.traces.importers.span import FOREIGN, NO_MODEL, Request, Skipped, Span, counts, span

_RESOURCES = ("resourceSpans", "resource_spans", "batches")
_SCOPES = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "instrumentation_library_spans")

_OPERATIONS = {
    "chat": "chat",
    "generate_content": "chat",
    "text_completion": "completions",
    "completion": "completions",
    "embeddings": "embeddings",
    "embedding": "embeddings",
    "rerank": "rerank",
    "reranker": "rerank",
    "llm": "chat",
}
"""Operation by `gen_ai.operation.name`, `llm.request.type` or `openinference.span.kind`, in lower case."""
_AROUND = frozenset(("invoke_agent", "invoke_workflow", "create_agent", "execute_tool", "retrieval", "plan"))
"""Operations that are no inference; those on memories have `memory` in their name."""

_MODEL = (
    "gen_ai.request.model",
    "llm.request.model",
    "llm.model_name",
    "embedding.model_name",
    "reranker.model_name",
    "gen_ai.response.model",
    "llm.response.model",
)
_INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
)
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
_CACHED = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_TOTAL = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total")
_FIRST_TOKEN = ("gen_ai.response.time_to_first_chunk", "gen_ai.latency.time_to_first_token")
"""Seconds after the start; the second is vLLM's."""
_FIRST_CHUNK = ("First Token Stream Event", "llm.content.completion.chunk")
_PROMPT = re.compile(
    r"gen_ai\.(input\.messages|system_instructions|prompt(\..*\.content)?)|llm\.prompts\..*"
    r"|llm\.input_messages\..*\.content|embedding\.embeddings\..*\.text|reranker\.(query|input_documents\..*\.content)"
)
_COMPLETION = re.compile(
    r"gen_ai\.(output\.messages|completion(\..*\.content)?)|llm\.completions\..*|llm\.output_messages\..*\.content"
)
_HEX = re.compile(r"[0-9a-fA-F]+")


def matches(record: dict[str, Any]) -> bool:
    """Tell whether a record has the shape of this format."""
    return any(isinstance(record.get(key), list) for key in _RESOURCES) or matches_trace(record.get("trace"))


def matches_trace(value: Any) -> bool:
    """Tell whether a value is the `trace` of a Tempo answer."""
    return isinstance(value, dict) and any(isinstance(value.get(key), list) for key in _RESOURCES)


def spans(record: Any) -> Iterator[Span | Skipped]:
    """Yield the spans of one export request, or why one of them cannot be used."""
    record = values.mapping(record)
    if "trace" in record and not matches({**record, "trace": None}):
        record = values.mapping(record["trace"])
    resources = values.first(record, *_RESOURCES)
    if not isinstance(resources, list):
        # A collector writes metrics and logs into files of the same shape.
        if not any(key in record for key in ("resourceMetrics", "resourceLogs")):
            yield Skipped(FOREIGN)
        return
    for resource in resources:
        for scope in values.sequence(values.first(values.mapping(resource), *_SCOPES)):
            for item in values.sequence(values.mapping(scope).get("spans")):
                yield _span(item) if isinstance(item, dict) else Skipped(FOREIGN)


def _span(item: dict[str, Any]) -> Span | Skipped:
    attributes = _attributes(item.get("attributes"))
    start = _time(values.first(item, "startTimeUnixNano", "start_time_unix_nano"))
    end = _time(values.first(item, "endTimeUnixNano", "end_time_unix_nano"))
    operation = _operation(attributes)
    return span(
        _id(values.first(item, "traceId", "trace_id"), 16),
        _id(values.first(item, "spanId", "span_id"), 8),
        _id(values.first(item, "parentSpanId", "parent_span_id"), 8),
        (start, end),
        None if operation is None else _request(item, attributes, operation, start),
    )


def _request(
    item: dict[str, Any], attributes: dict[str, Any], operation: str, start: tuple[float, str] | None
) -> Request | Skipped:
    model = next((name for key in _MODEL if (name := values.text(_plain(attributes.get(key))))), None)
    if model is None:
        return Skipped(NO_MODEL)
    events = [values.mapping(event) for event in values.sequence(item.get("events"))]
    given, made = counts(_number(attributes, _INPUT), _number(attributes, _OUTPUT), _number(attributes, _TOTAL))
    delay = _number(attributes, _FIRST_TOKEN)
    return Request(
        model,
        operation or None,
        given,
        made,
        values.tokens(_number(attributes, _CACHED)) or 0.0,
        start[0] + delay if start and delay is not None and delay >= 0 else _first_token(events),
        _error(item, attributes, events),
        _letters(attributes, _PROMPT) if given is None else 0,
        _letters(attributes, _COMPLETION) if made is None else 0,
    )


def _operation(attributes: dict[str, Any]) -> str | None:
    """Return the operation of a span that is an LLM call, empty if unknown; None for any other span."""

    def named(key: str) -> str:
        return (values.text(_plain(attributes.get(key))) or "").lower()

    name = named("gen_ai.operation.name")
    if name in _OPERATIONS:
        return _OPERATIONS[name]
    if name in _AROUND or "memory" in name or "gen_ai.tool.name" in attributes:
        return None
    kind = named("openinference.span.kind")
    if kind:
        return _OPERATIONS.get(kind)
    requested = named("llm.request.type")
    if requested in _OPERATIONS:
        return _OPERATIONS[requested]
    if "traceloop.span.kind" in attributes:
        return None
    # Spans of servers such as vLLM, and operations that a tool named itself.
    counted = any(key in attributes for key in (*_INPUT, *_OUTPUT))
    return "" if counted and any(key in attributes for key in _MODEL) else None


def _attributes(value: Any) -> dict[str, Any]:
    """Return attributes by key, each still an OTLP `AnyValue`."""
    if isinstance(value, dict):
        return value
    pairs = [item for item in values.sequence(value) if isinstance(item, dict)]
    return {item["key"]: item.get("value") for item in pairs if isinstance(item.get("key"), str)}


def _plain(value: Any) -> Any:
    """Return the scalar of an `AnyValue`."""
    if not isinstance(value, dict):
        return value
    return next((item for key, item in value.items() if key.replace("_", "").lower().endswith("value")), None)


def _number(attributes: dict[str, Any], keys: tuple[str, ...]) -> float | None:
    found = (values.number(_plain(attributes[key])) for key in keys if key in attributes)
    return next((number for number in found if number is not None), None)


def _letters(attributes: dict[str, Any], texts: re.Pattern[str]) -> int:
    return values.letters(value for key, value in attributes.items() if texts.fullmatch(key))


def _time(value: Any) -> tuple[float, str] | None:
    """Return a time; 0 stands for none, as in all of protobuf."""
    point = values.time(value)
    return point if point and point[0] != 0 else None


def _id(value: Any, size: int) -> str | None:
    """Return an id as lower-case hexadecimal, whatever it was written as; None for an id of zeros."""
    name = values.text(value)
    if name is None:
        return None
    if _HEX.fullmatch(name) and len(name) == 2 * size:
        return None if not name.strip("0") else name.lower()
    try:
        data = base64.b64decode(name, validate=True)
    except (binascii.Error, ValueError):
        return name
    return data.hex() if len(data) == size else name


def _first_token(events: list[dict[str, Any]]) -> float | None:
    """Return the time of the event that OpenInference and OpenLLMetry add for the first chunk of a stream."""
    for event in events:
        if event.get("name") in _FIRST_CHUNK:
            point = values.time(values.first(event, "timeUnixNano", "time_unix_nano"))
            return point[0] if point else None
    return None


def _error(item: dict[str, Any], attributes: dict[str, Any], events: list[dict[str, Any]]) -> str | None:
    """Return what kind of error a span with the status ERROR (2) ended in."""
    status = values.mapping(item.get("status"))
    if status.get("code") not in (2, "2", "STATUS_CODE_ERROR", "ERROR"):
        return None
    thrown = [_attributes(event.get("attributes")).get("exception.type") for event in events]
    kinds = (values.text(_plain(value)) for value in (attributes.get("error.type"), *thrown))
    return next((kind[:80] for kind in kinds if kind), None) or values.fault(status.get("message")) or "error"


FORMAT = Format("otlp", 'an object with "resourceSpans"', matches, lambda record, _: spans(record))
