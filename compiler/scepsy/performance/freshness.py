"""Whether a profile still holds: for the engine's version, the model's revision and the calls.

Pure predicates that return the reason if it does not. The catalog and the planning of measurements use them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scepsy.documents import Profile, Series
from scepsy.documents.units import significant
from scepsy.performance.mix import SAME_MIX, Calls, Mix, mix_factor, token_factor

if TYPE_CHECKING:
    from scepsy.documents.profile import Mix as SeriesMix


def outdated(profile: Profile, engine_version: str, revision: str | None) -> str | None:
    """Return why a profile does not hold for an engine version and a revision; None if it does.

    The reason reads like `measured with vLLM 0.23.0, the engine is 0.24.0`.

    Args:
        profile: the profile, of any source. For an estimated one the caller decides what follows: its tables are not
            exact for any version.
        engine_version: version of the engine that will serve.
        revision: the revision that the LLM pins; None if it pins none, so that any matches.
    """
    spec = profile.spec
    word = "for" if spec.source == "estimated" else "with"
    if spec.engine.version != engine_version:
        return f"{spec.source} {word} vLLM {spec.engine.version}, the engine is {engine_version}"
    if revision is not None and spec.revision != revision:
        had = f"revision {spec.revision}" if spec.revision else "no revision pinned"
        return f"{spec.source} {word} {had}, the workflow pins {revision}"
    return None


def replays(profile: Profile, mix: Mix, known: Iterable[Calls]) -> bool:
    """Return whether a profile was taken by replaying these calls, or others of the same trace with the same mix.

    A trace has the calls of several LLMs, so its digest alone does not say whose were replayed. A profile that does not
    name the LLM counts if the trace has only one LLM of its model. An estimate may be for the tokens of a trace, but
    replayed nothing: there was no cache to hit.

    Args:
        profile: the profile.
        mix: the calls, as recorded or stated.
        known: the calls of all LLMs of the project, these included.
    """
    spec = profile.spec
    digest, llm = spec.provenance.trace_digest, spec.provenance.llm
    if spec.source == "estimated" or digest is None:
        return False
    candidates = [calls for calls in known if (calls.model, calls.digest) == (spec.model, digest)]
    if llm is None and len({calls.llm for calls in candidates}) > 1:
        return False
    return any(llm in (None, calls.llm) and mix_factor(calls.mix, mix) <= SAME_MIX for calls in candidates)


def calls_mismatch(series: Series, mix: Mix, *, replayed: bool = False) -> str | None:
    """Return how calls differ from those of a series; None if computed prompts and outputs are within `SAME_MIX`.

    The reason reads like `calls had 512/64 tokens, now 900/70`.

    Args:
        series: the series.
        mix: the calls now.
        replayed: whether the series was taken by replaying these calls (`replays`). Then all prompt tokens are
            compared: a trace has the cache hits of another server, or none, the series those of its own engine.
    """
    if replayed:
        factor = max(token_factor(series.mix.input, mix.input), token_factor(series.mix.output, mix.output))
    else:
        factor = mix_factor(series.mix, mix)
    return None if factor <= SAME_MIX else f"calls had {_tokens(series.mix)} tokens, now {_tokens(mix)}"


def _tokens(mix: SeriesMix | Mix) -> str:
    """Format a mix as options do, prompt/generated, with the cached prompt tokens."""
    cached = f" ({_number(mix.cached)} cached)" if mix.cached >= 0.5 else ""
    return f"{_number(mix.input)}{cached}/{_number(mix.output)}"


def _number(tokens: float) -> str:
    return significant(tokens, 3) if tokens < 100 else f"{tokens:.0f}"
