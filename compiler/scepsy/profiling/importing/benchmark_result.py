"""One result of a benchmark tool, as far as a profile needs it, whichever tool wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scepsy.performance.curves import Array

CALLS, E2EL, PARTS = "calls", "e2el", "parts"
"""Where a mean latency comes from: the times of the single calls, `mean_e2el_ms`, or TTFT + TPOT · (output − 1)."""


@dataclass(frozen=True, eq=False)
class Calls:
    """The single calls of a run, in the order in which they were sent.

    Attributes:
        latency: (N,) seconds.
        ttft: (N,) seconds to the first token; None where the result does not hold them.
        start: (N,) seconds on some clock; None where the result does not hold them.
    """

    latency: Array
    ttft: Array | None
    start: Array | None


@dataclass(frozen=True, eq=False)
class Result:
    """A run in which every request was answered.

    Attributes:
        tool: what wrote it.
        name: where it stands, for messages.
        digest: of its file.
        identity: the same for two copies of one run.
        day: YYYY-MM-DD, as the machine of the benchmark had it; None if the result does not have it.
        served: the model's name on the server.
        version: the engine's, where `--metadata version=…` says it.
        tp: tensor-parallel degree, where a sweep or the metadata say it.
        flags: parameters of the server that a sweep set, `--max-num-seqs 16`, in order; the degree is not among them.
        rate: requests per second that were asked for; infinite if none was.
        cap: most requests at a time; None for no limit.
        burstiness: 1 for Poisson arrivals.
        ramp: whether the rate rose during the run.
        probed: whether other requests ran beside those that were measured.
        completed: requests.
        duration: seconds from the first request to the end of the last.
        input: mean prompt tokens.
        output: mean generated tokens.
        latency: mean latency over the whole run, seconds.
        source: what `latency` comes from: `CALLS`, `E2EL` or `PARTS`.
        ttft: mean time to the first token over the whole run, seconds.
        percentiles: of the latency over the whole run, by their number; those that are known.
        calls: the single calls, where the result holds them.
    """

    tool: str
    name: str
    digest: str
    identity: tuple[Any, ...]
    day: str | None
    served: str
    version: str | None
    tp: int | None
    flags: tuple[str, ...]
    rate: float
    cap: int | None
    burstiness: float
    ramp: bool
    probed: bool
    completed: int
    duration: float
    input: float
    output: float
    latency: float
    source: str
    ttft: float
    percentiles: Mapping[int, float]
    calls: Calls | None

    @property
    def throughput(self) -> float:
        """Requests completed per second of the whole run."""
        return self.completed / self.duration

    @property
    def in_flight(self) -> float:
        """Mean number of requests in flight over the whole run, by Little's law."""
        return self.latency * self.throughput


@dataclass(frozen=True)
class Reader:
    """How results of one benchmark tool are read.

    Attributes:
        tool: the tool's name, for the provenance and for messages.
        matches: whether a JSON value is a result of the tool.
        read: the JSON object, the name for messages, the directory of its file and the file's digest → the result, or
            why it cannot be used.
    """

    tool: str
    matches: Callable[[Any], bool]
    read: Callable[[Mapping[str, Any], str, str, str], Result | str]
