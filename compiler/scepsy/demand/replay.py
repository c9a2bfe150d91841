"""The calls that a profiling job replays: few enough for a Kubernetes object, alike in what decides latency.

From a trace, whole pieces of executions are taken: groups of calls that started together stay whole, and so does which
prompts begin alike. Hashes are numbered anew, texts, ids and times of day are left behind. Where there is no trace,
calls are made up from what a document states of them, and are marked as estimated throughout.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scepsy.demand.per_execution import TOGETHER, groups_of
from scepsy.demand.resolve import demand_of
from scepsy.demand.statistics import LlmDemand, TokenUse
from scepsy.documents import Llm, Workspace, contained
from scepsy.documents.compressed_text import LIMIT, pack
from scepsy.errors import ScepsyError
from scepsy.performance import Mix
from scepsy.performance.mix import Calls
from scepsy.traces.call import ESTIMABLE, Call, encoded
from scepsy.traces.line_files import Lines
from scepsy.traces.trace import Floats, Ints, Trace
from scepsy.traces.trace_reader import read_trace

MOST_CALLS = 500
"""Calls that a job replays, about; more would not make the mean any surer than its own interval."""
PIECE = 50
"""Executions with more calls are cut between groups, so that one of them does not stand for all."""
MOST_TOGETHER = 2048
"""Calls that are made up for one group: twice as many as an engine runs at once."""
BLOCKS = 8
"""Blocks into which the common beginning of made-up prompts is divided."""

_TRIES = 400
_SEED = "profiling job"
_STEP = round(TOGETHER * 1000) + 1
"""Milliseconds between groups of one execution, at least: less would make them one."""
_GAP = 1.0
"""Seconds between the groups of made-up executions."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class JobCalls:
    """The calls to one LLM for a job.

    Attributes:
        text: the trace in the native format.
        packed: the same as it travels, at most `compressed_text.LIMIT` characters.
        source: `recorded`, or `made` from a summary or statistics.
        digest: of the trace that they were taken from; of `text` where they were made.
        calls: how many there are.
        of: how many the trace has to this LLM; `calls` where they were made.
    """

    text: str
    packed: str
    source: Literal["recorded", "made"]
    digest: str
    calls: int
    of: int


def replayed_as(llm: Llm, demand: LlmDemand, trace: str | None) -> Calls:
    """Return the calls to an LLM as a Profile notes that it replayed them.

    Args:
        llm: the LLM.
        demand: how it is called.
        trace: digest of the trace that has the calls; None if there is none, and a job makes them up.
    """
    mix = Mix(demand.input.mean, demand.output.mean, demand.cached.mean)
    return Calls(llm.model, llm.name, trace if trace is not None else made(demand, llm.name).digest, mix)


def calls_of(workspace: Workspace, workflow: str, llm: str, most: int = MOST_CALLS) -> JobCalls:
    """Return the calls of a workflow to one of its LLMs, for a job.

    Args:
        workspace: the project.
        workflow: the workflow's name.
        llm: the LLM's name in it.
        most: so many calls, about; fewer where they would not fit.

    Raises:
        DocumentError: the trace or summary cannot be read, or has no such calls.
        ScepsyError: a trace's prefix hashes are not what they should be.
    """
    loaded = workspace.workflows[workflow]
    source = loaded.document.spec.demand
    if source.traces is None:
        demand, _ = demand_of(workspace, loaded)
        return made(demand.llms[llm], llm, most)
    path = contained(workspace.root, source.traces, (workspace.directory / loaded.source.file.name).parent)
    name = workspace.relative(path)
    trace, digest = read_trace(path, name, [entry.name for entry in loaded.document.spec.llms])
    if llm not in trace.llms:
        raise ScepsyError(f'no call in {name} goes to "{llm}"', "record it, or remove the LLM")
    return recorded(trace, path, llm, digest, most)


# ---------------------------------------------------------------------------------------------------- recorded calls


@dataclass(frozen=True)
class _Pieces:
    """What may be taken or left: executions, or runs of groups of long ones; P of them.

    Attributes:
        members: per piece the positions of its calls in the trace, group after group.
        sums: (P, 5) calls, groups, prompt tokens, generated tokens, cached prompt tokens.
    """

    members: tuple[tuple[Ints, ...], ...]
    sums: Floats


def recorded(trace: Trace, path: Path, llm: str, digest: str, most: int = MOST_CALLS) -> JobCalls:
    """Return calls to one LLM of a trace that replay like all of them.

    Of many random choices of pieces that is taken whose mean tokens and group sizes are nearest to the whole trace's;
    the same trace gives the same choice.

    Args:
        trace: the trace.
        path: its file, for the prefix hashes.
        llm: a name in `trace.llms`.
        digest: of its file.
        most: so many calls, about; a group is never split for that.

    Raises:
        ScepsyError: a prefix is no list of strings.
    """
    pieces = _pieces(trace, llm)
    total = pieces.sums.sum(axis=0)
    chosen = _choice(pieces, range(len(pieces.members)), total, most)
    prefixes = _prefixes(path, trace, np.concatenate([own for p in chosen for own in pieces.members[p]]))
    while True:
        text = _written(trace, llm, [pieces.members[p] for p in chosen], prefixes)
        packed = pack(text)
        count = int(pieces.sums[chosen, 0].sum())
        if len(packed) <= LIMIT:
            return JobCalls(text, packed, "recorded", digest, count, int(total[0]))
        if len(chosen) == 1:
            pieces = _halved(pieces, chosen[0])
            continue
        most = max(1, min(most, count) * 9 * LIMIT // (10 * len(packed)))
        chosen = _choice(pieces, chosen, total, most)


def _pieces(trace: Trace, llm: str) -> _Pieces:
    mine = np.flatnonzero(trace.llm == trace.llms.index(llm))
    of = groups_of(trace).of[mine]
    # By execution, then by the first start of the group; the members of a group in the order of the trace.
    groups: dict[int, list[int]] = {}
    for position, group in zip(mine.tolist(), of.tolist(), strict=True):
        groups.setdefault(group, []).append(position)
    ordered = sorted(groups.values(), key=lambda own: (trace.execution[own[0]], trace.start[own].min(), own[0]))
    found: list[list[list[int]]] = []
    execution, size = -1, 0
    for own in ordered:
        if trace.execution[own[0]] != execution or size + len(own) > PIECE:
            found.append([])
            execution, size = int(trace.execution[own[0]]), 0
        found[-1].append(own)
        size += len(own)
    members = tuple(tuple(np.array(own, dtype=np.int64) for own in piece) for piece in found)
    return _Pieces(members, np.array([_sums(trace, piece) for piece in members]))


def _sums(trace: Trace, piece: tuple[Ints, ...]) -> list[float]:
    own = np.concatenate(piece)
    return [
        float(len(own)),
        float(len(piece)),
        float(np.maximum(1, np.rint(trace.input[own])).sum()),
        float(np.maximum(1, np.rint(trace.output[own])).sum()),
        float(trace.cached[own].sum()),
    ]


def _choice(pieces: _Pieces, among: Iterable[int], total: Floats, most: int) -> list[int]:
    """Return pieces with at most `most` calls, or a single one, whose ratios are nearest to the whole's."""
    everything = list(among)
    if pieces.sums[everything, 0].sum() <= most:
        return everything
    chance = random.Random(_SEED)  # noqa: S311 - a choice that must be repeatable, no secret
    best: tuple[float, list[int]] = (np.inf, everything[:1])
    for _ in range(_TRIES):
        order = chance.sample(everything, min(len(everything), most))
        running = np.cumsum(pieces.sums[order], axis=0)
        fits = int(np.searchsorted(running[:, 0], most, side="right"))
        # As many as fit, or a few less.
        some = np.arange(fits * 3 // 4, fits) if fits else np.array([0])
        far = _distance(running[some], total)
        at = int(np.argmin(far))
        if far[at] < best[0]:
            best = float(far[at]), order[: int(some[at]) + 1]
    return sorted(best[1])


def _distance(sums: Floats, total: Floats) -> Floats:
    """Return how far choices are from the whole: the largest relative error of what decides latency."""
    calls, whole = sums[:, :1], total[0]
    ratios = np.concatenate([sums[:, 1:] / calls, (sums[:, 2:3] - sums[:, 4:5]) / calls], axis=1)
    aim = np.concatenate([total[1:] / whole, [(total[2] - total[4]) / whole]])
    # Tokens that the cache held count in parts of the prompt: few of them matter little.
    scale = np.maximum(aim, [1e-9, 1.0, 1.0, max(1.0, 0.2 * aim[1]), max(1.0, 0.2 * aim[1])])
    # Rounded, so that the last bits of a sum do not decide.
    return np.asarray(np.round(np.abs(ratios - aim) / scale, 6).max(axis=1))


def _halved(pieces: _Pieces, at: int) -> _Pieces:
    """Return the pieces with one that does not fit by itself cut to half: its groups, or the calls of its only one."""
    piece = pieces.members[at]
    shorter = piece[: len(piece) // 2] if len(piece) > 1 else (piece[0][: max(1, len(piece[0]) // 2)],)
    sums = pieces.sums.copy()
    sums[at] *= sum(map(len, shorter)) / sums[at, 0]
    members = (*pieces.members[:at], shorter, *pieces.members[at + 1 :])
    return _Pieces(members, sums)


def _prefixes(path: Path, trace: Trace, wanted: Ints) -> dict[int, tuple[str, ...]]:
    """Return the hashes of some calls, by their position in the trace.

    The file is read twice, so that only the hashes of these calls are ever held.

    Raises:
        ScepsyError: a prefix is no list of strings.
    """
    # As `Trace` orders its calls: by the beginning and name of the execution, then by start and end.
    number = {name: n for n, name in enumerate(trace.executions)}
    order: list[tuple[int, float, float, str, int]] = []
    for at, line in enumerate(Lines(path, path.name)):
        record = json.loads(line) if line.strip() else {}
        if "model" in record and not record.get("error"):
            key = (float(record["start"]), float(record["end"]), record["model"], at)
            order.append((number[record["execution"]], *key))
    order.sort()
    lines = {order[position][4]: position for position in wanted.tolist()}
    found: dict[int, tuple[str, ...]] = {}
    for at, line in enumerate(Lines(path, path.name)):
        if at in lines:
            prefix = json.loads(line).get("prefix") or []
            if not isinstance(prefix, list) or not all(isinstance(item, str) for item in prefix):
                raise ScepsyError(f'{path.name}:{at + 1}: "prefix" must be a list of strings')
            found[lines[at]] = tuple(prefix)
    return found


def _written(
    trace: Trace, llm: str, pieces: Sequence[tuple[Ints, ...]], prefixes: Mapping[int, tuple[str, ...]]
) -> str:
    names = renumbered({p: prefixes.get(p, ()) for piece in pieces for own in piece for p in own.tolist()})
    lines: list[bytes] = []
    for number, piece in enumerate(pieces, start=1):
        began, at = float(trace.start[piece[0]].min()), -_STEP
        for own in piece:
            # The calls of a group begin at once, and groups stay apart.
            at = max(round((float(trace.start[own].min()) - began) * 1000), at + _STEP)
            for position in own.tolist():
                lasted = float(trace.end[position] - trace.start[position])
                call = Call(
                    execution=str(number),
                    model=llm,
                    start=at / 1000,
                    end=round(at / 1000 + round(lasted, 2), 3),
                    input_tokens=max(1, round(float(trace.input[position]))),
                    output_tokens=max(1, round(float(trace.output[position]))),
                    cached_tokens=round(float(trace.cached[position])),
                    prefix=names[position],
                )
                lines.append(encoded(call))
    return b"".join(lines).decode()


def renumbered(prefixes: Mapping[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """Return prefixes with short names in place of hashes: calls that began alike begin alike, and nobody else.

    Hashes are chained, so it is the whole beginning that is numbered. From the first block on that no other call has,
    all further ones are its own too, and need no names.

    Args:
        prefixes: per call the hashes of its leading blocks.
    """
    # Two passes: how many calls go through each beginning; then their names, in order of appearance.
    tree: dict[tuple[int, str], int] = {}
    through: Counter[int] = Counter()
    paths: dict[int, list[int]] = {}
    for key, blocks in prefixes.items():
        node = 0
        paths[key] = []
        for block in blocks:
            node = tree.setdefault((node, block), len(tree) + 1)
            through[node] += 1
            paths[key].append(node)
    names: dict[int, str] = {}
    found: dict[int, tuple[str, ...]] = {}
    for key, path in paths.items():
        written: list[str] = []
        own = False
        for node in path:
            # "-" is the same name for all, but comes after one that nobody else has.
            written.append("-" if own else names.setdefault(node, _short(len(names))))
            own = own or through[node] == 1
        found[key] = tuple(written)
    return found


def _short(number: int) -> str:
    text = ""
    while True:
        text = _DIGITS[number % 36] + text
        number //= 36
        if not number:
            return text


# ----------------------------------------------------------------------------------------------------- made-up calls


def made(demand: LlmDemand, llm: str, most: int = MOST_CALLS) -> JobCalls:
    """Return calls as a summary or statistics describe them: group sizes, mean tokens, and their maxima if known.

    Token counts follow 1 + (max − 1)·u^p with u uniform and p such that the mean is as stated; where no maximum is
    stated, all are equal. What the prefix cache held becomes a beginning that all prompts have in common.

    Args:
        demand: how the LLM is called.
        llm: its name.
        most: so many calls, about.
    """
    while True:
        text = _made(demand, llm, most)
        packed = pack(text)
        if len(packed) <= LIMIT:
            count = text.count('"model"')
            digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
            return JobCalls(text, packed, "made", digest, count, count)
        if most == 1:
            raise ScepsyError(f"the calls to {llm} do not fit into a job: {len(packed):,} characters, {LIMIT:,} do")
        most = max(1, most * 2 // 3)


def _made(demand: LlmDemand, llm: str, most: int) -> str:
    sizes, executions = _group_sizes(demand, most)
    count = sum(sizes)
    inputs, outputs = _tokens(demand.input, count, "input"), _tokens(demand.output, count, "output")
    cached, prefixes = _beginnings(inputs, min(demand.cached.mean, demand.input.mean))
    # Dealt out in turn, executions get about the same groups.
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
    """Return the size of each group, shuffled, and over how many executions they go."""
    groups = [(min(size, MOST_TOGETHER), count) for size, count in demand.groups]
    factor = most / sum(size * count for size, count in groups)
    factor = max(1.0, float(int(factor))) if factor >= 1 else factor
    sizes = [size for size, count in groups for _ in range(round(count * factor))]
    sizes = sizes or [max(groups, key=lambda group: group[0] * group[1])[0]]
    random.Random(_SEED).shuffle(sizes)  # noqa: S311 - a choice that must be repeatable, no secret
    return sizes, min(len(sizes), max(1, round(factor)))


def _tokens(use: TokenUse, count: int, name: str) -> list[int]:
    """Return `count` whole numbers, at least 1, with the stated mean and at most the stated maximum."""
    mean = max(1.0, use.mean)
    total = max(count, round(mean * count))
    most = mean if use.max is None else max(mean, use.max)
    power = (most - 1) / (mean - 1) - 1 if mean > 1 else 0.0
    u = (np.arange(count) + 0.5) / count
    shape = 1 + (most - 1) * u**power
    # Few values hit the mean of the shape only roughly: what lies above 1 is stretched until they do.
    low, high = 0.0, 1.0
    while _stretched(shape, high, most).sum() < total and high < 1e9:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _stretched(shape, middle, most).sum() < total else (low, middle)
    exact = _stretched(shape, high, most)
    # Rounded so that the sum is kept.
    values = np.diff(np.rint(np.concatenate([[0.0], np.cumsum(exact)]))).astype(int)
    values = np.clip(values, 1, max(1, round(most)))
    found: list[int] = values.tolist()
    random.Random(f"{_SEED} {name}").shuffle(found)  # noqa: S311 - a choice that must be repeatable, no secret
    return found


def _stretched(shape: Floats, factor: float, most: float) -> Floats:
    return np.asarray(np.minimum(1 + (shape - 1) * factor, most))


def _beginnings(inputs: Sequence[int], mean: float) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return cached tokens of each call and its prefix, such that a cache holds the stated mean of them."""
    lengths = np.array(inputs, dtype=float)
    if mean < 0.5:
        return [0] * len(inputs), [()] * len(inputs)
    low, high = 0.0, float(lengths.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(lengths, middle).mean() < mean else (low, middle)
    cached = [int(c) for c in np.minimum(lengths, round(high))]
    # A reader takes all prompt tokens ÷ (hashes + ½ per call) for the length of a block.
    block = max(1.0, high / BLOCKS, float(lengths.sum()) / 100_000)
    prefixes = {n: _blocks(n, length, round(high / block), block) for n, length in enumerate(inputs)}
    return cached, list(renumbered(prefixes).values())


def _blocks(number: int, length: int, common: int, block: float) -> tuple[str, ...]:
    """Return hashes of a prompt: the common ones first, then its own."""
    count = int(length / block)
    return tuple(f"common {i}" if i < common else f"{number} {i}" for i in range(count))


def note_of(request: Mapping[str, Any]) -> str:
    """Return what a Profile must say of the calls that were replayed, beside what the runner says; may be empty.

    Args:
        request: the annotation of the Workflow.
    """
    if request.get("calls") == "made":
        return (
            f"The replayed calls were not recorded: {request.get('replayed')} calls were made up with the group sizes "
            f"and token counts that the demand of workflow {request.get('workflow')} states, and what a prefix cache "
            "held as one beginning that all prompts have in common. Closed loop of k of them in flight, then groups of "
            "them at Poisson times; prompts are random tokens."
        )
    if request.get("replayed") != request.get("of"):
        return (
            f"{request.get('replayed')} of the {request.get('of')} recorded calls were replayed: whole groups, chosen "
            "so that mean tokens and group sizes are those of all."
        )
    return ""
