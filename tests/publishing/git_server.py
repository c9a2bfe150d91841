"""A real Git server over HTTP on loopback: git's own http-backend behind a small CGI, with faults on demand."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = int | str | Callable[[], object]
FETCH, PUSH, ASK = "git-upload-pack", "git-receive-pack", "info/refs"


class GitServer(ThreadingHTTPServer):
    """Serves the bare repositories below a directory.

    Attributes:
        url: where.
        faults: what goes wrong next: (part of the path, fault), each once, in order. A fault is a status such as 503,
            "page" and "line" (200, with a page of HTML, or one line of it), "slow" (no answer for as long as the server lives), "drop" (the connection ends before git sees the
            request), "lost" (git does it, and the answer is lost), or a function that is called before git is.
        redirect: where 302 leads.
        login: user and password that are asked for, or None.
        seen: path and Authorization header of each request.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: Path, identity: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.url = f"http{'s' * (identity is not None)}://127.0.0.1:{self.server_address[1]}"
        if identity is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(identity)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.faults: list[tuple[str, Fault]] = []
        self.redirect = ""
        self.login: tuple[str, str] | None = None
        self.seen: list[tuple[str, str | None]] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            if self.faults and self.faults[0][0] in path:
                return self.faults.pop(0)[1]
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed hang up: no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GitServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._serve(body)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _serve(self, body: bytes) -> None:
        server = self.server
        server.seen.append((self.path, self.headers.get("Authorization")))
        fault = server.fault(self.path)
        if fault == "slow":
            server.stopping.wait()
        if callable(fault):
            fault()
        if isinstance(fault, int):
            if fault == 302:
                return self._answer(fault, {"Location": self.server.redirect + self.path}, b"")
            return self._answer(fault, {"WWW-Authenticate": 'Basic realm="git"'} if fault == 401 else {}, b"")
        if fault in ("page", "line"):
            html = "<html>\n<p>Log in</p>\n</html>\n" if fault == "page" else "<html>Log in</html>"
            return self._answer(200, {"Content-Type": "text/html"}, html.encode())
        if fault in ("slow", "drop"):
            return self._hang_up()
        if server.login is not None:
            wanted = base64.b64encode(":".join(server.login).encode()).decode()
            if (self.headers.get("Authorization") or "").split(" ")[-1] != wanted:
                return self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        head, _, content = self._backend(body).partition(b"\r\n\r\n")
        if fault == "lost":
            return self._hang_up()
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200 OK").split()[0])
        return self._answer(status, headers, content)

    def _backend(self, body: bytes) -> bytes:
        path, _, query = self.path.partition("?")
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.server.root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=variables, check=False)
        return done.stdout

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()


def identity(directory: Path) -> Path:
    """Make a certificate of 127.0.0.1, which vouches for itself, and its key: one file."""
    path, key = directory / "identity.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-keyout", str(key), "-out", str(path), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


@contextmanager
def serving(root: Path, identity: Path | None = None) -> Iterator[GitServer]:
    """Serve the repositories below a directory for as long as the context is open; with an identity, over https."""
    with GitServer(root, identity) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


def bare(root: Path, name: str = "specs.git") -> Path:
    """Make an empty repository that may be pushed to."""
    path = root / name
    subprocess.run(["git", "init", "-q", "--bare", "--initial-branch=main", str(path)], check=True)
    let_push(path)
    return path


def let_push(path: Path) -> None:
    """Have a repository take what is pushed over HTTP."""
    for key, value in (("http.receivepack", "true"), ("gc.auto", "0"), ("receive.autogc", "false")):
        subprocess.run(["git", "-C", str(path), "config", key, value], check=True)


def hook(repository: Path, name: str, text: str) -> None:
    """Give a repository a hook."""
    path = repository / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
