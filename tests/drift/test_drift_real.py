"""With a real Prometheus, whose history a test makes up, or which scrapes a page that a test serves."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from tests.conftest import Demo, Scepsy
from tests.drift.replayed_traffic import INSTALLED, MISSING, Engine, Workflow, constant, gateway, page, prometheus, text

from scepsy.documents import Plan
from scepsy.documents.units import parse_duration
from scepsy.drift.counters import increments
from scepsy.drift.prometheus import Access, Prometheus, PrometheusError
from scepsy.drift.series import observe_callers
from scepsy.manifests import COUNTS_PATH, EXECUTION_HEADER, Backend, Server, gateway_config

pytestmark = pytest.mark.skipif(not INSTALLED, reason=MISSING)


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    return demo(tmp_path / "demo", compiled=True)


def history(project: Path, end: float, shape: np.ndarray, **more: object) -> str:
    """Return a day of the example's traffic, at so many times the planned load."""
    rng = np.random.default_rng(1)
    plan = YAML(typ="safe", pure=True).load(project / "plans" / "one-node.yaml")
    seconds = {own["llm"]: parse_duration(own["call"]) for own in plan["spec"]["workflows"][0]["predicted"]["llms"]}
    calls = {"input": 3100.0, "output": 240.0, "seconds": 0.9 * seconds["generator"]}
    parts = [
        Engine("generator", f"generator-{i}-6c5d8f9b7-x2x4q", 6 * shape, **{**calls, **more}).lines(end, rng)  # type: ignore[arg-type]
        for i in range(2)
    ]
    parts.append(Engine("reranker", "reranker-0-7d9-abcde", 240 * shape, 510.0, 1.0, 0.02).lines(end, rng))
    parts += [gateway(llm, rate * shape, end, rng) for llm, rate in (("generator", 12.0), ("reranker", 240.0))]
    return text(parts)


def looked(scepsy: Scepsy, project: Path, url: str) -> tuple[int, dict]:
    ran = scepsy("drift", "--project", project, "--prometheus", url, "--output", "json")
    return ran.code, json.loads(ran.out)


def test_a_shift_of_sixty_percent_is_found_and_dated(scepsy: Scepsy, project: Path, tmp_path: Path) -> None:
    end, shape = time.time(), constant(1.0)
    shape[-30:] = 1.6
    with prometheus(tmp_path / "prometheus", history(project, end, shape)) as url:
        code, document = looked(scepsy, project, url)
    assert code == 2
    found = {f["subject"]: f for f in document["findings"] if f["area"] == "traffic"}
    assert {f["kind"] for f in found.values()} == {"load-above"}
    assert set(found) == {"generator", "reranker"}
    since = time.mktime(time.strptime(found["reranker"]["since"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert since == pytest.approx(end - 30 * 60, abs=240)


def test_steady_traffic_with_restarts_and_a_gap_is_no_drift(scepsy: Scepsy, project: Path, tmp_path: Path) -> None:
    shape = constant(1.0)
    shape[700:760] = np.nan
    with prometheus(
        tmp_path / "prometheus", history(project, time.time(), shape, restarts=(300, 900, 1410, 1430))
    ) as url:
        code, document = looked(scepsy, project, url)
    assert (code, document.get("findings")) == (0, None), document["findings"]
    checks = {(j["subject"], j["what"]): j for j in document["checks"]}
    assert checks["generator", "load at the engines"]["checked"]


def test_what_it_scrapes_is_read_as_it_was_counted(tmp_path: Path) -> None:
    """The counter of a real dump, moved on and begun anew under Prometheus's eyes."""
    line = 'vllm:request_success_total{{engine="0",finished_reason="stop",model_name="generator"}} {}\n'
    content = [line.format(1068)]
    with page(content) as target, prometheus(tmp_path / "prometheus", targets=[target]) as url:
        client = Prometheus(Access(url))
        counts = iter([1068, 1100, 1100, 7, 20])
        seen: list[float] = []
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = client.raw(
                'vllm:request_success_total{namespace="llm-serving",model_name=~"generator"}', client.now(), 60
            )
            seen = found[0].value.tolist() if found else []
            if 20 in seen:
                break
            if seen and seen[-1] == float(content[0].split()[-1]):
                content[0] = line.format(next(counts, 20))
            time.sleep(0.1)
    assert seen[0] == 1068
    assert increments(np.array(seen)).sum() == (1100 - 1068) + 7 + (20 - 7)


def named(end: float, executions: np.ndarray, calls: np.ndarray, *, again: bool = False) -> dict[str, list[str]]:
    """Return what the gateway counts of the example, at so many times the planned executions, and calls of each."""
    own = Workflow("rag-reranker", 12 * executions, {"generator": calls, "reranker": 20 * calls}, again=again)
    return own.lines(end, np.random.default_rng(2))


def test_twice_the_executions_is_told_from_twice_the_calls_of_each(
    scepsy: Scepsy, project: Path, tmp_path: Path
) -> None:
    end, once, twice = time.time(), constant(1.0), constant(1.0)
    twice[-60:] = 2.0
    load = history(project, end, twice)  # the same for both
    found = {}
    for name, counts in (("executions", named(end, twice, once)), ("calls", named(end, once, twice))):
        whole = load.replace("# EOF\n", "") + text([counts])
        with prometheus(tmp_path / name, whole) as url:
            code, document = looked(scepsy, project, url)
        assert code == 2
        found[name] = document
    kinds = {n: {f["subject"]: f["kind"] for f in d["findings"] if f["area"] == "traffic"} for n, d in found.items()}
    assert kinds == {
        "executions": {"rag-reranker": "executions-above"},
        "calls": {"rag-reranker/generator": "calls-above", "rag-reranker/reranker": "calls-above"},
    }
    rates = {n: [f["cost"]["workflows"][0]["rate"] for f in d["findings"]] for n, d in found.items()}
    assert rates["executions"][0] == pytest.approx(24, rel=0.05)
    assert rates["calls"] == [12, 12]
    assert not any("cannot be told" in note for d in found.values() for note in d.get("notes", []))


def test_executions_that_two_gateways_count_are_not_taken_for_twice_as_many(
    scepsy: Scepsy, project: Path, tmp_path: Path
) -> None:
    end, once = time.time(), constant(1.0)
    whole = history(project, end, once).replace("# EOF\n", "") + text([named(end, once, once, again=True)])
    with prometheus(tmp_path / "prometheus", whole) as url:
        code, document = looked(scepsy, project, url)
    assert (code, document.get("findings")) == (0, None), document["findings"]
    reasons = {(j["subject"], j["what"]): j.get("reason", "") for j in document["checks"] if j["area"] == "traffic"}
    assert "several gateway pods" in reasons["rag-reranker", "executions"]
    assert "several gateway pods" in reasons["rag-reranker", "calls"]
    assert reasons["generator", "load at the gateway"] == ""


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_what_a_real_gateway_counts_is_read_from_a_real_prometheus(
    scepsy: Scepsy, project: Path, tmp_path: Path
) -> None:
    """Its LLMs have no engine: calls are answered with 503, and count."""
    yaml = YAML(typ="safe", pure=True).load(project / "plans" / "one-node.yaml")
    plan = Plan.model_validate(yaml)
    backends = [Backend(llm.name, (Server("gone", "127.0.0.1:9", 1),), tuple(llm.workflows)) for llm in plan.spec.llms]
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        listen, metrics = (f"127.0.0.1:{own.getsockname()[1]}" for own in (one, two))
    config = tmp_path / "haproxy.cfg"
    config.write_text(gateway_config(backends, max_body=1 << 20, listen=listen, metrics=metrics))
    process = subprocess.Popen(
        ["haproxy", "-db", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with prometheus(tmp_path / "prometheus", targets=[metrics + COUNTS_PATH]) as url:
            client = Prometheus(Access(url))

            def counted() -> tuple[float, dict[str, float], dict[str, float]] | None:
                callers = observe_callers(client, plan, client.now(), 900, {})
                own = callers.workflows.get("rag-reranker")
                if own is None or not own.executions.observed.any():
                    return None
                assert own.parts.sum() == pytest.approx(own.executions.value.sum())
                return (
                    round(float(own.executions.value.sum()), 6),
                    {llm: round(float(slots.value.sum()), 6) for llm, slots in own.calls.items()},
                    {llm: round(float(slots.value.sum()), 6) for llm, slots in callers.calls.items()},
                )

            eventually(lambda: counted() == (0, {"generator": 0, "reranker": 0}, {"generator": 0, "reranker": 0}))
            for execution in range(40):
                for llm in ("reranker", "reranker", "reranker", "generator"):
                    call(listen, f"/workflows/rag-reranker/{llm}/v1/x", {EXECUTION_HEADER: f"run {execution}"})
            call(listen, "/generator/v1/x", {})
            eventually(
                lambda: counted() == (40, {"generator": 40, "reranker": 120}, {"generator": 41, "reranker": 120})
            )
    finally:
        process.kill()
        process.wait()


def call(address: str, path: str, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("POST", path, b"{}", headers)
        assert connection.getresponse().status == 503
    finally:
        connection.close()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def test_its_own_words_are_passed_on_when_it_refuses(tmp_path: Path) -> None:
    with prometheus(tmp_path / "prometheus") as url:
        with pytest.raises(PrometheusError, match=r"rejected the query \(400\).*parse error"):
            Prometheus(Access(url)).raw("{", time.time(), 60)
        with pytest.raises(PrometheusError, match=r"no Prometheus API \(404\)"):
            Prometheus(Access(url + "/elsewhere")).now()
        with pytest.raises(PrometheusError, match=r"exceeded maximum resolution"):
            Prometheus(Access(url)).history("up", time.time() - 86400, time.time(), 1)
