"""A profiling job with a real vLLM: the command of the WorkflowTemplate, and what vLLM itself says when it cannot run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scepsy.documents import Profile, load_file
from scepsy.documents.compressed_text import pack, unpack
from scepsy.documents.profile import ProfileSpec
from tests.vllm.environment import version
from tests.vllm.server import write_model

FLAGS = ("--load-format=dummy", "--dtype=bfloat16", "--enforce-eager")
"""There are no weights to load, and nothing that would be worth to be compiled."""


@dataclass(frozen=True)
class Ended:
    """A job that ended.

    Attributes:
        code: its exit code.
        outcome: what it says of itself, and why.
        profile: the Profile, unpacked.
        said: what it and vLLM printed.
        directory: where it is.
    """

    code: int
    outcome: tuple[str, str]
    profile: str
    said: str
    directory: Path

    def spec(self) -> ProfileSpec:
        """Return the content of the Profile, which is valid."""
        file = self.directory / "profile.yaml"
        file.write_text(self.profile, encoding="utf-8")
        _, loaded, problems = load_file(file, file.name, Profile)
        assert not problems
        return loaded[0].document.spec


class Job:
    """A job's machine: a `vllm` on PATH, a model in a folder, and nothing else of the environment of vLLM."""

    def __init__(self, python: Path, directory: Path) -> None:
        self.directory = directory
        write_model(directory / "model")
        (directory / "bin").mkdir()
        program = directory / "bin" / "vllm"
        program.write_text(f'#!/bin/sh\nexec nice -n 19 {python} -m vllm.entrypoints.cli.main "$@"\n')
        program.chmod(0o755)
        calls = directory / "job" / "in" / "calls"
        calls.parent.mkdir(parents=True)
        calls.write_text(pack("".join(_lines())))

    def run(self, *flags: str) -> Ended:
        """Run it to its end; the words are those of profiling-jobs/profile.yaml."""
        options = {"model": "model", "revision": "", "llm": "generator", "product": "CPU", "memory": str(4 << 30)}
        options |= {"sharing": "dra-exclusive", "tp": "1", "share": "1.0", "max-num-seqs": "8", "max-model-len": ""}
        options |= {"budget": "40s", "trace-digest": "sha256:whole"}
        words = [f"--{name}={value}" for name, value in options.items()]
        words += [f"--flag={flag}" for flag in (*FLAGS, *flags)]
        done = subprocess.run(
            [sys.executable, "-m", "scepsy", "profile", "run", "--serve", "--job", self.directory / "job", *words],
            cwd=self.directory,
            env=self._environment(),
            check=False,
            capture_output=True,
            text=True,
        )
        print(done.stderr, flush=True)
        out = {name: (self.directory / "job" / "out" / name).read_text() for name in ("outcome", "profile", "partial")}
        said = json.loads(out["outcome"])
        assert out["partial"] == ""
        profile = unpack(out["profile"], "profile") if out["profile"] else ""
        return Ended(done.returncode, (said["outcome"], said["reason"]), profile, done.stderr, self.directory)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.directory / "huggingface"),
            "VLLM_CACHE_ROOT": str(self.directory / "cache"),
            "VLLM_CONFIG_ROOT": str(self.directory / "config"),
            # Bound to one core, the engine would share it with what measures it.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
        }


def _lines() -> Iterator[str]:
    """Yield recorded calls: two side by side, with a common beginning."""
    chance = random.Random(5)
    for execution in range(40):
        prefix = [f"{execution:04}{block:04}" for block in range(4)]
        for _ in range(2):
            call = {"execution": f"e{execution}", "model": "generator", "start": execution * 3.0}
            call |= {"end": execution * 3.0 + 0.5, "outputTokens": chance.randint(16, 48)}
            yield json.dumps({**call, "inputTokens": 256 + chance.randint(1, 40), "prefix": prefix}) + "\n"


@pytest.fixture
def job(python: Path, tmp_path: Path) -> Job:
    return Job(python, tmp_path)


def test_a_job_profiles_a_vllm_of_its_own(job: Job) -> None:
    ended = job.run()
    assert (ended.code, ended.outcome) == (0, ("measured", ""))
    spec = ended.spec()
    (series,) = spec.series
    assert spec.engine.version.startswith(version("vllm-cpu"))
    assert spec.architecture.context_length == 2048
    assert [point.concurrency for point in series.points][:3] == [1, 2, 4]
    assert all(point.kv_usage is not None and point.prefix_hits is not None for point in series.points)
    assert series.mix.cached > 0
    assert spec.provenance.trace_digest == "sha256:whole"
    assert {*FLAGS, "--max-model-len=2048", "--max-num-seqs=8"} < {*spec.provenance.flags}
    # The prefix cache was emptied between points, and the engine said goodbye instead of being killed.
    assert "cannot empty its prefix cache" not in ended.said
    assert "shutdown" in ended.said


def test_what_vllm_says_when_the_kv_cache_is_too_small_is_understood(job: Job) -> None:
    ended = job.run("--kv-cache-memory-bytes=262144")
    assert (ended.code, ended.outcome[0]) == (0, "unusable")
    assert "KV cache is needed, which is larger than the available KV cache memory" in ended.outcome[1]
    assert ended.spec().unusable[0].reason == ended.outcome[1]


def test_what_vllm_says_to_a_flag_that_it_does_not_know_is_understood(job: Job) -> None:
    ended = job.run("--no-such-flag")
    assert (ended.code, ended.outcome[0], ended.profile) == (1, "failed", "")
    assert "unrecognized arguments: --no-such-flag" in ended.outcome[1]
