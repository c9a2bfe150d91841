"""One LLM span per call, where several instrumentations recorded the same call, one span inside the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scepsy.traces.importers.span import Request, Span
from scepsy.traces.importers.span_tree import parents_of, top_down


def innermost(spans: Sequence[Span]) -> tuple[list[Span], int]:
    """Keep one LLM span per call where several instrumentations recorded it, one inside the other.

    The innermost is nearest to the server. A span around it stays in the tree, but no longer as a call; its token
    counts and time of the first token fill those that the inner one lacks.

    Args:
        spans: the spans of one trace, each id once.

    Returns:
        The spans, and how many of them were duplicates of inner ones.
    """
    parents = parents_of(spans)
    around = [-1] * len(spans)
    inside: dict[int, list[int]] = {}
    for i in top_down(parents):
        parent = parents[i]
        if parent >= 0:
            around[i] = parent if spans[parent].request else around[parent]
        if spans[i].request and around[i] >= 0:
            inside.setdefault(around[i], []).append(i)
    result = list(spans)
    wrappers = [i for i, inner in inside.items() if _wraps(spans[i], [spans[j] for j in inner])]
    for i in wrappers:
        outer, inner = result[i], inside[i]
        result[i] = replace(outer, request=None)
        if len(inner) == 1 and outer.request is not None:
            only = _inside(result[inner[0]], outer)
            result[inner[0]] = replace(only, request=only.request and _completed(only.request, outer.request))
    return result, len(wrappers)


def _wraps(outer: Span, inner: Sequence[Span]) -> bool:
    """Return whether spans inside an LLM span are the same call: unless the tokens of both are known, and differ."""
    if outer.request is None:
        return False
    requests = [s.request for s in inner if s.request]
    overlaps = any(_start(s) <= _end(outer) and _end(s) >= _start(outer) for s in inner)

    def same(outer_tokens: float | None, parts: Sequence[float | None]) -> bool:
        known = [part for part in parts if part is not None]
        if outer_tokens is None or len(known) < len(parts):
            return overlaps
        return outer_tokens == sum(known) or outer_tokens in known

    return same(outer.request.output, [r.output for r in requests]) or same(
        outer.request.input, [r.input for r in requests]
    )


def _inside(inner: Span, outer: Span) -> Span:
    """Move the span of a server into that of its client: where it lies outside, their clocks differ.

    A span that is longer than the outer one stays: the outer one was closed before the stream had ended.
    """
    length = _end(inner) - _start(inner)
    within = _start(outer) <= _start(inner) and _end(inner) <= _end(outer)
    if within or inner.request is None or length > _end(outer) - _start(outer):
        return inner
    shift = min(max(_start(inner), _start(outer)), _end(outer) - length) - _start(inner)
    token = inner.request.first_token
    request = replace(inner.request, first_token=None if token is None else token + shift)
    return replace(inner, start=_start(inner) + shift, end=_start(inner) + shift + length, request=request)


def _completed(request: Request, outer: Request) -> Request:
    return replace(
        request,
        input=outer.input if request.input is None else request.input,
        output=outer.output if request.output is None else request.output,
        cached=outer.cached if request.input is None else request.cached,
        first_token=outer.first_token if request.first_token is None else request.first_token,
        operation=request.operation or outer.operation,
        prompt=request.prompt or outer.prompt,
        completion=request.completion or outer.completion,
    )


def _start(span: Span) -> float:
    return span.start or 0.0


def _end(span: Span) -> float:
    return span.end or 0.0
