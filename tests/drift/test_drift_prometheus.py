"""Asking a Prometheus: what it answers, and every way in which it does not."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.drift.prometheus_server import Answer, Fake, answering, success

from scepsy.drift.prometheus import Access, Partial, Prometheus, PrometheusError, access_of, selector
from scepsy.errors import ScepsyError
from scepsy.remote_api.retry import Clock

NO_WAIT = Clock(sleep=lambda _: None)
SECRET = "s3cret-token-of-the-platform-team"


@pytest.fixture
def fake() -> Iterator[Fake]:
    with answering(Fake(now=1_800_000_000.0)) as own:
        yield own


def client(fake: Fake, token: str | None = None) -> Prometheus:
    return Prometheus(Access(fake.url, token), NO_WAIT)


def ask(fake: Fake, token: str | None = None) -> object:
    return client(fake, token).raw('up{job="x"}', fake.now, 60)


# As a Prometheus 2.42 answered: a counter that went stale in between, and samples that are no numbers.
RECORDED = {
    "resultType": "matrix",
    "result": [
        {
            "metric": {
                "__name__": "vllm:request_success_total",
                "engine": "0",
                "finished_reason": "stop",
                "instance": "10.0.0.7:8000",
                "model_name": "generator",
                "namespace": "llm-serving",
                "pod": "generator-0-6c5d8f9b7-x2x4q",
            },
            "values": [
                [1799999940.123, "1068"],
                [1799999955.123, "NaN"],
                [1799999970.123, "1.07e+03"],
                [1799999985.123, "+Inf"],
            ],
        },
        {"metric": {"__name__": "vllm:request_success_total", "finished_reason": "length"}, "values": []},
    ],
}


def test_samples_are_read_as_they_were_scraped(fake: Fake) -> None:
    fake.answers = [success(RECORDED)]
    first, second = client(fake).raw('vllm:request_success_total{model_name="generator"}', fake.now, 3600)
    assert first.labels["pod"] == "generator-0-6c5d8f9b7-x2x4q"
    assert "__name__" not in first.labels
    assert list(zip(first.at, first.value, strict=True)) == [(1799999940.123, 1068.0), (1799999970.123, 1070.0)]
    assert len(second.at) == 0
    path, query, _ = fake.asked[0]
    assert path == "/api/v1/query"
    assert query == {"query": 'vllm:request_success_total{model_name="generator"}[3600s]', "time": "1800000000.000"}


def test_history_is_asked_for_in_steps(fake: Fake) -> None:
    fake.answers = [success(RECORDED)]
    client(fake).history("up{}", fake.now - 86400, fake.now - 3600, 300)
    path, query, _ = fake.asked[0]
    assert path == "/api/v1/query_range"
    assert query["step"] == "300"
    assert client(fake).history("up{}", fake.now, fake.now, 300) == []
    assert len(fake.asked) == 1


def test_its_own_clock_counts(fake: Fake) -> None:
    assert client(fake).now() == fake.now


def test_selectors_quote_what_they_are_given() -> None:
    assert selector("m", {"a": 'x"y\\', "b": ""}, ("c", ["p", "q-1"])) == 'm{a="x\\"y\\\\",b="",c=~"p|q-1"}'


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (Answer(401, b"Unauthorized"), "rejected the credentials (401)", "PROMETHEUS_TOKEN"),
        (Answer(403, b'{"status":"error","error":"no"}'), "(403): no", "permission"),
        (Answer(404, b"<html>"), "has no Prometheus API (404)", "path prefix"),
        (Answer(302, b"", {"Location": "http://elsewhere/"}), "redirects (302)", "https://"),
        (
            Answer(
                422,
                b'{"status":"error","errorType":"execution","error":"query processing would load too many samples"}',
            ),
            "rejected the query (422): query processing would load too many samples",
            "",
        ),
        (Answer(200, b"<html>welcome</html>"), "is not a Prometheus (unexpected response: no JSON)", "address"),
        (Answer(200, b'{"status":"success","data":[]}'), "rejected the query (200)", "address is that of a Prometheus"),
        (Answer(200, b"[" * 200_000), "is not a Prometheus (unexpected response: no JSON)", "address"),
        (Answer(422, b"[" * 200_000), "is not a Prometheus (unexpected response: no JSON)", "address"),
        (success({"resultType": "matrix", "result": []}, warnings=5), "returned partial data: 5", "all its stores"),
        (success({"resultType": "vector", "result": []}), "unexpected response: no matrix", "address"),
        (success({"resultType": "matrix", "result": [{"values": 3}]}), "unexpected response: no samples", "address"),
        (
            success({"resultType": "matrix", "result": [{"metric": {}, "values": [[10**400, "1"]]}]}),
            "unexpected response: no samples",
            "address",
        ),
        (
            success({"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "x"]]}]}),
            "unexpected response: no samples",
            "address",
        ),
    ],
)
def test_what_it_refuses_is_told_with_what_to_do(fake: Fake, answer: Answer, message: str, hint: str) -> None:
    fake.answers = [answer]
    with pytest.raises(PrometheusError) as raised:
        ask(fake, SECRET)
    assert message in raised.value.message
    assert hint in raised.value.hint
    assert SECRET not in str(raised.value)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(fake: Fake, status: int) -> None:
    fake.answers = [Answer(status, b"", {"Retry-After": "1"}), success(RECORDED)]
    assert len(client(fake).raw("up{}", fake.now, 60)) == 2
    assert len(fake.asked) == 2


def test_what_does_not_pass_is_told(fake: Fake) -> None:
    fake.answers = [Answer(503, b'{"status":"error","error":"query timed out"}')] * 3
    with pytest.raises(PrometheusError, match=r"keeps failing with 503: query timed out"):
        ask(fake)
    assert len(fake.asked) == 3


def test_it_waits_as_long_as_it_is_told_to_but_not_for_ever(fake: Fake) -> None:
    waited: list[float] = []
    fake.answers = [Answer(429, b"", {"Retry-After": "3"}), Answer(429, b"", {"Retry-After": "86400"}), Answer(429)]
    with pytest.raises(PrometheusError, match="429"):
        Prometheus(Access(fake.url), Clock(sleep=waited.append)).now()
    assert waited == [3.0, 30.0]


def test_an_answer_that_is_not_whole_is_none(fake: Fake) -> None:
    body = json.dumps({"status": "success", "data": RECORDED}).encode()
    fake.answers = [Answer(200, body[:100], {"Content-Length": str(len(body))})] * 3
    with pytest.raises(PrometheusError, match="connection closed before the response was complete"):
        ask(fake)


def test_an_answer_that_says_it_is_partial_is_none_either(fake: Fake) -> None:
    fake.answers = [success(RECORDED, warnings=["No StoreAPIs matched for this query"])]
    with pytest.raises(Partial, match="returned partial data: No StoreAPIs matched"):
        ask(fake)


def test_nobody_listens() -> None:
    with pytest.raises(
        PrometheusError, match=r"cannot connect to Prometheus at http://127.0.0.1:9: Connection refused"
    ) as raised:
        Prometheus(Access("http://127.0.0.1:9"), NO_WAIT).now()
    assert "network" in raised.value.hint


def test_the_token_goes_along_and_not_elsewhere(fake: Fake) -> None:
    with answering(Fake(now=0)) as other:
        fake.answers = [Answer(307, b"", {"Location": f"{other.url}/api/v1/query"})]
        with pytest.raises(PrometheusError):
            ask(fake, SECRET)
        assert other.asked == []
    assert fake.asked[0][2]["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in repr(Access(fake.url, SECRET))


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET + "\n")
    url = "https://prometheus.example.com/prefix/"
    assert access_of(url, {}) == Access("https://prometheus.example.com/prefix")
    assert access_of(url, {"PROMETHEUS_TOKEN": SECRET}).token == SECRET
    assert access_of(url, {"PROMETHEUS_TOKEN_FILE": str(file)}).token == SECRET
    assert access_of("127.0.0.1:9090", {"PROMETHEUS_TOKEN": SECRET}).url == "http://127.0.0.1:9090"


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        (f"https://me:{SECRET}@prometheus", {}, "must not contain credentials"),
        (
            "http://prometheus.example.com",
            {"PROMETHEUS_TOKEN": SECRET},
            "refusing to send the token to prometheus.example.com over plain HTTP",
        ),
        ("ftp://x", {}, "is not the address of a Prometheus"),
        ("http://x:99999", {}, "is not the address of a Prometheus"),
        ("http://[::1", {}, '"http://[::1" is not the address of a Prometheus'),
        ("http://[x]", {}, "is not the address of a Prometheus"),
        (f"//{SECRET}@", {}, "is not the address of a Prometheus"),
        (
            "https://x",
            {"PROMETHEUS_TOKEN": SECRET + "\nX-Other: 1"},
            "invalid token in PROMETHEUS_TOKEN: contains whitespace or non-printable characters",
        ),
        (
            "https://x",
            {"PROMETHEUS_TOKEN_FILE": "/nonexistent"},
            "cannot read the token file /nonexistent: No such file or directory",
        ),
    ],
)
def test_addresses_and_tokens_that_will_not_do(url: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ScepsyError) as raised:
        access_of(url, environment)
    assert message in raised.value.message
    assert SECRET not in str(raised.value)


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTPS server whose certificate only its own file vouches for; its address and that file."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = success({"resultType": "scalar", "result": [1, "1"]}).body
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_address[1]}", certificate
    server.shutdown()
    server.server_close()
    thread.join()


def test_certificates_are_verified(encrypted: tuple[str, Path]) -> None:
    url, certificate = encrypted
    with pytest.raises(PrometheusError, match="certificate not trusted: self-signed certificate") as raised:
        Prometheus(Access(url, SECRET), NO_WAIT).now()
    assert "PROMETHEUS_CA_FILE" in raised.value.hint
    assert Prometheus(Access(url, SECRET, str(certificate))).now() == 1
    with pytest.raises(PrometheusError, match="there is no file"):
        Prometheus(Access(url, None, "/nonexistent"))
