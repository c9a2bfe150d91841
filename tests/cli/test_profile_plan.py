"""`scepsy profile plan` as its users meet it: before there are profiles, with estimates, with measurements."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests import published_schemas as published
from tests.conftest import Demo, Scepsy

GPU = "NVIDIA-H100-80GB-HBM3"
MODEL = "Qwen/Qwen3-0.6B"


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    """The example, with estimated profiles, and a reranker that runs on single GPUs only."""
    demo(tmp_path / "demo")
    edit(tmp_path / "demo" / "workflows" / "rag-reranker.yaml", "maxModelLen: 4096", "maxModelLen: 4096\n      tensorParallel: [1]")  # fmt: skip
    return tmp_path / "demo"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new))


def as_measured(project: Path, version: str = "0.24.0") -> None:
    """Take the reranker's estimates for measurements."""
    path = project / "profiles" / "qwen3-0.6b-h100.yaml"
    edit(path, "source: estimated", "source: measured")
    edit(path, "version: 0.24.0", f"version: {version}")


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_text_says_what_to_measure_what_it_costs_and_what_is_ruled_out(project: Path, scepsy: Scepsy) -> None:
    ran = scepsy("profile", "plan", "--project", project)
    assert (ran.code, ran.err) == (0, "")
    printed = lines(ran.out)
    assert printed[0] == "Measurements for cluster one-node (vLLM 0.24.0)"
    start = printed.index(f"{MODEL} on {GPU}")
    assert printed[start : start + 6] == [
        f"{MODEL} on {GPU}",
        "calls to reranker of rag-reranker: 510 prompt tokens, 1 generated",
        "TP share why GPU-hours",
        "─" * len(printed[start + 3]),
        "1 1.0 only estimated ~0.5",
        "1 0.5 0.2 not profiled ~1.1",
    ]
    assert "In all 11 measurements, ~12.4 GPU-hours. An estimate: each takes its whole budget of 30min, and a share holds its whole GPU." in printed  # fmt: skip
    build = "build profiling-jobs/Dockerfile, push it, name it in spec.profiling.image"
    assert f"Next: {build}, then: scepsy profile submit" in printed
    refused = "generator H100-80GB-HBM3 1 0.2 the weights leave no memory for the KV cache (2.0 GiB short)"
    assert printed[printed.index("Ruled out:") + 3] == refused


def test_with_an_image_of_the_jobs_the_next_step_is_to_submit(project: Path, scepsy: Scepsy) -> None:
    edit(
        project / "scepsy.yaml",
        "namespace: llm-serving",
        "namespace: llm-serving\n  profiling: {image: 'r.io/jobs:v1'}",
    )
    assert "Next: scepsy profile submit" in lines(scepsy("profile", "plan", "--project", project).out)


def test_a_measured_profile_leaves_its_shapes_out(project: Path, scepsy: Scepsy) -> None:
    as_measured(project)
    printed = lines(scepsy("profile", "plan", "--project", project).out)
    assert printed[printed.index("Measured already:") + 3] == f"{MODEL} H100-80GB-HBM3 1 1.0 qwen3-0.6b-h100"
    assert "In all 10 measurements, ~11.9 GPU-hours. An estimate: each takes its whole budget of 30min, and a share holds its whole GPU." in printed  # fmt: skip


def test_a_stale_profile_is_named_with_its_figures(project: Path, scepsy: Scepsy) -> None:
    as_measured(project, "0.23.0")
    printed = lines(scepsy("profile", "plan", "--project", project).out)
    why = "measured with vLLM 0.23.0, the engine is 0.24.0"
    assert f"1 1.0 {why} ~0.5" in printed
    heading = printed.index("Stale profiles, to be measured again or removed:")
    assert printed[heading + 3] == f"qwen3-0.6b-h100 {why}"


def test_when_all_is_measured_nothing_is_missing(project: Path, scepsy: Scepsy) -> None:
    as_measured(project)
    edit(project / "clusters" / "one-node.yaml", "dra-mps", "dra-exclusive")
    edit(project / "profiles" / "qwen3-8b-h100.yaml", "source: estimated", "source: measured")
    printed = lines(scepsy("profile", "plan", "--project", project).out)
    assert "Nothing is missing." in printed
    assert not [line for line in printed if "GPU-hours" in line or "Next" in line]


def test_a_project_without_profiles_gets_a_plan_where_compile_would_refuse(project: Path, scepsy: Scepsy) -> None:
    shutil.rmtree(project / "profiles")
    ran = scepsy("profile", "plan", "--project", project)
    assert (ran.code, ran.err) == (0, "")
    assert f"Memory unknown: there is no profile of {MODEL}, Qwen/Qwen3-8B; the job finds out what fits." in ran.out
    assert "there is no Profile document" in scepsy("compile", "--project", project).err


def test_the_json_satisfies_its_schema_and_adds_up(project: Path, scepsy: Scepsy) -> None:
    as_measured(project, "0.23.0")
    ran = scepsy("profile", "plan", "--project", project, "--output", "json")
    result = json.loads(ran.out)
    published.validate(result, "ProfilePlanResult")
    assert (ran.code, result["kind"], result["cluster"]) == (0, "ProfilePlanResult", "one-node")
    assert (result["engine"], result["budget"]) == ("0.24.0", 1800)
    reranker, generator = result["sweeps"]
    assert (reranker["llm"], reranker["product"], generator["llm"]) == ("reranker", GPU, "generator")
    assert reranker["points"][0] == {
        "tp": 1,
        "share": 1.0,
        "why": "measured with vLLM 0.23.0, the engine is 0.24.0",
        "gpuHours": 0.534,
    }
    points = [point["gpuHours"] for sweep in result["sweeps"] for point in sweep["points"]]
    assert result["gpuHours"] == pytest.approx(sum(points))
    assert result["stale"] == [
        {"profile": "qwen3-0.6b-h100", "reason": "measured with vLLM 0.23.0, the engine is 0.24.0"}
    ]
    assert [row["share"] for row in result["ruledOut"]] == [0.2]


def test_json_is_written_for_errors_too(project: Path, scepsy: Scepsy) -> None:
    ran = scepsy("profile", "plan", "--project", project, "--cluster", "one-nod", "--output", "json")
    result = json.loads(ran.out)
    published.validate(result, "ProfilePlanResult")
    assert result["error"] == {"message": 'there is no cluster "one-nod"', "hint": 'did you mean "one-node"?'}
    assert ran.code == 1


def test_a_project_with_several_clusters_needs_one_named(project: Path, scepsy: Scepsy) -> None:
    text = (project / "clusters" / "one-node.yaml").read_text().replace("one-node", "other").replace("aaaaaaaa", "bbbb")
    (project / "clusters" / "other.yaml").write_text(text)
    ran = scepsy("profile", "plan", "--project", project)
    assert (ran.code, ran.err) == (
        1,
        "error: the project has several clusters\n  hint: name one with --cluster: one-node, other\n",
    )
    assert scepsy("profile", "plan", "--project", project, "--cluster", "other").code == 0


def test_a_directory_without_a_project_is_no_traceback(tmp_path: Path, scepsy: Scepsy) -> None:
    ran = scepsy("profile", "plan", "--project", tmp_path)
    assert ran.code == 1
    assert ran.err.startswith("error: there is no scepsy.yaml in ")


def test_nothing_is_written(project: Path, scepsy: Scepsy) -> None:
    before = sorted(project.rglob("*"))
    scepsy("profile", "plan", "--project", project)
    assert sorted(project.rglob("*")) == before
