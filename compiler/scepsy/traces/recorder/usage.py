"""Token counts as servers report them: the `usage` of OpenAI's APIs and of those that resemble them.

- Completions: `prompt_tokens`, `completion_tokens`, `prompt_tokens_details.cached_tokens`. In a stream they come in a
  last chunk without choices if `stream_options.include_usage` asks for it (vLLM can be made to send it always:
  --enable-force-include-usage), or with `continuous_usage_stats` in each chunk: the last one counts.
- The responses API: `input_tokens`, `output_tokens`, `input_tokens_details.cached_tokens`; in a stream within the
  `response` of the last event.
- The messages API, which vLLM serves too: its `input_tokens` exclude cached ones; a stream spreads them over events.
- Embeddings and rerankers: `prompt_tokens`, or only `total_tokens`, and no output.

vLLM reports how many tokens were cached only with --enable-prompt-tokens-details.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

_MAX_TOKENS = 10**12


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as a server reports them; None where it does not.

    Attributes:
        input: prompt tokens, cached ones included.
        output: generated tokens.
        cached: prompt tokens that the prefix cache held.
        total: prompt and generated tokens.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    total: int | None = None

    def updated(self, later: Usage) -> Usage:
        """Return these counts, replaced by those that are reported later."""
        reported = {name: getattr(later, name) for name in ("input", "output", "cached", "total")}
        return replace(self, **{name: count for name, count in reported.items() if count is not None})


def usage_of(document: dict[str, Any]) -> Usage:
    """Return the token counts that a document or an event reports, wherever the API puts them."""
    for holder in (document, document.get("response"), document.get("message")):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            break
    else:
        return Usage()
    details = _dict(usage.get("prompt_tokens_details")) or _dict(usage.get("input_tokens_details"))
    cached = _count(details.get("cached_tokens"))
    total = _count(usage.get("total_tokens"))
    prompt = _first(_count(usage.get("prompt_tokens")), _count(usage.get("input_tokens")))
    output = _first(_count(usage.get("completion_tokens")), _count(usage.get("output_tokens")))
    read, created = _count(usage.get("cache_read_input_tokens")), _count(usage.get("cache_creation_input_tokens"))
    if prompt is not None and (read is not None or created is not None):
        cached, prompt = read or 0, prompt + (read or 0) + (created or 0)
    return Usage(prompt, output, cached, total)


def last_usage(content: bytes) -> dict[str, Any] | None:
    """Return the last `usage` of a long document without parsing its vectors; None if that is not simple.

    Within a JSON string a quote is escaped, so these bytes with a colon after them are a key.
    """
    _, key, rest = content.rpartition(b'"usage"')
    start = rest.find(b"{")
    if not key or rest[:start].strip() != b":":
        return None
    try:
        usage, _ = json.JSONDecoder().raw_decode(rest[start:].decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return {"usage": usage}


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_TOKENS else None


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
