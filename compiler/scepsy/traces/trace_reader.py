"""Reads traces in the native format (`scepsy.traces.call` describes it)."""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from scepsy.documents import Diagnostic, DocumentError, Position, did_you_mean
from scepsy.traces.call import ESTIMABLE
from scepsy.traces.line_files import Lines
from scepsy.traces.trace import Trace
from scepsy.traces.trace_builder import TraceBuilder, WrongRecord

MAX_PROBLEMS = 20
"""Problems of one trace that are listed; the rest is counted."""

_REQUIRED = ("execution", "model", "start", "end", "inputTokens", "outputTokens")
_TEXTS = ("execution", "model", "id", "operation", "error", "completion")
_KNOWN = frozenset((*_REQUIRED, *_TEXTS, "parent", "cachedTokens", "firstToken", "estimated", "prefix", "prompt"))
_BOUNDS = frozenset(("execution", "start", "end"))
_NUMBERS = frozenset((int, float))
_NAMED = frozenset(ESTIMABLE)


def read_trace(path: Path, name: str, llms: Collection[str] | None = None) -> tuple[Trace, str]:
    """Read a trace, gzipped or not, line by line.

    Args:
        path: the file.
        name: its name in messages.
        llms: the names of the workflow's LLMs; None to accept any.

    Returns:
        The trace, and the digest of the file.

    Raises:
        DocumentError: with the first problems of the file, each at its line.
    """
    lines = Lines(path, name)
    return parse_trace(lines, name, llms), lines.digest()


def parse_trace(lines: Iterable[bytes], name: str, llms: Collection[str] | None = None) -> Trace:
    """Read a trace from its lines.

    Raises:
        DocumentError: with the first problems, each at its line.
    """
    builder = TraceBuilder()
    problems: list[Diagnostic] = []
    more = 0
    at = array("q")  # the line of each record
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            _add(builder, line, llms)
        except ValueError as error:
            more += len(problems) >= MAX_PROBLEMS
            if len(problems) < MAX_PROBLEMS:
                message, _, hint = str(error).partition("\n")
                text = line[:200].decode("utf-8", "replace").rstrip()
                problems.append(Diagnostic(Position(name, number, 1, text), message, hint))
        else:
            at.append(number)
    if more:
        problems.append(
            Diagnostic(Position(name, problems[-1].position.line + 1), f"and {more} more lines with problems")
        )
    if problems:
        raise DocumentError(problems)
    try:
        return builder.trace()
    except WrongRecord as error:
        message = str(error)
        if error.earlier is not None:
            message += f": line {at[error.earlier]} has it in the same execution"
        raise DocumentError([Diagnostic(Position(name, at[error.number], 1), message)]) from error
    except ValueError as error:
        raise DocumentError([Diagnostic(Position(name), str(error))]) from error


def _add(builder: TraceBuilder, line: bytes, llms: Collection[str] | None) -> None:
    """Parse one line and add its record.

    Raises:
        ValueError: with a message, and a hint after a newline.
    """
    try:
        record: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("the line is not UTF-8\nis the file compressed, or in another encoding?") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("the line is not a JSON object" + ("; is it cut off?" if line[:1] == b"{" else "")) from error
    if type(record) is not dict:
        raise ValueError("the line is not a JSON object")
    if record.keys() == _BOUNDS:
        start, end = _number(record, "start"), _number(record, "end")
        builder.add_execution(_execution(record), start, _not_before(start, end, "execution"))
        return
    _check_keys(record)
    model, execution = record["model"], _execution(record)
    if not model:
        raise ValueError('"model" must not be empty')
    if llms is not None and model not in llms:
        raise ValueError(f'unknown model "{" ".join(model[:60].split())}"\n{did_you_mean(model, list(llms))}')
    start = _number(record, "start")
    end = _not_before(start, _number(record, "end"), "call")
    tokens = (_number(record, "inputTokens"), _number(record, "outputTokens"), _number(record, "cachedTokens"))
    if min(tokens) < 0:
        raise ValueError("token counts cannot be negative")
    if tokens[2] > tokens[0]:
        raise ValueError("cachedTokens is larger than inputTokens: cached tokens are part of the prompt")
    if record.get("error"):
        builder.add_failed(execution, record["error"])
        return
    parent = record.get("parent")
    parents = (parent,) if type(parent) is str else parent
    builder.add_call(execution, model, (start, end), tokens, record.get("id"), parents, record.get("estimated") or ())


def _check_keys(record: dict[str, Any]) -> None:
    """Check that a record has the keys of a call, and that all but its numbers are of their type."""
    for key in _REQUIRED:
        if key not in record:
            near = [k for k in record if k not in _KNOWN]
            raise ValueError(
                f'"{key}" is missing' + (f"\nfound unknown keys: {', '.join(k[:60] for k in near[:5])}" if near else "")
            )
    if not record.keys() <= _KNOWN:
        key = next(key for key in record if key not in _KNOWN)
        raise ValueError(f'unknown key "{key[:60]}"\n{did_you_mean(key, list(_KNOWN))}')
    for key in _TEXTS:
        if not isinstance(record.get(key), str | None):
            raise ValueError(f'"{key}" must be a string')
    if record["model"] is None:
        raise ValueError('"model" must be a string')
    if "parent" in record and not isinstance(record["parent"], str | None) and not _strings(record["parent"]):
        raise ValueError('"parent" must be an id or a list of ids')
    if record.get("estimated") and not (_strings(record["estimated"]) and _NAMED.issuperset(record["estimated"])):
        raise ValueError(f'"estimated" must be a list of some of {", ".join(ESTIMABLE)}')


def _strings(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _execution(record: dict[str, Any]) -> str:
    execution = record["execution"]
    if type(execution) is not str or not execution:
        raise ValueError('"execution" must be a string, and not empty')
    return execution


def _number(record: dict[str, Any], key: str) -> float:
    value = record.get(key, 0)
    if type(value) not in _NUMBERS or not abs(value) < 1e21:
        raise ValueError(f'"{key}" must be a number')
    return float(value)


def _not_before(start: float, end: float, what: str) -> float:
    if end < start:
        raise ValueError(f"the {what} ends {start - end:g} s before it starts: did the clock go backwards?")
    return end
