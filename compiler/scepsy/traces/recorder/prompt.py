"""The prompt of a request: its text, an estimate of its tokens, and the hashes of its leading blocks."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

BLOCK = 256
"""Characters that one prefix hash stands for."""

MAX_BLOCKS = 4096
"""How many leading blocks are hashed: a million characters."""

CHARACTERS_PER_TOKEN = 4
"""Of English text, as a rule of thumb; used only where a server does not report how many tokens it counted."""


def prompt_of(body: dict[str, Any]) -> Any:
    """Return the prompt of a request as it was sent: messages, a text, or the texts of a reranker."""
    for key in ("messages", "prompt", "input"):
        if key in body:
            return body[key]
    keys = ("query", "queries", "documents", "text_1", "text_2")
    return {key: body[key] for key in keys if key in body} or None


def prompt_text(body: dict[str, Any]) -> str:
    """Return the prompt as one text, in the order in which chat templates lay it out.

    Tools come first, then system instructions, then each message with its role. What is not text, such as an image,
    becomes a short digest: equal images give equal texts. The text serves only to compare prompts and estimate sizes.
    """
    tools = body.get("tools")
    parts = [_canonical(tool) for tool in tools] if isinstance(tools, list) else []
    for key in ("instructions", "system"):
        if key in body:
            parts.append(f"\x1esystem\x1f{_text(body[key])}")
    prompt = prompt_of(body)
    parts += [_message(item) for item in (prompt if isinstance(prompt, list) else [prompt])] if prompt else []
    return "".join(parts)


def estimated_input(body: dict[str, Any]) -> int:
    """Return about how many tokens a prompt has: the number of ids if it consists of ids, else by its characters."""
    prompt = prompt_of(body)
    if isinstance(prompt, list) and prompt:
        rows = prompt if isinstance(prompt[0], list) else [prompt]
        if all(isinstance(row, list) and all(type(token) is int for token in row) for row in rows):
            return sum(map(len, rows))
    return math.ceil(len(prompt_text(body)) / CHARACTERS_PER_TOKEN)


def prefix_hashes(text: str, salt: bytes) -> tuple[str, ...]:
    """Return a hash for each leading block of BLOCK characters, which depends on all characters up to its end.

    Equal leading hashes mean equal beginnings. The hashes are keyed BLAKE2b of 48 bits, eight characters each; the salt
    is never stored, and without it texts cannot be tried against the hashes. An incomplete last block has no hash.

    Args:
        text: the prompt.
        salt: up to 64 bytes, one for all calls that are to be compared.
    """
    running = blake2b(key=salt, digest_size=6)
    hashes = []
    for end in range(BLOCK, min(len(text), BLOCK * MAX_BLOCKS) + 1, BLOCK):
        running.update(text[end - BLOCK : end].encode("utf-8", "surrogatepass"))
        hashes.append(urlsafe_b64encode(running.digest()).decode("ascii"))
    return tuple(hashes)


def storable(value: Any) -> Any:
    """Return a JSON value without what UTF-8 cannot hold: halves of surrogate pairs become question marks."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8"))


def _message(item: Any) -> str:
    if not isinstance(item, dict):
        return f"\x1e{_text(item)}"
    rest = "".join(_canonical(item[key]) for key in ("tool_calls", "function_call", "name", "arguments") if key in item)
    content = next((item[key] for key in ("content", "output", "text") if key in item), "")
    if "role" not in item and "type" not in item:  # the texts of a reranker
        content = list(item.values())
    return f"\x1e{item.get('role') or item.get('type') or ''}\x1f{_text(content)}{rest}"


def _text(content: Any) -> str:
    return "\x1f".join(_texts(content))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part) if isinstance(part, str | list | dict) else (str(part),)
    elif isinstance(content, dict):
        text = content.get("text")
        if isinstance(text, str):
            yield text
        else:
            yield blake2b(_canonical(content).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    elif content is not None:
        yield str(content)


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
