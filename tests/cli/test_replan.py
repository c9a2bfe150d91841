"""Compiling again: what runs is not shuffled, names survive, and nothing changes without a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.cli.test_compile import commit_all, edit, tree
from tests.conftest import Demo, Scepsy

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _search_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search although no input changed: the search itself must find the plan in force again."""
    monkeypatch.setattr("scepsy.publishing.build.unchanged_plan", lambda *_: None)


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    """The example `both`, compiled and committed."""
    return demo(tmp_path / "demo", "both", compiled=True)


def plan(project: Path) -> dict:
    return YAML(typ="safe", pure=True).load(project / "plans/two-nodes.yaml")["spec"]


def places(project: Path) -> dict[str, tuple]:
    return {i["name"]: (i["node"], tuple(i["gpus"]), i["share"], i["wave"]) for i in plan(project)["instances"]}


def recompile(project: Path, scepsy: Scepsy) -> str:
    commit_all(project)
    ran = scepsy("compile", "--project", project, "--commit")
    assert ran.code == 0, ran.err
    return ran.out


def test_a_small_change_of_demand_moves_nothing_and_updates_the_predictions(project: Path, scepsy: Scepsy) -> None:
    before, latency = places(project), plan(project)["workflows"][1]["predicted"]["latency"]["mean"]
    edit(project / "workflows/rag-reranker.yaml", "12/s", "12.6/s")
    recompile(project, scepsy)
    assert places(project) == before
    assert plan(project)["workflows"][1]["predicted"]["latency"]["mean"] != latency
    assert "change" not in plan(project)


def test_a_plan_that_is_nearly_best_is_kept_and_the_output_says_so(project: Path, scepsy: Scepsy) -> None:
    before = places(project)
    edit(project / "scepsy.yaml", "  namespace:", "  replanning: {minimumGain: 10}\n  namespace:")
    edit(project / "workflows/rag-reranker.yaml", "12/s", "25/s")
    out = recompile(project, scepsy)
    assert "Kept the plan in force: the best one would gain" in out
    assert places(project) == before
    assert plan(project)["proof"]["gap"] > 0


def test_instances_that_stay_are_held_to_the_bandwidth_that_their_neighbours_now_leave(
    tmp_path: Path, scepsy: Scepsy
) -> None:
    project = tmp_path / "rag"
    scepsy("init", project, "--example")
    edit(project / "scepsy.yaml", "  namespace:", "  replanning: {minimumGain: 10}\n  namespace:")
    found = []
    for before, now in (("12/s", "6/s"), ("6/s", "12/s")):
        edit(project / "workflows/rag-reranker.yaml", before, now)
        recompile(project, scepsy)
        spec = YAML(typ="safe", pure=True).load(project / "plans/one-node.yaml")["spec"]
        places = [(i["name"], tuple(i["gpus"]), i["share"]) for i in spec["instances"]]
        found.append((places, spec["llms"][0]["bandwidth"]))
    (quiet, much), (busy, less) = found
    assert quiet == busy
    assert less < much


def test_after_a_change_compiling_again_changes_nothing(project: Path, scepsy: Scepsy) -> None:
    edit(project / "workflows/rag-reranker.yaml", "12/s", "40/s")
    edit(project / "workflows/beam-search.yaml", "6/min", "20/min")
    out = recompile(project, scepsy)
    assert "Starts" in out
    assert "change" in plan(project)
    before = tree(project)
    assert "Output: up to date" in scepsy("compile", "--project", project, "--commit").out
    assert tree(project) == before


def test_instances_leave_a_node_that_is_gone_under_new_names_and_the_others_stay(project: Path, scepsy: Scepsy) -> None:
    before = places(project)
    cluster = project / "clusters/two-nodes.yaml"
    cluster.write_text(cluster.read_text().split("    - name: gpu-b")[0])
    recompile(project, scepsy)
    after = places(project)
    assert {node for node, *_ in after.values()} == {"gpu-a"}
    for name in after:
        if name in before:
            assert before[name][0] == "gpu-a", f"{name} was on the node that is gone"
    gone = {name for name, (node, *_) in before.items() if node == "gpu-b"}
    assert gone
    assert not gone & set(after)


def test_a_drained_node_keeps_the_names_of_what_moves(project: Path, scepsy: Scepsy) -> None:
    before = places(project)
    cluster = project / "clusters/two-nodes.yaml"
    cluster.write_text(cluster.read_text() + "      reserved: [0, 1, 2, 3, 4, 5, 6, 7]\n")
    recompile(project, scepsy)
    after = places(project)
    assert {node for node, *_ in after.values()} == {"gpu-a"}
    assert set(after) & {name for name, (node, *_) in before.items() if node == "gpu-b"}
    assert set(plan(project)["change"]) <= {"started", "moved", "removed", "circles"}


def test_a_plan_of_another_version_at_head_is_passed_over(project: Path, scepsy: Scepsy) -> None:
    edit(project / "plans/two-nodes.yaml", "kind: Plan", "kind: OldPlan")
    commit_all(project)
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "plans/two-nodes.yaml is not a Plan that this version can read" in ran.err
    (project / "plans/two-nodes.yaml").unlink()
    assert scepsy("compile", "--project", project, "--force").code == 0


@pytest.mark.parametrize("rate", ["8/s", "12/s", "20/s"])
def test_a_plan_that_a_higher_load_would_overdraw_is_not_kept(tmp_path: Path, scepsy: Scepsy, rate: str) -> None:
    project = tmp_path / "rag"
    scepsy("init", project, "--example")
    edit(project / "workflows/rag-reranker.yaml", "12/s", "4/s")
    commit_all(project)
    assert scepsy("compile", "--project", project, "--commit").code == 0
    edit(project / "workflows/rag-reranker.yaml", "4/s", rate)
    commit_all(project)
    ran = scepsy("compile", "--project", project, "--commit")
    assert ran.code == 0, ran.err
    assert scepsy("compile", "--project", project, "--check").code == 0


def test_many_changes_of_rate_in_a_row_always_compile_and_are_stable(tmp_path: Path, scepsy: Scepsy) -> None:
    project = tmp_path / "walk"
    scepsy("init", project, "--example", "beam-search")
    before = "6/min"
    for rate in ("20/min", "9/min", "31/min", "4/min", "26/min", "2/min", "33/min"):
        edit(project / "workflows/beam-search.yaml", f"rate: {before}", f"rate: {rate}")
        commit_all(project)
        ran = scepsy("compile", "--project", project, "--commit")
        assert ran.code in (0, 1), ran.err
        if ran.code:
            assert "no allocation" in ran.err
        else:
            assert scepsy("compile", "--project", project, "--check").code == 0
        before = rate


def test_an_input_that_was_deleted_but_not_committed_stops_a_commit(project: Path, scepsy: Scepsy) -> None:
    (project / "workflows/rag-reranker.yaml").unlink()
    ran = scepsy("compile", "--project", project, "--commit")
    assert ran.code == 1
    assert "workflows/rag-reranker.yaml: deleted" in ran.err


def test_the_output_of_a_cluster_that_is_gone_is_removed(project: Path, scepsy: Scepsy) -> None:
    edit(project / "clusters/two-nodes.yaml", "name: two-nodes", "name: renamed")
    commit_all(project)
    ran = scepsy("compile", "--project", project, "--check")
    assert ran.code == 2
    assert "Cluster two-nodes is no longer in the project: its output is removed" in ran.out
    assert scepsy("compile", "--project", project, "--commit").code == 0
    assert not [f for f in tree(project) if "two-nodes" in f and f != "clusters/two-nodes.yaml"]
    assert scepsy("compile", "--project", project, "--check").code == 0


TWO_PRODUCTS = """
apiVersion: scepsy.dev/v1alpha1
kind: Cluster
metadata: {name: mixed}
spec:
  kubernetes: "1.36"
  sharing: dra-exclusive
  nodes:
    - {name: a, product: NVIDIA-A100-SXM4-80GB, gpus: [{uuid: GPU-a, memory: 80Gi}]}
    - {name: h, product: NVIDIA-H100-80GB-HBM3, gpus: [{uuid: GPU-h, memory: 80Gi}], reserved: [0]}
"""
ONE_MODEL = """
apiVersion: scepsy.dev/v1alpha1
kind: Workflow
metadata: {name: flow}
spec:
  target: {rate: 1/s}
  llms:
    - {name: gen, model: meta-llama/Llama-3.1-8B-Instruct, maxModelLen: 8192}
  demand:
    statistics:
      llms:
        - {llm: gen, calls: 1, inputTokens: {mean: 1000}, outputTokens: {mean: 200}}
"""


def test_an_instance_of_the_same_shape_moves_when_another_product_serves_its_llm_better(
    tmp_path: Path, scepsy: Scepsy
) -> None:
    """The H100 is reserved at first; the A100 is left as soon as it is free, and nothing is planned on both at once."""
    project = tmp_path / "mixed"
    scepsy("init", project)
    for name, text in (("clusters/mixed.yaml", TWO_PRODUCTS), ("workflows/flow.yaml", ONE_MODEL)):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    (project / "profiles").mkdir(exist_ok=True)
    for name in ("llama-3.1-8b-instruct-a100.yaml", "llama-3.1-8b-instruct-h100.yaml"):
        (project / "profiles" / name).write_text((EXAMPLES / "profiles" / name).read_text())
    recompile(project, scepsy)
    edit(project / "clusters/mixed.yaml", ", reserved: [0]", "")
    recompile(project, scepsy)
    spec = YAML(typ="safe", pure=True).load(project / "plans/mixed.yaml")["spec"]
    assert [llm["product"] for llm in spec["llms"]] == ["NVIDIA-H100-80GB-HBM3"]
    assert [i["gpus"] for i in spec["instances"]] == [["GPU-h"]]
    assert scepsy("compile", "--project", project, "--check").code == 0


def test_where_the_search_ends_before_its_time_the_plan_is_still_what_the_next_compile_makes(
    tmp_path: Path, scepsy: Scepsy
) -> None:
    """Five LLMs share three GPUs: too many ways to share to try all, and several bandwidth caps for each placement."""
    project, models = tmp_path / "shared", ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct")
    scepsy("init", project)
    gpus = [{"uuid": f"GPU-{i}", "memory": "80Gi"} for i in range(3)]
    node = {"name": "n", "product": "NVIDIA-H100-80GB-HBM3", "gpus": gpus}
    llms = [{"name": f"l{i}", "model": models[i % 2], "maxModelLen": 8192, "tensorParallel": [1]} for i in range(5)]
    calls = [
        {
            "llm": f"l{i}",
            "calls": 1 + i % 3,
            "inputTokens": {"mean": 512 + 13 * i},
            "outputTokens": {"mean": 120 + 9 * i},
        }
        for i in range(5)
    ]
    documents: dict[str, tuple[str, dict]] = {
        "clusters/c.yaml": ("Cluster", {"kubernetes": "1.36", "sharing": "dra-mps", "nodes": [node]}),
        "workflows/w.yaml": (
            "Workflow", {"target": {"rate": "0.5/s"}, "llms": llms, "demand": {"statistics": {"llms": calls}}},
        ),
    }  # fmt: skip
    (project / "profiles").mkdir(exist_ok=True)
    for name in ("qwen3-8b-h100.yaml", "llama-3.1-8b-instruct-h100.yaml"):
        (project / "profiles" / name).write_text((EXAMPLES / "profiles" / name).read_text())
    for name, (kind, spec) in documents.items():
        header = {"apiVersion": "scepsy.dev/v1alpha1", "kind": kind, "metadata": {"name": Path(name).stem}}
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(json.dumps({**header, "spec": spec}))
    recompile(project, scepsy)
    assert YAML(typ="safe", pure=True).load(project / "plans/c.yaml")["spec"]["proof"]["gap"] > 0
    assert scepsy("compile", "--project", project, "--check").code == 0
