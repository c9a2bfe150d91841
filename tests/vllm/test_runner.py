"""A real vLLM is profiled, and what the profile predicts is then measured."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from scepsy.documents import Profile, load_file
from scepsy.documents.profile import RatePoint
from scepsy.performance import Catalog, Stream, latencies
from scepsy.performance.mix import Mix
from scepsy.performance.queueing import rounds
from scepsy.profiling.measuring import Engine, read_workload
from scepsy.profiling.measuring.load_generators import Time, open_loop, settle
from scepsy.profiling.measuring.workload import Prompts, endless, poisson
from tests.vllm.server import KEY, VllmProcesses, VllmServer, start, write_model

MOST = 16
"""`--max-num-seqs` of the servers."""
WITHIN = 0.15


@dataclass(frozen=True)
class Profiled:
    """A server and its profile.

    Attributes:
        server: the server, still running.
        profile: the profile.
        text: the file.
        trace: the recorded calls.
        config: the model's config.json.
        said: what the command printed.
    """

    server: VllmServer
    profile: Profile
    text: str
    trace: Path
    config: Path
    said: str


@pytest.fixture(scope="module")
def profiled(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profiled]:
    """A vLLM that empties its prefix cache when told to, and its profile, made by the command."""
    directory = tmp_path_factory.mktemp("profiled")
    processes = VllmProcesses(directory)
    # So much work per call that the client beside it hardly counts, and so little that a minute holds many calls.
    model = write_model(directory / "model", size=2)
    server = VllmServer("profiled", processes, python, model, polite=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        try:
            start([server])
            yield _profile(server, model / "config.json", directory)
        finally:
            processes.stop()


def _profile(server: VllmServer, config: Path, directory: Path) -> Profiled:
    trace, output = directory / "trace.jsonl", directory / "profile.yaml"
    trace.write_text("".join(_lines()), encoding="utf-8")
    command = [sys.executable, "-m", "scepsy", "profile", "run", "--base-url", server.url, "--model", server.name]
    command += ["--api-key-env", "PROFILED_KEY", "--trace", trace, "--llm", "generator", "--product", "CPU"]
    command += ["--config", config, "--max-num-seqs", str(2 * MOST), "--budget", "6min", "-o", output]
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PROFILED_KEY": KEY},
        check=False,
        capture_output=True,
        text=True,
    )
    print(done.stderr, flush=True)
    assert done.returncode == 0, done.stderr
    _, loaded, problems = load_file(output, output.name, Profile)
    assert not problems
    return Profiled(server, loaded[0].document, output.read_text(encoding="utf-8"), trace, config, done.stderr)


def _lines() -> Iterator[str]:
    """Yield recorded calls: conversations of three turns, each of which repeats the one before, in single calls."""
    chance = random.Random(11)
    for execution in range(60):
        prefix = [f"{execution:04}{block:04}" for block in range(12)]
        for turn in range(3):
            start = execution * 7.0 + turn
            call = {"execution": f"e{execution}", "model": "generator", "start": start, "end": start + 0.5}
            call |= {"inputTokens": 256 * (turn + 1) + chance.randint(1, 40), "outputTokens": chance.randint(16, 48)}
            blocks = prefix[: 4 * (turn + 1)]
            yield json.dumps({**call, "prefix": blocks}) + "\n"


def test_the_profile_says_what_was_measured_and_how(profiled: Profiled) -> None:
    spec = profiled.profile.spec
    (series,) = spec.series
    assert spec.source == "measured"
    assert spec.engine.version.startswith("0.")
    assert spec.architecture.context_length == 2048
    assert [point.concurrency for point in series.points][:5] == [1, 2, 4, 8, 16]
    assert all(point.kv_usage is not None and point.prefix_hits is not None for point in series.points)
    # Turns of about 276, 532 and 788 tokens find 252 and 504 of them in the cache, whole blocks of 128.
    assert 0.2 * series.mix.input < series.mix.cached < 0.4 * series.mix.input
    assert KEY not in profiled.text + profiled.said


def test_the_curve_predicts_the_latency_at_rates_that_were_not_measured(profiled: Profiled) -> None:
    (series,) = profiled.profile.spec.series
    top = max(point.concurrency / point.latency for point in series.points)
    missed = []
    for part in (0.3, 0.5, 0.7):
        measured = asyncio.run(_measured(profiled, part * top))
        predicted = _predicted(profiled.profile, measured.rate)
        error = predicted / measured.latency - 1
        missed.append(abs(error))
        print(
            f"{part:.0%} load, {measured.rate:.1f}/s: predicted {predicted * 1e3:.0f} ms, "
            f"measured {measured.latency * 1e3:.0f} ms ± {measured.interval:.1%} ({error:+.1%})"
        )
    assert max(missed) <= WITHIN


def test_the_curve_predicts_where_the_server_is_saturated(profiled: Profiled) -> None:
    (series,) = profiled.profile.spec.series
    predicted = max(point.concurrency / point.latency for point in series.points)
    assert series.saturation is not None
    assert series.saturation.high is not None
    low, high = series.saturation.low, series.saturation.high
    print(f"saturation: predicted {predicted:.1f}/s, measured between {low:.1f} and {high:.1f}/s")
    assert abs(predicted / ((low + high) / 2) - 1) <= WITHIN


async def _measured(profiled: Profiled, rate: float) -> RatePoint:
    """Measure the server at a rate, with other prompts and other arrivals than before."""
    workload, _ = read_workload(profiled.trace, "generator")
    seed = f"afterwards {rate}"
    groups = rate / workload.mean_group
    async with Engine(profiled.server.url, profiled.server.name, KEY) as engine:
        await settle(engine)
        await engine.forget_prefixes()
        vocabulary = json.loads(profiled.config.read_bytes())["vocab_size"]
        prompts = Prompts(vocabulary, workload.block, seed)
        order = endless(workload, seed, groups)
        return await open_loop(engine, order, prompts, poisson(seed, groups), rate, 2 * MOST, Time(120, 120))


def _predicted(profile: Profile, rate: float) -> float:
    """Return the mean latency of single calls at a rate, as the planner would."""
    (series,) = profile.spec.series
    catalog = Catalog([profile], profile.spec.engine.version)
    mix = Mix(series.mix.input, series.mix.output, series.mix.cached)
    seconds = catalog.service(profile.spec.model, profile.spec.product, 1, 10, mix).seconds
    limit = min(MOST, int(np.argmax(np.arange(1, len(seconds) + 1) / seconds)) + 1)
    column, one = seconds[:limit, None], np.array([1])
    stream = Stream(column, one, np.array([rate]), rounds(column, one, np.array([limit])))
    (latency,), _, _ = latencies([stream])
    return float(latency[0])
