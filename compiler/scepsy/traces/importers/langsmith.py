"""LangSmith: runs as its API and SDKs export them.

Fields are documented in LangSmith's "Run (span) data format" and the SDK's `schemas.Run`. Tokens are those of the run,
or of LangChain's `usage_metadata` or `llm_output.token_usage` in its outputs; `input_tokens` is the sum of all types
of input tokens there (langchain_core.messages.ai.UsageMetadata), so it includes cached ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scepsy.traces.importers import json_values as values
from scepsy.traces.importers.format import Format
from scepsy.traces.importers.span import FOREIGN, NO_MODEL, Request, Skipped, Span, counts, span

_CALLS = {"llm": None, "embedding": "embeddings"}
"""Operation by the `run_type`s that are LLM calls."""
_UUID = 36
_TEXTS = ("generations", "choices", "messages", "output", "content")


def matches(record: dict[str, Any]) -> bool:
    """Tell whether a record has the shape of this format."""
    runs = record.get("runs")
    if isinstance(runs, list):
        return all(isinstance(run, dict) and "run_type" in run for run in runs[:50])
    return "run_type" in record


def spans(record: Any) -> Iterator[Span | Skipped]:
    """Yield the spans of a run and of the runs nested in it, or of a page of runs."""
    todo: list[tuple[Any, str | None, str | None]] = [(record, None, None)]
    while todo:
        item, trace, parent = todo.pop()
        if not isinstance(item, dict):
            yield Skipped(FOREIGN)
        elif isinstance(item.get("runs"), list) and "run_type" not in item:
            todo += [(run, None, None) for run in reversed(item["runs"])]
        elif "run_type" in item:
            id_ = values.identifier(item.get("id"))
            # <start>Z<id>, joined by dots from the root to the run itself.
            order = [part[-_UUID:] for part in (values.text(item.get("dotted_order")) or "").split(".") if part]
            parent = values.identifier(item.get("parent_run_id")) or parent or (order[-2] if len(order) > 1 else None)
            trace = values.identifier(item.get("trace_id")) or trace or (order[0] if order else id_)
            yield _span(item, trace, id_, parent)
            todo += [(run, trace, id_) for run in reversed(values.sequence(item.get("child_runs")))]
        else:
            yield Skipped(FOREIGN)


def _span(item: dict[str, Any], trace: str | None, id_: str | None, parent: str | None) -> Span | Skipped:
    kind = values.text(item.get("run_type")) or ""
    times = values.time(item.get("start_time")), values.time(item.get("end_time"))
    return span(trace, id_, parent, times, _request(item, _CALLS[kind]) if kind in _CALLS else None)


def _request(item: dict[str, Any], operation: str | None) -> Request | Skipped:
    extra, outputs = values.mapping(item.get("extra")), values.mapping(item.get("outputs"))
    metadata, parameters = values.mapping(extra.get("metadata")), values.mapping(extra.get("invocation_params"))
    result = values.mapping(outputs.get("llm_output"))
    names = (
        metadata.get("ls_model_name"),
        *(parameters.get(key) for key in ("model", "model_name", "model_id")),
        result.get("model_name"),
        outputs.get("model"),
    )
    model = next((name for value in names if (name := values.text(value))), None)
    if model is None:
        return Skipped(NO_MODEL)
    if operation is None and metadata.get("ls_model_type") == "chat":
        operation = "chat"
    given, made, cached = _usage(item, metadata, outputs)
    return Request(
        model,
        operation,
        given,
        made,
        cached,
        _first_token(item),
        values.fault(item.get("error")),
        values.letters([item.get("inputs")]) if given is None else 0,
        values.letters([outputs.get(key) for key in _TEXTS]) if made is None else 0,
    )


def _usage(
    item: dict[str, Any], metadata: dict[str, Any], outputs: dict[str, Any]
) -> tuple[float | None, float | None, float]:
    """Return input tokens with the cached ones, output tokens and cached tokens, from the first place that has any."""
    reported = [
        item,
        values.mapping(outputs.get("usage_metadata")),
        _generated(outputs),
        values.mapping(values.mapping(outputs.get("llm_output")).get("token_usage")),
        values.mapping(outputs.get("usage")),
        values.mapping(metadata.get("usage_metadata")),
    ]
    cached = next((count for usage in reported if (count := _cached(usage))), 0.0)
    for usage in reported:
        given, made = counts(
            values.first(usage, "input_tokens", "prompt_tokens"),
            values.first(usage, "output_tokens", "completion_tokens"),
            usage.get("total_tokens"),
        )
        if given or made:
            return given, made, cached
    return None, None, 0.0  # zeros stand for unknown there


def _cached(usage: dict[str, Any]) -> float | None:
    details = values.first(
        usage, "input_token_details", "prompt_token_details", "prompt_tokens_details", "input_tokens_details"
    )
    return values.tokens(values.first(values.mapping(details), "cache_read", "cached_tokens"))


def _generated(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the `usage_metadata` of the first message; the generations are lists of lists, one per prompt."""
    todo = list(reversed(values.sequence(outputs.get("generations"))))
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += reversed(item)
            continue
        message = values.mapping(values.mapping(item).get("message"))
        for holder in (values.mapping(message.get("kwargs")), message):
            if isinstance(holder.get("usage_metadata"), dict):
                usage: dict[str, Any] = holder["usage_metadata"]
                return usage
    return {}


def _first_token(item: dict[str, Any]) -> float | None:
    """Return when the first token came: a field of its id_, or the first `new_token` event of a streamed run."""
    events = [values.mapping(event) for event in values.sequence(item.get("events"))]
    streamed = [event.get("time") for event in events if event.get("name") == "new_token"]
    points = (values.time(value) for value in (item.get("first_token_time"), *streamed[:1]))
    return next((point[0] for point in points if point), None)


FORMAT = Format("langsmith", 'runs with "run_type"', matches, lambda record, _: spans(record))
