"""`scepsy drift --context`: nodes and live objects too, and what their loss costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests import published_schemas as published
from tests.cluster.kubernetes_api import FakeKubernetes, objects_of
from tests.conftest import Demo, Scepsy

from scepsy.cluster.kubernetes import NODES, SLICES
from scepsy.documents import Cluster
from scepsy.documents.loading import validate
from scepsy.documents.yaml_source import SourceFile, parse


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    """Two workflows on two nodes, compiled and committed."""
    return demo(tmp_path / "demo", "both", compiled=True)


@pytest.fixture
def there(project: Path, world: FakeKubernetes, kubeconfig: Path) -> FakeKubernetes:
    """A cluster that has what its document says."""
    data = (project / "clusters" / "two-nodes.yaml").read_bytes()
    return world.have(*objects_of(validate(parse(SourceFile("c", data))[0], Cluster)))


def looked(scepsy: Scepsy, project: Path, *more: object) -> tuple[int, dict, str]:
    ran = scepsy("drift", "--project", project, "--context", "here", "--output", "json", *more)
    document = json.loads(ran.out)
    published.validate(document, "DriftResult")
    return ran.code, document, ran.err


def test_a_cluster_as_documented_is_no_drift(scepsy: Scepsy, project: Path, there: FakeKubernetes) -> None:
    code, document, _ = looked(scepsy, project)
    assert (code, document.get("findings")) == (0, None), document
    areas = {j["area"] for j in document["checks"] if j["checked"]}
    assert {"cluster", "objects", "profiles"} <= areas


def test_a_node_that_is_gone_says_what_is_left_and_what_compiling_again_would_give(
    scepsy: Scepsy, project: Path, there: FakeKubernetes
) -> None:
    plan = YAML(typ="safe", pure=True).load(project / "plans" / "two-nodes.yaml")["spec"]
    lost = there.of(NODES)[-1]["metadata"]["name"]
    for kind in (NODES, SLICES):
        there.of(kind)[:] = [
            i for i in there.of(kind) if lost not in (i["metadata"]["name"], i["spec"].get("nodeName"))
        ]
    code, document, _ = looked(scepsy, project)
    assert code == 2
    finding = next(f for f in document["findings"] if f["kind"] == "node-gone")
    assert (finding["subject"], finding["severity"]) == (lost, "critical")
    assert finding["instances"] == sorted(i["name"] for i in plan["instances"] if i["node"] == lost)
    hit = {i["llm"] for i in plan["instances"] if i["node"] == lost}
    for workflow in finding["cost"]["workflows"]:
        planned = next(w for w in plan["workflows"] if w["name"] == workflow["workflow"])
        if hit & {llm["llm"] for llm in planned["predicted"]["llms"]}:
            assert workflow["capacity"] < float(planned["predicted"]["capacity"].partition("/")[0])
    gain = finding["gain"]
    assert gain["note"].startswith("no allocation carries it") or gain["workflows"]


def test_a_cluster_out_of_reach_is_an_error_and_never_no_drift(
    scepsy: Scepsy, project: Path, there: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scepsy.cluster.kubernetes.UNREACHED_DEADLINE", 0.0)
    ran = scepsy("drift", "--project", project, "--context", "elsewhere", "--output", "json")
    assert ran.code == 1
    assert json.loads(ran.out)["error"]["message"]


def test_without_a_context_no_cluster_is_asked(scepsy: Scepsy, project: Path, there: FakeKubernetes) -> None:
    assert scepsy("drift", "--project", project).code == 0
    assert there.asked == []
