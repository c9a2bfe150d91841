"""`scepsy profile submit` and `collect`, and `scepsy compile --profile`, as their users meet them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.conftest import Demo, Ran, Scepsy, git
from tests.profiling.jobs.argo_api import NAMESPACE, TOKEN, FakeArgo, measure, parameters, points
from tests.profiling.jobs.test_jobs_workflow import job

from scepsy.documents import emit
from scepsy.documents.compressed_text import unpack
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs import following
from scepsy.profiling.jobs.argo_client import ArgoJobs, Jobs, KubernetesJobs
from scepsy.profiling.jobs.submit import Submitted, submit_job
from scepsy.profiling.planning.sweep import Shape

IMAGE = "registry.example.com/scepsy-vllm:v0.24.0"


@pytest.fixture
def project(tmp_path: Path, demo: Demo, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project: two LLMs of one workflow, a cluster of four GPUs, nothing measured or estimated."""
    directory = demo(tmp_path / "demo")
    shutil.rmtree(directory / "profiles")
    with (directory / "scepsy.yaml").open("a") as file:
        file.write(f"  profiling:\n    image: {IMAGE}\n    shares: [0.5]\n")
    spec = directory / "workflows" / "rag-reranker.yaml"
    # One degree is enough here.
    spec.write_text(spec.read_text().replace("    - name: ", "    - tensorParallel: [1]\n      name: "))
    commit_all(directory)
    monkeypatch.setattr(following, "POLL", 0.01)
    return directory


@pytest.fixture
def command(scepsy: Scepsy, project: Path) -> Callable[..., Ran]:
    """Run a command on the project; the token is in nothing that it prints."""

    def run(*arguments: object) -> Ran:
        ran = scepsy(*arguments, "--project", project)
        assert TOKEN not in ran.out + ran.err
        assert "Traceback" not in ran.err
        return ran

    return run


def commit_all(directory: Path, message: str = "Edit") -> None:
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "-m", message)


def measures(argo: FakeArgo, **failures: str) -> None:
    """Have the cluster measure while a command waits: from the third poll on, all is over."""
    polls = [0]

    def poll(what: str) -> None:
        polls[0] += what.startswith("GET") and "sweep in" in what.replace("+", " ")
        if polls[0] >= 3:
            measure(argo, **failures)

    argo.before_answer = poll


def untouched(directory: Path) -> tuple[str, ...]:
    return (
        git(directory, "status", "--porcelain", "-uall"),
        git(directory, "rev-parse", "HEAD"),
        git(directory, "diff", "--cached"),
    )


def branches(directory: Path) -> list[str]:
    return git(directory, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()


# ----------------------------------------------------------------------------------------------------------- submit


def test_submit_says_what_it_submitted_and_what_to_do_next(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    ran = command("profile", "submit")
    assert (ran.code, ran.err) == (0, "")
    small, large = sorted(argo.workflows)
    product = "NVIDIA-H100-80GB-HBM3"
    assert ran.out.splitlines()[:2] == [
        f"submitted  {small}: Qwen/Qwen3-0.6B on {product}, 2 points (tp1-s10 tp1-s5), about 1.1 GPU-hours",
        f"submitted  {large}: Qwen/Qwen3-8B on {product}, 2 points (tp1-s10 tp1-s5), about 1.1 GPU-hours",
    ]
    assert ran.out.splitlines()[2].startswith("Next, when they are done: scepsy profile collect")
    given = parameters(argo.workflows[large])
    assert (given["image"], given["model"], given["llm"]) == (IMAGE, "Qwen/Qwen3-8B", "generator")
    assert len(unpack(given["calls"], "calls").splitlines()) >= 400
    assert untouched(project)[0] == ""


def test_a_dry_run_prints_what_would_be_submitted_and_sends_no_request(command: Callable[..., Ran], argo: FakeArgo) -> None:  # fmt: skip
    ran = command("profile", "submit", "--dry-run")
    assert (ran.code, ran.err, argo.asked) == (0, "", [])
    printed = list(YAML(typ="safe", pure=True).load_all(ran.out))
    assert command("profile", "submit", "--dry-run").out == ran.out
    command("profile", "submit")
    assert printed == [workflow for _, workflow in sorted(argo.workflows.items())]
    assert ran.out.encode() == emit(*printed)


def test_a_second_submission_joins_the_first(command: Callable[..., Ran], argo: FakeArgo) -> None:
    command("profile", "submit")
    ran = command("profile", "submit")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["joined", "joined", "Next,"]
    assert len(argo.workflows) == 2
    measure(argo)
    ran = command("profile", "submit")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["finished", "finished", "Next:"]


@pytest.mark.parametrize("failed_before", [False, True])
def test_two_submitters_at_once_make_one_workflow(argo: FakeArgo, kubeconfig: Path, failed_before: bool) -> None:
    made = job(Shape(1, 10), Shape(1, 5))
    if failed_before:
        submit_job(KubernetesJobs(), made)
        measure(argo, tp1_s5="the server died")
    barrier = threading.Barrier(2)
    first = threading.local()

    def both_have_listed(what: str) -> None:
        # Both have their list before either creates.
        if what.startswith("POST") and not hasattr(first, "passed"):
            first.passed = True
            barrier.wait(10)

    argo.before_answer = both_have_listed
    found: list[Submitted] = []
    clients: list[Jobs] = [KubernetesJobs(), ArgoJobs(argo.url, TOKEN)]
    threads = [threading.Thread(target=lambda jobs=jobs: found.append(submit_job(jobs, made))) for jobs in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(one.how for one in found) == ["joined", "submitted"]
    assert len({one.name for one in found}) == 1
    assert len(argo.workflows) == 1 + failed_before


def test_part_of_what_runs_already_is_joined_and_part_of_what_is_done_is_found(argo: FakeArgo, kubeconfig: Path) -> None:  # fmt: skip
    jobs = KubernetesJobs()
    whole, part, more = job(Shape(1, 10), Shape(1, 5)), job(Shape(1, 5)), job(Shape(1, 5), Shape(1, 2))
    submit_job(jobs, whole)
    joined = submit_job(jobs, part)
    assert (joined.how, joined.base) == ("joined", whole.name)
    assert submit_job(jobs, more).how == "submitted"
    assert submit_job(jobs, job(Shape(1, 5), model="other/model")).how == "submitted"
    measure(argo)
    done = submit_job(jobs, part)
    assert (done.how, done.base) == ("finished", whole.name)
    assert [o.base for o in following.follow(jobs, [done, joined], lambda outcomes: None, 10)] == [whole.name]


def test_a_foreign_workflow_of_that_name_is_an_error(argo: FakeArgo, kubeconfig: Path) -> None:
    made = job(Shape(1, 10))
    argo.workflows[made.name] = {"metadata": {"name": made.name}}
    with pytest.raises(ScepsyError, match="is not a Scepsy job"):
        submit_job(KubernetesJobs(), made)


@pytest.mark.parametrize(("change", "message", "hint"), [
    (("scepsy.yaml", f"    image: {IMAGE}\n", ""), "no image is set for profiling jobs", "spec.profiling.image"),
    (("clusters/one-node.yaml", "kind: Cluster", "kind: Clustr"), "Clustr", ""),
])  # fmt: skip
def test_projects_that_cannot_be_submitted(command: Callable[..., Ran], project: Path, change: tuple[str, str, str], message: str, hint: str) -> None:  # fmt: skip
    path = project / change[0]
    assert change[1] in path.read_text()
    path.write_text(path.read_text().replace(change[1], change[2]))
    ran = command("profile", "submit")
    assert ran.code == 1
    assert message in ran.err
    assert hint in ran.err


def test_a_project_with_several_clusters_must_say_which(command: Callable[..., Ran], project: Path, argo: FakeArgo) -> None:  # fmt: skip
    text = (project / "clusters/one-node.yaml").read_text()
    (project / "clusters/other.yaml").write_text(
        text.replace("name: one-node", "name: other").replace("GPU-a", "GPU-b")
    )
    for arguments in (("profile", "submit"), ("profile", "collect"), ("compile", "--profile")):
        ran = command(*arguments)
        assert (ran.code, argo.asked) == (1, [])
        assert "name one with --cluster: one-node, other" in ran.err
    assert command("profile", "submit", "--cluster", "other").code == 0


def test_no_gpu_that_may_be_used_is_an_error_before_anything_is_submitted(command: Callable[..., Ran], project: Path, argo: FakeArgo, scepsy: Scepsy) -> None:  # fmt: skip
    shutil.copytree(Path(__file__).parents[3] / "examples" / "profiles", project / "profiles")
    cluster = project / "clusters" / "one-node.yaml"
    text = cluster.read_text()
    # Two GPUs, on both of which instances are planned.
    kept = [line for line in text.splitlines() if "00000000000" not in line or line.rstrip().endswith(("0000, memory: 80Gi}", "0001, memory: 80Gi}"))]  # fmt: skip
    cluster.write_text("\n".join(kept).replace("[[0, 1, 2, 3]]", "[[0, 1]]") + "\n")
    workflow = project / "workflows" / "rag-reranker.yaml"
    workflow.write_text(workflow.read_text().replace("rate: 12/s", "rate: 8/s"))
    commit_all(project)
    compiled = scepsy("compile", "--commit", "--project", project)
    assert compiled.code == 0, compiled.err
    ran = command("profile", "submit")
    used = {
        gpu
        for i in YAML(typ="safe", pure=True).load(project / "plans" / "one-node.yaml")["spec"]["instances"]
        for gpu in i["gpus"]
    }
    assert len(used) == 2
    assert (ran.code, argo.asked) == (1, [])
    assert "no GPU NVIDIA-H100-80GB-HBM3 may be used for profiling" in ran.err
    assert "list them as `reserved`" in ran.err
    cluster.write_text(cluster.read_text() + "      reserved: [1]\n")
    assert command("profile", "submit").code == 0
    claim = json.loads(json.loads(parameters(next(iter(argo.workflows.values())))["claims"])[0]["manifest"])
    assert "0001" in json.dumps(claim)
    assert '0000"' not in json.dumps(claim)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--dry-run", "--wait"), "--dry-run submits nothing"),
    (("--branch", "x"), "--branch is for the results"),
    (("--timeout", "3", "--wait"), "Invalid value for '--timeout': \"3\" is not a duration"),
    (("--context", "nowhere"), 'the kubeconfig has no context "nowhere"'),
    (("--context", "elsewhere"), "127.0.0.1:1 cannot be reached: Connection refused"),
    (("--context", "here", "--argo-server", "x"), "exclude each other"),
    (("--cluster", "one-nod"), 'did you mean "one-node"?'),
])  # fmt: skip
def test_misuse(command: Callable[..., Ran], argo: FakeArgo, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("scepsy.profiling.jobs.argo_client.UNREACHED_DEADLINE", 0.1)
    ran = command("profile", "submit", *arguments)
    assert (ran.code, ran.out, argo.workflows) == (1, "", {})
    assert message in ran.err


def test_nothing_is_submitted_where_one_of_several_would_be_refused(
    command: Callable[..., Ran], argo: FakeArgo
) -> None:
    argo.fail(422, match="^POST", times=0)
    asked: list[str] = []

    def second(what: str) -> None:
        if what.startswith("POST"):
            asked.append(what)
            if len(asked) == 2:
                argo.fail(422, match="^POST", body='{"message": "exceeded quota"}')

    argo.before_answer = second
    ran = command("profile", "submit")
    assert ran.code == 1
    assert "(422): exceeded quota" in ran.err
    assert argo.workflows == {}


# ----------------------------------------------------------------------------------------------- waiting, collecting


@pytest.mark.parametrize("server", [False, True])
def test_submit_and_wait_brings_one_commit_on_a_branch(
    command: Callable[..., Ran], argo: FakeArgo, project: Path, server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "notes.txt").write_text("unfinished")
    git(project, "add", "notes.txt")
    before = untouched(project)
    measures(argo)
    monkeypatch.setenv("ARGO_TOKEN", TOKEN)
    ran = command("profile", "submit", "--wait", *(["--argo-server", argo.url] if server else []))
    assert ran.code == 0, ran.err
    assert untouched(project) == before
    (branch,) = (name for name in branches(project) if name != "main")
    assert branch.startswith("profiles/")
    small, large = sorted(argo.workflows)
    assert git(project, "diff", "--name-only", f"main...{branch}").split() == [
        f"profiles/{small}.yaml",
        f"profiles/{large}.yaml",
    ]
    assert f"Next: git push origin {branch}, and open a pull request" in ran.out
    message = git(project, "log", "-1", "--format=%B", branch)
    assert message.startswith("Profile Qwen/Qwen3-0.6B on NVIDIA-H100-80GB-HBM3 and 1 more\n")
    assert "Qwen/Qwen3-8B: tp 1 share 0.5 measured at 4 concurrencies" in message
    assert f"Argocd-reference-commit-sha: {git(project, 'rev-parse', 'main')}" in message
    # A line per change of state, where there is no terminal.
    assert f"{large} tp1-s5: waiting" in ran.err
    assert f"{large} tp1-s5: measured" in ran.err

    again = command("profile", "collect", *(["--argo-server", argo.url] if server else []))
    assert (again.code, again.out.count("Nothing new")) == (0, 1)
    assert f"already on branch {branch}." in again.out
    assert branches(project) == sorted(["main", branch])

    git(project, "merge", "-q", branch)
    ran = command("profile", "submit")
    assert (ran.code, ran.out) == (
        0,
        "Nothing to measure: all shapes are measured or ruled out (scepsy profile plan).\n",
    )
    assert command("profile", "collect").out.startswith("Nothing new: the project has all results.")


def test_collect_commits_results_that_no_command_waited_for(
    command: Callable[..., Ran], argo: FakeArgo, project: Path
) -> None:
    ran = command("profile", "collect")
    assert (ran.code, ran.out.partition(":")[0]) == (0, "Nothing to collect")
    command("profile", "submit")
    ran = command("profile", "collect")
    assert ran.code == 0
    small, large = sorted(argo.workflows)
    assert ran.out.splitlines() == [
        f"still running: {small}: 2 waiting",
        f"still running: {large}: 2 waiting",
        "Nothing new: the project has all results.",
    ]
    measure(argo)
    ran = command("profile", "collect", "--branch", "new-profiles")
    assert ran.code == 0
    assert f"on branch new-profiles: profiles/{small}.yaml profiles/{large}.yaml" in ran.out
    assert "already on branch new-profiles." in command("profile", "collect").out
    assert branches(project) == ["main", "new-profiles"]


def test_other_projects_and_clusters_results_are_left_alone(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    command("profile", "submit")
    measure(argo)
    for workflow in argo.workflows.values():
        annotations = workflow["metadata"]["annotations"]
        request = json.loads(annotations["scepsy.dev/request"])
        annotations["scepsy.dev/request"] = json.dumps({**request, "project": "other"})
    assert command("profile", "collect").out.startswith("Nothing to collect")


def test_results_of_another_engine_version_are_left_there(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    command("profile", "submit")
    measure(argo)
    spec = project / "scepsy.yaml"
    spec.write_text(spec.read_text().replace("version: 0.24.0", "version: 0.25.0"))
    ran = command("profile", "collect")
    assert ran.code == 0
    assert ran.out.count("measured with vLLM 0.24.0, the project uses 0.25.0") == 2
    assert branches(project) == ["main"]


@pytest.mark.parametrize(("branch", "message"), [
    ("a..b", "'a..b' is not a valid branch name"),
    ("main/new", "cannot create the branch main/new: the branch main exists"),
])  # fmt: skip
def test_a_branch_that_cannot_be_made_is_an_error_before_anything_is_measured(command: Callable[..., Ran], argo: FakeArgo, branch: str, message: str) -> None:  # fmt: skip
    ran = command("profile", "submit", "--wait", "--branch", branch)
    assert (ran.code, argo.asked) == (1, [])
    assert message in ran.err


def test_credentials_that_expire_while_waiting_end_it_and_the_jobs_continue(command: Callable[..., Ran], argo: FakeArgo) -> None:  # fmt: skip
    argo.fail(401, match="sweep.in")
    ran = command("profile", "submit", "--wait")
    assert ran.code == 1
    assert "rejected the credentials (401): made to answer 401; the jobs continue" in ran.err
    assert "collect the results later: scepsy profile collect" in ran.err


def test_points_that_failed_are_reported_and_only_they_are_measured_again(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    measures(argo, tp1_s5="the server died")
    ran = command("profile", "submit", "--wait")
    assert ran.code == 1
    small, large = sorted(argo.workflows)
    assert "2 of 4 points failed" in ran.err
    assert f"{large} tp1-s5: the server died" in ran.err
    assert "re-run the command: only these points are measured again" in ran.err
    assert f"profiles/{large}.yaml" in ran.out  # what is good was kept

    measures(argo)
    ran = command("profile", "submit", "--wait", "--branch", "complete")
    assert ran.code == 0, ran.err
    assert sorted(argo.workflows) == [small, f"{small}-r2", large, f"{large}-r2"]
    assert f"submitted  {large}-r2" in ran.out
    assert "attempt 2, for points that failed" in ran.out
    (resumed,) = points(argo.workflows[f"{large}-r2"]).values()
    assert resumed["name"] == "tp1-s5"
    assert unpack(resumed["resume"], "journal") == '{"arguments":{}}\n'
    documents = list(YAML(typ="safe", pure=True).load_all(git(project, "show", f"complete:profiles/{large}.yaml")))
    assert [document["metadata"]["name"] for document in documents] == [f"{large}-tp1-s10", f"{large}-tp1-s5"]


def test_points_that_failed_are_reported_by_collect(command: Callable[..., Ran], argo: FakeArgo) -> None:
    command("profile", "submit")
    measure(argo, tp1_s5="out of \x1b[31mluck")
    ran = command("profile", "collect")
    assert ran.code == 0
    assert "tp1-s5: out of \\x1b[31mluck" in ran.err


def test_a_branch_of_that_name_with_something_else_is_not_touched(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    git(project, "branch", "taken")
    command("profile", "submit")
    measure(argo)
    ran = command("profile", "collect", "--branch", "taken")
    assert ran.code == 1
    assert "the branch taken exists, with other content" in ran.err
    assert git(project, "rev-parse", "taken") == git(project, "rev-parse", "main")


def test_without_a_repository_the_profiles_are_written(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    shutil.rmtree(project / ".git")
    measures(argo, tp1_s5="the server died")
    ran = command("profile", "submit", "--wait")
    assert ran.code == 1
    assert "Next: scepsy compile" in ran.out
    files = sorted((project / "profiles").iterdir())
    assert [file.stem for file in files] == sorted(argo.workflows)
    measures(argo)
    assert command("profile", "submit", "--wait").code == 0
    # With these Profiles, less is missing: that is another sweep, which goes on where the first one failed.
    assert len(list((project / "profiles").iterdir())) == 4
    renewed = [points(w)["tp1-s5"] for w in argo.workflows.values() if set(points(w)) == {"tp1-s5"}]
    assert [unpack(point["resume"], "journal") for point in renewed] == ['{"arguments":{}}\n'] * 2
    assert command("profile", "collect").out.startswith("Nothing new")


def test_a_deleted_job_is_an_error(command: Callable[..., Ran], argo: FakeArgo) -> None:
    def delete(what: str) -> None:
        if "sweep in" in what.replace("+", " "):
            argo.workflows.clear()

    argo.before_answer = delete
    ran = command("profile", "submit", "--wait")
    assert ran.code == 1
    assert f"no longer exists in namespace {NAMESPACE}: deleted" in ran.err


def test_waiting_ends_at_the_timeout_and_the_jobs_continue(command: Callable[..., Ran], argo: FakeArgo) -> None:
    ran = command("profile", "submit", "--wait", "--timeout", "50ms")
    assert ran.code == 1
    assert "--timeout expired; the jobs continue" in ran.err
    assert "collect the results later: scepsy profile collect" in ran.err
    assert len(argo.workflows) == 2


def test_a_cluster_that_is_away_for_a_while_is_waited_for(command: Callable[..., Ran], argo: FakeArgo) -> None:
    measures(argo)
    argo.fail(kind="reset", match="sweep.in", times=1)
    argo.fail(503, match="sweep.in", times=1)
    assert command("profile", "submit", "--wait").code == 0


def test_ctrl_c_leaves_the_jobs_running_and_says_how_to_collect(project: Path, argo: FakeArgo) -> None:
    arguments = [
        sys.executable,
        "-m",
        "scepsy",
        "profile",
        "submit",
        "--wait",
        "--context",
        "here",
        "--project",
        str(project),
    ]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    until = time.monotonic() + 30
    while not any("sweep+in" in what or "sweep in" in what for what in argo.asked) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1, err
    assert "interrupted; the jobs continue" in err
    assert f"collect the results later: scepsy profile collect --context here --project {project}" in err
    assert "Traceback" not in err
    assert len(argo.workflows) == 2


# -------------------------------------------------------------------------------------------------- compile --profile


def test_from_a_new_spec_to_manifests_in_one_command(
    command: Callable[..., Ran], argo: FakeArgo, project: Path
) -> None:
    measures(argo)
    ran = command("compile", "--profile", "--commit", "--output", "json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert [llm["profile"]["source"] for llm in result["clusters"][0]["plan"]["llms"]] == ["measured", "measured"]
    subjects = git(project, "log", "--format=%s").splitlines()
    assert subjects[:3] == ["Compile one-node", "Profile Qwen/Qwen3-0.6B on NVIDIA-H100-80GB-HBM3 and 1 more", "Edit"]
    assert untouched(project)[0] == ""
    assert branches(project) == ["main"]
    asked = len(argo.asked)
    ran = command("compile", "--profile", "--commit")
    assert ran.code == 0
    assert "Output: up to date" in ran.out
    assert len(argo.asked) == asked  # nothing is missing: no request is sent


def test_compile_goes_on_without_points_that_it_can_do_without(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    measures(argo, tp1_s5="out of luck")
    ran = command("compile", "--profile")
    assert ran.code == 0, ran.err
    assert "warning: compiled without these measurements, which failed:" in ran.err
    assert "tp1-s5: out of luck" in ran.err
    assert "Next: check the files" in ran.out


def test_compile_fails_with_the_reasons_where_an_llm_has_no_profile(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    measures(argo, tp1_s5="out of luck", tp1_s10="out of memory")
    ran = command("compile", "--profile")
    assert ran.code == 1
    assert "there is no Profile document" in ran.err
    assert "these measurements failed:" in ran.err
    assert "tp1-s10: out of memory" in ran.err
    assert not (project / "plans").exists()


def test_inputs_that_are_not_committed_are_an_error_before_anything_is_measured(command: Callable[..., Ran], argo: FakeArgo, project: Path) -> None:  # fmt: skip
    spec = project / "workflows" / "rag-reranker.yaml"
    spec.write_text(spec.read_text() + "# edited\n")
    ran = command("compile", "--profile", "--commit")
    assert (ran.code, argo.asked) == (1, [])
    assert "workflows/rag-reranker.yaml: modified" in ran.err


@pytest.mark.parametrize(("arguments", "message"), [
    (("--check", "--profile"), "--check writes nothing, so it cannot go with --profile"),
    (("--context", "here"), "--context and --argo-server are for --profile"),
])  # fmt: skip
def test_options_that_do_not_go_together(command: Callable[..., Ran], arguments: tuple[str, ...], message: str) -> None:
    ran = command("compile", *arguments)
    assert ran.code == 1
    assert message in ran.err


def test_errors_are_json_too_where_json_was_asked_for(command: Callable[..., Ran], argo: FakeArgo) -> None:
    argo.installed = False
    ran = command("compile", "--profile", "--output", "json")
    assert ran.code == 1
    error: dict[str, Any] = json.loads(ran.out)["error"]
    assert "there is no WorkflowTemplate scepsy-profile" in json.dumps(error)
