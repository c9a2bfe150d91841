"""Refusals: the errors that the recorder itself sends to a client, in the shape of OpenAI's."""

from __future__ import annotations

import json

_REASONS = {
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


class Refused(Exception):
    """A request that the recorder refuses itself.

    Args:
        status: of HTTP.
        message: why, for the person who wrote the agent.
        code: why, for programs.
        param: the field that is wrong.
    """

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


def refusal(refused: Refused, closes: bool, has_body: bool = True) -> bytes:
    """Return the response that refuses a request, in the shape of OpenAI's errors.

    Args:
        refused: why.
        closes: whether the connection ends with it.
        has_body: False in response to HEAD.
    """
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    error = {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}
    body = json.dumps({"error": error}).encode("ascii")
    lines = [f"HTTP/1.1 {refused.status} {_REASONS[refused.status]}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *(["Connection: close"] if closes else []), "", ""]
    return "\r\n".join(lines).encode("ascii") + (body if has_body else b"")
