"""Whether a profile's figures still belong to what is asked: the engine's version, the model's revision, the calls.

Pure predicates that say why not, with the figures, for all that decide over profiles: planning of measurements, and the
catalog.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scepsy.documents import Profile, Series
from scepsy.documents.units import significant

if TYPE_CHECKING:
    from scepsy.documents.profile import Mix as SeriesMix
    from scepsy.performance.catalog import Mix

SAME_MIX = 1.25
"""Token means within this factor of a series' mix count as the same mix."""


def outdated(profile: Profile, engine_version: str, revision: str | None) -> str | None:
    """Return why a profile's figures are not those of an engine and a revision; None if they are.

    The reason reads like `measured with vLLM 0.23.0, the engine is 0.24.0`.

    Args:
        profile: the profile, of any source. What follows for an estimated one is the caller's to decide: its tables say
            nothing exact about any version.
        engine_version: version of the engine that will serve.
        revision: the revision that the LLM pins; None if it pins none, and any will do.
    """
    spec = profile.spec
    word = "for" if spec.source == "estimated" else "with"
    if spec.engine.version != engine_version:
        return f"{spec.source} {word} vLLM {spec.engine.version}, the engine is {engine_version}"
    if revision is not None and spec.revision != revision:
        had = f"revision {spec.revision}" if spec.revision else "no revision pinned"
        return f"{spec.source} {word} {had}, the workflow pins {revision}"
    return None


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls to one LLM of a workflow, which a measurement may have replayed.

    Attributes:
        model: the LLM's model.
        llm: its name.
        digest: as Profiles note it: of the trace, or of the calls that a job makes up where there is none.
        mix: mean tokens of the calls.
    """

    model: str
    llm: str
    digest: str
    mix: Mix


def replays(profile: Profile, mix: Mix, known: Iterable[Calls]) -> bool:
    """Return whether a profile was taken with such very calls: with these, or with others that were recorded alike.

    A trace has the calls of several LLMs, so its digest alone does not say whose were replayed. A profile that does not
    name the LLM counts where the trace has only one of its model. An estimate may be for the tokens of a trace, but
    replayed nothing: no cache was there to be hit.

    Args:
        profile: the profile.
        mix: the calls, as recorded or stated.
        known: the calls of all LLMs that there are; those in question among them.
    """
    spec = profile.spec
    digest, llm = spec.provenance.trace_digest, spec.provenance.llm
    if spec.source == "estimated" or digest is None:
        return False
    candidates = [calls for calls in known if (calls.model, calls.digest) == (spec.model, digest)]
    if llm is None and len({calls.llm for calls in candidates}) > 1:
        return False
    return any(llm in (None, calls.llm) and change(calls.mix, mix) <= SAME_MIX for calls in candidates)


def change(a: SeriesMix | Mix, b: SeriesMix | Mix) -> float:
    """Return the largest factor between two mixes, at least 1: of the prompt tokens to compute, and of the output."""
    return max(_factor(_computed(a), _computed(b)), _factor(a.output, b.output))


def moved(series: Series, mix: Mix, *, replayed: bool = False) -> str | None:
    """Return how calls differ from those of a series; None if computed prompts and outputs are within `SAME_MIX`.

    The reason reads like `calls had 512/64 tokens, now 900/70`.

    Args:
        series: the series.
        mix: the calls now.
        replayed: whether the series was taken with these very calls (`replays`). Then all prompt tokens are compared: a
            trace says what another server's cache held, or nothing, the series what this engine found.
    """
    if replayed:
        factor = max(_factor(series.mix.input, mix.input), _factor(series.mix.output, mix.output))
    else:
        factor = change(series.mix, mix)
    return None if factor <= SAME_MIX else f"calls had {_tokens(series.mix)} tokens, now {_tokens(mix)}"


def _computed(mix: SeriesMix | Mix) -> float:
    return mix.input - mix.cached


def _factor(a: float, b: float) -> float:
    """Return the factor between two numbers of tokens; below one they count as one."""
    a, b = max(1.0, a), max(1.0, b)
    return max(a, b) / min(a, b)


def _tokens(mix: SeriesMix | Mix) -> str:
    """Write a mix as options do, prompt/generated, and how many of the prompt's tokens were cached."""
    cached = f" ({_number(mix.cached)} cached)" if mix.cached >= 0.5 else ""
    return f"{_number(mix.input)}{cached}/{_number(mix.output)}"


def _number(tokens: float) -> str:
    return significant(tokens, 3) if tokens < 100 else f"{tokens:.0f}"
