"""Wakes a watch early: when nodes change, and when a signal ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from scepsy.cluster.connection import mapping, mappings

if TYPE_CHECKING:
    from scepsy.cluster.kubernetes import Kubernetes

_COLLECT = 1.0
"""Seconds for which changes of nodes are collected: a rack that loses power is one change."""
_RECONNECT = 5.0
"""Seconds until a closed watch is opened again."""


class Wakeup:
    """Waits for the next check, for a change of a node, or for a signal."""

    def __init__(self) -> None:
        self._woken, self._ended = threading.Event(), threading.Event()

    @property
    def ended(self) -> bool:
        """Whether a signal has come."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or less if a node changes; changes that come together count as one."""
        if self._woken.wait(max(0.0, seconds)):
            self._ended.wait(_COLLECT)
        self._woken.clear()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within it, SIGTERM and SIGINT end the watch."""

        def end(number: int, frame: FrameType | None) -> None:
            self._ended.set()
            self._woken.set()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def follow_nodes(self, kubernetes: Kubernetes) -> None:
        """Wake whenever a node is added, removed, or changes in what can run on it, until the watch ends."""
        from scepsy.cluster.kubernetes import NODES  # noqa: PLC0415 - slow to import

        known: dict[str, object] = {}
        while not self.ended:
            try:
                for event in kubernetes.watch(NODES):
                    node = mapping(event.get("object"))
                    name = str(mapping(node.get("metadata")).get("name"))
                    state = None if event.get("type") == "DELETED" else _schedulability(node)
                    if known.get(name) != state:
                        self._woken.set()
                    known[name] = state
            except Exception:  # the thread must go on; the checks, which also read nodes, report what is wrong
                self._ended.wait(_RECONNECT)
            self._ended.wait(_COLLECT)


def _schedulability(node: dict[str, Any]) -> object:
    """Return the fields of a node that decide what can run on it."""
    spec = mapping(node.get("spec"))
    return (
        sorted(
            (str(c.get("type")), str(c.get("status"))) for c in mappings(mapping(node.get("status")).get("conditions"))
        ),
        bool(spec.get("unschedulable")),
        sorted(str(taint) for taint in mappings(spec.get("taints"))),
    )
