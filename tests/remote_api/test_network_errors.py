"""Network errors, as urllib3 raises them against real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
import urllib3

from scepsy.remote_api.network_errors import LONGEST_EXCERPT, describe, excerpt, is_tls


def error_of(url: str, timeout: float = 5.0) -> Exception:
    """Return what a request for a URL raises."""
    with urllib3.PoolManager(retries=False, timeout=timeout) as pool, pytest.raises(Exception) as raised:  # noqa: PT011
        pool.request("GET", url)
    return raised.value


def server(behave: Callable[[socket.socket], None]) -> int:
    """Start a server for one connection; return its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with listening, connection:
            behave(connection)

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1])


def test_a_closed_port() -> None:
    assert describe(error_of("http://127.0.0.1:1")) == "Connection refused"


def test_an_unknown_name() -> None:
    assert describe(error_of("http://name.invalid")) == "host name not found"


def test_a_server_that_never_responds() -> None:
    done = threading.Event()
    port = server(lambda connection: done.wait(10) and None)
    assert describe(error_of(f"http://127.0.0.1:{port}", timeout=0.2)) == "no response in time"
    done.set()


def test_a_response_that_ends_early() -> None:
    def half(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    error = error_of(f"http://127.0.0.1:{server(half)}")
    assert describe(error) == "connection closed before the response was complete"
    assert not is_tls(error)


def test_a_server_without_tls() -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    error = error_of(f"https://127.0.0.1:{server(plain)}")
    assert is_tls(error)
    assert describe(error).startswith("TLS failed: ")


def test_a_text_from_outside_is_one_printable_line_of_limited_length() -> None:
    assert excerpt("a\n  b\x1b[0m") == "a b\\x1b[0m"
    assert excerpt("x" * 1000) == "x" * LONGEST_EXCERPT + "…"
