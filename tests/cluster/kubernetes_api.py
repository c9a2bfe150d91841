"""A small Kubernetes API server: lists in pages, single objects, a version; with the faults of the one for profiling jobs."""

from __future__ import annotations

import copy
from typing import Any

from tests.end_to_end import nodes
from tests.profiling.jobs import argo_api as jobs

from scepsy.cluster.discovery import LiveCluster, Objects, live
from scepsy.cluster.kubernetes import APPLICATIONS, CLAIMS, CLASSES, NODES, PODS, SLICES, Kind
from scepsy.documents import Cluster

Object = dict[str, Any]
KINDS = {"Node": NODES, "ResourceSlice": SLICES, "DeviceClass": CLASSES}


class FakeKubernetes(jobs.FakeArgo):
    """A cluster: objects by the path of their list."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, list[Object]] = {
            kind.path(): [] for kind in (NODES, SLICES, CLASSES, PODS, CLAIMS, APPLICATIONS)
        }
        self.version: Any = {"major": "1", "minor": "36", "gitVersion": "v1.36.3"}
        self.before_page = lambda: None
        self.server.RequestHandlerClass = type("Handler", (_Handler,), {"api": self})

    def have(self, *items: Object) -> FakeKubernetes:
        for item in items:
            self.objects[KINDS[item["kind"]].path()].append(item)
        return self

    def of(self, kind: Kind) -> list[Object]:
        return self.objects[kind.path()]

    def node(self, name: str) -> Object:
        return next(item for item in self.of(NODES) if item["metadata"]["name"] == name)

    def slice(self, node: str) -> Object:
        return next(item for item in self.of(SLICES) if item["spec"]["nodeName"] == node)


class _Handler(jobs._Handler):
    api: FakeKubernetes

    def _found(self, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        if jobs._KUBERNETES.fullmatch(path):
            return super()._found(path, query, body)
        assert self.command == "GET"
        if path == "/version":
            return 200, self.api.version
        *front, resource = path.split("/")
        namespace = ""
        if "namespaces" in front:
            at = front.index("namespaces")
            namespace = front[at + 1]
            front = [*front[:at], *front[at + 2 :]]
        listed = self.api.objects.get("/".join([*front, resource]))
        if listed is not None:
            found = [i for i in listed if not namespace or i["metadata"].get("namespace") == namespace]
            at, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
            following = {"continue": str(at + limit)} if at + limit < len(found) else {}
            return 200, {"kind": "List", "items": found[at : at + limit], "metadata": following}
        listed = self.api.objects.get("/".join(front))
        for item in listed or []:
            if item["metadata"]["name"] == resource and item["metadata"].get("namespace", "") == namespace:
                return 200, item
        if listed is None:
            return 404, "404 page not found\n"
        return 404, {"kind": "Status", "message": f'"{resource}" not found'}


def objects_of(cluster: Cluster) -> list[Object]:
    """What the nodes and the driver of a cluster publish, all ready."""
    items = copy.deepcopy(nodes.objects(cluster))
    for item in items:
        if item["kind"] == "Node":
            item["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return items


def read_of(items: list[Object], version: str = "v1.36.3") -> Objects:
    """What would be read of a cluster that has these objects."""
    by_kind: dict[str, list[Object]] = {"Node": [], "ResourceSlice": [], "DeviceClass": []}
    for item in items:
        by_kind[item["kind"]].append(item)
    return Objects({"gitVersion": version}, by_kind["Node"], by_kind["ResourceSlice"], by_kind["DeviceClass"])


def live_of(cluster: Cluster, version: str = "v1.36.3", driver: str | None = None) -> LiveCluster:
    """A live cluster that has just what a document says."""
    return live(read_of(objects_of(cluster), version), driver)
