"""Token counts that an export lacks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from scepsy.errors import ScepsyError
from scepsy.traces.importers.span import Request, Span

LETTERS_PER_TOKEN = 4
"""Characters per token of English text, the rule of thumb of OpenAI's tokenizer page."""
_NO_ANSWER = frozenset(("embeddings", "rerank"))

Known = tuple[str, float | None, float | None]


def completed(spans: Sequence[Span], others: Iterable[Known] = ()) -> list[Span]:
    """Fill in missing token counts: from the mean of the model's other calls, or else from the length of the texts.

    A call that failed is not counted, so its are 0; embeddings and reranking generate nothing.

    Args:
        spans: spans of all traces.
        others: model, input and output tokens of calls that are no spans.

    Raises:
        ScepsyError: there is nothing to estimate from.
    """
    requests = [span.request for span in spans if span.request and span.request.error is None]
    known = [(r.model, r.input, r.output) for r in requests] + list(others)
    given = _means((model, tokens) for model, tokens, _ in known)
    made = _means((model, tokens) for model, _, tokens in known)
    lacking: Counter[str] = Counter()
    result = []
    for span in spans:
        request = span.request
        if request is not None and (request.input is None or request.output is None):
            filled = _filled(request, given.get(request.model), made.get(request.model))
            lacking[request.model] += filled is None
            span = replace(span, request=filled)  # noqa: PLW2901
        result.append(span)
    lacking = +lacking
    if lacking:
        listed = ", ".join(f"{model[:60]} ({count} calls)" for model, count in sorted(lacking.items()))
        raise ScepsyError(
            f"no token counts, no other call to estimate them from and no texts: {listed}",
            "let the agent's instrumentation record token usage (stream_options.include_usage for streams)",
        )
    return result


def _means(counts: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for model, tokens in counts:
        if tokens is not None:
            found[model].append(tokens)
    return {model: float(round(sum(tokens) / len(tokens))) for model, tokens in found.items()}


def _filled(request: Request, given: float | None, made: float | None) -> Request | None:
    estimated = list(request.estimated)
    prompt, answer = request.input, request.output
    if answer is None and request.operation in _NO_ANSWER:
        answer = 0.0
    if prompt is None:
        estimated.append("inputTokens")
        prompt = _guess(request, given, request.prompt)
    if answer is None:
        estimated.append("outputTokens")
        answer = _guess(request, made, request.completion)
    if prompt is None or answer is None:
        return None
    cached = min(request.cached, prompt)
    return replace(request, input=prompt, output=answer, cached=cached, estimated=tuple(estimated))


def _guess(request: Request, mean: float | None, letters: int) -> float | None:
    if request.error is not None:
        return 0.0
    if mean is not None:
        return mean
    return float(-(-letters // LETTERS_PER_TOKEN)) if letters else None
