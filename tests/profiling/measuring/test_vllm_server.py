"""`scepsy profile run --serve --job`: a child process that can misbehave, and what a job says of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.conftest import Ran, Scepsy
from tests.end_to_end.processes import eventually
from tests.profiling.measuring.test_profile_run import CONFIG, write_inputs

from scepsy.documents import Profile, load_file
from scepsy.documents.compressed_text import pack, unpack
from scepsy.documents.profile import ProfileSpec
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import arguments as rendered
from scepsy.profiling.measuring import Journal, architecture_of
from scepsy.profiling.measuring.failures import DoesNotRun, TryAgain
from scepsy.profiling.measuring.huggingface import fetched, parameters_of
from scepsy.profiling.measuring.journal import OtherJournal, TakenJournal
from scepsy.profiling.measuring.server_configuration import ServerConfiguration
from scepsy.profiling.measuring.vllm_log import VllmLog

ROOT = Path(__file__).parents[3]
GIB = 1 << 30


@dataclass(frozen=True)
class Outcome:
    """What a job left in its directory."""

    outcome: str
    reason: str
    profile: str
    partial: str

    def spec(self, directory: Path) -> ProfileSpec:
        """Return the content of the Profile, which is valid."""
        file = directory / "unpacked.yaml"
        file.write_text(unpack(self.profile, "profile"))
        _, loaded, problems = load_file(file, file.name, Profile)
        assert not problems
        return loaded[0].document.spec

    @property
    def points(self) -> int:
        """Points in the journal that it left."""
        return unpack(self.partial, "partial").count("\n") - 1


class Workplace:
    """A job's directory, a model, and a `vllm` on PATH."""

    def __init__(self, path: Path) -> None:
        self.path, self.job, self.seen, self.bin = path, path / "job", path / "seen", path / "bin"
        for folder in (self.job, self.job / "in", self.seen, self.bin, path / "tiny"):
            folder.mkdir()
        write_inputs(path)
        (path / "tiny" / "config.json").write_text(json.dumps(CONFIG))
        (self.job / "in" / "calls").write_text(pack((path / "trace.jsonl").read_text()))
        self.program("vllm", f'exec env PYTHONPATH={ROOT} {sys.executable} -m tests.profiling.measuring.fake_vllm "$@"')

    def program(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def environment(self, **told: Any) -> dict[str, str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        own = {"PATH": path, "FAKE_VLLM": json.dumps(told), "FAKE_VLLM_SEEN": str(self.seen)}
        return {**os.environ, **own}

    def words(self, *more: str, **options: str) -> list[str]:
        usual = {"model": "tiny", "revision": "", "llm": "generator", "product": "CPU", "memory": str(4 * GIB)}
        usual |= {"sharing": "dra-exclusive", "tp": "1", "share": "1.0", "max_num_seqs": "2", "max_model_len": ""}
        usual |= {"budget": "3s", "trace_digest": "sha256:whole", "job": str(self.job)}
        named = [f"--{name.replace('_', '-')}={value}" for name, value in (usual | options).items()]
        return ["profile", "run", "--serve", *named, *more]

    def start(self, *more: str, told: dict[str, Any] | None = None, **options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "scepsy", *self.words(*more, **options)],
            cwd=self.path,
            env=self.environment(**(told or {})),
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *more: str, told: dict[str, Any] | None = None, **options: str) -> Ran:
        process = self.start(*more, told=told, **options)
        _, err = process.communicate(timeout=120)
        return Ran(process.returncode, "", err)

    def outcome(self) -> Outcome:
        out = self.job / "out"
        assert sorted(file.name for file in out.iterdir()) == ["outcome", "partial", "profile"]
        said = (out / "outcome").read_text()
        assert said.count("\n") == 1
        return Outcome(**json.loads(said), profile=(out / "profile").read_text(), partial=(out / "partial").read_text())

    def started(self) -> list[dict[str, Any]]:
        """Return what each engine that was started was given."""
        return [json.loads(file.read_text()) for file in sorted(self.seen.iterdir())]

    def orphans(self) -> list[int]:
        return [pid for engine in self.started() for pid in engine["pids"] if _runs(pid)]


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    """A workplace; no test leaves an engine behind."""
    made = Workplace(tmp_path)
    yield made
    eventually(lambda: not made.orphans(), within=5, why=lambda: f"still running: {made.orphans()}")


Here = Callable[..., Ran]


@pytest.fixture
def here(work: Workplace, scepsy: Scepsy, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run a job in this process, which is faster."""
    monkeypatch.chdir(work.path)

    def run(*more: str, told: dict[str, Any] | None = None, **options: str) -> Ran:
        for name, value in work.environment(**(told or {})).items():
            monkeypatch.setenv(name, value)
        return scepsy(*work.words(*more, **options))

    return run


def until_measured(process: subprocess.Popen[str], point: str) -> str:
    """Read what a job says until a point is complete."""
    assert process.stderr is not None
    said = ""
    while f"{point}: " not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


# What comes out


def test_a_job_starts_an_engine_measures_it_and_stops_it(work: Workplace) -> None:
    ran = work.run(max_num_seqs="4")
    found = work.outcome()
    assert (ran.code, found.outcome, found.reason, found.partial) == (0, "measured", "", ""), ran.err
    spec = found.spec(work.path)
    assert (spec.model, spec.engine.version, len(spec.series), spec.unusable) == ("tiny", "0.24.0", 1, ())
    assert (spec.series[0].tp, spec.series[0].share) == (1, 1.0)
    assert (spec.provenance.trace_digest, spec.provenance.llm) == ("sha256:whole", "generator")
    assert "--serve" in str(spec.provenance.command)
    assert "nvidia-smi is not installed: the GPU product was not verified" in str(spec.provenance.notes)
    assert not list((work.job / "journal").iterdir())
    # The cache was emptied, and requests to the loopback are all that it answered.
    assert "cannot empty its prefix cache" not in ran.err
    (engine,) = work.started()
    assert engine["stdin"] == ""
    key = engine["environment"]["VLLM_API_KEY"]
    texts = [file.read_text() for file in work.job.rglob("*") if file.is_file()]
    for text in (ran.err, unpack(found.profile, "profile"), " ".join(engine["arguments"]), *texts):
        assert key not in text
    assert "[api.py:1] key ***" in ran.err
    assert str(work.path) not in unpack(found.profile, "profile")


def test_the_engine_gets_the_flags_of_an_instance(work: Workplace) -> None:
    own = serving(name="generator", max_num_seqs=2)
    assert work.run(told={"status": 1}).code == 75
    (engine,) = work.started()
    given = [word for word in engine["arguments"] if not word.startswith("--port=")]
    instance = [word for word in rendered(own, own.card, own.sharing) if not word.startswith("--port=")]
    assert given == ["serve", *instance, "--host=127.0.0.1"]
    assert engine["environment"]["VLLM_SERVER_DEV_MODE"] == "1"
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in engine["environment"]


@pytest.mark.parametrize(
    ("options", "reason", "longest"),
    [
        ({"memory": "3Gi"}, "the weights leave no memory for the KV cache (0.5 GiB short)", None),
        ({"tp": "8"}, "the model's 4 attention heads cannot be divided by TP 8", None),
        ({"memory": "3586Mi"}, "the KV cache holds 4,096 tokens, one call may have 20,480", 20_480),
    ],
)
def test_a_shape_without_room_is_found_unusable_without_an_engine(
    here: Here, work: Workplace, options: dict[str, str], reason: str, longest: int | None
) -> None:
    (work.path / "tiny" / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 20480}))
    ran = here(**options)
    found = work.outcome()
    assert (ran.code, found.outcome, found.partial) == (0, "unusable", ""), ran.err
    assert reason in found.reason
    spec = found.spec(work.path)
    assert (spec.series, spec.engine.version) == ((), "0.24.0")
    (shape,) = spec.unusable
    assert (shape.tp, shape.share, shape.reason) == (int(options.get("tp", "1")), 1.0, found.reason)
    assert shape.max_model_len == longest, "with shorter calls it may run"
    assert not work.started()


OOM = (
    "(EngineCore pid=71) ERROR 11-21 17:00:00 [core.py:1510] torch.OutOfMemoryError: CUDA out of memory. Tried to "
    "allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which 19.88 MiB is free."
)
FOREIGN = (
    "(EngineCore pid=71) ValueError: Free memory on device cuda:0 (3.2/79.1 GiB) on startup is less than desired GPU "
    "memory utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
CONSEQUENCE = (
    "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)


TOO_LONG = (
    "(EngineCore pid=71) ValueError: To serve at least one request with the model's max seq len (2048), (4.0 GiB KV "
    "cache is needed, which is larger than the available KV cache memory (1.0 GiB)."
)


@pytest.mark.parametrize(
    ("line", "reason", "longest"),
    [
        (OOM, "out of memory: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00", None),
        (TOO_LONG, "out of memory: ValueError: To serve at least one request", 2048),
    ],
)
def test_an_engine_without_memory_is_a_result(
    here: Here, work: Workplace, line: str, reason: str, longest: int | None
) -> None:
    ran = here(told={"log": [line, "Traceback (most recent call last):", CONSEQUENCE], "status": 1})
    found = work.outcome()
    assert (ran.code, found.outcome) == (0, "unusable"), ran.err
    assert found.reason.startswith(reason)
    (shape,) = found.spec(work.path).unusable
    assert (shape.reason, shape.max_model_len) == (found.reason, longest)


@pytest.mark.parametrize(
    ("told", "code", "reason"),
    [
        ({"log": [FOREIGN, CONSEQUENCE], "status": 1}, 75, "the GPU is in use by something else: ValueError: Free mem"),
        ({"log": ["OSError: tiny is not a model", CONSEQUENCE], "status": 1}, 75, "status 1: OSError: tiny is not a m"),
        ({"log": ["vllm serve: error: unrecognized arguments: --x"], "status": 2}, 1, "unrecognized arguments: --x"),
        ({"does": {"unhealthy": 100}}, 75, "/health was not healthy within 1 s: "),
        ({"does": {"failing": 1.0}}, 75, "the longest call of the trace fails: HTTP 500: out of luck, ***"),
    ],
    ids=["foreign", "broken", "usage", "never healthy", "refuses"],
)
def test_an_engine_that_does_not_serve_is_a_failure(
    here: Here, work: Workplace, told: dict[str, Any], code: int, reason: str
) -> None:
    ran = here(told=told, wait="1s" if "unhealthy" in str(told) else "20s")
    found = work.outcome()
    assert (ran.code, found.outcome, found.profile, found.partial) == (code, "failed", "", ""), ran.err
    assert reason in found.reason


def test_an_engine_that_fails_some_calls_gives_no_false_point(here: Here, work: Workplace) -> None:
    ran = here(told={"does": {"failing": 0.05}}, budget="2s")
    found = work.outcome()
    if found.outcome == "measured":
        (series,) = found.spec(work.path).series
        assert ran.code == 0
        assert all(point.calls for point in series.points)
    else:
        assert (ran.code, found.outcome, found.profile) == (75, "failed", "")
        assert "out of luck, ***" in found.reason


def test_an_engine_that_dies_leaves_a_journal_with_which_another_job_goes_on(work: Workplace) -> None:
    ran = work.run(told={"does": {"dies_after": 45}})
    died = work.outcome()
    assert (ran.code, died.outcome, died.profile) == (75, "failed", ""), ran.err
    assert "vLLM ended with status 9" in died.reason
    assert died.points >= 1
    # Another pod: nothing but the inputs.
    for file in (work.job / "journal").iterdir():
        file.unlink()
    (work.job / "in" / "resume").write_text(died.partial)
    again = work.run()
    assert again.code == 0, again.err
    assert again.err.count("(from the journal)") == died.points
    assert work.outcome().outcome == "measured"
    assert [p.concurrency for p in work.outcome().spec(work.path).series[0].points] == [1, 2]


def test_an_engine_that_runs_out_of_memory_under_load_is_a_result(here: Here, work: Workplace) -> None:
    ran = here(told={"log": [OOM], "does": {"dies_after": 3}})
    found = work.outcome()
    assert (ran.code, found.outcome) == (0, "unusable"), ran.err


# Interruptions


def test_a_job_that_is_preempted_ends_soon_and_another_goes_on(work: Workplace) -> None:
    process = work.start(told={"stubborn": True}, budget="5s")
    said = until_measured(process, "1 in flight")
    process.send_signal(signal.SIGTERM)
    # Once more does not keep it from putting things away.
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    stopped = work.outcome()
    assert (process.returncode, stopped.outcome, stopped.profile) == (75, "interrupted", ""), said + err
    assert stopped.points >= 1
    assert "Traceback" not in err
    # As on a volume: its journal is there, which counts more than an older one.
    (work.job / "in" / "resume").write_text(pack("no journal\n"))
    again = work.run(budget="5s")
    assert again.code == 0, again.err
    assert again.err.count("(from the journal)") == stopped.points
    assert work.outcome().outcome == "measured"


def test_a_job_that_is_killed_leaves_what_is_complete_and_no_engine(work: Workplace) -> None:
    process = work.start(told={"stubborn": True}, budget="5s")
    until_measured(process, "1 in flight")
    process.kill()
    process.communicate()
    killed = work.outcome()
    assert (killed.outcome, killed.reason, killed.profile) == ("failed", "killed", "")
    assert killed.points >= 1
    eventually(lambda: not work.orphans(), within=5)


@pytest.mark.parametrize("signalled_at", ["tokens", "start"])
def test_a_signal_while_the_engine_starts_ends_the_job(work: Workplace, signalled_at: str) -> None:
    process = work.start(told={"does": {"unhealthy": 100}})
    assert process.stderr is not None
    line = process.stderr.readline()
    if signalled_at == "start":
        while "key ***" not in line:
            line = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    found = work.outcome()
    assert (process.returncode, found.outcome, found.partial) == (75, "interrupted", "")


@pytest.mark.parametrize(
    ("resume", "note"),
    [
        (pack('{"arguments": {}}\n')[:-12], "in/resume is damaged: "),
        (pack("kind: Profile\n"), "is no journal of `scepsy profile run`; set aside"),
        (pack('{"arguments":{"tp":2},"date":"2026-01-01"}\n'), "tp was 2 and is 1; "),
    ],
    ids=["damaged", "no journal", "other arguments"],
)
def test_what_cannot_be_gone_on_with_is_told_and_the_job_begins_anew(
    here: Here, work: Workplace, resume: str, note: str
) -> None:
    (work.job / "in" / "resume").write_text(resume)
    ran = here(max_num_seqs="1", budget="1s")
    assert ran.code == 0, ran.err
    assert note in ran.err.replace("--", "")
    assert "starts over" in ran.err
    assert work.outcome().outcome == "measured"


def test_two_measurements_do_not_write_to_one_journal(here: Here, work: Workplace, tmp_path: Path) -> None:
    (work.job / "journal").mkdir()
    journal = Journal(work.job / "journal" / "tp1-s10.partial", {}, "2026-01-01")
    with pytest.raises(TakenJournal, match="another measurement writes to"):
        Journal(work.job / "journal" / "tp1-s10.partial", {}, "2026-01-01")
    ran = here()
    journal.close()
    found = work.outcome()
    assert (ran.code, found.outcome) == (1, "failed")
    assert "another measurement writes to" in found.reason
    assert not work.started()
    # What one process finished, another finds gone rather than half there.
    journal.remove()
    assert (work.job / "journal" / "tp1-s10.partial").exists()
    with pytest.raises(OtherJournal):
        Journal(work.job / "journal" / "tp1-s10.partial", {"tp": 2}, "2026-01-01")
    Journal(work.job / "journal" / "tp1-s10.partial", {}, "2026-01-01").close()


# The command line, and what is checked first


@pytest.mark.parametrize(
    ("options", "more", "reason"),
    [
        ({"llm": ""}, [], "Missing option '--llm'"),
        ({"tp": "3"}, [], "'3' is not one of"),
        ({"memory": ""}, [], "--serve needs --memory"),
        ({"memory": "80GB"}, [], '"80GB" is not a quantity of memory: write 80Gi or 512Mi (Kubernetes writes 80G)'),
        ({"share": "0.5"}, [], "--share 0.5 of a GPU needs --sharing dra-mps"),
        ({"max_model_len": "4096"}, [], "the model has a context of 2048 tokens"),
        ({"max_model_len": "60"}, [], "the longest recorded call has 6"),
        ({"llm": "reranker"}, [], 'calls.jsonl has no call to the LLM "reranker"'),
        ({}, ["--base-url", "http://x"], "give either --base-url"),
        ({}, ["--trace", "trace.jsonl"], "--trace needs -o"),
        ({}, ["--served-as", "x"], "--served-as needs --base-url"),
        ({}, ["--bogus"], "No such option"),
        ({}, ["--llm", "", "--revision", "", "--base-url", "http://x"], "give either --base-url"),
    ],
)
def test_mistakes_are_told_in_the_directory_of_the_job(
    here: Here, work: Workplace, options: dict[str, str], more: list[str], reason: str
) -> None:
    ran = here(*more, **options)
    found = work.outcome()
    assert (ran.code, found.outcome, found.profile, found.partial) == (1, "failed", "", "")
    assert reason in found.reason
    assert reason in ran.err
    assert not work.started()


@pytest.mark.parametrize(
    ("calls", "reason"), [(None, "cannot read "), ("AAAA", "in/calls is damaged"), ("ä", "is damaged")]
)
def test_calls_that_are_missing_or_damaged_are_told(
    here: Here, work: Workplace, calls: str | None, reason: str
) -> None:
    file = work.job / "in" / "calls"
    file.unlink()
    if calls is not None:
        file.write_text(calls)
    ran = here()
    assert (ran.code, work.outcome().outcome) == (1, "failed")
    assert reason in work.outcome().reason


def test_a_job_needs_its_directory_and_a_vllm(here: Here, work: Workplace) -> None:
    assert "--job: no such directory" in here(job=str(work.path / "nowhere")).err
    (work.bin / "vllm").unlink()
    assert here().code == 1
    assert "the program `vllm` is not installed" in work.outcome().reason


SMI = 'test "$1" = --query-gpu=name,driver_version,memory.total && echo "{}"'


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        (SMI.format("NVIDIA L40S, 580.95.05, 46068"), 1, "the GPU is a NVIDIA-L40S, not a NVIDIA-A10"),
        (SMI.format("NVIDIA A10, 580.95.05, 2048"), 1, "the GPU has 2048 MiB, --memory is 4096 MiB"),
        ("echo No devices were found; exit 6", 75, "nvidia-smi does not list the GPUs: No devices were f"),
    ],
    ids=["another", "smaller", "broken"],
)
def test_another_card_than_the_product_is_not_measured(
    here: Here, work: Workplace, script: str, code: int, reason: str
) -> None:
    work.program("nvidia-smi", script)
    ran = here(product="NVIDIA-A10")
    assert (ran.code, work.outcome().outcome) == (code, "failed")
    assert reason in work.outcome().reason
    assert not work.started()


def test_the_driver_is_noted(here: Here, work: Workplace) -> None:
    work.program("nvidia-smi", SMI.format("NVIDIA A10, 580.95.05, 23028"))
    assert here(product="NVIDIA-A10", memory="22Gi", told={"log": [OOM], "status": 1}).code == 0
    provenance = work.outcome().spec(work.path).provenance
    assert provenance.driver == "580.95.05"
    assert "nvidia-smi" not in str(provenance.notes)


def test_an_image_without_a_digest_is_noted_as_such(
    here: Here, work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "sha256:" + "0" * 64
    for image, known in ((f"example.com/vllm:1@{digest}", digest), ("example.com/vllm:1", None)):
        monkeypatch.setenv("SCEPSY_IMAGE_DIGEST", image)
        assert here(memory="3Gi").code == 0
        provenance = work.outcome().spec(work.path).provenance
        assert provenance.image_digest == known
        assert ("was not pinned" in str(provenance.notes)) == (known is None)


def test_without_a_job_the_profile_goes_to_a_file(here: Here, work: Workplace) -> None:
    ran = here("--trace", "trace.jsonl", "-o", "own.yaml", job="", memory="3Gi")
    assert ran.code == 0, ran.err
    assert "wrote own.yaml: this shape does not run: the weights leave no memory" in ran.err
    assert not (work.job / "out").exists()
    _, loaded, problems = load_file(work.path / "own.yaml", "own.yaml", Profile)
    assert not problems
    assert loaded[0].document.spec.unusable


# Parts


def serving(**changed: Any) -> ServerConfiguration:
    own: dict[str, Any] = {"name": "llm", "model": "tiny", "revision": None, "tp": 1, "share": 1.0, "card": 4 * GIB}
    own |= {"sharing": "dra-exclusive", "max_model_len": 2048, "max_num_seqs": 8}
    return ServerConfiguration(architecture=architecture_of(CONFIG, None), **(own | changed))


def test_a_share_has_the_limits_of_an_instance_under_mps() -> None:
    half = serving(share=0.5, sharing="dra-mps", tp=2, card=20 * GIB)
    assert (
        half.environment()
        | {
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50",
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=9728M,1=9728M",
        }
        == half.environment()
    )
    assert not any("MPS" in name for name in serving(share=1.0, sharing="dra-mps").environment())
    assert not any("MPS" in name for name in serving(share=0.5, sharing="hami-dra").environment())


def test_flags_that_decide_over_nothing_are_not_noted() -> None:
    assert serving(revision="abc", extra=("--enforce-eager",)).flags == (
        "--revision=abc",
        "--tokenizer-revision=abc",
        "--tensor-parallel-size=1",
        "--max-model-len=2048",
        "--max-num-seqs=8",
        "--kv-cache-memory-bytes=535822336",
        "--gpu-memory-utilization=0.500",
        "--enforce-eager",
    )


@pytest.mark.parametrize(
    ("lines", "memory", "foreign", "reason"),
    [
        ([OOM, CONSEQUENCE], True, False, "torch.OutOfMemoryError: CUDA out of memory"),
        ([FOREIGN, OOM], True, True, "torch.OutOfMemoryError"),
        (["ValueError: No available memory for the cache blocks. Try"], True, False, "ValueError: No available"),
        (["ValueError: To serve at least one request with the model's max seq len (2048), (4.0 GiB KV cache is needed, "
          "which is larger than the available KV cache memory (1.0 GiB)."], True, False, "ValueError: To serve"),
        (["torch.AcceleratorError: CUDA error: out of memory"], True, False, "torch.AcceleratorError: CUDA error"),
        (["(APIServer pid=5) INFO 11-21 17:00:00 [a.py:1] To avoid CUDA out of memory, do this."], False, False, "To av"),
        (["pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
          "  Value error, User-specified max_model_len (9) is greater"], False, False, "Value error, User-specified"),
        (['INFO:     127.0.0.1:3 - "GET /health HTTP/1.1" 200 OK'], False, False, ""),
        (["\x1b[0;36m(EngineCore pid=7)\x1b[0;0m Killed"], False, False, "Killed"),
    ],
)  # fmt: skip
def test_a_log_says_why_an_engine_ended(lines: list[str], memory: bool, foreign: bool, reason: str) -> None:
    log = VllmLog(["secret"], lambda _: None)
    for line in lines:
        log.add(line.encode())
    assert (bool(log.memory), bool(log.foreign)) == (memory, foreign)
    assert log.reason.startswith(reason)


def test_parameters_that_cannot_be_counted_are_those_of_the_index(tmp_path: Path) -> None:
    moe = {**CONFIG, "model_type": "qwen3_moe"}
    with pytest.raises(ScepsyError, match="cannot be counted, nor read from an index"):
        parameters_of(str(tmp_path), None, moe)
    index = {"metadata": {"total_size": 61_000}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert parameters_of(str(tmp_path), None, moe) == 30_500
    assert parameters_of(str(tmp_path), None, CONFIG) is None


@pytest.mark.parametrize(
    ("named", "kind", "message"),
    [
        ("RevisionNotFoundError", ScepsyError, "cannot fetch config.json of org/model at the revision abc: 404"),
        ("LocalEntryNotFoundError", TryAgain, "cannot fetch config.json of org/model at the revision abc: 404"),
        (None, ScepsyError, "the package huggingface_hub, which is not installed"),
    ],
)
def test_a_config_that_the_hub_does_not_give_is_told(
    monkeypatch: pytest.MonkeyPatch, named: str | None, kind: type[ScepsyError], message: str
) -> None:
    def download(*asked: str, **options: str) -> str:
        assert (asked, options) == (("org/model", "config.json"), {"revision": "abc"})
        raise type(named or "", (OSError,), {})("404\nnot found")

    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    # None makes the import fail, whether the package is there or not.
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub if named else None)
    with pytest.raises(ScepsyError, match=message) as error:
        fetched("org/model", "abc", "config.json")
    assert type(error.value) is kind


def test_what_does_not_fit_is_told_before_an_engine_is_started() -> None:
    serving().check()
    with pytest.raises(DoesNotRun, match="no memory"):
        serving(card=3 * GIB).check()
