"""Synthetic calls to one LLM, as a summary or statistics describe them; marked as estimated throughout."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import numpy as np

from scepsy.demand.job_calls import MOST_CALLS, SEED, JobCalls
from scepsy.demand.prefix_names import renumbered
from scepsy.demand.statistics import LlmDemand, TokenUse
from scepsy.documents.compressed_text import LIMIT, pack
from scepsy.errors import ScepsyError
from scepsy.traces.call import ESTIMABLE, Call, encoded
from scepsy.traces.trace import Floats

MOST_TOGETHER = 2048
"""Calls of one group at most: twice as many as an engine runs at once."""
BLOCKS = 8
"""Blocks into which the common beginning of the prompts is divided."""
_GAP = 1.0
"""Seconds between the groups of an execution."""


def synthetic_calls(demand: LlmDemand, llm: str, most: int = MOST_CALLS) -> JobCalls:
    """Return calls with the group sizes, the mean tokens and, if known, the maximal tokens of a demand.

    Token counts follow 1 + (max − 1)·u^p with u uniform and p such that the mean is as stated; if no maximum is stated,
    all are equal. Cached tokens become a beginning that all prompts have in common.

    Args:
        demand: how the LLM is called.
        llm: its name.
        most: number of calls, about.

    Raises:
        ScepsyError: even one call does not fit into a job.
    """
    while True:
        text = _text(demand, llm, most)
        packed = pack(text)
        if len(packed) <= LIMIT:
            count = text.count('"model"')
            digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
            return JobCalls(text, packed, "made", digest, count, count)
        if most == 1:
            raise ScepsyError(
                f"the calls to {llm} do not fit into a job: {len(packed):,} characters, the limit is {LIMIT:,}"
            )
        most = max(1, most * 2 // 3)


def _text(demand: LlmDemand, llm: str, most: int) -> str:
    sizes, executions = _group_sizes(demand, most)
    count = sum(sizes)
    inputs, outputs = _tokens(demand.input, count, "input"), _tokens(demand.output, count, "output")
    cached, prefixes = _beginnings(inputs, min(demand.cached.mean, demand.input.mean))
    # In turn, so that executions get about the same groups.
    dealt: list[list[int]] = [sizes[e::executions] for e in range(executions)]
    lines: list[bytes] = []
    at = 0
    for number, groups in enumerate(dealt, start=1):
        for g, size in enumerate(groups):
            for n in range(at, at + size):
                call = Call(
                    execution=str(number),
                    model=llm,
                    start=g * _GAP,
                    end=g * _GAP + _GAP / 2,
                    input_tokens=inputs[n],
                    output_tokens=outputs[n],
                    cached_tokens=cached[n],
                    estimated=ESTIMABLE,
                    prefix=prefixes[n],
                )
                lines.append(encoded(call))
            at += size
    return b"".join(lines).decode()


def _group_sizes(demand: LlmDemand, most: int) -> tuple[list[int], int]:
    """Return the size of each group, shuffled, and the number of executions."""
    groups = [(min(size, MOST_TOGETHER), count) for size, count in demand.groups]
    factor = most / sum(size * count for size, count in groups)
    factor = max(1.0, float(int(factor))) if factor >= 1 else factor
    sizes = [size for size, count in groups for _ in range(round(count * factor))]
    sizes = sizes or [max(groups, key=lambda group: group[0] * group[1])[0]]
    random.Random(SEED).shuffle(sizes)  # noqa: S311 - a choice that must be repeatable, no secret
    return sizes, min(len(sizes), max(1, round(factor)))


def _tokens(use: TokenUse, count: int, name: str) -> list[int]:
    """Return `count` whole numbers, at least 1, with the stated mean and at most the stated maximum."""
    mean = max(1.0, use.mean)
    total = max(count, round(mean * count))
    most = mean if use.max is None else max(mean, use.max)
    power = (most - 1) / (mean - 1) - 1 if mean > 1 else 0.0
    u = (np.arange(count) + 0.5) / count
    shape = 1 + (most - 1) * u**power
    # The mean of few values is only near that of the shape: the part above 1 is scaled until it is exact.
    low, high = 0.0, 1.0
    while _stretched(shape, high, most).sum() < total and high < 1e9:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _stretched(shape, middle, most).sum() < total else (low, middle)
    exact = _stretched(shape, high, most)
    # Rounding keeps the sum.
    values = np.diff(np.rint(np.concatenate([[0.0], np.cumsum(exact)]))).astype(int)
    values = np.clip(values, 1, max(1, round(most)))
    tokens: list[int] = values.tolist()
    random.Random(f"{SEED} {name}").shuffle(tokens)  # noqa: S311 - a choice that must be repeatable, no secret
    return tokens


def _stretched(shape: Floats, factor: float, most: float) -> Floats:
    return np.asarray(np.minimum(1 + (shape - 1) * factor, most))


def _beginnings(inputs: Sequence[int], mean: float) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return cached tokens and prefix of each call, such that the mean of cached tokens is as stated."""
    lengths = np.array(inputs, dtype=float)
    if mean < 0.5:
        return [0] * len(inputs), [()] * len(inputs)
    low, high = 0.0, float(lengths.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(lengths, middle).mean() < mean else (low, middle)
    cached = [int(c) for c in np.minimum(lengths, round(high))]
    # The reader infers the length of a block: all prompt tokens ÷ (hashes + ½ per call).
    block = max(1.0, high / BLOCKS, float(lengths.sum()) / 100_000)
    prefixes = {n: _blocks(n, length, round(high / block), block) for n, length in enumerate(inputs)}
    return cached, list(renumbered(prefixes).values())


def _blocks(number: int, length: int, common: int, block: float) -> tuple[str, ...]:
    """Return the hashes of a prompt: the common ones first, then those that no other prompt has."""
    count = int(length / block)
    return tuple(f"common {i}" if i < common else f"{number} {i}" for i in range(count))
