"""From a new workflow to manifests in one command: the jobs that it submits run under a real workflow-controller."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scepsy.documents.compressed_text import unpack
from tests.conftest import Scepsy, git
from tests.end_to_end.api import Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.profiling import (
    CONTROLLER,
    POINT,
    WORKFLOW,
    ArgoWorkflows,
    End,
    Profiling,
    has_schemas,
    start_controller,
)
from tests.end_to_end.project import ScepsyProject
from tests.profiling.jobs import argo_api

pytestmark = pytest.mark.skipif(not has_schemas(), reason="no CRDs of Argo Workflows")


@pytest.fixture
def project(cluster: ClusterUnderTest, tmp_path: Path, scepsy: Scepsy) -> ScepsyProject:
    """An example whose models nobody has profiled; one GPU of the cluster is reserved."""
    made = ScepsyProject.from_example(tmp_path, "rag-reranker", "llm-serving", scepsy)
    made.edit("workflows/rag-reranker.yaml", "rate: 12/s", "rate: 1/s")
    made.edit("workflows/rag-reranker.yaml", "p95: 8s", "p95: 80s")
    for length in ("16384", "4096"):
        made.edit(
            "workflows/rag-reranker.yaml", f"maxModelLen: {length}", f"maxModelLen: {length}\n      tensorParallel: [1]"
        )
    made.edit(
        "scepsy.yaml", "spec:\n", "spec:\n  profiling: {image: 'registry.example.com/profiling:1', shares: [0.5]}\n"
    )
    [path] = (made.directory / "clusters").iterdir()
    path.write_text(path.read_text().replace("      nvlinkDomains", "      reserved: [3]\n      nvlinkDomains"))
    shutil.rmtree(made.directory / "profiles")
    git(made.directory, "rm", "-rq", "--cached", "plans", "rendered", "profiles")
    for name in ("plans", "rendered"):
        shutil.rmtree(made.directory / name)
    git(made.directory, "add", "-A")
    git(made.directory, "commit", "-qm", "A new workflow")
    return made


@pytest.fixture
def argo(cluster: ClusterUnderTest, project: ScepsyProject) -> Iterator[ArgoWorkflows]:
    """The namespace of the jobs, under a controller, on the nodes of the project's cluster."""
    program = shutil.which(CONTROLLER)
    if program is None:
        pytest.skip(f"no {CONTROLLER} on the PATH")
    cluster.with_nodes(project.cluster)
    product = project.cluster.spec.nodes[0].product
    profiling = Profiling(cluster, "scepsy-profiling", {product: "2"})
    profiling.install()
    start_controller(cluster, program)
    yield ArgoWorkflows(profiling)
    cluster.processes.stop_one(CONTROLLER)
    profiling.remove()


def test_compile_profile_measures_on_the_reserved_gpu_commits_and_compiles(
    argo: ArgoWorkflows, project: ScepsyProject, git_home: Path
) -> None:
    argo.profiling.account("scepsy-submit")
    taken: list[frozenset[str]] = []
    attempts: Counter[str] = Counter()

    def measure(pod: Object) -> End:
        taken.append(argo.gpus(pod))
        labels = pod["metadata"]["labels"]
        workflow = argo.workflow(labels[WORKFLOW])
        attempts[f"{workflow['metadata']['name']} {labels[POINT]}"] += 1
        if attempts.total() == 1:
            return End(75, argo_api.outputs(workflow, labels[POINT], "interrupted", "SIGTERM"))
        # The job gets the calls that the workflow describes.
        data = (argo.api.get("v1", "ConfigMap", f"{workflow['metadata']['name']}-inputs", argo.namespace) or {})["data"]
        calls = [json.loads(line) for line in unpack(data["calls"], "calls").splitlines()]
        assert {call["model"] for call in calls} <= {"generator", "reranker"}
        return End(0, argo_api.outputs(workflow, labels[POINT]))

    command = [sys.executable, "-m", "scepsy", "compile", "--profile", "--commit", "--timeout", "5min"]
    environment = {**os.environ, "KUBECONFIG": str(argo.profiling.kubeconfig("scepsy-submit")), "HOME": str(git_home)}
    running = subprocess.Popen(
        [*command, "--project", project.directory],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        argo.until(lambda: running.poll() is not None, measure, within=240)
    finally:
        running.kill()
        said = running.communicate()[0]

    assert running.returncode == 0, said
    # Two models at two shares each, one of them at a second attempt; all on the GPU that is kept back for it.
    assert len(attempts) == 4, attempts
    assert attempts.total() == 5, attempts
    reserved = project.cluster.spec.nodes[0].gpus[3].uuid
    assert set(taken) == {frozenset({reserved})}
    # The figures are in the repository, and the plan rests on them.
    log = git(project.directory, "log", "--format=%s").splitlines()
    assert len(log) >= 3, log
    assert git(project.directory, "status", "--porcelain") == ""
    plan = project.plan
    assert {llm.profile.source for llm in plan.spec.llms} == {"measured"}
    assert {llm.profile.share_model for llm in plan.spec.llms} == {None}
    assert all(reserved not in instance.gpus for instance in plan.spec.instances)
