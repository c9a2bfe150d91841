"""The native trace format: JSONL, one line per LLM call.

    {"execution": "e1", "id": "c2", "parent": "c1", "model": "generator", "start": 12.031, "end": 13.4,
     "inputTokens": 3210, "outputTokens": 240, "cachedTokens": 1024}

`execution` groups the calls of one workflow execution; `model` is the name that the agent code sent; `start` and `end`
are seconds on one clock per execution; `cachedTokens` (default 0) are part of `inputTokens`; `id` and `parent` are
optional. Lines may come in any order.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from scepsy.documents import Diagnostic, DocumentError, Position, did_you_mean

MAX_PROBLEMS = 20
"""So many problems of one trace are listed; the rest is counted."""

_REQUIRED = ("execution", "model", "start", "end", "inputTokens", "outputTokens")
_KNOWN = (*_REQUIRED, "id", "parent", "cachedTokens")


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call.

    Attributes:
        execution: the workflow execution that it belongs to.
        model: the LLM's name.
        start: seconds.
        end: seconds, not before `start`.
        input_tokens: prompt tokens, cached ones included.
        output_tokens: generated tokens.
        cached_tokens: prompt tokens that the prefix cache held.
        id: the call's id, unique in its execution; None if not recorded.
        parent: id of the call that this one waited for; None if not recorded.
    """

    execution: str
    model: str
    start: float
    end: float
    input_tokens: float
    output_tokens: float
    cached_tokens: float = 0.0
    id: str | None = None
    parent: str | None = None


def read_trace(data: bytes, name: str, llms: Collection[str]) -> list[Call]:
    """Read a JSONL trace.

    Args:
        data: the file's content.
        name: how messages call the file.
        llms: the LLM names that the workflow declares.

    Raises:
        DocumentError: with the first problems of the file, each at its line.
    """
    calls: list[Call] = []
    problems: list[Diagnostic] = []
    ids: set[tuple[str, str]] = set()
    more = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            call = _call(line, llms)
            if call.id is not None:
                if (call.execution, call.id) in ids:
                    raise ValueError(f'the id "{call.id}" occurs twice in execution "{call.execution}"')
                ids.add((call.execution, call.id))
            calls.append(call)
        except ValueError as error:
            if len(problems) < MAX_PROBLEMS:
                message, _, hint = str(error).partition("\n")
                text = line[:200].decode("utf-8", "replace")
                problems.append(Diagnostic(Position(name, number, 1, text), message, hint))
            else:
                more += 1
    if more:
        problems.append(
            Diagnostic(Position(name, problems[-1].position.line + 1), f"and {more} more lines with problems")
        )
    if not calls and not problems:
        problems.append(Diagnostic(Position(name), "the trace holds no calls"))
    if problems:
        raise DocumentError(problems)
    return calls


def _call(line: bytes, llms: Collection[str]) -> Call:
    """Parse one line.

    Raises:
        ValueError: with a message, and a hint after a newline.
    """
    try:
        record: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("the line is not UTF-8\nis the file compressed, or in another encoding?") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("the line is not a JSON object" + ("; is it cut off?" if line[:1] == b"{" else "")) from error
    _check_keys(record)
    numbers = {}
    for key in ("start", "end", "inputTokens", "outputTokens", "cachedTokens"):
        value = record.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            raise ValueError(f'"{key}" must be a number')
        numbers[key] = float(value)
    if record["model"] not in llms:
        raise ValueError(f'unknown model "{record["model"][:60]}"\n{did_you_mean(record["model"], list(llms))}')
    if numbers["end"] < numbers["start"]:
        raise ValueError(f"the call ends {numbers['start'] - numbers['end']:g} s before it starts")
    if min(numbers["inputTokens"], numbers["outputTokens"], numbers["cachedTokens"]) < 0:
        raise ValueError("token counts cannot be negative")
    if numbers["cachedTokens"] > numbers["inputTokens"]:
        raise ValueError("cachedTokens is above inputTokens: cached tokens are part of the prompt")
    return Call(
        record["execution"],
        record["model"],
        numbers["start"],
        numbers["end"],
        numbers["inputTokens"],
        numbers["outputTokens"],
        numbers["cachedTokens"],
        record.get("id"),
        record.get("parent"),
    )


def _check_keys(record: Any) -> None:
    """Check that a record is an object with the keys of a call, and that names are strings."""
    if not isinstance(record, dict):
        raise ValueError("the line is not a JSON object")
    for key in _REQUIRED:
        if key not in record:
            near = [k for k in record if k not in _KNOWN]
            raise ValueError(f'"{key}" is missing' + (f"\nfound unknown keys: {', '.join(near[:5])}" if near else ""))
    for key in record:
        if key not in _KNOWN:
            raise ValueError(f'unknown key "{key[:60]}"\n{did_you_mean(key, _KNOWN)}')
    for key in ("execution", "model", "id", "parent"):
        if not isinstance(record.get(key, ""), str | None):
            raise ValueError(f'"{key}" must be a string')
    if not record["execution"] or record["model"] is None:
        raise ValueError('"execution" and "model" must not be empty')
