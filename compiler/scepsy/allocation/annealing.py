"""Good allocations for problems that are too large to enumerate: simulated annealing along the relaxation's prices.

The relaxation's reduced costs say which few options of every LLM are worth a try. A move gives one to three LLMs other
options of their short lists; it is accepted if the objective falls, or rises by no more than chance and a falling
temperature allow. GPUs beyond the inventory are allowed on the way, at a price above any that the relaxation found.

Whether the instances fit is decided by first-fit decreasing over the GPU sets of every class, of which a move changes
few. Everything is counted in moves and drawn from seeds: the same problem gives the same allocations on any machine.

Source: Kirkpatrick, Gelatt and Vecchi 1983 (simulated annealing).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.allocation.relaxation import Relaxation, Use
from scepsy.placement import TP_SIZES, WHOLE, Inventory

MOVES = 40_000
"""Moves of one chain: about a second."""
_SHORT_LIST = 30
"""Options of an LLM that are tried, the least reduced costs first."""
_VARIETY = 12
"""Shapes of which the best option is tried in any case."""
_TEMPERATURE = 1.0
"""Mean rise of the objective that is accepted at first, as a part of the objective per LLM."""
_PENALTY = 10.0
"""Price of a GPU that is not there, in the highest price of the relaxation."""
_SLACK = 1e-9
"""Forgiven to rounding, as `bin_packing` does."""
_KEPT = 20
"""Allocations that a chain returns at most, the best ones."""
_RISES = tuple(round(-math.log((i + 0.5) / 1024), 6) for i in range(1024))
"""Quantiles of the exponential distribution, rounded: the last bit of a logarithm may differ between machines."""

_Packed = tuple[int, float, float, int]
"""Tenths, bandwidth and reserve of an instance, and how many there are."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """One option of an LLM: its row, its contribution to the objective, and what it takes of which class."""

    row: int
    cost: int
    kind: int
    whole: int
    part: _Packed | None


def anneal(
    uses: Sequence[Use], relaxation: Relaxation, inventory: Inventory, seed: int, moves: int = MOVES
) -> list[tuple[int, ...]]:
    """Return allocations whose instances fit by first-fit decreasing, best first; none if the chain met none.

    Args:
        uses: per LLM, what its options take.
        relaxation: its reduced costs, and its highest price.
        inventory: the GPUs.
        seed: of the random numbers.
        moves: moves of the chain.
    """
    lists = [_short_list(use, reduced) for use, reduced in zip(uses, relaxation.reduced, strict=True)]
    draw = random.Random(seed).random  # noqa: S311 - not for secrets
    slots = [inventory.groups(p, size) * size for p in inventory.products for size in TP_SIZES]
    state = [choices[0] for choices in lists]
    sets = [_sets(state, kind) for kind in range(len(slots))]
    penalty = round(_PENALTY * max(relaxation.price, 1.0))
    cost = sum(choice.cost for choice in state)
    value = cost + penalty * _missing(sets, slots)
    heat, found, best = _TEMPERATURE * cost / len(lists), [], None
    for move in range(moves):
        temperature = heat * (1 - move / moves) ** 2
        allowed = value + int(temperature * _RISES[int(draw() * len(_RISES))])
        changed, rise, touched = list(state), 0, set()
        for _ in range(_WIDTHS[int(draw() * len(_WIDTHS))]):
            i = int(draw() * len(lists))
            choice = lists[i][int(draw() ** 3 * len(lists[i]))]
            rise += choice.cost - changed[i].cost
            touched |= {changed[i].kind, choice.kind}
            changed[i] = choice
        if cost + rise > allowed:
            continue
        needed = list(sets)
        for kind in touched:
            needed[kind] = _sets(changed, kind)
        missing = _missing(needed, slots)
        if cost + rise + penalty * missing > allowed:
            continue
        state, sets, cost = changed, needed, cost + rise
        value = cost + penalty * missing
        if not missing and (best is None or value < best):
            best = value
            found.append(tuple(choice.row for choice in state))
    return found[: -_KEPT - 1 : -1]


_WIDTHS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
"""How many LLMs a move changes, each as likely as the next."""


def _short_list(use: Use, reduced: np.ndarray) -> list[_Choice]:
    """Return the options of least reduced cost."""
    order = np.argsort(reduced, kind="stable")
    _, first = np.unique(use.kind[order] * (WHOLE + 1) + use.tenths[order], return_index=True)
    variety = first[np.argsort(first, kind="stable")][:_VARIETY]
    rows = order[np.union1d(np.arange(min(_SHORT_LIST, len(order))), variety)]
    return [
        _Choice(
            row=int(row),
            cost=int(use.cost[row]),
            kind=int(use.kind[row]),
            whole=int(use.replicas[row]) if use.tenths[row] == WHOLE else 0,
            part=None
            if use.tenths[row] == WHOLE
            else (int(use.tenths[row]), float(use.bandwidth[row]), float(use.reserve[row]), int(use.replicas[row])),
        )
        for row in rows
    ]


def _sets(state: Sequence[_Choice], kind: int) -> int:
    """Return how many GPU sets of a class the instances take, by first-fit decreasing."""
    members = [choice for choice in state if choice.kind == kind]
    parts = sorted((choice.part for choice in members if choice.part is not None), reverse=True)
    opened: list[list[float]] = []
    for tenths, bandwidth, reserve, count in parts:
        left = count
        for held in opened:
            if not left:
                break
            left -= _added(held, tenths, bandwidth, reserve, left)
        while left:
            opened.append([0, 0.0, 0.0])
            left -= _added(opened[-1], tenths, bandwidth, reserve, left)
    return sum(choice.whole for choice in members) + len(opened)


def _added(held: list[float], tenths: int, bandwidth: float, reserve: float, most: int) -> int:
    """Put as many equal instances as fit into a set; return how many."""
    count = 0
    top = max(held[2], reserve)
    while count < most and held[0] + tenths <= WHOLE and held[1] + bandwidth + top <= 1 + _SLACK:
        held[0] += tenths
        held[1] += bandwidth
        held[2] = top
        count += 1
    return count


def _missing(sets: Sequence[int], slots: Sequence[int]) -> int:
    """Return how many GPUs are missing: over products and sizes, the most that sets of a size and larger ones lack."""
    most = 0
    for first in range(0, len(sets), len(TP_SIZES)):
        used = 0
        for kind, size in enumerate(TP_SIZES, start=first):
            used += sets[kind] * size
            most = max(most, used - slots[kind])
    return most
