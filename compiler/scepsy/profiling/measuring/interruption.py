"""SIGINT and SIGTERM end a command once, so that it can still save its results."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM was received."""


class Interruption:
    """Within its context SIGINT and SIGTERM raise `Interrupted`, once: cleaning up is not interrupted again."""

    def __init__(self) -> None:
        self._over = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._received) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def over(self) -> None:
        """Ignore further signals."""
        self._over = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; a signal cancels it.

        Raises:
            Interrupted: a signal was received, and the coroutine was cancelled.
        """

        async def main() -> T:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine runs in a task
            self._running = asyncio.get_running_loop(), task
            try:
                return await work
            except asyncio.CancelledError:
                raise Interrupted from None
            finally:
                self._running = None

        return asyncio.run(main())

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        self._over = True
        if self._running is None:
            raise Interrupted
        loop, task = self._running
        # call_soon_threadsafe wakes the loop, which would otherwise keep waiting.
        loop.call_soon_threadsafe(task.cancel)
