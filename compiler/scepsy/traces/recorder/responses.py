"""What a record needs of a server's response: token counts, when the first token came, the text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from scepsy.traces.recorder.content_encoding import MAX_ANALYSED
from scepsy.traces.recorder.usage import Usage, last_usage, usage_of

_LAST = frozenset(("response.completed", "response.incomplete", "message_stop"))
"""The last event of a stream in the responses and messages APIs; completions end with `data: [DONE]`."""
_TEXT_KEYS = ("content", "refusal", "text", "thinking", "partial_json", "arguments")


@dataclass(slots=True)
class LlmResponse:
    """What was read of a response so far.

    Attributes:
        usage: the reported counts.
        first_token: when the first piece of content came in a stream; None without one, or if it is not a stream.
        pieces: how many pieces of content a stream had; servers send a piece per token, or per few.
        characters: length of the text.
        failed: whether a stream reported an error.
        complete: whether a stream reported its end.
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
        """Return the text, each choice on a new line; None if it is not kept."""
        if self.texts is None:
            return None
        return "\n".join("".join(parts) for _, parts in sorted(self.texts.items()))

    def _add(self, choice: int, text: str) -> None:
        if self.texts is not None and self.characters < MAX_ANALYSED:
            self.texts.setdefault(choice, []).append(text)
        self.characters += len(text)


class ResponseReader(Protocol):
    """Reads the content of a response."""

    response: LlmResponse

    def feed(self, content: bytes, at: float) -> None:
        """Read what arrived at a time."""

    def end(self, at: float) -> None:
        """Read the rest."""


class StreamReader:
    """Reads a stream of server-sent events, each when it arrives; a stream may be of any length.

    Args:
        keep_text: whether to keep the text.
    """

    def __init__(self, keep_text: bool) -> None:
        self.response = LlmResponse(texts={} if keep_text else None)
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
                self.response.complete = True
                return
            event = _json(data)
            if isinstance(event, dict):
                self._event(event, at)

    def _event(self, event: dict[str, Any], at: float) -> None:
        response = self.response
        response.usage = response.usage.updated(usage_of(event))
        if event.get("error") or event.get("type") in {"error", "response.failed"}:
            response.failed = True
        if event.get("type") in _LAST:
            response.complete = True
        for choice, text in _deltas(event):
            response.pieces += 1
            if response.first_token is None:
                response.first_token = at
            response._add(choice, text)


class DocumentReader:
    """Reads a response that is one JSON document.

    Args:
        operation: what was requested.
        keep_text: whether to keep the text.
    """

    def __init__(self, operation: str, keep_text: bool) -> None:
        self.response = LlmResponse(texts={} if keep_text else None)
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
        usage = last_usage(content) if self._embeddings else None
        document = _json(content) if usage is None else usage
        if isinstance(document, dict):
            self.response.usage = usage_of(document)
            for choice, text in _texts(document):
                self.response._add(choice, text)


def response_reader(content_type: bytes, operation: str, keep_text: bool) -> ResponseReader:
    """Return what reads a response of a media type."""
    if content_type.lower().startswith(b"text/event-stream"):
        return StreamReader(keep_text)
    return DocumentReader(operation, keep_text)


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
    """Return the texts of a whole response: choice and text."""
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
    # Some servers send reasoning under both names.
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    texts = [text for text in (reasoning, *map(message.get, _TEXT_KEYS)) if isinstance(text, str)]
    for call in (*_dicts(message.get("tool_calls")), {"function": message.get("function_call")}):
        function = call.get("function")
        if isinstance(function, dict):
            texts += [function[key] for key in ("name", "arguments") if isinstance(function.get(key), str)]
    return "".join(texts)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
