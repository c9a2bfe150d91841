"""The token counts of a recorded call: as the server reports them, else estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scepsy.traces.recorder.prompt import CHARACTERS_PER_TOKEN
from scepsy.traces.recorder.responses import LlmResponse

_WITHOUT_OUTPUT = frozenset(("embeddings", "rerank", "score", "pooling", "classify"))


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The token counts of a call.

    Attributes:
        input: prompt tokens.
        output: generated tokens.
        cached: prompt tokens that the prefix cache held, 0 if not reported.
        estimated: the names of those fields of the trace format that were not reported.
    """

    input: int
    output: int
    cached: int
    estimated: tuple[str, ...]


def token_counts(operation: str, response: LlmResponse, prompt_tokens: int, cut_off: bool) -> TokenCounts:
    """Return the token counts of a call: as the server reports them, else estimated.

    Args:
        operation: what was requested; embeddings and rerankers generate nothing, and cache nothing.
        response: what was read of the response.
        prompt_tokens: an estimate of the prompt.
        cut_off: whether the response ended early, so that the server may have generated more than was received.
    """
    usage, generates = response.usage, operation not in _WITHOUT_OUTPUT
    prompt, output = usage.input, usage.output
    if prompt is None and usage.total is not None and (output is not None or not generates):
        prompt = max(0, usage.total - (output or 0))
    if output is None and usage.total is not None and prompt is not None:
        output = max(0, usage.total - prompt)
    if output is None and not generates:
        output = 0
    estimated = {
        "inputTokens": prompt is None,
        "outputTokens": output is None or (cut_off and generates),
        "cachedTokens": usage.cached is None and generates,
    }
    if prompt is None:
        prompt = prompt_tokens
    if output is None:
        output = response.pieces or math.ceil(response.characters / CHARACTERS_PER_TOKEN)
    names = tuple(name for name, is_so in estimated.items() if is_so)
    return TokenCounts(prompt, output, min(usage.cached or 0, prompt), names)
