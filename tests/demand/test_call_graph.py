"""Call graphs: who waited for whom, and how long executions take when their calls get faster or slower."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.demand import Graph, Makespans, Step, from_trace, graphs_of
from scepsy.demand.call_graph import CriticalPath
from scepsy.demand.per_execution import groups_of
from scepsy.traces.call import Call, Execution
from scepsy.traces.trace_builder import trace_of


def call(
    start: float, end: float, model: str = "a", name: str | None = None, parents: tuple[str, ...] | None = None
) -> Call:
    return Call("e", model, start, end, 1, 1, id=name, parents=parents)


def graph(*calls: Call | Execution) -> Graph:
    trace = trace_of(calls)
    return graphs_of(trace, groups_of(trace).of)[0]


def waits(*calls: Call | Execution) -> list[tuple[str, tuple[int, ...]]]:
    return [(step.llm, step.after) for step in graph(*calls).steps]


def test_calls_one_after_the_other_are_a_chain_and_the_gaps_between_them_are_kept() -> None:
    found = graph(Execution("e", -1, 10), call(0, 2), call(3, 4, "b"), call(4, 5))
    assert found == Graph(
        (
            Step("a", pytest.approx(1.0), pytest.approx(2.0)),
            Step("b", pytest.approx(1.0), pytest.approx(1.0), after=(0,)),
            Step("a", pytest.approx(0.0), pytest.approx(1.0), after=(1,)),
        ),
        pytest.approx(5.0),
    )


def test_a_fan_out_that_is_joined_is_one_step() -> None:
    assert waits(call(0, 2), call(0.01, 3), call(0.02, 1), call(3.5, 4, "b")) == [("a", ()), ("b", (0,))]
    assert graph(call(0, 2), call(0.01, 3), call(3.5, 4, "b")).steps[0] == Step("a", 0.0, 3.0, calls=2)


def test_a_fan_out_whose_calls_are_followed_one_by_one_stays_apart() -> None:
    # Two branches: a then b, and a then b; by the times alone the second b waited for both calls of a.
    assert waits(call(0, 1), call(0, 3), call(1, 2, "b"), call(3, 4, "b")) == [
        ("a", ()),
        ("a", ()),
        ("b", (0,)),
        ("b", (1, 2)),
    ]


def test_what_was_waited_for_in_between_is_left_out() -> None:
    # The last call began after all others had ended, but the first two only matter through the third.
    assert waits(call(0, 1), call(0, 1.5, "b"), call(2, 3), call(4, 5)) == [
        ("a", ()),
        ("b", ()),
        ("a", (0, 1)),
        ("a", (2,)),
    ]


def test_parents_in_the_trace_keep_branches_apart_that_times_would_join() -> None:
    branches = (
        call(0, 1, name="a1", parents=()),
        call(0, 3, name="b1", parents=()),
        call(1, 2, "b", name="a2", parents=("a1",)),
        call(3, 4, "b", name="b2", parents=("b1",)),
    )
    assert waits(*branches) == [("a", ()), ("a", ()), ("b", (0,)), ("b", (1,))]


def test_a_parent_that_is_missing_or_had_not_ended_is_replaced_by_the_times() -> None:
    assert waits(call(0, 1), call(2, 3, parents=("nobody",))) == [("a", ()), ("a", (0,))]
    assert waits(call(0, 1), call(0, 5, "b", name="p", parents=()), call(2, 3, parents=("p",)))[2] == ("a", (0,))


def test_two_llms_that_run_at_the_same_time_take_as_long_as_the_slower_one() -> None:
    # a: 4 s and b: 2 s at once. The sum says 6 s; with a twice as fast it says 4 s, the graph 2 s.
    demand = from_trace(trace_of([call(0, 4), call(0, 2, "b")]))
    assert demand.recorded is not None
    makespans = Makespans(demand.recorded.graphs, {"a": 4.0, "b": 2.0})
    latencies = np.array([[4.0, 2.0], [2.0, 2.0], [1.0, 2.0], [4.0, 8.0]])
    assert makespans.seconds(latencies).tolist() == [pytest.approx([4, 2, 2, 8])]
    assert [demand.path.outside + 4 * demand.path.steps["a"] + 2 * demand.path.steps["b"]] == [6.0]
    assert not makespans.linear


def test_tools_between_calls_do_not_get_faster_with_the_calls() -> None:
    # a 1 s, tool 3 s, a 1 s; at a tenth of the latency 3.2 s remain of 5 s.
    makespans = Makespans([graph(call(0, 1), call(4, 5))], {"a": 1.0})
    assert makespans.seconds(np.array([[1.0], [0.1]])).tolist() == [pytest.approx([5.0, 3.2])]
    assert makespans.linear


def test_the_path_names_what_counts() -> None:
    # A branch a → a (2 s each) beside b (3 s), then b (1 s): the critical path is a, a, b.
    calls = (
        call(0, 2, name="1", parents=()),
        call(2, 4, name="2", parents=("1",)),
        call(0, 3, "b", name="3", parents=()),
    )
    makespans = Makespans([graph(*calls, call(5, 6, "b", name="4", parents=("2", "3")))], {"a": 2.0, "b": 2.0})
    assert makespans.path(np.array([2.0, 2.0])) == CriticalPath(1.0, {"a": 2.0, "b": 0.5})
    # With a ten times faster, b is what counts.
    assert makespans.path(np.array([0.2, 2.0])).steps == {"a": 0.0, "b": 2.0}


def longest(graph: Graph, factor: dict[str, float]) -> float:
    """The makespan by following every step, as the definition says."""
    ends: list[float] = []
    for step in graph.steps:
        ends.append(max((ends[i] for i in step.after), default=0.0) + step.gap + step.seconds * factor[step.llm])
    return max(ends) + graph.tail


@st.composite
def graphs(draw: st.DrawFn) -> list[Graph]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        steps: list[Step] = []
        for i in range(draw(st.integers(1, 12))):
            after = draw(st.lists(st.integers(0, i - 1), unique=True, max_size=3)) if i else []
            gap, seconds = draw(st.integers(0, 5)), draw(st.integers(0, 9))
            steps.append(Step(draw(st.sampled_from("ab")), float(gap), float(seconds), after=tuple(sorted(after))))
        found.append(Graph(tuple(steps), float(draw(st.integers(0, 3)))))
    return found


factors = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda f: {"a": f[0] / 8, "b": f[1] / 8})


@given(graphs(), factors)
def test_makespans_equal_the_definition(given: list[Graph], factor: dict[str, float]) -> None:
    makespans = Makespans(given, {"a": 2.0, "b": 4.0})
    seconds = makespans.seconds(np.array([[2.0 * factor["a"], 4.0 * factor["b"]]]))[:, 0]
    assert seconds.tolist() == pytest.approx([longest(g, factor) for g in given])


@given(graphs(), factors, factors)
def test_the_path_is_a_tangent_equal_here_and_nowhere_above(
    given: list[Graph], here: dict[str, float], there: dict[str, float]
) -> None:
    makespans = Makespans(given, {"a": 1.0, "b": 1.0})

    def mean(at: dict[str, float]) -> float:
        return float(makespans.seconds(np.array([[at["a"], at["b"]]])).mean())

    path = makespans.path(np.array([here["a"], here["b"]]))

    def along(at: dict[str, float]) -> float:
        return path.outside + sum(n * at[llm] for llm, n in path.steps.items())

    assert along(here) == pytest.approx(mean(here))
    assert along(there) <= mean(there) + 1e-9


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8), st.sampled_from("ab")), min_size=1, max_size=25))
def test_at_the_recorded_latencies_every_execution_takes_as_long_as_it_did(raw: list[tuple[int, int, str]]) -> None:
    trace = trace_of([call(start, start + length, llm) for start, length, llm in raw])
    found = graphs_of(trace, groups_of(trace).of)
    seconds = Makespans(found, dict.fromkeys(trace.llms, 1.0)).seconds(np.ones((1, len(trace.llms))))
    assert seconds[:, 0] == pytest.approx(trace.ended - trace.began, abs=1e-4)
    assert sum(step.calls for g in found for step in g.steps) == len(raw)
