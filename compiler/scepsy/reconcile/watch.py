"""Checks again and again, acts on drift, and serves metrics: `scepsy drift --watch`.

A node that is added, removed, or changes its state triggers a check at once; everything else waits for the interval.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from scepsy.documents.drift_result import DriftResult
from scepsy.documents.units import option_duration
from scepsy.errors import ScepsyError
from scepsy.publishing.publish import follow
from scepsy.reconcile.check import Checker, CheckResult
from scepsy.reconcile.metrics import Metrics
from scepsy.reconcile.node_events import Wakeup
from scepsy.reconcile.recompile import Recompilation
from scepsy.remote_api.network_errors import excerpt


@dataclass(frozen=True)
class Watching:
    """How to watch.

    Attributes:
        interval: seconds between two checks.
        listen: host and port of the metrics.
    """

    interval: float
    listen: tuple[str, int]


def watching(interval: str, listen: str) -> Watching:
    """Return how to watch.

    Args:
        interval: `60s`.
        listen: `host:port`; `:port` for all addresses.

    Raises:
        ScepsyError: one of them is wrong.
    """
    seconds = option_duration(interval, "--interval")
    if not 1 <= seconds <= 86_400:
        raise ScepsyError(f"--interval: {interval} is too {'short' if seconds < 1 else 'long'}", "1s to 24h")
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ScepsyError(f'--listen: "{listen[:60]}" is not an address', "write 127.0.0.1:9464, or :9464 for all")
    return Watching(seconds, (host.strip("[]") or "0.0.0.0", int(port)))  # noqa: S104 - as asked for


@dataclass(frozen=True)
class Reporting:
    """Where a watch reports to.

    Attributes:
        result: gets every result that differs from the previous one.
        line: gets warnings and errors, one text each.
    """

    result: Callable[[DriftResult], None]
    line: Callable[[str], None]


def watch(
    project: Path, checker: Checker, recompilation: Recompilation | None, watching: Watching, reporting: Reporting
) -> None:
    """Check until SIGTERM or SIGINT.

    An error is reported, and the next check tries again: a remote or a Prometheus that is down does not end the watch.

    Args:
        project: directory with `scepsy.yaml`.
        checker: checks.
        recompilation: how to act on drift; None not to. If it pushes, the checkout follows the remote.
        watching: how to watch.
        reporting: where to report to.

    Raises:
        ScepsyError: the metrics' port cannot be listened on.
    """
    wakeup = Wakeup()
    with wakeup.signals(), closing(Metrics(watching.listen)) as metrics:
        if checker.kubernetes is not None:
            threading.Thread(target=wakeup.follow_nodes, args=(checker.kubernetes,), daemon=True).start()
        rounds = _Rounds(project, checker, recompilation, metrics, reporting)
        while not wakeup.ended:
            began = time.monotonic()
            rounds.run_once()
            wakeup.wait(watching.interval - (time.monotonic() - began))


@dataclass
class _Rounds:
    """One check after the other; what was reported is not reported again."""

    project: Path
    checker: Checker
    recompilation: Recompilation | None
    metrics: Metrics
    reporting: Reporting
    reported: object = None

    def run_once(self) -> None:
        """Check, act, and report what is new."""
        try:
            if self.recompilation is not None and self.recompilation.how != "write":
                reason = follow(self.project)
                if reason:
                    self.reporting.line(f"the checkout does not follow the remote: {reason}")
            checked = self.checker.check()
            self.metrics.checked(checked)
            result = self._act_on(checked)
            state = _state(result)
            if state != self.reported:
                self.reporting.result(result)
                self.reported = state
        except Exception as error:  # a bug must not end the watch: the next check may succeed
            self.metrics.failed()
            if self.reported != (message := _message(error)):
                self.reporting.line(f"error: {message}")
                self.reported = message

    def _act_on(self, checked: CheckResult) -> DriftResult:
        if self.recompilation is None:
            return checked.document
        try:
            result = self.recompilation.act_on(checked)
        except Exception:
            self.metrics.compiled("failed")
            raise
        if result.compiled is not None:
            self.metrics.compiled(self.recompilation.how)
        return result


def _message(error: Exception) -> str:
    """Return why a check failed; of a bug what its report needs, without the traceback."""
    if isinstance(error, ScepsyError):
        return str(error)
    return f"the check failed: {type(error).__name__}: {excerpt(str(error))}\n  hint: this is a bug: please report it"


def _state(result: DriftResult) -> object:
    """Return the part of a result that makes it new: values change with every check."""
    response = result.response
    done = response.done if response is not None else ""
    error = result.error.message if result.error is not None else ""
    return tuple((f.area, f.kind, f.severity, f.subject) for f in result.findings), done, error
