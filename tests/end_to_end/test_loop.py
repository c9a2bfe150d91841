"""The whole loop: a pushed change, a lost node, a shift of traffic; each ends in what runs, without anybody's help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scepsy.documents import Plan
from tests.conftest import Scepsy, git
from tests.drift.replayed_traffic import DAY, INSTALLED, MISSING, Engine, free_port, gateway, prometheus, text
from tests.end_to_end import observer
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.environment import Environment, planned
from tests.end_to_end.processes import eventually
from tests.end_to_end.project import MakeProject, ScepsyProject
from tests.publishing.git_server import let_push, serving

pytestmark = pytest.mark.skipif(not INSTALLED, reason=MISSING)


@pytest.fixture
def project(project: MakeProject) -> Iterator[ScepsyProject]:
    """Two workflows on two nodes; the remote is a real Git server over HTTP, to which nothing compiled is pushed yet."""
    made = project("both", push=False)
    git(made.directory, "rm", "-rq", "plans", "rendered")
    made.edit("scepsy.yaml", "spec:\n", "spec:\n  drift: {coolDown: 0s, minimumGain: 0}\n")
    git(made.directory, "commit", "-qam", "Nothing compiled yet")
    made.push()
    with serving(made.remote.parent) as server:
        let_push(made.remote)
        git(made.directory, "remote", "add", "origin", f"{server.url}/{made.remote.name}")
        git(made.directory, "fetch", "-q", "origin")
        git(made.directory, "branch", "-q", "--set-upstream-to=origin/main")
        yield replace(made, served=f"{server.url}/{made.remote.name}")


@contextmanager
def watching(project: ScepsyProject, kubeconfig: Path, address: str, application: str) -> Iterator[list[str]]:
    """Run `scepsy drift --watch --recompile --push` on the project with the account of `gitops/observe`."""
    command = [
        sys.executable, "-m", "scepsy", "drift", "--project", str(project.directory), "--watch", "--interval", "5s",
        "--context", observer.CONTEXT, "--prometheus", address, "--application", application,
        "--listen", f"127.0.0.1:{free_port()}", "--recompile", "--push",
    ]  # fmt: skip
    said: list[str] = []
    log = kubeconfig.with_name("watch.log")
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "KUBECONFIG": str(kubeconfig)}
        )
    try:
        yield said
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
        said.append(log.read_text())
        print(said[0])


def history(plan: Plan, end: float, factor: float) -> str:
    """A day of traffic as a plan expects it, the last 40 minutes at so many times its load."""
    rng = np.random.default_rng(1)
    shape = np.ones(DAY // 60)
    shape[-40:] = factor
    tokens = {"generator": (1443.0, 126.0), "reranker": (510.0, 1.0), "verifier": (566.0, 1.0)}
    parts = []
    for llm in plan.spec.llms:
        load = llm.predicted.load
        own = [instance.name for instance in plan.spec.instances if instance.llm == llm.name]
        for name in own:
            made = Engine(
                llm.name, f"{name}-6c5d8f9b7-x2x4q", load * shape / len(own), *tokens[llm.name],
                namespace=plan.spec.namespace,
            )  # fmt: skip
            parts.append(made.lines(end, rng))
        lines = gateway(llm.name, load * shape, end, rng)
        parts.append({k: [v.replace("llm-serving", plan.spec.namespace) for v in own] for k, own in lines.items()})
    return text(parts)


def head(project: ScepsyProject) -> str:
    return git(project.remote, "rev-parse", "main")


def deployed(environment: Environment, project: ScepsyProject, within: float = 180) -> None:
    """Wait until what the newest plan says runs, on exactly its GPUs."""
    environment.synced_and_healthy(within=within)
    assert environment.allocated() == planned(project.plan)


def test_a_push_a_lost_node_and_a_shift_of_traffic_each_end_in_what_runs(
    cluster: ClusterUnderTest, project: ScepsyProject, scepsy: Scepsy, tmp_path: Path
) -> None:
    environment = cluster.with_nodes(project.cluster).syncing(project)
    observer.installed(cluster, project.namespace, tmp_path)
    kubeconfig = observer.kubeconfig(cluster, project.namespace, tmp_path)
    application = f"{cluster.argocd}/{environment.name}"

    # Somebody's change is pushed; CI compiles it and pushes the result.
    project.edit("workflows/rag-reranker.yaml", "target: {rate: 12/s}", "target: {rate: 9/s}")
    git(project.directory, "commit", "-qam", "Fewer questions")
    git(project.directory, "push", "-q", "origin", "main")
    ran = scepsy("compile", "--project", project.directory, "--commit", "--push")
    assert ran.code == 0, ran.err
    deployed(environment, project)
    assert {instance.node for instance in project.plan.spec.instances} == {"gpu-a", "gpu-b"}

    # A node vanishes: found, compiled without it, pushed, synced, healthy on what is left.
    with (
        prometheus(tmp_path / "steady", history(project.plan, time.time(), 1.0)) as address,
        watching(project, kubeconfig, address, application) as said,
    ):
        time.sleep(8)  # a look that finds nothing
        before = head(project)
        lost = time.monotonic()
        cluster.lose("gpu-b")
        eventually(lambda: head(project) != before, within=60, why="nothing was pushed")
        took = time.monotonic() - lost
        eventually(lambda: project.head == head(project), within=30, why="the checkout does not follow")
        assert {instance.node for instance in project.plan.spec.instances} == {"gpu-a"}
        deployed(environment, project)
    print(f"from the lost node to the pushed commit: {took:.1f} s")
    assert "node gpu-b is gone" in said[0]
    assert git(project.directory, "diff", "--name-only", before, "HEAD", "--", "clusters", "workflows") == ""

    # Traffic rises by 60 %: found, planned for, pushed, synced.
    rate = project.plan.spec.workflows[-1].target.per_second
    with prometheus(tmp_path / "risen", history(project.plan, time.time(), 1.6)) as address:
        command = [
            sys.executable, "-m", "scepsy", "drift", "--project", str(project.directory), "--recompile", "--push",
            "--context", observer.CONTEXT, "--prometheus", address, "--application", application,
        ]  # fmt: skip
        ended = subprocess.run(
            command, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "Done: pushed" in ended.stdout
    [workflow] = [w for w in project.plan.spec.workflows if w.name == "rag-reranker"]
    assert workflow.target.per_second == pytest.approx(1.6 * rate, rel=0.05)
    assert (project.directory / "observed/rag-reranker.yaml").is_file()
    deployed(environment, project)
