"""The parts of a profiled latency must add up to it, as far as a point of few calls can tell."""

from __future__ import annotations

import pytest

from scepsy.documents.profile import Mix, Point, contradiction


@pytest.mark.parametrize(
    ("output", "point", "reason"),
    [
        (101, {"latency": "1.1s", "ttft": "100ms", "tpot": "10ms"}, None),
        (101, {"latency": "1.1s", "ttft": "100ms"}, None),
        # Its own calls generated fewer tokens than calls do in the mean.
        (101, {"latency": "800ms", "ttft": "100ms", "tpot": "10ms"}, None),
        (101, {"latency": "600ms", "ttft": "100ms", "tpot": "10ms", "interval": 0.2}, None),
        (101, {"latency": "600ms", "ttft": "100ms", "tpot": "10ms", "interval": 0.1},
         "latency is 600ms, ttft 100ms + 100 further tokens · tpot 10ms is 1.1s"),
        (101, {"latency": "1.1s", "ttft": "100ms", "tpot": "10us"},
         "latency is 1.1s, ttft 100ms + 100 further tokens · tpot 10us is 101ms"),
        (101, {"latency": "1.1s", "ttft": "1.1s"}, "latency is 1.1s, ttft 1.1s: no time for further tokens"),
        # Of one token there is nothing to tell.
        (1, {"latency": "120ms", "ttft": "20ms"}, None),
        (1, {"latency": "20ms", "ttft": "20ms", "tpot": "10ms"}, None),
    ],
)  # fmt: skip
def test_a_latency_is_the_time_to_the_first_token_and_that_of_the_further_ones(
    output: float, point: dict[str, object], reason: str | None
) -> None:
    given = Point.model_validate({"concurrency": 1, **point})
    assert contradiction(given, Mix(input=1000, output=output)) == reason
