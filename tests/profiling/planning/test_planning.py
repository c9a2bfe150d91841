"""What is measured, covered, ruled out and stale: documents on one side, the rows of the plan on the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scepsy.compilation import collect_inputs
from scepsy.demand.replay import calls_of
from scepsy.documents import API_VERSION, DocumentError, load_workspace
from scepsy.errors import ScepsyError
from scepsy.profiling.planning import ProfilePlan, plan_profiles

Tree = dict[str, Any]

SMALL = {
    "parameters": 1_000_000_000, "bytesPerParameter": 2, "layers": 32, "attentionHeads": 32, "kvHeads": 8,
    "headDim": 128, "contextLength": 32_768,
}  # fmt: skip


def document(kind: str, name: str, spec: Tree) -> Tree:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def role(llm: str = "agent", prompt: float = 512, output: float = 64, cached: float = 0, **spec: Any) -> Tree:
    """One LLM of a workflow, and how it is called once per execution."""
    statistics = {
        "llm": llm,
        "calls": 1,
        "inputTokens": {"mean": prompt},
        "outputTokens": {"mean": output},
        "cachedTokens": {"mean": cached},
    }
    return {"llm": {"name": llm, "model": "org/m", "tensorParallel": [1], **spec}, "statistics": statistics}


def workflow(*roles: Tree, name: str = "flow", demand: Tree | None = None) -> Tree:
    demand = demand or {"statistics": {"llms": [entry["statistics"] for entry in roles]}}
    return document(
        "Workflow", name, {"target": {"rate": "1/s"}, "llms": [entry["llm"] for entry in roles], "demand": demand}
    )


def node(name: str, product: str = "P", gpus: int = 1, memory: str = "80Gi", **spec: Any) -> Tree:
    cards = [{"uuid": f"GPU-{name}-{i}", "memory": memory} for i in range(gpus)]
    return {"name": name, "product": product, "gpus": cards, "nvlinkDomains": [list(range(gpus))], **spec}


def cluster(*nodes: Tree, sharing: str = "dra-exclusive") -> Tree:
    return document("Cluster", "lab", {"sharing": sharing, "nodes": list(nodes) or [node("a")]})


def profile(
    name: str = "p", source: str = "measured", version: str = "0.24.0", unusable: tuple[Tree, ...] = (), **spec: Any
) -> Tree:
    """One series of TP 1 on a whole GPU of product P for calls of 512/64 tokens, unless given otherwise."""
    given = {key: spec.pop(key) for key in ("tp", "share", "neighbours", "mix") if key in spec}
    point = {"concurrency": 1, "latency": "1s", "ttft": "100ms"}
    series = {"tp": 1, "share": 1.0, "mix": {"input": 512, "output": 64}, **given, "points": [point]}
    return document(
        "Profile",
        name,
        {
            "source": source,
            "model": "org/m",
            "product": "P",
            "engine": {"name": "vllm", "version": version},
            "architecture": SMALL,
            "provenance": {"tool": "test"},
            **({"unusable": list(unusable)} if unusable else {"series": [series]}),
            **spec,
        },
    )


@pytest.fixture
def planned(tmp_path: Path) -> Any:
    """Write a project and plan its measurements: workflows, cluster and profiles, in any order."""

    def plan(
        *documents: Tree, shares: list[float] | None = None, neighbours: str = "idle", **settings: Any
    ) -> ProfilePlan:
        profiling = {"profiling": {"shares": shares, "neighbours": neighbours}} if shares is not None else {}
        project = document("Project", "test", {"engine": {"version": "0.24.0"}, **profiling, **settings})
        (tmp_path / "scepsy.yaml").write_text(json.dumps(project))
        if not any(d["kind"] == "Cluster" for d in documents):
            documents = (*documents, cluster())
        for entry in documents:
            folder = tmp_path / f"{entry['kind'].lower()}s"
            folder.mkdir(exist_ok=True)
            (folder / f"{entry['metadata']['name']}.yaml").write_text(json.dumps(entry))
        return plan_profiles(load_workspace(tmp_path, tmp_path, needs_profiles=False), "lab")

    return plan


def missing(plan: ProfilePlan) -> list[tuple[str, str, int, float, str]]:
    """(LLM, product, TP, share, why)"""
    return [(s.llm, s.product, p.shape.tp, p.shape.share, p.why) for s in plan.sweeps for p in s.points]


def covered(plan: ProfilePlan) -> list[tuple[str, int, float, str]]:
    """(LLM, TP, share, profile)"""
    return [(row.llm, row.shape.tp, row.shape.share, row.profile) for row in plan.covered]


def ruled_out(plan: ProfilePlan) -> list[tuple[int, float, str]]:
    """(TP, share, reason)"""
    return [(row.shape.tp, row.shape.share, row.reason) for row in plan.ruled_out]


def stale(plan: ProfilePlan) -> dict[str, str]:
    return {row.profile: row.reason for row in plan.stale}


# ------------------------------------------------------------------------------------------------ what is missing


def test_without_any_profile_all_is_missing_and_memory_unknown(planned: Any) -> None:
    plan = planned(workflow(role()))
    assert missing(plan) == [("agent", "P", 1, 1.0, "not profiled")]
    assert plan.memory_unknown == ("org/m",)
    assert (plan.covered, plan.ruled_out, plan.stale) == ((), (), ())


def test_a_sweep_says_all_that_its_job_needs(planned: Any) -> None:
    pinned = role(prompt=900, output=70, cached=100, revision="abc", maxModelLen=4096, maxNumSeqs=32)
    (sweep,) = planned(workflow(pinned)).sweeps
    assert (sweep.model, sweep.revision, sweep.product, sweep.llm, sweep.workflow) == (
        "org/m", "abc", "P", "agent", "flow",
    )  # fmt: skip
    assert (sweep.mix.input, sweep.mix.output, sweep.mix.cached) == (900, 70, 100)
    assert (sweep.max_num_seqs, sweep.max_model_len) == (32, 4096)
    assert sweep.roles == (("flow", "agent"),)


def test_a_measured_profile_covers_its_shape_and_nothing_else(planned: Any) -> None:
    plan = planned(workflow(role(tensorParallel=[1, 2])), profile(), cluster(node("a", gpus=2)))
    assert covered(plan) == [("agent", 1, 1.0, "p")]
    assert missing(plan) == [("agent", "P", 2, 1.0, "not profiled")]
    assert plan.memory_unknown == ()


def test_an_imported_profile_covers_too(planned: Any) -> None:
    plan = planned(workflow(role()), profile(source="imported"))
    assert (covered(plan), plan.sweeps, plan.stale) == ([("agent", 1, 1.0, "p")], (), ())


def test_an_estimated_profile_never_covers(planned: Any) -> None:
    plan = planned(workflow(role()), profile(source="estimated"))
    assert missing(plan) == [("agent", "P", 1, 1.0, "only estimated")]
    assert (plan.covered, plan.stale) == ((), ())


@pytest.mark.parametrize(
    ("profiled", "called", "why", "reason"),
    [
        (
            profile(version="0.23.0"),
            role(),
            "measured with vLLM 0.23.0, the engine is 0.24.0",
            "measured with vLLM 0.23.0, the engine is 0.24.0",
        ),
        (
            profile(revision="abc"),
            role(revision="def"),
            "measured with revision abc, the workflow pins def",
            "measured with revision abc, the workflow pins def",
        ),
        (
            profile(source="imported"),
            role(revision="def"),
            "imported with no revision pinned, the workflow pins def",
            "imported with no revision pinned, the workflow pins def",
        ),
        (
            profile(),
            role(prompt=900, output=70),
            "token mix changed: calls had 512/64 tokens, now 900/70",
            "calls had 512/64 tokens, now 900/70",
        ),
        (
            profile(),
            role(cached=400),
            "token mix changed: calls had 512/64 tokens, now 512 (400 cached)/64",
            "calls had 512/64 tokens, now 512 (400 cached)/64",
        ),
    ],
    ids=["version", "revision", "no-revision", "tokens", "cached"],
)
def test_what_no_longer_holds_is_stale_and_measured_again(
    planned: Any, profiled: Tree, called: Tree, why: str, reason: str
) -> None:
    plan = planned(workflow(called), profiled)
    assert missing(plan) == [("agent", "P", 1, 1.0, why)]
    assert stale(plan) == {"p": reason}


def test_of_several_profiles_of_a_shape_the_one_that_holds_covers(planned: Any) -> None:
    plan = planned(workflow(role()), profile("old", version="0.23.0"), profile("new"), profile("far", mix={"input": 9, "output": 9}))  # fmt: skip
    assert covered(plan) == [("agent", 1, 1.0, "new")]
    assert stale(plan) == {
        "old": "measured with vLLM 0.23.0, the engine is 0.24.0",
        "far": "calls had 9/9 tokens, now 512/64",
    }


def test_profiles_of_other_products_and_of_models_that_nobody_calls_are_ignored(planned: Any) -> None:
    other = {"model": "org/other", "version": "0.1"}
    plan = planned(workflow(role()), profile(), profile("q", product="Q", version="0.1"), profile("o", **other))
    assert (covered(plan), plan.sweeps, plan.stale) == ([("agent", 1, 1.0, "p")], (), ())


# --------------------------------------------------------------------------------------------- products and shapes


def test_reserved_gpus_count_because_measurements_run_there(planned: Any) -> None:
    spare = node("spare", product="Q", gpus=2, reserved=[0, 1])
    plan = planned(workflow(role(tensorParallel=[2])), cluster(node("a", gpus=2, reserved=[1]), spare))
    assert missing(plan) == [("agent", "P", 2, 1.0, "not profiled"), ("agent", "Q", 2, 1.0, "not profiled")]


@pytest.mark.parametrize(
    ("allowed", "heads", "gpus", "degrees", "refused"),
    [
        ([], 32, 8, [1, 2, 4, 8], []),
        ([], 32, 4, [1, 2, 4], []),  # 8 was not asked for: no news
        ([], 12, 8, [1, 2, 4], []),
        ([1, 8], 32, 4, [1], [(8, 1.0, "no NVLink domain has 8 GPUs; the largest has 4")]),
        ([1, 8], 12, 8, [1], [(8, 1.0, "TP 8 does not divide the model's 12 attention heads")]),
    ],
)
def test_degrees_are_those_that_heads_and_nvlink_allow(
    planned: Any, allowed: list[int], heads: int, gpus: int, degrees: list[int], refused: list[Any]
) -> None:
    known = profile(source="estimated", architecture={**SMALL, "attentionHeads": heads, "kvHeads": 4})
    plan = planned(workflow(role(tensorParallel=allowed)), known, cluster(node("a", gpus=gpus)))
    assert [tp for _, _, tp, _, _ in missing(plan)] == degrees
    assert ruled_out(plan) == refused


def test_gpus_without_nvlink_are_domains_of_one(planned: Any) -> None:
    plan = planned(workflow(role(tensorParallel=[])), cluster(node("a", gpus=8, nvlinkDomains=[])))
    assert [tp for _, _, tp, _, _ in missing(plan)] == [1]


@pytest.mark.parametrize(
    ("sharing", "shares", "shapes"),
    [
        ("dra-exclusive", [0.5, 0.2], [(1, 1.0), (2, 1.0)]),
        ("dra-mps", [0.5, 0.2], [(1, 1.0), (1, 0.5), (1, 0.2), (2, 1.0), (2, 0.5), (2, 0.2)]),
        ("dra-mps", [], [(1, 1.0), (2, 1.0)]),
        ("dra-mps", [1.0, 0.3], [(1, 1.0), (1, 0.3), (2, 1.0), (2, 0.3)]),
        # HAMi cannot share the GPUs of a tensor-parallel group
        ("hami-dra", [0.5], [(1, 1.0), (1, 0.5), (2, 1.0)]),
    ],
)
def test_shares_are_measured_where_the_cluster_hands_them_out(
    planned: Any, sharing: str, shares: list[float], shapes: list[tuple[int, float]]
) -> None:
    lab = cluster(node("a", gpus=2), sharing=sharing)
    plan = planned(workflow(role(tensorParallel=[1, 2])), lab, shares=shares)
    assert [(tp, share) for _, _, tp, share, _ in missing(plan)] == shapes


def test_a_whole_gpu_that_is_measured_covers_no_share(planned: Any) -> None:
    plan = planned(workflow(role()), profile(), cluster(sharing="dra-mps"), shares=[0.5])
    assert covered(plan) == [("agent", 1, 1.0, "p")]
    assert missing(plan) == [("agent", "P", 1, 0.5, "not profiled")]


@pytest.mark.parametrize(
    ("sharing", "asked", "measured", "why"),
    [
        ("dra-mps", "busy", "busy", None),
        ("dra-mps", "idle", None, None),
        ("dra-mps", "busy", None, "measured with idle neighbours"),
        ("dra-mps", "idle", "busy", "measured with busy neighbours"),
        # Under HAMi nothing can keep them busy.
        ("hami-dra", "busy", None, None),
    ],
)
def test_a_share_is_covered_by_what_was_measured_with_such_neighbours(
    planned: Any, sharing: str, asked: str, measured: str | None, why: str | None
) -> None:
    series = {"neighbours": measured} if measured else {}
    profiles = profile("whole"), profile("half", share=0.5, **series)
    plan = planned(workflow(role()), *profiles, cluster(sharing=sharing), shares=[0.5], neighbours=asked)
    assert missing(plan) == ([("agent", "P", 1, 0.5, why)] if why else [])
    # A whole GPU has none.
    assert ("agent", 1, 1.0, "whole") in covered(plan)


# -------------------------------------------------------------------------------------------- memory and failures


@pytest.mark.parametrize(
    ("memory", "longest", "reason"),
    [
        ("80Gi", 4096, None),
        ("20Gi", 4096, "the weights leave no memory for the KV cache (0.6 GiB short)"),
        ("30Gi", 32_768, "the KV cache holds 11,768 tokens, one call may have 32,768"),
    ],
)
def test_memory_rules_out_what_a_compile_would_not_place(
    planned: Any, memory: str, longest: int, reason: str | None
) -> None:
    lab = cluster(node("a", memory=memory), sharing="dra-mps")
    called = role(maxModelLen=longest)
    plan = planned(workflow(called), profile(), lab, shares=[0.2])
    assert ruled_out(plan) == ([(1, 0.2, reason)] if reason else [])
    assert [share for _, _, _, share, _ in missing(plan)] == ([] if reason else [0.2])


def test_a_shape_on_which_the_engine_did_not_run_is_not_tried_again(planned: Any) -> None:
    failed = profile("tried", unusable=({"tp": 1, "share": 0.5, "reason": "out of memory"},))
    plan = planned(workflow(role()), profile(), failed, cluster(sharing="dra-mps"), shares=[0.5])
    assert ruled_out(plan) == [(1, 0.5, "out of memory (profile tried)")]
    assert (plan.sweeps, plan.stale) == ((), ())


@pytest.mark.parametrize(("longest", "again"), [(4096, True), (16_384, False), (None, False)])
def test_a_shape_that_could_not_hold_long_calls_is_tried_again_with_shorter_ones(
    planned: Any, longest: int | None, again: bool
) -> None:
    failed = profile("tried", unusable=({"tp": 1, "reason": "the KV cache is too small", "maxModelLen": 16_384},))
    plan = planned(workflow(role(maxModelLen=longest) if longest else role()), failed)
    assert missing(plan) == ([("agent", "P", 1, 1.0, "not profiled")] if again else [])
    assert ruled_out(plan) == ([] if again else [(1, 1.0, "the KV cache is too small (profile tried)")])


def test_what_another_engine_did_not_run_is_tried_again(planned: Any) -> None:
    failed = profile("tried", version="0.23.0", unusable=({"tp": 1, "reason": "out of memory"},))
    plan = planned(workflow(role()), failed)
    assert missing(plan) == [("agent", "P", 1, 1.0, "not profiled")]
    assert stale(plan) == {"tried": "measured with vLLM 0.23.0, the engine is 0.24.0"}


# --------------------------------------------------------------------------------------------------- whose calls


def test_roles_of_one_model_with_different_calls_are_measured_apart(planned: Any) -> None:
    plan = planned(workflow(role("agent", 3000, 200), role("judge", 300, 1)))
    assert [(s.llm, s.mix.input) for s in plan.sweeps] == [("agent", 3000), ("judge", 300)]


def test_roles_with_like_calls_share_a_measurement_whatever_their_names_and_workflows(planned: Any) -> None:
    one = workflow(role("agent", 1000, 100, maxNumSeqs=16), name="one")
    two = workflow(role("helper", 1200, 90, maxNumSeqs=64), name="two")
    (sweep,) = planned(one, two).sweeps
    assert (sweep.llm, sweep.mix.input, sweep.max_num_seqs) == ("agent", 1000, 64)
    assert sweep.roles == (("one", "agent"), ("two", "helper"))


def test_a_shared_measurement_is_due_until_it_holds_for_everybody(planned: Any) -> None:
    one, two = workflow(role(prompt=500), name="one"), workflow(role("helper", prompt=600), name="two")
    plan = planned(one, two, profile(mix={"input": 420, "output": 64}))
    assert missing(plan) == [
        ("agent", "P", 1, 1.0, "token mix changed: calls had 420/64 tokens, now 600/64"),
    ]
    assert plan.stale == ()  # it still holds for the agent


def test_a_shared_llm_with_two_kinds_of_calls_needs_both(planned: Any) -> None:
    one, two = workflow(role(prompt=500), name="one"), workflow(role(prompt=5000), name="two")
    plan = planned(one, two, profile())
    assert covered(plan) == [("agent", 1, 1.0, "p")]
    assert [(s.workflow, s.mix.input) for s in plan.sweeps] == [("two", 5000)]
    assert missing(plan) == [("agent", "P", 1, 1.0, "not profiled")]  # nothing moved: the profile is the other's


def test_what_is_measured_for_a_pinned_revision_serves_those_who_pin_none(planned: Any) -> None:
    plan = planned(workflow(role("agent"), role("helper", revision="abc"), role("other", revision="def")))
    assert [(s.revision, s.roles) for s in plan.sweeps] == [
        ("abc", (("flow", "helper"), ("flow", "agent"))),
        ("def", (("flow", "other"),)),
    ]


def test_the_calls_with_the_lowest_limit_lead_so_that_every_useful_shape_is_measured(planned: Any) -> None:
    roles = [role("long", maxModelLen=32_768), role("short", maxModelLen=4096)]
    lab = cluster(node("a", memory="30Gi"), sharing="dra-mps")
    plan = planned(workflow(*roles), profile(), lab, shares=[0.2])
    assert [(s.llm, s.max_model_len) for s in plan.sweeps] == [("short", 4096)]
    assert (missing(plan), ruled_out(plan)) == ([("short", "P", 1, 0.2, "not profiled")], [])


# ---------------------------------------------------------------------------------------------- recorded calls


def trace(directory: Path) -> Tree:
    """A workflow whose trace says nothing of cached tokens."""
    (directory / "traces").mkdir()
    lines = [
        {"execution": str(i), "model": "agent", "start": i, "end": i + 1, "inputTokens": 512, "outputTokens": 64}
        for i in range(3)
    ]
    (directory / "traces" / "flow.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workflow(role(), demand={"traces": "../traces/flow.jsonl"})


def test_a_profile_of_the_very_calls_covers_though_the_engine_found_more_of_them_in_its_cache(
    planned: Any, tmp_path: Path
) -> None:
    flow = trace(tmp_path)
    (sweep,) = planned(flow).sweeps
    found = {"mix": {"input": 512, "output": 64, "cached": 300}}
    assert covered(planned(flow, profile(provenance={"tool": "t", "traceDigest": sweep.trace_digest}, **found))) == [
        ("agent", 1, 1.0, "p")
    ]
    assert stale(planned(flow, profile(**found))) == {"p": "calls had 512 (300 cached)/64 tokens, now 512/64"}


@pytest.mark.parametrize("recorded", [True, False])
def test_what_covers_the_very_calls_is_what_a_compile_takes_for_them(
    planned: Any, tmp_path: Path, recorded: bool
) -> None:
    """The cache held 300 tokens of each prompt, where the trace or the statistics say nothing of it."""
    flow = trace(tmp_path) if recorded else workflow(role())
    (sweep,) = planned(flow).sweeps
    noted = {"tool": "t", "traceDigest": sweep.trace_digest, "llm": "agent"}
    replayed = profile(provenance=noted, mix={"input": 512, "output": 64, "cached": 300})
    assert covered(planned(flow, replayed)) == [("agent", 1, 1.0, "p")]
    catalog = collect_inputs(load_workspace(tmp_path, tmp_path), "lab").catalog
    assert catalog.service("org/m", "P", 1, 10, sweep.mix).stale is None


def test_of_two_llms_of_one_model_in_one_trace_each_needs_the_measurement_of_its_own_calls(
    planned: Any, tmp_path: Path
) -> None:
    """Both have prompts of 4000 tokens, of which the cache holds nothing for one, and nearly all for the other."""
    (tmp_path / "traces").mkdir()
    lines = [
        {"execution": str(i), "model": llm, "start": start, "end": start + 1, "inputTokens": 4000, "outputTokens": 50,
         "cachedTokens": cached}
        for i in range(3)
        for llm, start, cached in (("drafter", 0, 0), ("refiner", 2, 3800))
    ]  # fmt: skip
    (tmp_path / "traces" / "flow.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flow = workflow(role("drafter"), role("refiner"), demand={"traces": "../traces/flow.jsonl"})
    digest = planned(flow).sweeps[0].trace_digest
    noted = {"tool": "t", "traceDigest": digest, "llm": "refiner"}
    plan = planned(flow, profile(provenance=noted, mix={"input": 4000, "output": 50, "cached": 3700}))
    assert covered(plan) == [("refiner", 1, 1.0, "p")]
    assert missing(plan) == [("drafter", "P", 1, 1.0, "not profiled")]


@pytest.mark.parametrize("recorded", [True, False])
def test_the_digest_of_a_sweep_is_that_of_the_calls_of_its_job(planned: Any, tmp_path: Path, recorded: bool) -> None:
    (sweep,) = planned(trace(tmp_path) if recorded else workflow(role(cached=100))).sweeps
    workspace = load_workspace(tmp_path, tmp_path, needs_profiles=False)
    assert sweep.trace_digest == calls_of(workspace, sweep.workflow, sweep.llm).digest


def test_an_observed_rate_need_not_be_known(planned: Any) -> None:
    flow = workflow(role())
    flow["spec"]["target"] = "observed"
    assert missing(planned(flow)) == [("agent", "P", 1, 1.0, "not profiled")]


# ------------------------------------------------------------------------------------------------ cost and errors


@pytest.mark.parametrize(
    ("known", "tp", "hours"),
    [
        # 120 s to start, 4 s for 2 GB of weights, 1800 s budget
        (True, 1, 0.534),
        (True, 4, 2.138),
        # weights unknown
        (False, 1, 0.533),
    ],
)
def test_gpu_hours_are_those_of_whole_gpus_for_start_and_budget(
    planned: Any, known: bool, tp: int, hours: float
) -> None:
    extra = [profile(source="estimated")] if known else []
    lab = cluster(node("a", gpus=4), sharing="dra-mps")
    plan = planned(workflow(role(tensorParallel=[tp])), lab, *extra, shares=[0.5])
    assert [p.gpu_hours for s in plan.sweeps for p in s.points] == [hours, hours]
    assert plan.gpu_hours == pytest.approx(2 * hours)


def test_calls_that_the_engine_would_refuse_are_an_error_before_any_gpu_is_used(planned: Any) -> None:
    with pytest.raises(DocumentError, match=r"calls have up to 964 tokens; the limit is 512") as raised:
        planned(workflow(role(prompt=900, maxModelLen=512)))
    assert "raise maxModelLen to at least 964 tokens" in str(raised.value)


def test_an_unknown_cluster_is_named(planned: Any, tmp_path: Path) -> None:
    planned(workflow(role()))
    with pytest.raises(ScepsyError, match='there is no cluster "labs"') as raised:
        plan_profiles(load_workspace(tmp_path, tmp_path, needs_profiles=False), "labs")
    assert raised.value.hint == 'did you mean "lab"?'


def test_the_same_documents_give_the_same_plan(planned: Any) -> None:
    documents = [workflow(role("agent", 3000, 200), role("judge", 300, 1)), profile(version="0.23.0")]
    assert planned(*documents) == planned(*documents)
