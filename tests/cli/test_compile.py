"""The compile command as its users meet it: CI, reviewers, and people who make mistakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests import published_schemas as published
from tests.conftest import Demo, Scepsy, git


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    """The example, committed, nothing compiled yet."""
    return demo(tmp_path / "demo")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


def commit_all(project: Path, message: str = "Edit") -> None:
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", message)


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(directory).parts
    }


def plan(project: Path, cluster: str = "one-node") -> dict:
    return YAML(typ="safe", pure=True).load(project / "plans" / f"{cluster}.yaml")


def test_compile_writes_a_plan_and_manifests_and_says_what_to_do_next(project: Path, scepsy: Scepsy) -> None:
    ran = scepsy("compile", "--project", project)
    assert (ran.code, ran.err) == (0, "")
    for word in (
        "generator",
        "reranker",
        "Qwen/Qwen3-8B",
        "H100-80GB-HBM3",
        "mean latency",
        "capacity",
        "estimated",
    ):
        assert word in ran.out
    assert "Next: check the files (git status, git diff), then: scepsy compile --commit" in ran.out
    spec = plan(project)["spec"]
    assert {llm["name"] for llm in spec["llms"]} == {"generator", "reranker"}
    assert spec["proof"]["gap"] == 0
    assert set(spec["files"]) == {f for f in tree(project) if f.startswith("rendered/")}


def test_the_plan_holds_what_is_promised_of_it(project: Path, scepsy: Scepsy) -> None:
    scepsy("compile", "--project", project)
    document = plan(project)
    published.validate(document, "Plan")
    spec = document["spec"]
    workflow = spec["workflows"][0]
    assert workflow["target"] == {"rate": "12/s"}
    assert {"mean"} <= set(workflow["predicted"]["latency"])
    assert workflow["predicted"]["capacity"].endswith("/s")
    for instance in spec["instances"]:
        assert {"name", "llm", "node", "gpus", "share"} <= set(instance)
        assert all(gpu.startswith("GPU-") for gpu in instance["gpus"])
    assert {"objective", "predictor", "lowerBound", "achieved", "gap"} <= set(spec["proof"])
    assert {"scepsy.yaml", "workflows/rag-reranker.yaml", "clusters/one-node.yaml"} <= set(spec["inputs"])
    assert "profiles/qwen3-8b-h100.yaml" in spec["inputs"]


def test_compile_twice_gives_the_same_bytes_and_no_second_commit(project: Path, scepsy: Scepsy) -> None:
    assert scepsy("compile", "--project", project, "--commit").code == 0
    before, head = tree(project), git(project, "rev-parse", "HEAD")
    again = scepsy("compile", "--project", project, "--commit")
    assert again.code == 0
    assert "Output: up to date" in again.out
    assert (tree(project), git(project, "rev-parse", "HEAD")) == (before, head)


@pytest.mark.parametrize("environment", [
    {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Asia/Kathmandu"},
    {"PYTHONHASHSEED": "4242", "LC_ALL": "C.UTF-8", "TZ": "America/New_York", "COLUMNS": "40"},
])  # fmt: skip
def test_no_hash_seed_locale_or_time_zone_is_in_the_output(
    project: Path, scepsy: Scepsy, environment: dict[str, str]
) -> None:
    scepsy("compile", "--project", project)
    expected = tree(project)
    shutil.rmtree(project / "plans")
    shutil.rmtree(project / "rendered")
    command = [sys.executable, "-m", "scepsy", "compile", "--project", str(project)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    assert tree(project) == expected


def test_a_commit_says_what_it_was_made_from(project: Path, scepsy: Scepsy) -> None:
    specs = git(project, "rev-parse", "HEAD")
    ran = scepsy("compile", "--project", project, "--commit", "--output", "json")
    made = json.loads(ran.out)["commit"]
    assert made == git(project, "rev-parse", "HEAD")
    message = git(project, "log", "-1", "--format=%B")
    assert message.startswith("Compile one-node\n")
    assert f"Argocd-reference-commit-sha: {specs}" in message
    assert "Argocd-reference-commit-subject: Start from the example rag-reranker" in message
    assert "Scepsy-input: workflows/rag-reranker.yaml sha256:" in message
    assert git(project, "status", "--porcelain") == ""


def test_check_exits_with_2_until_the_output_is_committed(project: Path, scepsy: Scepsy) -> None:
    assert scepsy("compile", "--project", project, "--check").code == 2
    assert not (project / "rendered").exists()
    scepsy("compile", "--project", project)
    ran = scepsy("compile", "--project", project, "--check")
    assert ran.code == 2
    assert "not committed" in ran.out
    scepsy("compile", "--project", project, "--commit")
    assert scepsy("compile", "--project", project, "--check").code == 0
    edit(project / "workflows/rag-reranker.yaml", "12/s", "3/s")
    ran = scepsy("compile", "--project", project, "--check")
    assert ran.code == 2
    assert "Out of date: one-node. Run: scepsy compile --commit" in ran.out


def test_check_finds_a_deleted_and_a_hand_edited_file(project: Path, scepsy: Scepsy) -> None:
    scepsy("compile", "--project", project, "--commit")
    path = project / "rendered/one-node/llm-serving/deployment-gateway.yaml"
    path.write_text(path.read_text() + "# mine\n")
    ran = scepsy("compile", "--project", project, "--check")
    assert ran.code == 2
    assert "edited by hand" in ran.out
    path.unlink()
    assert scepsy("compile", "--project", project, "--check").code == 2


def test_a_hand_edited_file_is_reported_and_kept_without_force(project: Path, scepsy: Scepsy) -> None:
    scepsy("compile", "--project", project, "--commit")
    path = project / "rendered/one-node/llm-serving/deployment-gateway.yaml"
    path.write_text("mine\n")
    before = tree(project)
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "edited by hand since the last compile: rendered/one-node/llm-serving/deployment-gateway.yaml" in ran.err
    assert "--force" in ran.err
    assert tree(project) == before
    assert scepsy("compile", "--project", project, "--force").code == 0
    assert path.read_text() != "mine\n"


def test_stale_files_of_an_earlier_compile_go_and_other_files_stay(project: Path, scepsy: Scepsy) -> None:
    scepsy("compile", "--project", project, "--commit")
    mine = project / "rendered/one-node/llm-serving/networkpolicy.yaml"
    mine.write_text("kind: NetworkPolicy\n")
    before = set(tree(project))
    edit(project / "scepsy.yaml", "namespace: llm-serving", "namespace: other")
    commit_all(project)
    assert scepsy("compile", "--project", project, "--commit").code == 0
    after = set(tree(project))
    assert {f for f in after if f.startswith("rendered/one-node/llm-serving/")} == {
        mine.relative_to(project).as_posix()
    }
    assert len(after) == len(before)
    assert git(project, "status", "--porcelain") == ""


def test_a_plan_is_no_licence_to_remove_other_files(project: Path, scepsy: Scepsy) -> None:
    scepsy("compile", "--project", project)
    victim = project / "README.md"
    digest = subprocess.run(["sha256sum", victim], check=True, capture_output=True, text=True).stdout.split()[0]
    path = project / "plans/one-node.yaml"
    path.write_text(
        path.read_text().replace(
            "  files:\n",
            f"  files:\n    README.md: sha256:{digest}\n    rendered/one-node/../../README.md: sha256:{digest}\n",
            1,
        )
    )
    scepsy("compile", "--project", project, "--force")
    assert victim.exists()


def test_commit_refuses_while_an_input_differs_from_head(project: Path, scepsy: Scepsy) -> None:
    edit(project / "workflows/rag-reranker.yaml", "12/s", "10/s")
    (project / "workflows/new.yaml").write_text(
        (project / "workflows/rag-reranker.yaml").read_text().replace("name: rag-reranker", "name: other")
    )
    head, before = git(project, "rev-parse", "HEAD"), tree(project)
    ran = scepsy("compile", "--project", project, "--commit")
    assert ran.code == 1
    assert "workflows/rag-reranker.yaml: modified" in ran.err
    assert "workflows/new.yaml: untracked" in ran.err
    assert (git(project, "rev-parse", "HEAD"), tree(project)) == (head, before)


def test_staged_and_other_changes_of_the_user_are_not_touched(project: Path, scepsy: Scepsy) -> None:
    (project / "notes.txt").write_text("staged\n")
    git(project, "add", "notes.txt")
    (project / "README.md").write_text("changed\n")
    assert scepsy("compile", "--project", project, "--commit").code == 0
    assert git(project, "diff", "--cached", "--name-only") == "notes.txt"
    assert git(project, "diff", "--name-only") == "README.md"
    assert "notes.txt" not in git(project, "show", "--stat", "HEAD")


def test_json_output_is_one_documented_object_and_nothing_else(project: Path, scepsy: Scepsy) -> None:
    ran = scepsy("compile", "--project", project, "--output", "json")
    result = json.loads(ran.out)
    published.validate(result, "CompileResult")
    assert (result["apiVersion"], result["kind"]) == ("scepsy.dev/v1alpha1", "CompileResult")
    assert result["clusters"][0]["plan"]["cluster"] == "one-node"
    assert ran.err == ""


def test_json_output_of_an_error_is_an_object_too_with_positions(project: Path, scepsy: Scepsy) -> None:
    edit(project / "workflows/rag-reranker.yaml", "12/s", "12")
    ran = scepsy("compile", "--project", project, "--output", "json")
    assert ran.code == 1
    result = json.loads(ran.out)
    published.validate(result, "CompileResult")
    problem = result["error"]["problems"][0]
    assert (problem["path"], problem["line"], problem["column"]) == ("workflows/rag-reranker.yaml", 9, 12)


def test_a_result_with_fractions_satisfies_its_schema(tmp_path: Path, scepsy: Scepsy) -> None:
    scepsy("init", tmp_path / "o", "--example", "oversubscribed")
    result = json.loads(scepsy("compile", "--project", tmp_path / "o", "--output", "json").out)
    published.validate(result, "CompileResult")
    assert {i["share"] for i in result["clusters"][0]["plan"]["instances"]} < {n / 10 for n in range(1, 10)}


def test_the_rate_that_an_error_promises_does_compile(project: Path, scepsy: Scepsy) -> None:
    edit(project / "workflows/rag-reranker.yaml", "12/s", "60/s")
    promised = scepsy("compile", "--project", project).err.partition("rag-reranker at most ")[2].split("\n")[0]
    edit(project / "workflows/rag-reranker.yaml", "60/s", promised)
    assert scepsy("compile", "--project", project).code == 0


@pytest.mark.parametrize(("old", "new", "message"), [
    ("12/s", "99999999999999999999999999/s", "a rate must lie between"),
    ("12/s", "0.00000000000000001/h", "a rate must lie between"),
    ("120ms", "99999999999999999h", "a duration must be shorter"),
    ("mean: 240, max: 1024", "mean: 200000", "calls have up to 209,000 tokens; the limit is 16,384"),
    ("fanOut: 20 ", "fanOut: 20\n          parallelism: 1000 ", "parallelism is above calls"),
    ("maxModelLen: 4096", "podTemplate: {env: {CUDA_VISIBLE_DEVICES: all}}", '"CUDA_VISIBLE_DEVICES" is set by Scepsy'),
])  # fmt: skip
def test_absurd_figures_are_refused_where_they_stand(
    project: Path, scepsy: Scepsy, old: str, new: str, message: str
) -> None:
    edit(project / "workflows/rag-reranker.yaml", old, new)
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert message in ran.err, ran.err


def test_output_that_cannot_be_written_is_an_error_not_a_traceback(project: Path, scepsy: Scepsy) -> None:
    command = [sys.executable, "-m", "scepsy", "compile", "--project", str(project)]
    ascii_only = subprocess.run(
        command, check=False, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, text=True
    )
    assert (ascii_only.returncode, ascii_only.stderr) == (0, "")
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


def test_only_what_bears_on_a_cluster_is_an_input_of_its_plan(project: Path, scepsy: Scepsy) -> None:
    text = (project / "clusters/one-node.yaml").read_text()
    (project / "clusters/second.yaml").write_text(
        text.replace("name: one-node", "name: second").replace("GPU-", "GPU-2")
    )
    assert scepsy("compile", "--project", project).code == 0
    assert "clusters/second.yaml" not in plan(project)["spec"]["inputs"]
    assert "clusters/one-node.yaml" not in plan(project, "second")["spec"]["inputs"]
    assert (project / "rendered/second/llm-serving").is_dir()
    assert scepsy("compile", "--project", project, "--cluster", "second").code == 0
    ran = scepsy("compile", "--project", project, "--cluster", "secnd")
    assert (ran.code, 'there is no cluster "secnd"' in ran.err, 'did you mean "second"?' in ran.err) == (1, True, True)


MISTAKES = {
    "a model without a profile": (
        "workflows/rag-reranker.yaml", "Qwen/Qwen3-8B", "Qwen/Qwen3-9B",
        ["workflows/rag-reranker.yaml:13:7: no profile for the model Qwen/Qwen3-9B", 'did you mean "Qwen/Qwen3-8B"?'],
    ),
    "an unreachable target": (
        "workflows/rag-reranker.yaml", "12/s", "60/s",
        ["no allocation sustains rag-reranker 60/s: needs", "more NVIDIA-H100-80GB-HBM3, or rag-reranker at most"],
    ),
    "a degree that is not profiled": (
        "workflows/rag-reranker.yaml", "maxModelLen: 16384", "tensorParallel: [8]\n      maxModelLen: 16384",
        ['the LLM "generator" (Qwen/Qwen3-8B) fits no GPU group of the cluster', "no NVLink domain has 8 usable GPUs"],
    ),
    "a maximum beyond the model's": (
        "workflows/rag-reranker.yaml", "maxModelLen: 16384", "maxModelLen: 50000",
        ["workflows/rag-reranker.yaml:14:7: maxModelLen exceeds the model's context length of 40,960 tokens"],
    ),
    "calls that are longer than allowed": (
        "workflows/rag-reranker.yaml", "maxModelLen: 16384", "maxModelLen: 9000",
        ["calls have up to 10,024 tokens; the limit is 9,000", "raise maxModelLen to at least 10,024 tokens"],
    ),
    "a cluster of another product": (
        "clusters/one-node.yaml", "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S",
        ["no usable profile of Qwen/Qwen3-8B on a GPU of cluster one-node", "the cluster has: NVIDIA-L40S"],
    ),
    "a cluster whose GPUs are all reserved": (
        "clusters/one-node.yaml", "      nvlinkDomains", "      reserved: [0, 1, 2, 3]\n      nvlinkDomains",
        ["every GPU of the cluster is reserved"],
    ),
    "a mean that cannot be reached": (
        "workflows/rag-reranker.yaml", "{p95: 8s}", "{mean: 500ms}",
        ["rag-reranker cannot reach a mean latency of 500ms at 12/s: with the whole cluster to itself it is at least"],
    ),
    "a model too large for the GPUs": (
        "profiles/qwen3-8b-h100.yaml", "parameters: 8190735360", "parameters: 819073536000",
        ['the LLM "generator" (Qwen/Qwen3-8B) fits no GPU group', "GiB short"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained_and_nothing_is_written(project: Path, scepsy: Scepsy, mistake: str) -> None:
    file, old, new, expected = MISTAKES[mistake]
    edit(project / file, old, new)
    before = tree(project)
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert ran.out == ""
    assert "Traceback" not in ran.err
    for words in expected:
        assert words in ran.err, ran.err
    assert tree(project) == before


def test_a_measured_profile_of_another_engine_version_is_not_used(project: Path, scepsy: Scepsy) -> None:
    edit(project / "profiles/qwen3-8b-h100.yaml", "source: estimated", "source: measured")
    edit(project / "profiles/qwen3-8b-h100.yaml", "version: 0.24.0", "version: 0.23.0")
    ran = scepsy("compile", "--project", project)
    assert ran.code == 1
    assert "profile qwen3-8b-h100 is stale: measured with vLLM 0.23.0, the engine is 0.24.0" in ran.err


def test_a_mean_objective_is_enforced(project: Path, scepsy: Scepsy) -> None:
    scepsy("compile", "--project", project)
    free = float(plan(project)["spec"]["workflows"][0]["predicted"]["latency"]["mean"].removesuffix("s"))
    edit(project / "workflows/rag-reranker.yaml", "{p95: 8s}", f"{{mean: {free * 0.95:.3f}s}}")
    ran = scepsy("compile", "--project", project)
    # The best plan has the least latency of this one workflow, so a smaller bound leaves nothing.
    assert ran.code == 1
    assert "within their latency objectives: needs" in ran.err
    edit(project / "workflows/rag-reranker.yaml", f"{{mean: {free * 0.95:.3f}s}}", f"{{mean: {free * 1.1:.3f}s}}")
    assert scepsy("compile", "--project", project).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "--nonsense"], "No such option"),
        (["compile", "--check", "--commit"], "--check writes nothing"),
        (["compile", "--output", "xml"], "is not one of"),
        (["compile", "--project", "/nonexistent"], "there is no scepsy.yaml"),
        (["explain", "nobody"], "there is no scepsy.yaml"),
        (["schema", "Workfow"], 'did you mean "Workflow"?'),
        (["frobnicate"], "No such command"),
    ],
)
def test_usage_errors_exit_with_1_too(
    scepsy: Scepsy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = scepsy(*arguments)
    assert ran.code == 1
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_detached_head_works(project: Path, scepsy: Scepsy) -> None:
    git(project, "checkout", "-q", "--detach")
    assert scepsy("compile", "--project", project, "--commit").code == 0
    assert "Compile one-node" in git(project, "log", "-1", "--format=%s")


def test_an_unborn_branch_says_to_commit_the_inputs_first(project: Path, scepsy: Scepsy) -> None:
    shutil.rmtree(project / ".git")
    git(project, "init", "-q")
    ran = scepsy("compile", "--project", project, "--commit")
    assert ran.code == 1
    assert "commit them first" in ran.err
    assert scepsy("compile", "--project", project).code == 0
    assert scepsy("compile", "--project", project, "--check").code == 2


def test_a_bare_repository_says_to_clone_it(project: Path, scepsy: Scepsy, tmp_path: Path) -> None:
    git(project, "clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    ran = scepsy("compile", "--project", tmp_path / "bare.git")
    assert ran.code == 1
    assert "clone it" in ran.err


def test_without_an_identity_commit_says_how_to_set_one(project: Path, scepsy: Scepsy, git_home: Path) -> None:
    (git_home / ".gitconfig").write_text("")
    ran = scepsy("compile", "--project", project, "--commit")
    assert ran.code == 1
    assert "git config" in ran.err
    assert not (project / "rendered").exists()


def test_outside_a_repository_compile_works_and_commit_says_what_is_missing(project: Path, scepsy: Scepsy) -> None:
    shutil.rmtree(project / ".git")
    assert scepsy("compile", "--project", project).code == 0
    assert scepsy("compile", "--project", project, "--check").code == 0
    ran = scepsy("compile", "--project", project, "--commit")
    assert ran.code == 1
    assert "git init" in ran.err


def test_a_project_in_a_folder_of_a_repository_keeps_its_paths(project: Path, scepsy: Scepsy, tmp_path: Path) -> None:
    whole = tmp_path / "mono"
    (whole / "teams").mkdir(parents=True)
    shutil.rmtree(project / ".git")
    shutil.copytree(project, whole / "teams/search")
    git(whole, "init", "-q")
    commit_all(whole)
    assert scepsy("compile", "--project", whole / "teams/search", "--commit").code == 0
    files = plan(whole / "teams/search")["spec"]["files"]
    assert all(name.startswith("teams/search/rendered/one-node/") for name in files)
    assert scepsy("compile", "--project", whole / "teams/search", "--check").code == 0


def test_explain_says_why(project: Path, scepsy: Scepsy) -> None:
    ran = scepsy("explain", "--project", project)
    assert ran.code == 0
    for words in (
        "limited by generator",
        "outside LLMs",
        "Next-best options",
        "With one GPU less, or one more on another node",
    ):
        assert words in ran.out
    result = json.loads(scepsy("explain", "rag-reranker", "--project", project, "--output", "json").out)
    published.validate(result, "ExplainResult")
    assert sum(part["fraction"] for part in result["workflows"][0]["parts"]) == pytest.approx(1.0)
    fewer, more = result["budgets"]
    assert (fewer["gpus"], more["gpus"]) == (3, 5)
    assert fewer["objective"] >= result["objective"] >= more["objective"]
    ran = scepsy("explain", "rag", "--project", project)
    assert (ran.code, "there is no workflow" in ran.err) == (1, True)


def test_init_refuses_a_directory_with_something_in_it(tmp_path: Path, scepsy: Scepsy) -> None:
    (tmp_path / "file").write_text("x")
    ran = scepsy("init", tmp_path)
    assert (ran.code, "is not empty" in ran.err) == (1, True)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_example_inside_a_repository_is_one_of_its_own_and_says_so(tmp_path: Path, scepsy: Scepsy) -> None:
    git(tmp_path, "init", "-q", "outer")
    ran = scepsy("init", tmp_path / "outer" / "demo", "--example")
    assert ran.code == 0
    outer = f"It is inside the Git repository {tmp_path / 'outer'}, but is a separate repository, not part of that one"
    assert outer in ran.out.splitlines()
    assert "Git repository" not in scepsy("init", tmp_path / "demo", "--example").out.replace("Made it a Git", "")


def test_an_empty_project_says_what_is_missing(tmp_path: Path, scepsy: Scepsy) -> None:
    assert scepsy("init", tmp_path / "new").code == 0
    ran = scepsy("compile", "--project", tmp_path / "new")
    assert ran.code == 1
    printed = ran.err.splitlines()
    for what, hint in (
        ('there is no Workflow document: no .yaml file in "workflows"', "scepsy init DIR --example makes a project"),
        ('there is no Cluster document: no .yaml file in "clusters"', "scepsy cluster discover NAME --write"),
        (
            'there is no Profile document: no .yaml file in "profiles"',
            "scepsy profile estimate MODEL --product PRODUCT",
        ),
    ):
        [at] = [number for number, line in enumerate(printed) if what in line]
        assert any(hint in line for line in printed[at + 1 : at + 4]), ran.err


def test_what_stands_in_an_error_does_nothing_to_the_terminal(scepsy: Scepsy) -> None:
    ran = scepsy("schema", "\x1b]0;owned\x07Plan\x9b2J")
    assert ran.code == 1
    assert ran.err.startswith('error: there is no kind "\\x1b]0;owned\\x07Plan\\x9b2J"\n  hint: ')


def test_the_examples_are_listed_without_a_directory(scepsy: Scepsy) -> None:
    ran = scepsy("init", "--example", "list")
    assert (ran.code, ran.err) == (0, "")
    assert {"rag-reranker", "both"} <= {line.split()[0] for line in ran.out.splitlines()}
    missing = scepsy("init", "--example", "both")
    assert (missing.code, "Missing argument 'DIRECTORY'" in missing.err) == (1, True)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("compile",), "CompileResult"),
        (("explain",), "ExplainResult"),
        (("drift",), "DriftResult"),
        (("profile", "plan"), "ProfilePlanResult"),
        (("trace", "stats"), "TraceStatistics"),
    ],
    ids=" ".join,
)
def test_the_help_of_output_names_what_the_command_prints(command: tuple[str, ...], kind: str, scepsy: Scepsy) -> None:
    words = " ".join(scepsy(*command, "--help").out.split())
    assert f"json prints one versioned object (scepsy schema {kind})" in words
    assert scepsy("schema", kind).code == 0


def test_an_example_on_a_machine_where_git_knows_nobody_still_commits(
    tmp_path: Path, scepsy: Scepsy, git_home: Path
) -> None:
    (git_home / ".gitconfig").write_text("")
    ran = scepsy("init", tmp_path / "demo", "--example", "both")
    assert ran.code == 0
    assert "Git knows no user.email here" in ran.out
    assert scepsy("compile", "--project", tmp_path / "demo", "--commit").code == 0


def test_a_template_override_is_an_input_of_the_plan(project: Path, scepsy: Scepsy) -> None:
    (project / "overrides").mkdir()
    shipped = Path(__file__).resolve().parents[2] / "templates" / "service-llm.yaml.j2"
    (project / "overrides" / "service-llm.yaml.j2").write_text(shipped.read_text())
    edit(project / "scepsy.yaml", "namespace: llm-serving", "namespace: llm-serving\n  paths: {templates: overrides}")
    assert scepsy("compile", "--project", project).code == 0
    assert "overrides/service-llm.yaml.j2" in plan(project)["spec"]["inputs"]
