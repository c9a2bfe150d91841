"""The metrics of `scepsy drift --watch`, in Prometheus's text format.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters. A finding that is gone has
no series. Names that start with `scepsy_look` and `scepsy_drift_not_judged` are deprecated: they repeat the new ones
for one release.
"""

from __future__ import annotations

from typing import Any

from scepsy.errors import ScepsyError
from scepsy.reconcile.check import CheckResult


class Metrics:
    """The metrics of one watch, and the port that serves them.

    Args:
        listen: host and port.

    Raises:
        ScepsyError: the port cannot be listened on.
    """

    def __init__(self, listen: tuple[str, int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge  # noqa: PLC0415 - slow

        registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Any:
            return Gauge(f"scepsy_{name}", text, labels, registry=registry)

        self._drift = gauge("drift", "1 if there are findings, else 0.", "cluster")
        finding = ("cluster", "area", "kind", "severity", "subject")
        self._finding = gauge("drift_finding", "1 for every finding.", *finding)
        self._worth = gauge("recompile_worthwhile", "1 if a recompile is worthwhile, else 0.", "cluster")
        self._plan = gauge("plan_timestamp_seconds", "Time of the last change of the committed plan.", "cluster")
        self._compile = gauge("compile_timestamp_seconds", "Time of the last recompile because of drift.", "result")
        self._workflow = gauge(
            "workflow_latency_seconds",
            "Predicted mean latency of an execution: planned, and current at the observed load.",
            "cluster", "workflow", "figure",
        )  # fmt: skip
        self._llm = gauge(
            "llm_latency_seconds",
            "Mean latency of a call over the last hour: observed, and predicted at that load.",
            "cluster", "llm", "figure",
        )  # fmt: skip
        self._skipped = [
            gauge("drift_checks_skipped", "Number of checks that could not be done.", "cluster"),
            gauge("drift_not_judged", "Deprecated: the same as scepsy_drift_checks_skipped.", "cluster"),
        ]
        self._at = [
            gauge("drift_check_timestamp_seconds", "Time of the last check.", "cluster"),
            gauge("look_timestamp_seconds", "Deprecated: the same as scepsy_drift_check_timestamp_seconds.", "cluster"),
        ]
        self._checks = [
            Counter("scepsy_drift_checks", "Drift checks, by result.", ("result",), registry=registry),
            Counter("scepsy_looks", "Deprecated: the same as scepsy_drift_checks.", ("result",), registry=registry),
        ]
        self._server = _serve(listen, registry)

    def checked(self, checked: CheckResult) -> None:
        """Show the result of a check."""
        result, cluster = checked.document, checked.plan.spec.cluster
        self._count("done" if result.error is None else "incomplete")
        for series in (self._finding, self._workflow, self._llm):
            series.clear()
        for finding in result.findings:
            self._finding.labels(cluster, finding.area, finding.kind, finding.severity, finding.subject).set(1)
        self._drift.labels(cluster).set(int(result.drift))
        self._worth.labels(cluster).set(int(checked.decision.compile))
        for skipped in self._skipped:
            skipped.labels(cluster).set(sum(not check.checked for check in result.checks))
        for at in self._at:
            at.labels(cluster).set(checked.comparison.at)
        if checked.changed is not None:
            self._plan.labels(cluster).set(checked.changed)
        self._latencies(checked)

    def _latencies(self, checked: CheckResult) -> None:
        cluster, comparison = checked.plan.spec.cluster, checked.comparison
        for planned in checked.plan.spec.workflows:
            self._workflow.labels(cluster, planned.name, "planned").set(planned.predicted.latency.mean)
        for workflow in comparison.cost.workflows if comparison.cost is not None else ():
            latency = workflow.latency if workflow.latency is not None else float("inf")
            self._workflow.labels(cluster, workflow.workflow, "current").set(latency)
        for llm, (observed, predicted) in comparison.latency.items():
            self._llm.labels(cluster, llm, "observed").set(observed)
            self._llm.labels(cluster, llm, "predicted").set(predicted)

    def failed(self) -> None:
        """Count a check that failed."""
        self._count("failed")

    def _count(self, result: str) -> None:
        for counter in self._checks:
            counter.labels(result).inc()

    def compiled(self, result: str) -> None:
        """Show that drift was acted on."""
        self._compile.labels(result).set_to_current_time()

    def close(self) -> None:
        """Stop the server."""
        server, thread = self._server
        server.shutdown()
        server.server_close()
        thread.join()


def _serve(listen: tuple[str, int], registry: Any) -> Any:
    """Start the server; return it and its thread.

    Raises:
        ScepsyError: the port cannot be listened on.
    """
    from prometheus_client import start_http_server  # noqa: PLC0415 - slow

    host, port = listen
    try:
        return start_http_server(port, addr=host, registry=registry)
    except UnicodeError as error:  # a name with an empty part, or with one that is too long
        message = f'--listen: "{host[:60]}" is not a valid host name'
        raise ScepsyError(message, "write 127.0.0.1:9464, or :9464 for all") from error
    except OSError as error:
        message = f"--listen: cannot listen on {host}:{port}: {error.strerror or error}"
        raise ScepsyError(message, "choose another port") from error
