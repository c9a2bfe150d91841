"""Every shipped example compiles to exactly what its golden directory holds, and that is valid Kubernetes.

`make golden` rewrites the directories after a change that is meant; the difference is then reviewed like code.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests import kubernetes_schemas
from tests.conftest import Scepsy

from scepsy.documents import Cluster, Plan, Profile, load_file
from scepsy.manifests import check
from scepsy.repository.new_project import examples

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(examples())


def tree(directory: Path) -> dict[str, str]:
    folders = [directory / "plans", directory / "rendered"]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8") for path in files}


@cache
def manifests(name: str) -> list[object]:
    """Return the manifests of a golden directory."""
    return [YAML(typ="safe", pure=True).load(path) for path in sorted((GOLDEN / name / "rendered").rglob("*.yaml"))]


@pytest.fixture
def compiled(request: pytest.FixtureRequest, tmp_path: Path, scepsy: Scepsy) -> Path:
    assert scepsy("init", tmp_path / "demo", "--example", request.param).code == 0
    ran = scepsy("compile", "--project", tmp_path / "demo")
    assert ran.code == 0, ran.err
    return tmp_path / "demo"


@pytest.mark.parametrize(("compiled", "name"), [(e, e) for e in EXAMPLES], indirect=["compiled"])
def test_the_example_compiles_to_its_golden_directory(
    compiled: Path, name: str, request: pytest.FixtureRequest
) -> None:
    found = tree(compiled)
    if request.config.getoption("--update-golden"):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        for path, text in found.items():
            target = GOLDEN / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    expected = tree(GOLDEN / name)
    assert sorted(found) == sorted(expected)
    for path, text in found.items():
        assert text == expected[path], path


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36", "1.37"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_golden_manifest_is_valid_by_the_strict_schema(name: str, version: str) -> None:
    count = 0
    for item in manifests(name):
        kubernetes_schemas.validate(item, version)
        count += 1
    assert count > 5


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_golden_plan_passes_the_checks_and_its_proof_is_closed(name: str) -> None:
    for path in (GOLDEN / name / "plans").iterdir():
        _, [plan], problems = load_file(path, path.name, Plan)
        assert problems == []
        _, [cluster], _ = load_file(ROOT / "examples" / "clusters" / path.name, path.name, Cluster)
        check(plan.document, cluster.document)
        assert plan.document.spec.proof.gap == 0


def test_estimates_are_marked_as_such_and_synthetic_demand_says_so() -> None:
    for path in (ROOT / "examples" / "profiles").iterdir():
        _, [profile], _ = load_file(path, path.name, Profile)
        assert profile.document.spec.source == "estimated"
        assert profile.document.spec.provenance.command
        assert path.read_text().startswith("# Estimated, not measured")
    for path in (ROOT / "examples" / "workflows").iterdir():
        assert "synthetic" in path.read_text()


def test_oversubscribed_has_more_llms_than_gpus() -> None:
    plan = YAML(typ="safe", pure=True).load(GOLDEN / "oversubscribed/plans/two-gpus.yaml")
    gpus = {gpu for instance in plan["spec"]["instances"] for gpu in instance["gpus"]}
    assert len(plan["spec"]["llms"]) == 5
    assert len(gpus) == 2
