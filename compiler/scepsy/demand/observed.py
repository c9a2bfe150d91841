"""Demand as `scepsy drift` observed it, if it differs from the Workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scepsy.demand.statistics import Demand, TokenUse
from scepsy.documents import ObservedWorkflow


def as_observed(demand: Demand, observed: ObservedWorkflow) -> Demand:
    """Return a demand with the calls and the token counts that were observed; LLMs that it lacks are ignored.

    The call graph stays as recorded: observed counts do not contain what waits for what.
    """
    pairs = {name: (llm, observed.llm(name)) for name, llm in demand.llms.items()}
    more = demand.times({name: now.calls / llm.calls if now.calls else 1.0 for name, (llm, now) in pairs.items()})
    return longer(
        more,
        {n: s.input_tokens / llm.input.mean for n, (llm, s) in pairs.items() if s.input_tokens and llm.input.mean},
        {n: s.output_tokens / llm.output.mean for n, (llm, s) in pairs.items() if s.output_tokens and llm.output.mean},
    )


def longer(demand: Demand, prompt: Mapping[str, float], output: Mapping[str, float]) -> Demand:
    """Return a demand whose tokens per call are multiplied by factors; cached tokens grow with the prompt.

    Args:
        demand: the demand.
        prompt: factors of prompt tokens by LLM; 1 where none is given.
        output: factors of generated tokens.
    """
    llms = {
        name: replace(
            llm,
            input=_times(llm.input, prompt.get(name, 1.0)),
            output=_times(llm.output, output.get(name, 1.0)),
            cached=_times(llm.cached, prompt.get(name, 1.0)),
        )
        for name, llm in demand.llms.items()
    }
    return replace(demand, llms=llms)


def _times(use: TokenUse, factor: float) -> TokenUse:
    if factor == 1.0:
        return use
    return TokenUse(use.mean * factor, None if use.max is None else max(use.max, use.mean * factor))
