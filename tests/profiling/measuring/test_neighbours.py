"""`scepsy profile run --serve --neighbours busy`: the real neighbour on GPUs that are not there, and what it does to a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Ran
from tests.end_to_end.processes import eventually
from tests.profiling.measuring.test_vllm_server import ROOT, Workplace, _runs, serving, until_measured

from scepsy.documents.compressed_text import pack
from scepsy.documents.profile import Series
from scepsy.profiling.measuring import neighbour_program as neighbour

HALF = {"share": "0.5", "sharing": "dra-mps", "memory": "8Gi"}
SERIES = {
    "tp": 1,
    "mix": {"input": 10, "output": 5},
    "points": [{"concurrency": 1, "latency": "1s", "ttft": "100ms"}],
}


class Shared(Workplace):
    """A workplace where GPUs are shared: torch is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.neighbours = path / "neighbours"
        self.neighbours.mkdir()
        self.torch({})

    def torch(self, told: dict[str, Any] | None) -> None:
        """Put a torch in the place of the one that is not there, or take it away."""
        self.told = told
        stub = self.path / "stubs" / "torch.py"
        stub.parent.mkdir(exist_ok=True)
        stub.unlink(missing_ok=True)
        if told is not None:
            stub.write_text("from tests.profiling.measuring.fake_torch import *\n")

    def environment(self, **told: Any) -> dict[str, str]:
        own = {"PYTHONPATH": f"{self.path / 'stubs'}:{ROOT}", "FAKE_TORCH_SEEN": str(self.neighbours)}
        return {**super().environment(**told), **own, "FAKE_TORCH": json.dumps(self.told)}

    def busy(self, *more: str, **options: Any) -> Ran:
        return self.run(*more, **{"neighbours": "busy", **HALF, **options})

    def neighbour(self) -> dict[str, Any]:
        """Return what the neighbour was given."""
        found: dict[str, Any] = json.loads((self.neighbours / "neighbour.json").read_text())
        return found

    def orphans(self) -> list[int]:
        own = [self.neighbour()] if list(self.neighbours.iterdir()) else []
        return super().orphans() + [pid for found in own for pid in found["pids"] if _runs(pid)]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Shared]:
    """A workplace; no test leaves an engine or a neighbour behind."""
    made = Shared(tmp_path)
    yield made
    eventually(lambda: not made.orphans(), within=5, why=lambda: f"still running: {made.orphans()}")


# What comes out


def test_a_neighbour_keeps_the_rest_of_the_gpus_busy_and_the_profile_says_so(work: Shared) -> None:
    ran = work.busy(tp="2", max_num_seqs="1", budget="2s")
    found = work.outcome()
    assert (ran.code, found.outcome) == (0, "measured"), ran.err
    spec = found.spec(work.path)
    assert (spec.series[0].share, spec.series[0].neighbours) == (0.5, "busy")
    assert "Neighbours: a copy kernel on the other 50 % of the SMs drew " in str(spec.provenance.notes)
    assert "GB/s of each GPU." in str(spec.provenance.notes)
    assert "--neighbours busy" in str(spec.provenance.command)
    assert ran.err.index("waiting for the neighbour") < ran.err.index("rehearsing") < ran.err.index("1 in flight")
    given = work.neighbour()["environment"]
    assert (given["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"], given["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"]) == (
        "50",
        "0=2048M,1=2048M",
    )
    (engine,) = work.started()
    # The engine is what it is without neighbours.
    assert engine["environment"]["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=3584M,1=3584M"
    assert "VLLM_API_KEY" not in given
    assert not work.orphans()


def test_without_being_asked_for_there_is_no_neighbour_and_no_word_of_it(work: Shared) -> None:
    ran = work.run(**HALF, neighbours="idle", max_num_seqs="1", budget="1s")
    spec = work.outcome().spec(work.path)
    assert ran.code == 0, ran.err
    assert not list(work.neighbours.iterdir())
    assert spec.series[0].neighbours is None
    assert "eighbour" not in json.dumps(spec.plain())


# What goes wrong


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"memory": True}, "the neighbour ended with status 1, RuntimeError: CUDA out of memory"),
        ({"no_gpu": True}, "the neighbour ended with status 1, error: torch finds no CUDA GPU"),
    ],
    ids=["no memory", "no GPU"],
)
def test_a_neighbour_that_does_not_run_fails_the_job(work: Shared, told: dict[str, Any], reason: str) -> None:
    work.torch(told)
    ran = work.busy()
    found = work.outcome()
    assert (ran.code, found.outcome, found.profile, found.partial) == (75, "failed", "", ""), ran.err
    assert found.reason.startswith(reason)


def test_a_neighbour_that_dies_fails_the_job_and_nothing_measured_without_it_is_kept(work: Shared) -> None:
    process = work.start(neighbours="busy", budget="4s", **HALF)
    said = until_measured(process, "1 in flight")
    os.kill(work.neighbour()["pids"][0], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    died = work.outcome()
    assert (process.returncode, died.outcome, died.profile) == (75, "failed", ""), said + err
    assert died.reason == "the neighbour was killed: what was measured since is not to be trusted, and was left out"
    kept = died.points
    assert kept == sum(" in flight: " in line or " calls/s: " in line for line in (said + err).splitlines())
    again = work.busy(budget="4s")
    assert again.code == 0, again.err
    assert again.err.count("(from the journal)") == kept


def test_a_neighbour_that_fails_under_way_says_why(work: Shared) -> None:
    work.torch({"dies_after": 1.5})
    ran = work.busy(budget="20s")
    assert (ran.code, work.outcome().outcome) == (75, "failed"), ran.err
    assert "the neighbour ended with status 1, RuntimeError: CUDA error: an illegal" in work.outcome().reason


def test_an_engine_that_dies_is_told_as_such(work: Shared) -> None:
    ran = work.busy(told={"does": {"dies_after": 45}})
    assert (ran.code, work.outcome().outcome) == (75, "failed"), ran.err
    assert "vLLM ended with status 9" in work.outcome().reason


def test_a_job_that_is_killed_leaves_no_neighbour(work: Shared) -> None:
    process = work.start(neighbours="busy", budget="5s", **HALF)
    until_measured(process, "1 in flight")
    process.kill()
    process.communicate()
    eventually(lambda: not work.orphans(), within=5)


def test_a_preempted_job_stops_its_neighbour(work: Shared) -> None:
    process = work.start(neighbours="busy", budget="5s", **HALF)
    until_measured(process, "1 in flight")
    process.terminate()
    process.communicate(timeout=30)
    assert (process.returncode, work.outcome().outcome) == (75, "interrupted")
    assert not work.orphans()


@pytest.mark.parametrize(
    ("resume", "asked", "note"),
    [
        ({}, "busy", "neighbours was not given and is busy"),
        ({"neighbours": "busy"}, "idle", "neighbours was busy and is not given"),
    ],
)
def test_a_measurement_with_other_neighbours_is_not_gone_on_with(
    work: Shared, resume: dict[str, str], asked: str, note: str
) -> None:
    (work.job / "in" / "resume").write_text(pack(json.dumps({"arguments": resume, "date": "2026-01-01"}) + "\n"))
    ran = work.busy(neighbours=asked, max_num_seqs="1", budget="1s")
    assert ran.code == 0, ran.err
    assert note in ran.err
    assert work.outcome().spec(work.path).series[0].neighbours == (asked if asked == "busy" else None)


# The command line, and what is checked first


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"share": "1.0"}, "--neighbours busy needs a --share below 1"),
        ({"sharing": "hami-dra"}, "--neighbours busy needs --sharing dra-mps, not hami-dra"),
        (
            {"share": "0.9", "memory": "16Gi"},
            "--share 0.9 leaves 1536 MiB of each GPU, a busy neighbour needs 2048 MiB",
        ),
    ],
)
def test_neighbours_that_cannot_be_are_refused(work: Shared, options: dict[str, str], reason: str) -> None:
    ran = work.busy(**options)
    assert (ran.code, work.outcome().outcome) == (1, "failed")
    assert reason in work.outcome().reason
    assert not work.started()


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_nothing_is_started(work: Shared) -> None:
    work.torch(None)
    ran = work.busy()
    assert (ran.code, work.outcome().reason) == (1, "--neighbours busy needs torch, which is not installed"), ran.err
    assert not work.started()


def test_a_server_that_is_up_has_neighbours_of_its_own(work: Shared) -> None:
    words = ["--base-url=http://127.0.0.1:1", "--model=tiny", "--llm=generator", "--product=CPU", "--neighbours=busy"]
    command = [sys.executable, "-m", "scepsy", "profile", "run", *words]
    ran = subprocess.run(command, cwd=work.path, capture_output=True, text=True, check=False)
    assert "--neighbours needs --serve" in ran.stderr


# Parts


def test_a_whole_gpu_has_no_neighbours_in_a_profile() -> None:
    assert Series.model_validate({**SERIES, "share": 0.5, "neighbours": "busy"}).plain()["neighbours"] == "busy"
    assert "neighbours" not in Series.model_validate({**SERIES, "share": 0.5}).plain()
    with pytest.raises(ValueError, match="a whole GPU has no neighbours"):
        Series.model_validate({**SERIES, "neighbours": "busy"})


@pytest.mark.parametrize(("share", "percentage"), [(0.1, "90"), (0.3, "70"), (0.9, "10")])
def test_a_neighbour_gets_all_sms_that_are_left(share: float, percentage: str) -> None:
    own = serving(share=share, sharing="dra-mps", neighbours="busy")
    assert own.neighbour_environment() == {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": percentage,
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=2048M",
    }


def start(work: Shared, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start the program itself."""
    command = [*prefix, sys.executable, "-P", neighbour.__file__]
    return subprocess.Popen(command, env=work.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program_says_what_it_drew_when_it_is_told_to_end(work: Shared) -> None:
    process = start(work)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{neighbour.READY}\n"
    process.terminate()
    out, err = process.communicate(timeout=10)
    said = json.loads(out)
    assert (process.returncode, err, len(said["bytesPerSecond"])) == (0, "", 2)


def test_the_program_ends_when_its_parent_has_gone(work: Shared) -> None:
    # The shell starts it, and goes on; `exec` would be the program itself.
    process = start(work, ("sh", "-c", '"$@"; true', "sh"))
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    eventually(lambda: not work.orphans(), within=5)
    process.communicate(timeout=10)


def test_what_a_copy_counts_is_read_and_written() -> None:
    told: list[int] = []
    copy = neighbour._Copy(_Slow(told), "cuda:0", told)
    copy.count(10.0)
    copy.run()
    copy._until = 20.0
    # Three batches in ten seconds, the last one after it was told to end.
    assert copy.error is None
    assert copy.rate == 3 * neighbour.BATCH * 2 * neighbour.BUFFER / 10


class _Slow:
    """A torch that is told to end with its second wait."""

    int32 = None

    def __init__(self, told: list[int]) -> None:
        outer = self
        self.waits = 0

        class Event:
            def __init__(self, *, blocking: bool) -> None:
                pass

            def record(self) -> None:
                pass

            def synchronize(self) -> None:
                outer.waits += 1
                if outer.waits == 2:
                    told.append(0)

        class Cuda:
            def __init__(self) -> None:
                self.Event = Event

            def set_device(self, device: str) -> None:
                pass

        self.cuda = Cuda()

    def zeros(self, *_: Any, **__: Any) -> None:
        pass

    def zeros_like(self, _: Any) -> None:
        pass

    def add(self, *_: Any, **__: Any) -> None:
        pass
