"""The check of gitops/drift: its script, run as its pods run it, and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Ran, git
from tests.publishing.git_server import GitServer, bare, identity, serving

from scepsy.cli.drift import command as drift

DRIFT = Path(__file__).resolve().parents[2] / "gitops/drift"
TOKEN = "ghp_aTokenOfTheRepository"
# Says how it was called, and what it was given by files.
STUB = """#!/bin/sh
printf '%s\\n' "$@" > "$OUT/../called"
env > "$OUT/../environment"
git -C repository rev-list --count HEAD > "$OUT/../commits"
printf 'url=%s\\n\\n' "$ASKED" | git credential fill > "$OUT/../credentials" 2>&1
echo "$SAID"
exit "$CODE"
"""

Object = dict[str, Any]


def document(name: str) -> Object:
    return dict(yaml.safe_load((DRIFT / name).read_text(encoding="utf-8")))


def check() -> Object:
    [template] = document("check.yaml")["spec"]["templates"]
    return dict(template)


def container() -> Object:
    return dict(check()["container"])


@dataclass
class Pod:
    """A pod of the check on this machine, whose `scepsy` is a stub.

    Attributes:
        room: holds its volumes.
        certificate: of the server of its repository.
        arguments: of the Workflow.
        stub: what `scepsy drift` prints and exits with.
    """

    room: Path
    certificate: Path
    arguments: dict[str, str]
    stub: dict[str, str] = field(default_factory=lambda: {"SAID": "No drift", "CODE": "0", "ASKED": "https://x"})

    def secret(self, **keys: str) -> None:
        for key, value in keys.items():
            (self.room / "secrets" / key.replace("_", "-")).write_text(value)

    def run(self, **arguments: str) -> Ran:
        """Run the container's command with these arguments of the Workflow."""
        given = self.arguments | arguments
        env = {
            item["name"]: re.sub(
                r"\{\{workflow\.parameters\.([a-z]+)\}\}", lambda found: given[found[1]], item["value"]
            )
            for item in container()["env"]
        }
        env |= {
            "SECRETS": str(self.room / "secrets"),
            "OUT": str(self.room / "out"),
            "HOME": str(self.room / "work"),
            "TMPDIR": str(self.room / "work"),
            "PATH": f"{self.room / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "GIT_SSL_CAINFO": str(self.certificate),
            "GIT_CONFIG_NOSYSTEM": "1",
            **self.stub,
        }
        command = [*container()["command"], *container()["args"]]
        done = subprocess.run(
            command, cwd=self.room / "work", env=env, capture_output=True, text=True, check=False, timeout=60
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def left(self, name: str) -> str | None:
        path = self.room / name
        return path.read_text() if path.exists() else None

    @property
    def called(self) -> list[str]:
        return (self.left("called") or "").splitlines()

    @property
    def environment(self) -> dict[str, str]:
        pairs = (line.partition("=") for line in (self.left("environment") or "").splitlines())
        return {key: value for key, _, value in pairs}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served", identity(tmp_path)) as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path, server: GitServer, git_home: Path) -> Pod:
    """A pod, and a repository with three commits on the branch `live`."""
    remote = bare(server.root)
    work = tmp_path / "specs"
    git(tmp_path, "init", "-q", "-b", "live", str(work))
    for number in range(3):
        git(work, "commit", "-q", "--allow-empty", "-m", str(number))
    git(work, "push", "-q", str(remote), "live")
    room = tmp_path / "pod"
    for name in ("secrets", "out", "work", "bin"):
        (room / name).mkdir(parents=True)
    (room / "bin/scepsy").write_text(STUB)
    (room / "bin/scepsy").chmod(0o755)
    arguments = {
        "repository": f"{server.url}/specs.git",
        "revision": "live",
        "project": ".",
        "cluster": "prod",
        "application": "argocd/scepsy-prod",
        "prometheus": "",
        "action": "report",
    }
    return Pod(room, tmp_path / "identity.pem", arguments)


# ---- what a check does


def test_it_looks_at_the_branch_and_says_that_there_is_no_drift(pod: Pod) -> None:
    ran = pod.run()
    assert (ran.code, ran.out, ran.err) == (0, "No drift\n", "")
    assert pod.called == ["drift", "--project=repository/.", "--cluster=prod", "--application=argocd/scepsy-prod"]
    # Argo CD may still be applying an earlier Plan.
    assert pod.left("commits") == "3\n"
    assert (pod.left("out/drift"), pod.left("out/report")) == ("0\n", "No drift\n")


def test_drift_is_what_it_found_and_not_that_it_failed(pod: Pod) -> None:
    pod.stub |= {"SAID": "Drift: 1 finding", "CODE": "2"}
    ran = pod.run()
    assert (ran.code, ran.out) == (0, "Drift: 1 finding\n")
    assert (pod.left("out/drift"), pod.left("out/report")) == ("1\n", "Drift: 1 finding\n")


@pytest.mark.parametrize("code", ["1", "130", "137"])
def test_what_could_not_look_has_failed(code: str, pod: Pod) -> None:
    pod.stub |= {"SAID": "what could be looked at", "CODE": code}
    ran = pod.run()
    assert (ran.code, ran.out) == (int(code), "what could be looked at\n")
    assert pod.left("out/drift") is None


@pytest.mark.parametrize(
    ("action", "options"),
    [
        ("report", []),
        ("pull-request", ["--recompile", "--pull-request"]),
        ("push", ["--recompile", "--push"]),
    ],
)
def test_what_follows_is_what_the_platform_team_wants(action: str, options: list[str], pod: Pod) -> None:
    assert pod.run(action=action, application="", project="sub/dir").code == 0
    assert pod.called == ["drift", "--project=repository/sub/dir", "--cluster=prod", *options]


def test_another_action_is_none(pod: Pod) -> None:
    ran = pod.run(action="--push")
    assert (ran.code, pod.called) == (1, [])
    assert ran.err == 'the action "--push" is none of report, pull-request, push\n'


def test_a_branch_that_is_not_there_is_an_error_that_git_explains(pod: Pod) -> None:
    ran = pod.run(revision="gone")
    assert (ran.code != 0, pod.called) == (True, [])
    assert "Remote branch gone not found" in ran.err


def test_a_long_report_leaves_room_in_the_object(pod: Pod) -> None:
    pod.stub["SAID"] = "x" * 100_000
    assert pod.run().code == 0
    assert len(pod.left("out/report") or "") == 65536


# ---- credentials


def test_the_token_reaches_the_repository_alone_and_stands_nowhere(pod: Pod, server: GitServer) -> None:
    server.login = ("x-access-token", TOKEN)
    pod.secret(git_token=TOKEN)
    pod.stub["ASKED"] = pod.arguments["repository"]
    ran = pod.run()
    assert ran.code == 0, ran.err
    assert pod.left("credentials") is not None
    assert f"password={TOKEN}" in (pod.left("credentials") or "")
    assert pod.environment["SCEPSY_GIT_TOKEN_FILE"] == str(pod.room / "secrets/git-token")
    seen = [ran.out, ran.err, *(path.read_text() for path in pod.room.rglob("config")), str(pod.environment)]
    assert not any(TOKEN in text for text in [*seen, *pod.called])

    pod.stub["ASKED"] = "https://elsewhere.example.com/specs.git"
    shutil.rmtree(pod.room / "work/repository")
    assert pod.run().code == 0
    assert TOKEN not in (pod.left("credentials") or "")


def test_another_user_may_be_named(pod: Pod, server: GitServer) -> None:
    server.login = ("oauth2", TOKEN)
    pod.secret(git_token=TOKEN, git_user="oauth2")
    assert pod.run().code == 0
    assert pod.environment["SCEPSY_GIT_USER"] == "oauth2"


def test_without_a_token_it_does_not_ask(pod: Pod, server: GitServer) -> None:
    server.login = ("x-access-token", TOKEN)
    ran = pod.run()
    assert (ran.code != 0, pod.called) == (True, [])
    assert "could not read Username" in ran.err


def test_a_redirect_is_not_followed_with_the_token(pod: Pod, server: GitServer) -> None:
    server.redirect = "https://127.0.0.1:1"
    server.faults = [("info/refs", 302)]
    pod.secret(git_token=TOKEN)
    ran = pod.run()
    assert (ran.code != 0, pod.called) == (True, [])


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x.git", "ext::touch pwned", "file:///", "git://127.0.0.1/x"])
def test_only_https_and_ssh_are_spoken(address: str, pod: Pod) -> None:
    ran = pod.run(repository=address)
    assert (ran.code != 0, pod.called) == (True, [])
    assert "not allowed" in ran.err
    assert not list(pod.room.rglob("pwned"))


def test_tokens_of_the_forge_and_of_prometheus_are_named_where_they_are(pod: Pod) -> None:
    def named() -> dict[str, str]:
        names = ("SCEPSY_GIT_TOKEN_FILE", "SCEPSY_FORGE_TOKEN_FILE", "PROMETHEUS_TOKEN_FILE", "PROMETHEUS_CA_FILE")
        found = pod.environment
        shutil.rmtree(pod.room / "work/repository")
        return {name: Path(found[name]).name for name in names if name in found}

    pod.run()
    assert named() == {}
    # One token may do for both.
    pod.secret(git_token=TOKEN)
    pod.run()
    assert named() == {"SCEPSY_GIT_TOKEN_FILE": "git-token", "SCEPSY_FORGE_TOKEN_FILE": "git-token"}
    pod.secret(forge_token="f", prometheus_token="p", prometheus_ca="c")
    pod.run(prometheus="https://prometheus.example.com")
    assert pod.environment["PROMETHEUS_URL"] == "https://prometheus.example.com"
    assert named() == {
        "SCEPSY_GIT_TOKEN_FILE": "git-token",
        "SCEPSY_FORGE_TOKEN_FILE": "forge-token",
        "PROMETHEUS_TOKEN_FILE": "prometheus-token",
        "PROMETHEUS_CA_FILE": "prometheus-ca",
    }


def test_a_key_of_ssh_is_used_with_the_hosts_that_are_known(pod: Pod) -> None:
    pod.secret(ssh_privatekey="key")
    assert pod.run().code == 0
    command = pod.environment["GIT_SSH_COMMAND"]
    assert command.startswith(f"ssh -i {pod.room}/secrets/ssh-privatekey -o IdentitiesOnly=yes ")
    assert "-o StrictHostKeyChecking=yes" in command
    assert f"-o UserKnownHostsFile={pod.room}/secrets/known_hosts" in command


# ---- nothing becomes code


HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "--upload-pack=touch pwned",
    "a\nb",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["repository", "revision", "project", "cluster", "application", "action"])
def test_a_value_is_a_value(name: str, value: str, pod: Pod) -> None:
    ran = pod.run(**{name: value})
    assert not list(pod.room.rglob("pwned"))
    if name in ("cluster", "application", "project"):
        assert ran.code == 0
        assert any(value.split("\n", maxsplit=1)[0] in word for word in pod.called)
    else:
        assert (ran.code != 0, pod.called) == (True, [])


def test_values_reach_the_script_by_the_environment_alone() -> None:
    words = [*container()["command"], *container()["args"]]
    assert words[:-1] == ["sh", "-euc"]
    assert "{{" not in words[-1]
    used = set(re.findall(r"\{\{workflow\.parameters\.([a-z]+)\}\}", (DRIFT / "check.yaml").read_text()))
    assert used == {item["name"] for item in document("check.yaml")["spec"]["arguments"]["parameters"]}
    assert "script" not in check()


def test_the_command_line_knows_every_option() -> None:
    known = {name for parameter in drift.params for name in parameter.opts}
    [script] = container()["args"]
    run = script[script.index("case") :]
    assert set(re.findall(r"(?<![\w-])--[a-z-]+", run)) - {
        "--quiet", "--depth", "--single-branch", "--no-tags", "--branch",
    } <= known  # fmt: skip


# ---- how it runs


def test_the_pod_is_restricted() -> None:
    spec = document("check.yaml")["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 2000,
        "runAsGroup": 2000,
        "fsGroup": 2000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    locked = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container()["securityContext"] == {**locked, "readOnlyRootFilesystem": True}
    patch = yaml.safe_load(check()["podSpecPatch"])
    assert patch == {
        "enableServiceLinks": False,
        "initContainers": [{"name": "init", "securityContext": locked}],
        "containers": [{"name": "wait", "securityContext": locked}],
    }
    assert set(container()["resources"]["limits"]) == {"memory"}
    assert set(container()["resources"]["requests"]) == {"cpu", "memory"}
    assert "USER 2000:2000" in (DRIFT / "Dockerfile").read_text()


def test_secrets_are_files_that_its_group_may_read_and_all_are_optional() -> None:
    volumes = {volume["name"]: volume for volume in check()["volumes"]}
    assert volumes["secrets"]["secret"] == {"secretName": "scepsy-drift", "optional": True, "defaultMode": 0o440}
    assert all("valueFrom" not in item for item in container()["env"])
    mounts = {item["name"]: item.get("readOnly", False) for item in container()["volumeMounts"]}
    assert mounts == {"secrets": True, "out": False, "work": False}
    assert all("sizeLimit" in volumes[name]["emptyDir"] for name in ("out", "work"))


def test_one_check_at_a_time_and_everything_ends_some_day() -> None:
    cron, spec = document("schedule.yaml")["spec"], document("check.yaml")["spec"]
    assert cron["schedules"] == ["3-59/10 * * * *"]
    assert "schedule" not in cron
    assert (cron["concurrencyPolicy"], cron["startingDeadlineSeconds"]) == ("Forbid", 300)
    assert (cron["successfulJobsHistoryLimit"], cron["failedJobsHistoryLimit"]) == (3, 3)
    # Nothing that is the template's is said again.
    assert cron["workflowSpec"] == {"workflowTemplateRef": {"name": "scepsy-drift"}}
    assert check()["synchronization"] == {"mutexes": [{"name": "scepsy-drift"}]}
    assert (check()["activeDeadlineSeconds"], spec["activeDeadlineSeconds"]) == (1200, 3600)
    assert spec["ttlStrategy"] == {"secondsAfterSuccess": 3600, "secondsAfterFailure": 86400}
    assert spec["podGC"] == {"strategy": "OnPodSuccess", "deleteDelayDuration": "10m"}
    assert (check()["retryStrategy"]["limit"], check()["retryStrategy"]["retryPolicy"]) == ("1", "Always")


def test_both_ways_of_starting_a_check_are_of_one_template() -> None:
    sensor = next(yaml.safe_load_all((DRIFT.parent / "events/sensor.yaml").read_text()))
    told = sensor["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
    assert (
        told["spec"]["workflowTemplateRef"] == document("schedule.yaml")["spec"]["workflowSpec"]["workflowTemplateRef"]
    )
    # A fixed name, so that a storm of notifications makes one.
    assert "generateName" not in told["metadata"]
