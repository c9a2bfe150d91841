"""Demand as it was observed, where that differs from what the Workflow says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scepsy.demand.statistics import Demand, LlmDemand, TokenUse
from scepsy.documents import ObservedWorkflow


def as_observed(demand: Demand, observed: ObservedWorkflow) -> Demand:
    """Return a demand with the calls and the token counts that were observed; LLMs that it lacks are ignored.

    More calls per execution make its path longer by as much. Recorded executions are not changed: their makespans stay
    those of the trace.
    """
    own = {name: (llm, observed.llm(name)) for name, llm in demand.llms.items()}
    calls = {name: seen.calls / llm.calls for name, (llm, seen) in own.items() if seen.calls is not None}
    more = demand.times({name: calls.get(name, 1.0) for name in own})
    llms = {name: _longer_path(llm, calls.get(name, 1.0)) for name, llm in more.llms.items()}
    given = {name: seen for name, (_, seen) in own.items()}
    return longer(
        replace(more, llms=llms),
        {n: s.input_tokens / llms[n].input.mean for n, s in given.items() if s.input_tokens and llms[n].input.mean},
        {n: s.output_tokens / llms[n].output.mean for n, s in given.items() if s.output_tokens and llms[n].output.mean},
    )


def _longer_path(llm: LlmDemand, factor: float) -> LlmDemand:
    return replace(llm, steps=llm.steps * factor)


def longer(demand: Demand, prompt: Mapping[str, float], output: Mapping[str, float]) -> Demand:
    """Return a demand whose calls have so many times the tokens; cached ones grow with the prompt.

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
