"""The one text of network errors: what failed, in a few words, without the names of Python's objects."""

from __future__ import annotations

import socket
import ssl

from scepsy.errors import printable

LONGEST_EXCERPT = 400
"""Characters of a server's message that are repeated at most."""


def describe(error: BaseException) -> str:
    """Return what failed: `Connection refused`, `host name not found`, `no response in time`, and so on.

    Args:
        error: an exception of urllib3, of the ssl module or of a socket.
    """
    import urllib3  # noqa: PLC0415 - slow to import

    causes = _causes(error)
    innermost = causes[-1]
    if is_tls(error):
        reason = getattr(innermost, "verify_message", "")
        return f"certificate not trusted: {excerpt(reason)}" if reason else f"TLS failed: {excerpt(str(innermost))}"
    if any(isinstance(cause, _name_errors()) for cause in causes):
        return "host name not found"
    if isinstance(innermost, OSError) and innermost.strerror:
        return excerpt(innermost.strerror)
    if any(isinstance(cause, urllib3.exceptions.ConnectTimeoutError) for cause in causes):
        return "connection timed out"
    if any(isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError) for cause in causes):
        return "no response in time"
    if isinstance(error, urllib3.exceptions.HTTPError | ConnectionError):
        return "connection closed before the response was complete"
    return excerpt(str(innermost) or type(innermost).__name__)


def is_tls(error: BaseException) -> bool:
    """Return whether TLS failed, such as for a certificate that is not trusted: another attempt does not help."""
    import urllib3  # noqa: PLC0415 - slow to import

    reasons = [*_causes(error), getattr(error, "reason", None)]
    return any(isinstance(reason, urllib3.exceptions.SSLError | ssl.SSLCertVerificationError) for reason in reasons)


def excerpt(text: str) -> str:
    """Return a text from outside as part of a message: one line, printable, not too long."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST_EXCERPT else line[:LONGEST_EXCERPT] + "…"


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and what it was raised for, outermost first; urllib3 keeps some causes as arguments only."""
    causes = [error]
    while True:
        last = causes[-1]
        cause = last.__cause__ or next((argument for argument in last.args if isinstance(argument, Exception)), None)
        if cause is None or cause in causes:
            return causes
        causes.append(cause)


def _name_errors() -> tuple[type[BaseException], ...]:
    import urllib3  # noqa: PLC0415 - slow to import

    since_2 = getattr(urllib3.exceptions, "NameResolutionError", None)
    return (socket.gaierror, since_2) if since_2 else (socket.gaierror,)
