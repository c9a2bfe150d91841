"""What drift costs, and what compiling again would give."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Scepsy

from scepsy.compilation import Inputs, collect_inputs, compile_plan
from scepsy.documents import Plan, Workspace
from scepsy.documents.drift_result import FindingKind
from scepsy.documents.workspace import with_observed
from scepsy.drift.call_changes import Change
from scepsy.drift.collector import Settings
from scepsy.drift.comparison import Sources, compare_with_plan
from scepsy.drift.finding import Finding, Report, ordered
from scepsy.drift.impact import call_seconds, cost_of, gain_of
from scepsy.drift.lost_hardware import Missing
from scepsy.drift.observed_documents import observed_files
from scepsy.drift.result_document import result_of
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
    for impact in (cost_of(inputs, plan, Change()), gain_of(inputs)):
        predictions = {prediction.workflow: prediction for prediction in impact.workflows}
        for workflow in plan.spec.workflows:
            prediction = predictions[workflow.name]
            assert prediction.rate == workflow.target.rate
            assert prediction.latency == pytest.approx(workflow.predicted.latency.mean, rel=1e-3)
            assert prediction.capacity == pytest.approx(workflow.predicted.capacity, rel=1e-3)


def test_more_load_costs_latency_not_capacity(compiled: Compiled) -> None:
    _, inputs, plan = compiled
    before, after = (cost_of(inputs, plan, Change(calls=every(plan, factor))) for factor in (1.0, 1.05))
    for old, new in zip(before.workflows, after.workflows, strict=True):
        assert new.rate == pytest.approx(1.05 * old.rate)
        assert new.latency is None or (old.latency is not None and new.latency >= old.latency)
    if len(before.workflows) == 1:
        assert after.workflows[0].capacity == pytest.approx(before.workflows[0].capacity, rel=1e-6)


def test_ten_times_the_load_is_reported_as_too_much(compiled: Compiled) -> None:
    workspace, inputs, plan = compiled
    cost = cost_of(inputs, plan, Change(calls=every(plan, 10)))
    assert [workflow.latency for workflow in cost.workflows] == [None] * len(cost.workflows)
    assert "is saturated: its queue grows without bound" in cost.note
    files = observed_files(workspace, inputs, Change(calls=every(plan, 1000)), Missing(), 0.0)
    gain = gain_of(collect_inputs(with_observed(workspace, files), inputs.cluster.metadata.name))
    assert gain.workflows == ()
    assert gain.note.startswith("no allocation can serve it")


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
    stopped = {w.workflow for w in cost.workflows if w.latency is None and w.capacity == 0}
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
    gone = Finding(FindingKind.GPU_SICK, "critical", instance.gpus[0], "a GPU is sick", instances=(instance.name,))
    idle = Finding(FindingKind.KUBERNETES_VERSION, "info", "kubernetes", "newer")
    sources = Sources(None, lambda: 1.8e9, areas={"cluster": lambda plan, at: Report((idle, gone))})
    comparison = compare_with_plan(workspace, inputs, plan, sources, Settings(1e-4))
    first, second = (f for f in comparison.report.findings if f.area == "cluster")
    assert (first.kind, second.kind) == ("gpu-sick", "kubernetes-version")
    assert first.cost is not None
    assert first.gain is not None
    assert second.cost is None
    document = result_of(plan, comparison, Settings(1e-4))
    assert document.at == "2027-01-15T08:00:00Z"
    assert document.findings[0].cost is not None


def test_an_unreachable_cluster_is_reported_and_is_not_no_drift(compiled: Compiled) -> None:
    workspace, inputs, plan = compiled

    def refusing(plan: Plan, at: float) -> Report:
        raise ScepsyError("the cluster is unreachable")

    sources = Sources(None, lambda: 1.8e9, areas={"cluster": refusing, "objects": refusing})
    comparison = compare_with_plan(workspace, inputs, plan, sources, Settings(1e-4))
    assert [error.message for error in comparison.failed] == ["the cluster is unreachable"] * 2
    unknown = {check.area for check in comparison.report.checks if check.reason == "the cluster is unreachable"}
    assert unknown == {"cluster", "objects"}


def test_the_worst_comes_first() -> None:
    given = [
        Finding(FindingKind.PROFILE_OLD, "info", "a", ""),
        Finding(FindingKind.POD_PENDING, "warning", "b", ""),
        Finding(FindingKind.NODE_GONE, "critical", "c", ""),
        Finding(FindingKind.LOAD_ABOVE, "warning", "d", ""),
        Finding(FindingKind.LOAD_ABOVE, "warning", "b", ""),
    ]
    assert [(f.area, f.subject) for f in ordered(given)] == [
        ("cluster", "c"),
        ("traffic", "b"),
        ("traffic", "d"),
        ("objects", "b"),
        ("profiles", "a"),
    ]
