"""The calls that a profiling job replays, as text in the native trace format and compressed for a Kubernetes object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_CALLS = 500
"""Calls that a job replays, about; more would not make the mean more certain than its own interval."""
SEED = "profiling job"
"""Of random choices, which must be repeatable."""


@dataclass(frozen=True)
class JobCalls:
    """The calls to one LLM for a job.

    Attributes:
        text: the trace in the native format.
        packed: the text compressed, at most `compressed_text.LIMIT` characters.
        source: `recorded`, or `made` (synthetic) from a summary or statistics.
        digest: of the trace that they come from; of `text` for synthetic calls.
        calls: how many there are.
        of: how many the trace has to this LLM; for synthetic calls the same as `calls`.
    """

    text: str
    packed: str
    source: Literal["recorded", "made"]
    digest: str
    calls: int
    of: int
