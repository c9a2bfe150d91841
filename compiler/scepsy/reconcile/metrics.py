"""What `scepsy drift --watch` says of itself, in Prometheus's text format.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters. What is no longer found
has no series any more.
"""

from __future__ import annotations

from typing import Any

from scepsy.errors import ScepsyError
from scepsy.reconcile.check import Looked


class Metrics:
    """The metrics of one watch, and the port where they are.

    Args:
        listen: host and port.

    Raises:
        ScepsyError: the port cannot be listened on.
    """

    def __init__(self, listen: tuple[str, int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server  # noqa: PLC0415 - slow

        self._registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Any:
            return Gauge(f"scepsy_{name}", text, labels, registry=self._registry)

        self._drift = gauge("drift", "1 if the world differs from the committed plan, else 0.", "cluster")
        finding = ("cluster", "area", "kind", "severity", "subject")
        self._finding = gauge("drift_finding", "1 for every way in which it does.", *finding)
        self._worth = gauge("recompile_worthwhile", "1 if compiling again is worth it, else 0.", "cluster")
        self._unknown = gauge("drift_not_judged", "What could not be compared with the plan.", "cluster")
        self._at = gauge("look_timestamp_seconds", "When was last looked.", "cluster")
        self._plan = gauge("plan_timestamp_seconds", "When the committed plan last changed.", "cluster")
        self._compile = gauge("compile_timestamp_seconds", "When drift was last answered by a compile.", "result")
        self._workflow = gauge(
            "workflow_latency_seconds",
            "Mean latency of an execution: planned as committed, current at the load that is seen.",
            "cluster", "workflow", "figure",
        )  # fmt: skip
        self._llm = gauge(
            "llm_latency_seconds",
            "Mean latency of a call over the last hour: observed, and predicted at that load.",
            "cluster", "llm", "figure",
        )  # fmt: skip
        self._looks = Counter("scepsy_looks", "Looks, by how they ended.", ("result",), registry=self._registry)
        try:
            self._server: Any = start_http_server(listen[1], addr=listen[0], registry=self._registry)
        except UnicodeError as error:  # a name with an empty part, or with one that is too long
            message = f'--listen: "{listen[0][:60]}" is not the name of a host'
            raise ScepsyError(message, "write 127.0.0.1:9464, or :9464 for all") from error
        except OSError as error:
            place = f"{listen[0]}:{listen[1]}"
            raise ScepsyError(
                f"--listen: {place} cannot be listened on: {error.strerror or error}", "name another port"
            ) from error

    def looked(self, looked: Looked) -> None:
        """Show what a look gave."""
        result, cluster = looked.result, looked.plan.spec.cluster
        self._looks.labels("done" if result.error is None else "incomplete").inc()
        for series in (self._finding, self._workflow, self._llm):
            series.clear()
        for finding in result.findings:
            self._finding.labels(cluster, finding.area, finding.kind, finding.severity, finding.subject).set(1)
        self._drift.labels(cluster).set(int(result.drift))
        self._worth.labels(cluster).set(int(looked.response.compile))
        self._unknown.labels(cluster).set(sum(not own.judged for own in result.judged))
        self._at.labels(cluster).set(looked.seen.at)
        if looked.changed is not None:
            self._plan.labels(cluster).set(looked.changed)
        for workflow in looked.plan.spec.workflows:
            self._workflow.labels(cluster, workflow.name, "planned").set(workflow.predicted.latency.mean)
        for figures in looked.seen.cost.workflows if looked.seen.cost is not None else ():
            latency = figures.latency if figures.latency is not None else float("inf")
            self._workflow.labels(cluster, figures.workflow, "current").set(latency)
        for llm, (observed, predicted) in looked.seen.latency.items():
            self._llm.labels(cluster, llm, "observed").set(observed)
            self._llm.labels(cluster, llm, "predicted").set(predicted)

    def failed(self) -> None:
        """Count a look that came to nothing."""
        self._looks.labels("failed").inc()

    def compiled(self, result: str) -> None:
        """Show that drift was answered."""
        self._compile.labels(result).set_to_current_time()

    def close(self) -> None:
        """Listen no more."""
        server, thread = self._server
        server.shutdown()
        server.server_close()
        thread.join()
