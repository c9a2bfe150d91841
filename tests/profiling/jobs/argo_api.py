"""A small server with what the clients need of the Kubernetes API and of an argo-server, and faults to be injected.

Its controller "measures" at once when it is asked to; the numbers are made up here.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from scepsy.documents import Profile, emit
from scepsy.documents.compressed_text import pack, unpack

TOKEN = "s3cr3t-t0ken"
NAMESPACE = "scepsy-profiling"

_KUBERNETES = re.compile(r"/apis/argoproj\.io/v1alpha1/namespaces/([^/]+)/(workflows|workflowtemplates)(?:/([^/]+))?")
_ARGO = re.compile(r"/api/v1/(workflows|workflow-templates)/([^/]+)(?:/([^/]+))?")


@dataclass
class Fault:
    """What happens in place of an answer, so many times, to requests whose `METHOD path` matches."""

    match: str = ""
    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "status"
    times: int = 1


class FakeArgo:
    """The cluster: Workflows by name, faults, and what was asked."""

    def __init__(self) -> None:
        self.workflows: dict[str, dict[str, Any]] = {}
        self.installed = True
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.authorizations: set[str] = set()
        self.before_answer: Callable[[str], None] = lambda what: None
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def fail(
        self, status: int = 0, times: int = 1, match: str = "", kind: str = "status", body: str = "", **headers: str
    ) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(match, status, body, named, kind, times))

    def take_fault(self, what: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.match, what):
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    api: FakeArgo
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        what = f"{self.command} {unquote(self.path)}"
        argo = self.api
        with argo.lock:
            argo.asked.append(what)
            argo.authorizations.add(self.headers.get("Authorization", ""))
        argo.before_answer(what)
        fault = argo.take_fault(what)
        if fault is not None and fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault is not None and fault.kind == "status":
            self._send(
                fault.status,
                fault.body or {"kind": "Status", "message": f"made to answer {fault.status}"},
                fault.headers,
            )
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"kind": "Status", "message": "Unauthorized"})
            return
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        with argo.lock:
            status, answer = self._found(address.path, query, json.loads(body) if body else {})
        self._send(status, answer, half=fault is not None and fault.kind == "half")

    def _found(self, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        kubernetes, argo_server = _KUBERNETES.fullmatch(path), _ARGO.fullmatch(path)
        if kubernetes:
            namespace, kind, name = kubernetes.groups()
        elif argo_server:
            kind, namespace, name = argo_server.groups()
            query = {key.removeprefix("listOptions."): value for key, value in query.items()}
            if self.command == "POST":
                query = {"dryRun": "All"} if body.get("serverDryRun") else {}
                body = body["workflow"]
        else:
            return 404, "404 page not found\n"
        assert namespace == NAMESPACE
        if kind != "workflows":
            if self.api.installed and name == "scepsy-profile":
                return 200, {"kind": "WorkflowTemplate", "metadata": {"name": name}}
            return 404, {"kind": "Status", "message": f'workflowtemplates.argoproj.io "{name}" not found'}
        workflows = self.api.workflows
        if self.command == "POST":
            name = body["metadata"]["name"]
            if name in workflows:
                return 409, {"kind": "Status", "message": f'workflows.argoproj.io "{name}" already exists'}
            if "dryRun" not in query:
                workflows[name] = body
            return 201, body
        if name:
            return (
                (200, workflows[name])
                if name in workflows
                else (404, {"kind": "Status", "message": f'workflows.argoproj.io "{name}" not found'})
            )
        found = [
            w
            for _, w in sorted(workflows.items())
            if selected(w["metadata"].get("labels", {}), query.get("labelSelector", ""))
        ]
        at, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
        following = {"continue": str(at + limit)} if at + limit < len(found) else {}
        # An argo-server writes null for no items.
        return 200, {"items": found[at : at + limit] or None, "metadata": following}

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None, half: bool = False) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if data.startswith((b"{", b"[")) else "text/plain")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self.close_connection = True


def selected(labels: dict[str, str], selector: str) -> bool:
    """Tell whether labels match `a=b,c in (d,e)`."""
    for term in re.findall(r"[^,(]+(?:\([^)]*\))?", selector):
        key, _, value = term.partition("=") if "=" in term else term.partition(" in ")
        if labels.get(key.strip()) not in value.strip("() ").split(","):
            return False
    return True


# --------------------------------------------------------------------------------------------------- the controller


def parameters(workflow: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in workflow["spec"]["arguments"]["parameters"]}


def points(workflow: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {point["name"]: point for point in json.loads(parameters(workflow)["points"])}


def profile(workflow: dict[str, Any], point: str, unusable: str = "", **changes: Any) -> dict[str, Any]:
    """A Profile such as a pod would write; with made-up numbers: R(k) = 20 ms per token at k = 1, rising with k."""
    given, asked = parameters(workflow), points(workflow)[point]
    request = json.loads(workflow["metadata"]["annotations"]["scepsy.dev/request"])
    calls = [json.loads(line) for line in unpack(given["calls"], "calls").splitlines()]
    inputs = sum(call["inputTokens"] for call in calls) / len(calls)
    outputs = sum(call["outputTokens"] for call in calls) / len(calls)
    tp, share = int(asked["tp"]), float(asked["share"])
    shape = {"tp": tp, "share": share}
    tpot = [0.004 / tp / share * (1 + k / 20) for k in (1, 4, 16, 64)]
    measured = {
        **shape,
        "mix": {"input": round(inputs), "output": max(1, round(outputs)), "cached": 0.0},
        "points": [
            {
                "concurrency": k,
                "ttft": f"{t * 4 * 1000:.4f}ms",
                "tpot": f"{t * 1000:.4f}ms",
                "latency": f"{t * 1000 * (4 + outputs):.4f}ms",
            }
            for k, t in zip((1, 4, 16, 64), tpot, strict=True)
        ],
    }
    spec: dict[str, Any] = {
        "source": "measured",
        "model": given["model"],
        "product": given["product"],
        "engine": {"name": "vllm", "version": request["engine"]},
        "architecture": {
            "parameters": 600_000_000,
            "bytesPerParameter": 2.0,
            "layers": 28,
            "attentionHeads": 16,
            "kvHeads": 8,
            "headDim": 128,
            "contextLength": 40960,
        },
        "provenance": {
            "tool": "scepsy test",
            "traceDigest": given["trace-digest"],
            "date": "2026-01-31",
            "notes": "Made up by a test.",
        },
    }
    if given["revision"]:
        spec["revision"] = given["revision"]
    spec |= {"unusable": [{**shape, "reason": unusable}]} if unusable else {"series": [measured]}
    spec |= changes
    return {"apiVersion": "scepsy.dev/v1alpha1", "kind": "Profile", "metadata": {"name": "profile"}, "spec": spec}


def outputs(
    workflow: dict[str, Any], point: str, outcome: str = "measured", reason: str = "", partial: str = "", **changes: Any
) -> dict[str, str]:
    """The output parameters of a pod."""
    document = ""
    if outcome in ("measured", "unusable"):
        plain = profile(workflow, point, reason if outcome == "unusable" else "", **changes)
        Profile.model_validate(plain)  # what the server makes is a Profile, whatever the test does to it
        document = pack(emit(plain).decode())
    return {
        "outcome": json.dumps({"outcome": outcome, "reason": reason}),
        "profile": document,
        "partial": partial and pack(partial),
    }


def node(
    workflow: dict[str, Any],
    point: str,
    phase: str = "Succeeded",
    number: int | None = None,
    message: str = "",
    **values: Any,
) -> dict[str, Any]:
    """A node of a pod, as Argo 3.6 to 4.x write it."""
    name = workflow["metadata"]["name"]
    suffix = "" if number is None else f"({number})"
    given = points(workflow)[point]
    return {
        "id": f"{name}-{point}{suffix}",
        "name": f"{name}[1].measure(0:{point}){suffix}",
        "displayName": f"measure(0:{point}){suffix}",
        "type": "Pod",
        "templateName": "measure",
        "templateScope": "local/",
        "phase": phase,
        "message": message,
        "startedAt": f"2026-01-31T10:0{number or 0}:00Z",
        "inputs": {"parameters": [{"name": key, "value": given[key]} for key in ("name", "tp", "share", "claim")]},
        **(
            {"outputs": {"parameters": [{"name": key, "value": value} for key, value in values["outputs"].items()]}}
            if "outputs" in values
            else {}
        ),
    }


def retried(workflow: dict[str, Any], point: str, *attempts: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a point with retries: the one that holds them together, and the attempts."""
    whole = {
        **node(workflow, point, attempts[-1]["phase"] if attempts else "Running"),
        "type": "Retry",
        "children": [attempt["id"] for attempt in attempts],
    }
    return [whole, *attempts]


def over(
    workflow: dict[str, Any], *nodes: dict[str, Any], phase: str | None = None, compressed: bool = False
) -> dict[str, Any]:
    """A Workflow that is over."""
    by_id = {entry["id"]: entry for entry in nodes}
    bad = any(entry["phase"] != "Succeeded" for entry in nodes)
    status: dict[str, Any] = {"phase": phase or ("Failed" if bad else "Succeeded"), "nodes": by_id}
    if compressed:
        packed = base64.b64encode(gzip.compress(json.dumps(by_id).encode())).decode()
        status = {"phase": status["phase"], "compressedNodes": packed}
    return {**copy.deepcopy(workflow), "status": status}


def measure(argo: FakeArgo, **failures: str) -> None:
    """Let every Workflow that is not over end: points with a reason fail, the others are measured."""
    with argo.lock:
        for name, workflow in list(argo.workflows.items()):
            if "status" not in workflow:
                argo.workflows[name] = measured(workflow, **failures)


def measured(workflow: dict[str, Any], **failures: str) -> dict[str, Any]:
    """A Workflow that is over; `tp1_s5="why"` fails a point."""
    nodes: list[dict[str, Any]] = []
    for point in points(workflow):
        reason = failures.get(point.replace("-", "_"))
        if reason is None:
            nodes += retried(workflow, point, node(workflow, point, number=0, outputs=outputs(workflow, point)))
        else:
            bad = outputs(workflow, point, "failed", reason, partial='{"arguments":{}}\n')
            nodes += retried(workflow, point, node(workflow, point, "Failed", 0, "Error (exit code 1)", outputs=bad))
    return over(workflow, *nodes)
