"""Observed documents: what they say stands in place of the demand and of the cluster, and nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import Scepsy

from scepsy.compilation import collect_inputs
from scepsy.documents import Cluster, DocumentError, load_workspace
from scepsy.documents.loading import validate
from scepsy.documents.observed import without
from scepsy.documents.workspace import with_observed
from scepsy.documents.yaml_source import SourceFile, parse

CLUSTER = b"""\
apiVersion: scepsy.dev/v1alpha1
kind: Cluster
metadata: {name: c}
spec:
  sharing: dra-mps
  nodes:
  - name: a
    product: H100
    gpus:
    - {uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000, memory: 80Gi}
    - {uuid: GPU-aaaaaaaa-0000-4000-8000-000000000001, memory: 80Gi}
    - {uuid: GPU-aaaaaaaa-0000-4000-8000-000000000002, memory: 80Gi}
    - {uuid: GPU-aaaaaaaa-0000-4000-8000-000000000003, memory: 80Gi}
    nvlinkDomains: [[0, 1], [2, 3]]
    reserved: [3]
  - name: b
    product: H100
    gpus:
    - {uuid: GPU-bbbbbbbb-0000-4000-8000-000000000000, memory: 80Gi}
"""
A = "GPU-aaaaaaaa-0000-4000-8000-00000000000"
B = "GPU-bbbbbbbb-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("nodes", "gpus", "left"),
    [
        ([], [], {"a": ("0123", [(0, 1), (2, 3)], [3]), "b": ("0", [], [])}),
        (["b"], [], {"a": ("0123", [(0, 1), (2, 3)], [3])}),
        ([], [B], {"a": ("0123", [(0, 1), (2, 3)], [3])}),
        ([], [A + "1"], {"a": ("023", [(0,), (1, 2)], [2]), "b": ("0", [], [])}),
        ([], [A + "0", A + "1"], {"a": ("23", [(0, 1)], [1]), "b": ("0", [], [])}),
        ([], [A + "3"], {"a": ("012", [(0, 1), (2,)], []), "b": ("0", [], [])}),
        (["elsewhere"], ["GPU-unknown"], {"a": ("0123", [(0, 1), (2, 3)], [3]), "b": ("0", [], [])}),
    ],
    ids=["nothing", "a node", "all GPUs of a node", "one GPU", "a domain", "a reserved GPU", "what is not there"],
)
def test_a_cluster_less_what_is_missing_counts_the_other_gpus_anew(
    nodes: list[str], gpus: list[str], left: dict[str, tuple[str, list[tuple[int, ...]], list[int]]]
) -> None:
    cluster = validate(parse(SourceFile("c", CLUSTER))[0], Cluster)
    found = {
        node.name: (
            "".join(gpu.uuid[-1] for gpu in node.gpus),
            list(node.nvlink_domains),
            list(node.reserved),
        )
        for node in without(cluster, nodes, gpus).spec.nodes
    }
    assert found == left


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("observed") / "demo"


@pytest.fixture
def project(tmp_path: Path, example: Path, scepsy: Scepsy) -> Path:
    """One workflow at 12/s: 1 call of the generator (3100/240 tokens), 20 of the reranker (510/1), outside 120 ms."""
    if not example.exists():
        assert scepsy("init", example, "--example").code == 0
    shutil.copytree(example, tmp_path / "demo")
    return tmp_path / "demo"


def observed(project: Path, *entries: str, name: str = "rag-reranker") -> None:
    """Write what was seen of a workflow."""
    lines = ["cluster: one-node", "at: '2026-11-21T20:00:00Z'", *entries]
    spec = "".join(f"  {line}\n" for line in lines)
    head = f"apiVersion: scepsy.dev/v1alpha1\nkind: ObservedWorkflow\nmetadata: {{name: {name}}}\nspec:\n"
    (project / "observed").mkdir(exist_ok=True)
    (project / "observed" / f"{name}.yaml").write_text(head + spec)


def test_a_time_that_is_none_is_told_as_one_would_say_it(project: Path) -> None:
    observed(project)
    path = project / "observed" / "rag-reranker.yaml"
    path.write_text(path.read_text().replace("2026-11-21T20:00:00Z", "yesterday"))
    with pytest.raises(DocumentError, match="'yesterday' is not a time such as 2026-11-21T20:00:00Z"):
        load_workspace(project, project)


@pytest.mark.parametrize(
    ("target", "seen", "planned"),
    [("12/s", "19.2/s", 19.2), ("12/s", "7/s", 12.0), ("12/s", None, 12.0)],
    ids=["more than the target", "less than the target", "no rate seen"],
)
def test_planned_for_is_the_larger_of_target_and_observed(
    project: Path, target: str, seen: str | None, planned: float
) -> None:
    observed(project, *([f"rate: {seen}"] if seen else []))
    inputs = collect_inputs(load_workspace(project, project), "one-node")
    assert inputs.workflows["rag-reranker"].spec.target.per_second == planned
    assert "observed/rag-reranker.yaml" in inputs.digests


def test_a_target_of_observed_is_what_was_seen_be_it_less_or_more(project: Path) -> None:
    path = project / "workflows" / "rag-reranker.yaml"
    path.write_text(path.read_text().replace("target: {rate: 12/s}", "target: observed"))
    with pytest.raises(
        DocumentError, match=r"there is no observed rate: spec\.demand\.statistics has no arrival times"
    ):
        collect_inputs(load_workspace(project, project), "one-node")
    observed(project, "rate: 3/s")
    inputs = collect_inputs(load_workspace(project, project), "one-node")
    assert inputs.workflows["rag-reranker"].spec.target.per_second == 3.0


def test_calls_and_tokens_that_were_seen_stand_in_place_of_the_demands(project: Path) -> None:
    observed(project, "llms: [{llm: generator, calls: 2, inputTokens: 4650, outputTokens: 120}]")
    demand = collect_inputs(load_workspace(project, project), "one-node").demands["rag-reranker"]
    generator, reranker = demand.llms["generator"], demand.llms["reranker"]
    assert (generator.calls, generator.steps) == (2.0, 1.0)  # the path of an execution stays
    assert (generator.input.mean, generator.input.max, generator.output.mean) == pytest.approx((4650.0, 9000.0, 120.0))
    assert (reranker.calls, reranker.input.mean) == (20.0, 510.0)


def test_what_is_said_of_things_that_the_project_lacks_is_ignored(project: Path) -> None:
    before = collect_inputs(load_workspace(project, project), "one-node")
    observed(project, "rate: 99/s", name="elsewhere")
    after = collect_inputs(load_workspace(project, project), "one-node")
    assert after.workflows == before.workflows
    assert after.digests == before.digests


def test_what_was_seen_in_one_cluster_is_not_planned_for_in_another(project: Path) -> None:
    other = project / "clusters" / "other.yaml"
    text = (project / "clusters" / "one-node.yaml").read_text()
    other.write_text(text.replace("name: one-node", "name: other").replace("GPU-", "GPU-0"))
    before = collect_inputs(load_workspace(project, project), "other")
    observed(project, "rate: 19.2/s")
    workspace = load_workspace(project, project)
    assert collect_inputs(workspace, "one-node").workflows["rag-reranker"].spec.target.per_second == 19.2
    after = collect_inputs(workspace, "other")
    assert (after.workflows, after.digests) == (before.workflows, before.digests)


def test_one_cluster_is_observed_once(project: Path) -> None:
    observed(project, "rate: 3/s")
    path = project / "observed" / "rag-reranker.yaml"
    path.with_name("again.yaml").write_text(path.read_text())
    with pytest.raises(DocumentError, match='workflow "rag-reranker" was observed in cluster "one-node" already'):
        load_workspace(project, project)


def test_a_wrong_document_is_told_with_its_place(project: Path) -> None:
    observed(project, "rate: 3")
    with pytest.raises(DocumentError) as error:
        load_workspace(project, project)
    assert "observed/rag-reranker.yaml:7:" in str(error.value)


def test_documents_in_memory_count_as_those_in_files(project: Path) -> None:
    workspace = load_workspace(project, project)
    observed(project, "rate: 19.2/s")
    path = project / "observed" / "rag-reranker.yaml"
    from_file = load_workspace(project, project)
    in_memory = with_observed(workspace, {path.relative_to(project): path.read_bytes()})  # type: ignore[dict-item]
    assert in_memory.inputs == from_file.inputs
    assert (
        in_memory.observed["one-node", "rag-reranker"].document
        == from_file.observed["one-node", "rag-reranker"].document
    )
    assert with_observed(from_file, {path.relative_to(project): None}).inputs == workspace.inputs  # type: ignore[dict-item]
