"""What a request asks of an LLM: the model, the operation, whether to stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from scepsy.traces.recorder.content_encoding import decoded
from scepsy.traces.recorder.http1 import Head

MODEL_HEADER = b"x-scepsy-model"
"""Names the model of a request whose body does not: another format than JSON, or servers of a single model."""

_NO_CALLS = frozenset(("tokenize", "detokenize"))
_MAX_OPERATION = 64


@dataclass(frozen=True, slots=True)
class LlmRequest:
    """The request of one call.

    Attributes:
        model: as the agent sent it.
        operation: `chat`, `completions`, `embeddings`, `rerank`, …
        body: the parsed JSON object; empty if the body is something else.
        streams: whether it asks for a stream.
    """

    model: str
    operation: str
    body: dict[str, Any]
    streams: bool


def llm_request(head: Head, target: bytes, content: bytes) -> LlmRequest | None:
    """Return what a request asks of an LLM; None if it names no model, or needs none to run.

    Args:
        head: its headers.
        target: path and query.
        content: its body, without transfer coding.
    """
    body = _json_object(decoded(content, head.value(b"content-encoding")) or b"")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        model = head.value(MODEL_HEADER).decode("utf-8", "replace")
    operation = operation_of(target)
    if not model or operation in _NO_CALLS:
        return None
    return LlmRequest(model.encode("utf-8", "replace").decode("utf-8"), operation, body, body.get("stream") is True)


def operation_of(target: bytes) -> str:
    """Return the operation that a path names: `chat` for `/v1/chat/completions`, else the last segment."""
    path = target.partition(b"?")[0].decode("ascii", "replace").rstrip("/")
    if path.endswith("/chat/completions"):
        return "chat"
    return path.rpartition("/")[2][:_MAX_OPERATION] or "unknown"


def _json_object(content: bytes) -> dict[str, Any]:
    if content[:64].lstrip()[:1] != b"{":
        return {}
    try:
        value = json.loads(content, parse_constant=lambda _: None)  # NaN is not JSON
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
