"""Records calls while they are forwarded: one line of the trace per call."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from scepsy.traces.call import Call, encoded
from scepsy.traces.recorder.content_encoding import Decoder, decoder
from scepsy.traces.recorder.execution_ids import ConnectionExecutions
from scepsy.traces.recorder.http1 import Head
from scepsy.traces.recorder.llm_request import LlmRequest
from scepsy.traces.recorder.log_once import LogOnce
from scepsy.traces.recorder.prompt import estimated_input, prefix_hashes, prompt_of, prompt_text, storable
from scepsy.traces.recorder.responses import LlmResponse, ResponseReader, response_reader
from scepsy.traces.recorder.token_counts import token_counts
from scepsy.traces.recorder.trace_file import TraceFile

_NO_EXECUTION = (
    "note: calls have neither traceparent nor x-scepsy-execution; the calls of one connection count as one execution "
    "until a pause longer than --idle-gap, and are marked as estimated"
)
_NO_USAGE = (
    "note: streams have no token counts, so these are estimated; to get them counted, let agents send "
    '"stream_options": {"include_usage": true}, or start vLLM with --enable-force-include-usage'
)
_UNREADABLE = "note: responses have a Content-Encoding other than gzip or deflate; their token counts are estimated"


@dataclass(slots=True)
class Summary:
    """What was recorded.

    Attributes:
        calls: lines written.
        executions: the executions of these calls.
        failed: calls with an error.
        estimated_tokens: calls without error whose input or output tokens are estimated.
        estimated_executions: calls whose execution is estimated.
        refused: calls of an unknown model, which are not written.
        lost: calls that could not be written.
    """

    calls: int = 0
    executions: set[str] = field(default_factory=set)
    failed: int = 0
    estimated_tokens: int = 0
    estimated_executions: int = 0
    refused: int = 0
    lost: int = 0


class CallRecorder:
    """Writes one line per call.

    Args:
        file: the trace file.
        now: the clock.
        store_text: whether prompts and completions are stored.
        log: where to report what is estimated, and what fails.
    """

    def __init__(self, file: TraceFile, now: Callable[[], float], store_text: bool, log: LogOnce) -> None:
        self.summary = Summary()
        self._file = file
        self.now = now
        self.store_text = store_text
        self.log = log
        self.salt = secrets.token_bytes(32)
        self._run = secrets.token_hex(6)
        self._number = 0

    def next_id(self) -> str:
        """Return an id that no other call has, of this run or of another."""
        self._number += 1
        return f"{self._run}-{self._number}"

    def write(self, call: Call) -> None:
        """Append a call; one that cannot be written is counted, and logged once."""
        summary = self.summary
        try:
            self._file.append(encoded(call))
        except OSError as error:
            summary.lost += 1
            reason = (error.strerror or str(error)).lower()
            self.log.once(
                "lost", f"error: cannot write to the trace file ({reason}); calls are still forwarded, but not recorded"
            )
            return
        summary.calls += 1
        summary.executions.add(call.execution)
        summary.failed += call.error is not None
        summary.estimated_executions += "execution" in call.estimated
        summary.estimated_tokens += call.error is None and not {"inputTokens", "outputTokens"}.isdisjoint(
            call.estimated
        )


class CallRecording:
    """One call while it is forwarded. No failure in here keeps a byte from being forwarded.

    Args:
        recorder: what writes the record.
        request: the request.
        execution: the execution that its headers name; None if they name none.
        connection: the executions of the client's connection, used where headers name none.
        start: when the first byte of the request arrived, Unix seconds.
    """

    def __init__(
        self,
        recorder: CallRecorder,
        request: LlmRequest,
        execution: str | None,
        connection: ConnectionExecutions,
        start: float,
    ) -> None:
        self._recorder = recorder
        self._request = request
        self._named = execution is not None
        self._execution = connection.at(start) if execution is None else execution
        self._connection = connection
        self._start = start
        self._status = 0
        self._reader: ResponseReader | None = None
        self._decoder: Decoder | None = None
        self._prefix: tuple[str, ...] = ()
        self._prompt_tokens = 0

    def analyse_prompt(self) -> None:
        """Hash the prompt and estimate its tokens: done while the server works."""
        with self._guarded():
            body = self._request.body
            self._prefix = prefix_hashes(prompt_text(body), self._recorder.salt)
            self._prompt_tokens = estimated_input(body)

    def start_response(self, status: int, head: Head) -> None:
        """Note the status and the headers of the response."""
        self._status = status
        if status >= 400:
            return
        self._decoder = decoder(head.value(b"content-encoding"))
        if self._decoder is None:
            self._recorder.log.once("encoding", _UNREADABLE)
            return
        operation = self._request.operation
        self._reader = response_reader(head.value(b"content-type"), operation, self._recorder.store_text)

    def feed(self, content: bytes, at: float) -> None:
        """Read content of the response that arrived at a time."""
        if self._reader is not None and self._decoder is not None:
            with self._guarded():
                self._reader.feed(self._decoder.feed(content), at)

    def finish(self, failure: str | None = None) -> None:
        """Write the record of a call that ended now.

        Args:
            failure: why it failed; None if it did not.
        """
        end = self._recorder.now()
        self._connection.ended(end)
        try:
            self._write(end, failure)
        except Exception as error:
            self._recorder.summary.lost += 1
            self._recorder.log.once("bug", f"error: cannot record a call: {type(error).__name__}")

    def _write(self, end: float, failure: str | None) -> None:
        recorder, request = self._recorder, self._request
        if self._reader is not None:
            with self._guarded():
                self._reader.end(end)
        response = self._reader.response if self._reader is not None else LlmResponse()
        if response.complete:
            failure = None  # clients disconnect after the last event, before the body has formally ended
        tokens = token_counts(request.operation, response, self._prompt_tokens, failure is not None)
        if failure is None and self._status >= 400:
            failure = f"HTTP {self._status}"
        if failure is None and response.failed:
            failure = "error in the stream"
        if failure is None and request.streams and "outputTokens" in tokens.estimated:
            recorder.log.once("usage", _NO_USAGE)
        if not self._named:
            recorder.log.once("execution", _NO_EXECUTION)
        recorder.write(
            Call(
                execution=self._execution,
                model=request.model,
                start=self._start,
                end=end,
                input_tokens=tokens.input,
                output_tokens=tokens.output,
                cached_tokens=tokens.cached,
                id=recorder.next_id(),
                first_token=response.first_token,
                operation=request.operation,
                estimated=(*(() if self._named else ("execution",)), *tokens.estimated),
                error=failure,
                prefix=self._prefix,
                prompt=storable(prompt_of(request.body)) if recorder.store_text else None,
                completion=storable(response.text() or None),
            )
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Skip what cannot be analysed, such as JSON nested a thousand levels deep."""
        try:
            yield
        except Exception as error:
            self._recorder.log.once("analysis", f"note: cannot analyse a call: {type(error).__name__}")
