"""The one retry policy of all HTTP APIs: which faults are transient, how long to wait, when to stop.

Transient are the statuses 408, 429, 500, 502, 503 and 504, and every network fault but a failed TLS handshake. Sources:
RFC 9110 sections 15.5.9 (408), 15.6.3 to 15.6.5 (502 to 504) and 10.2.3 (Retry-After); RFC 6585 section 4 (429); the
Kubernetes API conventions, "HTTP Status codes", which ask clients to retry 429, 500, 503 and 504 with backoff.

urllib3's `Retry` counts attempts and has no deadline, so only its parser of Retry-After is used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
"""HTTP statuses after which the same request may succeed."""
NOT_PROCESSED = frozenset((429,))
"""Those after which a request that is not idempotent may be sent again: the server rejected it unread."""
UNREACHED_DEADLINE = 4.0
"""Seconds for which a server that never responded is tried: a wrong address should be reported soon."""
DEADLINE = 30.0
"""Seconds for which a server that responded before is tried."""
ATTEMPTS = 3
"""Attempts where one may take a minute, so that time is no bound."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
"""Seconds before the second attempt, doubled before each further one up to the longest."""
LONGEST_RETRY_AFTER = 30.0
"""Seconds of a Retry-After header that are respected at most."""


@dataclass(frozen=True)
class Clock:
    """How time passes.

    Attributes:
        now: returns seconds from any fixed start.
        sleep: waits for so many seconds.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()
"""The system's clock."""


class Backoff:
    """The delays between the attempts of one request.

    Args:
        clock: the clock.
        attempts: how many attempts there may be; None if only time is limited.

    Attributes:
        failed: how many attempts failed and were followed by another.
    """

    def __init__(self, clock: Clock = CLOCK, attempts: int | None = None) -> None:
        self.failed = 0
        self._clock, self._attempts, self._began = clock, attempts, clock.now()

    def delay(self, retry_after: float = 0.0, deadline: float = math.inf) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is to be none.

        Args:
            retry_after: seconds for which the server wants no request.
            deadline: seconds after the first attempt at which the last one begins.
        """
        usual = min(FIRST_DELAY * 2.0 ** min(self.failed, 16), LONGEST_DELAY)
        delay = max(usual, min(retry_after, LONGEST_RETRY_AFTER))
        if self._attempts is not None and self.failed + 1 >= self._attempts:
            return None
        if self._clock.now() - self._began + delay > deadline:
            return None
        self.failed += 1
        return delay


def is_transient(status: int, idempotent: bool = True) -> bool:
    """Return whether a request that failed with an HTTP status is sent again.

    Args:
        status: the status.
        idempotent: whether sending the request twice does what sending it once does (RFC 9110 section 9.2.2).
    """
    return status in (TRANSIENT if idempotent else NOT_PROCESSED)


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 where there is none, or no valid one."""
    import urllib3  # noqa: PLC0415 - slow to import

    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), None)
    if value is None:
        return 0.0
    try:
        return float(urllib3.Retry().parse_retry_after(value))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0
