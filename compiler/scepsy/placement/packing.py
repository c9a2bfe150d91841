"""From how many instances of which shape to GPUs.

Tensor-parallel degrees are powers of two, so groups of GPUs are divisible sizes: placing the largest first in any
domain never takes room that another choice would have kept, and the greedy order decides exactly whether all fit. What
remains hard is packing fractions, which `bins` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scepsy.placement.bin_packing import WHOLE, Part, Size, Undecided, fewest_bins, joined, lower_bound
from scepsy.placement.inventory import Domain, Inventory

TP_SIZES = (8, 4, 2, 1)
"""Tensor-parallel degrees, largest first."""


@dataclass(frozen=True, slots=True)
class Request:
    """Instances to place.

    Attributes:
        llm: whose.
        product: on which GPUs.
        tp: GPUs per instance.
        tenths: share of each of them.
        replicas: how many instances.
        bandwidth: part of each card's memory bandwidth that one instance draws on average.
        reserve: part that each must be left on top of that while it runs.
    """

    llm: str
    product: str
    tp: int
    tenths: int
    replicas: int
    bandwidth: float
    reserve: float = 0.0

    @property
    def part(self) -> Part:
        """One of the instances."""
        width = round(min(1.0, self.bandwidth), 9)
        return Part(self.tenths, width, self.llm, round(min(1.0 - width, self.reserve), 9))


@dataclass(frozen=True, slots=True)
class Placed:
    """One instance and its place.

    Attributes:
        llm: whose.
        node: where.
        gpus: UUIDs, in the node's order.
        tenths: share of each.
    """

    llm: str
    node: str
    gpus: tuple[str, ...]
    tenths: int


GpuSet = tuple[int, tuple[Part, ...]]
"""How many GPUs, and which instances use them; one part of ten tenths for an instance alone."""


def place(requests: Sequence[Request], inventory: Inventory, pinned: Sequence[Placed] = ()) -> list[Placed] | None:
    """Place all instances, or return None if they cannot be placed.

    Tensor-parallel groups stay inside one NVLink domain; instances that share GPUs share the identical set, with shares
    that sum to at most one, and each finds the bandwidth there that it must be left (`bins`). Large holes are kept
    whole; where that is free, replicas of an LLM spread over nodes.

    Args:
        requests: what to place.
        inventory: the GPUs.
        pinned: instances, counted in the requests, that stay where they are.

    Raises:
        Undecided: no place was found, and none was ruled out.
    """
    placed: list[Placed] = []
    for product in sorted({request.product for request in requests}):
        wanted = [request for request in requests if request.product == product]
        stay = [p for p in pinned if p.llm in {r.llm for r in wanted}]
        domains = inventory.domains.get(product, ())
        opened, rest = _opened(wanted, stay)
        if opened is None:
            return None
        used = {gpu for p in stay for gpu in p.gpus}
        left = [Domain(d.node, tuple(gpu for gpu in d.gpus if gpu not in used)) for d in domains]
        filled, rest = _filled(opened, rest)
        sets = _sets(rest, left)
        if sets is None:
            return None
        placed.extend(stay)
        placed.extend(filled)
        placed.extend(_assign(sets, left))
    return placed


@dataclass
class _Opened:
    """A GPU set on which pinned instances may leave room.

    Attributes:
        node: where.
        gpus: the set.
        held: what is taken.
        llms: who is there.
    """

    node: str
    gpus: tuple[str, ...]
    held: Size
    llms: list[str]


def _opened(requests: Sequence[Request], pinned: Sequence[Placed]) -> tuple[list[_Opened] | None, list[Request]]:
    """Return the sets that pinned instances hold, None if these do not fit there, and the requests without them."""
    by_llm = {r.llm: r.part for r in requests}
    sets: dict[tuple[str, ...], _Opened] = {}
    for item in pinned:
        size = (item.tenths, *by_llm[item.llm].size[1:])
        gpu_set = sets.get(item.gpus)
        if gpu_set is None:
            sets[item.gpus] = _Opened(item.node, item.gpus, size, [item.llm])
            continue
        both = joined(gpu_set.held, size)
        if both is None:
            return None, []
        gpu_set.held = both
        gpu_set.llms.append(item.llm)
    rest = [replace(r, replicas=r.replicas - sum(p.llm == r.llm for p in pinned)) for r in requests]
    return list(sets.values()), [r for r in rest if r.replicas]


def _filled(opened: list[_Opened], requests: Sequence[Request]) -> tuple[list[Placed], list[Request]]:
    """Put instances into the room that pinned ones leave, largest first; return them and what is left to place."""
    placed: list[Placed] = []
    rest: list[Request] = []
    for request in sorted(requests, key=lambda r: (-r.tenths, -r.bandwidth, -r.reserve, r.llm)):
        left, size = request.replicas, request.part.size
        while left and request.tenths < WHOLE:
            fits = [
                (s, both) for s in opened if len(s.gpus) == request.tp and (both := joined(s.held, size)) is not None
            ]
            if not fits:
                break
            best, both = min(fits, key=lambda f: (f[0].llms.count(request.llm), -f[0].held[0], f[0].gpus))
            best.held = both
            best.llms.append(request.llm)
            placed.append(Placed(request.llm, best.node, best.gpus, request.tenths))
            left -= 1
        if left:
            rest.append(replace(request, replicas=left))
    return placed, rest


def largest_group(inventory: Inventory, placed: Sequence[Placed]) -> tuple[int, int]:
    """Return how many GPUs have no instance, and the largest tensor-parallel group that fits on them (0 for none)."""
    used = {uuid for instance in placed for uuid in instance.gpus}
    free = [sum(gpu not in used for gpu in d.gpus) for domains in inventory.domains.values() for d in domains]
    return sum(free), max((size for size in TP_SIZES if any(f >= size for f in free)), default=0)


def _sets(requests: Sequence[Request], domains: Sequence[Domain]) -> list[GpuSet] | None:
    """Return the GPU sets that the requests need, as few as possible, or None if the domains cannot hold them.

    Raises:
        Undecided: neither could be shown.
    """
    whole: dict[int, list[Part]] = defaultdict(list)
    parts: dict[int, list[Part]] = defaultdict(list)
    for r in requests:
        (whole if r.tenths == WHOLE else parts)[r.tp].extend([r.part] * r.replicas)
    free = [len(domain.gpus) for domain in domains]
    taken: list[GpuSet] = []
    # Sets that are needed in any case leave what the fractions of each degree may use at most.
    least = {tp: len(whole[tp]) + lower_bound(parts[tp]) for tp in TP_SIZES}
    if not _fits(least, free):
        return None
    exact = True
    for tp in TP_SIZES:
        taken.extend((tp, (part,)) for part in whole[tp])
        if parts[tp]:
            packed = fewest_bins(parts[tp], _most(tp, least, free) - len(whole[tp]))
            if packed is None and not exact:
                raise Undecided
            if packed is None:
                return None
            content, fewest = packed
            exact &= fewest
            least[tp] = len(whole[tp]) + len(content)
            taken.extend((tp, tuple(llms)) for llms in content)
    if _fits(least, free):
        return taken
    if not exact:
        raise Undecided
    return None


def _fits(sets: dict[int, int], free: Sequence[int]) -> bool:
    """Return whether domains with so many free GPUs hold so many sets of each size, largest first."""
    slots = {size: sum(f // size for f in free) for size in TP_SIZES}
    used = 0
    for size in TP_SIZES:
        used += sets[size] * size
        # Larger sets take size ÷ smaller slots each, wherever they are: slots of this size left = all − taken ÷ size.
        if used > slots[size] * size:
            return False
    return True


def _most(tp: int, least: dict[int, int], free: Sequence[int]) -> int:
    """Return the most sets of `tp` GPUs that fit beside the least of the other degrees."""
    count = least[tp]
    while _fits({**least, tp: count + 1}, free):
        count += 1
    return count


def _assign(sets: Sequence[GpuSet], domains: Sequence[Domain]) -> list[Placed]:
    """Choose GPUs for sets that are known to fit."""
    free = [list(domain.gpus) for domain in domains]
    on_node: dict[tuple[str, str], int] = defaultdict(int)
    placed: list[Placed] = []
    for size, content in sorted(sets, key=lambda s: (-s[0], s[1])):
        candidates = [d for d in range(len(domains)) if len(free[d]) >= size]

        def preference(d: int, size: int = size, content: tuple[Part, ...] = content) -> tuple[int, int, int, int, int]:
            lost = [len(free[d]) // s - (len(free[d]) - size) // s for s in TP_SIZES[:3]]
            together = sum(on_node[domains[d].node, part.llm] for part in content)
            return (lost[0], lost[1], lost[2], together, d)

        best = min(candidates, key=preference)
        gpus, free[best] = tuple(free[best][:size]), free[best][size:]
        for part in content:
            on_node[domains[best].node, part.llm] += 1
            placed.append(Placed(part.llm, domains[best].node, gpus, part.tenths))
    return placed
