"""Two vLLM servers for all tests, a recorder for each, and an agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import ProgramEnded
from tests.vllm.environment import Unavailable, vllm_python
from tests.vllm.recorder_process import Line, RunningRecorder
from tests.vllm.server import KEY, Counters, VllmProcesses, VllmServer, start, write_model

AGENT = Path(__file__).parent / "agent.py"

Record = Callable[[], RunningRecorder]
Execution = dict[str, Any]
"""What an agent says about an execution; `agent.Execution` describes it."""


@dataclass(frozen=True)
class Servers:
    """The servers of the tests.

    Attributes:
        generator: sends token counts with every stream, asked or not, and says how many tokens were cached.
        reranker: as `vllm serve` is by default.
    """

    generator: VllmServer
    reranker: VllmServer

    @property
    def all(self) -> tuple[VllmServer, VllmServer]:
        """Both."""
        return self.generator, self.reranker

    def __getitem__(self, name: str) -> VllmServer:
        return next(server for server in self.all if server.name == name)

    def counters(self) -> dict[str, Counters]:
        """Return what each has counted, by its name."""
        return {server.name: server.counters() for server in self.all}


@dataclass(frozen=True)
class Recorded:
    """What an agent did, what the servers counted meanwhile, and what was recorded of it.

    Attributes:
        did: the agent's executions, by trace-id.
        counted: by how much the servers' counters rose, by LLM.
        lines: the trace.
        trace: its file.
        said: what the recorder printed.
        status: the recorder's exit status.
    """

    did: dict[str, Execution]
    counted: dict[str, Counters]
    lines: list[Line]
    trace: Path
    said: str
    status: int

    def executions(self) -> dict[str, list[Line]]:
        """Return the recorded calls by execution, in the order in which they began."""
        found = defaultdict(list)
        for line in sorted(self.lines, key=lambda line: line["start"]):
            found[line["execution"]].append(line)
        return dict(found)


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python that has vLLM and the OpenAI client."""
    try:
        return vllm_python()
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def both_servers(
    python: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Servers]:
    """The servers; a test may have killed one of them."""
    # CI cancels with SIGTERM, of which pytest alone would die without cleaning up.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    directory = tmp_path_factory.mktemp("vllm")
    processes = VllmProcesses(directory)
    model = write_model(directory / "model")
    talkative = ("--enable-force-include-usage", "--enable-prompt-tokens-details")
    made = Servers(
        VllmServer("generator", processes, python, model, *talkative),
        VllmServer("reranker", processes, python, model),
    )
    try:
        yield made
    finally:
        processes.stop()
        if request.session.testsfailed:
            print(f"\nThe servers' logs are in {directory}")


@pytest.fixture(scope="module")
def first_servers(both_servers: Servers) -> Servers:
    """The servers, running when the first test of a module begins."""
    return _running(both_servers)


@pytest.fixture
def servers(both_servers: Servers) -> Servers:
    """The servers, both running."""
    return _running(both_servers)


@pytest.fixture
def record(servers: Servers, tmp_path: Path) -> Iterator[Record]:
    """Start a recorder in front of the servers; it ends with the test."""
    running: list[RunningRecorder] = []

    def make() -> RunningRecorder:
        running.append(RunningRecorder(servers.all, tmp_path / f"trace-{len(running)}.jsonl"))
        return running[-1]

    yield make
    for recorder in running:
        recorder.stop()


def run_agent(servers: Servers, python: Path, directory: Path, *options: str) -> Recorded:
    """Run the agent against a recorder of its own, to the end."""
    before = servers.counters()
    recorder = RunningRecorder(servers.all, directory / "trace.jsonl")
    try:
        # Isolated: the environment's packages, and nothing of the checkout.
        command = [str(python), "-I", str(AGENT), recorder.url, KEY, *options]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{done.stderr}\n{recorder.said}"
    finally:
        status = recorder.stop()
    did = {execution["trace"]: execution for execution in json.loads(done.stdout)}
    after = servers.counters()
    counted = {name: after[name] - before[name] for name in after}
    return Recorded(did, counted, recorder.lines, recorder.trace, recorder.said, status)


def _running(servers: Servers) -> Servers:
    try:
        start(servers.all)
    except ProgramEnded as error:
        pytest.exit(str(error), returncode=1)
    return servers
