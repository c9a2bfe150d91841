"""The order in which a change takes effect: Argo CD sync waves, computed from which instances leave and take each GPU.

A later wave starts only when the earlier one is healthy. So an instance that leaves a GPU is in no later wave than the
one that takes it, or the sync waits for ever; instances that take GPUs from each other in a circle share a wave.
Instances that share GPUs start one by one, except within such a circle. What does not change keeps its wave, so
compiling again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scepsy.documents.plan import Instance


@dataclass(frozen=True)
class Schedule:
    """Waves, and the instances that share one although they share GPUs.

    Attributes:
        wave: per instance.
        circles: instances that take GPUs from each other, and therefore start together.
    """

    wave: dict[str, int]
    circles: tuple[tuple[str, ...], ...]


def schedule(instances: Sequence[Instance], previous: Sequence[Sequence[Instance]]) -> Schedule:
    """Compute the waves of a change.

    Args:
        instances: what shall run; their `wave` is ignored.
        previous: what may be running: HEAD's plan first, then earlier plans that may never have been applied, or only
            in part. Every order that they need is kept.
    """
    olds = [{item.name: item for item in old} for old in previous]
    changed = {item.name for item in instances if any(not _same(item, old.get(item.name)) for old in olds)}
    if not olds:
        changed = {item.name for item in instances}
    fixed = {item.name: olds[0][item.name].wave for item in instances if item.name not in changed}
    after = _precedence([item for item in instances if item.name in changed], olds)
    least = _prune_waves(instances, olds)
    tenants: dict[tuple[str, ...], list[str]] = {}
    for item in instances:
        tenants.setdefault(item.gpus, []).append(item.name)
    beside = {name: set(names) - {name} for names in tenants.values() for name in names}
    groups = _circles(sorted(changed), after)
    return Schedule(
        {**fixed, **_assign(groups, after, least, beside, fixed)},
        tuple(tuple(group) for group in groups if len(group) > 1),
    )


def _same(item: Instance, old: Instance | None) -> bool:
    """Return whether an instance stays where it is, with the same share."""
    return old is not None and (item.llm, item.node, item.gpus, item.share) == (old.llm, old.node, old.gpus, old.share)


def _hold(item: Instance | None, gpu: str) -> tuple[object, float]:
    """Return the claim through which an instance holds a GPU, and how much of it; nothing for None.

    Whole GPUs have a claim of their instance, shared ones a claim of their set; GPUs change hands with the claim.
    """
    if item is None or gpu not in item.gpus:
        return None, 0.0
    return (item.gpus if item.share < 1 else (item.name, item.gpus)), item.share


def _precedence(changed: Sequence[Instance], olds: Sequence[Mapping[str, Instance]]) -> dict[str, set[str]]:
    """Return per changed instance those that must go no later: they leave a GPU, or part of it, that it takes."""
    after: dict[str, set[str]] = {item.name: set() for item in changed}
    new = {item.name: item for item in changed}
    for old in olds:
        holders: dict[str, list[str]] = {}
        for name, item in old.items():
            for gpu in item.gpus:
                holders.setdefault(gpu, []).append(name)
        for taker in changed:
            for gpu in taker.gpus:
                claim, share = _hold(taker, gpu)
                claim_before, share_before = _hold(old.get(taker.name), gpu)
                if claim == claim_before and share <= share_before:
                    continue
                for name in holders.get(gpu, ()):
                    leaves = name != taker.name and name in new
                    if leaves and _releases(_hold(old[name], gpu), _hold(new[name], gpu)):
                        after[taker.name].add(name)
    return after


def _releases(before: tuple[object, float], now: tuple[object, float]) -> bool:
    return before[0] != now[0] or now[1] < before[1]


def _prune_waves(instances: Sequence[Instance], olds: Sequence[Mapping[str, Instance]]) -> dict[str, int]:
    """Return per instance the latest wave in which something that is removed from its GPUs can go.

    Argo CD prunes in the mirrored order of the waves that the pruned objects carry (gitops-engine, sync_context.go).
    The Services of a removed instance carry wave 0, so 0 is always among them. Which objects are there is not known if
    an earlier plan was applied in part; whichever they are, wave 0 goes no later than the greatest wave, the greatest
    goes in wave 0, and any other no later than the second greatest.
    """
    names = {item.name for item in instances}
    removed = [item for old in olds for name, item in old.items() if name not in names]
    carried = sorted({0} | {item.wave for item in removed})
    greatest, second = carried[-1], carried[-2] if len(carried) > 1 else 0

    def goes(wave: int) -> int:
        return greatest if wave == 0 else 0 if wave == greatest else second

    return {
        item.name: max((goes(g.wave) for g in removed if set(g.gpus) & set(item.gpus)), default=0) for item in instances
    }


def _circles(names: Sequence[str], after: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the strongly connected components, each after those that it depends on (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for root in names:
        if root in index:
            continue
        work = [(root, iter(sorted(after[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            name, edges = work[-1]
            following = next(edges, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    at = stack.index(name)
                    found.append(sorted(stack[at:]))
                    del stack[at:]
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                work.append((following, iter(sorted(after[following]))))
            elif following in stack:
                low[name] = min(low[name], index[following])
    return found


def _assign(
    groups: Sequence[Sequence[str]],
    after: Mapping[str, Iterable[str]],
    least: Mapping[str, int],
    beside: Mapping[str, Iterable[str]],
    fixed: Mapping[str, int],
) -> dict[str, int]:
    """Give every group the earliest wave that its predecessors, prunes and co-tenants allow, in the order given."""
    wave = dict(fixed)
    for group in groups:
        earliest = max(
            [least[name] for name in group]
            + [wave[before] for name in group for before in after[name] if before in wave]
        )
        taken = {wave[other] for name in group for other in beside[name] if other in wave and other not in group}
        while earliest in taken:
            earliest += 1
        wave.update(dict.fromkeys(group, earliest))
    return {name: wave[name] for group in groups for name in group}
