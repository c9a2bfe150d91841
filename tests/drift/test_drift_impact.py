"""What drift costs, and what compiling again would give."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Scepsy

from scepsy.compilation import Inputs, collect_inputs, compile_plan
from scepsy.documents import Plan, Workspace
from scepsy.documents.workspace import with_observed
from scepsy.drift.check import World, look, result_of
from scepsy.drift.collector import Settings
from scepsy.drift.finding import Finding, Report, ordered
from scepsy.drift.impact import Change, call_seconds, cost_of, gain_of
from scepsy.drift.lost_hardware import Missing
from scepsy.drift.observed_documents import observed_files
from scepsy.errors import ScepsyError
from scepsy.repository.project import open_project

Compiled = tuple[Workspace, Inputs, Plan]
_KNOWN: dict[str, Compiled] = {}
"""Examples are compiled once: nothing in them changes."""


@pytest.fixture(params=["rag-reranker", "beam-search", "oversubscribed"])
def compiled(tmp_path: Path, scepsy: Scepsy, request: pytest.FixtureRequest) -> Compiled:
    if request.param in _KNOWN:
        return _KNOWN[request.param]
    ran = scepsy("init", tmp_path / "demo", "--example", request.param)
    assert ran.code == 0, ran.err
    workspace, _ = open_project(tmp_path / "demo")
    cluster = next(iter(workspace.clusters))
    _KNOWN[request.param] = workspace, collect_inputs(workspace, cluster), compile_plan(workspace, cluster).plan
    return _KNOWN[request.param]


def every(plan: Plan, factor: float) -> dict[str, float]:
    return {llm.name: factor for llm in plan.spec.llms}


def test_as_planned_the_cost_is_what_the_plan_predicts_and_the_gain_is_nothing(compiled: Compiled) -> None:
    _, inputs, plan = compiled
    for outlook in (cost_of(inputs, plan, Change()), gain_of(inputs)):
        figures = {own.workflow: own for own in outlook.workflows}
        for workflow in plan.spec.workflows:
            own = figures[workflow.name]
            assert own.rate == workflow.target.rate
            assert own.latency == pytest.approx(workflow.predicted.latency.mean, rel=1e-3)
            assert own.capacity == pytest.approx(workflow.predicted.capacity, rel=1e-3)


def test_more_load_costs_latency_not_capacity(compiled: Compiled) -> None:
    _, inputs, plan = compiled
    before, after = (cost_of(inputs, plan, Change(calls=every(plan, factor))) for factor in (1.0, 1.05))
    for old, new in zip(before.workflows, after.workflows, strict=True):
        assert new.rate == pytest.approx(1.05 * old.rate)
        assert new.latency is None or (old.latency is not None and new.latency >= old.latency)
    if len(before.workflows) == 1:
        assert after.workflows[0].capacity == pytest.approx(before.workflows[0].capacity, rel=1e-6)


def test_ten_times_the_load_is_said_to_be_too_much(compiled: Compiled) -> None:
    workspace, inputs, plan = compiled
    cost = cost_of(inputs, plan, Change(calls=every(plan, 10)))
    assert [own.latency for own in cost.workflows] == [None] * len(cost.workflows)
    assert "beyond saturation" in cost.note
    files = observed_files(workspace, inputs, Change(calls=every(plan, 1000)), Missing(), 0.0)
    gain = gain_of(collect_inputs(with_observed(workspace, files), inputs.cluster.metadata.name))
    assert gain.workflows == ()
    assert gain.note.startswith("no allocation carries it")


def test_slower_engines_cost_latency_and_capacity(compiled: Compiled) -> None:
    _, inputs, plan = compiled
    before = cost_of(inputs, plan, Change())
    after = cost_of(inputs, plan, Change(seconds=every(plan, 1.02)))
    for old, new in zip(before.workflows, after.workflows, strict=True):
        assert new.capacity < old.capacity
        assert new.latency is None or new.latency > old.latency  # type: ignore[operator]


def test_an_llm_without_an_instance_stops_its_workflows(compiled: Compiled) -> None:
    _, inputs, plan = compiled
    llm = plan.spec.llms[0]
    cost = cost_of(inputs, plan, Change(replicas={llm.name: 0}))
    stopped = {own.workflow for own in cost.workflows if own.latency is None and own.capacity == 0}
    assert stopped == set(llm.workflows)
    assert f"{llm.name}: no instance of it is left" in cost.note


def test_latency_rises_with_the_load_until_there_is_none(compiled: Compiled) -> None:
    _, inputs, plan = compiled
    seconds = call_seconds(inputs, plan.spec.llms[0], [0.1, 0.5, 1.0, 50.0], Change())
    assert not isinstance(seconds, str)
    assert seconds[0] <= seconds[1] <= seconds[2] < seconds[3] == float("inf")


def test_findings_of_a_cluster_say_what_they_cost(compiled: Compiled) -> None:
    workspace, inputs, plan = compiled
    instance = plan.spec.instances[0]
    gone = Finding("cluster", "gpu-sick", "critical", instance.gpus[0], "a GPU is sick", instances=(instance.name,))
    idle = Finding("cluster", "kubernetes-version", "info", "kubernetes", "newer")
    world = World(None, lambda: 1.8e9, readers={"cluster": lambda plan, at: Report((idle, gone))})
    seen = look(workspace, inputs, plan, world, Settings(1e-4))
    first, second = (f for f in seen.report.findings if f.area == "cluster")
    assert (first.kind, second.kind) == ("gpu-sick", "kubernetes-version")
    assert first.cost is not None
    assert first.gain is not None
    assert second.cost is None
    document = result_of(plan, seen, Settings(1e-4))
    assert document.at == "2027-01-15T08:00:00Z"
    assert document.findings[0].cost is not None


def test_a_cluster_that_cannot_be_asked_is_told_and_is_not_no_drift(compiled: Compiled) -> None:
    workspace, inputs, plan = compiled

    def refusing(plan: Plan, at: float) -> Report:
        raise ScepsyError("the cluster is out of reach")

    world = World(None, lambda: 1.8e9, readers={"cluster": refusing, "objects": refusing})
    seen = look(workspace, inputs, plan, world, Settings(1e-4))
    assert [error.message for error in seen.failed] == ["the cluster is out of reach"] * 2
    unknown = {j.area for j in seen.report.judged if j.reason == "the cluster is out of reach"}
    assert unknown == {"cluster", "objects"}


def test_the_worst_comes_first() -> None:
    def finding(area: str, severity: str, subject: str) -> Finding:
        return Finding(area, "kind", severity, subject, "")  # type: ignore[arg-type]

    given = [finding("profiles", "info", "a"), finding("objects", "warning", "b"), finding("cluster", "critical", "c")]
    given += [finding("traffic", "warning", "d"), finding("traffic", "warning", "b")]
    assert [(f.area, f.subject) for f in ordered(given)] == [
        ("cluster", "c"),
        ("traffic", "b"),
        ("traffic", "d"),
        ("objects", "b"),
        ("profiles", "a"),
    ]
