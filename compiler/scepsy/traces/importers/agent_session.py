"""Agent sessions: the traces of coding agents that callanjfox/kv-cache-tester publishes (docs/trace_replay_tester.md).

One file is one session, which is one execution. A request has `t`, its start in seconds from the session's beginning,
`api_time`, its duration, `in` and `out` tokens, and `hash_ids`, one id per `block_size` tokens of the prompt. An entry
of `type: "subagent"` stands where the sub-agent reported back: `t` is then, `duration_ms` before that it began, and the
`t` of its requests count from there; one that was launched in the background (`async_launched`) has no duration,
and stands where it began. The agent waits for its sub-agents, which run side by side.

Two things are not recorded, and estimated: the end of a request without `api_time`, from the seconds per output token
of the other requests of the session, and what the prefix cache held, from the blocks that earlier requests had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from scepsy.traces.importers import json_values as values
from scepsy.traces.importers.format import Format
from scepsy.traces.importers.span import BACKWARDS, FOREIGN, NO_MODEL, NO_TIME, Request, Skipped, Span

FALLBACK = 0.03
"""Seconds per output token where no request of a session is timed; the median of the public sessions is 0.026."""
RESOLUTION = 1.0
"""Seconds: `t` is written in whole seconds, rounded down, `api_time` in hundredths."""
MAX_DEPTH = 50
"""Deepest nesting of sub-agents; recorded sessions have one level."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A request or a sub-agent, with its times on the session's clock.

    Attributes:
        id: its place in the session: `3` is the fourth entry, `3.0` the first one of the sub-agent that stands there.
        agent: id of the agent whose entry it is, empty for the first.
        item: the entry in the file.
        start: seconds from the session's beginning.
        end: seconds; None if not recorded.
    """

    id: str
    agent: str
    item: dict[str, Any]
    start: float
    end: float | None


def matches(record: dict[str, Any]) -> bool:
    """Tell whether a record has the shape of this format."""
    requests = record.get("requests")
    if not isinstance(requests, list):
        return False
    distinctive = any(key in record for key in ("block_size", "hash_id_scope", "tool_tokens"))
    return distinctive or any(isinstance(item, dict) and {"t", "in", "out"} <= item.keys() for item in requests[:50])


def spans(record: Any, name: str) -> Iterator[Span | Skipped]:
    """Yield the spans of one session.

    Args:
        record: the session.
        name: the execution's id if the session has none.
    """
    record = values.mapping(record)
    if not isinstance(record.get("requests"), list):
        yield Skipped(FOREIGN)
        return
    session = values.identifier(record.get("id")) or name
    entries: list[_Entry] = []
    for entry in _entries(record["requests"]):
        if isinstance(entry, Skipped):
            yield entry
        else:
            entries.append(entry)
    cached = _cached(record, entries)
    rates = _rates(entries)
    agents: dict[str, list[_Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda e: e.start):
        agents[entry.agent].append(entry)
    starts: dict[str, float] = {}
    # An agent's entries are placed after the agent itself: ids grow downwards.
    for agent in sorted(agents, key=lambda a: a.count(".") + bool(a)):
        yield from _agent(session, agents[agent], cached, rates, starts)


def _agent(
    session: str,
    entries: list[_Entry],
    cached: Mapping[str, float],
    rates: Mapping[str, float],
    starts: dict[str, float],
) -> Iterator[Span]:
    """Yield the spans of one agent, in order of start, and note in `starts` where its sub-agents begin.

    The end of a request may lie in the second in which the next one begins: that next one began after it, in the rest
    of that second.
    """
    over = starts.get(entries[0].agent, 0.0)
    for number, entry in enumerate(entries):
        begins = max(entry.start, over) if over - entry.start < RESOLUTION else entry.start
        if entry.item.get("type") == "subagent":
            starts[entry.id] = begins
            end = entry.end if entry.end is not None and entry.end >= begins else None
            yield Span(session, entry.id, entry.agent, begins, end)
            if end is not None:
                over = max(over, end)
            continue
        request = _request(entry, cached)
        if entry.end is None:
            output = request.output or 0.0
            following = next((e.start for e in entries[number + 1 :] if e.start > begins), float("inf"))
            end = min(begins + output * rates.get(request.model, rates[""]), following)
        else:
            end = begins + (entry.end - entry.start)
        ttft = values.seconds(entry.item.get("ttft"))
        streamed = begins + ttft if ttft is not None and 0 <= ttft <= end - begins else None
        estimated = ("end", *request.estimated) if entry.end is None else request.estimated
        request = replace(request, first_token=streamed, estimated=estimated)
        over = max(over, end)
        yield Span(session, entry.id, entry.agent, begins, end, request)


def _request(entry: _Entry, cached: Mapping[str, float]) -> Request:
    given, made = values.tokens(entry.item.get("in")), values.tokens(entry.item.get("out"))
    held = min(cached.get(entry.id, 0.0), given or 0.0)
    return Request(
        values.text(entry.item.get("model")) or "",
        None,
        given,
        made,
        held,
        estimated=("cachedTokens",) if entry.id in cached else (),
    )


def _entries(requests: list[Any]) -> Iterator[_Entry | Skipped]:
    """Yield all entries of a session, those of sub-agents included."""
    todo = [(requests, "", 0.0, 0)]
    while todo:
        items, agent, began, depth = todo.pop()
        for number, item in enumerate(items):
            id_ = f"{agent}.{number}" if agent else str(number)
            if not isinstance(item, dict):
                yield Skipped(FOREIGN)
                continue
            nested = item.get("type") == "subagent"
            at = values.seconds(item.get("t"))
            if at is None:
                yield Skipped("sub-agents without a time" if nested else NO_TIME)
            elif nested:
                span = values.seconds(item.get("duration_ms"))
                start = began + at - (max(0.0, span) / 1000 if span is not None else 0.0)
                yield _Entry(id_, agent, item, start, began + at if span is not None else None)
                if depth < MAX_DEPTH:
                    todo.append((values.sequence(item.get("requests")), id_, start, depth + 1))
            elif values.text(item.get("model")) is None:
                yield Skipped(NO_MODEL)
            else:
                took = values.seconds(item.get("api_time"))
                if took is not None and took < 0:
                    yield Skipped(BACKWARDS)
                else:
                    yield _Entry(id_, agent, item, began + at, None if took is None else began + at + took)


def _rates(entries: list[_Entry]) -> dict[str, float]:
    """Return seconds per output token by model, from the requests that are timed; under "" those of all models."""
    seconds: dict[str, float] = defaultdict(float)
    made: dict[str, float] = defaultdict(float)
    for entry in entries:
        output = values.tokens(entry.item.get("out"))
        if entry.end is None or not output or entry.item.get("type") == "subagent":
            continue
        for model in (values.text(entry.item.get("model")) or "", ""):
            seconds[model] += entry.end - entry.start
            made[model] += output
    return {"": FALLBACK} | {model: seconds[model] / made[model] for model in made}


def _cached(record: dict[str, Any], entries: list[_Entry]) -> dict[str, float]:
    """Return the tokens of each request's leading blocks that an earlier request to the same model had.

    With the scope `local` or `global` all agents of a session name the same block alike; without one, each agent
    counts for itself. What another session left in the cache is unknown.
    """
    size = values.tokens(record.get("block_size"))
    if not size:
        return {}
    shared = record.get("hash_id_scope") in ("local", "global")
    known: dict[tuple[str, str], set[Any]] = defaultdict(set)
    result = {}
    for entry in sorted(entries, key=lambda e: e.start):
        blocks = entry.item.get("hash_ids")
        if not isinstance(blocks, list) or entry.item.get("type") == "subagent":
            continue
        blocks = list(takewhile(lambda block: isinstance(block, int | str), blocks))
        cached = known["" if shared else entry.agent, values.text(entry.item.get("model")) or ""]
        result[entry.id] = size * sum(1 for _ in takewhile(cached.__contains__, blocks))
        cached.update(blocks)
    return result


FORMAT = Format("agent-session", 'an object with "requests" and "block_size"', matches, spans)
