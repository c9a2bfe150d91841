"""What a request asks for, as far as a record needs it: model, operation, size and hashes of the prompt."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from scepsy.traces.recorder.content_encoding import decoded
from scepsy.traces.recorder.http1 import Head

MODEL_HEADER = b"x-scepsy-model"
"""Names the model of a request whose body does not: another format than JSON, or servers of a single model."""

BLOCK = 256
"""Characters that one prefix hash stands for."""

MAX_BLOCKS = 4096
"""So many leading blocks are hashed, a million characters."""

CHARACTERS_PER_TOKEN = 4
"""Of English text, as a rule of thumb; only where a server does not say how many tokens it counted."""

_NO_CALLS = frozenset(("tokenize", "detokenize"))
_MAX_OPERATION = 64


@dataclass(frozen=True, slots=True)
class Question:
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


def question(head: Head, target: bytes, content: bytes) -> Question | None:
    """Return what a request asks a model for; None if it names no model, or asks for none to work.

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
    return Question(_valid(model), operation, body, body.get("stream") is True)


def operation_of(target: bytes) -> str:
    """Return the operation that a path names: `chat` for `/v1/chat/completions`, else the last segment."""
    path = target.partition(b"?")[0].decode("ascii", "replace").rstrip("/")
    if path.endswith("/chat/completions"):
        return "chat"
    return path.rpartition("/")[2][:_MAX_OPERATION] or "unknown"


def prompt_of(body: dict[str, Any]) -> Any:
    """Return the prompt of a request as it was sent: messages, a text, or the texts of a reranker."""
    for key in ("messages", "prompt", "input"):
        if key in body:
            return body[key]
    keys = ("query", "queries", "documents", "text_1", "text_2")
    return {key: body[key] for key in keys if key in body} or None


def prompt_text(body: dict[str, Any]) -> str:
    """Return the prompt as one text, in the order in which chat templates lay it out.

    Tools come first, then system instructions, then each message with its role. What is no text, such as an image,
    becomes a short digest: equal images give equal texts. The text only serves to compare prompts and to guess sizes.
    """
    parts = [_canonical(tool) for tool in _list(body.get("tools"))]
    for key in ("instructions", "system"):
        if key in body:
            parts.append(f"\x1esystem\x1f{_text(body[key])}")
    prompt = prompt_of(body)
    parts += [_message(item) for item in (prompt if isinstance(prompt, list) else [prompt])] if prompt else []
    return "".join(parts)


def estimated_input(body: dict[str, Any]) -> int:
    """Return about how many tokens a prompt has: as many as its ids if it consists of them, else by its characters."""
    prompt = prompt_of(body)
    if isinstance(prompt, list) and prompt:
        rows = prompt if isinstance(prompt[0], list) else [prompt]
        if all(isinstance(row, list) and all(type(token) is int for token in row) for row in rows):
            return sum(map(len, rows))
    return math.ceil(len(prompt_text(body)) / CHARACTERS_PER_TOKEN)


def prefix_hashes(text: str, salt: bytes) -> tuple[str, ...]:
    """Return a hash for each leading block of BLOCK characters, which depends on all characters up to its end.

    Equal leading hashes mean equal beginnings. The hashes are keyed BLAKE2b of 48 bits, eight characters each; without
    the salt, which is never stored, nobody can try which text they stand for. A last block that is not full has none.

    Args:
        text: the prompt.
        salt: up to 64 bytes, one for all calls that are to be compared.
    """
    running = blake2b(key=salt, digest_size=6)
    hashes = []
    for end in range(BLOCK, min(len(text), BLOCK * MAX_BLOCKS) + 1, BLOCK):
        running.update(text[end - BLOCK : end].encode("utf-8", "surrogatepass"))
        hashes.append(urlsafe_b64encode(running.digest()).decode("ascii"))
    return tuple(hashes)


def storable(value: Any) -> Any:
    """Return a JSON value without what UTF-8 cannot hold: halves of surrogate pairs become question marks."""
    return json.loads(_valid(json.dumps(value, ensure_ascii=False)))


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _json_object(content: bytes) -> dict[str, Any]:
    if content[:64].lstrip()[:1] != b"{":
        return {}
    try:
        value = json.loads(content, parse_constant=lambda _: None)  # NaN is not JSON
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _message(item: Any) -> str:
    if not isinstance(item, dict):
        return f"\x1e{_text(item)}"
    rest = "".join(_canonical(item[key]) for key in ("tool_calls", "function_call", "name", "arguments") if key in item)
    content = next((item[key] for key in ("content", "output", "text") if key in item), "")
    if "role" not in item and "type" not in item:  # the texts of a reranker
        content = list(item.values())
    return f"\x1e{item.get('role') or item.get('type') or ''}\x1f{_text(content)}{rest}"


def _text(content: Any) -> str:
    return "\x1f".join(_texts(content))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part) if isinstance(part, str | list | dict) else (str(part),)
    elif isinstance(content, dict):
        text = content.get("text")
        if isinstance(text, str):
            yield text
        else:
            yield blake2b(_canonical(content).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    elif content is not None:
        yield str(content)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
