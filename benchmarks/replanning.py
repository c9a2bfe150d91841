"""How many instances start when demand changes a little, with and without regard to what runs."""

from __future__ import annotations

import random
from collections import Counter

from benchmarks.search import PRODUCT, inventory, load
from scepsy.allocation import build_problem, replan, solve
from scepsy.demand import from_statistics
from scepsy.documents import Profile, Workflow
from scepsy.documents.plan import Instance
from scepsy.performance import Catalog
from scepsy.placement import Placed, name, running

CHANGES = 100
SPREAD = 0.10
PROFILES = ("qwen3-8b-h100", "qwen3-0.6b-h100", "llama-3.1-8b-instruct-h100")


def started(placed: tuple[Placed, ...], before: list[Instance]) -> int:
    """Return how many placed instances were not running on these GPUs with this share."""
    there = Counter((i.llm, i.gpus, round(i.share * 10)) for i in before)
    return sum((Counter((p.llm, p.gpus, p.tenths) for p in placed) - there).values())


def main() -> None:
    """Walk through small changes of demand on 64 GPUs, with and without re-planning."""
    catalog = Catalog([load(f"profiles/{p}.yaml", Profile) for p in PROFILES], "0.24.0")
    base = {n: load(f"workflows/{n}.yaml", Workflow) for n in ("rag-reranker", "support-desk")}
    demands = {n: from_statistics(w.spec.demand.statistics) for n, w in base.items()}
    rates = {"rag-reranker": 100.0, "support-desk": 10.0}
    stock = inventory(8)
    rng = random.Random(1)
    fresh: list[Instance] = []
    kept: list[Instance] = []
    fresh_starts = kept_starts = 0
    worst, worse = 0.0, 0.0
    for step in range(CHANGES + 1):
        workflows = {}
        for n, w in base.items():
            rate = rates[n] * (1 + rng.uniform(-SPREAD, SPREAD) * (step > 0))
            target = w.spec.target.model_copy(update={"rate": rate})
            workflows[n] = w.model_copy(update={"spec": w.spec.model_copy(update={"target": target})})
        best = solve(build_problem(workflows, demands, catalog, stock), stock)
        placed = best.placed  # the first plan
        if step:
            still = running(kept, dict.fromkeys({i.llm for i in kept}, PRODUCT), stock)
            result = replan(best, stock, kept, still, 0.02, 0.02)
            placed = result.solution.placed
            fresh_starts += started(best.placed, fresh)
            kept_starts += result.started
            loss = result.solution.achieved / best.achieved - 1
            worst, worse = max(worst, loss), worse + loss / CHANGES
        fresh = name(best.placed, fresh, (), stock)
        kept = name(placed, kept, (), stock)
    size = f"{stock.gpus(PRODUCT)} GPUs, {len(kept)} instances"
    print(f"Re-planning: {CHANGES} changes of demand within ±{SPREAD:.0%}, {size}")
    print(f"  instances started: {fresh_starts} without regard to the plan in force, {kept_starts} with re-planning")
    print(f"  objective against the best: mean {worse:+.2%}, worst {worst:+.2%}")
