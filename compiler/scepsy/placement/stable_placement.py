"""Continuity: placing around instances that keep their GPUs, and names that survive a change."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scepsy.documents.plan import Instance
from scepsy.placement.bin_packing import Undecided
from scepsy.placement.inventory import Inventory
from scepsy.placement.packing import Placed, Request, place


def running(previous: Sequence[Instance], products: dict[str, str], inventory: Inventory) -> list[Instance]:
    """Return the instances of an earlier plan whose GPUs are all still there, in one domain, and of their product.

    Args:
        previous: the earlier plan's instances.
        products: per LLM, the product that the earlier plan gave it.
        inventory: the GPUs that there are now.
    """
    domain_of = {
        gpu: (product, domain.node, i)
        for product, domains in inventory.domains.items()
        for i, domain in enumerate(domains)
        for gpu in domain.gpus
    }
    kept = []
    for item in previous:
        places = {domain_of.get(gpu) for gpu in item.gpus}
        place_ = places.pop() if len(places) == 1 else None
        if place_ is not None and place_[:2] == (products.get(item.llm), item.node):
            kept.append(item)
    return kept


def place_around(requests: Sequence[Request], inventory: Inventory, stay: Sequence[Instance]) -> list[Placed] | None:
    """Place all instances, leaving as many as possible of `stay` where they are.

    Instances of the requested shape and product stay; if the others cannot be placed around them, the smallest are
    freed first.

    Args:
        requests: what to place.
        inventory: the GPUs.
        stay: instances on GPUs of the inventory.

    Returns:
        the places, or None if the requests do not fit at all.

    Raises:
        Undecided: no place was found, and none was ruled out.
    """
    candidates = _matching(requests, stay, inventory)

    def attempt(freed: int) -> list[Placed] | None:
        pinned = [Placed(i.llm, i.node, i.gpus, round(i.share * 10)) for i in candidates[freed:]]
        try:
            return place(requests, inventory, pinned)
        except Undecided:
            return None

    everything = attempt(0)
    if everything is not None or not candidates:
        return everything if everything is not None else place(requests, inventory)
    low, high, best = 0, len(candidates), place(requests, inventory)
    if best is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        placed = attempt(middle)
        if placed is None:
            low = middle
        else:
            high, best = middle, placed
    return best


def _matching(requests: Sequence[Request], stay: Sequence[Instance], inventory: Inventory) -> list[Instance]:
    """Return the instances that can stay: of the requested shape and product, at most as requested; smallest first."""
    left = {r.llm: r.replicas for r in requests}
    shape = {r.llm: (r.product, r.tp, r.tenths) for r in requests}
    kept = []
    for item in sorted(stay, key=lambda i: (i.llm, _number(i.name))):
        current = inventory.product(item.gpus[0]), len(item.gpus), round(item.share * 10)
        if left.get(item.llm, 0) and shape[item.llm] == current:
            left[item.llm] -= 1
            kept.append(item)
    return sorted(kept, key=lambda i: (len(i.gpus) * i.share, i.name))


def name(
    placed: Sequence[Placed], previous: Sequence[Instance], taken: Collection[str], inventory: Inventory
) -> list[Instance]:
    """Name placed instances so that what stays keeps its name, and what moves takes the name of what it was.

    An instance that leaves a node which is gone gets a new name: its old pod may never end, and nothing of its name
    would start before.

    Args:
        placed: the instances.
        previous: those of HEAD's plan.
        taken: names that earlier plans used; new names avoid them.
        inventory: the GPUs, for their order and the nodes that are there.

    Returns:
        the instances in order of LLM and number, in wave 0.
    """
    order = {
        gpu: i for i, gpu in enumerate(g for p in inventory.products for d in inventory.domains[p] for g in d.gpus)
    }
    alive = inventory.nodes | {domain.node for domains in inventory.domains.values() for domain in domains}
    used = set(taken) | {item.name for item in previous}
    named: list[Instance] = []
    for llm in sorted({item.llm for item in placed}):
        of_llm = sorted((p for p in placed if p.llm == llm), key=lambda p: (order[p.gpus[0]], p.tenths))
        old = sorted((i for i in previous if i.llm == llm and i.node in alive), key=lambda i: _number(i.name))
        chosen: dict[int, str] = {}
        # First those that stay as they are, then those on the same node, then any.
        for test in (_stays, _same_node, lambda p, i: True):
            for k, item in enumerate(of_llm):
                match = next((i for i in old if k not in chosen and test(item, i)), None)
                if match is not None:
                    chosen[k] = match.name
                    old.remove(match)
        fresh = (f"{llm}-{n}" for n in range(len(used) + len(of_llm) + 1))
        for k, item in enumerate(of_llm):
            title = chosen.get(k) or next(n for n in fresh if n not in used)
            named.append(Instance(name=title, llm=llm, node=item.node, gpus=item.gpus, share=item.tenths / 10))
    return sorted(named, key=lambda i: (i.llm, _number(i.name)))


def _stays(item: Placed, old: Instance) -> bool:
    return (item.gpus, item.tenths) == (old.gpus, round(old.share * 10))


def _same_node(item: Placed, old: Instance) -> bool:
    return item.node == old.node


def _number(title: str) -> int:
    return int(title.rsplit("-", 1)[1])
