"""The recorder as people run it, and what it leaves behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.processes import eventually
from tests.vllm.server import VllmServer

Line = dict[str, Any]
"""A line of a trace."""


@dataclass(frozen=True)
class Totals:
    """What a trace says of one LLM.

    Attributes:
        completed: calls without an error.
        input: their prompt tokens.
        output: their generated tokens.
        cached: their prompt tokens that the prefix cache held.
    """

    completed: int
    input: int
    output: int
    cached: int

    @classmethod
    def of(cls, lines: Iterable[Line], model: str) -> Totals:
        """Return the totals of one LLM."""
        done = [line for line in lines if line["model"] == model and "error" not in line]
        fields = ("inputTokens", "outputTokens", "cachedTokens")
        return cls(len(done), *(sum(line[name] for line in done) for name in fields))


class RunningRecorder:
    """`scepsy trace record` between agents and servers.

    Args:
        servers: where calls go, each by its name.
        trace: the file.
    """

    def __init__(self, servers: Sequence[VllmServer], trace: Path) -> None:
        self.trace = trace
        self._said = trace.with_suffix(".err")
        upstreams = [word for server in servers for word in ("--upstream", f"{server.name}={server.url}")]
        command = [sys.executable, "-m", "scepsy", "trace", "record", "--listen", "127.0.0.1:0", *upstreams]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [*command, "--output", str(trace)], stdin=subprocess.DEVNULL, stderr=said, cwd=trace.parent
            )
        self.url = eventually(self._listens, within=30, why=lambda: f"the recorder does not listen: {self.said}")

    @property
    def said(self) -> str:
        """What it printed so far."""
        return self._said.read_text(encoding="utf-8")

    @property
    def lines(self) -> list[Line]:
        """The lines of the trace so far."""
        return [json.loads(line) for line in self.trace.read_text(encoding="utf-8").splitlines()]

    def written(self, calls: int) -> list[Line]:
        """Wait until so many calls are recorded, and return them."""
        eventually(lambda: len(self.lines) >= calls, within=30, why=lambda: f"recorded: {self.lines}")
        return self.lines

    def stop(self) -> int:
        """End it with Ctrl-C, and return its exit status; safe to call again."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def _listens(self) -> str | None:
        assert self._process.poll() is None, self.said
        found = re.search(r"listening on (http://127\.0\.0\.1:\d+)", self.said)
        return found[1] if found else None


def most_at_once(lines: Iterable[Line]) -> int:
    """Return how many calls were in flight at the same time; a call that begins as another ends follows it."""
    changes = sorted(change for line in lines for change in ((line["start"], 1), (line["end"], -1)))
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def by_kind(lines: Iterable[Line]) -> Counter[tuple[str, str]]:
    """Return how many calls there are of each LLM and operation."""
    return Counter((line["model"], line["operation"]) for line in lines)
