"""An agent: retrieval with a branch, a fan-out and a loop, as code that knows nothing of Scepsy writes it.

It runs in the environment of vLLM, for the OpenAI client; all that tells its executions apart is the `traceparent` that
every instrumented HTTP client sends. On standard output it says what it did, as the client saw it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from openai import AsyncOpenAI

GENERATOR, RERANKER = "generator", "reranker"
PASSAGE = "The recorder forwards every call byte for byte and writes one line for each of them. " * 4


@dataclass(frozen=True)
class Made:
    """A call as the client saw it.

    Attributes:
        step: what it was made for: `plan`, `rank`, `answer`, `draft`, `review` or `title`.
        model: the LLM's name.
        operation: `chat` or `completions`.
        input: prompt tokens, None if the answer did not say.
        output: generated tokens, None if the answer did not say.
        text: what was generated.
        start: when the client was asked to make it, Unix seconds.
        end: when its answer was there.
    """

    step: str
    model: str
    operation: str
    input: int | None
    output: int | None
    text: str
    start: float
    end: float


@dataclass
class Execution:
    """One execution of the workflow.

    Attributes:
        trace: the trace-id of its calls.
        width: how many calls the fan-out made; 0 where the other branch was taken.
        rounds: how often the loop ran.
        calls: its calls, in the order in which they ended.
    """

    trace: str
    width: int
    rounds: int
    calls: list[Made] = field(default_factory=list)


class Agent:
    """Makes the calls of one execution.

    Args:
        client: the client that all executions share.
        execution: what it is, and where its calls are noted.
        metered: whether streams of the reranker ask for their token counts.
    """

    def __init__(self, client: AsyncOpenAI, execution: Execution, metered: bool) -> None:
        self._client = client
        self._execution = execution
        self._metered = metered

    async def run(self) -> None:
        """Plan; rank passages side by side, or answer at once; then draft and review until it is good enough."""
        plan = await self._chat("plan", GENERATOR, f"What is to be done? {PASSAGE}", tokens=24, stream=False)
        if self._execution.width:
            ranked = await asyncio.gather(
                *(
                    self._complete("rank", RERANKER, f"{number}. {PASSAGE}", tokens=240, stream=number % 3 != 2)
                    for number in range(self._execution.width)
                )
            )
            draft = " ".join(ranked)
        else:
            draft = await self._chat("answer", RERANKER, plan, tokens=32, stream=True)
        for number in range(self._execution.rounds):
            # Asked for in every second round only: the server is told to send the counts anyway.
            draft = await self._chat(
                "draft", GENERATOR, f"{PASSAGE} Improve: {draft}", tokens=32, stream=True, usage=number % 2 == 0
            )
            await self._chat("review", RERANKER, f"Is this good? {draft}", tokens=12, stream=False)
        await self._complete("title", GENERATOR, f"A title for: {draft}", tokens=16, stream=False, may_stop=True)

    async def _chat(
        self, step: str, model: str, prompt: str, tokens: int, stream: bool, usage: bool | None = None
    ) -> str:
        create, start = self._client.chat.completions.create, time.time()
        answer = await create(
            model=model,
            messages=[{"role": "system", "content": "You are brief."}, {"role": "user", "content": prompt}],
            max_tokens=tokens,
            **self._options(stream, usage, may_stop=False),
        )
        text, counts = await _stream(answer) if stream else (answer.choices[0].message.content, answer.usage)
        return self._note(step, model, "chat", counts, text, start)

    async def _complete(
        self, step: str, model: str, prompt: str, tokens: int, stream: bool, may_stop: bool = False
    ) -> str:
        create, start = self._client.completions.create, time.time()
        options = self._options(stream, None, may_stop)
        answer = await create(model=model, prompt=prompt, max_tokens=tokens, **options)
        text, counts = await _stream(answer) if stream else (answer.choices[0].text, answer.usage)
        return self._note(step, model, "completions", counts, text, start)

    def _options(self, stream: bool, usage: bool | None, may_stop: bool) -> dict[str, Any]:
        options: dict[str, Any] = {
            "stream": stream,
            "extra_headers": {"traceparent": f"00-{self._execution.trace}-{secrets.token_hex(8)}-01"},
            # Random weights end an answer at any time.
            "extra_body": {"ignore_eos": not may_stop},
        }
        if stream and (self._metered if usage is None else usage):
            options["stream_options"] = {"include_usage": True}
        return options

    def _note(self, step: str, model: str, operation: str, usage: Any, text: str | None, start: float) -> str:
        counts = (None, None) if usage is None else (usage.prompt_tokens, usage.completion_tokens)
        self._execution.calls.append(Made(step, model, operation, *counts, text or "", start, time.time()))
        return text or ""


async def _stream(chunks: Any) -> tuple[str, Any]:
    pieces, usage = [], None
    async for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append((choice.delta.content if hasattr(choice, "delta") else choice.text) or "")
    return "".join(pieces), usage


async def run(url: str, key: str, executions: int, concurrency: int, metered: bool) -> list[Execution]:
    """Run the workflow a number of times, some of them side by side, and return what was done."""
    # Every second execution takes the branch with the fan-out.
    made = [
        Execution(secrets.token_hex(16), (2 + number % 3) * (number % 2), 1 + number % 3)
        for number in range(executions)
    ]
    places = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120) as client:
        # The client imports these when they are first used, for a second in which nothing else is sent.
        _ = client.chat.completions, client.completions

        async def one(execution: Execution) -> None:
            async with places:
                await Agent(client, execution, metered).run()

        await asyncio.gather(*map(one, made))
    return made


def main() -> None:
    """Run as a command says, and print what was done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("--executions", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--unmetered", action="store_true")
    asked = parser.parse_args()
    made = asyncio.run(run(asked.url, asked.key, asked.executions, asked.concurrency, not asked.unmetered))
    json.dump([asdict(execution) for execution in made], sys.stdout)


if __name__ == "__main__":
    main()
