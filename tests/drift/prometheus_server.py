"""A server that answers like a Prometheus, from samples in memory, or in whatever way a test wants."""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_SELECTOR = re.compile(r"(?P<metric>[\w:]+)\{(?P<matchers>.*)\}(?:\[(?P<range>\d+)s\])?")
_MATCHER = re.compile(r'(\w+)(=~|=)"((?:[^"\\]|\\.)*)"')


@dataclass
class Answer:
    """What the server says.

    Attributes:
        status: the HTTP status.
        body: the body.
        headers: further headers.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def success(data: object, **more: object) -> Answer:
    return Answer(body=json.dumps({"status": "success", "data": data, **more}).encode())


@dataclass
class Fake:
    """A Prometheus in memory.

    Attributes:
        now: what its clock says.
        series: by metric, labels and samples.
        answers: answers that are given first, one per request, whatever is asked.
        asked: the paths, queries and headers of all requests.
        url: its address.
    """

    now: float
    series: dict[str, list[tuple[dict[str, str], list[tuple[float, float]]]]] = field(default_factory=dict)
    answers: list[Answer | Callable[[], Answer]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def add(self, exposition: dict[str, list[str]]) -> None:
        """Take over samples in the OpenMetrics format, `name{labels} value time` a line."""
        for name, lines in exposition.items():
            pairs: dict[str, list[tuple[float, float]]] = {}
            for line in lines:
                labels, _, rest = line[len(name) + 1 :].partition("} ")
                value, at = rest.split()
                pairs.setdefault(labels, []).append((float(at), float(value)))
            for labels, own in pairs.items():
                self.series.setdefault(name, []).append((dict(re.findall(r'(\w+)="([^"]*)"', labels)), own))

    def answer(self, path: str, query: dict[str, str]) -> Answer:
        if query["query"] == "time()":
            return success({"resultType": "scalar", "result": [self.now, str(self.now)]})
        match = _SELECTOR.fullmatch(query["query"])
        assert match, query["query"]
        found = []
        for labels, pairs in self.series.get(match["metric"], []):
            if not all(
                (re.fullmatch(v, labels.get(k, "")) is not None) if op == "=~" else labels.get(k, "") == v
                for k, op, v in _MATCHER.findall(match["matchers"])
            ):
                continue
            times = [at for at, _ in pairs]
            if match["range"]:
                end = float(query["time"])
                own = pairs[bisect_right(times, end - int(match["range"])) : bisect_right(times, end)]
            else:
                own, at, step = [], float(query["start"]), float(query["step"])
                while at <= float(query["end"]):
                    last = bisect_right(times, at) - 1
                    if last >= 0 and times[last] > at - 300:
                        own.append((at, pairs[last][1]))
                    at += step
            if own:
                values = [[t, "NaN" if v != v else f"{v:g}" if v < 1e6 else repr(v)] for t, v in own]
                found.append({"metric": {"__name__": match["metric"], **labels}, "values": values})
        return success({"resultType": "matrix", "result": found})


@contextmanager
def answering(fake: Fake) -> Iterator[Fake]:
    """Serve it on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one packet

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            fake.asked.append((parts.path, query, dict(self.headers)))
            if fake.answers:
                given = fake.answers.pop(0)
                answer = given() if callable(given) else given
            else:
                answer = fake.answer(parts.path, query)
            self.send_response(answer.status)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            if "Content-Length" in answer.headers:
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
