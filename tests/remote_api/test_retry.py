"""The retry policy, as a table."""

from __future__ import annotations

import email.utils
import math
import time

import pytest

from scepsy.remote_api.retry import DEADLINE, UNREACHED_DEADLINE, Backoff, Clock, is_transient, retry_after


class FakeTime:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clock = Clock(lambda: self.seconds, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds


def delays(deadline: float = math.inf, attempts: int | None = None, after: float = 0.0) -> list[float]:
    """Return the delays of a request that always fails."""
    passed = FakeTime()
    backoff = Backoff(passed.clock, attempts)
    waited = []
    while (delay := backoff.delay(after, deadline)) is not None:
        waited.append(delay)
        passed.clock.sleep(delay)
    return waited


@pytest.mark.parametrize(
    ("status", "idempotent", "other"),
    [
        (200, False, False), (301, False, False), (400, False, False), (401, False, False), (403, False, False),
        (404, False, False), (408, True, False), (409, False, False), (410, False, False), (422, False, False),
        (429, True, True), (500, True, False), (501, False, False), (502, True, False), (503, True, False),
        (504, True, False), (505, False, False),
    ],
)  # fmt: skip
def test_statuses_that_are_retried(status: int, idempotent: bool, other: bool) -> None:
    assert (is_transient(status), is_transient(status, idempotent=False)) == (idempotent, other)


@pytest.mark.parametrize(
    ("deadline", "attempts", "after", "expected"),
    [
        (UNREACHED_DEADLINE, None, 0, [0.5, 1, 2]),
        (DEADLINE, None, 0, [0.5, 1, 2, 4, 8, 8]),
        (math.inf, 3, 0, [0.5, 1]),
        (math.inf, 1, 0, []),
        (math.inf, 3, 7, [7, 7]),
        (math.inf, 3, 3600, [30, 30]),
        (DEADLINE, None, 20, [20]),
        (0, None, 0, []),
    ],
)
def test_delays_double_and_end_at_the_deadline_or_the_last_attempt(
    deadline: float, attempts: int | None, after: float, expected: list[float]
) -> None:
    assert delays(deadline, attempts, after) == expected


def test_the_time_that_attempts_take_counts() -> None:
    passed = FakeTime()
    backoff = Backoff(passed.clock)
    passed.seconds += DEADLINE
    assert backoff.delay(deadline=DEADLINE) is None
    assert backoff.failed == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, 0), ({"Retry-After": "7"}, 7), ({"retry-after": "7"}, 7), ({"Retry-After": "soon"}, 0),
     ({"Retry-After": ""}, 0), ({"Retry-After": "-3"}, 0)],
)  # fmt: skip
def test_retry_after_in_seconds(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    assert retry_after({"Retry-After": email.utils.formatdate(now + 100, usegmt=True)}) == 100
    assert retry_after({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0
