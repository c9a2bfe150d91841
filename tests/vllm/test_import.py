"""Results of a real `vllm bench serve` become a profile."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scepsy.documents import Profile, load_file
from tests.conftest import Scepsy
from tests.vllm.server import KEY, VllmProcesses, VllmServer, start, write_model

INPUT, OUTPUT = 64, 16


@dataclass(frozen=True)
class Benched:
    """What the benchmark wrote.

    Attributes:
        folder: the results.
        config: the model's config.json.
    """

    folder: Path
    config: Path

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Return a result."""
        return json.loads((self.folder / f"{name}.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def benched(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benched]:
    """One server and one run after the other: closed loops, a rate, a burst, and one in which all requests fail."""
    directory = tmp_path_factory.mktemp("benched")
    processes = VllmProcesses(directory)
    model = write_model(directory / "model")
    server = VllmServer("benched", processes, python, model, "--no-enable-prefix-caching")
    runs = {
        "one": ("--max-concurrency", "1", "--num-prompts", "40", "--save-detailed"),
        "four": ("--max-concurrency", "4", "--num-prompts", "100", "--save-detailed", "--metadata", "tp=1"),
        "eight": ("--max-concurrency", "8", "--num-prompts", "160"),
        "rate": ("--request-rate", "5", "--num-prompts", "100", "--save-detailed"),
        "burst": ("--num-prompts", "20"),
        "failed": ("--max-concurrency", "2", "--num-prompts", "10", "--endpoint", "/nowhere/v1/completions"),
    }
    try:
        start([server])
        for name, options in runs.items():
            _bench(python, server, model, directory, name, options)
        yield Benched(directory / "results", model / "config.json")
    finally:
        processes.stop()


def _bench(python: Path, server: VllmServer, model: Path, directory: Path, name: str, options: tuple[str, ...]) -> None:
    command = [python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai"]
    command += ["--base-url", server.url, "--model", "benched", "--tokenizer", model, "--dataset-name", "random"]
    command += ["--random-input-len", INPUT, "--random-output-len", OUTPUT, "--ignore-eos", "--disable-tqdm"]
    command += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,95,99", "--save-result"]
    command += ["--result-dir", directory / "results", "--result-filename", f"{name}.json", *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [str(word) for word in command],
        env={**environment, "OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # Where all requests fail, too.
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_curve_is_that_of_the_benchmark(benched: Benched, tmp_path: Path, scepsy: Scepsy) -> None:
    output = tmp_path / "benched.yaml"
    options = ("--product", "CPU", "--engine-version", "0.32.0", "--config", benched.config, "-o", output)
    ran = scepsy("profile", "import", benched.folder, "--model", "tests/benched", *options)
    print(ran.out, ran.err)
    assert ran.code == 0, ran.err
    assert "failed.json: no request was completed" in ran.out
    assert "burst.json: all requests were sent at once" in ran.out
    _, loaded, problems = load_file(output, output.name, Profile)
    assert not problems
    (series,) = loaded[0].document.spec.series
    assert [point.concurrency for point in series.points] == [1, 4, 8]
    assert series.mix.output == OUTPUT
    assert abs(series.mix.input - INPUT) <= 2
    for point, name in zip(series.points, ("one", "four", "eight"), strict=True):
        said = benched[name]
        # Its ends are in the benchmark's own mean.
        assert point.latency == pytest.approx(said["mean_e2el_ms"] / 1000, rel=0.25)
        assert point.latency == pytest.approx(point.ttft + (point.tpot or 0) * (series.mix.output - 1), rel=0.01)
        # Little's law over the whole run.
        assert said["request_throughput"] * said["mean_e2el_ms"] / 1000 == pytest.approx(point.concurrency, rel=0.15)
    one, four, eight = series.points
    assert one.latency < eight.latency
    assert (one.interval is None, four.interval is None) == (False, False)
    assert eight.p95 == pytest.approx(benched["eight"]["p95_e2el_ms"] / 1000, rel=0.25)
    (rate,) = series.open_loop
    assert (rate.rate, rate.stable) == (5.0, True)


def test_the_single_calls_of_a_detailed_result_add_up(benched: Benched) -> None:
    said = benched["rate"]
    latencies = [first + sum(gaps) for first, gaps in zip(said["ttfts"], said["itls"], strict=True)]
    assert np.mean(latencies) * 1000 == pytest.approx(said["mean_e2el_ms"], rel=1e-6)
    if "latencies" in said:
        np.testing.assert_allclose(latencies, said["latencies"], rtol=1e-6)
