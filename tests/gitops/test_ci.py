"""What gitops/ci offers to GitHub Actions and GitLab CI: who may do what, and its scripts, run as the runners run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.conftest import Ran, git
from tests.publishing.git_server import GitServer, bare, serving

from scepsy import __version__

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "gitops/ci"
ACTION = CI / "github"
TOKEN = "ghs_aSecretOfTheJob"
COMMITTER = "scepsy@noreply.invalid"
WORKFLOWS = ("check", "publish")


def yaml(path: Path) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8")))


def action() -> Any:
    return yaml(ACTION / "action.yml")[0]


def workflow(name: str) -> Any:
    return yaml(ACTION / f"workflows/{name}.yml")[0]


@dataclass(frozen=True)
class Runner:
    """A machine that runs jobs: a home, a directory for temporary files, and Scepsy where the jobs install it."""

    home: Path
    temporary: Path

    def bash(self, script: str, where: Path, variables: Mapping[str, str], path: Path | None = None) -> Ran:
        """Run a script as `shell: bash` does, in this environment alone."""
        environment = {
            "PATH": f"{path or self.temporary / 'scepsy/bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "LANG": "C.UTF-8",
            "RUNNER_TEMP": str(self.temporary),
            "TMPDIR": str(self.temporary),
        }
        file = self.temporary / "script.sh"
        file.write_text(script, encoding="utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", file],
            cwd=where,
            env=environment | dict(variables),
            capture_output=True,
            check=False,
        )
        # As they are: carriage returns are what a hostile spec would use.
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def step(self, name: str, where: Path, inputs: Mapping[str, str], **variables: str) -> Ran:
        """Run a step of the action, with these inputs and otherwise the defaults."""
        asked = action()
        given = {key: str(spec.get("default", "")) for key, spec in asked["inputs"].items()} | dict(inputs)
        step = next(step for step in asked["runs"]["steps"] if step.get("name") == name)
        environment = {
            key: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: given[found[1]], value)
            for key, value in step["env"].items()
        }
        github = {"GITHUB_ACTION_PATH": str(ACTION), "GITHUB_OUTPUT": str(self.temporary / "output")}
        return self.bash(step["run"], where, environment | github | variables)

    def check(self, where: Path, **inputs: str) -> Ran:
        given = {"mode": "check", **{key.replace("_", "-"): value for key, value in inputs.items()}}
        return self.step("Compile", where, given, GITHUB_EVENT_NAME="pull_request")

    def publish(self, where: Path, **inputs: str) -> Ran:
        (self.temporary / "output").write_text("")
        return self.step("Compile", where, {"mode": "push", "token": TOKEN} | inputs, GITHUB_EVENT_NAME="push")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    binaries = tmp_path / "temporary/scepsy/bin"
    binaries.mkdir(parents=True)
    (binaries / "scepsy").symlink_to(Path(sys.executable).parent / "scepsy")
    for name in ("python", "python3"):
        (binaries / name).symlink_to(sys.executable)
    (tmp_path / "home").mkdir()
    return Runner(tmp_path / "home", tmp_path / "temporary")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled and committed."""
    place = tmp_path_factory.mktemp("example")
    me = {f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1", **me}
    scepsy = Path(sys.executable).parent / "scepsy"
    for words in (["init", "demo", "--example"], ["compile", "--project=demo", "--commit"]):
        subprocess.run([scepsy, *words], cwd=place, env=environment, check=True, capture_output=True)
    return place / "demo"


@pytest.fixture
def compiled(tmp_path: Path, example: Path) -> Path:
    return Path(shutil.copytree(example, tmp_path / "demo", symlinks=True))


@pytest.fixture
def edited(compiled: Path) -> Path:
    """A pull request that asks for a higher rate, and has not compiled."""
    spec = compiled / "workflows/rag-reranker.yaml"
    spec.write_text(spec.read_text().replace("rate: 12/s", "rate: 14/s"))
    commit(compiled)
    return compiled


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "-c", "user.name=Eve", "-c", "user.email=eve@example.com", "commit", "-q", "-m", "Change")


@dataclass(frozen=True)
class Obeyed:
    """A workflow command that GitHub's runner would carry out."""

    name: str
    properties: dict[str, str]
    data: str


def obeyed(log: str) -> list[Obeyed]:
    """Read a log as the runner does (ActionCommand and ActionCommandManager of github.com/actions/runner)."""
    found: list[Obeyed] = []
    end = None
    for line in re.split(r"\r\n|\r|\n", log):
        if end is not None:
            end = None if line.strip() == f"::{end}::" else end
            continue
        said = re.fullmatch(r"\s*::([A-Za-z-]+)(?: (.*?))?::(.*)", line)
        old = re.search(r"##\[([a-z-]+)", line)
        if said is None and old is None:
            continue
        if said is None:
            assert old is not None
            found.append(Obeyed(old[1], {}, line))
        elif said[1] == "stop-commands":
            end = said[3]
        else:
            pairs = (part.split("=", 1) for part in (said[2] or "").split(",") if part)
            found.append(Obeyed(said[1], {key: plain(value) for key, value in pairs}, plain(said[3])))
    assert end is None, "the log ends while commands are stopped"
    return found


def plain(text: str) -> str:
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, char)
    return text


# What the files allow


def scripts() -> Iterator[str]:
    for step in action()["runs"]["steps"]:
        yield step.get("run", "")
    for name in WORKFLOWS:
        for job in workflow(name)["jobs"].values():
            yield from (step.get("run", "") for step in job["steps"])


def test_nothing_is_put_into_a_script_before_a_shell_reads_it() -> None:
    assert [script for script in scripts() if "${{" in script] == []
    for job in (gitlab_job("scepsy-check"), gitlab_job("scepsy-publish")):
        assert "$[[" not in "".join([*job["before_script"], *job["script"]])


def test_a_pull_request_gets_a_token_that_reads_and_no_secret() -> None:
    check = workflow("check")
    assert check["on"] == {"pull_request": None}
    assert check["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in check["jobs"].values())
    text = (ACTION / "workflows/check.yml").read_text()
    assert "secrets." not in text
    assert "github.token" not in text
    assert "pull_request_target" not in text


def test_the_token_that_may_write_is_for_the_job_that_pushes() -> None:
    publish = workflow("publish")
    assert publish["on"] == {"push": {"branches": ["main"]}, "workflow_dispatch": None}
    assert publish["permissions"] == {}
    assert publish["jobs"]["publish"]["permissions"] == {"contents": "write"}
    assert publish["concurrency"]["cancel-in-progress"] is False


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_checkout_leaves_no_token_behind(name: str) -> None:
    checkouts = [
        step
        for job in workflow(name)["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]


def test_actions_of_others_are_pinned_by_digest() -> None:
    used = [step.get("uses", "") for step in action()["runs"]["steps"]]
    used += [s.get("uses", "") for n in WORKFLOWS for job in workflow(n)["jobs"].values() for s in job["steps"]]
    others = {name for name in used if name and not name.startswith("ORGANISATION/")}
    assert {name.partition("@")[0] for name in others} == {"actions/checkout", "actions/setup-python"}
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) for name in others)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_examples_name_inputs_that_there_are_and_this_version(name: str) -> None:
    (job,) = workflow(name)["jobs"].values()
    step = job["steps"][-1]
    assert step["uses"] == f"ORGANISATION/scepsy/gitops/ci/github@v{__version__}"
    assert step["with"]["version"] == __version__
    inputs = action()["inputs"]
    assert set(step["with"]) <= set(inputs)
    assert {key for key, spec in inputs.items() if spec.get("required")} <= set(step["with"])


# Installing


def install(runner: Runner, version: str) -> tuple[Ran, list[str]]:
    """Run the step with a Python that only says how it was called."""
    calls = runner.temporary / "calls"
    stub = runner.temporary / "stub/python"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$*" >> {calls}\n[ "$3" != venv ] || {{ mkdir -p $4/bin; cp "$0" $4/bin/python; }}\n'
    )
    stub.chmod(0o755)
    shutil.rmtree(runner.temporary / "scepsy")
    step = next(step for step in action()["runs"]["steps"] if step.get("name") == "Install Scepsy")
    assert step["working-directory"] == "${{ runner.temp }}"
    ran = runner.bash(step["run"], runner.temporary, {"VERSION": version}, stub.parent)
    return ran, calls.read_text().splitlines() if calls.exists() else []


def test_one_version_is_installed_beside_the_checkout_by_an_isolated_python(runner: Runner) -> None:
    ran, calls = install(runner, "0.1.0")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert calls == ["-I -m venv scepsy", "-I -m pip install --quiet --disable-pip-version-check scepsy==0.1.0"]


@pytest.mark.parametrize(
    "version", ["", "0.1.0; touch x", "--index-url=http://x", "0.1.0 evil", "0.1.0\nevil", "$(id)"]
)
def test_what_is_no_version_is_not_given_to_pip(runner: Runner, version: str) -> None:
    ran, calls = install(runner, version)
    assert (ran.code, calls) == (1, [])
    assert [command.name for command in obeyed(ran.out)] == ["error"]


# Checking pull requests on GitHub


def test_a_pull_request_with_its_output_passes(runner: Runner, compiled: Path) -> None:
    ran = runner.check(compiled)
    assert (ran.code, ran.err, obeyed(ran.out)) == (0, "", [])
    assert "Cluster one-node: up to date" in ran.out


def test_a_pull_request_without_its_output_fails_and_says_what_to_run(runner: Runner, edited: Path) -> None:
    ran = runner.check(edited)
    assert ran.code == 2
    (error,) = obeyed(ran.out)
    assert (error.name, error.properties) == ("error", {"title": "Scepsy"})
    first, *paths, last = error.data.splitlines()
    assert first == "The output of cluster one-node is not what the specs compile to:"
    assert "plans/one-node.yaml (differs)" in paths
    assert last == "Run: scepsy compile --commit"
    assert git(edited, "status", "--porcelain") == ""


def test_where_output_is_not_committed_beside_the_specs_it_is_a_warning(runner: Runner, edited: Path) -> None:
    ran = runner.check(edited, out_of_date="warn")
    assert (ran.code, [command.name for command in obeyed(ran.out)]) == (0, ["warning"])


def test_an_error_stands_where_it_is_in_the_repository_and_is_none_to_warn_of(runner: Runner, compiled: Path) -> None:
    (compiled / "workflows/rag-reranker.yaml").write_text(
        "apiVersion: scepsy.dev/v1alpha1\nkind: Workflow\nspecs: {}\n"
    )
    (compiled.parent / "outer").mkdir()
    outer = Path(shutil.copytree(compiled, compiled.parent / "outer/models", ignore=shutil.ignore_patterns(".git")))
    git(outer.parent, "init", "-q")
    ran = runner.check(outer.parent, project="models", out_of_date="warn")
    assert ran.code == 1
    places = {(e.name, e.properties["file"], e.properties["line"]) for e in obeyed(ran.out)}
    assert places == {("error", "models/workflows/rag-reranker.yaml", line) for line in ("1", "3")}


def test_ten_annotations_are_all_that_github_shows(runner: Runner, compiled: Path) -> None:
    for number in range(30):
        (compiled / f"workflows/w{number}.yaml").write_text("kind: Workflows\n")
    ran = runner.check(compiled)
    errors = obeyed(ran.out)
    assert (ran.code, len(errors)) == (1, 10)
    assert re.fullmatch(r"\d+ more: see the log of this step", errors[-1].data)
    assert all(f"workflows/w{number}.yaml" in ran.out for number in range(30))


WORKFLOW = {"apiVersion": "scepsy.dev/v1alpha1", "kind": "Workflow"}
HOSTILE = "evil\n::add-mask::a\r##[add-path]/x\n  ::set-output name=b::%0A::error::c\x1b[31m, file=d::"


def test_what_a_spec_says_is_no_command_to_the_runner(runner: Runner, compiled: Path) -> None:
    name = "a,line=7::x\n::add-mask::y%0A.yaml"
    lines = {**WORKFLOW, HOSTILE: HOSTILE, "metadata": {"name": "$(touch pwned)`touch pwned`"}}
    (compiled / "workflows" / name).write_text(json.dumps(lines))
    commit(compiled)
    ran = runner.check(compiled)
    errors = obeyed(ran.out)
    assert ran.code == 1
    assert {command.name for command in errors} == {"error"}
    assert all(set(error.properties) <= {"file", "line", "col", "title"} for error in errors)
    assert {error.properties["title"] for error in errors} == {"Scepsy"}
    assert {error.properties.get("line") for error in errors} == {"1"}
    assert f"workflows/{name}" in {error.properties.get("file") for error in errors}
    assert any("::set-output name=b::" in error.data for error in errors), "the reader is shown what is wrong"
    assert "\x1b" not in ran.out.split("::error", 1)[0]
    assert ran.err == ""
    assert not list(compiled.rglob("pwned"))


def test_what_lies_in_the_repository_is_not_imported(runner: Runner, compiled: Path) -> None:
    for module in ("json", "subprocess", "scepsy", "pip", "sitecustomize", "click"):
        (compiled / f"{module}.py").write_text("open('imported', 'w').close()\nraise SystemExit(9)\n")
    assert runner.check(compiled).code == 0
    assert not (compiled / "imported").exists()


def test_a_command_that_says_nothing_of_use_is_an_error_too(runner: Runner, compiled: Path) -> None:
    (runner.temporary / "scepsy/bin/scepsy").unlink()
    (runner.temporary / "scepsy/bin/scepsy").write_text("#!/bin/sh\necho '::add-mask::x' >&2\nkill -9 $$\n")
    (runner.temporary / "scepsy/bin/scepsy").chmod(0o755)
    ran = runner.check(compiled)
    assert ran.code == 1
    assert [(command.name, command.data) for command in obeyed(ran.out)] == [("error", "::add-mask::x")]


@pytest.mark.parametrize("event", ["pull_request", "pull_request_target"])
def test_nothing_is_pushed_for_a_pull_request(runner: Runner, compiled: Path, event: str) -> None:
    ran = runner.step("Compile", compiled, {"mode": "push"}, GITHUB_EVENT_NAME=event)
    assert ran.code == 1
    assert [c.data for c in obeyed(ran.out)] == ["nothing is pushed for a pull request: use mode check there"]


@pytest.mark.parametrize("inputs", [{"mode": "deploy"}, {"mode": "check", "out-of-date": "ignore"}])
def test_an_input_that_means_nothing_is_refused(runner: Runner, compiled: Path, inputs: dict[str, str]) -> None:
    ran = runner.step("Compile", compiled, inputs)
    assert (ran.code, [command.name for command in obeyed(ran.out)]) == (1, ["error"])


# Publishing from the main branch


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def remote(server: GitServer, edited: Path) -> Path:
    """The repository at its server, with a spec that was changed on main."""
    made = bare(server.root)
    git(edited, "push", "-q", str(made), "main")
    return made


@pytest.fixture
def checkout(tmp_path: Path, server: GitServer, remote: Path) -> Path:
    """What actions/checkout makes: one commit deep, on its branch, no credentials."""
    url = f"{server.url}/{remote.name}"
    git(tmp_path, "clone", "-q", "--depth=1", "--branch=main", url, "checkout")
    return tmp_path / "checkout"


def test_a_push_adds_one_commit_with_the_output_and_another_run_adds_none(
    runner: Runner, checkout: Path, remote: Path, server: GitServer
) -> None:
    server.login = ("x-access-token", TOKEN)
    before = git(remote, "rev-parse", "main")
    ran = runner.publish(checkout)
    assert (ran.code, ran.err, obeyed(ran.out)) == (0, "", [])
    made = git(remote, "rev-parse", "main")
    assert git(remote, "rev-parse", "main^") == before
    assert (runner.temporary / "output").read_text() == f"commit={made}\n"
    changed = git(remote, "show", "--name-only", "--format=", "main").splitlines()
    assert {path.partition("/")[0] for path in changed} <= {"plans", "rendered"}

    again = runner.publish(checkout)
    assert (again.code, git(remote, "rev-parse", "main")) == (0, made)
    assert (runner.temporary / "output").read_text() == ""
    assert runner.check(checkout).code == 0
    for text in (ran.out, ran.err, again.out, again.err, (checkout / ".git/config").read_text()):
        assert TOKEN not in text


def test_its_own_commit_is_known_by_its_committer_and_starts_nothing(
    runner: Runner, checkout: Path, remote: Path
) -> None:
    assert runner.publish(checkout).code == 0
    assert git(remote, "log", "-1", "--format=%ce", "main") == COMMITTER
    assert action()["inputs"]["committer-email"]["default"] == COMMITTER
    condition = workflow("publish")["jobs"]["publish"]["if"]
    assert condition == f"github.event_name != 'push' || github.event.head_commit.committer.email != '{COMMITTER}'"
    assert "[skip ci]" not in git(remote, "log", "-1", "--format=%B", "main")


def test_a_branch_for_the_output_alone(runner: Runner, checkout: Path, remote: Path) -> None:
    before = git(remote, "rev-parse", "main")
    assert runner.publish(checkout, branch="environments/prod").code == 0
    assert git(remote, "rev-parse", "main") == before
    assert "hydrator.metadata" in git(remote, "ls-tree", "--name-only", "environments/prod").splitlines()


def test_a_push_that_may_not_is_an_error_without_the_token(
    runner: Runner, checkout: Path, remote: Path, server: GitServer
) -> None:
    server.login = ("x-access-token", "another")
    ran = runner.publish(checkout)
    assert (ran.code, [command.name for command in obeyed(ran.out)]) == (1, ["error"])
    assert TOKEN not in ran.out + ran.err


# GitLab


def gitlab() -> tuple[Any, Any]:
    header, jobs = yaml(CI / "gitlab/template.yml")
    return header["spec"]["inputs"], jobs


def gitlab_job(name: str, **given: str) -> Any:
    """Return a job with what it extends, and with these inputs instead of the defaults."""
    inputs, jobs = gitlab()
    values = {key: json.dumps(spec["default"]).strip('"') for key, spec in inputs.items() if "default" in spec}
    values |= {"version": __version__, **{key.replace("_", "-"): value for key, value in given.items()}}
    job = {**jobs[".scepsy"], **jobs[name], "variables": jobs[".scepsy"]["variables"] | jobs[name]["variables"]}
    return json.loads(re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", lambda found: values[found[1]], json.dumps(job)))


def gitlab_run(runner: Runner, where: Path, name: str, inputs: Mapping[str, str], **variables: str) -> Ran:
    job = gitlab_job(name, **inputs)
    return runner.bash("\n".join(job["script"]), where, job["variables"] | variables)


def test_the_component_checks_merge_requests_and_publishes_the_default_branch() -> None:
    inputs, jobs = gitlab()
    assert [name for name, spec in inputs.items() if "default" not in spec] == ["version"]
    assert jobs["scepsy-check"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}]
    own, usual = jobs["scepsy-publish"]["rules"]
    author = jobs["scepsy-publish"]["variables"]
    name = f"{author['GIT_AUTHOR_NAME']} <{author['GIT_AUTHOR_EMAIL']}>"
    assert own == {"if": f'$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_AUTHOR == "{name}"', "when": "never"}
    assert usual == {"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"}
    assert jobs["scepsy-publish"]["resource_group"] == "scepsy-publish"
    assert set(re.findall(r"inputs\.([a-z-]+)", (CI / "gitlab/template.yml").read_text())) == set(inputs)


@pytest.mark.parametrize("version", ["0.1.0; touch x", "--index-url=http://x", "0.1.0\nevil", "$(id)", ""])
def test_gitlab_refuses_what_is_no_version(version: str) -> None:
    pattern = gitlab()[0]["version"]["regex"]
    assert re.search(pattern.replace("$", r"\Z"), "0.1.0")
    assert not re.search(pattern.replace("$", r"\Z"), version)


def test_gitlab_installs_one_version_beside_the_checkout(runner: Runner, tmp_path: Path) -> None:
    calls, stub = tmp_path / "calls", tmp_path / "stub/python3"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$*" >> {calls}\n[ "$3" != venv ] || {{ mkdir -p $4/bin; cp "$0" $4/bin/python; }}\n'
    )
    stub.chmod(0o755)
    (tmp_path / "where").mkdir()
    script = "\n".join([*gitlab_job("scepsy-check")["before_script"], "pwd", "command -v python"])
    ran = runner.bash(script, tmp_path / "where", {"SCEPSY_VERSION": "0.1.0"}, stub.parent)
    assert calls.read_text().splitlines() == [
        "-I -m venv venv",
        "-I -m pip install --quiet --disable-pip-version-check scepsy==0.1.0",
    ]
    here, python = ran.out.splitlines()
    assert here == str(tmp_path / "where")
    assert not python.startswith(here)
    assert not list((tmp_path / "where").iterdir())


@pytest.mark.parametrize(
    ("inputs", "changed", "code"), [({}, False, 0), ({}, True, 2), ({"out_of_date": "warn"}, True, 77)]
)
def test_gitlab_says_whether_a_merge_request_has_its_output(
    runner: Runner, compiled: Path, inputs: dict[str, str], changed: bool, code: int, request: pytest.FixtureRequest
) -> None:
    where = request.getfixturevalue("edited") if changed else compiled
    ran = gitlab_run(runner, where, "scepsy-check", inputs)
    assert ran.code == code
    assert ("Out of date: one-node. Run: scepsy compile --commit" in ran.out) is changed
    assert gitlab_job("scepsy-check")["allow_failure"] == {"exit_codes": [77]}


def test_what_a_spec_says_steers_no_log_of_gitlab(runner: Runner, compiled: Path) -> None:
    section = "x\nsection_start:1:evil\r\x1b[0Kpwned"
    (compiled / "workflows/evil.yaml").write_text(json.dumps(WORKFLOW | {section: section, "Größe": 1}))
    ran = gitlab_run(runner, compiled, "scepsy-check", {"out_of_date": "warn"})
    assert ran.code == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", ran.out + ran.err)
    assert "workflows/evil.yaml" in ran.out
    assert "Größe" in ran.out


@pytest.mark.parametrize("own", [None, "glpat-aTokenOfTheProject"])
def test_gitlab_pushes_with_the_token_of_the_job_unless_the_project_has_one(
    runner: Runner, checkout: Path, remote: Path, server: GitServer, own: str | None
) -> None:
    git(checkout, "checkout", "-q", "--detach")
    git(checkout, "branch", "-q", "-D", "main")
    server.login = ("oauth2", own) if own else ("gitlab-ci-token", TOKEN)
    tokens = {"SCEPSY_GIT_TOKEN": own, "SCEPSY_GIT_USER": "oauth2"} if own else {}
    before = git(remote, "rev-parse", "main")
    ran = gitlab_run(runner, checkout, "scepsy-publish", {}, CI_COMMIT_BRANCH="main", CI_JOB_TOKEN=TOKEN, **tokens)
    assert ran.code == 0, ran.out
    assert git(remote, "rev-parse", "main^") == before
    assert git(remote, "log", "-1", "--format=%an <%ae>", "main") == f"scepsy <{COMMITTER}>"
    made = git(remote, "rev-parse", "main")
    again = gitlab_run(runner, checkout, "scepsy-publish", {}, CI_COMMIT_BRANCH="main", CI_JOB_TOKEN=TOKEN, **tokens)
    assert (again.code, git(remote, "rev-parse", "main")) == (0, made)
    for text in (ran.out, ran.err, again.out, (checkout / ".git/config").read_text()):
        assert TOKEN not in text
        assert not own or own not in text


@pytest.mark.parametrize(("skip", "said"), [("false", ""), ("true", "ci.skip")])
def test_gitlab_is_asked_for_no_pipeline_only_where_that_is_wanted(
    runner: Runner, checkout: Path, remote: Path, skip: str, said: str
) -> None:
    git(remote, "config", "receive.advertisePushOptions", "true")
    hook = remote / "hooks/post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\nprintf %s "$GIT_PUSH_OPTION_0" > {remote}/options\n')
    hook.chmod(0o755)
    inputs = {"skip_pipeline": skip, "branch": "environments/prod"}
    ran = gitlab_run(runner, checkout, "scepsy-publish", inputs, CI_COMMIT_BRANCH="main", CI_JOB_TOKEN=TOKEN)
    assert ran.code == 0, ran.out
    assert (remote / "options").read_text() == said
