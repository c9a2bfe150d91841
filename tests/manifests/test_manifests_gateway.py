"""The rendered haproxy.cfg in a real HAProxy, in front of small servers; only the addresses are the test's own."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.manifests.manifest_values import cluster, plan, project

from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.manifests import (
    COUNTS_PATH,
    EXECUTION_HEADER,
    MODEL_HEADER,
    WORKFLOW_HEADER,
    Backend,
    Server,
    gateway_config,
    render,
)

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")

MAX_BODY = 1 << 20


class Engine:
    """An upstream that answers as a body asks: after `wait` seconds, or with `chunks` tokens.

    Each token is sent `wait` seconds after the one before or, without `wait`, once `received` is released.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.running = self.most = 0
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.received = threading.Semaphore(0)
        self.start()

    def start(self) -> None:
        self.server = _Http(("127.0.0.1", self.port), _Handler)
        self.server.engine = self
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    engine: Engine

    def handle_error(self, *_: Any) -> None:
        """Clients that leave are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        engine = self.server.engine
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        with engine.lock:
            engine.running += 1
            engine.most = max(engine.most, engine.running)
            engine.seen.append({"path": self.path, "bytes": len(raw), "headers": dict(self.headers), "body": body})
        if "chunks" not in body:
            time.sleep(body.get("wait", 0))
        # Before the answer's end reaches the gateway: it then sends the next call at once.
        with engine.lock:
            engine.running -= 1
        if body.get("die"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif "chunks" in body:
            self.stream(body["chunks"], body.get("wait"))
        else:
            self.answer({"engine": engine.name, "model": body.get("model")})

    def stream(self, chunks: int, wait: float | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index in range(chunks):
            data = f"data: {index}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()
            if wait is not None:
                time.sleep(wait)
            elif not self.server.engine.received.acquire(timeout=5):
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Gateway:
    """A running HAProxy."""

    def __init__(self, directory: Path, backends: list[Backend], queue_timeout: int = 30) -> None:
        self.port, self.metrics = free_port(), free_port()
        path = directory / "haproxy.cfg"
        path.write_text(
            gateway_config(
                backends,
                max_body=MAX_BODY,
                listen=f"127.0.0.1:{self.port}",
                metrics=f"127.0.0.1:{self.metrics}",
                queue_timeout=queue_timeout,
            )
        )
        self.log = (directory / "log").open("wb")
        self.process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdout=self.log, stderr=self.log)
        try:
            until(lambda: self.call("GET", "/health", port=self.metrics)[0] == 200)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        port: int | None = None,
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            text = response.read()
            kind = response.getheader("Content-Type", "")
            return (
                response.status,
                json.loads(text) if "json" in kind or text[:1] == b"{" else text,
                dict(response.getheaders()),
            )
        finally:
            connection.close()

    def chat(self, body: Any, **options: Any) -> tuple[int, Any]:
        return self.call("POST", "/v1/chat/completions", body, **options)[:2]

    def counts(self) -> dict[tuple[str, ...], int]:
        """Return what it counted, without zeros: calls by (workflow, LLM, named or not), executions by workflow."""
        status, text, headers = self.call("GET", COUNTS_PATH, port=self.metrics)
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4")
        found: dict[tuple[str, ...], int] = {}
        for line in text.decode().splitlines():
            if not line.startswith("#"):
                own = dict(re.findall(r'(\w+)="([^"]*)"', line))
                key = (own["workflow"], own["llm"], own["execution"]) if "llm" in own else (own["workflow"],)
                found[key] = found.get(key, 0) + int(line.rpartition(" ")[2])
        return {key: number for key, number in found.items() if number}

    def up(self, engine: str) -> bool:
        text = self.call("GET", "/metrics", port=self.metrics)[1].decode()
        return any(
            line.endswith(" 1") and f'server="{engine}"' in line and 'state="UP"' in line
            for line in text.splitlines()
            if line.startswith("haproxy_server_status")
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def backend(llm: str, *engines: Engine, slots: int = 64, workflows: tuple[str, ...] = ()) -> Backend:
    servers = tuple(Server(engine.name, f"127.0.0.1:{engine.port}", slots) for engine in engines)
    return Backend(llm, servers, workflows)


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    found = {name: Engine(name) for name in ("big-0", "big-1", "small-0")}
    yield found
    for engine in found.values():
        engine.stop()


@pytest.fixture(scope="module")
def gateway(engines: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    backends = [
        backend("big", engines["big-0"], engines["big-1"], workflows=("beam", "rag")),
        backend("small", engines["small-0"], workflows=("rag",)),
    ]
    running = Gateway(tmp_path_factory.mktemp("gateway"), backends)
    yield running
    running.stop()


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine of one test's own."""
    running = Engine("only-0")
    yield running
    running.stop()


@pytest.fixture
def own(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """A gateway of one test's own, in front of `engine`."""
    started: list[Gateway] = []

    def start(slots: int = 64, queue_timeout: int = 30, *others: Engine) -> Gateway:
        backends = [backend("only", engine, *others, slots=slots, workflows=("rag",))]
        started.append(Gateway(tmp_path, backends, queue_timeout))
        return started[0]

    yield start
    for running in started:
        running.stop()


def accepted(config: str, directory: Path) -> subprocess.CompletedProcess[str]:
    path = directory / "haproxy.cfg"
    path.write_text(config)
    return subprocess.run(["haproxy", "-c", "-f", str(path)], capture_output=True, text=True, check=False)


# ---- the configuration


def test_haproxy_accepts_what_a_plan_renders_without_a_warning(tmp_path: Path) -> None:
    files = render(plan(), cluster(), project())
    [data] = [data for name, data in files.items() if name.startswith("configmap-")]
    config = parse(SourceFile("configmap", data))[0].root.plain()["data"]["haproxy.cfg"]
    assert "server judge-0 engine-judge-0.models.svc.cluster.local:8000 maxconn 64\n" in config
    result = accepted(config, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr


def test_haproxy_accepts_two_hundred_llms_and_the_largest_body(tmp_path: Path) -> None:
    workflows = [f"{'w' * 36}-{i}" for i in range(20)]
    many = [
        Backend(
            f"{'m' * 36}-{i}",
            (Server("s", f"s{i}.ns.svc.cluster.local:8000", 256),),
            (workflows[i % 20], workflows[-1 - i % 20]),
        )
        for i in range(200)
    ]
    result = accepted(gateway_config(many, max_body=128 << 20), tmp_path)
    assert result.returncode == 0, result.stderr


def test_haproxy_accepts_a_plan_without_llms(tmp_path: Path) -> None:
    result = accepted(gateway_config([], max_body=MAX_BODY), tmp_path)
    assert result.returncode == 0, result.stderr


def test_an_instance_whose_name_does_not_resolve_keeps_no_other_from_being_served(
    engine: Engine, tmp_path: Path
) -> None:
    gone = Server("gone-0", "engine-gone-0.nowhere.invalid:8000", 1)
    ours = backend("only", engine).servers
    running = Gateway(tmp_path, [Backend("gone", (gone,)), Backend("only", (*ours, gone))])
    try:
        assert running.chat({"model": "only"})[0] == 200
        status, answer = running.chat({"model": "gone"})
        assert (status, answer["error"]["code"]) == (503, "no_instance")
    finally:
        running.stop()


# ---- which LLM


@pytest.mark.parametrize(
    "body",
    [
        {"model": "small", "messages": []},
        {"messages": [{"role": "user", "content": 'say "model": "big" and {"model":"big"} \\'}], "model": "small"},
        {"metadata": {"model": "big"}, "tools": [{"model": "big"}], "model": "small"},
        {"messages": [{"content": "ü 漢字 😀 \u2028"}], "model": "small"},
        {'x"model': "big", "model ": "big", "model": "small"},
    ],
)
def test_the_model_is_the_bodys_own(gateway: Gateway, body: Any) -> None:
    assert gateway.chat(body) == (200, {"engine": "small-0", "model": "small"})
    raw = json.dumps(body, ensure_ascii=False, indent=2).encode()
    assert gateway.chat(raw) == (200, {"engine": "small-0", "model": "small"})


def test_an_escaped_spelling_of_the_model_means_the_same(gateway: Gateway) -> None:
    assert gateway.chat(rb'{"model": "sm\u0061ll"}') == (200, {"engine": "small-0", "model": "small"})


def test_the_model_is_found_behind_a_prompt_of_400_000_characters(gateway: Gateway) -> None:
    body = {"messages": [{"role": "user", "content": 'word "quoted" \n' * 27_000}], "model": "small"}
    assert len(json.dumps(body)) > 400_000
    assert gateway.chat(body) == (200, {"engine": "small-0", "model": "small"})


def test_the_model_may_stand_in_a_header(gateway: Gateway, engines: dict[str, Engine]) -> None:
    status, answer = gateway.chat({"no": "model"}, headers={MODEL_HEADER: "small"})
    assert (status, answer["engine"]) == (200, "small-0")
    assert MODEL_HEADER not in {name.lower() for name in engines["small-0"].seen[-1]["headers"]}


def test_the_model_may_stand_in_the_path(gateway: Gateway, engines: dict[str, Engine]) -> None:
    status, answer, _ = gateway.call("POST", "/small/v1/embeddings?a=b", b"not json")
    assert (status, answer["engine"]) == (200, "small-0")
    assert engines["small-0"].seen[-1]["path"] == "/v1/embeddings?a=b"


def test_path_comes_before_header_before_body(gateway: Gateway) -> None:
    header = {MODEL_HEADER: "small"}
    assert gateway.chat({"model": "nobody"}, headers=header)[0] == 200
    assert gateway.call("POST", "/big/v1/completions", {"model": "small"}, headers=header)[1]["engine"][:3] == "big"


@pytest.mark.parametrize("model", ["nobody", "smal", "small ", "SMALL", "small,big", 'a"b\\c\n\u0001', "", "llm-small"])
def test_an_unknown_model_is_a_404_as_openais(gateway: Gateway, model: str) -> None:
    status, answer = gateway.chat({"model": model})
    assert status == 404
    error = answer["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert error["message"].startswith(f'The model "{model}" does not exist')


def test_a_long_unknown_model_is_not_echoed_whole(gateway: Gateway) -> None:
    status, answer = gateway.chat({"model": "x" * 5000})
    assert status == 404
    assert len(answer["error"]["message"]) < 300


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"{}", b'{"messages": [{"model": "small"}]}', b'{"model":'])
def test_no_model_is_a_400_that_names_the_ways_to_say_it(gateway: Gateway, body: bytes) -> None:
    status, answer = gateway.chat(body)
    assert (status, answer["error"]["code"]) == (400, "model_missing")
    assert MODEL_HEADER in answer["error"]["message"]


@pytest.mark.parametrize("path", ["/metrics", "/", "/small/metrics", "/v2/x", "/small/v1", "/v1"])
def test_only_the_api_is_reachable(gateway: Gateway, path: str) -> None:
    status, answer, _ = gateway.call("GET", path, headers={MODEL_HEADER: "small"})
    assert (status, answer["error"]["code"]) == (404, "not_found")


def test_the_models_are_listed_from_the_configuration(gateway: Gateway) -> None:
    status, answer, _ = gateway.call("GET", "/v1/models")
    assert status == 200
    assert answer["object"] == "list"
    assert [(model["id"], model["object"]) for model in answer["data"]] == [("big", "model"), ("small", "model")]


def test_the_gateway_has_its_own_health_and_metrics(gateway: Gateway) -> None:
    assert gateway.call("GET", "/health")[:2] == (200, {"status": "ok"})
    assert gateway.call("GET", "/health", port=gateway.metrics)[0] == 200
    assert (
        b'haproxy_backend_http_requests_total{proxy="llm-big"}'
        in gateway.call("GET", "/metrics", port=gateway.metrics)[1]
    )


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


def test_deep_nesting_hides_the_model_only_where_it_comes_first(gateway: Gateway) -> None:
    """HAProxy's JSON reader stops at 20 levels; the OpenAI clients send `tools` after `model`."""
    assert gateway.chat({"model": "small", "tools": nested(60)})[0] == 200
    assert gateway.chat({"tools": nested(19), "model": "small"})[0] == 200
    status, answer = gateway.chat({"tools": nested(20), "model": "small"})
    assert (status, answer["error"]["code"]) == (400, "model_missing")
    assert "nested 20 levels deep" in answer["error"]["message"]


def test_a_name_in_disguise_is_no_name(gateway: Gateway) -> None:
    """An engine's JSON reader would see `model` here; the gateway refuses what it cannot be sure of."""
    assert gateway.chat(rb'{"mod\u0065l": "small"}')[0] == 400


# ---- which workflow, which execution

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def trace(identity: str = TRACE, version: str = "00", span: str = "00f067aa0ba902b7", flags: str = "01") -> str:
    return f"{version}-{identity}-{span}-{flags}"


def counted(gateway: Gateway, calls: Callable[[], object]) -> dict[tuple[str, ...], int]:
    """Return what was counted of some calls."""
    before = gateway.counts()
    calls()
    after = gateway.counts()
    return {key: number - before.get(key, 0) for key, number in after.items() if number != before.get(key, 0)}


def test_calls_count_by_workflow_and_llm_and_executions_once_over_llms(
    gateway: Gateway, engines: dict[str, Engine]
) -> None:
    def calls() -> None:
        for execution in ("one", "two"):
            headers = {EXECUTION_HEADER: execution}
            body = {"model": "big"}
            assert gateway.call("POST", "/workflows/rag/v1/chat/completions", body, headers=headers)[0] == 200
            assert gateway.call("POST", "/workflows/rag/small/v1/score?a=b", b"no json", headers=headers)[0] == 200
            headers[WORKFLOW_HEADER] = "rag"
            assert gateway.chat({"model": "small"}, headers=headers)[0] == 200
        # The same name in another workflow is another execution.
        assert gateway.chat({"model": "big"}, headers={WORKFLOW_HEADER: "beam", EXECUTION_HEADER: "one"})[0] == 200

    assert counted(gateway, calls) == {
        ("rag", "big", "named"): 2,
        ("rag", "small", "named"): 4,
        ("beam", "big", "named"): 1,
        ("rag",): 2,
        ("beam",): 1,
    }
    seen = engines["small-0"].seen
    assert [call["path"] for call in seen[-2:]] == ["/v1/score?a=b", "/v1/chat/completions"]
    assert not {WORKFLOW_HEADER, EXECUTION_HEADER} & {name.lower() for call in seen for name in call["headers"]}


def test_the_path_behind_a_workflow_is_the_whole_api(gateway: Gateway) -> None:
    status, answer, _ = gateway.call("GET", "/workflows/rag/v1/models")
    assert (status, [model["id"] for model in answer["data"]]) == (200, ["big", "small"])
    for path in ("/workflows/rag/v1", "/workflows/rag/metrics", "/workflows/rag/small/x/v1/y", "/workflows//v1/x"):
        assert gateway.call("GET", path)[0] == 404
    assert gateway.call("POST", "/workflows/rag/v1/x", {"model": "nobody"})[1]["error"]["code"] == "model_not_found"


def test_an_execution_may_be_a_trace_which_is_passed_on(gateway: Gateway, engines: dict[str, Engine]) -> None:
    def calls() -> None:
        for span in ("00f067aa0ba902b7", "00f067aa0ba902b8"):
            headers = {WORKFLOW_HEADER: "rag", "traceparent": trace(span=span)}
            assert gateway.chat({"model": "small"}, headers=headers)[0] == 200
        named = {WORKFLOW_HEADER: "rag", "traceparent": trace(), EXECUTION_HEADER: "other than the trace"}
        assert gateway.chat({"model": "small"}, headers=named)[0] == 200

    assert counted(gateway, calls) == {("rag", "small", "named"): 3, ("rag",): 2}
    assert engines["small-0"].seen[-1]["headers"]["traceparent"] == trace()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {EXECUTION_HEADER: ""},
        {EXECUTION_HEADER: "x" * 129},
        {"traceparent": trace("0" * 32)},
        {"traceparent": trace(TRACE.upper())},
        {"traceparent": trace(TRACE[1:])},
        {"traceparent": trace(version="ff")},
        {"traceparent": trace(span="0" * 16)},
        {"traceparent": TRACE},
        {"traceparent": f"x{trace()}"},
    ],
)
def test_what_names_no_execution_counts_as_a_call_of_the_workflow_without_one(
    gateway: Gateway, headers: dict[str, str]
) -> None:
    def calls() -> None:
        assert gateway.chat({"model": "small"}, headers={WORKFLOW_HEADER: "rag", **headers})[0] == 200

    assert counted(gateway, calls) == {("rag", "small", "unnamed"): 1}


@pytest.mark.parametrize(
    ("path", "workflow"),
    [
        ("/v1/x", None),
        ("/v1/x", "nobody"),
        ("/v1/x", "beam"),  # is not planned to call it
        ("/v1/x", ""),
        ("/v1/x", "rag,rag"),
        ("/v1/x", "rag/small"),
        ("/v1/x", 'a"b%[env(HOME)]'),
        ("/v1/x", "w" * 5000),
        ("/workflows/nobody/v1/x", "rag"),
        ("/small/v1/x", None),
    ],
)
def test_a_call_that_names_no_workflow_of_the_llm_is_served_and_counts_for_none(
    gateway: Gateway, path: str, workflow: str | None
) -> None:
    headers = {EXECUTION_HEADER: "three", **({} if workflow is None else {WORKFLOW_HEADER: workflow})}

    def calls() -> None:
        assert gateway.call("POST", path, {"model": "small"}, headers=headers)[0] == 200

    found = counted(gateway, calls)
    assert found.pop(("", "small", "unnamed")) == 1
    assert set(found) <= {("beam",)}


def test_an_llm_may_be_called_workflows(tmp_path: Path, engine: Engine) -> None:
    running = Gateway(tmp_path, [backend("workflows", engine, workflows=("v1",))])
    try:
        assert running.call("POST", "/workflows/v1/x", {})[1]["engine"] == "only-0"
        assert running.call("POST", "/workflows/v1/workflows/v1/x", {}, headers={EXECUTION_HEADER: "1"})[0] == 200
        assert running.counts() == {("", "workflows", "unnamed"): 1, ("v1", "workflows", "named"): 1, ("v1",): 1}
    finally:
        running.stop()


def test_of_fifty_first_calls_at_once_one_is_the_first(gateway: Gateway) -> None:
    def calls() -> None:
        with ThreadPoolExecutor(50) as pool:
            asked = [
                pool.submit(
                    gateway.call,
                    "POST",
                    f"/workflows/rag/{'small' if i % 2 else 'big'}/v1/x",
                    b"{}",
                    headers={EXECUTION_HEADER: f"many {i % 5}"},
                )
                for i in range(250)
            ]
            assert {call.result()[0] for call in asked} == {200}

    assert counted(gateway, calls) == {("rag", "big", "named"): 125, ("rag", "small", "named"): 125, ("rag",): 5}


def test_executions_are_in_the_same_part_in_every_pod_and_in_all_parts_alike(tmp_path: Path, engine: Engine) -> None:
    pages = []
    for pod in ("one", "two"):
        (tmp_path / pod).mkdir()
        running = Gateway(tmp_path / pod, [backend("only", engine, workflows=("rag",))])
        try:
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
            for execution in range(1600):
                connection.request("POST", "/workflows/rag/only/v1/x", b"{}", {EXECUTION_HEADER: f"{execution:04}"})
                assert len(connection.getresponse().read())
            connection.close()
            pages.append(running.call("GET", COUNTS_PATH, port=running.metrics)[1].decode())
        finally:
            running.stop()
    assert pages[0] == pages[1]
    counts = [int(line.rpartition(" ")[2]) for line in pages[0].splitlines() if 'part="' in line]
    assert (len(counts), sum(counts)) == (32, 1600)
    # χ² with 31 degrees of freedom: between its quantiles of 0.1 and 99.9 %.
    assert 11.6 < sum((count - 50) ** 2 / 50 for count in counts) < 61.1


def test_what_is_counted_is_what_haproxy_counts_whatever_becomes_of_it(engine: Engine, own: Any) -> None:
    running = own(1, 1)
    named = {WORKFLOW_HEADER: "rag", EXECUTION_HEADER: "one"}
    assert running.chat({"model": "only", "die": True}, headers=named)[0] == 502
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(running.chat, {"model": "only", "wait": 2.5}, headers=named)
        until(lambda: engine.running == 1)
        assert running.chat({"model": "only"}, headers=named)[0] == 503
        assert first.result()[0] == 200
    engine.stop()
    until(lambda: not running.up("only-0"))
    assert running.chat({"model": "only"}, headers=named)[0] == 503
    assert running.chat({"model": "nobody"}, headers=named)[0] == 404
    assert running.counts() == {("rag", "only", "named"): 4, ("rag",): 1}
    text = running.call("GET", "/metrics", port=running.metrics)[1].decode()
    assert 'haproxy_backend_http_requests_total{proxy="llm-only"} 4\n' in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say_about_the_counts(gateway: Gateway) -> None:
    text = gateway.call("GET", COUNTS_PATH, port=gateway.metrics)[1]
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_names_of_executions_stand_in_no_log(engine: Engine, own: Any, tmp_path: Path) -> None:
    running = own()
    assert running.chat({"model": "only"}, headers={WORKFLOW_HEADER: "rag", EXECUTION_HEADER: "secret-name"})[0] == 200
    running.stop()
    assert "secret-name" not in (tmp_path / "log").read_text()


# ---- long bodies


def test_a_body_beyond_the_buffer_is_routed_if_its_model_comes_early(gateway: Gateway, engines: Any) -> None:
    body = json.dumps({"model": "small", "messages": "x" * (3 * MAX_BODY)}).encode()
    assert gateway.chat(body)[1]["engine"] == "small-0"
    assert engines["small-0"].seen[-1]["bytes"] == len(body)


def test_a_body_beyond_the_buffer_is_a_400_that_says_so_if_its_model_comes_late(gateway: Gateway) -> None:
    body = {"messages": 'x"model": "small",' * (MAX_BODY // 10), "model": "small"}
    status, answer = gateway.chat(body)
    assert (status, answer["error"]["code"]) == (400, "model_not_in_buffer")
    assert str(MAX_BODY) in answer["error"]["message"]
    assert MODEL_HEADER in answer["error"]["message"]


@pytest.mark.parametrize("by", ["header", "path"])
def test_a_body_beyond_the_buffer_passes_with_header_or_path(gateway: Gateway, engines: Any, by: str) -> None:
    body = json.dumps({"messages": "x" * (3 * MAX_BODY), "model": "small"}).encode()
    path = "/small/v1/completions" if by == "path" else "/v1/completions"
    status, answer, _ = gateway.call("POST", path, body, headers={MODEL_HEADER: "small"} if by == "header" else {})
    assert (status, answer["engine"]) == (200, "small-0")
    assert engines["small-0"].seen[-1]["bytes"] == len(body)


def test_the_longest_promised_body_fits_with_its_model_at_the_very_end(gateway: Gateway) -> None:
    frame = len(json.dumps({"messages": "", "model": "small"}))
    body = json.dumps({"messages": "x" * (MAX_BODY - frame), "model": "small"}).encode()
    assert len(body) == MAX_BODY
    headers = {f"x-header-{i}": "y" * 500 for i in range(20)}
    assert gateway.chat(body, headers=headers)[0] == 200


def test_the_model_is_found_in_a_body_that_comes_in_chunks(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        chunks = (part.encode() for part in ('{"messages": "', "x" * 100_000, '", "mod', 'el": "nobody"}'))
        connection.request("POST", "/v1/x", chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        response = connection.getresponse()
        assert response.status == 404
        assert json.loads(response.read())["error"]["message"].startswith('The model "nobody"')
    finally:
        connection.close()


def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(gateway: Gateway) -> None:
    body = b'{"model": "small"}'
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(b"POST /v1/x HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


# ---- streams, queues, failures


def test_tokens_arrive_as_they_are_sent(gateway: Gateway, engines: dict[str, Engine]) -> None:
    """The engine sends a token only when the client has the one before: a buffer between them would end the stream."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    tokens = []
    try:
        connection.request("POST", "/v1/x", json.dumps({"model": "small", "chunks": 5}))
        for line in connection.getresponse():
            if line.startswith(b"data:"):
                tokens.append(line)
                engines["small-0"].received.release()
    finally:
        connection.close()
    assert tokens == [b"data: %d\n" % index for index in range(5)]


def test_calls_beyond_the_places_wait_in_the_gateway_and_are_all_served(engine: Engine, own: Any) -> None:
    second = Engine("only-1")
    try:
        running = own(2, 30, second)
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: running.chat({"model": "only", "wait": 0.15}), range(12)))
    finally:
        second.stop()
    assert [status for status, _ in answers] == [200] * 12
    assert (engine.most, second.most) == (2, 2), "no engine has more calls than places, and both are used"


def test_a_call_goes_to_the_engine_with_fewest(engine: Engine, own: Any) -> None:
    second = Engine("only-1")
    try:
        running = own(64, 30, second)
        with ThreadPoolExecutor(8) as pool:
            slow = [pool.submit(running.chat, {"model": "only", "wait": 1.2}) for _ in range(4)]
            until(lambda: engine.running + second.running == 4)
            assert engine.running == second.running == 2
            assert all(future.result()[0] == 200 for future in slow)
    finally:
        second.stop()


def test_a_call_that_waits_too_long_is_told_to_come_back(engine: Engine, own: Any) -> None:
    running = own(slots=1, queue_timeout=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(running.chat, {"model": "only", "wait": 3})
        until(lambda: engine.running == 1)
        status, answer, headers = running.call("POST", "/v1/x", {"model": "only"})
        assert first.result()[0] == 200
    assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "overloaded", "5")


def test_a_client_that_leaves_the_queue_costs_no_engine_anything(engine: Engine, own: Any) -> None:
    running = own(slots=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(running.chat, {"model": "only", "wait": 1.2})
        until(lambda: engine.running == 1)
        body = b'{"model": "only", "left": true}'
        with socket.create_connection(("127.0.0.1", running.port)) as leaver:
            leaver.sendall(b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            time.sleep(0.2)
        assert first.result()[0] == 200
    assert running.chat({"model": "only"})[0] == 200
    assert not [call for call in engine.seen if "left" in call["body"]]


def test_an_engine_that_dies_and_returns(engine: Engine, own: Any) -> None:
    running = own()
    assert running.chat({"model": "only"})[0] == 200
    engine.stop()
    until(lambda: not running.up("only-0"))
    status, answer = running.chat({"model": "only"})
    assert (status, answer["error"]["code"]) == (503, "no_instance")
    engine.start()
    until(lambda: running.chat({"model": "only"})[0] == 200)


def test_while_one_engine_is_gone_the_other_serves_every_call(engine: Engine, own: Any) -> None:
    second = Engine("only-1")
    running = own(64, 30, second)
    second.stop()
    assert [running.chat({"model": "only"})[0] for _ in range(20)] == [200] * 20


def test_a_call_that_an_engine_has_begun_is_not_sent_twice(engine: Engine, own: Any) -> None:
    second = Engine("only-1")
    try:
        running = own(64, 30, second)
        status, answer = running.chat({"model": "only", "die": True})
        assert (status, answer["error"]["code"]) == (502, "instance_failed")
        assert len(engine.seen) + len(second.seen) == 1
    finally:
        second.stop()


def test_a_stopping_gateway_ends_its_streams_first(engine: Engine, own: Any) -> None:
    running = own()
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(running.chat, {"model": "only", "chunks": 5, "wait": 0.2})
        until(lambda: bool(engine.seen))
        running.process.send_signal(signal.SIGUSR1)  # the stop signal of the official image
        status, text = stream.result()
    assert status == 200
    assert text.count(b"data:") == 5
    assert running.process.wait(5) == 0
