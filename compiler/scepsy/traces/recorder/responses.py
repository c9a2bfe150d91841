"""What a server answers, as far as a record needs it: token counts, when the first token came, the text.

The shapes that are understood:

- OpenAI's `usage`: `prompt_tokens`, `completion_tokens`, `prompt_tokens_details.cached_tokens`. In a stream it comes in
  a last chunk without choices if `stream_options.include_usage` asks for it (vLLM can be made to send it always:
  --enable-force-include-usage), or with `continuous_usage_stats` in each chunk: the last one counts.
- The responses API: `input_tokens`, `output_tokens`, `input_tokens_details.cached_tokens`; in a stream within the
  `response` of the last event.
- The messages API that vLLM serves too: its `input_tokens` leave cached ones out; a stream spreads them over events.
- Embeddings and rerankers: `prompt_tokens`, or only `total_tokens`, and no output.

vLLM says how many tokens were cached only with --enable-prompt-tokens-details.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from scepsy.traces.recorder.content_encoding import MAX_ANALYSED

_MAX_TOKENS = 10**12
_LAST = frozenset(("response.completed", "response.incomplete", "message_stop"))
"""The last event of a stream in the responses and messages APIs; completions end with `data: [DONE]`."""
_TEXT_KEYS = ("content", "refusal", "text", "thinking", "partial_json", "arguments")


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as a server stated them; None where it did not.

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
        """Return these counts, replaced by those that are stated later."""
        stated = {name: getattr(later, name) for name in ("input", "output", "cached", "total")}
        return replace(self, **{name: count for name, count in stated.items() if count is not None})


@dataclass(slots=True)
class Answer:
    """What has been seen of an answer.

    Attributes:
        usage: the counts stated so far.
        first_token: when the first piece of content came in a stream; None if none did, or in another answer.
        pieces: how many pieces of content a stream had; servers send a piece per token, or per few.
        characters: length of the text.
        failed: whether a stream said that it failed.
        complete: whether a stream said that nothing more comes.
        texts: the pieces of text by choice, if they are kept.
    """

    usage: Usage = field(default_factory=Usage)
    first_token: float | None = None
    pieces: int = 0
    characters: int = 0
    failed: bool = False
    complete: bool = False
    texts: dict[int, list[str]] | None = None

    def text(self) -> str | None:
        """Return the text, the choices on lines of their own; None if it is not kept."""
        if self.texts is None:
            return None
        return "\n".join("".join(parts) for _, parts in sorted(self.texts.items()))

    def _add(self, choice: int, text: str) -> None:
        if self.texts is not None and self.characters < MAX_ANALYSED:
            self.texts.setdefault(choice, []).append(text)
        self.characters += len(text)


class Reader(Protocol):
    """Reads the content of an answer."""

    answer: Answer

    def feed(self, content: bytes, at: float) -> None:
        """Read what came at a time."""

    def end(self, at: float) -> None:
        """Read what is left."""


class EventReader:
    """Reads a stream of server-sent events, each when it has come; a stream may be of any length.

    Args:
        keep_text: whether to keep the text.
    """

    def __init__(self, keep_text: bool) -> None:
        self.answer = Answer(texts={} if keep_text else None)
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, content: bytes, at: float) -> None:
        """Read the events that end with this content."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._line(line.removesuffix(b"\r"), at)
        if len(self._rest) > MAX_ANALYSED:
            self._rest = b""

    def end(self, at: float) -> None:
        """Read the last event, which may lack its empty line."""
        self._line(self._rest.removesuffix(b"\r"), at)
        self._line(b"", at)
        self._rest = b""

    def _line(self, line: bytes, at: float) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:])
        elif not line and self._data:
            data = b"\n".join(self._data).strip()
            self._data.clear()
            if data == b"[DONE]":
                self.answer.complete = True
                return
            event = _json(data)
            if isinstance(event, dict):
                self._event(event, at)

    def _event(self, event: dict[str, Any], at: float) -> None:
        answer = self.answer
        answer.usage = answer.usage.updated(usage_of(event))
        if event.get("error") or event.get("type") in {"error", "response.failed"}:
            answer.failed = True
        if event.get("type") in _LAST:
            answer.complete = True
        for choice, text in _deltas(event):
            answer.pieces += 1
            if answer.first_token is None:
                answer.first_token = at
            answer._add(choice, text)


class DocumentReader:
    """Reads an answer that is one JSON document.

    Args:
        operation: what was asked for.
        keep_text: whether to keep the text.
    """

    def __init__(self, operation: str, keep_text: bool) -> None:
        self.answer = Answer(texts={} if keep_text else None)
        self._embeddings = operation == "embeddings"
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, content: bytes, at: float) -> None:
        """Keep the content, up to a limit."""
        self._size += len(content)
        if self._size <= MAX_ANALYSED:
            self._parts.append(content)
        else:
            self._parts.clear()

    def end(self, at: float) -> None:
        """Read the document."""
        content = b"".join(self._parts)
        self._parts.clear()
        usage = _last_usage(content) if self._embeddings else None
        document = _json(content) if usage is None else usage
        if isinstance(document, dict):
            self.answer.usage = usage_of(document)
            for choice, text in _texts(document):
                self.answer._add(choice, text)


def reader(content_type: bytes, operation: str, keep_text: bool) -> Reader:
    """Return what reads an answer of a media type."""
    if content_type.lower().startswith(b"text/event-stream"):
        return EventReader(keep_text)
    return DocumentReader(operation, keep_text)


def usage_of(document: dict[str, Any]) -> Usage:
    """Return the token counts that a document or an event states, wherever the API puts them."""
    for holder in (document, document.get("response"), document.get("message")):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            break
    else:
        return Usage()
    details = _dict(usage.get("prompt_tokens_details")) or _dict(usage.get("input_tokens_details"))
    cached = _count(details.get("cached_tokens"))
    total = _count(usage.get("total_tokens"))
    stated = _first(_count(usage.get("prompt_tokens")), _count(usage.get("input_tokens")))
    output = _first(_count(usage.get("completion_tokens")), _count(usage.get("output_tokens")))
    read, created = _count(usage.get("cache_read_input_tokens")), _count(usage.get("cache_creation_input_tokens"))
    if stated is not None and (read is not None or created is not None):
        cached, stated = read or 0, stated + (read or 0) + (created or 0)
    return Usage(stated, output, cached, total)


def _last_usage(content: bytes) -> dict[str, Any] | None:
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


def _deltas(event: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the pieces of content of an event: choice and text."""
    pieces = []
    for choice in _dicts(event.get("choices")):
        index = choice.get("index")
        text = _generated(choice.get("delta")) or _generated({"text": choice.get("text")})
        if text:
            pieces.append((index if isinstance(index, int) else 0, text))
    delta = event.get("delta")
    if delta and str(event.get("type", "")).endswith(("_delta", ".delta")):
        text = delta if isinstance(delta, str) else _generated(delta)
        if text:
            pieces.append((0, text))
    return pieces


def _texts(document: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the texts of a whole answer: choice and text."""
    texts = []
    for number, choice in enumerate(_dicts(document.get("choices"))):
        texts.append((number, _generated(choice.get("message")) or _generated({"text": choice.get("text")})))
    for item in _dicts(document.get("output")):
        texts += [(0, _generated(part)) for part in _dicts(item.get("content"))]
        texts.append((0, _generated({"arguments": item.get("arguments")})))
    texts += [(0, _generated(part)) for part in _dicts(document.get("content"))]
    return [(choice, text) for choice, text in texts if text]


def _generated(message: Any) -> str:
    """Return the text that a message or a delta holds: reasoning, content, and calls of tools."""
    if not isinstance(message, dict):
        return ""
    # Some servers send reasoning under both its names.
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    texts = [text for text in (reasoning, *map(message.get, _TEXT_KEYS)) if isinstance(text, str)]
    for call in (*_dicts(message.get("tool_calls")), {"function": message.get("function_call")}):
        function = _dict(call.get("function"))
        texts += [function[key] for key in ("name", "arguments") if isinstance(function.get(key), str)]
    return "".join(texts)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_TOKENS else None


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
