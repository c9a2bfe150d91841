"""The calls that are replayed: lengths, shared prefixes and groups as recorded, endlessly and repeatably."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from scepsy.demand.per_execution import groups_of
from scepsy.documents import did_you_mean
from scepsy.errors import ScepsyError
from scepsy.traces.line_files import Lines
from scepsy.traces.recorder.prompt import BLOCK
from scepsy.traces.trace import Ints, Trace
from scepsy.traces.trace_reader import read_trace

Blocks = tuple[str, ...]
"""Hashes of a prompt's leading blocks, as the trace has them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call, as far as it is replayed.

    Attributes:
        input: prompt tokens, at least 1.
        output: generated tokens, at least 1.
        prefix: hashes of the prompt's leading blocks: equal leading hashes are equal beginnings.
    """

    input: int
    output: int
    prefix: Blocks = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Calls of one execution that started together.

    Attributes:
        calls: at least one.
        offset: seconds from the beginning of the execution.
    """

    calls: tuple[Call, ...]
    offset: float


@dataclass(frozen=True)
class Workload:
    """The recorded calls to one LLM.

    Attributes:
        executions: the groups of each execution that called it, in time order.
        span: mean seconds from an execution's beginning to its last group, at least a millisecond.
        block: tokens that one block of a prefix stands for; an estimate from all calls that have hashes.
        cached: mean recorded tokens per call that a prefix cache held.
    """

    executions: tuple[tuple[Group, ...], ...]
    span: float
    block: float
    cached: float

    @property
    def calls(self) -> list[Call]:
        """All calls, by execution."""
        return [call for groups in self.executions for group in groups for call in group.calls]

    @property
    def groups(self) -> list[Group]:
        """All groups, by execution."""
        return [group for groups in self.executions for group in groups]

    @property
    def shares_prefixes(self) -> bool:
        """Whether the trace says which prompts begin alike."""
        return any(call.prefix for call in self.calls)

    @property
    def mean_input(self) -> float:
        """Mean prompt tokens of a call."""
        return float(np.mean([call.input for call in self.calls]))

    @property
    def mean_output(self) -> float:
        """Mean generated tokens of a call."""
        return float(np.mean([call.output for call in self.calls]))

    @property
    def longest(self) -> int:
        """Most tokens of one call, prompt and answer."""
        return max(call.input + call.output for call in self.calls)

    @property
    def mean_group(self) -> float:
        """Calls per group."""
        return len(self.calls) / len(self.groups)


def read_workload(path: Path, llm: str, name: str = "") -> tuple[Workload, str]:
    """Read the calls to one LLM from a trace in the native format.

    Args:
        path: the trace.
        llm: the LLM's name in it.
        name: what messages call the file; its path if empty.

    Returns:
        The calls, and the digest of the file.

    Raises:
        ScepsyError: the trace cannot be read, or has no call to the LLM.
    """
    name = name or str(path)
    trace, digest = read_trace(path, name)
    if llm not in trace.llms:
        raise ScepsyError(f'{name} has no call to the LLM "{llm}"', did_you_mean(llm, trace.llms))
    return workload_of(trace, llm, _prefixes(path, name)), digest


def workload_of(trace: Trace, llm: str, prefixes: Sequence[Blocks] = ()) -> Workload:
    """Return the calls to one LLM of a trace.

    Args:
        trace: the trace.
        llm: a name in `trace.llms`.
        prefixes: hashes of each call, in the order of the trace; none if empty.
    """
    groups = groups_of(trace)
    mine = np.flatnonzero(trace.llm == trace.llms.index(llm))
    inputs = np.maximum(1, np.rint(trace.input[mine])).astype(int)
    outputs = np.maximum(1, np.rint(trace.output[mine])).astype(int)
    calls = [
        Call(int(i), int(o), tuple(prefixes[n]) if prefixes else ())
        for n, i, o in zip(mine.tolist(), inputs, outputs, strict=True)
    ]
    members: dict[int, list[int]] = {}
    for position, group in enumerate(groups.of[mine].tolist()):
        members.setdefault(group, []).append(position)
    by_execution: dict[int, list[Group]] = {}
    for positions in members.values():
        first = mine[positions[0]]
        execution = int(trace.execution[first])
        offset = float(trace.start[first] - trace.began[execution])
        by_execution.setdefault(execution, []).append(Group(tuple(calls[p] for p in positions), offset))
    executions = tuple(tuple(sorted(g, key=lambda group: group.offset)) for _, g in sorted(by_execution.items()))
    span = float(np.mean([calls[-1].offset for calls in executions]))
    return Workload(executions, max(span, 1e-3), _tokens_per_block(calls), float(trace.cached[mine].mean()))


def _tokens_per_block(calls: Sequence[Call]) -> float:
    """Estimate it: a prompt with b hashes has between b and b + 1 blocks of characters."""
    hashed = [call for call in calls if call.prefix]
    return sum(call.input for call in hashed) / sum(len(call.prefix) + 0.5 for call in hashed) if hashed else BLOCK / 4


def _prefixes(path: Path, shown: str) -> list[Blocks]:
    """Return the hashes of each call of a trace that `read_trace` accepts, in the order of `Trace`.

    Raises:
        ScepsyError: a prefix is no list of strings.
    """
    found: list[tuple[str, float, float, str, int, Blocks]] = []
    began: dict[str, float] = {}
    for number, line in enumerate(Lines(path, shown)):
        record = json.loads(line) if line.strip() else {}
        if "start" not in record or record.get("error") is not None:
            continue
        name, start = record["execution"], float(record["start"])
        began[name] = min(start, began.get(name, start))
        if "model" not in record:
            continue
        prefix = record.get("prefix") or []
        if not isinstance(prefix, list) or not all(isinstance(item, str) for item in prefix):
            raise ScepsyError(f'{shown}:{number + 1}: "prefix" must be a list of strings')
        found.append((name, start, float(record["end"]), record["model"], number, tuple(prefix)))
    found.sort(key=lambda call: (began[call[0]], *call[:5]))
    return [call[5] for call in found]


def endless(workload: Workload, seed: str, groups_per_second: float) -> Iterator[tuple[int, Group]]:
    """Yield groups for ever: laps of the whole trace, each with its executions shuffled.

    In every lap executions begin at random times, as many per second as bring `groups_per_second`, and their groups
    follow at the recorded offsets. Only the order is used: it is that in which groups of different executions would
    interleave at this rate.

    Args:
        workload: the calls.
        seed: equal seeds give equal sequences.
        groups_per_second: the rate at which they are to be replayed.

    Yields:
        The lap, from 0, and a group.
    """
    chance = random.Random(seed)  # noqa: S311 - a replay, no secret
    length = len(workload.groups) / groups_per_second
    lap = 0
    while True:
        begins = [chance.random() * length for _ in workload.executions]
        order = [
            (begin + group.offset, e, g)
            for e, (begin, groups) in enumerate(zip(begins, workload.executions, strict=True))
            for g, group in enumerate(groups)
        ]
        for _, e, g in sorted(order):
            yield lap, workload.executions[e][g]
        lap += 1


def poisson(seed: str, rate: float) -> Iterator[float]:
    """Yield the times of a Poisson process for ever, from 0.

    Args:
        seed: equal seeds give equal times.
        rate: events per second.
    """
    chance = random.Random(seed)  # noqa: S311 - a replay, no secret
    now = 0.0
    while True:
        now += chance.expovariate(rate)
        yield now


class Prompts:
    """Prompts of random token ids with the recorded lengths.

    Leading blocks with equal hashes become equal tokens within a lap, so that prefixes are shared as recorded; in
    another lap, point or attempt they are others, so that a replayed call does not meet its own earlier copy in the
    prefix cache. All other tokens are unique to the call. Ids lie in the middle of the vocabulary: special tokens lie
    at its ends.

    Args:
        vocabulary: number of token ids.
        block: tokens of one block of a prefix.
        seed: equal seeds give equal prompts.
    """

    def __init__(self, vocabulary: int, block: float, seed: str) -> None:
        self._low, self._high = vocabulary // 8, max(vocabulary // 8 + 1, vocabulary * 7 // 8)
        self._block = block
        self._seed = seed
        self._made = 0

    def next(self, call: Call, lap: int) -> list[int]:
        """Return the prompt of the next call."""
        pieces: list[Ints] = []
        done = 0
        for number, name in enumerate(call.prefix, start=1):
            end = round(number * self._block)
            if end > call.input:
                break
            pieces.append(self._tokens(f"block {lap} {name}", end - done))
            done = end
        pieces.append(self._tokens(f"call {self._made}", call.input - done))
        self._made += 1
        tokens: list[int] = np.concatenate(pieces).tolist()
        return tokens

    def _tokens(self, what: str, count: int) -> Ints:
        digest = blake2b(f"{self._seed} {what}".encode(), digest_size=16).digest()
        chance = np.random.default_rng(int.from_bytes(digest))
        return chance.integers(self._low, self._high, count)
