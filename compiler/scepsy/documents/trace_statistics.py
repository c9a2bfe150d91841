"""What `trace stats --output json` prints."""

from __future__ import annotations

from typing import Literal

from scepsy.documents.command_results import Failure
from scepsy.documents.model import Document, Items, Model


class Estimate(Model):
    """A mean over executions, and how sure it is."""

    mean: float
    """Σ numerator ÷ Σ denominator over executions."""
    low: float | None = None
    """Lower end of its 95 % bootstrap interval; null with one execution."""
    high: float | None = None
    """Upper end of it."""


class ShareStatistics(Model):
    """The share of an LLM in the LLM time of single executions."""

    mean: float
    """Mean over executions, each counting the same."""
    p10: float
    """10th percentile."""
    p90: float
    """90th percentile."""
    least: float
    """Smallest."""
    most: float
    """Largest."""
    unstable: bool
    """Whether it varies by much more than chance."""


class LlmStatistics(Model):
    """How one LLM is called."""

    llm: str
    """Its name in the trace."""
    calls: Estimate
    """Calls per execution."""
    parallelism: Estimate | None = None
    """Sum of call durations ÷ time in which at least one call runs; null where no call takes time."""
    group_size: Estimate
    """Calls that start together."""
    seconds: Estimate
    """Seconds per call."""
    input_tokens: Estimate
    """Prompt tokens per call, cached ones included."""
    output_tokens: Estimate
    """Generated tokens per call."""
    cached_tokens: Estimate
    """Cached prompt tokens per call."""
    share: Estimate | None = None
    """Part of all LLM time; null where no call takes time."""
    spread: ShareStatistics | None = None
    """How the share differs between executions; null with too few of them."""


class SpanStatistics(Model):
    """From the beginning of an execution to its end, seconds."""

    mean: Estimate
    """Mean."""
    p50: float
    """Median."""
    p95: float
    """95th percentile."""


class Counted(Model):
    """How many calls."""

    what: str
    """Of what."""
    calls: int
    """So many."""


class KindPart(Model):
    """What an execution of one kind spends in one LLM."""

    llm: str
    """The LLM."""
    calls: float
    """Mean calls."""
    seconds: float
    """Mean LLM seconds."""


class KindOfExecution(Model):
    """One of two kinds of executions."""

    fraction: float
    """Its part of the executions."""
    llms: Items[KindPart]
    """Per LLM."""


class ArrivalStatistics(Model):
    """How executions arrived."""

    rate: float
    """Executions per second, over the whole time, pauses included."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""
    dispersion: float
    """Variance ÷ mean of the number of arrivals in a window: 1 for Poisson arrivals, more for bursts."""
    window: float
    """The window, seconds."""
    pauses: int = 0
    """Intervals too long to be chance."""
    pause_seconds: float = 0.0
    """Their length together."""
    rate_without_pauses: float | None = None
    """Executions per second in the rest of the time."""


class TraceStatistics(Document):
    """What `scepsy trace stats --output json` prints."""

    kind: Literal["TraceStatistics"] = "TraceStatistics"
    """The kind of object."""
    trace: str = ""
    """The file."""
    digest: str = ""
    """Its digest."""
    executions: int = 0
    """Executions with a call that succeeded."""
    calls: int = 0
    """Calls that succeeded."""
    failed: Items[Counted] = ()
    """Calls that failed, by reason; they count nowhere else."""
    estimated: Items[Counted] = ()
    """Calls of which a field was estimated, by field."""
    unknown_parents: int = 0
    """Calls that name a parent that is not in the trace."""
    unended_parents: int = 0
    """Calls that name a parent that had not ended when they began, as in a cycle; there the times decide."""
    llms: Items[LlmStatistics] = ()
    """Per LLM, by name."""
    outside: Estimate | None = None
    """Seconds per execution in which no call runs."""
    span: SpanStatistics | None = None
    """How long executions take."""
    variation: float = 0.0
    """Standard deviation ÷ mean of the LLM seconds per execution."""
    tail: float = 0.0
    """Part of all LLM seconds that the longest tenth of executions holds."""
    stable: bool | None = None
    """Whether means are a safe basis; null with too few executions to decide."""
    kinds: Items[KindOfExecution] = ()
    """Two kinds of executions, if there are."""
    kinds_differ_in: str = ""
    """What distinguishes them."""
    arrivals: ArrivalStatistics | None = None
    """How executions arrived."""
    arrivals_unknown: str = ""
    """Why the arrivals are unknown; empty if they are known."""
    warnings: Items[str] = ()
    """What makes means an unsafe basis, with numbers."""
    error: Failure | None = None
    """Why it failed."""
