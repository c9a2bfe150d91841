"""Allocations of problems that are too large to enumerate: objective, gap and CPU time, on random workflows."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from importlib.resources import files

from benchmarks.search import inventory, load
from scepsy.allocation import build_problem, solve
from scepsy.demand import Demand, from_statistics
from scepsy.documents import Profile, Workflow
from scepsy.performance import Catalog
from scepsy.pipeline import loads

MODELS = {
    "Qwen/Qwen3-0.6B": 0.02,
    "Qwen/Qwen3-8B": 0.15,
    "meta-llama/Llama-3.1-8B-Instruct": 0.15,
    "Qwen/Qwen3-32B": 0.6,
}
"""Models of the shipped H100 profiles, and GPU seconds that a call takes about."""
SIZES = ((6, 24), (12, 64), (20, 128), (34, 64))
"""LLMs and GPUs."""


def workflows(seed: int, llms: int, gpus: int, load_per_gpu: float = 0.35) -> dict[str, Workflow]:
    """Return workflows of three or four LLMs whose work is about a third of the GPUs' time."""
    draw = random.Random(seed)
    names = [(f"llm-{i:03d}", draw.choice(list(MODELS))) for i in range(llms)]
    made: dict[str, Workflow] = {}
    for at in range(0, llms, 4):
        own = names[at : at + 4]
        stats = [
            {
                "llm": name,
                "calls": calls,
                "fanOut": calls if draw.random() < 0.3 else 1,
                "inputTokens": {"mean": draw.randint(300, 3000)},
                "outputTokens": {"mean": draw.randint(20, 300)},
            }
            for name, _ in own
            for calls in [draw.choice([1, 2, 4, 8])]
        ]
        work = sum(s["calls"] * MODELS[model] for s, (_, model) in zip(stats, own, strict=True))
        rate = gpus * load_per_gpu * len(own) / llms / work
        made[f"workflow-{at:03d}"] = Workflow.model_validate(
            {
                "apiVersion": "scepsy.dev/v1alpha1",
                "kind": "Workflow",
                "metadata": {"name": f"workflow-{at:03d}"},
                "spec": {
                    "target": {"rate": f"{rate:.4g}/s"},
                    "llms": [{"name": name, "model": model, "maxModelLen": 8192} for name, model in own],
                    "demand": {"statistics": {"outside": "300ms", "llms": stats}},
                },
            }
        )
    return made


def main() -> None:
    """Report per size and seed what the search reaches, how good it is proven to be, and what it takes."""
    profiles = [
        load(f"profiles/{p.name}", Profile)
        for p in sorted((files("scepsy.examples") / "profiles").iterdir(), key=lambda p: p.name)
    ]
    catalog = Catalog(profiles, "0.24.0")
    print("Large allocations: random workflows on H100, shares in tenths, TP 1/2/4/8, seeds 1 to 3")
    print(f"  {'':32} {'objective':>10} {'gap':>8} {'tables s':>9} {'search s':>9}")
    for llms, gpus in SIZES:
        for seed in (1, 2, 3):
            made = workflows(seed, llms, gpus)
            demands: Mapping[str, Demand] = {n: from_statistics(w.spec.demand.statistics) for n, w in made.items()}
            assert len(loads(made, demands)) == llms
            stock = inventory(gpus // 8)
            begun = time.process_time()
            problem = build_problem(made, demands, catalog, stock)
            built = time.process_time()
            found = solve(problem, stock)
            ended = time.process_time()
            name = f"{llms} LLMs, {gpus} GPUs, seed {seed}"
            print(f"  {name:32} {found.achieved:10.4f} {found.gap:8.2%} {built - begun:9.1f} {ended - built:9.1f}")
