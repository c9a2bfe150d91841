"""What all formats have in common: a trace is a tree of spans, and some spans are LLM calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scepsy.traces.call import Execution
from scepsy.traces.importers import json_values as values

NO_MODEL = "LLM calls without a model"
NO_TIME = "LLM calls without a start or an end"
BACKWARDS = "LLM calls that end before they begin"
NO_ID = "spans without an id or a trace id"
NESTED = "LLM spans around the span of the same call"
TWICE = "spans or calls that were there before"
FOREIGN = "records of another shape"


@dataclass(frozen=True, slots=True)
class Request:
    """What a span says of an LLM call.

    Attributes:
        model: the name that the agent code sent.
        operation: `chat`, `completions`, `embeddings`, `rerank`; None if not recorded.
        input: prompt tokens, cached ones included; None if not recorded.
        output: generated tokens; None if not recorded.
        cached: prompt tokens that a prefix cache held.
        first_token: when the first token came, seconds; None if not recorded.
        error: what kind of error it failed with; None if it succeeded.
        prompt: characters of the prompt, where `input` is None and it was stored; or else 0.
        completion: characters of the answer, where `output` is None and it was stored; or else 0.
        estimated: which of `scepsy.traces.call.ESTIMABLE` were not recorded.
    """

    model: str
    operation: str | None = None
    input: float | None = None
    output: float | None = None
    cached: float = 0.0
    first_token: float | None = None
    error: str | None = None
    prompt: int = 0
    completion: int = 0
    estimated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a trace.

    Attributes:
        trace: the trace's id.
        id: its id in the trace.
        parent: id of the span that it is part of; None for a root.
        start: seconds; None if not recorded, which only spans around others may lack.
        end: seconds, likewise.
        request: the LLM call that it is; None for one that is around others.
        unit: how its times were written.
    """

    trace: str
    id: str
    parent: str | None
    start: float | None
    end: float | None
    request: Request | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a file that is not imported.

    Attributes:
        reason: why, as a plural: it is counted.
    """

    reason: str


def span(
    trace: str | None,
    own: str | None,
    parent: str | None,
    times: tuple[tuple[float, str] | None, tuple[float, str] | None],
    request: Request | Skipped | None,
) -> Span | Skipped:
    """Return a span, or why it cannot be used.

    Args:
        trace: the trace's id.
        own: the span's id.
        parent: its parent's id.
        times: start and end, as `values.time` reads them.
        request: the LLM call that it is, if it is one.
    """
    if trace is None or own is None:
        return Skipped(NO_ID)
    start, end = times
    unit = (start or end or (0.0, ""))[1]
    if request is None:
        if start and end and end[0] < start[0]:
            end = None
        return Span(trace, own, parent, start[0] if start else None, end[0] if end else None, None, unit)
    if isinstance(request, Skipped):
        return request
    if start is None or end is None:
        return Skipped(NO_TIME)
    if end[0] < start[0]:
        return Skipped(BACKWARDS)
    token = request.first_token
    if token is not None and not start[0] <= token <= end[0]:
        request = replace(request, first_token=None)
    if request.input is not None and request.cached > request.input:
        # Cached tokens are part of the prompt everywhere here, so more of them means that the prompt was counted
        # without them, as Anthropic's API does.
        request = replace(request, input=request.input + request.cached)
    return Span(trace, own, parent, start[0], end[0], request, unit)


def counts(prompt: object, completion: object, total: object) -> tuple[float | None, float | None]:
    """Return input and output tokens, one of which may have to be told from their sum."""
    given, made, both = values.tokens(prompt), values.tokens(completion), values.tokens(total)
    if both is not None and both > 0:
        if given is None and made is not None and made <= both:
            given = both - made
        elif made is None and given is not None and given <= both:
            made = both - given
    return given, made


def parents_of(spans: Sequence[Span]) -> list[int]:
    """Return the position of each span's parent, -1 for a root; a parent that leads back to its child is none.

    Args:
        spans: the spans of one trace, each id once.
    """
    place = {span.id: i for i, span in enumerate(spans)}
    parents = [place.get(span.parent, -1) if span.parent is not None else -1 for span in spans]
    # 0: not looked at; 1: on the way up that is being walked; 2: known to lead to a root.
    state = [0] * len(spans)
    for i in range(len(spans)):
        way, at = [], i
        while at >= 0 and state[at] == 0:
            state[at] = 1
            way.append(at)
            at = parents[at]
        if at >= 0 and state[at] == 1:
            parents[at] = -1
        for passed in way:
            state[passed] = 2
    return parents


def top_down(parents: Sequence[int]) -> list[int]:
    """Return all positions, each after its parent."""
    children: list[list[int]] = [[] for _ in parents]
    order = []
    for i, parent in enumerate(parents):
        if parent < 0:
            order.append(i)
        else:
            children[parent].append(i)
    for i in order:
        order += children[i]
    return order


def innermost(spans: Sequence[Span]) -> tuple[list[Span], int]:
    """Keep one LLM span per call where several instrumentations recorded it, one inside the other.

    The innermost is nearest to the server. A span around it stays in the tree as one that is no call; what it knows
    of tokens and the first one is taken over where the inner one does not.

    Args:
        spans: the spans of one trace, each id once.

    Returns:
        The spans, and how many were around others.
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
    """Tell whether spans inside an LLM span are the same call: unless the tokens of both are known, and differ."""
    if outer.request is None:
        return False
    requests = [s.request for s in inner if s.request]
    overlaps = any(_start(s) <= _end(outer) and _end(s) >= _start(outer) for s in inner)

    def same(own: float | None, parts: Sequence[float | None]) -> bool:
        known = [part for part in parts if part is not None]
        if own is None or len(known) < len(parts):
            return overlaps
        return own == sum(known) or own in known

    return same(outer.request.output, [r.output for r in requests]) or same(
        outer.request.input, [r.input for r in requests]
    )


def _inside(inner: Span, outer: Span) -> Span:
    """Move the span of a server into that of its client: where it is not, their clocks differ.

    A span that is longer than the one around it stays: that one was closed before the stream had ended.
    """
    length = _end(inner) - _start(inner)
    within = _start(outer) <= _start(inner) and _end(inner) <= _end(outer)
    if within or inner.request is None or length > _end(outer) - _start(outer):
        return inner
    shift = min(max(_start(inner), _start(outer)), _end(outer) - length) - _start(inner)
    token = inner.request.first_token
    request = replace(inner.request, first_token=None if token is None else token + shift)
    return replace(inner, start=_start(inner) + shift, end=_start(inner) + shift + length, request=request)


def _start(span: Span) -> float:
    return span.start or 0.0


def _end(span: Span) -> float:
    return span.end or 0.0


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


def execution_of(spans: Sequence[Span]) -> Execution | None:
    """Return when the execution of a trace began and ended: its root span, if it is around all calls.

    Args:
        spans: the spans of one trace.
    """
    calls = [s for s in spans if s.request]
    if not calls:
        return None
    first, last = round(min(map(_start, calls)), 6), round(max(map(_end, calls)), 6)
    for root in spans:
        if root.parent is not None or root.request or root.start is None or root.end is None:
            continue
        if round(root.start, 6) <= first and last <= round(root.end, 6):
            return Execution(root.trace, root.start, root.end)
    return None
