"""A real Prometheus with a day of history that a test makes up, and a page of metrics that it scrapes."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from scepsy.manifests.gateway import PARTS

MISSING = "needs prometheus and promtool: apt-get install prometheus"
INSTALLED = bool(shutil.which("prometheus") and shutil.which("promtool"))
DAY = 86400


@dataclass
class Engine:
    """A vLLM as its counters tell of it: one pod of one LLM.

    Attributes:
        llm: the LLM.
        pod: its pod.
        rate: calls per second, in every minute of the last day; NaN where Prometheus did not look.
        input: prompt tokens per call.
        output: generated tokens per call.
        seconds: seconds per call.
        namespace: where it runs.
        restarts: minutes, counted from the beginning of the day, in which its counters begin anew.
        labels: further labels.
    """

    llm: str
    pod: str
    rate: np.ndarray
    input: float | np.ndarray = 512.0
    output: float | np.ndarray = 128.0
    seconds: float | np.ndarray = 1.0
    namespace: str = "llm-serving"
    restarts: Sequence[int] = ()
    labels: dict[str, str] = field(default_factory=dict)

    def lines(self, end: float, rng: np.random.Generator) -> dict[str, list[str]]:
        """Return the samples of every metric in the OpenMetrics format, one a minute, the last one at `end`."""
        minutes = len(self.rate)
        calls = rng.poisson(np.nan_to_num(self.rate) * 60)
        columns = {
            "vllm:request_success_total": calls,
            "vllm:request_prompt_tokens_sum": calls * self.input,
            "vllm:request_generation_tokens_sum": calls * self.output,
            "vllm:e2e_request_latency_seconds_sum": calls * self.seconds,
        }
        labels = {"namespace": self.namespace, "pod": self.pod, "model_name": self.llm, "engine": "0", **self.labels}
        found: dict[str, list[str]] = {}
        for name, column in columns.items():
            own = labels | ({"finished_reason": "stop"} if name.endswith("success_total") else {})
            shown = ",".join(f'{key}="{value}"' for key, value in own.items())
            total, lines = 1000.0, []
            for minute in range(minutes):
                total = column[minute] if minute in self.restarts else total + column[minute]
                if not np.isnan(self.rate[minute]):
                    lines.append(f"{name}{{{shown}}} {total} {end - 60 * (minutes - 1 - minute):.3f}")
            found[name] = lines
        return found


def gateway(
    llm: str, rate: np.ndarray, end: float, rng: np.random.Generator, queue: float = 0.0
) -> dict[str, list[str]]:
    """Return the samples of the gateway's counter of calls, and of its gauge of waiting time, for one LLM."""
    labels = f'namespace="llm-serving",pod="gateway-0",proxy="llm-{llm}"'
    totals = np.cumsum(rng.poisson(np.nan_to_num(rate) * 60))
    times = [end - 60 * (len(rate) - 1 - minute) for minute in range(len(rate))]
    return {
        "haproxy_backend_http_requests_total": [
            f"haproxy_backend_http_requests_total{{{labels}}} {total} {at:.3f}"
            for total, at, seen in zip(totals, times, rate, strict=True)
            if not np.isnan(seen)
        ],
        "haproxy_backend_queue_time_average_seconds": [
            f"haproxy_backend_queue_time_average_seconds{{{labels}}} {queue} {at:.3f}"
            for at, seen in zip(times, rate, strict=True)
            if not np.isnan(seen)
        ],
    }


@dataclass
class Workflow:
    """A workflow as the gateway's own counters tell of it.

    Attributes:
        name: its name.
        rate: executions per second, in every minute of the last day; NaN where Prometheus did not look.
        calls: by LLM, calls per execution.
        pods: gateway pods among which executions are divided.
        unnamed: by LLM, calls per second that name no workflow.
        again: whether the calls of an execution are divided among pods instead, so that each pod counts it.
    """

    name: str
    rate: np.ndarray
    calls: dict[str, float | np.ndarray]
    pods: int = 2
    unnamed: dict[str, float] = field(default_factory=dict)
    again: bool = False

    def lines(self, end: float, rng: np.random.Generator) -> dict[str, list[str]]:
        """Return the samples of both counters in the OpenMetrics format, one a minute, the last one at `end`."""
        minutes = len(self.rate)
        calls, executions = "scepsy_gateway_calls_total", "scepsy_gateway_executions_total"
        found: dict[str, list[str]] = {calls: [], executions: []}

        def add(metric: str, pod: int, labels: str, counts: np.ndarray) -> None:
            own = f'namespace="llm-serving",pod="gateway-{pod}",workflow={labels}'
            totals = np.cumsum(counts)
            found[metric] += [
                f"{metric}{{{own}}} {totals[minute]} {end - 60 * (minutes - 1 - minute):.3f}"
                for minute in range(minutes)
                if not np.isnan(self.rate[minute])
            ]

        def drawn() -> np.ndarray:
            begun = rng.poisson(np.nan_to_num(self.rate) * 60 / (1 if self.again else self.pods))
            return rng.multinomial(begun, np.full(PARTS, 1 / PARTS))

        same = drawn()
        for pod in range(self.pods):
            parts = same if self.again else drawn()
            begun = parts.sum(axis=1) / (self.pods if self.again else 1)
            for part in range(PARTS):
                add(executions, pod, f'"{self.name}",part="{part}"', parts[:, part])
            for llm, each in self.calls.items():
                add(calls, pod, f'"{self.name}",llm="{llm}",execution="named"', np.rint(begun * each))
                nobodys = rng.poisson(self.unnamed.get(llm, 0.0) * 60 / self.pods, minutes)
                add(calls, pod, f'"",llm="{llm}",execution="unnamed"', nobodys)
        return found


def constant(rate: float, minutes: int = DAY // 60) -> np.ndarray:
    return np.full(minutes, rate)


def text(parts: Sequence[dict[str, list[str]]]) -> str:
    """Put the samples of several processes together."""
    families: dict[str, list[str]] = {}
    for part in parts:
        for name, lines in part.items():
            families.setdefault(name, []).extend(lines)
    return "\n".join([line for lines in families.values() for line in lines] + ["# EOF", ""])


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


@contextmanager
def prometheus(directory: Path, history: str = "", targets: Sequence[str] = ()) -> Iterator[str]:
    """Run a Prometheus that remembers a history and scrapes targets five times a second; its address.

    Args:
        directory: where it keeps its files.
        history: what it remembers, in the OpenMetrics format.
        targets: `host:port`, or `host:port/path` where that is not `/metrics`.
    """
    if not INSTALLED:
        pytest.skip(MISSING)
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data"
    data.mkdir()
    if history:
        file = directory / "history.txt"
        file.write_text(history)
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=24h"]
        subprocess.run([*command, str(file), str(data)], check=True, capture_output=True, timeout=60)
    jobs = [(f"job-{index}", *target.partition("/")) for index, target in enumerate(targets)]
    config = "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n"
    config += "".join(
        f"- job_name: {job}\n  metrics_path: /{path or 'metrics'}\n"
        f"  static_configs:\n  - targets: ['{target}']\n    labels: {{namespace: llm-serving}}\n"
        for job, target, _, path in jobs
    )
    (directory / "prometheus.yml").write_text(config if jobs else "global: {}\n")
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.retention.time=10d",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{address}/-/ready", timeout=1) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                pass
            if process.poll() is not None:
                raise AssertionError(process.stderr.read().decode() if process.stderr else "prometheus ended")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)
        if process.stderr:
            process.stderr.close()


@contextmanager
def page(content: list[str]) -> Iterator[str]:
    """Serve `content[0]` as /metrics; its address, `host:port`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content[0].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
