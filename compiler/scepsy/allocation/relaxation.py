"""A lower bound and prices for problems that are too large to enumerate: a linear relaxation by column generation.

The relaxation drops that an LLM has one option and that instances are whole; what it keeps is how GPU sets are shared.
A *class* is a product with a tensor-parallel size: its GPU sets are interchangeable. Per class

- sets with parts of GPUs are filled by patterns of shares, such as 0.5 + 0.3 + 0.2 (the cutting-stock bound);
- no set holds more than one card's bandwidth (`bin_packing.volume`), and no two instances that need more than half of
  it (`bin_packing.halved`);
- all sets together fit into the NVLink domains, larger ones first (`packing`).

The dual of the linear programme prices every resource, and by them every option of every LLM, in vectors: the options
themselves never become columns, but for the few that are cheapest at some prices. Any prices give a bound (Lagrange):
the sum over LLMs of the cheapest option, less the worth of all GPU sets.

Source: Gilmore and Gomory 1961 (cutting stock by column generation); section 2.4 of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scepsy.allocation.best_first import FULL, SLACK
from scepsy.allocation.options import OptionTable
from scepsy.allocation.problem import Problem
from scepsy.performance.curves import Array
from scepsy.pipeline.instance import Ints
from scepsy.placement import TP_SIZES, WHOLE, Inventory, halved, volume

_ROUNDS = 100
"""Linear programmes that are solved at most; each adds the columns that its prices ask for."""
_COLUMNS = 3
"""Columns that one LLM adds per round and class."""
_TOLERANCE = 1e-5
"""The bound may stay below the relaxation's optimum by this fraction of it."""
_GRID = 2.0**-20
"""Prices are rounded to this fraction of the largest one, so that the bound does not rest on their last bits."""


@dataclass(frozen=True)
class Use:
    """What the options of one LLM take of the GPU sets of their class, B rows.

    Attributes:
        cost: (B,) contribution to the objective, steps.
        kind: (B,) the class: product · len(TP_SIZES) + position of the TP size in TP_SIZES.
        tenths: (B,) share of each GPU.
        replicas: (B,) instances.
        bandwidth: (B,) part of a card's bandwidth that one instance draws; 0 on whole GPUs.
        reserve: (B,) part that it must be left on top of that; 0 on whole GPUs.
        drawn: (B,) sets' worth of bandwidth that all instances take at least.
        wide: (B,) instances of which no two share a set.
    """

    cost: Array
    kind: Ints
    tenths: Ints
    replicas: Ints
    bandwidth: Array
    reserve: Array
    drawn: Array
    wide: Array


@dataclass(frozen=True)
class Prices:
    """What GPU sets cost, in steps of the objective; all at least 0.

    Attributes:
        share: (classes, WHOLE) of one instance by its share in tenths, less one; the last column is a whole set.
        drawn: (classes,) of one card's bandwidth in a set.
        wide: (classes,) of one instance of which no two share a set.
        slot: (classes,) of one slot of an NVLink domain, per GPU.
    """

    share: Array
    drawn: Array
    wide: Array
    slot: Array

    def of(self, use: Use) -> Array:
        """Return what each option pays for its resources, (B,)."""
        share: Array = self.share[use.kind, use.tenths - 1]
        return use.replicas * share + use.drawn * self.drawn[use.kind] + use.wide * self.wide[use.kind]


@dataclass(frozen=True)
class Relaxation:
    """The relaxation's result.

    Attributes:
        bound: no allocation that can be placed costs less, in steps, the problem's constant left out.
        reduced: per LLM, (B,) how much an allocation with this option costs at least above `bound`.
        price: the highest price of a GPU, in steps.
        feasible: whether the relaxation has a solution; if it has none, no allocation can be placed.
    """

    bound: int
    reduced: tuple[Array, ...]
    price: float
    feasible: bool


def use_of(table: OptionTable, cost: Ints) -> Use:
    """Return what the options of a table take."""
    size = np.array([TP_SIZES.index(m.shape.tp) for m in table.models], dtype=np.int64)[table.index]
    part = table.tenths < WHOLE
    width, reserve = np.where(part, table.width, 0.0), np.where(part, table.reserve, 0.0)
    return Use(
        cost=cost.astype(float),
        kind=table.product * len(TP_SIZES) + size,
        tenths=table.tenths,
        replicas=table.replicas,
        bandwidth=width,
        reserve=reserve,
        drawn=table.replicas * volume(width, reserve, table.tenths / WHOLE),
        wide=np.where(part & (halved(width, reserve) > 0.5 + SLACK / FULL), table.replicas, 0).astype(float),
    )


def relax(problem: Problem, inventory: Inventory, seeds: Sequence[Sequence[int]] = ()) -> Relaxation:
    """Solve the relaxation of a problem whose tables all have options.

    Args:
        problem: the problem.
        inventory: the GPUs.
        seeds: allocations whose options are columns from the start.
    """
    uses = [use_of(table, cost) for table, cost in zip(problem.tables, problem.cost, strict=True)]
    master = _Master(uses, inventory)
    for i, use in enumerate(uses):
        for kind in np.unique(use.kind):
            options = np.flatnonzero(use.kind == kind)
            size = use.replicas[options] * use.tenths[options]
            master.add(i, [int(options[use.cost[options].argmin()]), int(options[size.argmin()])])
        master.add(i, [int(rows[i]) for rows in seeds])
    best, reduced, price = -np.inf, [np.zeros(len(use.cost)) for use in uses], 0.0
    for _ in range(_ROUNDS):
        optimum, duals = master.solve()
        prices = master.prices(duals)
        paid = [use.cost + prices.of(use) for use in uses]
        bound = sum(float(totals.min()) for totals in paid) - float(prices.slot @ master.slots)
        if bound > best:
            best, reduced = bound, [totals - totals.min() for totals in paid]
            price = float((prices.share[:, WHOLE - 1] / master.size).max(initial=0.0))
        grown = [master.add(i, _cheapest(paid[i] - duals[i], uses[i].kind)) for i in range(len(uses))]
        if not any(grown) or optimum - best <= _TOLERANCE * abs(optimum):
            break
    # Sums of floats: what rounding may have added is taken off again.
    slack = 1e-9 * sum(float(np.abs(totals).max()) for totals in paid) + 1.0
    return Relaxation(int(np.ceil(best - slack)), tuple(reduced), price, master.feasible)


def _cheapest(reduced: Array, kind: Ints) -> list[int]:
    """Return the options that would improve the linear programme most, a few of each class."""
    found = []
    below = np.flatnonzero(reduced < -1e-3)
    for options in (below[kind[below] == k] for k in np.unique(kind[below])):
        found += options[np.argsort(reduced[options], kind="stable")[:_COLUMNS]].tolist()
    return found


class _Master:
    """The linear programme over the columns so far.

    Rows: one per LLM (its options sum to 1); per class one per share, one of bandwidth, one of wide instances; per
    class its slots, which sets of its size and of all larger ones take.

    Attributes:
        slots: (classes,) GPUs in slots of a class's size.
        feasible: whether the last solution serves every LLM.
    """

    def __init__(self, uses: Sequence[Use], inventory: Inventory) -> None:
        import highspy  # noqa: PLC0415 - only large problems need it

        self.uses, self.feasible = uses, False
        sizes = len(TP_SIZES)
        classes = len(inventory.products) * sizes
        self.size = np.tile(np.array(TP_SIZES), len(inventory.products))
        self.slots = np.array(
            [inventory.groups(p, size) * size for p in inventory.products for size in TP_SIZES], dtype=float
        )
        llms = len(uses)
        self.share = llms + np.arange(classes * (WHOLE - 1)).reshape(classes, WHOLE - 1)
        self.drawn = self.share.max(initial=llms - 1) + 1 + np.arange(classes)
        self.wide = self.drawn + classes
        self.slot = self.wide + classes
        self.columns: set[tuple[int, int]] = set()
        self.inf = highspy.kHighsInf
        self.solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        self.solver.setOptionValue("output_flag", False)
        self.solver.setOptionValue("threads", 1)
        lower = np.concatenate([np.ones(llms), np.full(classes * (WHOLE + 2), -self.inf)])
        upper = np.concatenate([np.ones(llms), np.zeros(classes * (WHOLE + 1)), self.slots])
        for low, high in zip(lower, upper, strict=True):
            self.solver.addRow(low, high, 0, np.zeros(0, np.int32), np.zeros(0))
        for kind in np.flatnonzero(self.slots):
            slots = self._slots_of(int(kind))
            for pattern in _PATTERNS:
                shares = np.flatnonzero(pattern)
                rows = [*self.share[kind, shares], self.drawn[kind], self.wide[kind], *slots]
                self._column(0.0, rows, [*-pattern[shares], -1.0, -1.0, *[float(self.size[kind])] * len(slots)])
        # An LLM that nothing serves costs more than any allocation.
        self.unserved = range(self.solver.getNumCol(), self.solver.getNumCol() + llms)
        penalty = 10.0 * sum(float(use.cost.max()) for use in uses) + 1.0
        for i in range(llms):
            self._column(penalty, [i], [1.0])

    def _slots_of(self, kind: int) -> list[int]:
        """Return the rows of the slots that a set of a class takes: of its own size, and of all smaller ones."""
        last = kind - kind % len(TP_SIZES) + len(TP_SIZES)
        return [int(self.slot[k]) for k in range(kind, last)]

    def _column(self, cost: float, rows: Sequence[int], values: Sequence[float]) -> None:
        self.solver.addCol(cost, 0.0, self.inf, len(rows), np.array(rows, np.int32), np.array(values, float))

    def add(self, llm: int, options: Sequence[int]) -> bool:
        """Make options of an LLM columns; return whether any of them is new."""
        use, new = self.uses[llm], False
        for j in options:
            if (llm, j) in self.columns:
                continue
            self.columns.add((llm, j))
            new = True
            kind, count = int(use.kind[j]), float(use.replicas[j])
            if use.tenths[j] == WHOLE:
                slots = self._slots_of(kind)
                rows, values = [llm, *slots], [1.0, *[count * float(self.size[kind])] * len(slots)]
            else:
                rows = [llm, int(self.share[kind, use.tenths[j] - 1]), int(self.drawn[kind]), int(self.wide[kind])]
                values = [1.0, count, float(use.drawn[j]), float(use.wide[j])]
            self._column(float(use.cost[j]), rows, values)
        return new

    def solve(self) -> tuple[float, Array]:
        """Solve it; return its optimum, and the duals: of LLMs their cost, of resources their price."""
        self.solver.run()
        solution = self.solver.getSolution()
        self.feasible = float(np.sum(np.array(solution.col_value)[list(self.unserved)])) < 1e-6
        duals = np.array(solution.row_dual)
        duals[len(self.uses) :] *= -1.0
        return float(self.solver.getInfo().objective_function_value), duals

    def prices(self, duals: Array) -> Prices:
        """Return prices at which no pattern is worth more than its set: what makes the bound a bound."""
        grid = max(float(np.abs(duals[len(self.uses) :]).max(initial=0.0)) * _GRID, 1e-12)
        priced = np.maximum(0.0, np.rint(duals / grid) * grid)
        slot = priced[self.slot]
        whole = np.array([self.size[k] * sum(priced[r] for r in self._slots_of(k)) for k in range(len(self.size))])
        share, drawn, wide = priced[self.share], priced[self.drawn], priced[self.wide]
        worth = (share @ _PATTERNS.T).max(axis=1) + drawn + wide
        factor = np.where(worth > whole, whole / np.where(worth > 0, worth, 1.0), 1.0)
        share = np.concatenate([share * factor[:, None], whole[:, None]], axis=1)
        return Prices(share, drawn * factor, wide * factor, slot)


def _share_patterns() -> npt.NDArray[np.int64]:
    """Return the ways to fill a set with shares to which none can be added, (patterns, 9) instances per share."""
    found: list[Ints] = []

    def extend(content: list[int], largest: int, left: int) -> None:
        for tenths in range(min(largest, left), 0, -1):
            extend([*content, tenths], tenths, left - tenths)
        if not left and content != [WHOLE]:
            found.append(np.bincount(content, minlength=WHOLE)[1:WHOLE])

    extend([], WHOLE - 1, WHOLE)
    return np.unique(np.array(found, dtype=np.int64), axis=0)


_PATTERNS = _share_patterns()
