"""Write the synthetic trace of the beam-search example; running it again reproduces it byte for byte.

Fourteen executions. Each takes a number of steps; at every step the generator extends all beams at once (their number
shrinks as beams finish), the verifier scores the results, and a little bookkeeping follows. The number of generator
calls per execution is fixed so that it covers the range of 24 to 844 that published runs of the algorithm report;
durations follow a plain rule with seeded noise and stand for no particular hardware.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

GENERATOR_CALLS = (24, 40, 48, 64, 80, 96, 128, 144, 176, 208, 256, 352, 512, 844)
WIDTH = 16


def main() -> None:
    """Write `beam-search.jsonl` beside this file."""
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
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (Path(__file__).parent / "beam-search.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
