"""The TraceSummary document: what the compiler needs of a trace, small enough to be committed and reviewed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scepsy.documents.model import Document, FileMetadata, Items, KubernetesName, Model, Tokens, text_like
from scepsy.documents.units import Duration, Rate
from scepsy.documents.workflow import Positive, TokenDistribution

Seconds = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0)]


class TraceSource(Model):
    """The trace that was summarised."""

    digest: Annotated[str, *text_like(r"sha256:[0-9a-f]{64}", "a digest such as sha256:0a1b…", 71)]
    """Digest of its file."""
    executions: Annotated[int, Field(ge=1)]
    """Workflow executions in it."""
    calls: Annotated[int, Field(ge=1)]
    """LLM calls that succeeded."""
    failed: Count = 0
    """LLM calls that failed; they are left out of everything below."""
    estimated: dict[str, Count] = {}
    """Calls of which a field was estimated, by field."""


class GroupSize(Model):
    """Groups of calls that start together."""

    size: Annotated[int, Field(ge=1)]
    """Calls in a group."""
    count: Positive
    """Mean number of such groups per execution."""


class LlmSummary(Model):
    """How one LLM is called by one execution."""

    llm: KubernetesName
    """The LLM's name."""
    calls: Positive
    """Mean number of calls."""
    parallelism: Annotated[float, Field(ge=1, le=1e6)]
    """Sum of all call durations ÷ sum of the time in which at least one call runs."""
    groups: Annotated[Items[GroupSize], Field(min_length=1)]
    """Groups of calls by size."""
    group_seconds: Annotated[float, Field(gt=0, le=1e9)]
    """Recorded mean from the start of a group until its last call ended, seconds."""
    input_tokens: TokenDistribution
    """Prompt tokens per call, cached ones included."""
    output_tokens: TokenDistribution
    """Generated tokens per call."""
    cached_tokens: TokenDistribution = TokenDistribution(mean=0.0)
    """Prompt tokens per call that the prefix cache held."""


class ArrivalSummary(Model):
    """How executions arrived."""

    rate: Rate
    """Executions per second."""
    low: Rate
    """Lower end of its 95 % interval."""
    high: Rate
    """Upper end of it."""
    dispersion: Annotated[float, Field(ge=0)]
    """Variance ÷ mean of the number of arrivals in a window: 1 for Poisson arrivals, more for bursts."""
    window: Duration
    """The window."""
    executions: Annotated[int, Field(ge=2)]
    """Arrivals that it rests on."""


class ExecutionSummary(Model):
    """One recorded execution."""

    calls: dict[str, Tokens]
    """Calls per LLM."""
    seconds: dict[str, Seconds]
    """Sum of the durations of its calls, per LLM."""
    tail: Seconds = 0.0
    """Seconds between its last call and its end."""
    steps: Annotated[Items[str], Field(min_length=1)]
    """Its call graph: `LLM gap seconds [xCALLS] [< steps it waited for, by position from 0]`."""


class TraceSummarySpec(Model):
    """The content."""

    source: TraceSource
    """What was summarised."""
    outside: Duration
    """Mean time of an execution outside LLM calls."""
    llms: Annotated[Items[LlmSummary], Field(min_length=1, max_length=200)]
    """Per LLM."""
    arrivals: ArrivalSummary | None = None
    """How executions arrived, where the trace knows it."""
    executions: Annotated[Items[ExecutionSummary], Field(min_length=1)]
    """Recorded executions; of a large trace an even sample, by how long they took."""


class TraceSummary(Document):
    """A recorded workflow in short; written by `scepsy trace stats --summary`."""

    kind: Literal["TraceSummary"]
    """The kind of document."""
    metadata: FileMetadata
    """Its name."""
    spec: TraceSummarySpec
    """Its content."""
