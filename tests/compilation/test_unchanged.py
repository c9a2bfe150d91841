"""A compile of which no input changed searches nothing; anything that did change is compiled again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Demo, Scepsy, git

from scepsy.publishing import build


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    return demo(tmp_path / "demo", compiled=True)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clusters for which a plan was searched."""
    found: list[str] = []
    compile_plan = build.compile_plan

    def counted(workspace, cluster, previous=()):
        found.append(cluster)
        return compile_plan(workspace, cluster, previous)

    monkeypatch.setattr(build, "compile_plan", counted)
    return found


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("option", ["--check", "--commit"])
def test_without_a_change_nothing_is_searched_and_the_output_is_up_to_date(
    project: Path, scepsy: Scepsy, searches: list[str], option: str
) -> None:
    ran = scepsy("compile", "--project", project, option)
    assert (ran.code, searches) == (0, [])
    assert "Output: up to date" in ran.out


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("workflows/rag-reranker.yaml", "rate: 12/s", "rate: 13/s"),
        ("workflows/rag-reranker.yaml", "kind: Workflow", "kind: Workflow  # seen"),
        ("scepsy.yaml", "namespace: llm-serving", "namespace: other"),
        ("profiles/qwen3-8b-h100.yaml", "kind: Profile", "kind: Profile  # seen"),
        ("clusters/one-node.yaml", "kind: Cluster", "kind: Cluster  # seen"),
    ],
)
def test_every_changed_input_is_compiled(
    project: Path, scepsy: Scepsy, searches: list[str], file: str, old: str, new: str
) -> None:
    edit(project / file, old, new)
    assert scepsy("compile", "--project", project, "--check").code == 2
    assert searches == ["one-node"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("replicas: 2", "replicas: 3"), ("scepsy 0.", "scepsy 0.0."), ("digest: sha256:", "digest: sha256:0")],
    ids=["a plan edited by hand", "a plan of another version", "a wrong digest"],
)  # fmt: skip
def test_a_plan_that_the_compiler_did_not_write_so_is_compiled_again(
    project: Path, scepsy: Scepsy, searches: list[str], old: str, new: str
) -> None:
    edit(project / "plans/one-node.yaml", old, new)
    git(project, "commit", "-qam", "Edit the plan")
    assert scepsy("compile", "--project", project, "--check").code == 2
    assert searches == ["one-node"]


def test_a_rendered_file_that_was_edited_is_found_without_a_search(
    project: Path, scepsy: Scepsy, searches: list[str]
) -> None:
    edit(project / "rendered/one-node/llm-serving/deployment-generator-0.yaml", "replicas: 1", "replicas: 2")
    assert scepsy("compile", "--project", project, "--check").code == 2
    assert searches == []
