"""Unix time that never goes backwards."""

from __future__ import annotations

import time
from collections.abc import Callable


def clock() -> Callable[[], float]:
    """Return a clock in Unix seconds: the wall clock is read once, the monotonic clock does the rest."""
    anchor = time.time() - time.monotonic()
    return lambda: anchor + time.monotonic()
