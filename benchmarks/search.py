"""Search time: five LLMs, tenths of GPUs, on 16 GPUs and beyond."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import TypeVar

from benchmarks.measure import HEAD, cpu_ms, row
from scepsy.allocation import build_problem, solve
from scepsy.demand import from_statistics
from scepsy.documents import Profile, Workflow, load_file
from scepsy.documents.model import Document
from scepsy.performance import Catalog
from scepsy.placement import Domain, Inventory

D = TypeVar("D", bound=Document)
PRODUCT = "NVIDIA-H100-80GB-HBM3"


def load(path: str, kind: type[D]) -> D:
    """Load one shipped example document."""
    return load_file(files("scepsy.examples") / path, path, kind)[1][0].document


def inventory(nodes: int) -> Inventory:
    """Return nodes with eight connected H100 each."""
    domains = tuple(Domain(f"node-{n}", tuple(f"GPU-{n}-{g}" for g in range(8))) for n in range(nodes))
    return Inventory({PRODUCT: domains}, {PRODUCT: 80 * 2**30}, 0, True)


def main() -> None:
    """Report the time of the tables, and of the exact search with placement, by cluster size."""
    workflow = load("workflows/support-desk.yaml", Workflow)
    profiles = [
        load(f"profiles/{p.name}", Profile)
        for p in sorted((files("scepsy.examples") / "profiles").iterdir(), key=lambda p: p.name)
    ]
    workflows = {"support-desk": workflow}
    demands = {"support-desk": from_statistics(workflow.spec.demand.statistics)}
    catalog = Catalog(profiles, "0.24.0")
    print("Search: five LLMs (support-desk), shares in tenths, TP 1/2/4/8, exact with proof")
    print(HEAD)
    for nodes in (2, 8, 32):
        stock = inventory(nodes)
        build = partial(build_problem, workflows, demands, catalog, stock)
        problem = build()
        solution = solve(problem, stock)
        options = sum(len(table.index) for table in problem.tables)
        name = f"{nodes * 8} GPUs, {options} options"
        runs = 9 if nodes < 32 else 3
        print(row(f"{name}: tables", cpu_ms(build, runs)))
        print(row(f"{name}: search and placement", cpu_ms(partial(solve, problem, stock), runs)))
        print(f"    gap {solution.gap:.4%}, {solution.tried} allocation(s) tried for placement")
