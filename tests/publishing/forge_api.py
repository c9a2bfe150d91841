"""The API of a forge that lists and opens pull requests, as far as we ask it: writes down what it is asked, and answers
as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

OPENED = "2026-01-01T08:00:00Z"


@dataclass
class Api:
    """A forge that writes down what it is asked.

    Attributes:
        status: of the answer to what asks for a new pull request.
        answer: to that.
        asked: path, headers and body of what asked for one.
        listed: path and headers of what asked for a list.
        requests: the pull requests that there are, the newest first; a new one comes first.
        size: so many are on a page, whatever is asked for.
        listing: the answer to what asks for a list: status and body; None for the list.
    """

    status: int = 201
    answer: Any = field(default_factory=lambda: {"html_url": "https://forge/pulls/7", "web_url": "https://forge/mr/7"})
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    listed: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    size: int = 2
    listing: tuple[int, Any] | None = None
    url: str = ""

    def have(self, branch: str, number: int = 7, fork: bool = False) -> dict[str, Any]:
        """Have an open pull request, in the words of every forge."""
        own = {
            "state": "open", "created_at": OPENED, "updated_at": OPENED, "closed_at": None, "merged_at": None,
            "html_url": f"https://forge/pulls/{number}", "web_url": f"https://forge/mr/{number}",
            "head": {"label": f"acme:{branch}", "ref": branch, "repo": {"id": 2 if fork else 1}},
            "base": {"label": "acme:main", "ref": "main", "repo": {"id": 1}},
            "source_branch": branch, "source_project_id": 2 if fork else 1, "target_project_id": 1,
        }  # fmt: skip
        self.requests.insert(0, own)
        return own

    def page(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return a page of the list."""
        state = query["state"][0]
        closed = state == "closed"
        found = [own for own in self.requests if (own["state"] == "closed") == closed]
        if closed:
            found.sort(key=lambda own: own["updated_at"], reverse=True)
        first = (int(query["page"][0]) - 1) * self.size
        return found[first : first + self.size]


def decide(own: dict[str, Any], at: str, merge: bool = False) -> None:
    """Close a pull request, or merge it."""
    own |= {"state": "closed", "updated_at": at, "closed_at": at, "merged_at": at if merge else None}


@contextmanager
def answering() -> Iterator[Api]:
    """Run one on loopback."""
    own = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            own.listed.append((self.path, dict(self.headers)))
            query = parse_qs(urlsplit(self.path).query)
            self.reply(*(own.listing or (200, own.page(query))))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            own.asked.append((self.path, dict(self.headers), body))
            if own.status == 201:
                own.have(body.get("head") or body["source_branch"])
            self.reply(own.status, own.answer)

        def reply(self, status: int, answer: Any) -> None:
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if status == 302:
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
