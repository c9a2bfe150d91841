"""Changes that move GPUs never hang: the waves are tried on a model of Argo CD, the scheduler and the claims.

The model: waves run in order. In a wave Argo CD first deletes what it prunes then, and replaces the Deployments of that
wave; their old pods leave. A pod starts when its claim can have its GPUs: nobody else's claim may hold one. The wave
ends when all its pods run; when that cannot be, the sync hangs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.documents.plan import Instance
from scepsy.placement import schedule

GPUS = [f"GPU-{node}-{g}" for node in "ab" for g in range(8)]


def instance(name: str, gpus: str | Sequence[str], share: float = 1.0, wave: int = 0) -> Instance:
    """`instance("x", "a0 a1", 0.5)`: an instance of LLM x on GPUs a0 and a1."""
    named = [f"GPU-{g[0]}-{g[1]}" for g in gpus.split()] if isinstance(gpus, str) else list(gpus)
    llm = name.rsplit("-", 1)[0] if "-" in name else name
    return Instance(name=name, llm=llm, node=f"gpu-{named[0][4]}", gpus=tuple(named), share=share, wave=wave)


def planned(instances: Sequence[Instance], *previous: Sequence[Instance]) -> list[Instance]:
    order = schedule(instances, previous)
    return [i.model_copy(update={"wave": order.wave[i.name]}) for i in instances]


def claim(i: Instance) -> tuple[object, ...]:
    return ("shared", i.gpus) if i.share < 1 else (i.name, i.gpus)


def apply(
    running: dict[str, Instance], plan: Sequence[Instance], stop_before: int | None = None
) -> dict[str, Instance] | str:
    """Apply a plan to what runs; return what runs then, or where it hangs."""
    state = dict(running)
    wanted = {i.name: i for i in plan}
    gone = [i for n, i in state.items() if n not in wanted]
    carried = sorted({0} | {i.wave for i in gone})
    mirrored = dict(zip(carried, reversed(carried), strict=True))
    for wave in sorted({i.wave for i in plan} | set(carried)):
        if stop_before is not None and wave >= stop_before:
            return state
        for i in gone:
            if mirrored[i.wave] == wave:
                state.pop(i.name, None)
        starting = [i for i in plan if i.wave == wave]
        changed = [
            i
            for i in starting
            if i.name not in state or claim(state[i.name]) != claim(i) or state[i.name].share != i.share
        ]
        for i in changed:
            state.pop(i.name, None)
        for i in changed:
            held = {g: claim(o) for o in state.values() for g in o.gpus}
            if any(held.get(g, claim(i)) != claim(i) for g in i.gpus):
                return f"wave {wave}: {i.name} waits for {[(g, held[g]) for g in i.gpus if g in held]}"
            state[i.name] = i
        for i in starting:
            state[i.name] = i
    return state


def fits(state: dict[str, Instance]) -> bool:
    used: dict[str, int] = {}
    for i in state.values():
        for g in i.gpus:
            used[g] = used.get(g, 0) + round(i.share * 10)
    return all(v <= 10 for v in used.values())


CHANGES = {
    "two GPUs are swapped": (
        [("x", "a0"), ("y", "a1")], [("x", "a1"), ("y", "a0")], {"x": 0, "y": 0}),
    "three GPUs rotate": (
        [("x", "a0"), ("y", "a1"), ("z", "a2")], [("x", "a1"), ("y", "a2"), ("z", "a0")], {"x": 0, "y": 0, "z": 0}),
    "a shared pair moves": (
        [("x", "a0", 0.5), ("y", "a0", 0.5)], [("x", "a1", 0.5), ("y", "a1", 0.5)], {"x": 0, "y": 1}),
    "a shared GPU is split": (
        [("x", "a0", 0.5), ("y", "a0", 0.5)], [("x", "a0"), ("y", "a1")], {"x": 0, "y": 0}),
    "two join on a GPU": (
        [("x", "a0"), ("y", "a1")], [("x", "a0", 0.5), ("y", "a0", 0.5)], {"x": 0, "y": 1}),
    "a TP-4 group moves onto the GPUs of two TP-2 instances": (
        [("big", "a0 a1 a2 a3"), ("s-0", "a4 a5"), ("s-1", "a6 a7")],
        [("big", "a4 a5 a6 a7"), ("s-0", "a0 a1"), ("s-1", "a2 a3")], {"big": 0, "s-0": 0, "s-1": 0}),
    "an LLM disappears and another takes its GPU": (
        [("x", "a0"), ("y", "a1")], [("y", "a0")], {"y": 0}),
    "one moves away, another follows": (
        [("x", "a0"), ("y", "a1")], [("x", "a1"), ("y", "a2")], {"x": 0, "y": 0}),
    "a third joins two that stay": (
        [("x", "a0", 0.3), ("y", "a0", 0.3), ("z", "a1")], [("x", "a0", 0.3), ("y", "a0", 0.3), ("z", "a0", 0.3)],
        {"x": 0, "y": 1, "z": 2}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_takes_no_more_waves_than_it_needs_and_does_not_hang(change: str) -> None:
    before, after, waves = CHANGES[change]
    old = planned([instance(*i) for i in before])
    new = planned([instance(*i) for i in after], old)
    assert {i.name: i.wave for i in new} == waves
    assert apply({i.name: i for i in old}, new) == {i.name: i for i in new}


def test_a_first_plan_starts_co_tenants_one_by_one_and_all_others_at_once() -> None:
    plan = planned([instance("x", "a0", 0.3), instance("y", "a0", 0.3), instance("z", "a0", 0.3), instance("w", "a1")])
    assert {i.name: i.wave for i in plan} == {"x": 0, "y": 1, "z": 2, "w": 0}


def test_what_does_not_change_keeps_its_wave() -> None:
    old = [instance("x", "a0", 0.5, wave=7), instance("y", "a0", 0.5, wave=2), instance("z", "a1", wave=5)]
    new = planned([old[0], old[1], instance("z", "a2")], old)
    assert [i.wave for i in new] == [7, 2, 0]
    assert planned(new, new) == new


def test_a_taker_waits_for_what_is_pruned_in_a_later_wave() -> None:
    # Argo CD prunes in mirrored order: of removed waves 0 and 1 the first goes last.
    old = [instance("x", "a0", 0.5, wave=0), instance("y", "a0", 0.5, wave=1)]
    new = planned([instance("z", "a0")], old)
    assert new[0].wave == 1
    assert apply({i.name: i for i in old}, new) == {"z": new[0]}


def random_plan(rng: random.Random, llms: int = 6) -> list[Instance]:
    """A random valid plan on two nodes of eight GPUs: TP groups, shared sets, some GPUs free."""
    plan: list[Instance] = []
    count = dict.fromkeys((f"m{i}" for i in range(llms)), 0)

    def add(gpus: Sequence[str], share: float) -> None:
        llm = rng.choice(list(count))
        plan.append(instance(f"{llm}-{count[llm]}", gpus, share))
        count[llm] += 1

    for node in "ab":
        free = [g for g in GPUS if g[4] == node]
        rng.shuffle(free)
        while free:
            size = rng.choice([s for s in (1, 1, 1, 2, 2, 4) if s <= len(free)])
            gpus, free = sorted(free[:size]), free[size:]
            kind = rng.random()
            if kind < 0.15:
                continue
            if kind < 0.6:
                add(gpus, 1.0)
            else:
                left = 10
                while left and rng.random() < 0.8:
                    tenths = rng.randint(1, min(left, 6))
                    add(gpus, tenths / 10)
                    left -= tenths
    return plan


def check_waves(plan: Sequence[Instance], circles: Sequence[Sequence[str]]) -> None:
    for a, b in itertools.combinations(plan, 2):
        if a.gpus == b.gpus and a.wave == b.wave:
            assert any({a.name, b.name} <= set(circle) for circle in circles), (a, b)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_no_pair_of_plans_hangs_and_co_tenants_start_apart(seed: int) -> None:
    rng = random.Random(seed)
    old, target = planned(random_plan(rng)), random_plan(rng)
    order = schedule(target, [old])
    new = planned(target, old)
    result = apply({i.name: i for i in old}, new)
    assert result == {i.name: i for i in new}, result
    check_waves(new, order.circles)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_nor_from_a_half_finished_change_or_a_plan_that_was_never_applied(seed: int) -> None:
    rng = random.Random(seed)
    first = planned(random_plan(rng))
    second = planned(random_plan(rng), first)
    third = planned(random_plan(rng), second, first)
    running = {i.name: i for i in first}
    half = apply(running, second, stop_before=rng.randint(0, 3))
    assert isinstance(half, dict)
    for start in (running, half):
        result = apply(start, third)
        assert result == {i.name: i for i in third}, result


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_compiling_again_changes_no_wave(seed: int) -> None:
    rng = random.Random(seed)
    old = planned(random_plan(rng))
    new = planned(random_plan(rng), old)
    assert planned(new, new) == new
