"""The one OpenAI endpoint in front of all LLMs: the values of HAProxy's configuration, and its sizes.

The text of the configuration is templates/haproxy.cfg.j2.

A call names its LLM by path (`/<llm>/v1/…`), by header (`x-scepsy-model`), or in its JSON body (`model`); the first of
these that it uses counts. It may also name the workflow that it is part of (`/workflows/<workflow>` before the path, or
`x-scepsy-workflow`) and the execution of it (`x-scepsy-execution`, else the trace-id of `traceparent`): the gateway
counts calls per workflow and LLM, and executions per workflow, for `COUNTS_PATH`.

Each pod counts for itself. HAProxy's stick tables are shared only between peers whose addresses are known when it
starts, which pods' are not (github.com/haproxy/haproxy/issues 919, 930). So the Service sends a client to the same pod
for as long as an execution is remembered, and executions are counted in parts by the hash of their names: that shows
whether several pods counted the same ones (drift/double_counting.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from scepsy.documents.plan import Plan
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import PORT
from scepsy.manifests.template import Templates

MODEL_HEADER = "x-scepsy-model"
"""Names the LLM of a call whose body is not JSON, or too long to be parsed."""
WORKFLOW_HEADER = "x-scepsy-workflow"
"""Names the workflow of a call whose path does not."""
EXECUTION_HEADER = "x-scepsy-execution"
"""Names the execution of a call, by any text that no other execution of the workflow has."""
LISTEN_PORT = 8080
"""Port of the API in the pod."""
METRICS_PORT = 8404
"""Port of `/metrics` and of the pod's `/health`, which answer even when the API's port is full."""
COUNTS_PATH = "/metrics/workflows"
"""Path of the gateway's counters per workflow; `/metrics` holds HAProxy's, whose exporter omits stick tables."""
CALLS_METRIC = "scepsy_gateway_calls_total"
"""Calls that went to an LLM, by `workflow`, `llm`, and `execution`, which is `named` or `unnamed`. Those that name no
workflow of the Plan that calls the LLM have no `workflow`."""
EXECUTIONS_METRIC = "scepsy_gateway_executions_total"
"""Executions that a pod saw a first call of, by `workflow` and `part`."""
PARTS = 32
"""Parts into which executions are counted."""
EXECUTIONS = 1 << 18
"""Executions that a pod remembers, each in about 200 bytes."""
SILENCE = 3600
"""Seconds after the beginning of its last call after which an execution is forgotten, and after which a client may be
sent to another pod."""
WORKFLOW_LENGTH = 63
"""Characters of the longest name of a workflow."""
EXECUTION_LENGTH = 128
"""Characters of the longest name of an execution; longer ones are ignored."""
CLUSTER_DOMAIN = "cluster.local"
"""DNS domain of the cluster. HAProxy's resolver knows no search domains, so names must be complete."""

USER = 99
"""UID of the official image's user haproxy."""
THREADS = 2
"""HAProxy's threads; by itself it would start one per core of the node."""
QUEUE_TIMEOUT = 300
"""Seconds a call waits for a free place at an instance."""
DRAIN = 600
"""Seconds in which a stopping gateway lets calls end."""
PRE_STOP = 15
"""Seconds between the removal of a pod from the Service and the signal to stop."""
GRACE = PRE_STOP + DRAIN + 15
"""Seconds until the kubelet kills a stopping pod."""

KIB = 1 << 10
MIB = 1 << 20
HEADROOM = 64 * KIB
"""Bytes of a buffer beside the body: headers, HAProxy's bookkeeping and its reserve for rewriting."""
MAX_BODY = 128 * MIB
"""Most that `maxBody` may be; HAProxy's buffers stay below 256 MB."""
BASE_MEMORY = 256 * MIB
"""Bytes that HAProxy needs beside its buffers, 64 MiB of them for executions."""
_LINE = 512
"""Most bytes that `COUNTS_PATH` returns for one counter."""


class BodyTooLarge(ScepsyError):
    """A `gateway.maxBody` that HAProxy cannot buffer."""


@dataclass(frozen=True, slots=True)
class Server:
    """An instance as the gateway sees it.

    Attributes:
        name: its name in metrics and logs.
        address: `host:port`.
        max_connections: calls that it runs at once; more wait in the gateway.
    """

    name: str
    address: str
    max_connections: int


@dataclass(frozen=True, slots=True)
class Backend:
    """An LLM and its instances.

    Attributes:
        llm: its name, what a call sends as `model`.
        servers: its instances.
        workflows: those that call it.
    """

    llm: str
    servers: tuple[Server, ...]
    workflows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a gateway pod holds.

    Attributes:
        buffer: bytes of one of HAProxy's buffers; a call has at most two, one per direction.
        connections: calls at once, running and waiting; more wait in the kernel.
        memory_request: bytes for usual prompts of a few ten thousand characters.
        memory_limit: bytes when every connection holds two full buffers.
    """

    buffer: int
    connections: int
    memory_request: int
    memory_limit: int


def gateway_config(
    backends: Sequence[Backend],
    *,
    max_body: int,
    listen: str = f":{LISTEN_PORT}",
    metrics: str = f":{METRICS_PORT}",
    queue_timeout: int = QUEUE_TIMEOUT,
    templates: Templates | None = None,
) -> str:
    """Return HAProxy's configuration (2.6 or later).

    Args:
        backends: the LLMs.
        max_body: bytes of a body in which the model is searched.
        listen: where the API listens, an address as HAProxy's `bind` takes it.
        metrics: where metrics and health listen.
        queue_timeout: seconds a call may wait for an instance.
        templates: where the template comes from; the shipped ones by default.

    Raises:
        BodyTooLarge: `max_body` is beyond `MAX_BODY`.
        DocumentError: the template is wrong.
    """
    size = sizes(backends, max_body)
    workflows = sorted({workflow for backend in backends for workflow in backend.workflows})
    values = {
        "backends": [
            {
                "llm": backend.llm,
                "servers": [dataclasses.asdict(server) for server in backend.servers],
                "workflows": list(backend.workflows),
            }
            for backend in backends
        ],
        "listen": listen,
        "metrics": metrics,
        "model_header": MODEL_HEADER,
        "workflow_header": WORKFLOW_HEADER,
        "execution_header": EXECUTION_HEADER,
        "execution_length": EXECUTION_LENGTH,
        "workflow_length": WORKFLOW_LENGTH,
        "workflows": workflows,
        "parts": list(range(PARTS)),
        "executions": EXECUTIONS,
        "silence": SILENCE,
        "counters": _counters(backends),
        "counts_path": COUNTS_PATH,
        "calls_metric": CALLS_METRIC,
        "executions_metric": EXECUTIONS_METRIC,
        "max_body": max_body,
        "buffer": size.buffer,
        "connections": size.connections,
        # Probes and scrapes must get through when the API's port is full.
        "process_connections": size.connections + 100,
        "threads": THREADS,
        "drain": DRAIN,
        "queue_timeout": queue_timeout,
    }
    return (templates or Templates()).text(values)


def sizes(backends: Sequence[Backend], max_body: int) -> Sizes:
    """Return the sizes of a gateway pod.

    Twice the calls that the instances run: as many again may wait. Bodies are buffered until an instance takes them,
    so memory is bounded by connections × 2 buffers, and a flood of calls waits outside instead of killing the pod.

    Raises:
        BodyTooLarge: `max_body` is beyond `MAX_BODY`.
    """
    if max_body > MAX_BODY:
        raise BodyTooLarge(
            f"gateway.maxBody is {max_body:,} bytes; HAProxy buffers at most {MAX_BODY:,}",
            f"clients with longer bodies can send the header {MODEL_HEADER} or use /<llm>/v1/…",
        )
    slots = sum(server.max_connections for backend in backends for server in backend.servers)
    connections = max(512, 2 * slots)
    # Responses that the gateway generates must fit too.
    buffer = max(max_body, _LINE * _counters(backends)) + HEADROOM
    return Sizes(
        buffer=buffer,
        connections=connections,
        memory_request=_round(BASE_MEMORY + connections * min(128 * KIB, buffer)),
        memory_limit=_round(BASE_MEMORY + connections * 2 * buffer),
    )


def _counters(backends: Sequence[Backend]) -> int:
    """Return how many entries the table of counters has, so that none is ever evicted."""
    workflows = {workflow for backend in backends for workflow in backend.workflows}
    return 1 + sum(len(backend.workflows) + 1 for backend in backends) + PARTS * len(workflows)


def _round(size: int) -> int:
    return -(-size // MIB) * MIB


def backends(plan: Plan) -> list[Backend]:
    """Return the LLMs of a plan with the DNS names of their instances' Services."""
    domain = f"{plan.spec.namespace}.svc.{CLUSTER_DOMAIN}"
    return [
        Backend(
            llm.name,
            tuple(
                Server(instance.name, f"{service(instance.name)}.{domain}:{PORT}", llm.max_num_seqs)
                for instance in plan.spec.instances
                if instance.llm == llm.name
            ),
            llm.workflows,
        )
        for llm in plan.spec.llms
    ]


def service(instance: str) -> str:
    """Return the name of an instance's Service: at most 63 characters, starting with a letter, and never an LLM's."""
    name = f"engine-{instance}"
    if len(name) <= 63:
        return name
    return f"{name[:52]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
