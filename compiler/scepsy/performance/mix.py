"""The token mix: mean tokens of the calls of one caller, and how far two mixes are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scepsy.documents.profile import Mix as SeriesMix

SAME_MIX = 1.25
"""Token means within this factor of a series' mix count as the same mix."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Mean tokens of the calls of one caller.

    Attributes:
        input: prompt tokens, cached ones included.
        output: generated tokens.
        cached: prompt tokens found in the prefix cache.
    """

    input: float
    output: float
    cached: float

    @property
    def computed(self) -> float:
        """Prompt tokens that must be computed, at least one."""
        return max(1.0, self.input - self.cached)


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls to one LLM of a workflow that a measurement may have replayed.

    Attributes:
        model: the LLM's model.
        llm: its name.
        digest: as in a Profile's provenance: of the trace, or of the synthetic calls of a job if there is no trace.
        mix: mean tokens of the calls.
    """

    model: str
    llm: str
    digest: str
    mix: Mix


def mix_factor(a: SeriesMix | Mix, b: SeriesMix | Mix) -> float:
    """Return the largest factor between two mixes, at least 1: of the prompt tokens to compute, and of the output."""
    return max(token_factor(_computed(a), _computed(b)), token_factor(a.output, b.output))


def token_factor(a: float, b: float) -> float:
    """Return the factor between two numbers of tokens, at least 1; numbers below one count as one."""
    a, b = max(1.0, a), max(1.0, b)
    return max(a, b) / min(a, b)


def _computed(mix: SeriesMix | Mix) -> float:
    return mix.input - mix.cached
