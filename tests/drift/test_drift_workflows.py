"""Executions and calls per execution, told apart: simulated days of two workflows, judged against a compiled example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Scepsy

from scepsy.compilation import Inputs, collect_inputs, compile_plan
from scepsy.documents import Plan
from scepsy.drift import collector
from scepsy.drift.call_changes import Change
from scepsy.drift.change_detection import DAY, SLOT
from scepsy.drift.collector import Settings
from scepsy.drift.counters import Slots
from scepsy.drift.double_counting import dispersion_of, most_often
from scepsy.drift.impact import ALIKE, SAME_PATH, cost_of, fewest_note
from scepsy.drift.llm_traffic import check_llm_traffic
from scepsy.drift.series import Callers, Counted, Traffic
from scepsy.drift.workflow_traffic import check_workflows, notes_of
from scepsy.manifests.gateway import PARTS
from scepsy.repository.project import open_project

Compiled = tuple[Inputs, Plan]
_KNOWN: list[Compiled] = []
END = 1.8e9
NAMES = ("beam-search", "rag-reranker")


@pytest.fixture
def both(tmp_path: Path, scepsy: Scepsy) -> Compiled:
    """Two workflows that share an LLM, compiled once."""
    if not _KNOWN:
        ran = scepsy("init", tmp_path / "demo", "--example", "both")
        assert ran.code == 0, ran.err
        workspace, _ = open_project(tmp_path / "demo")
        cluster = next(iter(workspace.clusters))
        _KNOWN.append((collect_inputs(workspace, cluster), compile_plan(workspace, cluster).plan))
    return _KNOWN[0]


@dataclass
class Day:
    """A day of traffic, as multiples of what is planned; (T,) or one number.

    Attributes:
        executions: by workflow, of executions per second.
        calls: by workflow and LLM, of calls per execution.
        unnamed: by LLM, calls per second that name nothing ÷ planned calls per second.
        past: by LLM, calls past the gateway ÷ planned calls per second.
        pods: gateway pods.
        again: part of the executions that every pod counts.
        lasts: minutes over which the calls of an execution are spread.
    """

    executions: Mapping[str, float | np.ndarray] = field(default_factory=dict)
    calls: Mapping[tuple[str, str], float | np.ndarray] = field(default_factory=dict)
    unnamed: Mapping[str, float | np.ndarray] = field(default_factory=dict)
    past: Mapping[str, float] = field(default_factory=dict)
    pods: int = 1
    again: float | np.ndarray = 0.0
    lasts: int = 1

    def seen(self, inputs: Inputs, plan: Plan, seed: int = 3) -> tuple[dict[str, Traffic], Callers]:
        """Return what Prometheus would know of it."""
        rng = np.random.default_rng(seed)
        workflows = {}
        calls: dict[str, np.ndarray] = {llm.name: np.zeros(DAY) for llm in plan.spec.llms}
        for name in inputs.workflows:
            rate = inputs.workflows[name].spec.target.per_second * np.broadcast_to(self.executions.get(name, 1.0), DAY)
            begun = rng.poisson(rate * SLOT).astype(float)
            named = {}
            for llm, own in inputs.planned[name].llms.items():
                each = own.calls * np.broadcast_to(self.calls.get((name, llm), 1.0), DAY)
                made = np.convolve(begun, np.full(self.lasts, 1 / self.lasts))[:DAY]
                named[llm] = slots(rng.poisson(made * each))
                calls[llm] += named[llm].value
            parts = np.stack([rng.multinomial(int(n), np.full(PARTS, 1 / PARTS)) for n in begun], axis=1)
            parts = parts + (self.pods - 1) * rng.binomial(parts, np.broadcast_to(self.again, DAY))
            pods = np.full(DAY, float(self.pods))
            workflows[name] = Counted(slots(parts.sum(axis=0)), parts.astype(float), named, pods, 60)
        traffic = {}
        for llm in plan.spec.llms:
            more = llm.predicted.load * SLOT * np.broadcast_to(self.unnamed.get(llm.name, 0.0), DAY)
            calls[llm.name] = calls[llm.name] + rng.poisson(more)
            aside = rng.poisson(llm.predicted.load * SLOT * self.past.get(llm.name, 0.0), DAY)
            done, arrived = slots(calls[llm.name] + aside), slots(calls[llm.name])
            traffic[llm.name] = Traffic(done, None, None, None, None, arrived, None, llm.replicas)
        return traffic, Callers(workflows, {llm: slots(own) for llm, own in calls.items()})


def slots(value: np.ndarray) -> Slots:
    return Slots(END, SLOT, value.astype(float), np.full(DAY, SLOT))


def since(factor: float, minutes: int) -> np.ndarray:
    """As planned, and so many times as much in the last minutes."""
    shape = np.ones(DAY)
    shape[-minutes:] = factor
    return shape


@dataclass
class DayResult:
    """What was found of a day.

    Attributes:
        kinds: of all findings, by subject.
        texts: what they say, by subject.
        reasons: why something was not judged, by subject and what.
        notes: what figures do not say.
        executions: Change.executions.
        per_execution: Change.per_execution.
        calls: Change.calls.
    """

    kinds: dict[str, str]
    texts: dict[str, str]
    reasons: dict[tuple[str, str], str]
    notes: tuple[str, ...]
    executions: Mapping[str, float]
    per_execution: Mapping[tuple[str, str], float]
    calls: Mapping[str, float]


def checked(both: Compiled, day: Day, callers: Callers | None = None, low_load_after: int | None = DAY) -> DayResult:
    inputs, plan = both
    settings = Settings(1e-4, low_load_after)
    traffic, counted = day.seen(inputs, plan)
    first = check_workflows(inputs, plan, traffic, counted if callers is None else callers, END, settings)
    second = check_llm_traffic(inputs, plan, traffic, END, settings, first.change)
    report, change = first.report + second.report, second.change
    assert len({f.subject for f in report.findings}) == len(report.findings)
    return DayResult(
        {f.subject: f.kind for f in report.findings},
        {f.subject: f.what for f in report.findings},
        {(j.subject, j.what): j.reason for j in report.checks if j.reason and not j.what.endswith("tokens")},
        notes_of(report.checks),
        change.executions,
        change.per_execution,
        change.calls,
    )


def test_the_example_is_what_the_days_are_made_for(both: Compiled) -> None:
    inputs, plan = both
    assert tuple(sorted(inputs.workflows)) == NAMES
    assert {llm.name: sorted(llm.workflows) for llm in plan.spec.llms} == {
        "generator": ["beam-search", "rag-reranker"],
        "reranker": ["rag-reranker"],
        "verifier": ["beam-search"],
    }
    assert collector.tests_of(plan) == 10 * 3 + 2 * 2 + 2 * 4


def test_a_day_as_planned_is_no_drift_and_everything_is_judged(both: Compiled) -> None:
    found = checked(both, Day())
    assert (found.kinds, found.reasons, found.notes) == ({}, {}, ())


def test_twice_the_executions_and_twice_the_calls_per_execution_are_the_same_load_and_not_the_same_drift(
    both: Compiled,
) -> None:
    twice = since(2.0, 60)
    executions = checked(both, Day(executions={"rag-reranker": twice}))
    calls = checked(both, Day(calls={("rag-reranker", llm): twice for llm in ("generator", "reranker")}))
    assert executions.kinds == {"rag-reranker": "executions-above"}
    assert calls.kinds == {"rag-reranker/generator": "calls-above", "rag-reranker/reranker": "calls-above"}
    assert executions.executions == {"rag-reranker": pytest.approx(2, rel=0.05)}
    assert (executions.per_execution, executions.calls) == ({}, {})
    assert calls.per_execution == {
        ("rag-reranker", "generator"): pytest.approx(2, rel=0.05),
        ("rag-reranker", "reranker"): pytest.approx(2, rel=0.05),
    }
    assert (calls.executions, calls.calls) == ({}, {})


def test_the_texts_say_what_there_is_instead_of_what(both: Compiled) -> None:
    inputs, _ = both
    target = inputs.workflows["rag-reranker"].spec.target.per_second
    found = checked(both, Day(executions={"rag-reranker": since(1.5, 60)}))
    assert f"/s executions instead of the planned {target:g}/s (+" in found.texts["rag-reranker"]
    found = checked(both, Day(calls={("rag-reranker", "reranker"): since(1.5, 60)}))
    planned = inputs.planned["rag-reranker"].llms["reranker"].calls
    assert f"calls to reranker per execution instead of {planned:g} (+" in found.texts["rag-reranker/reranker"]


def test_half_of_either_over_a_day_is_told_apart_too(both: Compiled) -> None:
    executions = checked(both, Day(executions=dict.fromkeys(NAMES, 0.5)))
    assert executions.kinds == dict.fromkeys(NAMES, "executions-below")
    calls = checked(both, Day(calls={("rag-reranker", "reranker"): 0.5}))
    assert calls.kinds == {"rag-reranker/reranker": "calls-below"}


def test_more_executions_that_call_less_leave_the_load_and_are_seen(both: Compiled) -> None:
    calls = {("rag-reranker", llm): since(0.5, 90) for llm in ("generator", "reranker")}
    found = checked(both, Day(executions={"rag-reranker": since(2.0, 90)}, calls=calls))
    assert found.kinds == {"rag-reranker": "executions-above"}
    # A lack is a finding after a day only, but the cost goes by what is seen.
    assert found.per_execution["rag-reranker", "reranker"] == pytest.approx(0.5, rel=0.05)
    inputs, plan = both
    seen = Change(executions=found.executions, per_execution=found.per_execution)
    for own, planned in zip(
        cost_of(inputs, plan, seen).workflows, cost_of(inputs, plan, Change()).workflows, strict=True
    ):
        assert own.latency == pytest.approx(planned.latency, rel=0.1)


def test_load_that_small_shifts_add_up_to_is_still_found(both: Compiled) -> None:
    more = since(1.13, 600)
    found = checked(both, Day(executions={"rag-reranker": more}, calls={("rag-reranker", "reranker"): more}))
    assert found.kinds == {"reranker": "load-above"}
    assert found.calls == {"reranker": pytest.approx(1.13**2, rel=0.05)}


def test_load_beyond_what_workflows_explain_is_found_beside_them(both: Compiled) -> None:
    def found(beyond: float) -> DayResult:
        calls = {("rag-reranker", "reranker"): since(beyond, 300)}
        return checked(both, Day(executions={"rag-reranker": since(1.5, 300)}, calls=calls))

    assert found(1.08).kinds == {"rag-reranker": "executions-above"}
    beyond = found(1.3)
    assert beyond.kinds == {"rag-reranker": "executions-above", "rag-reranker/reranker": "calls-above"}
    # Seen at the LLM before it is seen per execution, as where callers are not known.
    inputs, plan = both
    traffic, _ = Day(executions={"rag-reranker": since(1.95, 300)}).seen(inputs, plan)
    seen = Change(executions={"rag-reranker": 1.5})
    of_llms = check_llm_traffic(inputs, plan, traffic, END, Settings(1e-4), seen)
    [reranker] = [f for f in of_llms.report.findings if f.subject == "reranker"]
    assert reranker.what.endswith("; findings about workflows explain +50% of it")
    assert of_llms.change.calls["reranker"] == pytest.approx(1.3, rel=0.05)
    assert of_llms.change.executions == {"rag-reranker": 1.5}


def lasting(plan: Plan, latency: str) -> Plan:
    """Return a plan whose executions are predicted to last so long."""
    whole = plan.model_dump(by_alias=True)
    for workflow in whole["spec"]["workflows"]:
        workflow["predicted"]["latency"]["mean"] = latency
    return Plan.model_validate(whole)


@pytest.mark.parametrize("minutes", [5, 10, 15, 20, 30, 60])
def test_the_sudden_end_of_executions_that_are_slower_than_predicted_is_no_finding(
    both: Compiled, minutes: int
) -> None:
    inputs, plan = both
    found = checked(
        (inputs, lasting(plan, "10min")), Day(executions=dict.fromkeys(NAMES, since(0.1, minutes)), lasts=20)
    )
    assert found.kinds == {}


def test_twice_the_calls_of_executions_that_last_for_minutes_are_found(both: Compiled) -> None:
    inputs, plan = both
    day = Day(calls={("rag-reranker", "reranker"): since(2.0, 60)}, lasts=20)
    assert checked((inputs, lasting(plan, "10min")), day).kinds == {"rag-reranker/reranker": "calls-above"}


@pytest.mark.parametrize("share", [0.02, 0.03])
def test_few_calls_without_a_name_are_borne(both: Compiled, share: float) -> None:
    found = checked(both, Day(executions={"rag-reranker": since(2.0, 60)}, unnamed={"reranker": share}))
    assert found.kinds == {"rag-reranker": "executions-above"}


def test_calls_without_a_name_leave_the_workflow_unjudged_and_the_llm_judged(both: Compiled) -> None:
    found = checked(both, Day(executions={"rag-reranker": since(2.0, 60)}, unnamed={"reranker": 0.3}))
    assert found.kinds["reranker"] == "load-above"
    assert "rag-reranker" not in found.kinds
    reason = found.reasons["rag-reranker", "executions"]
    assert reason == found.reasons["rag-reranker", "calls"]
    assert reason.startswith("13% of the calls to reranker name no workflow that calls it, or no execution")
    assert ("beam-search", "executions") not in found.reasons
    assert "not known for rag-reranker: the gateway does not count" in found.notes[0]


def test_without_any_counts_only_the_load_is_judged_and_that_is_said(both: Compiled) -> None:
    found = checked(both, Day(executions=dict.fromkeys(NAMES, since(2.0, 60))), Callers({}, {}))
    assert found.kinds == dict.fromkeys(("generator", "reranker", "verifier"), "load-above")
    assert "is the gateway's /metrics/workflows scraped?" in found.reasons["rag-reranker", "executions"]
    assert "not known for beam-search, rag-reranker: the gateway" in found.notes[0]


def test_clients_that_name_themselves_since_some_hours_are_judged_by_those(both: Compiled) -> None:
    inputs, plan = both
    _, whole = Day(executions={"rag-reranker": since(2.0, 60)}).seen(inputs, plan)
    late = np.where(np.arange(DAY) < DAY - 300, 0.0, 1.0)
    callers = Callers(
        {
            name: replace(
                own,
                executions=slots(own.executions.value * late),
                parts=own.parts * late,
                calls={llm: slots(calls.value * late) for llm, calls in own.calls.items()},
            )
            for name, own in whole.workflows.items()
        },
        whole.calls,
    )
    found = checked(both, Day(executions={"rag-reranker": since(2.0, 60)}), callers)
    assert found.kinds == {"rag-reranker": "executions-above"}
    assert found.reasons["rag-reranker", "executions, too little"] == "1440 minutes must be observed, 300 of them were"


def test_calls_past_the_gateway_are_noticed(both: Compiled) -> None:
    found = checked(both, Day(executions=dict.fromkeys(NAMES, 0.5), past={"reranker": 0.5}))
    assert "rag-reranker" not in found.kinds
    reason = "50% of the calls to reranker are not among those that the gateway counts"
    assert found.reasons["rag-reranker", "executions"] == reason


def test_what_is_nobodys_is_no_lack_of_a_small_workflow(both: Compiled) -> None:
    """Two calls of a hundred name nothing; they may be those that the small workflow lacks."""
    inputs, _ = both
    own = {
        name: inputs.workflows[name].spec.target.per_second * inputs.planned[name].llms["generator"].calls
        for name in NAMES
    }
    small = min(own, key=lambda name: own[name])
    found = checked(both, Day(executions={small: 0.05}, unnamed={"generator": 0.02}))
    assert small not in found.kinds
    assert "may be among those that name no workflow" in found.reasons[small, "executions, too little"]


# ---- several pods


def test_one_count_by_several_pods_is_judged(both: Compiled) -> None:
    found = checked(both, Day(executions={"rag-reranker": since(1.5, 60)}, pods=2))
    assert found.kinds == {"rag-reranker": "executions-above"}


def test_executions_that_every_pod_counts_are_not_judged(both: Compiled) -> None:
    found = checked(both, Day(pods=2, again=1.0))
    assert found.kinds == {}
    assert set(found.reasons) >= {(name, what) for name in NAMES for what in ("executions", "calls")}
    assert "several gateway pods" in found.reasons["rag-reranker", "executions"]


@pytest.mark.parametrize("minutes", [12, 15, 20, 30, 60, 120, 300, 900])
def test_executions_that_begin_to_be_counted_twice_raise_no_finding(both: Compiled, minutes: int) -> None:
    for again in (0.3, 1.0):
        day = Day(pods=2, again=np.where(np.arange(DAY) >= DAY - minutes, again, 0.0))
        found = checked(both, day, low_load_after=60)
        assert found.kinds == {}, (again, found.texts)


def test_parts_tell_how_often_executions_are_counted() -> None:
    rng = np.random.default_rng(2)
    bursts = rng.poisson(np.where(np.arange(DAY) % 60 < 5, 900, 30))
    once = np.stack([rng.multinomial(int(n), np.full(PARTS, 1 / PARTS)) for n in bursts], axis=1).astype(float)
    low, high = dispersion_of(once, DAY, 60)
    assert low < 1 < high < 1.25
    assert most_often(high, 2) < 1.15
    for part in (0.2, 0.5, 1.0):
        low, high = dispersion_of(once + rng.binomial(once.astype(int), part), DAY, 60)
        assert low < (1 + 3 * part) / (1 + part) < high
        assert 1 + part <= most_often(high, 2) <= 2
    assert most_often(4.0, 3) == 3
    assert dispersion_of(np.zeros((PARTS, DAY)), DAY, 60) == (0.0, float("inf"))


# ---- what it costs


def test_cost_and_gain_go_by_executions_and_by_calls_per_execution(both: Compiled) -> None:
    inputs, plan = both
    target = inputs.workflows["rag-reranker"].spec.target.per_second
    calls = {("rag-reranker", llm): 1.1 for llm in inputs.planned["rag-reranker"].llms}
    more, longer = Change(executions={"rag-reranker": 1.1}), Change(per_execution=calls)
    before, after, each = (
        {own.workflow: own for own in cost_of(inputs, plan, change).workflows} for change in (Change(), more, longer)
    )
    assert after["rag-reranker"].rate == pytest.approx(1.1 * target)
    assert each["rag-reranker"].rate == target
    assert after["beam-search"].rate == before["beam-search"].rate
    # The same load: the same latencies; but as many executions fit as before, or fewer.
    assert after["rag-reranker"].latency == pytest.approx(each["rag-reranker"].latency)
    assert after["rag-reranker"].capacity == pytest.approx(before["rag-reranker"].capacity, rel=1e-6)
    assert each["rag-reranker"].capacity == pytest.approx(before["rag-reranker"].capacity / 1.1, rel=1e-6)
    notes = [cost_of(inputs, plan, change).note for change in (more, longer)]
    assert ALIKE not in notes[0] + notes[1]
    assert (SAME_PATH in notes[0], SAME_PATH in notes[1]) == (False, True)
    assert "the observed load fits on" in fewest_note(inputs, Change(executions=dict.fromkeys(NAMES, 0.5)))
    assert fewest_note(inputs, Change(executions={"rag-reranker": 0.5, "beam-search": 1.2})) == ""
