"""Reads fields of Kubernetes objects, whose types are not known."""

from __future__ import annotations

from typing import Any

from scepsy.cluster.connection import mapping
from scepsy.cluster.kubernetes import Object

_LONGEST = 300


def part(item: Any, key: str) -> Object:
    """Return a field that is an object; an empty one if it is missing or something else."""
    return mapping(mapping(item).get(key))


def one_line(text: object) -> str:
    """Return a message in one line, cut after 300 characters."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
