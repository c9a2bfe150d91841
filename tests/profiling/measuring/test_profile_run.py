"""`scepsy profile run` against a real server over HTTP, whose R(k) is known and which can misbehave."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Ran, Scepsy
from tests.end_to_end.processes import free_ports
from tests.profiling.measuring.simulated_engine import Behaviour, encoded

from scepsy.documents import Profile, load_file
from scepsy.performance import Catalog
from scepsy.performance.mix import Mix
from scepsy.profiling.measuring import Engine

KEY = "sk-of-the-simulated"
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 1000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}

Serve = Callable[[Behaviour], str]
Run = Callable[..., Ran]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server in a process of its own and return its base URL."""
    running: list[subprocess.Popen[bytes]] = []

    def start(behaviour: Behaviour) -> str:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "tests.profiling.measuring.simulated_engine", str(port), encoded(behaviour)]
        running.append(subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=subprocess.DEVNULL))
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}/version", timeout=5).close()
                return url
            except urllib.error.URLError:
                time.sleep(0.05)
        raise AssertionError("the simulated server did not start")

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def run(scepsy: Scepsy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder with a trace and a config; options that are given replace the usual ones."""
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMULATED_KEY", KEY)

    def profiled(url: str, *more: str, **options: str) -> Ran:
        return scepsy("profile", "run", *arguments(url, *more, **options))

    return profiled


def arguments(url: str, *more: str, **options: str) -> list[str]:
    usual = {"model": "tiny", "trace": "trace.jsonl", "llm": "generator", "product": "CPU", "config": "config.json"}
    usual |= {"max_num_seqs": "2", "budget": "4s", "date": "2026-01-31", "wait": "5s"}
    words = {"base_url": url, **usual, **options}
    named = [word for name, value in words.items() for word in (f"--{name.replace('_', '-')}", value)]
    return [*named, "-o", "profile.yaml", *more]


def write_inputs(directory: Path) -> None:
    """Write calls of 8 output tokens and a model's config.json."""
    chance = random.Random(3)
    lines = [
        {
            "execution": f"e{e}",
            "model": "generator",
            "start": e + g / 10,
            "end": e + g / 10 + 0.05,
            "inputTokens": chance.randint(20, 60),
            "outputTokens": 8,
        }
        for e in range(30)
        for g in range(3)
    ]
    (directory / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "config.json").write_text(json.dumps(CONFIG))


def written(directory: Path) -> Profile:
    _, loaded, problems = load_file(directory / "profile.yaml", "profile.yaml", Profile)
    assert not problems
    return loaded[0].document


def test_a_server_is_profiled(serve: Serve, run: Run, tmp_path: Path) -> None:
    does = Behaviour(base=0.06, slope=0.01, limit=4, key=KEY)
    url = serve(does)
    ran = run(url, "--api-key-env", "SIMULATED_KEY", "--flag=--dtype", "--flag", "bf16", max_num_seqs="8", budget="9s")
    assert ran.code == 0, ran.err
    spec = written(tmp_path).spec
    (series,) = spec.series
    assert (spec.source, spec.model, spec.product, spec.engine.version) == ("measured", "tiny", "CPU", "0.24.0")
    assert (spec.architecture.parameters, spec.architecture.head_dim) == (138_048, 16)
    assert (spec.provenance.date, spec.provenance.flags) == ("2026-01-31", ("--dtype", "bf16"))
    assert (series.mix.output, series.mix.cached) == (8, 0)
    for point in series.points:
        # A busy machine makes calls longer, never shorter; in virtual time the same runner is within 5 %.
        assert 0.95 * does.seconds(point.concurrency) < point.latency
        assert point.kv_usage is not None
    assert series.open_loop
    assert all(point.p50 <= point.p95 <= point.p99 for point in series.open_loop)
    catalog = Catalog([written(tmp_path)], "0.24.0")
    mix = Mix(series.mix.input, 8, 0)
    assert catalog.service("tiny", "CPU", 1, 10, mix).seconds[0] == pytest.approx(series.points[0].latency, rel=0.2)
    assert not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob(".profile*"))
    everything = ran.out + ran.err + (tmp_path / "profile.yaml").read_text()
    assert KEY not in everything
    assert str(tmp_path) not in (tmp_path / "profile.yaml").read_text()


def test_a_server_that_dies_leaves_a_journal_with_which_another_goes_on(serve: Serve, run: Run, tmp_path: Path) -> None:
    ran = run(serve(Behaviour(dies_after=45)))
    assert ran.code == 1
    assert "the server died" in ran.err
    assert "restart it, then re-run the command" in ran.err
    lines = (tmp_path / "profile.yaml.partial").read_text().splitlines()
    assert len(lines) >= 2
    assert not (tmp_path / "profile.yaml").exists()
    url = serve(Behaviour())
    other = run(url, tp="2")
    assert other.code == 1
    assert "other arguments: tp was 1 and is 2" in other.err
    again = run(url)
    assert again.code == 0, again.err
    assert "1 in flight" in again.err
    assert again.err.count("(from the journal)") == len(lines) - 1
    assert not (tmp_path / "profile.yaml.partial").exists()
    assert [point.concurrency for point in written(tmp_path).spec.series[0].points] == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_journal(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    write_inputs(tmp_path)
    command = [sys.executable, "-m", "scepsy", "profile", "run", *arguments(serve(Behaviour()), budget="8s")]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while "1 in flight: " not in said or " calls/s\n" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(number)
    assert process.wait(10) == 1
    assert "interrupted; profile.yaml.partial was kept" in process.stderr.read()
    process.stderr.close()
    # The arguments, the point that was announced, and any that ended before the signal came: whole lines all of them.
    kept = [json.loads(line) for line in (tmp_path / "profile.yaml.partial").read_text().splitlines()]
    assert len(kept) >= 2, said


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(truncated=0.4), "the stream"),
        (Behaviour(miscounts=True), "the server counts"),
    ],
    ids=["truncated", "miscounts"],
)
def test_no_good_point_is_an_error_and_writes_nothing(
    serve: Serve, run: Run, tmp_path: Path, behaviour: Behaviour, reason: str
) -> None:
    ran = run(serve(behaviour))
    assert ran.code == 1
    assert reason in ran.err
    assert "no point is good" in ran.err or "the longest call of the trace fails" in ran.err
    assert not (tmp_path / "profile.yaml").exists()
    if "no point is good" in ran.err:
        assert not (tmp_path / "profile.yaml.partial").exists()


def test_keys_that_a_server_repeats_are_not_shown(serve: Serve, run: Run) -> None:
    ran = run(serve(Behaviour(failing=1.0, key=KEY)), "--api-key-env", "SIMULATED_KEY")
    assert ran.code == 1
    assert "out of luck, ***" in ran.err
    assert KEY not in ran.err + ran.out


def test_servers_that_cannot_be_measured_are_refused_at_once(
    serve: Serve, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(Behaviour(key=KEY))
    refused = run(url)
    assert "asks for an API key" in refused.err
    assert "--api-key-env names" in refused.err
    monkeypatch.setenv("WRONG", "sk-wrong")
    wrong = run(url, "--api-key-env", "WRONG")
    assert "refuses the API key" in wrong.err
    assert "sk-wrong" not in wrong.err
    assert "WRONGER is not set" in run(url, "--api-key-env", "WRONGER").err
    other = run(url, "--api-key-env", "SIMULATED_KEY", model="Qwen/Qwen3-8B")
    assert 'does not serve "Qwen/Qwen3-8B" but tiny' in other.err
    lines = (tmp_path / "trace.jsonl").read_text()
    (tmp_path / "long.jsonl").write_text(lines.replace('"outputTokens": 8', '"outputTokens": 4000'))
    long = run(url, "--api-key-env", "SIMULATED_KEY", trace="long.jsonl")
    assert "the server allows 2048" in long.err
    assert "--max-model-len 40" in long.err
    (port,) = free_ports(1)
    assert "was not healthy within 0.2 s" in run(f"http://127.0.0.1:{port}", wait="200ms").err
    assert not list(tmp_path.glob("profile.yaml*"))


def test_a_server_may_take_a_while_to_become_healthy(serve: Serve, run: Run) -> None:
    url = serve(Behaviour(unhealthy=1.0, resets=False, metrics=False))
    ran = run(url, max_num_seqs="1", budget="2s")
    assert ran.code == 0, ran.err
    assert "cannot empty its prefix cache" in ran.err
    assert ran.err.splitlines()[:2] == [f"waiting for {url}/health", f"waiting for {url}/health: HTTP 503"]


def test_what_is_waited_for_and_what_is_wrong_with_it_is_told(run: Run) -> None:
    (port,) = free_ports(1)
    ran = run(f"http://127.0.0.1:{port}", wait="3s")
    health = f"http://127.0.0.1:{port}/health"
    first, second, *_ = ran.err.splitlines()
    assert first == f"waiting for {health}"
    assert second.startswith(f"waiting for {health}: Cannot connect to host")
    assert ran.err.count("Cannot connect") == 2  # and in the error


DEEP = "[" * 50_000


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (
            {"/v1/models": '{"data": [{"id": "ti\\u001b]0;owned\\u0007ny\\nerror: x"}]}'},
            'does not serve "tiny" but ti\\x1b]0;owned\\x07ny error: x\n',
        ),
        ({"/v1/models": "\x1b[2J\x00login"}, "/v1/models: HTTP 200: \\x1b[2J\\x00login\n"),
        ({"/v1/models": DEEP}, f"/v1/models: HTTP 200: {DEEP[:290]}"),
        ({"/version": '{"version": "0.24.0\\u001b[2J"}'}, "/version does not say a version such as 0.24.0"),
        ({"/version": '{"version": 24}'}, "/version does not say a version such as 0.24.0"),
        ({"/version": DEEP}, "/version does not say a version such as 0.24.0"),
        ({"/v1/completions": DEEP}, "the stream ended before it was complete"),
        ({"/v1/completions": f"data: {DEEP[:8000]}\n\ndata: [DONE]\n\n"}, "the stream has no usage at its end"),
        (
            {"/v1/completions": 'data: {"usage": {"prompt_tokens": "\\u001b[2J"}}\n\ndata: [DONE]\n\n'},
            "the server counts \\x1b[2J and None",
        ),
        (
            {"/v1/completions": 'data: {"error": "\\u001b[2Jno"}\n\ndata: [DONE]\n\n'},
            "the stream ended with an error: \\x1b[2Jno",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_server_says_is_shown_and_not_obeyed(
    serve: Serve, run: Run, tmp_path: Path, says: dict[str, str], message: str
) -> None:
    ran = run(serve(Behaviour(says=says)))
    assert ran.code == 1
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert all(c.isprintable() or c == "\n" for c in ran.err + ran.out)
    assert not (tmp_path / "profile.yaml").exists()


@pytest.mark.parametrize("before", [0, 250, 290, 299])
def test_a_key_is_not_shown_in_part_either(before: int) -> None:
    said = Engine("http://127.0.0.1:1", "tiny", KEY)._safe("x" * before + KEY + "y" * 300)
    assert KEY[:6] not in said
    assert len(said) <= 301


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("garbage", '"garbage" is not a valid server address', "write http://HOST:PORT"),
        ("127.0.0.1:8000", '"127.0.0.1:8000" is not a valid server address', "write http://HOST:PORT"),
        ("ftp://host", '"ftp://host" is not a valid server address', "write http://HOST:PORT"),
        ("http://", '"http://" is not a valid server address', "write http://HOST:PORT"),
        ("http://host:port", '"http://host:port" is not a valid server address', "write http://HOST:PORT"),
        ("http://[::1", '"http://[::1" is not a valid server address', "write http://HOST:PORT"),
        ("http://host:8000/\x1b[2J", '"http://host:8000/\\x1b[2J" is not', "write http://HOST:PORT"),
        ("ada:pa55word@host", '"host" is not a valid server address', "write http://HOST:PORT"),
        ("host:8000?key=pa55word", '"host:8000" is not a valid server address', "write http://HOST:PORT"),
        (
            "http://ada:pa55word@host:8000",
            "must not have a password, query or fragment",
            "pass the API key with --api-key-env",
        ),
        (
            "http://pa55word@host:8000/v1",
            "must not have a password, query or fragment",
            "pass the API key with --api-key-env",
        ),
        (
            "http://host:8000/?key=pa55word",
            "must not have a password, query or fragment",
            "pass the API key with --api-key-env",
        ),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_at_once(
    url: str, message: str, hint: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waited(seconds: float) -> None:
        raise AssertionError(f"waited for {seconds} s")

    monkeypatch.setattr(asyncio, "sleep", waited)
    ran = run(url, wait="300s")
    assert ran.code == 1
    assert ran.err.startswith("error: --base-url: ")
    assert message in ran.err
    assert ran.err.endswith(f"\n  hint: {hint}\n")
    assert "pa55word" not in ran.err + ran.out
    assert not list(tmp_path.glob("profile.yaml*"))


def test_an_output_that_is_there_is_not_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text("mine")
    ran = run("http://127.0.0.1:1")
    assert ran.code == 1
    assert "profile.yaml exists" in ran.err
    assert (tmp_path / "profile.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": "0.25"}, "--share: 0.25 is not a share"),
        ({"budget": "5"}, "--budget: "),
        ({"date": "yesterday"}, '--date: "yesterday" is not a valid date such as 2026-01-31'),
        ({"product": "my gpu"}, "--product: 'my gpu' is not a GPU product"),
        ({"llm": "generatr"}, 'no call to the LLM "generatr"'),
        (
            {"llm": "generatr", "trace": "./../{here}/trace.jsonl"},
            '../{here}/trace.jsonl has no call to the LLM "generatr"',
        ),
        ({"trace": "../{here}/gone.jsonl"}, "../{here}/gone.jsonl:1:1: no such file"),
        ({"config": "missing.json"}, "cannot read missing.json"),
        ({"config": "trace.jsonl"}, "is not JSON"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_asked(
    run: Run, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    ran = run("http://127.0.0.1:1", **{name: text.format(here=tmp_path.name) for name, text in options.items()})
    assert ran.code == 1
    assert message.format(here=tmp_path.name) in ran.err


def test_the_environment_of_a_job_says_what_ran(
    serve: Serve, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCEPSY_IMAGE_DIGEST", "sha256:" + "0" * 64)
    monkeypatch.setenv("SCEPSY_DRIVER", "580.95.05")
    monkeypatch.setenv("SCEPSY_ENGINE_FLAGS", "--max-num-seqs 1")
    assert run(serve(Behaviour()), max_num_seqs="1", budget="2s").code == 0
    provenance = written(tmp_path).spec.provenance
    assert provenance.image_digest == "sha256:" + "0" * 64
    assert (provenance.driver, provenance.flags) == ("580.95.05", ("--max-num-seqs", "1"))
