"""What all formats are read into: spans, some of which are LLM calls."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    id_: str | None,
    parent: str | None,
    times: tuple[tuple[float, str] | None, tuple[float, str] | None],
    request: Request | Skipped | None,
) -> Span | Skipped:
    """Return a span, or why it cannot be used.

    Args:
        trace: the trace's id.
        id_: the span's id.
        parent: its parent's id.
        times: start and end, as `values.time` reads them.
        request: the LLM call that it is, if it is one.
    """
    if trace is None or id_ is None:
        return Skipped(NO_ID)
    start, end = times
    unit = (start or end or (0.0, ""))[1]
    if request is None:
        if start and end and end[0] < start[0]:
            end = None
        return Span(trace, id_, parent, start[0] if start else None, end[0] if end else None, None, unit)
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
    return Span(trace, id_, parent, start[0], end[0], request, unit)


def counts(prompt: object, completion: object, total: object) -> tuple[float | None, float | None]:
    """Return input and output tokens, one of which may have to be derived from their sum."""
    given, made, both = values.tokens(prompt), values.tokens(completion), values.tokens(total)
    if both is not None and both > 0:
        if given is None and made is not None and made <= both:
            given = both - made
        elif made is None and given is not None and given <= both:
            made = both - given
    return given, made
