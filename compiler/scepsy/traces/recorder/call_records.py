"""Turns what has been seen of a call into its line of the trace."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from scepsy.traces.call import Call, encoded
from scepsy.traces.recorder.content_encoding import Decoder, decoder
from scepsy.traces.recorder.executions import ByConnection
from scepsy.traces.recorder.http1 import Head
from scepsy.traces.recorder.notices import Notices
from scepsy.traces.recorder.request_content import (
    CHARACTERS_PER_TOKEN,
    Question,
    estimated_input,
    prefix_hashes,
    prompt_of,
    prompt_text,
    storable,
)
from scepsy.traces.recorder.responses import Answer, Reader, reader
from scepsy.traces.recorder.trace_file import Journal

_WITHOUT_OUTPUT = frozenset(("embeddings", "rerank", "score", "pooling", "classify"))

_NO_EXECUTION = (
    "note: calls come without traceparent or x-scepsy-execution; those of one connection without a longer pause than "
    "--idle-gap count as one execution, and are marked as estimated"
)
_NO_USAGE = (
    "note: streams come without token counts, which are estimated; to have them counted, let agents send "
    '"stream_options": {"include_usage": true}, or start vLLM with --enable-force-include-usage'
)
_UNREADABLE = "note: answers come in a Content-Encoding other than gzip or deflate; their token counts are estimated"


@dataclass(slots=True)
class Summary:
    """What has been recorded.

    Attributes:
        calls: lines written.
        executions: the executions that they belong to.
        failed: calls with an error.
        guessed_tokens: calls without error whose input or output tokens are estimated.
        guessed_executions: calls whose execution is estimated.
        refused: calls of an unknown model, which are not written.
        lost: calls that could not be written.
    """

    calls: int = 0
    executions: set[str] = field(default_factory=set)
    failed: int = 0
    guessed_tokens: int = 0
    guessed_executions: int = 0
    refused: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token counts of a call.

    Attributes:
        input: prompt tokens.
        output: generated tokens.
        cached: prompt tokens that the prefix cache held, 0 if nobody said.
        estimated: those of the trace format's fields that were not stated.
    """

    input: int
    output: int
    cached: int
    estimated: tuple[str, ...]


def tokens_of(operation: str, answer: Answer, prompt_tokens: int, cut_off: bool) -> Tokens:
    """Return the token counts of a call: as the server stated them, else estimated.

    Args:
        operation: what was asked for; embeddings and rerankers generate nothing, and cache nothing.
        answer: what has been seen of the answer.
        prompt_tokens: an estimate of the prompt.
        cut_off: whether more may have been generated than was seen.
    """
    usage, generates = answer.usage, operation not in _WITHOUT_OUTPUT
    asked, output = usage.input, usage.output
    if asked is None and usage.total is not None and (output is not None or not generates):
        asked = max(0, usage.total - (output or 0))
    if output is None and usage.total is not None and asked is not None:
        output = max(0, usage.total - asked)
    if output is None and not generates:
        output = 0
    unknown = {
        "inputTokens": asked is None,
        "outputTokens": output is None or (cut_off and generates),
        "cachedTokens": usage.cached is None and generates,
    }
    if asked is None:
        asked = prompt_tokens
    if output is None:
        output = answer.pieces or math.ceil(answer.characters / CHARACTERS_PER_TOKEN)
    return Tokens(asked, output, min(usage.cached or 0, asked), tuple(name for name, is_so in unknown.items() if is_so))


class Scribe:
    """Writes one line per call.

    Args:
        journal: the trace file.
        now: the clock.
        store_text: whether prompts and completions are stored.
        notices: where to tell what is estimated, and what fails.
    """

    def __init__(self, journal: Journal, now: Callable[[], float], store_text: bool, notices: Notices) -> None:
        self.summary = Summary()
        self._journal = journal
        self.now = now
        self.store_text = store_text
        self.notices = notices
        self.salt = secrets.token_bytes(32)
        self._run = secrets.token_hex(6)
        self._number = 0

    def next_id(self) -> str:
        """Return an id that no other call has, of this run or of another."""
        self._number += 1
        return f"{self._run}-{self._number}"

    def write(self, call: Call) -> None:
        """Append a call; one that cannot be written is counted, and said once."""
        summary = self.summary
        try:
            self._journal.append(encoded(call))
        except OSError as error:
            summary.lost += 1
            why = (error.strerror or str(error)).lower()
            self.notices.once(
                "lost", f"error: the trace cannot be written ({why}); calls are forwarded, and lost to it"
            )
            return
        summary.calls += 1
        summary.executions.add(call.execution)
        summary.failed += call.error is not None
        summary.guessed_executions += "execution" in call.estimated
        summary.guessed_tokens += call.error is None and not {"inputTokens", "outputTokens"}.isdisjoint(call.estimated)


class Recording:
    """One call while it is forwarded. Nothing in here can keep a byte from being forwarded.

    Args:
        scribe: what writes it.
        question: the request.
        execution: the execution that its headers name, if they do.
        connection: the client's connection, which stands in for it.
        start: when the first byte of the request came, Unix seconds.
    """

    def __init__(
        self, scribe: Scribe, question: Question, execution: str | None, connection: ByConnection, start: float
    ) -> None:
        self._scribe = scribe
        self._question = question
        self._announced = execution is not None
        self._execution = connection.at(start) if execution is None else execution
        self._connection = connection
        self._start = start
        self._status = 0
        self._reader: Reader | None = None
        self._decoder: Decoder | None = None
        self._prefix: tuple[str, ...] = ()
        self._prompt_tokens = 0

    def study(self) -> None:
        """Take from the prompt what the record needs: done while the server works."""
        with self._guarded():
            body = self._question.body
            self._prefix = prefix_hashes(prompt_text(body), self._scribe.salt)
            self._prompt_tokens = estimated_input(body)

    def answered(self, status: int, head: Head) -> None:
        """Note the status and the headers of the answer."""
        self._status = status
        if status >= 400:
            return
        self._decoder = decoder(head.value(b"content-encoding"))
        if self._decoder is None:
            self._scribe.notices.once("encoding", _UNREADABLE)
            return
        operation = self._question.operation
        self._reader = reader(head.value(b"content-type"), operation, self._scribe.store_text)

    def feed(self, content: bytes, at: float) -> None:
        """Read content of the answer that came at a time."""
        if self._reader is not None and self._decoder is not None:
            with self._guarded():
                self._reader.feed(self._decoder.feed(content), at)

    def finish(self, failure: str | None = None) -> None:
        """Write the record: the call has ended, or failed now."""
        end = self._scribe.now()
        self._connection.ended(end)
        try:
            self._write(end, failure)
        except Exception as error:
            self._scribe.summary.lost += 1
            self._scribe.notices.once("bug", f"error: a call cannot be recorded: {type(error).__name__}")

    def _write(self, end: float, failure: str | None) -> None:
        scribe, question = self._scribe, self._question
        if self._reader is not None:
            with self._guarded():
                self._reader.end(end)
        answer = self._reader.answer if self._reader is not None else Answer()
        if answer.complete:
            failure = None  # clients hang up once they have read the last event, before the body has formally ended
        tokens = tokens_of(question.operation, answer, self._prompt_tokens, failure is not None)
        if failure is None and self._status >= 400:
            failure = f"HTTP {self._status}"
        if failure is None and answer.failed:
            failure = "error in the stream"
        if failure is None and question.streams and "outputTokens" in tokens.estimated:
            scribe.notices.once("usage", _NO_USAGE)
        if not self._announced:
            scribe.notices.once("execution", _NO_EXECUTION)
        scribe.write(
            Call(
                execution=self._execution,
                model=question.model,
                start=self._start,
                end=end,
                input_tokens=tokens.input,
                output_tokens=tokens.output,
                cached_tokens=tokens.cached,
                id=scribe.next_id(),
                first_token=answer.first_token,
                operation=question.operation,
                estimated=(*(() if self._announced else ("execution",)), *tokens.estimated),
                error=failure,
                prefix=self._prefix,
                prompt=storable(prompt_of(question.body)) if scribe.store_text else None,
                completion=storable(answer.text() or None),
            )
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Go on without what cannot be analysed, such as JSON nested a thousand levels deep."""
        try:
            yield
        except Exception as error:
            self._scribe.notices.once("analysis", f"note: a call cannot be analysed: {type(error).__name__}")
