"""From push to Synced and Healthy on a real API server, scheduler and Argo CD.

`python -m benchmarks.sync [INSTANCES …]` needs what `make test-cluster` needs. The 64 nodes with eight GPUs are played
by kwok, so start-up is that of a fake container: what is measured is Argo CD and the scheduler. Whole GPUs, one
instance each, all in one wave.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.conftest import Ran
from tests.end_to_end.api import Object
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.programs import programs
from tests.end_to_end.project import ScepsyProject
from tests.end_to_end.test_changes import plan_of

from scepsy.cli import main as scepsy_main
from scepsy.documents import Cluster
from scepsy.documents.plan import Instance

NODES, GPUS = 64, 8
ETCD_LIMIT = 1.5 * 2**20


def cluster_text(nodes: int = NODES, connected: bool = False) -> str:
    """Return the Cluster document: nodes with eight H100 each, which NVLink connects if asked for."""
    lines = ["apiVersion: scepsy.dev/v1alpha1", "kind: Cluster", "metadata: {name: two-nodes}", "spec:"]
    lines += ["  sharing: dra-mps", "  nodes:"]
    for n in range(nodes):
        gpus = ", ".join(f"{{uuid: GPU-{n}-{g}, memory: 80Gi}}" for g in range(GPUS))
        lines += [f"    - name: gpu-{n}", "      product: NVIDIA-H100-80GB-HBM3", f"      gpus: [{gpus}]"]
        lines += [f"      nvlinkDomains: [{list(range(GPUS))}]"] if connected else []
    return "\n".join(lines) + "\n"


def run_scepsy(*arguments: object) -> Ran:
    """Run a command in this process."""
    sys.argv = ["scepsy", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            scepsy_main()
    except SystemExit as ended:
        return Ran(int(ended.code or 0), "", "")
    return Ran(0, "", "")


def moment(text: str) -> float:
    """Return an API timestamp in seconds."""
    return datetime.fromisoformat(text).timestamp()


def condition(pod: Object, kind: str) -> float:
    """Return when a pod's condition became true."""
    return next(moment(c["lastTransitionTime"]) for c in pod["status"]["conditions"] if c["type"] == kind)


def measure(cluster: ClusterUnderTest, count: int) -> None:
    """Deploy so many instances from nothing, and print how long it took."""
    directory = Path(tempfile.mkdtemp())
    project = ScepsyProject.from_example(directory, "both", f"bench-{count}", run_scepsy)
    (project.directory / "clusters/two-nodes.yaml").write_text(cluster_text(), encoding="utf-8")
    document: Cluster = project.cluster
    cells = [(f"gpu-{n}", f"GPU-{n}-{g}") for g in range(GPUS) for n in range(NODES)][:count]
    instances = [
        Instance(name=f"llm{i % 10}-{i // 10}", llm=f"llm{i % 10}", node=node, gpus=(gpu,), share=1.0)
        for i, (node, gpu) in enumerate(cells)
    ]
    plan = plan_of(instances, project.namespace, [])
    project.publish(plan)
    folder = project.directory / project.path
    sizes = sorted(path.stat().st_size for path in folder.iterdir())
    environment = cluster.with_nodes(document).syncing(project)
    start = time.time()
    environment.synced_and_healthy(within=1500)
    total = time.time() - start
    pods = cluster.api.list("v1", "Pod", project.namespace, labelSelector="scepsy.dev/instance")
    created = max(moment(pod["metadata"]["creationTimestamp"]) for pod in pods)
    scheduled = max(condition(pod, "PodScheduled") for pod in pods)
    ready = max(condition(pod, "Ready") for pod in pods)
    status = len(repr(environment.application))
    print(f"{count} instances, {len(sizes)} objects: {total:.0f} s from push to Synced and Healthy")
    print(
        f"  Argo CD, until the last pod is created {created - start:.0f} s; scheduler {scheduled - created:.0f} s more;"
    )
    print(f"  start-up {ready - scheduled:.0f} s more; until Argo CD says so {start + total - ready:.0f} s")
    largest = f"{sizes[-1] / 1e3:.1f} kB ({sizes[-1] / ETCD_LIMIT:.1%} of etcd's limit)"
    print(f"  largest object {largest}, all {sum(sizes) / 1e6:.2f} MB,")
    print(f"  the Application with its status {status / 1e3:.0f} kB ({status / ETCD_LIMIT:.1%})")
    cluster.remove_environments()


def main() -> None:
    """Measure the numbers of instances that the command line names."""
    cluster = ClusterUnderTest(programs())
    try:
        for count in [int(argument) for argument in sys.argv[1:]] or [10, 100, 500]:
            measure(cluster, count)
    finally:
        cluster.stop(keep=False)


if __name__ == "__main__":
    main()
