"""A cluster under test: one that the tests start, or one that they are given."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

import pytest

from scepsy.documents import Cluster
from tests.end_to_end import argocd, control_plane, nodes
from tests.end_to_end.api import Api, Object
from tests.end_to_end.environment import Environment
from tests.end_to_end.processes import Processes, eventually
from tests.end_to_end.programs import Programs
from tests.end_to_end.project import ScepsyProject

GIVEN = "SCEPSY_TEST_KUBECONFIG"
# What needs no GPU, such as the gateway, does not run on nodes that have some.
PLAIN = ("plain-a", "plain-b")
MORTAL = "mortal"


class ClusterUnderTest:
    """A cluster with Argo CD, whose nodes and environments change from test to test."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        # Short, since sockets live in it; and not pytest's own, which keeps the last three.
        self.directory = Path(tempfile.mkdtemp(prefix="scepsy-cluster-"))
        logs = self.directory / "logs"
        logs.mkdir()
        self.processes = Processes(logs)
        self.given = GIVEN in os.environ
        self._nodes: dict[str, Object] = {}
        self._environments: list[Environment] = []
        self.argocd = f"scepsy-tests-{secrets.token_hex(3)}" if self.given else "argocd"
        try:
            if self.given:
                self.kubeconfig = Path(os.environ[GIVEN])
            else:
                self.kubeconfig = control_plane.start(programs, self.processes, self.directory)
            self.reader = argocd.start(programs, self.processes, self.directory, self.kubeconfig, self.argocd)
        except BaseException:
            self.processes.stop()
            raise
        self.api = Api(self.kubeconfig)

    def with_nodes(self, document: Cluster, mortal: str = "") -> ClusterUnderTest:
        """Have exactly the nodes and GPUs of a Cluster document, and two nodes without.

        Args:
            document: the nodes.
            mortal: one of them that `silence` can end.
        """
        if self.given:
            pytest.skip(f"needs fake GPU nodes, which the cluster of {GIVEN} does not get")
        wanted = [*map(nodes.plain_machine, PLAIN), *nodes.objects(document)]
        if mortal:
            control_plane.play_nodes(self.programs, self.processes, self.kubeconfig, MORTAL)
        for item in wanted:
            if item["kind"] == "Node" and item["metadata"]["name"] == mortal:
                item["metadata"]["annotations"] = {"kwok.x-k8s.io/node": MORTAL}
        paths = {self.api.path_of(item): item for item in wanted}
        for path in [path for path in self._nodes if path not in paths]:
            self.api.delete(self._nodes.pop(path))
        for path, item in paths.items():
            if self._nodes.get(path) != item:
                self.api.apply(item)
                self._nodes[path] = item
        eventually(self._all_ready, within=60, why="not all nodes are ready")
        return self

    def silence(self) -> None:
        """End the mortal node's heartbeats: from now on nothing of it answers, and its pods never end."""
        self.processes.stop_one(f"kwok-{MORTAL}")

    def node(self, name: str) -> Object:
        """Return a Node as it is now."""
        return self.api.get("v1", "Node", name) or {"status": {"conditions": []}}

    def forget_node(self, name: str) -> None:
        """Have the next `with_nodes` make a node anew."""
        self._nodes = {path: item for path, item in self._nodes.items() if item["metadata"]["name"] != name}

    def lose(self, name: str) -> None:
        """Have a node vanish, and what its driver published with it, as the garbage collector sees to."""
        gone = {
            path: item
            for path, item in self._nodes.items()
            if name in (item["metadata"]["name"], item.get("spec", {}).get("nodeName"))
        }
        for path in gone:
            self.api.delete(self._nodes.pop(path))

    def syncing(self, project: ScepsyProject) -> Environment:
        """Have Argo CD sync a repository; what it deployed is removed when the test ends."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        made = Environment(self.api, self.programs["kubectl"], directory, project, self.argocd)
        self._environments.append(made)
        made.install()
        return made

    def remove_environments(self) -> None:
        """Leave the cluster as it was before the test."""
        while self._environments:
            self._environments.pop().remove()

    def stop(self, keep: bool) -> None:
        """Stop everything.

        Args:
            keep: whether logs stay.
        """
        if self.given:
            self.api.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.argocd}})
        self.processes.stop()
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _all_ready(self) -> bool:
        self.processes.alive()
        return all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", []))
            and not any(taint["key"].startswith("node.kubernetes.io/") for taint in item["spec"].get("taints", []))
            for item in self.api.list("v1", "Node")
        )
