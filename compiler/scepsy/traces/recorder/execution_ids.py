"""Which workflow execution a call belongs to: from its headers, else from its connection."""

from __future__ import annotations

import re
import secrets

from scepsy.traces.recorder.http1 import Head

HEADER = b"x-scepsy-execution"
"""The header that names the execution; it wins over `traceparent`, which other tools may have set."""

_NAME = re.compile(r"[\x20-\x7e]{1,200}")
_TRACEPARENT = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)


def execution_of(head: Head) -> str | None:
    """Return the execution that a request's headers name; None if they name none, or none that is valid.

    The header HEADER wins over the trace-id of `traceparent`.
    """
    name = head.value(HEADER).decode("latin-1")
    if _NAME.fullmatch(name):
        return name
    values = head.values(b"traceparent")
    return trace_id(values[0]) if len(values) == 1 else None


def trace_id(traceparent: bytes) -> str | None:
    """Return the trace-id of a `traceparent` header (W3C Trace Context, 3.2.2); None if it is not valid.

    Versions after 00 may append fields to those of version 00; version ff and ids of zeros are invalid.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match["version"] == b"ff" or (match["version"] == b"00" and match["more"]):
        return None
    if not match["trace"].strip(b"0") or not match["parent"].strip(b"0"):
        return None
    return match["trace"].decode("ascii")


class ConnectionExecutions:
    """The fallback: calls of one client connection without a long pause between them are one execution.

    Args:
        idle_gap: the longest pause within an execution, seconds.
    """

    def __init__(self, idle_gap: float) -> None:
        self._gap = idle_gap
        self._name = ""
        self._last = 0.0

    def at(self, start: float) -> str:
        """Return the execution of a call that starts now."""
        if not self._name or start - self._last > self._gap:
            self._name = secrets.token_hex(8)
        self._last = start
        return self._name

    def ended(self, end: float) -> None:
        """Note the end of a call, where a pause begins."""
        self._last = end
