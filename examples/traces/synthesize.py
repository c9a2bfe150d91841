"""Write the synthetic traces of the examples; running it again reproduces them byte for byte.

Durations follow a plain rule with seeded noise and stand for no particular hardware.

`beam-search.jsonl`: fourteen executions. Each takes a number of steps; at every step the generator extends all beams at
once (their number shrinks as beams finish), the verifier scores the results, and a little bookkeeping follows. The
number of generator calls per execution is fixed so that it covers the range of 24 to 844 that published runs of the
algorithm report.

`coding-agent.jsonl`: 150 executions that arrive at random, about two a second. A planner works through a task with
tools; every fourth execution meets a question that it hands to three explorers, which call their own small model many
times at once; while the planner writes, a reviewer reads along. So different LLMs run at the same time, and executions
are of two kinds.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

GENERATOR_CALLS = (24, 40, 48, 64, 80, 96, 128, 144, 176, 208, 256, 352, 512, 844)
WIDTH = 16


def beam_search() -> list[dict[str, Any]]:
    """Return the calls of the beam search."""
    noise = random.Random(20260101)  # noqa: S311 - a reproducible example, not a secret
    lines = []
    for number, total in enumerate(GENERATOR_CALLS):
        execution, clock, left, context = f"e{number:02d}", 0.0, total, 190
        while left:
            beams = min(WIDTH if left > WIDTH else max(1, left), left)
            left -= beams
            for model, (low, high), output in (("generator", (40, 84), None), ("verifier", (1, 1), 1)):
                ends = []
                start = clock
                for _ in range(beams):
                    tokens = output or noise.randint(low, high)
                    prompt = context + noise.randint(-20, 20) + (0 if model == "generator" else 60)
                    cached = 16 * (context // 32) if model == "generator" else 0
                    duration = 0.04 + prompt * 2.0e-5 + tokens * (0.007 + 0.0001 * beams) * noise.uniform(0.95, 1.05)
                    ends.append(round(start + duration, 4))
                    lines.append(
                        {
                            "execution": execution,
                            "model": model,
                            "start": round(start, 4),
                            "end": ends[-1],
                            "inputTokens": prompt,
                            "outputTokens": tokens,
                            "cachedTokens": cached,
                        }
                    )
                clock = round(max(ends) + 0.005, 4)
            context += 24
    return lines


PLANNER, EXPLORER, REVIEWER = "planner", "explorer", "reviewer"
SECONDS_PER_TOKEN = {PLANNER: 0.011, EXPLORER: 0.004, REVIEWER: 0.012}
FIRST = 1_767_225_600.0
"""Unix time of the first day of 2026: arrivals can be read from the trace."""


class Agent:
    """Writes the calls of one execution of the coding agent.

    Args:
        execution: its id.
        noise: where randomness comes from.
    """

    def __init__(self, execution: str, noise: random.Random) -> None:
        self.execution, self.noise = execution, noise
        self.lines: list[dict[str, Any]] = []

    def call(self, model: str, start: float, prompt: int, output: int, parents: list[str]) -> tuple[str, float]:
        """Write a call, and return its id and its end."""
        cached = 16 * (prompt * 3 // 4 // 16)
        computed = (prompt - cached) * 4.0e-5
        duration = 0.03 + computed + output * SECONDS_PER_TOKEN[model] * self.noise.uniform(0.9, 1.1)
        name = f"c{len(self.lines) + 1}"
        record = {"execution": self.execution, "id": name, "parent": parents, "model": model}
        record |= {"start": round(start, 3), "end": round(start + duration, 3)}
        self.lines.append(record | {"inputTokens": prompt, "outputTokens": output, "cachedTokens": cached})
        return name, start + duration

    def explored(self, start: float, parent: str) -> tuple[list[str], float]:
        """Let three explorers search at once; return their last calls and when the last of them is done."""
        last, ends = [], []
        for _ in range(3):
            name, clock, prompt = parent, start, 900
            for _ in range(self.noise.randint(8, 16)):
                name, clock = self.call(EXPLORER, clock, prompt, self.noise.randint(40, 120), [name])
                clock += self.noise.uniform(0.05, 0.4)  # a search in the files
                prompt += 150
            last.append(name)
            ends.append(clock)
        return last, max(ends)

    def run(self, start: float, explores: bool) -> list[dict[str, Any]]:
        """Write the execution that begins at `start`."""
        noise = self.noise
        name, clock = self.call(PLANNER, start, 1500, noise.randint(100, 250), [])
        before = [name]
        if explores:
            before, clock = self.explored(clock, name)
        prompt = 2200
        for _ in range(noise.randint(3, 7)):
            clock += noise.uniform(0.3, 2.0)  # a tool: tests, a build, a search
            reading = self.call(REVIEWER, clock, prompt + 200, noise.randint(30, 80), before)
            name, clock = self.call(PLANNER, clock, prompt, noise.randint(120, 320), before)
            before, clock = [name, reading[0]], max(clock, reading[1])
            prompt += 250
        return self.lines


def coding_agent() -> list[dict[str, Any]]:
    """Return the calls of the coding agent."""
    noise = random.Random(20260102)  # noqa: S311
    lines, start = [], FIRST
    for number in range(150):
        start += noise.expovariate(2)
        lines += Agent(f"{number:03d}", noise).run(round(start, 3), explores=noise.random() < 0.25)
    return lines


def main() -> None:
    """Write the traces beside this file."""
    for name, lines in (("beam-search", beam_search()), ("coding-agent", coding_agent())):
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        (Path(__file__).parent / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
