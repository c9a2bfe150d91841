"""`scepsy drift --watch`: look again and again, act, and say how things are in Prometheus's text format.

A node that comes, goes, or changes its state is looked at at once; everything else after the interval.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from scepsy.cluster.connection import mapping, mappings, shown
from scepsy.documents.drift_result import DriftResult
from scepsy.documents.units import option_duration
from scepsy.errors import ScepsyError
from scepsy.publishing.publish import follow
from scepsy.reconcile.check import Looked, Lookout
from scepsy.reconcile.metrics import Metrics
from scepsy.reconcile.recompile import Recompilation

if TYPE_CHECKING:
    from scepsy.cluster.kubernetes import Kubernetes

Show = Callable[[DriftResult], None]
_CALM = 1.0
"""Seconds that changes of nodes are collected for: a rack that loses power is one change."""
_AGAIN = 5.0
"""Seconds until a watch that broke off is begun again."""


@dataclass(frozen=True)
class Watching:
    """How to watch.

    Attributes:
        interval: seconds between two looks.
        listen: host and port of the metrics.
    """

    interval: float
    listen: tuple[str, int]


def watching(interval: str, listen: str) -> Watching:
    """Return how to watch.

    Args:
        interval: `60s`.
        listen: `host:port`; `:port` for all addresses.

    Raises:
        ScepsyError: one of them is wrong.
    """
    seconds = option_duration(interval, "--interval")
    if not 1 <= seconds <= 86_400:
        raise ScepsyError(f"--interval: {interval} is too {'short' if seconds < 1 else 'long'}", "1s to 24h")
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ScepsyError(f'--listen: "{listen[:60]}" is not an address', "write 127.0.0.1:9464, or :9464 for all")
    return Watching(seconds, (host.strip("[]") or "0.0.0.0", int(port)))  # noqa: S104 - as asked for


def watch(project: Path, lookout: Lookout, recompilation: Recompilation | None, watching: Watching, show: Show) -> None:
    """Look until SIGTERM or SIGINT comes.

    What fails is told and tried again at the next look: a remote or a Prometheus that is down for an hour ends nothing.

    Args:
        project: directory with `scepsy.yaml`.
        lookout: looks.
        recompilation: what to do about drift; None for nothing. Where it pushes, the checkout follows the remote.
        watching: how to watch.
        show: gets every result that differs from the one before.

    Raises:
        ScepsyError: the metrics' port cannot be listened on.
    """
    bell = Bell()
    with bell.signals(), closing(Metrics(watching.listen)) as metrics:
        if lookout.kubernetes is not None:
            threading.Thread(target=bell.follow_nodes, args=(lookout.kubernetes,), daemon=True).start()
        rounds = _Rounds(project, lookout, recompilation, metrics, show)
        while not bell.over:
            began = time.monotonic()
            rounds.once()
            bell.wait(watching.interval - (time.monotonic() - began))


class Bell:
    """Rings when there is a reason to look before the interval is over."""

    def __init__(self) -> None:
        self._rung, self._over = threading.Event(), threading.Event()

    @property
    def over(self) -> bool:
        """Whether a signal has come."""
        return self._over.is_set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it rings; changes that come together count as one."""
        if self._rung.wait(max(0.0, seconds)):
            self._over.wait(_CALM)
        self._rung.clear()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within it, SIGTERM and SIGINT end the watch."""

        def end(number: int, frame: FrameType | None) -> None:
            self._over.set()
            self._rung.set()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def follow_nodes(self, kubernetes: Kubernetes) -> None:
        """Ring whenever a node comes, goes, or is fit for other things than before, until the watch ends."""
        from scepsy.cluster.kubernetes import NODES  # noqa: PLC0415 - slow to import

        known: dict[str, object] = {}
        while not self.over:
            try:
                for event in kubernetes.watch(NODES):
                    node = mapping(event.get("object"))
                    name = str(mapping(node.get("metadata")).get("name"))
                    fitness = None if event.get("type") == "DELETED" else _fitness(node)
                    if known.get(name) != fitness:
                        self._rung.set()
                    known[name] = fitness
            except Exception:  # a thread that ended would ring no more; looks go on, and say what is wrong
                self._over.wait(_AGAIN)
            self._over.wait(_CALM)


@dataclass
class _Rounds:
    """One look after the other; what was told already is not told again."""

    project: Path
    lookout: Lookout
    recompilation: Recompilation | None
    metrics: Metrics
    show: Show
    told: object = None

    def once(self) -> None:
        """Look, act, and tell what is new."""
        try:
            if self.recompilation is not None and self.recompilation.how != "write":
                left = follow(self.project)
                if left:
                    _say(f"the checkout is left as it is: {left}")
            looked = self.lookout.look()
            self.metrics.looked(looked)
            result = self._answered(looked)
            state = _state(result)
            if state != self.told:
                self.show(result)
                self.told = state
        except Exception as error:  # whatever the world sends: the next look may meet another one
            self.metrics.failed()
            if self.told != (words := _words(error)):
                _say(f"error: {words}")
                self.told = words

    def _answered(self, looked: Looked) -> DriftResult:
        if self.recompilation is None:
            return looked.result
        try:
            result = self.recompilation.answer(looked)
        except Exception:
            self.metrics.compiled("failed")
            raise
        if result.compiled is not None:
            self.metrics.compiled(self.recompilation.how)
        return result


def _words(error: Exception) -> str:
    """Say what ended a look; of what is a bug, what its report needs, without the page that a traceback is."""
    if isinstance(error, ScepsyError):
        return str(error)
    return f"the look failed: {type(error).__name__}: {shown(str(error))}\n  hint: this is a bug: please report it"


def _say(line: str) -> None:
    click.echo(line, err=True)


def _state(result: DriftResult) -> object:
    """Return what makes a result news: figures change with every look."""
    response = result.response
    done = response.done if response is not None else ""
    error = result.error.message if result.error is not None else ""
    return tuple((f.area, f.kind, f.severity, f.subject) for f in result.findings), done, error


def _fitness(node: dict[str, Any]) -> object:
    """Return what of a node bears on what may run there."""
    spec = mapping(node.get("spec"))
    return (
        sorted(
            (str(c.get("type")), str(c.get("status"))) for c in mappings(mapping(node.get("status")).get("conditions"))
        ),
        bool(spec.get("unschedulable")),
        sorted(str(taint) for taint in mappings(spec.get("taints"))),
    )
