"""Watching nodes: events in whatever pieces they arrive, and every way in which a watch ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.profiling.jobs.conftest import write_kubeconfig

from scepsy.cluster.kubernetes import NODES, Kubernetes
from scepsy.errors import ScepsyError


class Streaming:
    """A server that answers every watch with these pieces of a body, in chunks."""

    def __init__(self) -> None:
        self.status, self.pieces, self.complete = 200, list[bytes](), True
        self.asked: list[str] = []
        own = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                own.asked.append(self.path)
                self.send_response(own.status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in own.pieces:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                if own.complete:
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Streaming]:
    made = Streaming()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    write_kubeconfig(tmp_path / "kubeconfig", made.url)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield made
    made.server.shutdown()
    made.server.server_close()


def event(kind: str, name: str) -> bytes:
    return json.dumps({"type": kind, "object": {"metadata": {"name": name}}}).encode() + b"\n"


def seen(server: Streaming) -> list[tuple[str, str]]:
    return [(e["type"], e["object"]["metadata"]["name"]) for e in Kubernetes("here").watch(NODES, seconds=5)]


EVENTS = event("ADDED", "gpu-a") + event("MODIFIED", "gpu-a") + event("DELETED", "gpu-a")


@pytest.mark.parametrize(
    "pieces", [[EVENTS], [EVENTS[:7], EVENTS[7:]], [bytes([byte]) for byte in EVENTS]], ids=["one", "two", "bytes"]
)
def test_events_are_told_apart_however_they_arrive(server: Streaming, pieces: list[bytes]) -> None:
    server.pieces = pieces
    assert seen(server) == [("ADDED", "gpu-a"), ("MODIFIED", "gpu-a"), ("DELETED", "gpu-a")]
    assert server.asked == ["/api/v1/nodes?watch=1&timeoutSeconds=5"]


@pytest.mark.parametrize(
    ("status", "pieces", "complete", "message"),
    [
        (401, [b"{}"], True, "rejects the credentials (401)"),
        (403, [b"{}"], True, "forbidden: the credentials cannot watch nodes on "),
        (429, [b"{}"], True, "429"),
        (500, [b"{}"], True, "500"),
        (200, [b'{"type": "ERROR", "object": {"code": 410}}\n'], True, "watch on nodes closed by"),
        (200, [b"<html>\n"], True, "watch on nodes closed by "),
        (200, [event("ADDED", "gpu-a"), b'{"type": '], False, "cannot connect to "),
    ],
    ids=["401", "403", "429", "500", "410", "no events", "half an event"],
)
def test_a_watch_that_fails_says_why(
    server: Streaming, status: int, pieces: list[bytes], complete: bool, message: str
) -> None:
    server.status, server.pieces, server.complete = status, pieces, complete
    with pytest.raises(ScepsyError) as error:
        seen(server)
    assert message in error.value.message
