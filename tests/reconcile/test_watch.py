"""`scepsy drift --watch`: checks again and again, acts, serves metrics, and goes on when a server is down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.conftest import Scepsy, git
from tests.drift.prometheus_server import Answer
from tests.drift.replayed_traffic import free_port
from tests.reconcile.test_recompile import LOST, Site, server, site

from scepsy.reconcile.node_events import Wakeup
from scepsy.reconcile.watch import Reporting, Watching, watch

__all__ = ["server", "site"]


@dataclass
class Watch:
    """A running watch."""

    process: subprocess.Popen[str]
    port: int
    directory: Path
    lines: list[str] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Return its metrics; nothing where it does not answer yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs if name.startswith("scepsy_")}

    def until(self, condition: Callable[[dict[str, float]], object], within: float = 60.0) -> dict[str, float]:
        """Wait for the metrics to be so."""
        end = time.monotonic() + within
        while True:
            seen = self.metrics()
            if seen and condition(seen):
                return seen
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, (seen, self.said())
            time.sleep(0.1)

    def said(self) -> str:
        return (self.directory / "out").read_text() + (self.directory / "err").read_text()


@contextmanager
def watching(site: Site, tmp_path: Path, *more: str) -> Iterator[Watch]:
    port = free_port()
    command = [
        sys.executable, "-m", "scepsy", "drift", "--project", str(site.directory), "--context", "here",
        "--prometheus", site.prometheus.url, "--watch", "--interval", "1s", "--listen", f"127.0.0.1:{port}", *more,
    ]  # fmt: skip
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, text=True, env=dict(os.environ))
    try:
        yield Watch(process, port, tmp_path)
    finally:
        process.kill()
        process.wait()


def test_a_lost_node_is_replanned_while_the_watch_goes_on(site: Site, tmp_path: Path, scepsy: Scepsy) -> None:
    with watching(site, tmp_path, "--recompile", "--push") as watch:
        seen = watch.until(lambda m: 'scepsy_drift{cluster="two-nodes"}' in m)
        assert seen['scepsy_drift{cluster="two-nodes"}'] == 0
        assert seen['scepsy_plan_timestamp_seconds{cluster="two-nodes"}'] < time.time() - 86400
        workflow = 'scepsy_workflow_latency_seconds{cluster="two-nodes",figure="planned",workflow="rag-reranker"}'
        planned = next(w for w in site.plan().spec.workflows if w.name == "rag-reranker")
        assert seen[workflow] == pytest.approx(planned.predicted.latency.mean)
        for figure in ("observed", "predicted"):
            assert seen[f'scepsy_llm_latency_seconds{{cluster="two-nodes",figure="{figure}",llm="reranker"}}'] > 0
        head = git(site.remote, "rev-parse", "main")
        site.lose()
        seen = watch.until(lambda m: 'scepsy_compile_timestamp_seconds{result="push"}' in m)
        assert git(site.remote, "rev-parse", "main~") == head
        assert {instance.node for instance in site.plan().spec.instances} == {"gpu-a"}
        seen = watch.until(lambda m: m['scepsy_drift{cluster="two-nodes"}'] == 0)
        assert not any(LOST in name for name in seen)
        assert git(site.directory, "rev-parse", "HEAD") == git(site.remote, "rev-parse", "main")
        watch.process.send_signal(signal.SIGTERM)
        assert watch.process.wait(timeout=20) == 0
    assert "node gpu-b is gone" in watch.said()
    assert "Done: pushed" in watch.said()
    assert "Traceback" not in watch.said()


def test_an_outage_is_reported_once_counted_and_tried_again(site: Site, tmp_path: Path) -> None:
    site.prometheus.answers = [Answer(401)] * 3
    with watching(site, tmp_path) as watch:
        watch.until(lambda m: m.get('scepsy_drift_checks_total{result="incomplete"}', 0) >= 2)
        watch.until(lambda m: m.get('scepsy_drift_checks_total{result="done"}', 0) >= 1)
        plans = site.directory / "plans"
        plans.rename(plans.with_name("elsewhere"))
        (site.directory / "scepsy.yaml").rename(site.directory / "not-here.yaml")
        watch.until(lambda m: m.get('scepsy_drift_checks_total{result="failed"}', 0) >= 2)
        (site.directory / "not-here.yaml").rename(site.directory / "scepsy.yaml")
        plans.with_name("elsewhere").rename(plans)
        metrics = watch.metrics()
        before = metrics['scepsy_drift_checks_total{result="done"}']
        skipped = metrics['scepsy_drift_checks_skipped{cluster="two-nodes"}']
        assert metrics['scepsy_drift_not_judged{cluster="two-nodes"}'] == skipped  # the deprecated name
        assert metrics['scepsy_looks_total{result="incomplete"}'] >= 2  # the deprecated name
        watch.until(lambda m: m['scepsy_drift_checks_total{result="done"}'] > before)
    assert watch.said().count("there is no scepsy.yaml") == 1


def test_a_node_that_returns_and_traffic_that_falls_do_not_make_it_flap(site: Site, tmp_path: Path) -> None:
    with watching(site, tmp_path, "--recompile", "--push") as watch:
        watch.until(lambda m: 'scepsy_drift{cluster="two-nodes"}' in m)
        site.lose()
        watch.until(lambda m: 'scepsy_compile_timestamp_seconds{result="push"}' in m)
        head = git(site.remote, "rev-parse", "main")
        for _ in range(3):
            site.give_back(since=1)
            looks = watch.metrics()['scepsy_drift_checks_total{result="done"}']
            watch.until(lambda m, looks=looks: m['scepsy_drift_checks_total{result="done"}'] > looks + 1)
            site.lose()
            looks = watch.metrics()['scepsy_drift_checks_total{result="done"}']
            watch.until(lambda m, looks=looks: m['scepsy_drift_checks_total{result="done"}'] > looks + 1)
        assert git(site.remote, "rev-parse", "main") == head


def test_a_server_with_odd_answers_fails_checks_and_does_not_end_the_watch(site: Site, tmp_path: Path) -> None:
    with watching(site, tmp_path) as watch:
        watch.until(lambda m: m.get('scepsy_drift_checks_total{result="done"}', 0) >= 1)
        site.world.fail(200, times=2, match="nodes", body="[" * 200_000)
        site.world.fail(200, times=1, match="pods", body='{"kind": "PodList", "items": [], "metadata": 5}')
        site.prometheus.answers = [Answer(200, b"[" * 200_000)] * 2
        done = watch.until(lambda m: not site.prometheus.answers)['scepsy_drift_checks_total{result="done"}']
        watch.until(lambda m: m['scepsy_drift_checks_total{result="done"}'] > done + 1)
    assert "Traceback" not in watch.said()


def test_a_check_that_ends_in_a_bug_is_reported_once_counted_and_followed_by_others(
    tmp_path: Path,
) -> None:
    class Broken:
        kubernetes = None
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("beyond \x1b[31mbelief")

    broken = Broken()
    lines: list[str] = []
    reporting = Reporting(lambda result: None, lines.append)
    watch(tmp_path, broken, None, Watching(0.01, ("127.0.0.1", free_port())), reporting)  # type: ignore[arg-type]
    assert broken.checks == 3
    assert lines == [
        "error: the check failed: RuntimeError: beyond \\x1b[31mbelief\n  hint: this is a bug: please report it"
    ]


@pytest.mark.parametrize(
    "events",
    [
        [RuntimeError("odd")],
        [{"type": "ADDED", "object": "x"}],
        [{"object": {"metadata": 5, "status": 5, "spec": 5}}],
        [{"object": {"metadata": {"name": "a"}, "status": {"conditions": 5}, "spec": {"taints": 5}}}],
    ],
    ids=str,
)
def test_nodes_are_watched_on_whatever_the_server_sends(events: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    wakeup = Wakeup()
    asked = 0

    class Odd:
        def watch(self, kind: object) -> Iterator[object]:
            nonlocal asked
            asked += 1
            if asked == 2:
                wakeup._woken.clear()
                yield {"type": "ADDED", "object": {"metadata": {"name": "gpu-a"}}}
                wakeup._ended.set()
                return
            for event in events:
                if isinstance(event, Exception):
                    raise event
                yield event

    monkeypatch.setattr("scepsy.reconcile.node_events._RECONNECT", 0.0)
    monkeypatch.setattr("scepsy.reconcile.node_events._COLLECT", 0.0)
    wakeup.follow_nodes(Odd())  # type: ignore[arg-type]
    assert (asked, wakeup._woken.is_set()) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--push"], "--push and --pull-request need --recompile"),
        (["--recompile", "--push", "--pull-request"], "exclude each other"),
        (["--watch", "--interval", "soon"], '--interval: "soon" is not a duration'),
        (["--watch", "--interval", "0.1s"], "--interval: 0.1s is too short"),
        (["--watch", "--listen", "here"], '--listen: "here" is not an address'),
        (["--watch", "--listen", "203.0.113.1:9464"], "--listen: cannot listen on 203.0.113.1:9464"),
        (["--watch", "--listen", "a..b:9464"], '--listen: "a..b" is not a valid host name'),
        (["--watch", "--listen", f"{80 * 'a'}:9464"], f'--listen: "{60 * "a"}" is not a valid host name'),
        (["--prometheus", "http://[::1"], "is not the address of a Prometheus"),
    ],
)
def test_options_that_make_no_sense_are_told(site: Site, options: list[str], message: str) -> None:
    ran = site.drift(*options)
    assert ran.code in (1, 2)
    assert message in ran.err
    assert "Traceback" not in ran.err
