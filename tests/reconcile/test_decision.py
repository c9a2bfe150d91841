"""Whether to recompile, and which observed values a recompile plans with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.compilation import Inputs, collect_inputs
from scepsy.documents import Workspace, load_workspace
from scepsy.documents.drift_result import FindingKind
from scepsy.documents.project import DriftSettings
from scepsy.documents.workspace import with_observed
from scepsy.drift.call_changes import Change
from scepsy.drift.comparison import Comparison
from scepsy.drift.finding import Finding, Impact, Report, WorkflowPrediction
from scepsy.drift.lost_hardware import Missing
from scepsy.drift.observed_documents import observed_files, rates_of
from scepsy.reconcile.decision import decide, savings
from scepsy.repository.new_project import create

LOAD = Finding(FindingKind.LOAD_ABOVE, "warning", "generator", "60 % more calls")
LOST = Finding(FindingKind.NODE_GONE, "critical", "gpu-b", "node gpu-b is gone", instances=("generator-1",))
IDLE = Finding(FindingKind.NODE_GONE, "warning", "gpu-c", "node gpu-c is gone")
BACK = Finding(FindingKind.NODE_BACK, "info", "gpu-b", "node gpu-b is back")
ENGINE = Finding(FindingKind.ENGINE_CHANGED, "warning", "engine", "another image")
CLAIM = Finding(FindingKind.CLAIM_UNALLOCATED, "critical", "generator-0", "has no GPU")


def impact(latency: float | None, note: str = "") -> Impact:
    return Impact((WorkflowPrediction("rag", 12.0, latency, 20.0),), 4.0, note)


def compared(*findings: Finding, now: float | None = 2.0, then: float | None = 1.0) -> Comparison:
    return Comparison(10_000.0, Report(findings), (), Change(), cost=impact(now), gain=impact(then), news=True)


NONE = Impact(note="no allocation can serve it: 2 GPUs are missing")


@pytest.mark.parametrize(
    ("comparison", "changed", "compiles", "why"),
    [
        (compared(), None, False, "no finding that a recompile would fix"),
        (compared(CLAIM), None, False, "no finding that a recompile would fix"),
        (compared(ENGINE), None, False, "documents changed since the plan was compiled: scepsy compile --commit"),
        (compared(LOAD), None, True, "it saves 50.0% of the predicted latency"),
        (compared(LOAD, then=1.9), None, False, "it would save 5.0% of the predicted latency; spec.drift.minimumGain is 10%"),
        (compared(LOAD, then=2.2), None, False, "it would save 0.0%"),
        (compared(LOAD), 9_000.0, False, "the plan changed 17 min ago; spec.drift.coolDown is 60 min"),
        (compared(LOAD), 6_400.0, True, "it saves"),
        (compared(LOAD), 10_500.0, False, "the plan changed 0 min ago"),
        (compared(LOAD, now=None), 9_999.0, True, "rag would no longer be saturated"),
        (compared(LOAD, now=None, then=None), 1.0, False, "it would save 0.0%"),
        (replace(compared(LOAD), news=False), None, False, "the plan already covers it"),
        (replace(compared(LOAD), news=False, edited=True), None, False, "the documents already cover it, but are not compiled: scepsy compile --commit"),
        (compared(LOST, then=2.5), 9_999.0, True, "generator-1 lost their GPUs"),
        (compared(replace(LOST, instances=tuple("abcdef"))), None, True, "a, b, c, d and 2 more lost their GPUs"),
        (compared(IDLE), None, False, "no finding that a recompile would fix"),
        (compared(BACK), None, True, "gpu-b can be used again"),
        (compared(BACK, then=2.0), 6_400.0, True, "gpu-b can be used again"),
        (compared(BACK), 9_000.0, False, "the plan changed 17 min ago; spec.drift.coolDown is 60 min"),
        (compared(*(replace(BACK, subject=f"gpu-{i}") for i in range(6))), None, True,
         "gpu-0, gpu-1, gpu-2, gpu-3 and 2 more can be used again"),
        (replace(compared(BACK), gain=NONE), None, False, "no allocation can serve it: 2 GPUs are missing"),
        (replace(compared(LOAD), gain=NONE), None, False, "no allocation can serve it: 2 GPUs are missing"),
        (replace(compared(LOST), gain=NONE), None, False, "no allocation can serve it: 2 GPUs are missing"),
        (replace(compared(LOAD), cost=None, gain=None), None, False, "the documents do not compile: see scepsy compile --check"),
    ],
    ids=[
        "nothing", "an object", "documents", "enough", "too little", "worse", "cooling down", "cooled down", "a clock ahead",
        "an outage", "an outage without remedy", "no news", "no news, but edited", "lost hardware", "much lost hardware",
        "hardware without instances", "hardware back",
        "hardware back that saves nothing", "hardware back, cooling down", "much hardware back",
        "hardware back that is not enough", "more than there is", "lost too much", "documents that do not compile",
    ],
)  # fmt: skip
def test_a_recompile_must_save_enough_or_end_an_outage(
    comparison: Comparison, changed: float | None, compiles: bool, why: str
) -> None:
    decision = decide(comparison, {"rag": 1.0}, DriftSettings(), changed)
    assert (decision.compile, decision.why[: len(why)]) == (compiles, why)


def test_savings_are_weighed_by_priority() -> None:
    now = Impact((WorkflowPrediction("a", 1, 2.0, 9), WorkflowPrediction("b", 1, 4.0, 9)))
    then = Impact((WorkflowPrediction("a", 1, 1.0, 9), WorkflowPrediction("b", 1, 4.0, 9)))
    assert savings(now, then, {"a": 1.0, "b": 1.0}) == pytest.approx(0.25)
    assert savings(now, then, {"a": 3.0, "b": 1.0}) == pytest.approx(0.375)
    assert savings(Impact(), then, {}) == 0.0


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Inputs]:
    """rag-reranker calls generator and reranker at 12/s; beam-search generator (21/s) and verifier (21/s) at 6/min."""
    directory = tmp_path_factory.mktemp("response") / "both"
    create(directory, "both")
    workspace = load_workspace(directory, directory)
    return workspace, collect_inputs(workspace, "two-nodes")


@pytest.mark.parametrize(
    ("totals", "rates"),
    [
        ({}, {"rag-reranker": 1.0, "beam-search": 1.0}),
        ({"reranker": 1.6, "generator": 1 + 0.6 * 12 / 33.23}, {"rag-reranker": 1.6, "beam-search": 1.0}),
        ({"verifier": 2.0, "generator": 1 + 21.23 / 33.23}, {"rag-reranker": 1.0, "beam-search": 2.0}),
        ({"generator": 1.5, "reranker": 1.5, "verifier": 1.5}, {"rag-reranker": 1.5, "beam-search": 1.5}),
    ],
    ids=["as planned", "one workflow more often", "the other one", "both"],
)
def test_totals_of_llms_tell_which_workflow_runs_more_often(
    both: tuple[Workspace, Inputs], totals: dict[str, float], rates: dict[str, float]
) -> None:
    assert rates_of(both[1], Change(calls=totals)) == pytest.approx(rates, abs=0.01)


@pytest.mark.parametrize(
    ("change", "rag", "beam"),
    [
        (Change(executions={"rag-reranker": 1.6}), ("19.2/s", {}), (None, {})),
        (
            Change(per_execution={("rag-reranker", "reranker"): 1.5}),
            (None, {"reranker": 30.0}), (None, {}),
        ),
        # The gateway knows one workflow; the other, which it does not, explains the rest.
        (
            Change(executions={"rag-reranker": 1.6}, calls={"verifier": 2.0, "generator": 61.66 / 40.43}),
            ("19.2/s", {}), (2.0, {}),
        ),
    ],
    ids=["executions", "calls per execution", "one workflow known"],
)  # fmt: skip
def test_what_the_gateway_tells_of_workflows_is_written_as_it_is(
    both: tuple[Workspace, Inputs],
    change: Change,
    rag: tuple[str | None, dict[str, float]],
    beam: tuple[float | None, dict[str, float]],
) -> None:
    workspace, inputs = both
    files = observed_files(workspace, inputs, change, Missing(), 1.8e9)
    after = with_observed(workspace, files).observed_in("two-nodes")
    seen = after["rag-reranker"].document.spec
    assert seen.rate == (float(rag[0].removesuffix("/s")) if rag[0] else None)
    assert {own.llm: own.calls for own in seen.llms if own.calls is not None} == rag[1]
    if beam[0] is None:
        assert "beam-search" not in after
    else:
        assert after["beam-search"].document.spec.rate == pytest.approx(0.1 * beam[0], rel=0.1)


def load(inputs: Inputs, llm: str) -> float:
    return sum(
        w.spec.target.per_second * inputs.planned[name].llms[llm].calls
        for name, w in inputs.workflows.items()
        if llm in inputs.planned[name].llms
    )


@given(st.fixed_dictionaries({llm: st.floats(1.0, 4.0) for llm in ("generator", "reranker", "verifier")}))
@settings(max_examples=30, deadline=None)
def test_a_compile_with_what_was_observed_plans_for_the_totals_that_were_seen(
    both: tuple[Workspace, Inputs], totals: dict[str, float]
) -> None:
    workspace, inputs = both
    files = observed_files(workspace, inputs, Change(calls=totals), Missing(), 1.8e9)
    after = collect_inputs(with_observed(workspace, files), "two-nodes")
    for llm, factor in totals.items():
        assert load(after, llm) >= 0.95 * factor * load(inputs, llm)
        assert load(after, llm) <= 1.07 * factor * load(inputs, llm) or min(totals.values()) < 1.3


def test_what_was_written_already_is_not_written_again(both: tuple[Workspace, Inputs]) -> None:
    workspace, inputs = both
    change = Change(calls={"generator": 1.5, "reranker": 1.5, "verifier": 1.5}, output={"generator": 1.4})
    missing = Missing(nodes=frozenset(("gpu-b",)))
    files = observed_files(workspace, inputs, change, missing, 1.8e9)
    assert sorted(map(str, files)) == [
        "observed/beam-search.yaml", "observed/clusters/two-nodes.yaml", "observed/rag-reranker.yaml",
    ]  # fmt: skip
    text = files[next(p for p in files if p.name == "rag-reranker.yaml")]
    assert text is not None
    assert text.decode() == (
        "# Written by scepsy drift --recompile. Remove this file to forget what it says.\n"
        "apiVersion: scepsy.dev/v1alpha1\n"
        "kind: ObservedWorkflow\n"
        "metadata:\n"
        "  name: rag-reranker\n"
        "spec:\n"
        "  cluster: two-nodes\n"
        '  at: "2027-01-15T08:00:00Z"\n'
        '  rate: "18/s"\n'
        "  llms:\n"
        "    - llm: generator\n"
        "      outputTokens: 336.0\n"
    )
    then = with_observed(workspace, files)
    again = collect_inputs(then, "two-nodes")
    assert observed_files(then, again, Change(), missing, 1.9e9) == {}
    assert {p.name: d for p, d in observed_files(then, again, Change(), Missing(), 1.9e9).items()} == {
        "two-nodes.yaml": None
    }


def after_looks(
    workspace: Workspace, inputs: Inputs, actual: dict[str, float], told: bool = False
) -> tuple[Workspace, Inputs, list[int]]:
    """Look and compile until nothing is written any more: what is 15 % off is found.

    Args:
        workspace: the project.
        inputs: what the plan in force was compiled from.
        actual: executions per second by workflow.
        told: whether the gateway tells workflows apart, or only totals per LLM are known.
    """
    written = []
    for _ in range(6):
        if told:
            planned = {name: w.spec.target.per_second for name, w in inputs.workflows.items()}
            change = Change(executions={n: r / planned[n] for n, r in actual.items() if abs(r / planned[n] - 1) > 0.15})
        else:
            seen = {llm: totals(inputs, actual, llm) / load(inputs, llm) for llm in LLMS}
            change = Change(calls={llm: factor for llm, factor in seen.items() if abs(factor - 1) > 0.15})
        files = observed_files(workspace, inputs, change, Missing(), 1.8e9)
        written.append(len(files))
        if not files:
            break
        workspace = with_observed(workspace, files)
        inputs = collect_inputs(workspace, "two-nodes")
    return workspace, inputs, written


LLMS = ("generator", "reranker", "verifier")


def totals(inputs: Inputs, actual: dict[str, float], llm: str) -> float:
    """Return the calls per second of so many executions, as the documents of people describe them."""
    stated = {"rag-reranker": {"generator": 1.0, "reranker": 20.0}, "beam-search": BEAM}
    return sum(rate * stated[name].get(llm, 0.0) for name, rate in actual.items())


BEAM: dict[str, float] = {}


@given(
    levels=st.lists(st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0)), min_size=2, max_size=4),
    told=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_traffic_that_goes_up_and_down_settles_at_what_it_needs_and_never_ratchets(
    both: tuple[Workspace, Inputs], levels: list[tuple[float, float]], told: bool
) -> None:
    workspace, inputs = both
    BEAM.update({llm: own.calls for llm, own in inputs.planned["beam-search"].llms.items()})
    targets = {"rag-reranker": 12.0, "beam-search": 0.1}
    for rag, beam in levels:
        actual = {"rag-reranker": 12.0 * rag, "beam-search": 0.1 * beam}
        workspace, inputs, written = after_looks(workspace, inputs, actual, told)
        assert written[-1] == 0, written
        for llm in LLMS:
            need = totals(inputs, actual, llm)
            assert load(inputs, llm) >= 0.84 * need
            most = {name: max(rate, targets[name]) for name, rate in actual.items()}
            assert load(inputs, llm) <= (1.2 if told else 1.5) * totals(inputs, most, llm)
