"""`scepsy cluster discover` against a server: what is asked of it, what goes wrong, what is written."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kubernetes_api import FakeKubernetes, objects_of
from tests.conftest import Scepsy
from tests.profiling.jobs.argo_api import TOKEN
from tests.profiling.jobs.conftest import Waits, write_kubeconfig

from scepsy.cluster import kubernetes as access
from scepsy.cluster.kubernetes import NODES, PODS, SLICES, Kubernetes
from scepsy.documents import Cluster
from scepsy.documents.loading import validate
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.drift import nodes as inventory
from scepsy.drift import objects
from scepsy.errors import ScepsyError
from scepsy.remote_api.retry import Clock

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/clusters/two-gpus.yaml"


def example(path: Path = EXAMPLE) -> Cluster:
    return validate(parse(SourceFile("c", path.read_bytes()))[0], Cluster)


@pytest.fixture
def there(world: FakeKubernetes, kubeconfig: Path) -> FakeKubernetes:
    """A server that has what the example says."""
    world.have(*objects_of(example()))
    return world


@pytest.fixture
def project(scepsy: Scepsy, tmp_path: Path) -> Path:
    """A project with that example's document."""
    made = tmp_path / "project"
    assert scepsy("init", made).code == 0
    (made / "clusters").mkdir(exist_ok=True)
    (made / "clusters/two-gpus.yaml").write_bytes(EXAMPLE.read_bytes())
    return made


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """No waiting: a clock that only passes when somebody waits."""
    made = Waits()
    initial = Kubernetes.__init__
    monkeypatch.setattr(
        Kubernetes,
        "__init__",
        lambda self, context=None, clock=None: initial(self, context, Clock(made.now, made.sleep)),
    )
    return made


# ---- what a user gets


def test_without_a_project_it_prints_a_document(
    there: FakeKubernetes, scepsy: Scepsy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = scepsy("cluster", "discover", "prod")
    assert ran.code == 0
    assert (
        ran.out
        == """# yaml-language-server: $schema=https://scepsy.dev/schemas/v1alpha1/cluster.json
apiVersion: scepsy.dev/v1alpha1
kind: Cluster
metadata:
  name: prod
spec:
  kubernetes: "1.36"
  sharing: dra-exclusive
  nodes:
    - name: gpu-a
      product: NVIDIA-H100-80GB-HBM3
      gpus:
        - {uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000, memory: 80Gi}
        - {uuid: GPU-aaaaaaaa-0000-4000-8000-000000000001, memory: 80Gi}
"""
    )
    assert ran.err.splitlines() == [
        "note: gpu-a: unknown NVLink domains, so no GPUs are treated as connected: give --topology FILE",
        "note: sharing is dra-exclusive, whole GPUs only; dra-mps hands out parts of GPUs through NVIDIA MPS",
    ]


def test_it_prints_what_would_change_and_writes_only_with_write(
    there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    path = project / "clusters/two-gpus.yaml"
    before = path.read_bytes()
    there.slice("gpu-a")["spec"]["devices"].pop(0)
    wanted = (
        EXAMPLE.read_text()
        .replace("        - {uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000, memory: 80Gi}\n", "")
        .replace("[[0, 1]]", "[[0]]")
    )

    shown = scepsy("cluster", "discover", "--project", project)
    assert (shown.code, shown.out) == (0, wanted)
    assert "1 difference between the document and 127.0.0.1:" in shown.err
    assert (
        "  gpu-a: GPU-aaaaaaaa-0000-4000-8000-000000000000 is gone (index 0, was in NVLink domain [[0, 1]])"
        in shown.err
    )
    assert path.read_bytes() == before

    done = scepsy("cluster", "discover", "two-gpus", "--write", "--project", project)
    assert (done.code, done.out) == (0, "Wrote clusters/two-gpus.yaml\n")
    assert path.read_text() == wanted

    inode = path.stat().st_ino
    again = scepsy("cluster", "discover", "two-gpus", "--write", "--project", project)
    assert again.out == "clusters/two-gpus.yaml matches the cluster; nothing to write.\n"
    assert again.err.startswith("no difference between the document and ")
    assert path.stat().st_ino == inode
    assert [p.name for p in path.parent.iterdir()] == ["two-gpus.yaml"]


def test_a_new_cluster_becomes_a_file_that_a_compile_accepts(
    there: FakeKubernetes, scepsy: Scepsy, project: Path, tmp_path: Path
) -> None:
    (project / "clusters/two-gpus.yaml").unlink()
    links = tmp_path / "topology.txt"
    links.write_text("node: gpu-a\n\tGPU0\tGPU1\nGPU0\t X \tNV18\nGPU1\tNV18\t X \n")
    ran = scepsy("cluster", "discover", "two-gpus", "--write", "--topology", links, "--project", project)
    assert (ran.code, ran.out) == (0, "Wrote clusters/two-gpus.yaml\n")
    written = example(project / "clusters/two-gpus.yaml")
    assert written.spec.nodes == example().spec.nodes
    assert scepsy("cluster", "discover", "--write", "--project", project).out.endswith(
        "matches the cluster; nothing to write.\n"
    )


def test_a_topology_file_replaces_the_domains_of_its_nodes(
    there: FakeKubernetes, scepsy: Scepsy, project: Path, tmp_path: Path
) -> None:
    links = tmp_path / "topology.txt"
    links.write_text("node: gpu-a\n\tGPU0\tGPU1\nGPU0\t X \tSYS\nGPU1\tSYS\t X \nnode: gpu-z\n GPU0\nGPU0 X\n")
    ran = scepsy("cluster", "discover", "--topology", links, "--project", project)
    assert ran.out == EXAMPLE.read_text().replace("      nvlinkDomains: [[0, 1]]\n", "")
    assert "  gpu-a: nvlinkDomains [[0, 1]] -> []\n" in ran.err
    assert "note: the topology file has node gpu-z, but the cluster has no such node with GPUs\n" in ran.err


def test_other_documents_of_the_file_stay(there: FakeKubernetes, scepsy: Scepsy, project: Path) -> None:
    path = project / "clusters/two-gpus.yaml"
    other = EXAMPLE.read_text().replace("name: two-gpus", "name: other").replace("GPU-aaaaaaaa", "GPU-cccccccc")
    path.write_text(other + "---\n" + EXAMPLE.read_text().replace("80Gi}", "79Gi}"))
    assert scepsy("cluster", "discover", "two-gpus", "--write", "--project", project).code == 0
    assert path.read_text() == other + "---\n" + EXAMPLE.read_text()


# ---- misuse


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Prod"], "'Prod' is not a Kubernetes name"),
        (["two-gpus", "--context", "hear"], 'the kubeconfig has no context "hear"\n  hint: did you mean "here"?'),
        (["--topology", "/nowhere"], "/nowhere:1:1: no such file"),
        (["--topology", "/"], "/:1:1: is a directory"),
        (["--project", "/nowhere"], "there is no scepsy.yaml in /nowhere"),
        (["--context", "elsewhere"], "cannot connect to 127.0.0.1:1: Connection refused"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], said: str, there: FakeKubernetes, waits: Waits, scepsy: Scepsy, project: Path
) -> None:
    given = arguments if "--project" in arguments else [*arguments, "--project", str(project)]
    ran = scepsy("cluster", "discover", *given)
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_project_with_several_clusters_or_none_needs_a_name(
    there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    (project / "clusters/b.yaml").write_text(EXAMPLE.read_text().replace("name: two-gpus", "name: b"))
    assert "name one: scepsy cluster discover b|two-gpus" in scepsy("cluster", "discover", "--project", project).err
    for path in (project / "clusters").iterdir():
        path.unlink()
    assert "name it: scepsy cluster discover NAME" in scepsy("cluster", "discover", "--project", project).err


def test_a_file_of_the_name_that_holds_something_else_is_not_replaced(
    there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    path = project / "clusters/two-gpus.yaml"
    path.rename(project / "clusters/prod.yaml")
    ran = scepsy("cluster", "discover", "prod", "--write", "--project", project)
    assert ran.code == 1
    assert "clusters/prod.yaml exists, but has no cluster of that name" in ran.err
    assert (project / "clusters/prod.yaml").read_bytes() == EXAMPLE.read_bytes()


def test_a_document_that_is_wrong_is_named_before_the_cluster_is_asked(
    there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    (project / "clusters/two-gpus.yaml").write_text(EXAMPLE.read_text().replace("memory: 80Gi}", "memry: 80Gi}", 1))
    ran = scepsy("cluster", "discover", "--project", project)
    assert 'clusters/two-gpus.yaml:15:11: the key "memory" is missing (beside uuid, memry)' in ran.err
    assert there.asked == []


def test_write_needs_a_project(
    there: FakeKubernetes, scepsy: Scepsy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no scepsy.yaml in ." in scepsy("cluster", "discover", "prod", "--write").err


def test_a_file_that_is_edited_meanwhile_is_not_overwritten(
    there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    path = project / "clusters/two-gpus.yaml"
    there.slice("gpu-a")["spec"]["devices"].pop()
    there.before_answer = lambda _: path.write_text("# mine\n" + EXAMPLE.read_text())  # type: ignore[assignment]
    ran = scepsy("cluster", "discover", "--write", "--project", project)
    assert ran.code == 1
    assert "clusters/two-gpus.yaml changed during the run" in ran.err
    assert path.read_text() == "# mine\n" + EXAMPLE.read_text()


def test_a_disk_that_cannot_be_written_leaves_the_file_as_it_was(
    there: FakeKubernetes, scepsy: Scepsy, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.slice("gpu-a")["spec"]["devices"].pop()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ran = scepsy("cluster", "discover", "--write", "--project", project)
    assert ran.code == 1
    assert "No space left on device" in ran.err
    assert [p.read_bytes() for p in (project / "clusters").iterdir()] == [EXAMPLE.read_bytes()]


# ---- the server


def many(world: FakeKubernetes, count: int) -> None:
    world.of(NODES).extend({"metadata": {"name": f"node-{i:04}"}} for i in range(count))


def names(found: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in found]


def test_lists_are_read_page_by_page(world: FakeKubernetes, kubeconfig: Path) -> None:
    many(world, 1203)
    assert names(Kubernetes().objects(NODES)) == [f"node-{i:04}" for i in range(1203)]
    assert world.asked == [f"GET /api/v1/nodes?limit=500{more}" for more in ("", "&continue=500", "&continue=1000")]


def test_a_list_that_expires_while_it_is_read_is_read_again(world: FakeKubernetes, kubeconfig: Path) -> None:
    many(world, 600)
    world.fail(410, match="continue=500")
    assert len(Kubernetes().objects(NODES)) == 600
    assert len(world.asked) == 4
    world.fail(410, times=99, match="continue=500")
    with pytest.raises(ScepsyError, match="cannot list nodes: the list expires before all pages are read"):
        Kubernetes().objects(NODES)


@pytest.mark.parametrize("kind", ["half", "reset"])
def test_half_a_page_is_no_page(kind: str, world: FakeKubernetes, kubeconfig: Path, waits: Waits) -> None:
    many(world, 600)
    world.fail(kind=kind, match="continue=500")
    assert len(Kubernetes().objects(NODES)) == 600
    world.fail(kind=kind, times=99)
    with pytest.raises(ScepsyError, match=r"cannot connect to 127\.0\.0\.1:[0-9]+: "):
        Kubernetes().objects(NODES)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_fails_for_a_while_is_asked_again_within_bounds(
    status: int, world: FakeKubernetes, kubeconfig: Path, waits: Waits
) -> None:
    many(world, 3)
    world.fail(status, times=3)
    assert len(Kubernetes().objects(NODES)) == 3
    assert waits == [0.5, 1, 2]
    world.fail(status, times=99)
    with pytest.raises(
        ScepsyError, match=rf"keeps failing with {status} \(request: \"list nodes\"\): made to answer {status}"
    ):
        Kubernetes().objects(NODES)
    assert sum(waits) <= 3.5 + access.DEADLINE


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(
    world: FakeKubernetes, kubeconfig: Path, waits: Waits
) -> None:
    world.fail(429, Retry_After="7")
    Kubernetes().objects(NODES)
    assert waits == [7]


DEEP = "[" * 200_000


@pytest.mark.parametrize("body", ["<html>login</html>", "[]", "null", "7", "", DEEP], ids=lambda body: body[:9])
def test_an_answer_that_is_no_object_is_an_error(
    body: str, world: FakeKubernetes, kubeconfig: Path, waits: Waits
) -> None:
    world.fail(200, times=99, body=body or " ")
    with pytest.raises(ScepsyError, match=r"sends responses that are not JSON objects \(request: \"list nodes\"\)"):
        Kubernetes().objects(NODES)


@pytest.mark.parametrize(
    ("match", "body", "wish"),
    [
        ("/version", '{"status": "success", "data": {}}', "read its version"),
        ("/version", '{"gitVersion": 1.36}', "read its version"),
        ("/nodes", '{"status": "success", "data": {}}', "list nodes"),
        ("/nodes", '{"kind": "Node", "items": []}', "list nodes"),
        ("/nodes", '{"kind": "NodeList", "items": {}}', "list nodes"),
        ("/nodes", '{"kind": "NodeList", "items": [], "metadata": 5}', "list nodes"),
        ("/nodes", '{"kind": "NodeList", "items": ["gpu-a"]}', "list nodes"),
        ("/nodes", '{"kind": "NodeList", "items": [{"metadata": null}]}', "list nodes"),
        ("/nodes", '{"kind": "NodeList", "items": [{"metadata": {"name": 7}}]}', "list nodes"),
    ],
)
def test_a_server_that_is_no_kubernetes_is_not_an_empty_cluster(
    match: str, body: str, wish: str, there: FakeKubernetes, waits: Waits, scepsy: Scepsy, project: Path
) -> None:
    there.fail(200, times=99, match=match, body=body)
    ran = scepsy("cluster", "discover", "--project", project)
    assert (ran.code, ran.out) == (1, "")
    assert (
        f'{there.url.removeprefix("http://")} is not a Kubernetes API server (unexpected response to "{wish}")\n'
        in ran.err
    )
    assert "hint: check the address in the kubeconfig: a proxy or another service may respond in its place" in ran.err
    assert waits == []


@pytest.mark.parametrize("body", ['{"kind": "NodeList", "items": null}', '{"items": [], "metadata": null}'])
def test_a_list_of_nothing_may_be_written_as_go_writes_it(body: str, world: FakeKubernetes, kubeconfig: Path) -> None:
    world.fail(200, match="/nodes", body=body)
    assert Kubernetes().objects(NODES) == []


def test_an_object_without_a_name_is_no_object(world: FakeKubernetes, kubeconfig: Path) -> None:
    world.fail(200, body='{"status": "success", "data": {}}')
    with pytest.raises(
        ScepsyError, match=r"is not a Kubernetes API server \(unexpected response to \"get applications"
    ):
        Kubernetes().get(access.APPLICATIONS, "argocd", "prod")


@pytest.mark.parametrize("match", ["/version", "resourceslices", "/nodes", "deviceclasses"])
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "rejects the credentials (401): made to answer 401"),
        (403, "forbidden: the credentials cannot {wish} on {place} (403): made to answer 403\n  hint: ask for the permission to {wish}; gitops/observe grants"),
        (400, "cannot {wish} (400): made to answer 400"),
    ],
)  # fmt: skip
def test_a_refusal_names_what_is_missing(
    status: int, said: str, match: str, there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    there.fail(status, match=match)
    ran = scepsy("cluster", "discover", "--project", project)
    wish = {
        "/version": "read its version",
        "resourceslices": "list resourceslices.resource.k8s.io",
        "/nodes": "list nodes",
        "deviceclasses": "list deviceclasses.resource.k8s.io",
    }[match]
    assert (ran.code, ran.out) == (1, "")
    assert said.format(wish=wish, place=there.url.removeprefix("http://")) in ran.err
    assert "Traceback" not in ran.err
    assert TOKEN not in ran.err


def test_a_cluster_without_dynamic_resource_allocation_is_told_so(
    there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    del there.objects[SLICES.path()]
    ran = scepsy("cluster", "discover", "--project", project)
    assert "cannot list resourceslices.resource.k8s.io (404)" in ran.err
    assert "needs Kubernetes 1.34 or later" in ran.err


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    kubeconfig: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_READ_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_kubeconfig(kubeconfig, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ScepsyError, match=r"cannot connect to .*: no response in time"):
            Kubernetes().objects(NODES)


def test_a_redirect_is_not_followed_with_the_token(world: FakeKubernetes, kubeconfig: Path) -> None:
    other = FakeKubernetes()
    world.fail(302, Location=f"{other.url}/api/v1/nodes")
    with pytest.raises(ScepsyError, match=r"cannot list nodes \(302\)"):
        Kubernetes().objects(NODES)
    assert other.asked == []
    other.close()


def test_a_server_with_a_certificate_of_nobody_known_is_not_asked(tmp_path: Path, kubeconfig: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    write_kubeconfig(kubeconfig, f"https://127.0.0.1:{server.server_address[1]}")
    with pytest.raises(
        ScepsyError, match=r"cannot connect to .*: certificate not trusted: self-signed certificate"
    ) as raised:
        Kubernetes().version()
    assert "set certificate-authority in the kubeconfig to the CA" in raised.value.hint
    assert asked == []
    server.shutdown()
    server.server_close()


# ---- least privilege


OBSERVE = ROOT / "gitops/observe"


def role(kind: str, name: str) -> set[tuple[str, str, str]]:
    """What a role allows: verb, group, resource."""
    files = [item for path in OBSERVE.glob("*.yaml") for item in yaml.safe_load_all(path.read_text())]
    [found] = [item for item in files if item["kind"] == kind and item["metadata"]["name"] == name]
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in found["rules"])
    return {
        (verb, group, resource)
        for rule in found["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(world: FakeKubernetes) -> dict[str, set[tuple[str, str, str]]]:
    """What was asked of a server, by namespace, in the words of a role; `/version` is everybody's."""
    result: dict[str, set[tuple[str, str, str]]] = {}
    for request in world.asked:
        method, _, path = request.partition(" ")
        assert method == "GET"
        path, _, query = path.partition("?")
        if path == "/version":
            continue
        match = re.fullmatch(r"/(?:api/v1|apis/([^/]+)/[^/]+)(?:/namespaces/([^/]+))?/([^/]+)(/[^/]+)?", path)
        assert match, path
        verb = "watch" if "watch=1" in query else "get" if match[4] else "list"
        result.setdefault(match[2] or "", set()).add((verb, match[1] or "", match[3]))
    return result


def test_discover_asks_for_what_the_role_allows_and_the_role_allows_no_more(
    there: FakeKubernetes, scepsy: Scepsy, project: Path
) -> None:
    assert scepsy("cluster", "discover", "--write", "--project", project).code == 0
    watching = {("watch", "", "nodes")}  # is for `drift --watch`
    assert asked(there) == {"": role("ClusterRole", "scepsy-observe-cluster") - watching}
    assert there.authorizations == {f"Bearer {TOKEN}"}


def test_drift_asks_for_what_the_roles_allow_and_the_roles_allow_no_more(there: FakeKubernetes) -> None:
    reader = Kubernetes()
    inventory.read(reader)
    objects.read(reader, "llm-serving", ("argocd", "scepsy-prod"))
    list(reader.watch(NODES))
    assert asked(there) == {
        "": role("ClusterRole", "scepsy-observe-cluster"),
        "llm-serving": role("Role", "scepsy-observe"),
        "argocd": role("Role", "scepsy-observe-application"),
    }


def test_pods_of_other_namespaces_are_not_read(there: FakeKubernetes) -> None:
    there.of(PODS).extend({"metadata": {"name": n, "namespace": n}} for n in ("llm-serving", "other"))
    assert names(Kubernetes().objects(PODS, "llm-serving")) == ["llm-serving"]
