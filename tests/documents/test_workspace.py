"""Documents that are right one by one can still be wrong together; nothing outside the repository is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from scepsy.documents import PUBLISHED, load_workspace, schema_text
from scepsy.errors import ScepsyError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
Edit = Callable[[str, str, str], None]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two workflows that share an LLM."""
    for folder, names in {
        "workflows": ["rag-reranker", "beam-search"],
        "clusters": ["two-nodes"],
        "profiles": ["qwen3-8b-h100", "qwen3-0.6b-h100", "llama-3.1-8b-instruct-h100"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.yaml").write_bytes((EXAMPLES / folder / f"{name}.yaml").read_bytes())
    (tmp_path / "scepsy.yaml").write_bytes((EXAMPLES / "scepsy.yaml").read_bytes())
    return tmp_path


@pytest.fixture
def edit(project: Path) -> Edit:
    """Replace the first occurrence of a text in a file of the project."""

    def replace(name: str, old: str, new: str) -> None:
        path = project / name
        text = path.read_text()
        assert old in text, old
        path.write_text(text.replace(old, new, 1))

    return replace


def complaint(project: Path) -> str:
    with pytest.raises(ScepsyError) as caught:
        load_workspace(project, project)
    return str(caught.value)


def test_a_whole_project_loads(project: Path) -> None:
    workspace = load_workspace(project, project)
    assert list(workspace.workflows) == ["beam-search", "rag-reranker"]
    assert list(workspace.clusters) == ["two-nodes"]
    assert len(workspace.inputs) == 7
    assert all(value.startswith("sha256:") for value in workspace.inputs.values())


def test_profiles_may_be_missing_for_those_who_need_none_but_not_be_wrong(project: Path, edit: Edit) -> None:
    edit("profiles/qwen3-8b-h100.yaml", "source: estimated", "source: guessed")
    with pytest.raises(ScepsyError, match='"guessed" is not allowed here'):
        load_workspace(project, project, needs_profiles=False)
    for path in (project / "profiles").iterdir():
        path.unlink()
    assert load_workspace(project, project, needs_profiles=False).profiles == {}
    assert 'there is no Profile document: no .yaml file in "profiles"' in complaint(project)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("workflows/rag-reranker.yaml", "name: rag-reranker", "name: beam-search", 'the Workflow name "beam-search" is already used: first at workflows/beam-search.yaml:8:3'),
        ("workflows/rag-reranker.yaml", "name: reranker", "name: generator", 'the name "generator" is already used by entry 0'),
        ("workflows/rag-reranker.yaml", "llm: reranker", "llm: rerankr", 'unknown LLM "rerankr"'),
        ("workflows/rag-reranker.yaml", "llm: reranker", "llm: rerankr", 'did you mean "reranker"?'),
        ("workflows/rag-reranker.yaml", "llm: reranker", "llm: rerankr", 'the demand has no statistics for "reranker"'),
        ("workflows/rag-reranker.yaml", "Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B", "but with another model"),
        ("workflows/rag-reranker.yaml", "maxModelLen: 16384", "maxModelLen: 8192", "but with another maxModelLen"),
        ("workflows/rag-reranker.yaml", "maxModelLen: 4096", "podTemplate: {env: {HF_TOKEN: x}}", '"HF_TOKEN" is set by Scepsy'),
        ("workflows/rag-reranker.yaml", "maxModelLen: 4096", "podTemplate: {labels: {app.kubernetes.io/name: x}}", "is set by"),
        ("clusters/two-nodes.yaml", "GPU-aaaaaaaa-0000-4000-8000-000000000001", "GPU-aaaaaaaa-0000-4000-8000-000000000000",
         'the UUID "GPU-aaaaaaaa-0000-4000-8000-000000000000" is also in node "gpu-a"'),
        ("clusters/two-nodes.yaml", "[[0, 1, 2, 3, 4, 5, 6, 7]]", "[[0, 1, 2, 3], [3, 4]]", "GPU 3 is also in domain 0"),
        ("clusters/two-nodes.yaml", "[[0, 1, 2, 3, 4, 5, 6, 7]]", "[[0, 8]]", "GPU 8 does not exist: the node has 8"),
        ("clusters/two-nodes.yaml", "[[0, 1, 2, 3, 4, 5, 6, 7]]", "[]\n      reserved: [9]", "GPU 9 does not exist"),
        ("clusters/two-nodes.yaml", "name: gpu-b", "name: gpu-a", 'the name "gpu-a" is already used by entry 0'),
        ("clusters/two-nodes.yaml", "memory: 80Gi", "memory: 80", "a GPU with less than 1Gi of memory"),
        ("profiles/qwen3-8b-h100.yaml", "attentionHeads: 32", "attentionHeads: 30", "tensor parallelism 4 does not divide"),
        ("profiles/qwen3-8b-h100.yaml", "latency: 460ms, ttft: 35.28ms, tpot: 6.741ms",
         "latency: 460ms, ttft: 35.28ms, tpot: 6.741s", "ttft 35.28ms + 63 further tokens · tpot 6.741s is 424.7"),
        ("profiles/qwen3-8b-h100.yaml", "latency: 460ms, ttft: 35.28ms, tpot: 6.741ms",
         "latency: 460ms, ttft: 460ms", "latency is 460ms, ttft 460ms: no time for further tokens"),
        ("scepsy.yaml", "namespace:", "paths: {workflows: ../specs}\n  namespace:", "'../specs' leads out of the repository"),
        ("scepsy.yaml", "namespace:", "paths: {rendered: workflows/out}\n  namespace:", "overlaps the one for workflows"),
        ("scepsy.yaml", "namespace:", "paths: {rendered: .git/hooks}\n  namespace:", "'.git/hooks' is inside .git"),
        ("scepsy.yaml", "version: 0.24.0", "version: 0.14.0", "vLLM 0.14.0 is too old: it lacks --shutdown-timeout; 0.18 is the oldest version"),
        ("scepsy.yaml", "namespace:", "paths: {profiles: empty}\n  namespace:", "there is no Profile document"),
    ],
)  # fmt: skip
def test_documents_that_do_not_fit_together_are_refused(
    project: Path, edit: Edit, file: str, old: str, new: str, expected: str
) -> None:
    edit(file, old, new)
    said = complaint(project)
    assert expected in said, said
    assert ".yaml:" in said


def test_a_symlink_out_of_the_repository_is_refused(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.yaml"
    outside.write_text("password: hunter2\n")
    (project / "workflows" / "link.yaml").symlink_to(outside)
    said = complaint(project)
    assert "'workflows/link.yaml' goes through the symlink" in said
    assert "leads out of the repository" in said
    assert "hunter2" not in said


def test_a_directory_that_is_a_symlink_out_of_the_repository_is_refused(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:  # fmt: skip
    (project / "clusters").rename(project / "old")
    (project / "clusters").symlink_to(tmp_path_factory.mktemp("outside"))
    assert "'clusters' goes through the symlink" in complaint(project)


def test_problems_of_several_files_are_reported_together(project: Path, edit: Edit) -> None:
    edit("workflows/rag-reranker.yaml", "12/s", "4")
    edit("clusters/two-nodes.yaml", "sharing: dra-mps", "sharing: mps")
    said = complaint(project)
    assert "workflows/rag-reranker.yaml:9:12: 4 is not a rate" in said
    assert 'clusters/two-nodes.yaml:10:3: "mps" is not allowed here' in said


@pytest.mark.parametrize("kind", sorted(PUBLISHED))
def test_the_published_schemas_are_those_of_the_models(kind: str) -> None:
    published = ROOT / "schemas" / f"{kind.lower()}.json"
    assert published.read_text(encoding="utf-8") == schema_text(kind), "run: make schemas"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda p: p.stem)
def test_the_examples_satisfy_the_published_schemas(path: Path) -> None:
    document = YAML(typ="safe", pure=True).load(path)
    schema = json.loads((ROOT / "schemas" / f"{document['kind'].lower()}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)


def test_every_key_of_a_schema_is_described() -> None:
    for kind in PUBLISHED:
        schema = json.loads(schema_text(kind))
        for name, part in [(kind, schema), *schema.get("$defs", {}).items()]:
            for key, value in part.get("properties", {}).items():
                referred = schema.get("$defs", {}).get(value.get("$ref", "").rpartition("/")[2], {})
                assert value.get("description") or referred.get("description"), f"{kind}: {name}.{key}"
