"""Spans → calls and executions of the native format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from scepsy.traces.call import Call, Execution
from scepsy.traces.importers.dependencies import waits
from scepsy.traces.importers.duplicate_spans import innermost
from scepsy.traces.importers.span import Span
from scepsy.traces.importers.span_tree import execution_of
from scepsy.traces.importers.token_estimates import completed


def calls_of(spans: Sequence[Span], others: Sequence[Call]) -> tuple[list[Call], dict[str, Execution], int]:
    """Return the calls and executions of spans, and how many spans were duplicates of a call."""
    traces: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        traces[span.trace].append(span)
    nested = 0
    for trace, members in traces.items():
        traces[trace], dropped = innermost(members)
        nested += dropped
    known = [(c.model, c.input_tokens, c.output_tokens) for c in others if c.error is None]
    whole = completed([span for members in traces.values() for span in members], known)
    traces.clear()
    for span in whole:
        traces[span.trace].append(span)
    calls: list[Call] = []
    executions: dict[str, Execution] = {}
    for trace, members in traces.items():
        after = waits(members)
        calls += [_call(span, after.get(span.id)) for span in members if span.request]
        execution = execution_of(members)
        if execution:
            executions[trace] = execution
    return calls, executions, nested


def _call(span: Span, parents: tuple[str, ...] | None) -> Call:
    request = span.request
    assert request is not None  # noqa: S101 - the caller chose spans that are calls
    return Call(
        span.trace,
        request.model,
        span.start or 0.0,
        span.end or 0.0,
        request.input or 0.0,
        request.output or 0.0,
        request.cached,
        span.id,
        parents,
        request.first_token,
        request.operation,
        request.estimated,
        request.error,
    )
