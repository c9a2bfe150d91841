"""What a finished Workflow says becomes Profiles only where it is whole, and what was asked for."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tests.profiling.jobs.argo_api import measured, node, outputs, over, retried
from tests.profiling.jobs.test_jobs_workflow import job

from scepsy.documents import Profile, emit
from scepsy.documents.compressed_text import pack, unpack
from scepsy.profiling.jobs.results import Point, Run, file_of, outcomes_of, read_run
from scepsy.profiling.jobs.workflow import workflow_of
from scepsy.profiling.planning.sweep import Shape

JOURNAL = '{"arguments":{},"date":"2026-01-31"}\n'
JOB = job(Shape(1, 10), Shape(1, 5))
WORKFLOW = workflow_of(JOB)


def run(workflow: dict[str, Any]) -> Run:
    read = read_run(workflow)
    assert read is not None
    return read


def point(workflow: dict[str, Any], name: str = "tp1-s10") -> Point:
    return next(point for point in run(workflow).points if point.name == name)


def ended(phase: str = "Succeeded", message: str = "", given: dict[str, str] | None = None, **values: Any) -> dict[str, Any]:  # fmt: skip
    """The Workflow with one pod of tp1-s10 that is over."""
    out = given if given is not None else outputs(WORKFLOW, "tp1-s10", **values)
    return over(WORKFLOW, *retried(WORKFLOW, "tp1-s10", node(WORKFLOW, "tp1-s10", phase, 0, message, outputs=out)))


# ------------------------------------------------------------------------------------------------------ while it runs


def test_a_workflow_that_nobody_looked_at_yet_waits() -> None:
    read = run(WORKFLOW)
    assert (read.name, read.base, read.attempt, read.finished) == (JOB.name, JOB.name, 1, False)
    assert read.points == (Point("tp1-s10", "waiting"), Point("tp1-s5", "waiting"))
    assert read.request.model == "Qwen/Qwen3-8B"


def test_points_wait_for_a_lock_and_for_gpus_and_run() -> None:
    lock = "Waiting for scepsy-profiling/ConfigMap/scepsy-profiling/NVIDIA-H100-80GB-HBM3 lock. Lock status: 0/1"
    nodes = [
        {**node(WORKFLOW, "tp1-s5", "Pending", message=lock), "type": "Retry"},
        *retried(WORKFLOW, "tp1-s10", node(WORKFLOW, "tp1-s10", "Running", 0)),
    ]
    read = run(over(WORKFLOW, *nodes, phase="Running"))
    assert read.points == (Point("tp1-s10", "running"), Point("tp1-s5", "waiting", lock))
    pending = node(
        WORKFLOW, "tp1-s10", "Pending", 0, "Unschedulable: 0/2 nodes are available: cannot allocate all claims"
    )
    assert point(over(WORKFLOW, *retried(WORKFLOW, "tp1-s10", pending), phase="Running")).state == "waiting"


def test_a_point_whose_attempt_failed_waits_while_argo_will_try_again() -> None:
    whole, attempt = retried(
        WORKFLOW,
        "tp1-s10",
        node(WORKFLOW, "tp1-s10", "Failed", 0, outputs=outputs(WORKFLOW, "tp1-s10", "interrupted", "SIGTERM")),
    )
    found = point(over(WORKFLOW, {**whole, "phase": "Running"}, attempt, phase="Running"))
    assert (found.state, found.reason) == ("waiting", "will be retried: SIGTERM")
    assert point(over(WORKFLOW, whole, attempt, phase="Running")).state == "failed"


# ----------------------------------------------------------------------------------------------------------- measured


def test_a_measured_point_is_a_profile_named_after_its_workflow_and_shape() -> None:
    found = point(measured(WORKFLOW))
    assert found.state == "measured"
    assert found.profile is not None
    assert found.profile.metadata.name == f"{JOB.name}-tp1-s10"
    assert found.profile.spec.series[0].points[0].concurrency == 1
    assert found.profile.spec.provenance.notes == (
        "1 of the 12 recorded calls were replayed: whole groups, chosen so that mean tokens and group sizes are those "
        "of all. Made up by a test."
    )


def test_made_up_calls_are_never_called_recorded() -> None:
    made = copy.deepcopy(WORKFLOW)
    annotations = made["metadata"]["annotations"]
    annotations["scepsy.dev/request"] = json.dumps({**json.loads(annotations["scepsy.dev/request"]), "calls": "made", "replayed": 500, "of": 500})  # fmt: skip
    notes = (
        "Closed loop of k recorded calls in flight, then groups of them at Poisson times; prompts are random tokens of "
        "the recorded lengths. Prompts begin alike as recorded, 64 tokens per prefix hash (estimated). "
        "The 95 % interval of the mean is wider than 5% at 0.5 calls/s. 3 in flight: failed."
    )
    provenance = {"tool": "x", "traceDigest": "sha256:" + "ab" * 32, "notes": notes}
    found = point(over(made, node(made, "tp1-s10", outputs=outputs(made, "tp1-s10", provenance=provenance)))).profile
    assert found is not None
    assert found.spec.provenance.notes == (
        "The replayed calls were not recorded: 500 calls were made up with the group sizes and token counts that the "
        "demand of workflow rag states, and what a prefix cache held as one beginning that all prompts have in common. "
        "Closed loop of k of them in flight, then groups of them at Poisson times; prompts are random tokens. "
        "The 95 % interval of the mean is wider than 5% at 0.5 calls/s. 3 in flight: failed."
    )


def test_a_shape_that_does_not_run_is_a_result_too() -> None:
    found = point(ended(outcome="unusable", reason="out of memory"))
    assert (found.state, found.reason) == ("unusable", "out of memory")
    assert found.profile is not None
    assert found.profile.spec.series == ()
    assert found.profile.spec.unusable[0].reason == "out of memory"


def test_nodes_that_argo_compressed_are_read() -> None:
    nodes = measured(WORKFLOW)["status"]["nodes"].values()
    assert [p.state for p in run(over(WORKFLOW, *nodes, compressed=True)).points] == ["measured", "measured"]


def test_of_several_attempts_the_last_counts() -> None:
    bad = node(
        WORKFLOW,
        "tp1-s10",
        "Failed",
        0,
        "Error (exit code 75)",
        outputs=outputs(WORKFLOW, "tp1-s10", "failed", "the server died", partial=JOURNAL),
    )
    good = node(WORKFLOW, "tp1-s10", "Succeeded", 1, outputs=outputs(WORKFLOW, "tp1-s10"))
    assert point(over(WORKFLOW, *retried(WORKFLOW, "tp1-s10", bad, good))).state == "measured"
    # The other way round, as no controller does it: still the last of the list of children.
    twice = retried(WORKFLOW, "tp1-s10", good, {**bad, "id": "z", "startedAt": "2026-01-31T09:00:00Z"})
    found = point(over(WORKFLOW, *twice))
    assert (found.state, found.reason, found.profile) == ("failed", "the server died", None)


def test_a_point_without_the_neighbours_that_were_asked_for_failed() -> None:
    busy = workflow_of(job(Shape(1, 10), Shape(1, 5), settings={"neighbours": "busy"}))
    # As an older WorkflowTemplate does, which does not know of them.
    found = point(over(busy, node(busy, "tp1-s5", outputs=outputs(busy, "tp1-s5"))), "tp1-s5")
    assert (found.state, found.profile) == ("failed", None)
    assert found.reason == "its result is not what was requested: neighbours is idle, requested was busy"
    assert point(over(busy, node(busy, "tp1-s10", outputs=outputs(busy, "tp1-s10")))).state == "measured"


def test_without_retries_the_pod_alone_is_read() -> None:
    assert point(over(WORKFLOW, node(WORKFLOW, "tp1-s10", outputs=outputs(WORKFLOW, "tp1-s10")))).state == "measured"


def test_mixed_success_keeps_what_is_good() -> None:
    read = run(measured(WORKFLOW, tp1_s5="the server died"))
    assert [(p.name, p.state, p.reason) for p in read.points] == [
        ("tp1-s10", "measured", ""),
        ("tp1-s5", "failed", "the server died"),
    ]
    assert unpack(read.points[1].partial, "journal") == '{"arguments":{}}\n'


@pytest.mark.parametrize("version", ["v3.6.19", "v4.1.2"])
def test_workflows_as_real_controllers_left_them_are_read(version: str) -> None:
    """Profiles made up by a test, all else by the workflow-controller of this version: a point that failed, one that
    does not run, one that was interrupted once; then a second attempt at what failed."""
    workflows = json.loads((Path(__file__).parent / "argo" / f"{version}.json").read_text())
    (first,), (both,) = outcomes_of(workflows[:1]), outcomes_of(workflows)
    reported = {found.name: (found.state, found.reason) for found in first.points}
    assert reported == {
        "tp1-s10": ("measured", ""),
        "tp1-s5": ("failed", "no such model"),
        "tp1-s2": ("measured", ""),
        "tp2-s10": ("unusable", "out of memory"),
    }
    assert [bool(found.partial) for found in first.points] == [False, True, False, False]
    assert both.finished
    assert both.lacking == ()
    assert [profile.metadata.name.rpartition(both.base)[2] for profile in both.profiles] == [
        "-tp1-s10",
        "-tp1-s5",
        "-tp1-s2",
        "-tp2-s10",
    ]


# ------------------------------------------------------------------------------------------------------------ failed


def good() -> dict[str, str]:
    return outputs(WORKFLOW, "tp1-s10")


def repacked(**changes: Any) -> dict[str, str]:
    return outputs(WORKFLOW, "tp1-s10", **changes)


@pytest.mark.parametrize(("given", "reason"), [
    ({**good(), "profile": good()["profile"][:400]}, "its result is damaged: the Profile is damaged"),
    ({**good(), "profile": good()["profile"][:-8]}, "its result is damaged: the Profile is damaged"),
    ({**good(), "profile": "%%%"}, "its result is damaged: the Profile is damaged"),
    ({**good(), "profile": ""}, "its result is damaged: there is no Profile"),
    ({**good(), "profile": pack("")}, "its result is damaged: 0 documents in place of one Profile"),
    ({**good(), "profile": pack("kind: Plan\napiVersion: scepsy.dev/v1alpha1\n")}, 'its result is damaged: kind is "Plan", expected "Profile"'),
    ({**good(), "profile": pack("a: [b")}, "its result is damaged"),
    ({**good(), "profile": pack(unpack(good()["profile"], "") + "---\n" + unpack(good()["profile"], ""))}, "2 documents in place of one Profile"),
    ({**good(), "profile": pack(unpack(good()["profile"], "").replace("concurrency: 4", "concurrency: 0"))}, "its result is damaged"),
    ({**good(), "outcome": '{"outcome": "meas'}, "its result is damaged: the outcome is not a JSON object"),
    ({**good(), "outcome": "[" * 200_000}, "its result is damaged: the outcome is not a JSON object"),
    ({**good(), "outcome": '{"outcome": "splendid"}'}, 'its result is damaged: "splendid" is not an outcome'),
    ({**good(), "outcome": '{"outcome": "unusable", "reason": "x"}'}, "its result is not what was requested: 0 unusable shapes and 1 series"),
    ({**outputs(WORKFLOW, "tp1-s10", "unusable", "x"), "outcome": '{"outcome": "measured"}'}, "its result is not what was requested: 0 series and 1 unusable shapes"),
    (outputs(WORKFLOW, "tp1-s5"), "share is 5, requested was 10"),
    (repacked(model="other/model"), "model is other/model, requested was Qwen/Qwen3-8B"),
    (repacked(revision="0123abc"), "revision is 0123abc, requested was none"),
    (repacked(product="NVIDIA-L4"), "product is NVIDIA-L4, requested was NVIDIA-H100-80GB-HBM3"),
    (repacked(engine={"name": "vllm", "version": "0.23.0"}), "engine version is 0.23.0, requested was 0.24.0"),
    (repacked(source="estimated"), "source is estimated, requested was measured"),
    (repacked(provenance={"tool": "x", "traceDigest": "sha256:0"}), "trace digest is sha256:0, requested was sha256:abab"),
    (repacked(provenance={"tool": "x", "traceDigest": "sha256:" + "ab" * 32, "llm": "other"}), "LLM is other, requested was generator"),
    ({"outcome": json.dumps({"outcome": "failed", "reason": "no good\x1b[31m point"})}, "no good\\x1b[31m point"),
    ({"outcome": json.dumps({"outcome": "interrupted"})}, "interrupted"),
])  # fmt: skip
def test_what_is_not_whole_or_not_asked_for_is_no_profile(given: dict[str, str], reason: str) -> None:
    found = point(ended(given=given))
    assert (found.state, found.profile) == ("failed", None)
    assert reason in found.reason


def test_the_image_that_ran_is_the_one_that_was_asked_for() -> None:
    digest = "sha256:" + "cd" * 32
    pinned = workflow_of(job(Shape(1, 10), settings={"image": f"registry.example.com/x:1@{digest}"}))
    asked = {"tool": "x", "traceDigest": "sha256:" + "ab" * 32}

    def state(**provenance: str) -> tuple[str, str]:
        out = outputs(pinned, "tp1-s10", provenance={**asked, **provenance})
        found = point(over(pinned, node(pinned, "tp1-s10", outputs=out)))
        return found.state, found.reason

    assert state(imageDigest=digest) == ("measured", "")
    assert state()[1].endswith(f"image digest is none, requested was {digest}")
    assert state(imageDigest="sha256:" + "ef" * 32)[0] == "failed"


def test_a_pod_that_was_killed_says_why_and_keeps_its_journal() -> None:
    killed = ended(
        "Failed", "OOMKilled (exit code 137)", given={"outcome": "", "profile": "", "partial": pack(JOURNAL)}
    )
    found = point(killed)
    assert (found.state, found.reason, unpack(found.partial, "")) == ("failed", "OOMKilled (exit code 137)", JOURNAL)


@pytest.mark.parametrize(("message", "reason"), [
    ("OOMKilled (exit code 137)", "it was killed (OOMKilled (exit code 137))"),
    ("Error (exit code 75)", "it was killed"),
    ("main: Error (exit code 75)", "it was killed"),
    ("", "it was killed"),
])  # fmt: skip
def test_what_argo_says_of_a_pod_is_reported_where_it_says_more(message: str, reason: str) -> None:
    killed = ended("Failed", message, given={"outcome": '{"outcome": "failed", "reason": "it was killed"}'})
    assert point(killed).reason == reason


def test_the_last_whole_journal_of_all_attempts_is_kept() -> None:
    first = node(WORKFLOW, "tp1-s10", "Failed", 0, outputs={"outcome": "", "partial": pack(JOURNAL)})
    second = node(
        WORKFLOW, "tp1-s10", "Failed", 1, "evicted", outputs={"outcome": "", "partial": pack(JOURNAL * 2)[:30]}
    )
    third = node(WORKFLOW, "tp1-s10", "Error", 2, "pod deleted")
    found = point(over(WORKFLOW, *retried(WORKFLOW, "tp1-s10", first, second, third)))
    assert (found.reason, unpack(found.partial, "")) == ("pod deleted", JOURNAL)


@pytest.mark.parametrize(("status", "reason"), [
    ({"phase": "Error", "message": "workflowtemplates.argoproj.io \"scepsy-profile\" not found"}, 'workflowtemplates.argoproj.io "scepsy-profile" not found'),
    ({"phase": "Failed", "message": "Max duration limit exceeded", "nodes": {}}, "Max duration limit exceeded"),
    ({"phase": "Failed"}, "the Workflow ended as Failed before it ran"),
    ({"phase": "Succeeded", "offloadNodeStatusVersion": "fnv:1"}, "collect through an argo-server"),
    ({"phase": "Succeeded", "compressedNodes": "H4sIAAAA"}, "the Workflow's status is damaged"),
    ({"phase": "Succeeded", "compressedNodes": pack("[" * 200_000)}, "the Workflow's status is damaged"),
    ({"phase": "Succeeded", "compressedNodes": pack("[1]")}, "the Workflow ended as Succeeded before it ran"),
    ({"phase": "Succeeded", "nodes": {"a": 3, "b": {"type": "Pod", "templateName": "measure", "inputs": {"parameters": "x"}}}}, "the Workflow ended as"),
])  # fmt: skip
def test_points_without_a_node_have_failed_once_it_is_over(status: dict[str, Any], reason: str) -> None:
    for found in run({**WORKFLOW, "status": status}).points:
        assert found.state == "failed"
        assert reason in found.reason


def test_a_workflow_that_was_stopped_leaves_running_points_failed() -> None:
    stopped = over(WORKFLOW, *retried(WORKFLOW, "tp1-s10", node(WORKFLOW, "tp1-s10", "Running", 0)), phase="Failed")
    stopped["status"]["message"] = "Stopped with strategy 'Terminate'"
    assert [(p.state, p.reason) for p in run(stopped).points] == [("failed", "Stopped with strategy 'Terminate'")] * 2


@pytest.mark.parametrize("change", [
    {"metadata": {"name": "other-workflow"}},
    {"metadata": {**WORKFLOW["metadata"], "annotations": {}}},
    {"metadata": {**WORKFLOW["metadata"], "annotations": {"scepsy.dev/request": "[]"}}},
    {"metadata": None},
    {"spec": {}},
    {"spec": {"arguments": {"parameters": [{"name": "points", "value": '[{"name": "../../x"}]'}]}}},
    {"spec": {"arguments": {"parameters": [{"name": "points", "value": '["x"]'}]}}},
    {"spec": {"arguments": {"parameters": [{"name": "points", "value": "3"}]}}},
    {"spec": {"arguments": {"parameters": [{"name": "points", "value": "[" * 200_000}]}}},
], ids=lambda change: str(change)[:60])  # fmt: skip
def test_what_is_not_ours_is_left_alone(change: dict[str, Any]) -> None:
    assert read_run({**WORKFLOW, **change}) is None


# ------------------------------------------------------------------------------------------------- several attempts


def test_attempts_complete_each_other() -> None:
    first = measured(WORKFLOW, tp1_s5="the server died")
    second = measured(workflow_of(JOB, 2, ["tp1-s5"]))
    (outcome,) = outcomes_of([second, {"metadata": {"name": "other"}}, first])
    assert (outcome.base, outcome.finished, outcome.last.attempt) == (JOB.name, True, 2)
    assert [(p.name, p.state) for p in outcome.points] == [("tp1-s10", "measured"), ("tp1-s5", "measured")]
    # Profiles are named after the first attempt, whichever measured them.
    assert [profile.metadata.name for profile in outcome.profiles] == [f"{JOB.name}-tp1-s10", f"{JOB.name}-tp1-s5"]


def test_a_later_attempt_that_runs_or_fails_takes_nothing_away() -> None:
    first = measured(WORKFLOW, tp1_s5="the server died")
    (outcome,) = outcomes_of([first, workflow_of(JOB, 2, ["tp1-s5"])])
    assert not outcome.finished
    assert [p.state for p in outcome.points] == ["measured", "waiting"]
    assert outcome.points[1].partial
    (outcome,) = outcomes_of([first, measured(workflow_of(JOB, 10), tp1_s10="later", tp1_s5="later")])
    assert [(p.state, p.reason) for p in outcome.points] == [("measured", ""), ("failed", "later")]


def test_the_file_holds_one_document_per_measured_point_and_keeps_those_of_attempts_that_are_gone() -> None:
    (outcome,) = outcomes_of([measured(workflow_of(JOB, 2, ["tp1-s5"]))])
    earlier = point(measured(WORKFLOW)).profile
    assert earlier is not None
    text = file_of(outcome, [earlier])
    assert text == emit(*(p.plain() for p in (earlier, outcome.profiles[0])))
    assert file_of(outcome, [earlier, outcome.profiles[0]]) == text
    assert all(isinstance(profile, Profile) for profile in outcome.profiles)
