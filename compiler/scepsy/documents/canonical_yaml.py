"""Plain data → YAML, one canonical form.

Written here because readers of the output differ: Argo CD and kubectl read YAML 1.1 (`on`, `1_0`, `1e3` and `12:30`
are not strings there), ruamel YAML 1.2. So every string is written plain only where both agree, else as JSON; a text
of several lines as a literal block, so that a gateway's configuration can be reviewed. Keys keep their order.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/.@-]*(:[A-Za-z0-9_/.@-]+)*")
_RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"}
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]")
_BLOCK = re.compile(r"[^\s][\x20-\x7e\n]*[^\s]\n")


def emit(*documents: Any) -> bytes:
    """Return the YAML text of one or more documents, UTF-8, with a newline at the end.

    Args:
        documents: values of dict, list, str, int, float, bool and None.
    """
    return ("---\n".join("".join(_lines(document, 0)) for document in documents)).encode()


def _lines(value: Any, indent: int) -> list[str]:
    """Return the block lines of a value at an indentation."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lines.extend(_entry(f"{pad}{_scalar(str(key))}:", item, indent))
        return lines
    if isinstance(value, list | tuple) and value:
        lines = []
        for item in value:
            if isinstance(item, dict | list | tuple) and item:
                inner = _lines(item, indent + 1)
                lines.append(f"{pad}- {inner[0].lstrip(' ')}")
                lines.extend(inner[1:])
            else:
                lines.extend(_entry(f"{pad}-", item, indent))
        return lines
    return [f"{pad}{_scalar(value)}\n"]


def _entry(head: str, value: Any, indent: int) -> list[str]:
    if isinstance(value, dict | list | tuple) and value:
        return [f"{head}\n", *_lines(value, indent + 1)]
    if isinstance(value, str) and _is_block(value):
        pad = "  " * (indent + 1)
        return [f"{head} |\n", *(f"{pad}{line}\n" if line else "\n" for line in value[:-1].split("\n"))]
    return [f"{head} {_scalar(value)}\n"]


def _is_block(text: str) -> bool:
    return (
        text.count("\n") > 1
        and _BLOCK.fullmatch(text) is not None
        and not any(line.endswith(" ") for line in text.split("\n"))
    )


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
            return value
        return _BEYOND_ASCII.sub(_escaped, json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    text = json.dumps(value)
    # A float needs a dot to be one in YAML 1.1.
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
