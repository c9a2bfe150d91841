"""The search with call graphs against brute force: true makespans, true percentiles, and a proof that holds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.allocation import Bound, Infeasible, OptionTable, Problem, solve
from scepsy.allocation.problem import RESOLUTION, fastest_paths, within_bounds
from scepsy.demand import Graph, LlmDemand, Makespans, Step, TokenUse
from scepsy.documents import Llm
from scepsy.performance import InstanceMemory
from scepsy.pipeline import Caller, InstanceModel, LlmLoad, Shape
from scepsy.placement import Domain, Inventory, place

NO_TOKENS = TokenUse(1.0)
NOTHING = np.zeros((1, 1))


def stock(gpus: int) -> Inventory:
    domain = Domain("node", tuple(f"GPU-{g}" for g in range(gpus)))
    return Inventory({"A": (domain,)}, {"A": 80 * 2**30}, 0, True)


def table(
    llm: str, workflows: list[str], rows: Sequence[tuple[int, int, list[float], *tuple[float, ...]]]
) -> OptionTable:
    """Options of one LLM: tenths of a GPU, replicas, the latency of each workflow's calls, bandwidth and reserve."""
    options = [(*row, 0.0, 0.0) if len(row) == 3 else row for row in rows]
    demand = LlmDemand(1.0, 1.0, 1.0, ((1, 1.0),), NO_TOKENS, NO_TOKENS, NO_TOKENS)
    shapes = sorted({Shape("A", 1, tenths) for tenths, *_ in options})
    index = np.array([shapes.index(Shape("A", 1, tenths)) for tenths, *_ in options])
    replicas = np.array([r for _, r, *_ in options])
    return OptionTable(
        load=LlmLoad(Llm(name=llm, model="m"), tuple(Caller(w, 1.0, demand) for w in workflows)),
        models=tuple(
            InstanceModel(s, 1.0, InstanceMemory(1, 1, 1, 1), 1, NOTHING, NOTHING[0], (), NOTHING[0]) for s in shapes
        ),
        index=index,
        replicas=replicas,
        product=np.zeros(len(options), dtype=np.int64),
        products=("A",),
        units=np.array([s.units for s in shapes])[index] * replicas,
        latency=np.array([latency for _, _, latency, _, _ in options]).T.reshape(len(workflows), len(options)),
        utilisation=np.zeros(len(options)),
        bandwidth=np.array([draws for _, _, _, draws, _ in options]),
        reserve=np.array([reserve for *_, reserve in options]),
        excluded=(),
    )


def problem(
    tables: list[OptionTable], graphs: dict[str, list[Graph]], gpus: int, bounds: tuple[Bound, ...] = ()
) -> Problem:
    llms = {w: sorted({s.llm for g in own for s in g.steps}) for w, own in graphs.items()}
    makespans = {w: Makespans(own, dict.fromkeys(llms[w], 1.0)) for w, own in graphs.items()}
    least, weight = dict.fromkeys(graphs, 1.0), dict.fromkeys(graphs, 1.0 / len(graphs))
    built = Problem(tuple(tables), (10 * gpus,), makespans, {}, least, weight, bounds, (), 0)
    return within_bounds(built).along(fastest_paths(built.tables, makespans))


def brute_force(p: Problem, inventory: Inventory) -> tuple[int, int] | None:
    """The least (objective, units) of all allocations that keep the bounds and can be placed."""
    found = []
    for rows in itertools.product(*(range(len(t.index)) for t in p.tables)):
        (objective,), (kept,) = p.evaluated([rows])
        if kept and place([t.request(r) for t, r in zip(p.tables, rows, strict=True)], inventory) is not None:
            found.append((int(objective), sum(int(t.units[r]) for t, r in zip(p.tables, rows, strict=True))))
    return min(found, default=None)


def test_of_two_llms_that_run_at_once_only_the_slower_one_is_worth_a_gpu() -> None:
    # a and b run at the same time. The sum would give both a whole GPU; the makespan is that of a.
    both = [Graph((Step("a", 0, 1), Step("b", 0, 1)))]
    tables = [
        table("a", ["w"], [(5, 1, [9.0]), (10, 1, [6.0]), (10, 2, [4.0])]),
        table("b", ["w"], [(5, 1, [3.0]), (10, 1, [2.0]), (10, 2, [1.0])]),
    ]
    p = problem(tables, {"w": both}, 3)
    solution = solve(p, stock(3))
    chosen = [t.option(row) for t, row in zip(p.tables, solution.rows, strict=True)]
    assert [(o.shape.tenths, o.replicas) for o in chosen] == [(10, 2), (5, 1)]
    assert (solution.achieved, solution.gap) == (pytest.approx(4.0), 0.0)


def test_a_percentile_is_enforced_though_a_better_mean_is_to_be_had() -> None:
    # Nine executions call a, the tenth calls b ten times: the mean favours a, the 95th percentile is b's.
    graphs = [Graph((Step("a", 0, 10),))] * 9 + [Graph((Step("b", 0, 10),))]
    tables = [
        table("a", ["w"], [(3, 1, [2.0]), (7, 1, [1.0])]),
        table("b", ["w"], [(3, 1, [4.0]), (7, 1, [3.0])]),
    ]
    mean = solve(problem(tables, {"w": graphs}, 1), stock(1))
    assert [int(r) for r in mean.rows] == [1, 0]  # a gets the larger share
    bounded = problem(tables, {"w": graphs}, 1, (Bound("w", 0.95, 30.0),))
    solution = solve(bounded, stock(1))
    chosen = [t.option(row).shape.tenths for t, row in zip(bounded.tables, solution.rows, strict=True)]
    assert chosen == [3, 7]
    assert bounded.seconds([solution.rows])["w"].max() == pytest.approx(30.0)


def test_a_percentile_that_nothing_reaches_is_proven_infeasible() -> None:
    tables = [table("a", ["w"], [(5, 1, [2.0]), (10, 1, [1.0])])]
    p = problem(tables, {"w": [Graph((Step("a", 0, 10),))]}, 1, (Bound("w", 0.95, 9.0),))
    with pytest.raises(Infeasible) as caught:
        solve(p, stock(1))
    assert caught.value.proven


@st.composite
def cases(draw: st.DrawFn) -> tuple[Problem, Inventory]:
    llms = ["a", "b", "c"][: draw(st.integers(2, 3))]
    graphs = {}
    for workflow in ["v", "w"][: draw(st.integers(1, 2))]:
        own = []
        for _ in range(draw(st.integers(1, 5))):
            steps = [Step(llm, 0.0, float(draw(st.integers(0, 5)))) for llm in llms]
            for _more in range(3, draw(st.integers(3, 8))):
                after = tuple(sorted(draw(st.sets(st.integers(0, len(steps) - 1), max_size=2))))
                steps.append(
                    Step(
                        draw(st.sampled_from(llms)),
                        float(draw(st.integers(0, 2))),
                        float(draw(st.integers(1, 9))),
                        after=after,
                    )
                )
            own.append(Graph(tuple(steps), float(draw(st.integers(0, 2)))))
        graphs[workflow] = own
    option = st.tuples(
        st.sampled_from([2, 3, 5, 7, 10]),
        st.integers(1, 2),
        st.lists(st.integers(1, 60).map(lambda x: x / 10), min_size=len(graphs), max_size=len(graphs)),
        st.sampled_from([0.0, 0.2, 0.4]),
        st.sampled_from([0.0, 0.1, 0.3, 0.5]),
    ).map(lambda o: (*o[:3], 0.0, 0.0) if o[0] == 10 else o)
    tables = [table(llm, list(graphs), draw(st.lists(option, min_size=1, max_size=6))) for llm in llms]
    bounds = draw(st.lists(st.builds(Bound, st.sampled_from(list(graphs)), st.sampled_from([None, 0.5, 0.95]), st.integers(5, 60).map(float)), max_size=2))  # fmt: skip
    gpus = draw(st.integers(1, 3))
    return problem(tables, graphs, gpus, tuple(bounds)), stock(gpus)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_search_finds_the_true_optimum_and_its_bound_is_below_it(case: tuple[Problem, Inventory]) -> None:
    p, inventory = case
    expected = brute_force(p, inventory)
    try:
        solution = solve(p, inventory)
    except Infeasible:
        assert expected is None
        return
    assert expected is not None
    achieved = round(solution.achieved / RESOLUTION)
    assert p.bounded(solution.rows)
    assert achieved == expected[0]
    assert solution.lower_bound <= solution.achieved + 1e-12
    assert round(solution.lower_bound / RESOLUTION) <= expected[0]
    if p.linear:
        assert solution.gap == 0


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_the_cost_along_a_tangent_is_never_above_the_true_objective(
    case: tuple[Problem, Inventory], data: st.DataObject
) -> None:
    p, _ = case
    if not all(len(t.index) for t in p.tables):
        return
    here, there = (tuple(data.draw(st.integers(0, len(t.index) - 1)) for t in p.tables) for _ in range(2))
    along = p.along(p.tangents(here))
    cost = along.constant + sum(int(c[row]) for c, row in zip(along.cost, there, strict=True))
    assert cost - p.slack <= p.evaluated([there])[0][0]
