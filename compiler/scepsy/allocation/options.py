"""The options of one LLM: every shape and number of replicas that sustains its load, with its latency and bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scepsy.performance import MAX_UTILISATION, Catalog
from scepsy.performance.co_tenants import caps
from scepsy.performance.curves import Array
from scepsy.pipeline import InstanceModel, LlmLoad, LlmOutcome, Shape, capped, evaluate, instance_model
from scepsy.pipeline.instance import Ints
from scepsy.placement import Inventory, Request


@dataclass(frozen=True, slots=True)
class Option:
    """One row of a table.

    Attributes:
        row: its number.
        shape: the shape of the instances.
        replicas: how many.
        bandwidth: part of the GPU's memory bandwidth at which each is assumed to read while it runs.
    """

    row: int
    shape: Shape
    replicas: int
    bandwidth: float


@dataclass(frozen=True)
class OptionTable:
    """All options of one LLM that sustain its load, B rows.

    Attributes:
        load: the LLM and its callers.
        models: the shapes that it fits, held to parts of the memory bandwidth.
        index: (B,) which of them.
        replicas: (B,) how many instances.
        product: (B,) which product, as an index into `products`.
        products: the inventory's products.
        units: (B,) tenths of GPUs that the option takes.
        latency: (callers, B) seconds until a group of calls has ended.
        utilisation: (B,) load ÷ capacity.
        bandwidth: (B,) part of a GPU's memory bandwidth that one instance draws on average.
        reserve: (B,) part of it that must be free beyond that, so that the instance can read at its cap while it runs;
            0 on whole GPUs.
        excluded: shapes that the LLM does not fit, and why.
        charged: (B,) tenths of each GPU that an instance is counted for; more than its share in a coarser problem that
            always packs.
    """

    load: LlmLoad
    models: tuple[InstanceModel, ...]
    index: Ints
    replicas: Ints
    product: Ints
    products: tuple[str, ...]
    units: Ints
    latency: Array
    utilisation: Array
    bandwidth: Array
    reserve: Array
    excluded: tuple[tuple[Shape, str], ...]
    charged: Ints | None = None

    @property
    def tenths(self) -> Ints:
        """(B,) tenths of each GPU that an instance is counted for."""
        if self.charged is not None:
            return self.charged
        return np.array([m.shape.tenths for m in self.models], dtype=np.int64)[self.index]

    @property
    def width(self) -> Array:
        """(B,) bandwidth that counts for packing: of instances on part of a GPU."""
        shared = np.array([m.shape.tenths < 10 for m in self.models], dtype=bool)[self.index]
        return np.where(shared, self.bandwidth, 0.0)

    def option(self, row: int) -> Option:
        """Return one row."""
        model = self.models[self.index[row]]
        return Option(row, model.shape, int(self.replicas[row]), model.bandwidth)

    def outcome(self, row: int) -> LlmOutcome:
        """Return the outcome of one row, for the predictor."""
        return LlmOutcome(
            self.load,
            self.models[self.index[row]],
            int(self.replicas[row]),
            tuple(float(x) for x in self.latency[:, row]),
            float(self.utilisation[row]),
            float(self.bandwidth[row]),
        )

    def request(self, row: int) -> Request:
        """Return one row as a request for placement."""
        shape = self.models[self.index[row]].shape
        tenths = shape.tenths if self.charged is None else int(self.charged[row])
        width = float(self.bandwidth[row]) if shape.tenths < 10 else 0.0
        reserve, replicas = float(self.reserve[row]), int(self.replicas[row])
        return Request(self.load.name, shape.product, shape.tp, tenths, replicas, width, reserve)


def option_tables(
    loads: list[LlmLoad], catalog: Catalog, inventory: Inventory, known: Sequence[OptionTable] = ()
) -> list[OptionTable]:
    """Return the options of every LLM; a table may be empty. Tables of `known` loads are reused."""
    return [
        next((table for table in known if table.load == load), None) or _table(load, catalog, inventory)
        for load in loads
    ]


def _table(load: LlmLoad, catalog: Catalog, inventory: Inventory) -> OptionTable:
    models, excluded = _models(load, catalog, inventory)
    products = tuple(inventory.products)
    index, replicas = [], []
    for i, model in enumerate(models):
        shape = model.shape
        most = inventory.groups(shape.product, shape.tp) * (10 // shape.tenths)
        # Fewer replicas than carry the load are not worth evaluating.
        needed = sum(c.calls * float(w) for c, w in zip(load.callers, model.work, strict=True)) / MAX_UTILISATION
        first = max(1, int(np.ceil(min(needed, most + 1) - 1e-9)))
        index.append(np.full(max(0, most - first + 1), i))
        replicas.append(np.arange(first, most + 1))
    rows = np.concatenate(index) if index else np.zeros(0, dtype=np.int64)
    counts = np.concatenate(replicas) if replicas else np.zeros(0, dtype=np.int64)
    found = evaluate(load, models, rows, counts)
    keep = (found.utilisation <= MAX_UTILISATION + 1e-9) & np.isfinite(found.latency).all(axis=0)
    rows, counts, bandwidth = rows[keep], counts[keep], found.bandwidth[keep]
    assumed = np.array([m.bandwidth if m.shape.tenths < 10 else 0.0 for m in models])
    reserve = np.maximum(0.0, assumed[rows] - bandwidth) if len(rows) else np.zeros(0)
    units = np.array([m.shape.units for m in models], dtype=np.int64)
    product = np.array([products.index(m.shape.product) for m in models], dtype=np.int64)
    return OptionTable(
        load,
        tuple(models),
        rows,
        counts,
        product[rows] if len(rows) else np.zeros(0, dtype=np.int64),
        products,
        units[rows] * counts if len(rows) else np.zeros(0, dtype=np.int64),
        found.latency[:, keep],
        found.utilisation[keep],
        bandwidth,
        reserve,
        tuple(excluded),
    )


def _models(
    load: LlmLoad, catalog: Catalog, inventory: Inventory
) -> tuple[list[InstanceModel], list[tuple[Shape, str]]]:
    models: list[InstanceModel] = []
    excluded: list[tuple[Shape, str]] = []
    for product in inventory.products:
        for tp in catalog.degrees(load.llm.model, product, load.llm.revision):
            if load.llm.tensor_parallel and tp not in load.llm.tensor_parallel:
                continue
            shared = inventory.fractions and (tp == 1 or inventory.shared_groups)
            for tenths in range(1, 11) if shared else (10,):
                shape = Shape(product, tp, tenths)
                if not inventory.groups(product, tp):
                    excluded.append((shape, f"no NVLink domain has {tp} usable GPUs"))
                    continue
                model = instance_model(load, shape, catalog, inventory.card[product])
                if isinstance(model, str):
                    excluded.append((shape, model))
                    continue
                models.append(model)
                models.extend(capped(model, load, catalog, caps(tenths / 10, product)[1:]))
    return models, excluded


def only(table: OptionTable, keep: npt.NDArray[np.bool_] | Ints) -> OptionTable:
    """Return some of the options of a table: a mask or row numbers."""
    return replace(
        table,
        index=table.index[keep],
        replicas=table.replicas[keep],
        product=table.product[keep],
        units=table.units[keep],
        latency=table.latency[:, keep],
        utilisation=table.utilisation[keep],
        bandwidth=table.bandwidth[keep],
        reserve=table.reserve[keep],
    )
