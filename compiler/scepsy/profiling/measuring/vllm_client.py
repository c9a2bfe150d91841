"""A client of a running vLLM server, made to cost little per token.

aiohttp and not httpx: it reads a few hundred streams on one core (`docs/profiles.md` has the measurement), and vLLM
needs it itself, so that its images have it. The pieces of a stream are not parsed, only timed: what counts is when the
first one came, when the last one came, and the usage that the server sends at the end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from pydantic import TypeAdapter

from scepsy.documents.diagnostics import printable
from scepsy.documents.model import Version
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.metrics import Snapshot, parse

SILENCE = 900.0
"""Seconds without a byte after which a call counts as lost."""
_ASK = 30.0
"""Seconds for anything but a call."""
# Below the five seconds after which vLLM's server closes an idle connection: one that it is just closing fails a call.
_KEEP_ALIVE = 2.0
_TAIL = 8192
"""Bytes kept of the end of a stream; its last two events are far shorter."""
_MOST = 300
"""Most characters of what a server says that are repeated."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A call that was answered in full.

    Attributes:
        sent: when the request was sent, seconds on the clock of the event loop.
        first: when the first token came.
        ended: when the stream ended.
        output: generated tokens.
        cached: prompt tokens that the prefix cache held; None if the server does not say.
    """

    sent: float
    first: float
    ended: float
    output: int
    cached: int | None = None

    @property
    def latency(self) -> float:
        """Seconds from the request to the end of the stream."""
        return self.ended - self.sent


class CallFailed(Exception):
    """A call was refused, broke off, or did not do what it was asked to."""


class Engine:
    """A server, by its base URL. Use it as an asynchronous context manager.

    Args:
        base_url: such as `http://127.0.0.1:8000`, with or without `/v1`.
        model: the name under which it serves the model.
        key: its API key, if it asks for one. No message shows it.
    """

    def __init__(self, base_url: str, model: str, key: str | None) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.model = model
        self._key = key

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # Own limits of connections would be queues that nobody measures.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ASK, sock_read=SILENCE)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._session.close()

    async def healthy(self) -> str | None:
        """Return None if `/health` says that the engine works, else what is wrong."""
        try:
            status, text = await self._ask("GET", "/health")
        except CallFailed as error:
            return str(error)
        return None if status == 200 else self._safe(_said(status, text))

    async def wait(self, seconds: float, told: Callable[[str], None] = lambda problem: None) -> None:
        """Wait until the engine is healthy.

        Args:
            seconds: how long.
            told: gets what is wrong meanwhile, whenever that is something else.

        Raises:
            ScepsyError: it is not after so many seconds.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        before = None
        while (problem := await self.healthy()) is not None:
            if problem != before:
                told(problem)
                before = problem
            if clock() >= end:
                raise ScepsyError(
                    f"{self.base_url}/health was not healthy within {seconds:g} s: {problem}",
                    "is the server up? loading a large model takes minutes: see --wait",
                )
            await asyncio.sleep(min(1.0, max(0.05, end - clock())))

    async def version(self) -> str:
        """Return the engine's version.

        Raises:
            ScepsyError: the server does not say it.
        """
        try:
            status, text = await self._ask("GET", "/version")
            said = json.loads(text)["version"] if status == 200 else None
            version: str = TypeAdapter(Version).validate_python(said, strict=True)
        except (CallFailed, ValueError, KeyError, TypeError, RecursionError):  # pydantic's error is a ValueError
            raise ScepsyError(
                f"{self.base_url}/version does not say a version such as 0.24.0", "is it a vLLM server?"
            ) from None
        return version

    async def longest(self) -> int | None:
        """Return how many tokens a call may have, if the server says so, and check that it serves the model.

        Raises:
            ScepsyError: it does not, or refuses the key.
        """
        try:
            status, text = await self._ask("GET", "/v1/models")
        except CallFailed as error:
            raise ScepsyError(f"{self.base_url}/v1/models: {error}") from error
        if status in (401, 403):
            raise ScepsyError(
                f"{self.base_url} refuses the API key" if self._key else f"{self.base_url} asks for an API key",
                "--api-key-env names the environment variable that holds it",
            )
        try:
            models = {str(card["id"]): card for card in json.loads(text)["data"]} if status == 200 else None
        except (ValueError, KeyError, TypeError, RecursionError):
            models = None
        if models is None:
            raise ScepsyError(f"{self.base_url}/v1/models: {self._safe(_said(status, text))}", "is it a vLLM server?")
        if self.model not in models:
            served = self._safe(", ".join(sorted(models))) or "nothing"
            raise ScepsyError(
                f'{self.base_url} does not serve "{self.model}" but {served}',
                "--served-as is the name under which the server serves the model",
            )
        longest = models[self.model].get("max_model_len")
        return longest if isinstance(longest, int) else None

    async def forget_prefixes(self) -> bool:
        """Empty the prefix cache; return whether the server could (only with VLLM_SERVER_DEV_MODE=1)."""
        try:
            status, _ = await self._ask("POST", "/reset_prefix_cache")
        except CallFailed:
            return False
        return status == 200

    async def snapshot(self) -> Snapshot | None:
        """Return what `/metrics` says; None if there is no such page."""
        at = asyncio.get_running_loop().time()
        try:
            status, text = await self._ask("GET", "/metrics")
        except CallFailed:
            return None
        return parse(text, at) if status == 200 else None

    async def call(self, prompt: list[int], output: int) -> Answer:
        """Have one call answered, with exactly so many tokens.

        `ignore_eos` and `min_tokens` keep it from ending earlier, `max_tokens` from ending later; at temperature 0 no
        random number is drawn. (vLLM, OpenAI-Compatible Server, Completions API, extra parameters.)

        Raises:
            CallFailed: with the reason.
        """
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": output,
            "min_tokens": output,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        content = json.dumps(body, separators=(",", ":")).encode()
        clock = asyncio.get_running_loop().time
        sent = clock()
        first = 0.0
        tail = b""
        try:
            async with self._session.post(
                f"{self.base_url}/v1/completions", data=content, headers={"Content-Type": "application/json"}
            ) as response:
                if response.status != 200:
                    text = (await response.content.read(2000)).decode("utf-8", "replace")
                    raise CallFailed(self._safe(_said(response.status, text)))
                async for piece in response.content.iter_any():
                    first = first or clock()
                    tail = (tail + piece)[-_TAIL:]
            ended = clock()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise CallFailed(self._safe(_why(error))) from error
        usage = _usage(tail)
        if isinstance(usage, str):
            raise CallFailed(self._safe(usage))
        if usage.get("prompt_tokens") != len(prompt) or usage.get("completion_tokens") != output:
            counted = self._safe(f"{usage.get('prompt_tokens')} and {usage.get('completion_tokens')}")
            raise CallFailed(f"asked for {len(prompt)} prompt and {output} output tokens, the server counts {counted}")
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return Answer(sent, first, ended, output, cached if isinstance(cached, int) else None)

    async def _ask(self, method: str, path: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=_ASK)
        try:
            async with self._session.request(method, self.base_url + path, timeout=timeout) as response:
                return response.status, (await response.read()).decode("utf-8", "replace")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise CallFailed(self._safe(_why(error))) from error

    def _safe(self, text: str) -> str:
        """Return a text of the server as part of a message: one line, not too long, without the key it was sent."""
        line = " ".join((text.replace(self._key, "***") if self._key else text).split())
        return printable(line if len(line) <= _MOST else line[:_MOST] + "…")


def _usage(tail: bytes) -> dict[str, Any] | str:
    """Return the usage at the end of a stream, or what is wrong with the stream."""
    events = [line[5:].strip() for line in tail.split(b"\n") if line.startswith(b"data:")]
    if not events or events[-1] != b"[DONE]":
        # An error that came before any token is a document instead of an event.
        return "the stream ended before it was complete"
    for event in reversed(events[:-1]):
        try:
            value = json.loads(event)
        except (ValueError, RecursionError):
            break
        if isinstance(value, dict) and isinstance(value.get("usage"), dict):
            usage: dict[str, Any] = value["usage"]
            return usage
        if isinstance(value, dict) and "error" in value:
            return f"the stream ended with an error: {_message(value)}"
    return "the stream has no usage at its end, so its tokens are unknown"


def _said(status: int, text: str) -> str:
    try:
        value = json.loads(text)
        message = _message(value) if isinstance(value, dict) else text
    except (ValueError, RecursionError):
        message = text
    return f"HTTP {status}" + (f": {message}" if message else "")


def _message(value: dict[str, Any]) -> str:
    error = value.get("error", value)
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the stream was cut off"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
