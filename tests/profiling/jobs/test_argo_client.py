"""Both clients against a real server that fails as servers do; no token is ever printed."""

from __future__ import annotations

import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.profiling.jobs.argo_api import NAMESPACE, TOKEN, FakeArgo
from tests.profiling.jobs.conftest import Waits, write_kubeconfig

from scepsy.cluster.connection import Unreachable
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.argo_client import ArgoJobs, Jobs, KubernetesJobs, connect
from scepsy.remote_api.retry import Clock


def workflow(name: str = "profile-x-0123456789", sweep: str = "0123456789") -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "scepsy", "scepsy.dev/sweep": sweep}
    # Fields that no client knows travel too.
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "spec": {"fieldOfTheFuture": 1}}  # fmt: skip


def complaint(error: pytest.ExceptionInfo[ScepsyError]) -> str:
    assert TOKEN not in str(error.value)
    return str(error.value)


def waits(jobs: Jobs) -> list[float]:
    return jobs.waits  # type: ignore[attr-defined, no-any-return]


def test_what_is_created_is_found_again(jobs: Jobs, argo: FakeArgo) -> None:
    assert jobs.find(NAMESPACE, "scepsy.dev/sweep=0123456789") == []
    assert jobs.get(NAMESPACE, "profile-x-0123456789") is None
    assert jobs.create(NAMESPACE, workflow())
    assert not jobs.create(NAMESPACE, workflow())
    assert jobs.get(NAMESPACE, "profile-x-0123456789") == workflow()
    jobs.create(NAMESPACE, workflow("profile-y-aaaaaaaaaa", "aaaaaaaaaa"))
    assert jobs.find(NAMESPACE, "scepsy.dev/sweep=0123456789") == [workflow()]
    assert len(jobs.find(NAMESPACE, "scepsy.dev/sweep in (0123456789,aaaaaaaaaa)")) == 2
    assert argo.authorizations == {f"Bearer {TOKEN}"}


def test_a_dry_run_creates_nothing(jobs: Jobs, argo: FakeArgo) -> None:
    assert jobs.create(NAMESPACE, workflow(), dry_run=True)
    assert argo.workflows == {}


def test_long_lists_are_read_page_by_page_and_again_when_they_expire(jobs: Jobs, argo: FakeArgo) -> None:
    argo.workflows = {f"w{n:03d}": workflow(f"w{n:03d}") for n in range(120)}
    argo.fail(410, match="continue=50", body='{"message": "The provided continue parameter is too old"}')
    found = jobs.find(NAMESPACE, "scepsy.dev/sweep=0123456789")
    assert [item["metadata"]["name"] for item in found] == sorted(argo.workflows)
    assert len(argo.asked) == 2 + 3


def test_a_list_that_expires_for_ever_is_an_error(jobs: Jobs, argo: FakeArgo) -> None:
    argo.fail(410, times=99)
    with pytest.raises(ScepsyError, match="the list expires while it is read"):
        jobs.find(NAMESPACE, "a=b")


@pytest.mark.parametrize("fault", [
    {"status": 500, "times": 2},
    {"status": 503, "times": 1},
    {"status": 429, "times": 1, "Retry_After": "7"},
    {"kind": "reset", "times": 2},
    {"kind": "half", "times": 1},
], ids=lambda fault: str(fault.get("status", fault.get("kind"))))  # fmt: skip
def test_what_fails_for_a_moment_is_tried_again(jobs: Jobs, argo: FakeArgo, fault: dict[str, Any]) -> None:
    argo.workflows["w"] = workflow("w")
    argo.fail(**fault)
    assert jobs.get(NAMESPACE, "w") == workflow("w")
    assert len(argo.asked) == 1 + fault["times"]
    assert len(waits(jobs)) == fault["times"]
    if "Retry_After" in fault:
        assert waits(jobs) == [7.0]


def test_an_absence_that_lasts_is_reported_once(jobs: Jobs, argo: FakeArgo) -> None:
    reported: list[str] = []
    jobs.say = reported.append
    argo.fail(503, times=5, body='{"message": "etcd is down"}')
    assert jobs.get(NAMESPACE, "w") is None
    assert reported == [f"{jobs.place} answers 503: etcd is down; retrying"]
    assert waits(jobs) == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_an_answer_lost_on_its_way_does_not_create_twice(jobs: Jobs, argo: FakeArgo) -> None:
    argo.fail(kind="half", match="^POST")
    assert jobs.create(NAMESPACE, workflow()) in (True, False)
    assert list(argo.workflows) == ["profile-x-0123456789"]


def test_a_server_that_keeps_failing_is_given_up(jobs: Jobs, argo: FakeArgo) -> None:
    jobs.patience = 0.0
    argo.fail(503, times=99, body='{"message": "etcd is down"}')
    with pytest.raises(Unreachable, match="keeps failing with 503: etcd is down") as error:
        jobs.get(NAMESPACE, "w")
    assert "re-run the command later" in complaint(error)


@pytest.mark.parametrize(("fault", "message", "hint"), [
    ({"status": 401, "body": '{"message": "Unauthorized"}'}, "rejected the credentials (401): Unauthorized", ("log in again", "ARGO_TOKEN")),
    ({"status": 403, "body": '{"message": "workflows.argoproj.io is forbidden"}'}, f"forbidden: the credentials cannot create workflows.argoproj.io in namespace {NAMESPACE} on {{place}} (403): workflows.argoproj.io is forbidden", ("Role scepsy-submit in gitops/profiling",)),
    ({"status": 404, "body": "404 page not found\n"}, "Argo Workflows is not installed on", ("gitops/README.md",)),
    ({"status": 404, "body": '{"message": "namespaces \\"scepsy-profiling\\" not found"}'}, "(404): namespaces", ("gitops/README.md",)),
    ({"status": 422, "body": '{"message": "spec is invalid"}'}, f"does not create workflows.argoproj.io in namespace {NAMESPACE} (422): spec is invalid", ("",)),
    ({"status": 400, "body": "<html>proxy</html>"}, "(400)", ("",)),
    ({"status": 302, "body": "", "Location": "http://127.0.0.1:1/login"}, "(302)", ("",)),
])  # fmt: skip
def test_what_fails_for_good_says_what_is_missing(jobs: Jobs, argo: FakeArgo, fault: dict[str, Any], message: str, hint: tuple[str, ...]) -> None:  # fmt: skip
    argo.fail(**fault)
    with pytest.raises(ScepsyError) as error:
        jobs.create(NAMESPACE, workflow())
    assert message.replace("{place}", jobs.place) in complaint(error)
    assert any(words in error.value.hint for words in hint)
    assert "<html>" not in str(error.value)
    assert len(argo.asked) == 1
    assert waits(jobs) == []


FOREIGN = '{"status": "success", "data": {}}'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (FOREIGN, "the response is not a list"),
        ('{"items": {}}', "the response is not a list"),
        ('{"items": [], "metadata": 5}', "the response is not a list"),
        ('{"items": [{"metadata": null}]}', "the response is not a list"),
        ("<html>login</html>", "the response is not a JSON object"),
        ("[" * 200_000, "the response is not a JSON object"),
    ],
    ids=lambda body: body[:32],
)
def test_what_answers_in_place_of_the_server_is_not_taken_for_one_without_workflows(
    body: str, reason: str, jobs: Jobs, argo: FakeArgo
) -> None:
    argo.fail(200, times=99, body=body)
    with pytest.raises(Unreachable) as error:
        jobs.find(NAMESPACE, "a=b")
    kind = "a Kubernetes API server" if isinstance(jobs, KubernetesJobs) else "an argo-server"
    wish = f"list workflows.argoproj.io in namespace {NAMESPACE}"
    assert error.value.message == f'{jobs.place} is not {kind} (unexpected response to "{wish}"): {reason}'
    assert error.value.hint.startswith("is the address right? a proxy, a login page")


def test_what_answers_in_place_of_the_server_creates_nothing_and_has_nothing(jobs: Jobs, argo: FakeArgo) -> None:
    argo.fail(201, match="^POST", body=FOREIGN)
    argo.fail(200, times=99, match="^GET", body=FOREIGN)
    for ask in (
        lambda: jobs.create(NAMESPACE, workflow()),
        lambda: jobs.get(NAMESPACE, "w"),
        lambda: jobs.check_installed(NAMESPACE),
    ):
        with pytest.raises(Unreachable, match="the response has no object with a name"):
            ask()


def test_a_missing_template_is_reported_before_a_workflow_fails_for_it(jobs: Jobs, argo: FakeArgo) -> None:
    jobs.check_installed(NAMESPACE)
    argo.installed = False
    with pytest.raises(
        ScepsyError, match=f"there is no WorkflowTemplate scepsy-profile in namespace {NAMESPACE}"
    ) as error:
        jobs.check_installed(NAMESPACE)
    assert "kubectl apply --server-side -k" in error.value.hint


def test_a_missing_permission_to_look_at_the_template_is_named(jobs: Jobs, argo: FakeArgo) -> None:
    argo.fail(403)
    with pytest.raises(ScepsyError, match=f"get workflowtemplates.argoproj.io in namespace {NAMESPACE}"):
        jobs.check_installed(NAMESPACE)


def test_a_wrong_token_is_not_repeated(argo: FakeArgo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "config", argo.url, token="wr0ng-t0ken")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for jobs in (KubernetesJobs(), ArgoJobs(argo.url, "Bearer wr0ng-t0ken")):
        with pytest.raises(ScepsyError, match="rejected the credentials") as error:
            jobs.get(NAMESPACE, "w")
        assert "wr0ng" not in str(error.value)
    assert argo.authorizations == {"Bearer wr0ng-t0ken"}


def test_a_server_that_nobody_reached_yet_is_given_up_soon(kubeconfig: Path) -> None:
    for kind in ("kubernetes", "argo-server"):
        waits = Waits()
        clock = Clock(waits.now, waits.sleep)
        jobs = KubernetesJobs("elsewhere", clock) if kind == "kubernetes" else ArgoJobs("127.0.0.1:1", TOKEN, clock)
        with pytest.raises(Unreachable, match=r"127.0.0.1:1 cannot be reached: Connection refused") as error:
            jobs.get(NAMESPACE, "w")
        assert "check the address" in complaint(error)
        assert waits == [0.5, 1.0, 2.0]


def test_a_server_with_a_foreign_certificate_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, cert = tmp_path / "key", tmp_path / "cert"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        cert,
        "-days",
        "1",
        "-subj",
        "/CN=x",
    ]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_address[1]}"
    write_kubeconfig(tmp_path / "config", url)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    slept = Waits()
    clock = Clock(slept.now, slept.sleep)
    try:
        for jobs in (KubernetesJobs(clock=clock), ArgoJobs(url, TOKEN, clock)):
            with pytest.raises(ScepsyError, match="certificate") as error:
                jobs.get(NAMESPACE, "w")
            complaint(error)
    finally:
        server.shutdown()
        server.server_close()
    assert slept == []


# ------------------------------------------------------------------------------------------------------- connecting


def test_the_current_context_is_taken_or_the_one_that_is_named(kubeconfig: Path, argo: FakeArgo) -> None:
    assert connect().place == argo.url.removeprefix("http://")
    assert connect("elsewhere").place == "127.0.0.1:1"


def test_an_unknown_context_is_reported_with_a_suggestion(kubeconfig: Path) -> None:
    with pytest.raises(ScepsyError, match='the kubeconfig has no context "hear"') as error:
        connect("hear")
    assert error.value.hint == 'did you mean "here"?'


def test_argo_server_comes_from_the_option_or_from_the_environment(kubeconfig: Path, argo: FakeArgo, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("ARGO_TOKEN", f"Bearer {TOKEN}")
    place = f"argo-server {argo.url.removeprefix('http://')}"
    assert connect(argo_server=argo.url).place == place
    monkeypatch.setenv("ARGO_SERVER", argo.url)
    assert connect().place == place
    assert connect().get(NAMESPACE, "w") is None
    # A context that is asked for is meant.
    assert connect("here").place == argo.url.removeprefix("http://")
    with pytest.raises(ScepsyError, match="exclude each other"):
        connect("here", argo.url)


@pytest.mark.parametrize(("url", "message"), [
    ("ftp://argo.example.com", "not the address of a server"),
    ("https://", "not the address of a server"),
    ("https://argo.example.com:port", "not the address of a server"),
    ("https://ada:pa55word@argo.example.com", "must not contain a password or a query"),
    ("https://argo.example.com/?token=pa55word", "must not contain a password or a query"),
    ("http://argo.example.com:2746", "over plain HTTP"),
])  # fmt: skip
def test_addresses_that_cannot_be_meant_are_refused(url: str, message: str) -> None:
    with pytest.raises(ScepsyError, match=message) as error:
        ArgoJobs(url, TOKEN)
    assert "pa55word" not in complaint(error)


def test_an_address_without_a_scheme_is_https() -> None:
    assert ArgoJobs("argo.example.com:2746", TOKEN).place == "argo-server argo.example.com:2746"


CONTEXTS = "contexts: [{name: prod, context: {cluster: c, user: u}}, {name: lab, context: {cluster: c, user: u}}]\n"
FIX, NO_CONTEXTS = (
    "fix the file, or set KUBECONFIG to another",
    "it has no contexts: set KUBECONFIG to a file with contexts",
)


@pytest.mark.parametrize(("content", "message", "hint"), [
    (None, "KUBECONFIG is {path}, which does not exist", "set KUBECONFIG, or name an argo-server"),
    ("{", "cannot read the kubeconfig {path}: line 1 is not YAML", FIX),
    ("a: 1\nb: [b", "cannot read the kubeconfig {path}: line 2 is not YAML", FIX),
    ("[]", "cannot read the kubeconfig {path}: not a kubeconfig", FIX),
    ("", "the kubeconfig {path} cannot be used: {path} file is empty", NO_CONTEXTS),
    ("apiVersion: v1\nkind: Config\n", "the kubeconfig {path} cannot be used: Expected key current-context", NO_CONTEXTS),
    (CONTEXTS, "the kubeconfig {path} cannot be used: Expected key current-context", "name one of its contexts with --context: lab, prod"),
    (CONTEXTS + "current-context: old\n", "the kubeconfig {path} cannot be used: Expected object with name old", "name one of its contexts with --context: lab, prod"),
    # The client repeats the entry that has no key "user", and its token with it.
    (CONTEXTS + f"clusters: [{{name: c, cluster: {{server: x}}}}]\nusers: [{{name: u, token: {TOKEN}}}]\ncurrent-context: lab\n", "the kubeconfig {path} cannot be used: Expected key user in {path}/", ""),
    (f"users: [{{name: u, user: {{token: {TOKEN}}}}}]\ncurrent-context: 3\n", "the kubeconfig {path} can", ""),
])  # fmt: skip
def test_kubeconfigs_that_are_none(content: str | None, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("ARGO_SERVER", raising=False)
    with pytest.raises(ScepsyError) as error:
        connect()
    assert complaint(error).startswith(message.format(path=path))
    assert error.value.hint.startswith(hint)


def test_no_kubeconfig_at_all_is_reported_with_the_place_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBECONFIG", "ARGO_SERVER", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ScepsyError) as error:
        connect()
    assert error.value.message == "there is no kubeconfig ~/.kube/config, and this is not a pod of a cluster"
