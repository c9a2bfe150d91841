"""One LLM call of a trace, and the line of the native trace format that holds it.

The native format is JSONL, one line per call, in any order:

    {"execution": "e1", "id": "c2", "parent": "c1", "model": "generator", "start": 12.031, "end": 13.4,
     "inputTokens": 3210, "outputTokens": 240, "cachedTokens": 1024}

`execution` groups the calls of one workflow execution; `model` is the name that the agent code sent; `start` and `end`
are seconds, on one clock within an execution (Unix time lets arrivals be read from them); `cachedTokens` (default 0)
are part of `inputTokens`. The rest is optional:

- `id`, unique in its execution; `parent`, the id or the list of ids of the calls that this one waited for. Without
  `parent` a call waited for those that had ended before it began.
- `firstToken`, when the first token of a stream came; `operation`, such as `chat` or `embeddings`.
- `estimated`, the list of those of `execution`, `end`, `inputTokens`, `outputTokens`, `cachedTokens` that were not
  recorded but estimated.
- `error`, why the call failed: it is counted, and left out of the demand.
- `prefix`, salted hashes of the prompt's leading blocks: calls with equal leading hashes share that much of the prompt.
- `prompt`, `completion`, the texts, if the recorder was asked to store them.

A line with only `execution`, `start` and `end` states when the execution itself began and ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

ESTIMABLE = ("execution", "end", "inputTokens", "outputTokens", "cachedTokens")
"""What `estimated` may name."""


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call.

    Attributes:
        execution: the workflow execution that it belongs to.
        model: the LLM's name.
        start: seconds.
        end: seconds, not before `start`.
        input_tokens: prompt tokens, cached ones included.
        output_tokens: generated tokens.
        cached_tokens: prompt tokens that the prefix cache held.
        id: the call's id, unique in its execution; None if not recorded.
        parents: ids of the calls that this one waited for; None if not recorded.
        first_token: when the first token of a stream came, seconds.
        operation: what was requested: `chat`, `completions`, `embeddings`, `rerank`, ….
        estimated: which of ESTIMABLE were estimated.
        error: why it failed.
        prefix: salted, chained hashes of the prompt's leading blocks.
        prompt: the request's prompt or messages, if they are to be stored.
        completion: the text of the response, if it is to be stored.
    """

    execution: str
    model: str
    start: float
    end: float
    input_tokens: float
    output_tokens: float
    cached_tokens: float = 0.0
    id: str | None = None
    parents: tuple[str, ...] | None = None
    first_token: float | None = None
    operation: str | None = None
    estimated: tuple[str, ...] = ()
    error: str | None = None
    prefix: tuple[str, ...] = ()
    prompt: Any = None
    completion: str | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """When a workflow execution began and ended, if the trace records it besides its calls.

    Attributes:
        execution: its id.
        start: seconds, on the clock of its calls.
        end: seconds.
    """

    execution: str
    start: float
    end: float


def encoded(record: Call | Execution) -> bytes:
    """Return the line of a record, newline included."""
    fields: dict[str, Any] = {"execution": record.execution}
    if isinstance(record, Execution):
        fields |= {"start": _time(record.start), "end": _time(record.end)}
        return _line(fields)
    fields |= {"id": record.id, "parent": _parent(record.parents), "model": record.model}
    fields |= {"operation": record.operation, "start": _time(record.start), "end": _time(record.end)}
    fields |= {"firstToken": None if record.first_token is None else _time(record.first_token)}
    fields |= {"inputTokens": _count(record.input_tokens), "outputTokens": _count(record.output_tokens)}
    fields |= {"cachedTokens": _count(record.cached_tokens), "estimated": list(record.estimated) or None}
    fields |= {"error": record.error, "prefix": list(record.prefix) or None}
    fields |= {"prompt": record.prompt, "completion": record.completion}
    return _line({key: value for key, value in fields.items() if value is not None})


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _parent(parents: tuple[str, ...] | None) -> str | list[str] | None:
    if parents is None:
        return None
    return parents[0] if len(parents) == 1 else list(parents)


def _time(seconds: float) -> float:
    """Microseconds are kept; a double holds no more of a Unix time."""
    return round(seconds, 6)


def _count(tokens: float) -> float:
    return int(tokens) if float(tokens).is_integer() else tokens
