"""The API of a forge that opens pull requests, as far as we ask it: writes down what it is asked, and answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Api:
    """A forge that writes down what it is asked."""

    status: int = 201
    answer: Any = field(default_factory=lambda: {"html_url": "https://forge/pulls/7", "web_url": "https://forge/mr/7"})
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    url: str = ""


@contextmanager
def answering() -> Iterator[Api]:
    """Run one on loopback."""
    own = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            own.asked.append((self.path, dict(self.headers), body))
            data = own.answer if isinstance(own.answer, bytes) else json.dumps(own.answer).encode()
            self.send_response(own.status)
            if own.status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield own
    server.shutdown()
    server.server_close()
