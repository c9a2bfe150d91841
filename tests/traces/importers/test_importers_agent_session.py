"""Agent sessions: small ones with known answers, and eight real ones with their own totals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scepsy.traces.importers.agent_session import FALLBACK
from scepsy.traces.importers.import_files import import_files

SHARED = Path(os.environ.get("SCEPSY_SHARED", Path(__file__).parents[4] / "shared"))
SESSIONS = SHARED / "data/agent-sessions"


def request(t: float, api_time: float | None = None, blocks: range | list = (), **more) -> dict:
    timed = {} if api_time is None else {"api_time": api_time}
    return {"t": t, "type": "n", "model": "big", "in": 640, "out": 100, "hash_ids": list(blocks), **timed, **more}


def agent(t: float, duration: int | None, *requests: dict) -> dict:
    status = "async_launched" if duration is None else "completed"
    return {"t": t, "type": "subagent", "duration_ms": duration, "status": status, "requests": list(requests)}


def imported(tmp_path: Path, *requests: dict, **more):
    path = tmp_path / "session.json"
    path.write_text(json.dumps({"id": "s1", "block_size": 64, "hash_id_scope": "local", "requests": requests, **more}))
    return import_files([path], None)


def shown(found) -> list[tuple]:
    return [(c.id, c.start, c.end, c.parents) for c in found.calls]


def test_requests_of_one_agent_wait_for_one_another(tmp_path: Path):
    found = imported(tmp_path, request(0.0, 7.27), request(9.0, 2.5), request(20.0, 1.0))
    assert shown(found) == [("0", 0, 7.27, ()), ("1", 9, 11.5, ("0",)), ("2", 20, 21, ("1",))]
    assert found.executions == ()
    assert {c.execution for c in found.calls} == {"s1"}


def test_sub_agents_stand_where_they_reported_back_and_the_agent_waits_for_all_of_them(tmp_path: Path):
    found = imported(
        tmp_path,
        request(0.0, 5.0),
        agent(30.5, 25_000, request(0.0, 4.0), request(10.0, 15.0)),
        agent(40.25, 35_000, request(0.0, 4.0), request(30.0, 5.0)),
        request(41.0, 2.0),
    )
    assert shown(found) == [
        ("0", 0, 5, ()),
        ("2.0", 5.25, 9.25, ("0",)),
        ("1.0", 5.5, 9.5, ("0",)),
        ("1.1", 15.5, 30.5, ("1.0",)),
        ("2.1", 35.25, 40.25, ("2.0",)),
        ("3", 41, 43, ("1.1", "2.1")),
    ]


def test_an_agent_that_was_launched_in_the_background_stands_where_it_began(tmp_path: Path):
    found = imported(
        tmp_path, request(0.0, 5.0), agent(5.5, None, request(0.0, 20.0)), request(8.0, 2.0), request(40.0, 1.0)
    )
    assert shown(found) == [
        ("0", 0, 5, ()),
        ("1.0", 5.5, 25.5, ("0",)),
        ("2", 8, 10, ("0",)),
        ("3", 40, 41, ("1.0", "2")),
    ]


def test_sub_agents_may_have_their_own(tmp_path: Path):
    inner = agent(9.0, 5_000, request(0.0, 4.0))
    found = imported(tmp_path, request(0.0, 2.0), agent(22.0, 20_000, request(0.0, 3.0), inner, request(10.0, 5.0)))
    assert [(c.id, c.start, c.parents) for c in found.calls] == [
        ("0", 0, ()),
        ("1.0", 2, ("0",)),
        ("1.1.0", 6, ("1.0",)),
        ("1.2", 12, ("1.1.0",)),
    ]


def test_whole_seconds_are_rounded_down_so_a_request_may_begin_up_to_a_second_later(tmp_path: Path):
    found = imported(tmp_path, request(0.0, 9.6), request(9.0, 2.0), request(10.0, 1.0))
    assert shown(found)[1] == ("1", 9.6, 11.6, ("0",)), "0.6 s are within the second"
    assert shown(found)[2] == ("2", 10, 11, ("0",)), "1.6 s are not: the two ran side by side"


def test_an_end_that_is_not_recorded_is_estimated_from_the_other_requests_of_the_model(tmp_path: Path):
    found = imported(
        tmp_path,
        request(0.0, 4.0, out=100),
        request(10.0, out=200),
        request(20.0, out=1000),
        request(30.0, 9.0, model="small", out=10),
    )
    assert [(c.end, c.estimated) for c in found.calls] == [
        (4, ("cachedTokens",)),
        (18, ("end", "cachedTokens")),
        (30, ("end", "cachedTokens")),  # 40 s would reach beyond the next request
        (39, ("cachedTokens",)),
    ]


def test_without_any_timed_request_tokens_take_as_long_as_in_the_public_sessions(tmp_path: Path):
    found = imported(tmp_path, request(0.0, out=100), request(60.0, out=100))
    assert [c.end for c in found.calls] == [100 * FALLBACK, 60 + 100 * FALLBACK]


def test_cached_tokens_are_those_of_the_leading_blocks_that_an_earlier_request_had(tmp_path: Path):
    found = imported(
        tmp_path,
        request(0.0, 1.0, range(5)),
        request(2.0, 1.0, range(8)),
        request(4.0, 1.0, [0, 1, 99, 2, 3]),
        request(6.0, 1.0, range(8), model="small"),
        request(8.0, 1.0, range(8), **{"in": 300}),
    )
    assert [c.cached_tokens for c in found.calls] == [0, 5 * 64, 2 * 64, 0, 300]


@pytest.mark.parametrize(("scope", "expected"), [("local", 320), ("global", 320), (None, 0)])
def test_sub_agents_share_the_names_of_blocks_unless_the_session_says_nothing(tmp_path: Path, scope, expected):
    session = (request(0.0, 1.0, range(5)), agent(9.0, 5_000, request(0.0, 1.0, range(5))))
    found = imported(tmp_path, *session, hash_id_scope=scope)
    assert found.calls[1].cached_tokens == expected


def test_the_first_token_of_a_streamed_request(tmp_path: Path):
    assert imported(tmp_path, request(3.0, 8.0, ttft=2.5)).calls[0].first_token == 5.5


def test_requests_that_cannot_be_used_are_counted(tmp_path: Path):
    bad = [request(0.0, 1.0, model=None), request(None, 1.0), request(1.0, -3.0), "x", agent(None, 3)]
    found = imported(tmp_path, request(0.0, 1.0), *bad)
    assert len(found.calls) == 1
    assert sum(found.skipped.values()) == 5


@pytest.mark.skipif(not SESSIONS.is_dir(), reason=f"the real sessions are not here ({SESSIONS})")
def test_the_real_sessions_have_the_tokens_that_they_say():
    paths = sorted(SESSIONS.glob("*.json"))
    assert len(paths) == 8
    found = import_files(paths, None)
    assert not found.skipped
    for path in paths:
        session = json.loads(path.read_text())
        calls = {c.id: c for c in found.calls if c.execution == session["id"]}
        assert {
            "input": sum(c.input_tokens for c in calls.values()),
            "output": sum(c.output_tokens for c in calls.values()),
        } == session["totals"]["combined_tokens"]
        assert all(c.cached_tokens <= c.input_tokens for c in calls.values())
        for call in calls.values():
            assert all(calls[parent].end <= call.start for parent in call.parents or ())
            assert bool(call.parents) == (call.id != "0")
