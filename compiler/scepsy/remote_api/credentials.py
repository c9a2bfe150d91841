"""The one rule for tokens: from an environment variable or a file, well-formed, and never over plain HTTP.

Only to this machine itself may a token go unencrypted. No message repeats a token.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from scepsy.errors import ScepsyError, printable


class CredentialError(ScepsyError):
    """A token cannot be read, is invalid, or would be sent unencrypted."""


def read_token(environment: Mapping[str, str], variable: str, file_variable: str | None = None) -> str | None:
    """Return the token in an environment variable, else in the file that another variable names; None for neither.

    Raises:
        CredentialError: the file cannot be read, or the token is invalid.
    """
    if token := environment.get(variable):
        return checked_token(token, variable)
    path = environment.get(file_variable) if file_variable else None
    if not path:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise CredentialError(
            f"cannot read the token file {printable(path)}: {reason}", f"fix or unset {file_variable}"
        ) from None
    return checked_token(token, f"the file of {file_variable}") if token else None


def checked_token(token: str, source: str) -> str:
    """Return a token that may be part of an HTTP header.

    Args:
        token: the token.
        source: where it was read, for the message.

    Raises:
        CredentialError: it has characters that no token has.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CredentialError(
            f"invalid token in {source}: contains whitespace or non-printable characters", "give the token alone"
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether a host of a URL, without a port, is this machine itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def may_send_token(scheme: str, host: str) -> bool:
    """Return whether a token may be sent to a host: over HTTPS, or to this machine."""
    return scheme.lower() == "https" or is_loopback(host)


def check_encrypted(scheme: str, host: str, what: str = "token") -> None:
    """Check that a token may be sent to a host.

    Raises:
        CredentialError: it would be sent over plain HTTP to another machine.
    """
    if not may_send_token(scheme, host):
        raise CredentialError(
            f"refusing to send the {what} to {printable(host)} over plain HTTP",
            "use https://, or kubectl port-forward and localhost",
        )
