"""The native format itself (`scepsy.traces.call` describes it), to merge files and rename LLMs.

Texts of prompts and responses are dropped, as with every format; hashes of prefixes are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scepsy.traces.call import ESTIMABLE, Call, Execution
from scepsy.traces.importers import json_values as values
from scepsy.traces.importers.format import Format
from scepsy.traces.importers.span import BACKWARDS, FOREIGN, NO_MODEL, NO_TIME, Skipped


def matches(record: dict[str, Any]) -> bool:
    """Tell whether a record has the shape of this format."""
    return {"execution", "start", "end"} <= record.keys()


def calls(record: Any) -> Iterator[Call | Execution | Skipped]:
    """Yield the call or the execution of a line, or why it cannot be used."""
    record = values.mapping(record)
    execution = values.text(record.get("execution"))
    if execution is None:
        yield Skipped(FOREIGN)
        return
    start, end = values.seconds(record.get("start")), values.seconds(record.get("end"))
    if start is None or end is None:
        yield Skipped(NO_TIME)
    elif end < start:
        yield Skipped(BACKWARDS)
    elif record.keys() == {"execution", "start", "end"}:
        yield Execution(execution, start, end)
    else:
        yield _call(record, execution, start, end)


def _call(record: dict[str, Any], execution: str, start: float, end: float) -> Call | Skipped:
    model = values.text(record.get("model"))
    given, made = values.tokens(record.get("inputTokens")), values.tokens(record.get("outputTokens"))
    cached = values.tokens(record.get("cachedTokens", 0))
    if model is None:
        return Skipped(NO_MODEL)
    if given is None or made is None or cached is None or cached > given:
        return Skipped("calls with impossible token counts")
    first = values.seconds(record.get("firstToken"))
    return Call(
        execution,
        model,
        start,
        end,
        given,
        made,
        cached,
        values.text(record.get("id")),
        _parents(record),
        first,
        values.text(record.get("operation")),
        tuple(name for name in ESTIMABLE if name in values.sequence(record.get("estimated"))),
        values.text(record.get("error")),
        tuple(hash_ for hash_ in values.sequence(record.get("prefix")) if values.text(hash_) == hash_),
    )


def _parents(record: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the parents; without the key nothing is known of them, with an empty list there are none."""
    if record.get("parent") is None:
        return None
    parent = record["parent"]
    named = parent if isinstance(parent, list) else [parent]
    ids = tuple(id_ for value in named if (id_ := values.text(value)))
    return ids if len(ids) == len(named) else None


FORMAT = Format("native", 'lines with "execution", "start" and "end"', matches, lambda record, _: calls(record))
