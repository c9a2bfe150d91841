"""A sample of the recorded calls to one LLM that replays like all of them.

Whole pieces of executions are taken: groups of calls that started together stay whole, and so does which prompts begin
alike. Prefix hashes get short names; texts, ids and times of day are left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scepsy.demand.job_calls import MOST_CALLS, SEED, JobCalls
from scepsy.demand.per_execution import TOGETHER, groups_of
from scepsy.demand.prefix_names import renumbered
from scepsy.documents.compressed_text import LIMIT, pack
from scepsy.errors import ScepsyError
from scepsy.traces.call import Call, encoded
from scepsy.traces.line_files import Lines
from scepsy.traces.trace import Floats, Ints, Trace

PIECE = 50
"""Executions with more calls are cut between groups, so that one of them does not stand for all."""
_TRIES = 400
"""Random choices of pieces, of which the one nearest to the whole trace is taken."""
_STEP = round(TOGETHER * 1000) + 1
"""Milliseconds between groups of one execution, at least: less would make them one."""


@dataclass(frozen=True)
class _Pieces:
    """The units of sampling, P of them: executions, or parts of long ones.

    Attributes:
        members: per piece the positions of its calls in the trace, group after group.
        sums: (P, 5) calls, groups, prompt tokens, generated tokens, cached prompt tokens.
    """

    members: tuple[tuple[Ints, ...], ...]
    sums: Floats


def recorded_calls(trace: Trace, path: Path, llm: str, digest: str, most: int = MOST_CALLS) -> JobCalls:
    """Return calls to one LLM of a trace that replay like all of them.

    Of many random choices of pieces, the one is taken whose mean tokens and group sizes are nearest to those of the
    whole trace; the same trace gives the same choice.

    Args:
        trace: the trace.
        path: its file, for the prefix hashes.
        llm: a name in `trace.llms`.
        digest: of its file.
        most: number of calls, about; a group is never split for that.

    Raises:
        ScepsyError: a prefix is not a list of strings.
    """
    pieces = _pieces(trace, llm)
    total = pieces.sums.sum(axis=0)
    chosen = _choice(pieces, range(len(pieces.members)), total, most)
    prefixes = _prefixes(path, trace, np.concatenate([group for p in chosen for group in pieces.members[p]]))
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
    ordered = sorted(groups.values(), key=lambda group: (trace.execution[group[0]], trace.start[group].min(), group[0]))
    pieces: list[list[list[int]]] = []
    execution, size = -1, 0
    for calls in ordered:
        if trace.execution[calls[0]] != execution or size + len(calls) > PIECE:
            pieces.append([])
            execution, size = int(trace.execution[calls[0]]), 0
        pieces[-1].append(calls)
        size += len(calls)
    members = tuple(tuple(np.array(calls, dtype=np.int64) for calls in piece) for piece in pieces)
    return _Pieces(members, np.array([_sums(trace, piece) for piece in members]))


def _sums(trace: Trace, piece: tuple[Ints, ...]) -> list[float]:
    calls = np.concatenate(piece)
    return [
        float(len(calls)),
        float(len(piece)),
        float(np.maximum(1, np.rint(trace.input[calls])).sum()),
        float(np.maximum(1, np.rint(trace.output[calls])).sum()),
        float(trace.cached[calls].sum()),
    ]


def _choice(pieces: _Pieces, among: Iterable[int], total: Floats, most: int) -> list[int]:
    """Return pieces with at most `most` calls, or a single one, whose ratios are nearest to those of the whole."""
    everything = list(among)
    if pieces.sums[everything, 0].sum() <= most:
        return everything
    chance = random.Random(SEED)  # noqa: S311 - a choice that must be repeatable, no secret
    best: tuple[float, list[int]] = (np.inf, everything[:1])
    for _ in range(_TRIES):
        order = chance.sample(everything, min(len(everything), most))
        running = np.cumsum(pieces.sums[order], axis=0)
        fits = int(np.searchsorted(running[:, 0], most, side="right"))
        # As many as fit, or up to a quarter less.
        some = np.arange(fits * 3 // 4, fits) if fits else np.array([0])
        far = _distance(running[some], total)
        at = int(np.argmin(far))
        if far[at] < best[0]:
            best = float(far[at]), order[: int(some[at]) + 1]
    return sorted(best[1])


def _distance(sums: Floats, total: Floats) -> Floats:
    """Return the distance of choices from the whole: the largest relative error of what decides latency."""
    calls, whole = sums[:, :1], total[0]
    ratios = np.concatenate([sums[:, 1:] / calls, (sums[:, 2:3] - sums[:, 4:5]) / calls], axis=1)
    aim = np.concatenate([total[1:] / whole, [(total[2] - total[4]) / whole]])
    # Cached tokens count relative to the prompt: few of them matter little.
    scale = np.maximum(aim, [1e-9, 1.0, 1.0, max(1.0, 0.2 * aim[1]), max(1.0, 0.2 * aim[1])])
    # Rounded, so that the last bits of a sum do not decide.
    return np.asarray(np.round(np.abs(ratios - aim) / scale, 6).max(axis=1))


def _halved(pieces: _Pieces, at: int) -> _Pieces:
    """Return the pieces with one that does not fit cut in half: its groups, or the calls of its only group."""
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
        ScepsyError: a prefix is not a list of strings.
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
    names = renumbered({p: prefixes.get(p, ()) for piece in pieces for calls in piece for p in calls.tolist()})
    lines: list[bytes] = []
    for number, piece in enumerate(pieces, start=1):
        began, at = float(trace.start[piece[0]].min()), -_STEP
        for calls in piece:
            # The calls of a group begin at once, and groups stay apart.
            at = max(round((float(trace.start[calls].min()) - began) * 1000), at + _STEP)
            for position in calls.tolist():
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
