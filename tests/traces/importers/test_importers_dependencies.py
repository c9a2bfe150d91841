"""Which call waited for which: constructed trees with known answers, and the definition itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operations import bytecodes

from scepsy.traces.importers.dependencies import MOST, waits
from scepsy.traces.importers.duplicate_spans import innermost
from scepsy.traces.importers.span import Request, Span
from scepsy.traces.importers.span_tree import execution_of

Item = tuple[str, str | None, float, float]


def call(name: str, start: float, end: float, parent: str | None = None, **request) -> Span:
    return Span("t", name, parent, start, end, Request("m", **request))


def around(name: str, start: float | None, end: float | None, parent: str | None = None) -> Span:
    return Span("t", name, parent, start, end)


@pytest.mark.parametrize(
    ("what", "spans", "expected"),
    [
        ("nothing before it", [call("a", 0, 1)], {"a": ()}),
        (
            "a sequence",
            [call("a", 0, 1), call("b", 1, 2), call("c", 3, 4)],
            {"a": (), "b": ("a",), "c": ("b",)},
        ),
        (
            "a fan-out and its join",
            [call("plan", 0, 1), call("x", 2, 5), call("y", 2, 4), call("z", 2, 6), call("sum", 6, 7)],
            {"plan": (), "x": ("plan",), "y": ("plan",), "z": ("plan",), "sum": ("x", "y", "z")},
        ),
        (
            "two branches side by side, where B2 begins after A1 ended",
            [
                around("A", 0, 10),
                call("A1", 0, 2, "A"),
                call("A2", 3, 9, "A"),
                around("B", 0, 10),
                call("B1", 0, 4, "B"),
                call("B2", 5, 10, "B"),
            ],
            {"A1": (), "A2": ("A1",), "B1": (), "B2": ("B1",)},
        ),
        (
            "the same calls without the spans around them: the times alone let B2 wait for A1",
            [call("A1", 0, 2), call("A2", 3, 9), call("B1", 0, 4), call("B2", 5, 10)],
            {"A1": (), "A2": ("A1",), "B1": (), "B2": ("A1", "B1")},
        ),
        (
            "nested agents: what is inside waits for what the agent around it waited for",
            [
                call("plan", 0, 1),
                around("agent", 1, 9),
                around("scout", 2, 6, "agent"),
                call("h1", 2, 3, "scout"),
                call("h2", 4, 6, "scout"),
                call("own", 6, 9, "agent"),
                call("end", 9, 10),
            ],
            {"plan": (), "h1": ("plan",), "h2": ("h1",), "own": ("h2",), "end": ("own",)},
        ),
        (
            "a tool between two calls",
            [call("ask", 0, 1), around("tool", 1, 4), call("answer", 4, 5)],
            {"ask": (), "answer": ("ask",)},
        ),
        (
            "a call that began while a tool ran",
            [call("ask", 0, 2), around("tool", 0, 4), call("answer", 3, 5)],
            {"ask": (), "answer": ("ask",)},
        ),
        (
            "a span counts for as long as it was open, not only for its calls",
            [around("A", 0, 10), call("a", 1, 2, "A"), call("b", 5, 6)],
            {"a": (), "b": ()},
        ),
        (
            "a span that was closed before what it started had ended",
            [around("A", 0, 1), call("a", 0, 5, "A"), call("b", 3, 6), call("c", 6, 7)],
            {"a": (), "b": (), "c": ("a", "b")},
        ),
        (
            "a span without times is as long as what is inside it",
            [around("A", None, None), call("a", 0, 2, "A"), call("b", 2, 3)],
            {"a": (), "b": ("a",)},
        ),
        (
            "a call that failed is in nobody's way",
            [call("a", 0, 1), call("bad", 1, 2, error="429"), call("again", 3, 4)],
            {"a": (), "again": ("a",)},
        ),
        (
            "calls without length, two of them at one time",
            [call("a", 1, 1), call("b", 1, 1), call("c", 1, 2)],
            {"a": (), "b": (), "c": ("a", "b")},
        ),
        (
            "a parent that is not there, and spans that are each other's parent",
            [call("a", 0, 1, "gone"), call("b", 2, 3, "c"), call("c", 1, 4, "b")],
            {"a": (), "b": ("a",), "c": ("a",)},
        ),
    ],
)
def test_a_call_waited_for(what: str, spans: list[Span], expected: dict):
    assert waits(spans) == expected
    assert waits(spans[::-1]) == expected, "the order of spans in a file says nothing"


def test_a_fan_out_of_1000_joined_and_fanned_out_again_names_each_of_the_first_once():
    first = [call(f"f{i:04}", 1, 2 + i / 1e4) for i in range(1000)]
    second = [call(f"s{i:04}", 5, 6) for i in range(1000)]
    found = waits([call("plan", 0, 1), *first, call("join", 3, 4), *second])
    assert found["f0000"] == ("plan",)
    assert found["join"] is None, "the times say the same"
    assert found["s0999"] == ("join",)
    assert sum(len(parents or ()) for parents in found.values()) == 2000


def test_a_fan_out_of_1000_after_one_of_1000_is_left_to_the_times():
    first = [call(f"f{i:04}", 0, 1) for i in range(1000)]
    second = [call(f"s{i:04}", 1, 2) for i in range(1000)]
    found = waits(first + second)
    assert {found[f"f{i:04}"] for i in range(1000)} == {()}
    assert {found[f"s{i:04}"] for i in range(1000)} == {None}


def test_where_the_times_say_something_else_a_long_list_is_written_and_a_million_ids_are_not():
    many = [call(f"f{i:04}", 0, 1, "A") for i in range(1000)]
    joined = waits([around("A", 0, 9), around("B", 0, 9), call("other", 0, 1, "B"), *many, call("join", 2, 3, "A")])
    assert len(joined["join"] or ()) == 1000
    assert "other" not in (joined["join"] or ())
    more = [call(f"s{i:04}", 2, 3, "A") for i in range(1000)]
    found = waits([around("A", 0, 9), around("B", 0, 9), call("other", 0, 1, "B"), *many, *more])
    assert sum(len(parents or ()) for parents in found.values()) <= 2 * MOST * 2001


@pytest.mark.parametrize(
    "spans",
    [
        lambda n: [call(f"{i}", i, i + 0.5) for i in range(n)],
        lambda n: [call(f"{i}", i / 100, i / 100 + n / 400) for i in range(n)],
        lambda n: [
            *(around(f"{i}", None, None, f"{i - 1}" if i else None) for i in range(n)),
            call("c", 0, 1, f"{n - 1}"),
        ],
        lambda n: [call(f"{i}", i, 1e6 - i, f"{i - 1}" if i else None) for i in range(n)],
    ],
    ids=["a sequence", "a quarter of them at a time", "spans inside spans", "calls inside calls"],
)
def test_twice_the_calls_are_about_twice_the_work(spans: Callable[[int], list[Span]]):
    few, many = spans(1000), spans(2000)
    assert bytecodes(lambda: waits(many)) < 2.1 * bytecodes(lambda: waits(few))


trees = st.lists(
    st.tuples(st.integers(-1, 11), st.integers(0, 12), st.integers(0, 4), st.sampled_from(["call", "call", "around"])),
    min_size=1,
    max_size=12,
)


@given(trees)
@settings(max_examples=300, deadline=None)
def test_the_quick_answer_is_that_of_the_definition(tree: list[tuple[int, int, int, str]]):
    spans = []
    for i, (parent, start, length, kind) in enumerate(tree):
        up = f"{parent}" if 0 <= parent < i else None
        make = call if kind == "call" else around
        spans.append(make(f"{i}", float(start), float(start + length), up))
    found = waits(spans)
    all_before = _by_definition(spans)

    def closure(name: str) -> set[str]:
        return set(found[name]).union(*(closure(parent) for parent in found[name]))

    for span in (s for s in spans if s.request):
        parents = found[span.id]
        assert parents is not None, "so few are always named"
        assert closure(span.id) == all_before[span.id]
        assert all(p not in closure(q) for p in parents for q in parents), "none follows from another"
        assert all(other.end <= span.start for other in spans if other.id in parents)


def _by_definition(spans: list[Span]) -> dict[str, set[str]]:
    """All calls that had to end first: those inside siblings, of it or of any span around it, that ended before."""
    inside: dict[str | None, list[Span]] = {None: []}
    for span in spans:
        inside.setdefault(span.parent, []).append(span)
    under: dict[str, list[Span]] = {}
    for span in reversed(spans):
        under[span.id] = [span] + [s for child in inside.get(span.id, []) for s in under[child.id]]

    def hull(span: Span) -> tuple[float, float]:
        held = [s for s in under[span.id] if s.request or s is span or any(t.request for t in under[s.id])]
        return min(s.start for s in held), max(s.end for s in held)

    def before(span: Span) -> set[str]:
        low, high = hull(span)
        result: set[str] = set()
        for other in inside[span.parent]:
            begin, end = hull(other)
            if other is not span and end <= low and (begin, end) < (low, high):
                result |= {s.id for s in under[other.id] if s.request}
        up = next((s for s in spans if s.id == span.parent), None)
        return result | (before(up) if up else set())

    return {span.id: before(span) for span in spans if span.request}


def test_of_llm_spans_around_one_another_the_innermost_is_the_call():
    spans = [
        call("chain", 0, 9, input=30, output=7),
        call("sdk", 1, 8, "chain", input=30, output=7),
        call("http", 2, 7, "sdk", input=30),
    ]
    kept, dropped = innermost(spans)
    assert [(s.id, s.request.output) for s in kept if s.request] == [("http", 7)], "with what only the outer one knew"
    assert dropped == 2


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (call("server", 12, 14, "client", input=30), (2, 4)),
        (call("server", -3, -1, "client", input=30), (1, 3)),
        (call("server", 2, 3, "client", input=30), (2, 3)),
        (call("server", 2, 9, "client", input=30), (2, 9)),
    ],
    ids=["a clock that is ahead", "a clock that is behind", "inside", "longer than the client's: a stream"],
)
def test_a_servers_span_is_moved_into_its_clients(server: Span, expected: tuple):
    kept, _ = innermost([call("client", 1, 4, input=30), server])
    assert [(s.start, s.end) for s in kept if s.request] == [expected]


def test_an_llm_span_around_several_calls_with_the_sum_of_their_tokens_is_none_of_them():
    spans = [
        call("agent", 0, 9, input=30, output=9),
        call("a", 0, 4, "agent", input=10, output=4),
        call("b", 4, 9, "agent", input=20, output=5),
    ]
    kept, dropped = innermost(spans)
    assert [s.id for s in kept if s.request] == ["a", "b"]
    assert dropped == 1


def test_an_llm_span_around_another_call_is_a_call_of_its_own():
    """As when a context leaks: both have tokens, and they differ."""
    spans = [call("outer", 0, 9, input=30, output=9), call("inner", 3, 5, "outer", input=1000, output=1)]
    kept, dropped = innermost(spans)
    assert [s.id for s in kept if s.request] == ["outer", "inner"]
    assert dropped == 0


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (around("root", 0, 10), (0, 10)),
        (around("root", 0, 3), None),
        (around("root", None, 10), None),
        (around("part", 0, 10, "elsewhere"), None),
    ],
    ids=["around all calls", "closed too early", "without a start", "not the root"],
)
def test_an_execution_lasts_as_long_as_its_root_span_if_that_is(root: Span, expected):
    found = execution_of([root, call("a", 1, 4, root.id)])
    assert (found and (found.start, found.end)) == expected
