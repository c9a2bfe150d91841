"""From a lost node to the pushed commit that plans without it: a 64-GPU cluster, end to end.

`python -m benchmarks.node_loss [TIMES]` needs what `make test-cluster` needs. Real are the API server, the scheduler,
`scepsy drift --watch --recompile --push` in a process of its own, and the Git server (http-backend over loopback); the
eight nodes with eight H100 each are played by kwok. Clocked is the time from the deletion of a Node to the moment in
which the remote's branch has another commit; what it is made of is said by a compile alone in the same run.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml
from tests.conftest import git
from tests.drift.replayed_traffic import free_port
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.programs import programs
from tests.end_to_end.project import ScepsyProject
from tests.publishing.git_server import let_push, serving

from benchmarks.sync import GPUS, cluster_text, run_scepsy

NODES = 8


def wait(condition: Callable[[], object], within: float = 120.0) -> float:
    """Return the seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            raise SystemExit("gave up")
        time.sleep(0.01)
    return time.monotonic() - began


def measure(cluster: ClusterUnderTest, times: int) -> None:
    """Lose a node so many times, one after the other, and print how long the answers took."""
    directory = Path(tempfile.mkdtemp())
    made = ScepsyProject.from_example(directory, "both", "bench", run_scepsy)
    (made.directory / "clusters/two-nodes.yaml").write_text(cluster_text(NODES, connected=True), encoding="utf-8")
    began = time.monotonic()
    made.compile()
    alone = time.monotonic() - began
    made.push()
    cluster.with_nodes(made.cluster)
    with serving(made.remote.parent) as server:
        let_push(made.remote)
        url = f"{server.url}/{made.remote.name}"
        git(made.directory, "remote", "add", "origin", url)
        git(made.directory, "fetch", "-q", "origin")
        git(made.directory, "branch", "-q", "--set-upstream-to=origin/main")
        project = replace(made, served=url)
        log = directory / "log"
        command = [
            sys.executable, "-m", "scepsy", "drift", "--project", str(project.directory), "--watch", "--recompile",
            "--push", "--context", context_of(cluster), "--listen", f"127.0.0.1:{free_port()}",
        ]  # fmt: skip
        with log.open("w") as out:
            environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            wait(lambda: "No drift" in log.read_text())
            time.sleep(3)
            took = []
            for _ in range(times):
                busy = sorted({instance.node for instance in project.plan.spec.instances})
                before = git(project.remote, "rev-parse", "main")
                cluster.lose(busy[-1])
                took.append(wait(moved(project, before)))
                wait(lambda: project.head == git(project.remote, "rev-parse", "main"))
                time.sleep(3)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
    print(f"{NODES * GPUS} GPUs, {len(project.plan.spec.instances)} instances; {times} nodes lost one after the other")
    shown = ", ".join(f"{seconds:.1f}" for seconds in took)
    print(f"  from the lost node to the pushed commit: median {statistics.median(took):.1f} s ({shown})")
    print(f"  compile --commit alone, in a process that runs already: {alone:.1f} s")


def moved(project: ScepsyProject, before: str) -> Callable[[], bool]:
    """Return whether the remote's branch has left a commit."""
    return lambda: git(project.remote, "rev-parse", "main") != before


def context_of(cluster: ClusterUnderTest) -> str:
    """Return the context of the cluster's kubeconfig."""
    return str(yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))["current-context"])


def main() -> None:
    """Measure as often as the command line says."""
    cluster = ClusterUnderTest(programs())
    try:
        measure(cluster, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    finally:
        cluster.stop(keep=False)


if __name__ == "__main__":
    main()
