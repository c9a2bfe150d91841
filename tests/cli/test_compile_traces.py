"""Demand from traces as a user meets it: percentiles, heavy executions, observed rates, committed summaries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.conftest import Demo, Scepsy


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    return demo(tmp_path / "p", "coding-agent")


def edit(project: Path, old: str, new: str) -> None:
    path = project / "workflows/coding-agent.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def plan(project: Path) -> dict[str, Any]:
    return YAML(typ="safe").load((project / "plans/one-node.yaml").read_text())["spec"]


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def test_an_observed_target_is_the_rate_at_which_the_executions_arrived(project: Path, scepsy: Scepsy) -> None:
    # 150 executions in about 65 seconds.
    assert scepsy("compile", "--project", project).code == 0
    rate = plan(project)["workflows"][0]["target"]["rate"]
    assert 1.7 < float(rate.removesuffix("/s")) < 2.8


def test_observed_may_be_the_whole_target(project: Path, scepsy: Scepsy) -> None:
    scepsy("compile", "--project", project)
    before = plan(project)["workflows"]
    edit(project, "target: {rate: observed}", "target: observed")
    assert scepsy("compile", "--project", project).code == 0
    assert plan(project)["workflows"] == before


def test_a_trace_without_a_common_clock_has_no_observed_rate(project: Path, scepsy: Scepsy) -> None:
    trace = project / "traces/coding-agent.jsonl"
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    first = {}
    for call in lines:
        first.setdefault(call["execution"], call["start"])
    for call in lines:
        call["start"], call["end"] = call["start"] - first[call["execution"]], call["end"] - first[call["execution"]]
    trace.write_text("".join(json.dumps(call) + "\n" for call in lines))
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "workflows/coding-agent.yaml:10:12: there is no observed rate: " in ran.err
    assert "set a rate such as 4/s" in ran.err


def test_a_percentile_is_enforced(project: Path, scepsy: Scepsy) -> None:
    assert scepsy("compile", "--project", project).code == 0
    latency = plan(project)["workflows"][0]["predicted"]["latency"]
    assert seconds(latency["p95"]) <= 38
    assert plan(project)["proof"]["predictor"] == "aggregate-llm-pipeline/call-graph"
    edit(project, "objective: {p95: 38s}", "objective: {p95: 8s}")
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "coding-agent cannot reach a p95 latency of 8s" in ran.err
    assert "raise objective.p95" in ran.err


def test_a_percentile_of_statistics_is_reported_as_not_enforced(tmp_path: Path, scepsy: Scepsy) -> None:
    scepsy("init", tmp_path / "p", "--example")
    out = scepsy("compile", "--project", tmp_path / "p").out
    assert (
        "rag-reranker: the p95 objective is not enforced: statistics have means only; use a trace (spec.demand.traces)"
        in out
    )


def test_a_percentile_of_few_executions_is_warned_of(tmp_path: Path, scepsy: Scepsy) -> None:
    scepsy("init", tmp_path / "p", "--example", "beam-search")
    path = tmp_path / "p/workflows/beam-search.yaml"
    path.write_text(path.read_text().replace("  llms:", "  objective: {p95: 60s}\n  llms:"))
    out = scepsy("compile", "--project", tmp_path / "p").out
    assert "beam-search: the p95 objective is based on 14 executions; record at least 100" in out


def test_planning_for_heavy_executions_says_what_it_costs(project: Path, scepsy: Scepsy) -> None:
    ran = scepsy("compile", "--project", project)
    spec = plan(project)
    factors = spec["workflows"][0]["demand"]["factors"]
    assert spec["workflows"][0]["demand"]["quantile"] == 0.9
    assert factors["explorer"] > 3  # a quarter of the executions makes all the calls
    assert factors["planner"] < 2
    assert spec["fewestGpus"]["planned"] > spec["fewestGpus"]["mean"]
    assert f"Fewest GPUs that meet the targets: {spec['fewestGpus']['planned']} GPUs; with the mean demand: {spec['fewestGpus']['mean']} GPU" in ran.out  # fmt: skip
    edit(project, "    quantile: 0.9\n", "")
    assert scepsy("compile", "--project", project).code == 0
    mean = plan(project)
    assert "fewestGpus" not in mean
    assert float(mean["llms"][0]["predicted"]["load"].removesuffix("/s")) == pytest.approx(
        float(spec["llms"][0]["predicted"]["load"].removesuffix("/s")) / factors["explorer"], rel=1e-3
    )


def test_executions_of_two_kinds_are_warned_of_with_numbers(project: Path, scepsy: Scepsy) -> None:
    out = scepsy("compile", "--project", project).out
    warning = next(line for line in out.splitlines() if "executions fall into 2 kinds" in line)
    assert "explorer" in warning
    assert "%" in warning


def summarised(project: Path, scepsy: Scepsy) -> Path:
    """Put a summary in the place of the trace."""
    path = project / "traces/coding-agent.yaml"
    ran = scepsy("trace", "stats", project / "traces/coding-agent.jsonl", "--summary", path)
    assert ran.code == 0, ran.err
    edit(project, "traces: ../traces/coding-agent.jsonl", "summary: ../traces/coding-agent.yaml")
    return path


def test_a_committed_summary_gives_the_plan_of_its_trace(project: Path, scepsy: Scepsy) -> None:
    assert scepsy("compile", "--project", project).code == 0
    before = plan(project)
    summarised(project, scepsy)
    (project / "traces/coding-agent.jsonl").unlink()
    assert scepsy("compile", "--project", project).code == 0
    after = plan(project)
    assert after["instances"] == before["instances"]
    assert "traces/coding-agent.yaml" in after["inputs"]
    for name in ("mean", "p50", "p95"):
        latency = after["workflows"][0]["predicted"]["latency"][name]
        assert seconds(latency) == pytest.approx(
            seconds(before["workflows"][0]["predicted"]["latency"][name]), rel=0.05
        )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("steps:\n        - ", "steps:\n        - nobody 0 1\n        - ", 'unknown LLM "nobody"'),
        ("steps:\n        - ", "steps:\n        - planner 0 1 < 3\n        - ", "step 0 cannot wait for step 3"),
        ("steps:\n        - ", "steps:\n        - planner quickly\n        - ", "invalid step"),
        ("llm: reviewer", "llm: planner", 'the LLM "planner" is given twice'),
        ("kind: TraceSummary", "kind: Workflow", 'kind is "Workflow", expected "TraceSummary"'),
        ("sha256:", "md5:", "is not a digest"),
    ],
)  # fmt: skip
def test_a_wrong_summary_is_refused_where_it_stands(
    project: Path, scepsy: Scepsy, old: str, new: str, expected: str
) -> None:
    path = summarised(project, scepsy)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "traces/coding-agent.yaml:" in ran.err
    assert expected in ran.err


def test_a_quantile_of_statistics_is_refused(tmp_path: Path, scepsy: Scepsy) -> None:
    scepsy("init", tmp_path / "p", "--example")
    path = tmp_path / "p/workflows/rag-reranker.yaml"
    path.write_text(path.read_text().replace("  demand:\n", "  demand:\n    quantile: 0.9\n"))
    ran = scepsy("compile", "--project", tmp_path / "p")
    assert ran.code == 1
    assert "a quantile needs recorded executions" in ran.err


def test_a_summary_is_small_names_its_trace_and_is_the_same_every_time(project: Path, scepsy: Scepsy) -> None:
    first = summarised(project, scepsy).read_bytes()
    trace = project / "traces/coding-agent.jsonl"
    assert f"digest: sha256:{hashlib.sha256(trace.read_bytes()).hexdigest()}".encode() in first
    assert len(first) < 150_000
    scepsy("trace", "stats", trace, "--summary", project / "traces/coding-agent.yaml")
    assert (project / "traces/coding-agent.yaml").read_bytes() == first


@pytest.mark.parametrize(
    ("model", "target", "expected"),
    [
        ("Qwen/Qwen3-8B", "s.yaml", "is not a Kubernetes name"),
        ("planner", "nowhere/s.yaml", "there is no directory"),
        ("planner", ".", "is a directory"),
        ("planner", "t.jsonl", "is an input of this command"),
    ],
)
def test_a_summary_that_cannot_be_written_says_why(
    tmp_path: Path, scepsy: Scepsy, model: str, target: str, expected: str
) -> None:
    call = {"execution": "e", "model": model, "start": 0, "end": 1, "inputTokens": 5, "outputTokens": 2}
    (tmp_path / "t.jsonl").write_text(json.dumps(call))
    ran = scepsy("trace", "stats", tmp_path / "t.jsonl", "--summary", tmp_path / target)
    assert (ran.code, ran.out) == (1, "")
    assert expected in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]
