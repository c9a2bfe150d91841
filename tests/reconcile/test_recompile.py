"""`scepsy drift --recompile`: from what was found to a new plan, written, pushed, or proposed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from tests import published_schemas as published
from tests.cluster.kubernetes_api import FakeKubernetes, objects_of
from tests.conftest import Demo, Ran, Scepsy, git
from tests.drift.prometheus_server import Fake, answering
from tests.drift.replayed_traffic import DAY, Engine, gateway
from tests.publishing import forge_api
from tests.publishing.conftest import server
from tests.publishing.git_server import GitServer, bare
from tests.small_disk import mounted

from scepsy.cluster.kubernetes import NODES, SLICES
from scepsy.documents import API_VERSION, Cluster, Plan
from scepsy.documents.drift_result import DriftFinding, DriftResult, FindingKind
from scepsy.documents.loading import validate
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.reconcile.proposal import _summary, commit_reason

__all__ = ["server"]

NOW = float(int(time.time()))
LOST = "gpu-b"
_AS_PLANNED: dict[str, list] = {}
"""A day of traffic as planned, made once: the plan is the same in every test."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    with mounted(tmp_path / "disk", "4m") as disk:
        yield disk


@dataclass
class Site:
    """A project at a real Git server, its cluster, and its Prometheus."""

    scepsy: Scepsy
    directory: Path
    remote: Path
    world: FakeKubernetes
    prometheus: Fake

    def plan(self) -> Plan:
        """The plan at the remote."""
        text = git(self.remote, "show", "main:plans/two-nodes.yaml")
        return validate(parse(SourceFile("plan", text.encode()))[0], Plan)

    def drift(self, *more: object) -> Ran:
        return self.scepsy(
            "drift", "--project", self.directory, "--context", "here", "--prometheus", self.prometheus.url, *more
        )

    def answered(self, *more: object) -> tuple[int, dict]:
        ran = self.drift("--output", "json", *more)
        assert ran.out, ran.err
        document = json.loads(ran.out)
        published.validate(document, "DriftResult")
        return ran.code, document

    def lose(self, node: str = LOST) -> None:
        for kind in (NODES, SLICES):
            self.world.of(kind)[:] = [
                i for i in self.world.of(kind) if node not in (i["metadata"]["name"], i["spec"].get("nodeName"))
            ]

    def give_back(self, since: float) -> None:
        """The node is there again, ready since so many seconds."""
        data = (self.directory / "clusters" / "two-nodes.yaml").read_bytes()
        for item in objects_of(validate(parse(SourceFile("c", data))[0], Cluster)):
            if LOST in (item["metadata"]["name"], item.get("spec", {}).get("nodeName")):
                if item["kind"] == "Node":
                    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - since))
                    item["status"]["conditions"][0]["lastTransitionTime"] = moment
                self.world.have(item)

    def traffic(self, factor: float, longer: float = 1.0, idle: str = "") -> None:
        """A day as the plan at the remote has it, the last hour at so many times its load.

        Args:
            factor: of calls per second.
            longer: of generated tokens per call, the whole day.
            idle: an LLM that nobody calls all day.
        """
        rng = np.random.default_rng(3)
        for values in self.prometheus.series.values():
            values.clear()
        spec = self.plan().spec
        calls = {own.llm: own.call for workflow in spec.workflows for own in workflow.predicted.llms}
        short, long = sorted(o.call for w in spec.workflows for o in w.predicted.llms if o.llm == "generator")
        calls["generator"] = (short * 21 + long * 12) / 33  # calls of both workflows, in their proportion
        shape = np.ones(DAY // 60)
        shape[-60:] = factor
        tokens = {"generator": (1443.0, 126.0), "reranker": (510.0, 1.0), "verifier": (566.0, 1.0)}
        for llm in spec.llms:
            load = 0.0 if llm.name == idle else llm.predicted.load
            instances = [i.name for i in spec.instances if i.llm == llm.name]
            for name in instances:
                engine = Engine(
                    llm.name, f"{name}-6c5d8f9b7-x2x4q", load * shape / len(instances),
                    input=tokens[llm.name][0], output=longer * tokens[llm.name][1], seconds=0.8 * calls[llm.name],
                )  # fmt: skip
                self.prometheus.add(engine.lines(NOW, rng))
            self.prometheus.add(gateway(llm.name, load * shape, NOW, rng))


@pytest.fixture
def site(
    tmp_path: Path, scepsy: Scepsy, demo: Demo, server: GitServer, world: FakeKubernetes, kubeconfig: Path
) -> Iterator[Site]:
    """Two workflows on two nodes, compiled and pushed two days ago; the cluster is as its document says."""
    (server.root / "acme").mkdir()
    directory, remote = demo(tmp_path / "demo", "both", compiled=True, days=2), bare(server.root / "acme")
    git(directory, "remote", "add", "origin", f"{server.url}/acme/{remote.name}")
    git(directory, "push", "-q", "-u", "origin", "main")
    data = (directory / "clusters" / "two-nodes.yaml").read_bytes()
    world.have(*objects_of(validate(parse(SourceFile("c", data))[0], Cluster)))
    with answering(Fake(now=NOW)) as fake:
        made = Site(scepsy, directory, remote, world, fake)
        if not _AS_PLANNED:
            made.traffic(1.0)
            _AS_PLANNED.update(fake.series)
        fake.series = {name: list(values) for name, values in _AS_PLANNED.items()}
        yield made


def paths(site: Site) -> set[str]:
    """What the newest commit at the remote changed."""
    return set(git(site.remote, "show", "--name-only", "--format=", "main").split())


def settings(site: Site, text: str) -> None:
    """Add to the spec of scepsy.yaml, commit and push."""
    path = site.directory / "scepsy.yaml"
    path.write_text(path.read_text() + f"  drift: {text}\n")
    git(site.directory, "commit", "-qam", "Settings")
    git(site.directory, "push", "-q")


def test_a_lost_node_is_planned_without_and_the_next_look_finds_nothing(site: Site) -> None:
    code, document = site.answered()
    assert (code, [f["what"] for f in document.get("findings", [])]) == (0, [])
    site.lose()
    code, document = site.answered("--recompile", "--push")
    assert code == 2
    assert document["response"]["compile"] is True
    assert "lost their GPUs" in document["response"]["why"]
    assert document["response"]["done"].startswith("pushed ")
    plan = site.plan()
    assert {instance.node for instance in plan.spec.instances} == {"gpu-a"}
    assert "planned without gpu-b, as observed (observed/clusters/two-nodes.yaml)" in plan.spec.warnings
    assert not {path for path in paths(site) if path.startswith(("clusters/", "workflows/"))}
    message = git(site.remote, "log", "-1", "--format=%B", "main")
    assert "Drift: gpu-b: node-gone; affected: " in message
    assert git(site.directory, "rev-parse", "HEAD") == git(site.remote, "rev-parse", "main")
    assert site.answered("--recompile", "--push")[0] == 0


def test_a_node_that_comes_back_is_used_again_once_it_has_settled(site: Site) -> None:
    settings(site, "{coolDown: 0s, minimumGain: 0.9, settle: 10min}")
    site.lose()
    assert site.answered("--recompile", "--push")[1]["response"]["done"].startswith("pushed ")
    site.give_back(since=120)
    code, document = site.answered("--recompile", "--push")
    assert code == 0
    young = next(j for j in document["checks"] if j["subject"] == LOST)
    assert "ready again for 1" in young["reason"]
    assert young["reason"].endswith("counts after 600 s")
    site.world.of(NODES)[:] = [n for n in site.world.of(NODES) if n["metadata"]["name"] != LOST]
    site.give_back(since=1200)
    code, document = site.answered("--recompile", "--push")
    assert [f["kind"] for f in document["findings"]] == ["node-back"]
    assert document["response"]["done"].startswith("pushed "), document["response"]
    assert {instance.node for instance in site.plan().spec.instances} == {"gpu-a", "gpu-b"}
    assert "observed/clusters/two-nodes.yaml" in paths(site)
    assert not (site.directory / "observed" / "clusters" / "two-nodes.yaml").exists()


TRAP = "[skip ci] fixes #12 @all Signed-off-by: x"


@pytest.mark.parametrize(
    ("finding", "summary"),
    [
        ({"area": "traffic", "kind": "load-above", "subject": "generator", "what": "54/s instead of 33.2/s (+63%)"},
         "generator: 54/s instead of 33.2/s (+63%)"),
        ({"area": "cluster", "kind": "gpu-sick", "subject": "GPU-a0", "what": f"GPU GPU-a0 is sick: device taint {TRAP}"},
         "GPU-a0: gpu-sick"),
        ({"area": "cluster", "kind": "node-gone", "subject": "gpu-b", "what": TRAP, "instances": tuple("abcdef")},
         "gpu-b: node-gone; affected: a, b, c, d and 2 more"),
        ({"area": "objects", "kind": "sync-failed", "subject": "scepsy", "what": f"the sync failed: {TRAP}"},
         "scepsy: sync-failed"),
        ({"area": "cluster", "kind": "gpu-new", "subject": TRAP, "what": TRAP},
         "_skip_ci__fixes__12__all_Signed-off-by__x: gpu-new"),
    ],
    ids=["traffic", "a taint", "a lost node", "what Argo CD says", "not a valid name"],
)  # fmt: skip
def test_commit_messages_and_titles_contain_no_text_from_a_cluster(finding: dict, summary: str) -> None:
    found = DriftFinding(severity="critical", **{**finding, "kind": FindingKind(finding["kind"])})
    assert _summary(found) == summary
    result = DriftResult(api_version=API_VERSION, cluster="c", at="2026-05-01T12:00:00Z", drift=True, findings=(found,))
    assert commit_reason(result) == f"Drift: {summary}"


def test_a_node_that_comes_back_waits_for_the_cool_down(site: Site) -> None:
    site.lose()
    site.answered("--recompile", "--push")
    site.give_back(since=1200)
    _, document = site.answered("--recompile", "--push")
    assert document["response"]["compile"] is False
    assert "spec.drift.coolDown is 60 min" in document["response"]["why"]


def test_risen_traffic_is_written_as_observed_and_planned_for(site: Site) -> None:
    settings(site, "{minimumGain: 0}")
    site.traffic(1.6)
    code, document = site.answered("--recompile")
    assert code == 2
    assert document["response"]["compile"] is True, document["response"]
    yaml = YAML(typ="safe", pure=True)
    observed = yaml.load(site.directory / "observed" / "rag-reranker.yaml")["spec"]
    assert float(observed["rate"].removesuffix("/s")) == pytest.approx(1.6 * 12, rel=0.03)
    assert git(site.directory, "diff", "--name-only", "--", "workflows", "clusters", "scepsy.yaml") == ""
    plan = yaml.load(site.directory / "plans" / "two-nodes.yaml")["spec"]
    target = next(w for w in plan["workflows"] if w["name"] == "rag-reranker")["target"]["rate"]
    assert target == observed["rate"]
    assert any("above the target of 12/s" in warning for warning in plan["warnings"])
    git(site.directory, "add", "--all")
    git(site.directory, "commit", "-qm", "Compiled again")
    assert site.scepsy("compile", "--project", site.directory, "--check").code == 0
    assert site.answered()[0] == 0


def test_what_saves_too_little_is_left_as_it_is_and_that_is_said(site: Site) -> None:
    settings(site, "{minimumGain: 0.9}")
    site.traffic(1.6)
    head = git(site.remote, "rev-parse", "main")
    ran = site.drift("--recompile", "--push")
    assert ran.code == 2
    assert "Keep the plan: it would save" in ran.out
    assert "spec.drift.minimumGain is 90%" in ran.out
    assert git(site.remote, "rev-parse", "main") == head


def test_a_load_that_no_allocation_can_serve_changes_nothing(site: Site) -> None:
    site.traffic(40.0)
    head = git(site.remote, "rev-parse", "main")
    code, document = site.answered("--recompile", "--push")
    assert code == 2
    assert document["response"]["compile"] is False
    assert document["response"]["why"].startswith("no allocation can serve it")
    assert git(site.remote, "rev-parse", "main") == head
    assert git(site.directory, "status", "--porcelain") == ""


def test_findings_about_a_plan_that_is_no_longer_the_newest_are_dropped(site: Site, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", git(site.directory, "remote", "get-url", "origin"), "other")
    other = tmp_path / "other" / "workflows" / "rag-reranker.yaml"
    other.write_text(other.read_text().replace("12/s", "9/s"))
    git(tmp_path / "other", "commit", "-qam", "Less")
    assert site.scepsy("compile", "--project", tmp_path / "other", "--commit", "--push").code == 0
    head = git(site.remote, "rev-parse", "main")
    site.lose()
    code, document = site.answered("--recompile", "--push")
    assert code == 2
    assert document["response"]["why"] == (
        "the remote has a newer plan for cluster two-nodes; update the checkout: git pull --ff-only origin main"
    )
    assert git(site.remote, "rev-parse", "main") == head


def test_a_remote_that_is_down_is_an_error_and_leaves_everything_as_it_was(site: Site, server: GitServer) -> None:
    site.lose()
    git(site.directory, "remote", "set-url", "origin", "http://127.0.0.1:1/specs.git")
    ran = site.drift("--recompile", "--push")
    assert ran.code == 1
    assert "error: origin" in ran.err
    assert git(site.directory, "status", "--porcelain") == ""


TOKEN = "ghp_s3cret-of-the-platform-team"


@pytest.fixture
def forge(site: Site, server: GitServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[forge_api.Api]:
    """A forge that hosts the remote, and a token for it."""
    with forge_api.answering() as api:
        monkeypatch.setenv("GITHUB_SERVER_URL", server.url)
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        monkeypatch.setenv("SCEPSY_FORGE_TOKEN", TOKEN)
        yield api


def proposed(site: Site) -> list[str]:
    """The branches of proposals at the remote."""
    return git(site.remote, "for-each-ref", "--format=%(refname:short)", "refs/heads/scepsy/").split()


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def test_a_pull_request_proposes_the_commit_and_leaves_the_branch_as_it_is(site: Site, forge: forge_api.Api) -> None:
    site.lose()
    head = git(site.remote, "rev-parse", "main")
    code, document = site.answered("--recompile", "--pull-request")
    assert code == 2
    assert document["response"]["done"].startswith("proposed ")
    assert document["response"]["pullRequest"] == "https://forge/pulls/7"
    assert git(site.remote, "rev-parse", "main") == head == git(site.directory, "rev-parse", "HEAD")
    (branch,) = proposed(site)
    assert re.fullmatch("scepsy/drift-two-nodes-[0-9a-f]{8}", branch)
    assert git(site.remote, "rev-parse", f"{branch}~") == head
    ((path, _, body),) = forge.asked
    assert path == "/repos/acme/specs/pulls"
    assert (body["head"], body["base"]) == (branch, "main")
    assert body["title"].startswith("scepsy: recompile two-nodes (gpu-b: node-gone; affected: ")
    assert "| workflow | rate | mean latency now | then | capacity then |" in body["body"]
    assert TOKEN not in json.dumps(document)


def test_one_proposal_at_a_time_until_somebody_decides(site: Site, forge: forge_api.Api) -> None:
    site.lose()
    site.answered("--recompile", "--pull-request")
    before = git(site.remote, "for-each-ref")
    code, document = site.answered("--recompile", "--pull-request")
    assert (code, document["response"]["compile"]) == (2, False)
    assert document["response"]["why"] == "https://forge/pulls/7 is still open; merge it, or close it"
    assert git(site.remote, "for-each-ref") == before
    assert len(forge.asked) == 1


@pytest.mark.parametrize(
    ("branch", "fork", "waits"),
    [
        ("scepsy/drift-two-nodes-0123abcd", False, True),
        ("scepsy/drift-two-nodes-0123abcd-2", False, True),
        ("scepsy/drift-two-nodes-0123abcd", True, False),
        ("scepsy/drift-two-nodes-b-0123abcd", False, False),
        ("scepsy/drift-two-nodes-notes", False, False),
    ],
    ids=["ours", "ours, numbered", "of a fork", "of another cluster", "of a person"],
)
def test_an_open_proposal_about_something_else_is_waited_for_and_that_is_said(
    site: Site, forge: forge_api.Api, branch: str, fork: bool, waits: bool
) -> None:
    forge.have(branch, 5, fork)
    site.lose()
    code, document = site.answered("--recompile", "--pull-request")
    why = "https://forge/pulls/5 is still open, although it is about other findings; merge it, or close it"
    assert code == 2
    assert (document["response"]["why"] == why) == waits
    assert bool(proposed(site)) == (not waits)


def test_a_forge_that_fails_once_gets_the_same_proposal_at_the_next_look(site: Site, forge: forge_api.Api) -> None:
    forge.status = 503
    site.lose()
    ran = site.drift("--recompile", "--pull-request")
    (branch,) = proposed(site)
    assert ran.code == 1
    assert f"the branch {branch} was pushed, but github at" in ran.err
    commit = git(site.remote, "rev-parse", branch)
    forge.status = 201
    code, document = site.answered("--recompile", "--pull-request")
    assert code == 2
    assert document["response"]["pullRequest"] == "https://forge/pulls/7"
    assert document["response"]["done"] == f"proposed {commit[:12]}"
    assert [body["head"] for _, _, body in forge.asked] == [branch, branch]
    assert git(site.remote, "rev-parse", branch) == commit
    assert proposed(site) == [branch]


def test_a_branch_that_was_left_behind_stays_and_a_new_one_is_proposed(site: Site, forge: forge_api.Api) -> None:
    site.lose()
    site.answered("--recompile", "--pull-request")
    (branch,) = proposed(site)
    left = git(site.remote, "rev-parse", branch)
    # Merged a month ago and the branch not deleted; then the plan became what it had been, by hand.
    git(site.directory, "fetch", "-q", "origin")
    git(site.directory, "merge", "-q", "--no-ff", "-m", "Merge", f"origin/{branch}")
    git(site.directory, "revert", "--no-edit", "-m", "1", "HEAD")
    git(site.directory, "push", "-q")
    forge_api.decide(forge.requests[0], ago(30 * 86_400), merge=True)
    code, document = site.answered("--recompile", "--pull-request")
    assert code == 2
    assert document["response"]["pullRequest"] == "https://forge/pulls/7", document["response"]
    assert proposed(site) == [branch, f"{branch}-2"]
    assert git(site.remote, "rev-parse", branch) == left
    assert git(site.remote, "rev-parse", f"{branch}-2~") == git(site.remote, "rev-parse", "main")


@pytest.mark.parametrize(
    ("days", "merged", "opened", "why"),
    [
        (
            1,
            False,
            0,
            "https://forge/pulls/7 proposed the same change and was closed without merging; not proposing it again for 7 days",
        ),
        (8, False, 1, "lost their GPUs"),
        (1, True, 1, "lost their GPUs"),
    ],
    ids=["closed yesterday", "closed last week", "merged"],
)
def test_what_a_person_closed_is_not_proposed_again_for_a_week(
    site: Site, forge: forge_api.Api, days: int, merged: bool, opened: int, why: str
) -> None:
    site.lose()
    site.answered("--recompile", "--pull-request")
    forge_api.decide(forge.requests[0], ago(days * 86_400), merged)
    code, document = site.answered("--recompile", "--pull-request")
    assert code == 2
    assert why in document["response"]["why"]
    assert len(forge.asked) == 1 + opened


def test_what_else_is_found_is_proposed_although_something_was_closed(site: Site, forge: forge_api.Api) -> None:
    settings(site, "{minimumGain: 0, coolDown: 0s}")
    site.traffic(1.6)
    assert site.answered("--recompile", "--pull-request")[1]["response"]["done"].startswith("proposed ")
    forge_api.decide(forge.requests[0], ago(60))
    site.traffic(1.7)
    assert "was closed" in site.answered("--recompile", "--pull-request")[1]["response"]["why"]
    site.lose()
    _, document = site.answered("--recompile", "--pull-request")
    assert "lost their GPUs" in document["response"]["why"]
    assert document["response"]["done"].startswith("proposed ")
    assert len(set(proposed(site))) == 2


def test_a_forge_that_cannot_be_asked_for_proposals_is_an_error_and_nothing_is_pushed(
    site: Site, forge: forge_api.Api
) -> None:
    forge.listing = 503, {"message": f"down for {TOKEN}"}
    site.lose()
    ran = site.drift("--recompile", "--pull-request")
    assert ran.code == 1
    assert "did not list pull requests (503)" in ran.err
    assert TOKEN not in ran.out + ran.err
    assert proposed(site) == []


def test_a_forge_that_refuses_is_an_error_that_says_the_branch_is_there(site: Site, forge: forge_api.Api) -> None:
    forge.status, forge.answer = 403, {"message": f"Resource not accessible by {TOKEN}"}
    site.lose()
    ran = site.drift("--recompile", "--pull-request")
    assert ran.code == 1
    assert f"the branch {proposed(site)[0]} was pushed, but github at" in ran.err
    assert "permission to write pull requests" in ran.err
    assert TOKEN not in ran.out + ran.err


def test_without_a_token_for_the_forge_nothing_is_pushed(
    site: Site, forge: forge_api.Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SCEPSY_FORGE_TOKEN", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    site.lose()
    ran = site.drift("--recompile", "--pull-request")
    assert ran.code == 1
    assert "there is no token for github" in ran.err
    assert "scepsy/drift" not in git(site.remote, "branch", "--list")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 401}, "rejects the credentials (401)"),
        ({"status": 403}, "forbidden: the credentials cannot list nodes on "),
        ({"status": 410}, "410"),
        ({"status": 429}, "keeps failing with 429"),
        ({"status": 500}, "keeps failing with 500"),
        ({"kind": "half"}, "cannot connect to "),
        ({"kind": "reset"}, "cannot connect to "),
    ],
    ids=["401", "403", "410", "429", "500", "half a page", "reset"],
)
def test_a_cluster_that_does_not_answer_is_no_lost_node(
    site: Site, fault: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scepsy.cluster.kubernetes.DEADLINE", 0.5)
    monkeypatch.setattr("scepsy.cluster.kubernetes.UNREACHED_DEADLINE", 0.5)
    head = git(site.remote, "rev-parse", "main")
    site.world.fail(fault.pop("status", 0), match="/nodes", times=99, **fault)
    ran = site.drift("--recompile", "--push", "--output", "json")
    document = json.loads(ran.out)
    assert (ran.code, document.get("findings")) == (1, None)
    assert message in document["error"]["message"], document["error"]
    assert "Traceback" not in ran.err
    assert git(site.remote, "rev-parse", "main") == head


def test_on_a_full_disk_nothing_is_written_and_with_room_it_works(site: Site, small_disk: Path) -> None:
    git(small_disk, "clone", "-q", git(site.directory, "remote", "get-url", "origin"), "demo")
    site.directory, filler = small_disk / "demo", small_disk / "filler"
    before = git(site.directory, "status", "--porcelain")
    site.lose()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"x" * (free - 16_384))
    ran = site.drift("--recompile")
    assert ran.code == 1
    assert "No space left on device" in ran.err
    assert git(site.directory, "status", "--porcelain") == before
    filler.unlink()
    assert site.drift("--recompile").code == 2
    assert (site.directory / "observed" / "clusters" / "two-nodes.yaml").is_file()


def test_a_tree_that_cannot_be_written_is_told_and_stays_as_it_is(site: Site, small_disk: Path) -> None:
    git(small_disk, "clone", "-q", git(site.directory, "remote", "get-url", "origin"), "demo")
    site.directory = small_disk / "demo"
    site.lose()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ran = site.drift("--recompile", "--push")
    assert ran.code == 1
    assert "Read-only file system" in ran.err
    assert "Traceback" not in ran.err


def test_profiles_that_no_longer_hold_are_submitted_for_measurement_once(site: Site, scepsy: Scepsy) -> None:
    cluster = site.directory / "clusters" / "two-nodes.yaml"
    cluster.write_text(cluster.read_text().replace("      nvlinkDomains", "      reserved: [7]\n      nvlinkDomains"))
    git(site.directory, "commit", "-qam", "Keep GPUs for measurements")
    assert scepsy("compile", "--project", site.directory, "--commit", "--push").code == 0
    path = site.directory / "scepsy.yaml"
    path.write_text(
        path.read_text().replace("0.24.0", "0.25.0")
        + "  profiling: {image: 'registry.example.com/p:1', shares: [0.5]}\n"
    )
    for workflow in (site.directory / "workflows").glob("*.yaml"):
        workflow.write_text(workflow.read_text().replace("    - name: ", "    - tensorParallel: [1]\n      name: "))
    git(site.directory, "commit", "-qam", "A newer engine")
    git(site.directory, "push", "-q")
    _, document = site.answered()
    assert "profile-outdated" in {f["kind"] for f in document["findings"]}
    assert site.world.workflows == {}
    _, document = site.answered("--recompile", "--push")
    said = document["response"]["profiling"]
    assert not [line for line in said if line.startswith("nothing")]
    assert [line.split()[0] for line in said if "left out" not in line] == ["submitted"] * len(site.world.workflows)
    assert site.world.workflows
    before = set(site.world.workflows)
    _, document = site.answered("--recompile", "--push")
    assert {line.split()[0] for line in document["response"]["profiling"] if "left out" not in line} == {"joined"}
    assert set(site.world.workflows) == before


def test_measurements_that_cannot_be_submitted_are_told_and_hold_nothing_up(site: Site) -> None:
    path = site.directory / "scepsy.yaml"
    path.write_text(path.read_text().replace("0.24.0", "0.25.0") + "  profiling: {image: 'registry.example.com/p:1'}\n")
    git(site.directory, "commit", "-qam", "A newer engine")
    git(site.directory, "push", "-q")
    site.world.fail(403, match="argoproj.io.*workflow", times=99)
    code, document = site.answered("--recompile", "--push")
    assert code == 2
    assert any("no profiling job submitted" in line for line in document["response"]["profiling"])


def test_no_secret_is_in_anything_that_is_written_or_said(
    site: Site, forge: forge_api.Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"git": "git-s3cret-0123456789", "prometheus": "prom-s3cret-0123456789", "forge": TOKEN}
    monkeypatch.setenv("SCEPSY_GIT_TOKEN", secrets["git"])
    monkeypatch.setenv("PROMETHEUS_TOKEN", secrets["prometheus"])
    site.lose()
    said = []
    for how in ("--pull-request", "--push"):
        ran = site.drift("--recompile", how)
        assert ran.code == 2, ran.err
        said.append(ran.out + ran.err)
    said += [json.dumps(body) for _, _, body in forge.asked]
    written = [p for root in (site.directory, site.remote) for p in root.rglob("*") if p.is_file()]
    assert len(written) > 100
    command = ["git", "cat-file", "--batch-all-objects", "--batch", "--buffer", "--unordered"]
    objects = b"".join(
        subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
        for root in (site.directory, site.remote)
    )
    for secret in secrets.values():
        assert not any(secret in text for text in said)
        assert secret.encode() not in objects
        assert not any(secret.encode() in path.read_bytes() for path in written)


def test_a_second_shift_is_planned_for_on_top_of_the_first(site: Site) -> None:
    settings(site, "{minimumGain: 0, coolDown: 0s}")
    site.traffic(1.6)
    assert site.answered("--recompile", "--push")[1]["response"]["done"].startswith("pushed ")
    site.traffic(1.0, longer=1.6)
    _, document = site.answered("--recompile", "--push")
    assert document["response"]["done"].startswith("pushed "), document["response"]
    observed = YAML(typ="safe", pure=True).load(site.directory / "observed" / "rag-reranker.yaml")["spec"]
    assert float(observed["rate"].removesuffix("/s")) == pytest.approx(1.6 * 12, rel=0.05)
    generator = next(own for own in observed["llms"] if own["llm"] == "generator")
    assert generator["outputTokens"] == pytest.approx(1.6 * 240, rel=0.1)


def test_an_llm_that_nobody_calls_is_too_little_and_nothing_worse(site: Site) -> None:
    settings(site, "{minimumGain: 0}")
    site.traffic(1.0, idle="reranker")
    code, document = site.answered("--recompile", "--push")
    assert code == 2
    assert ("reranker", "load-below") in {(f["subject"], f["kind"]) for f in document["findings"]}
