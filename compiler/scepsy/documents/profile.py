"""The Profile document: how fast one model runs on one GPU product, at rising concurrency."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scepsy.documents.model import (
    Day,
    Document,
    FileMetadata,
    Items,
    Model,
    ModelId,
    Product,
    Revision,
    Tokens,
    Version,
)
from scepsy.documents.units import Duration, Rate, Share, format_duration, significant

Count = Annotated[int, Field(ge=1)]
TensorParallel = Literal[1, 2, 4, 8]
ProfileSource = Literal["measured", "estimated", "imported"]
Neighbours = Literal["idle", "busy"]
"""What the rest of a GPU did while a share of it was measured."""


class Engine(Model):
    """The serving engine that was profiled."""

    name: Literal["vllm"]
    """The engine."""
    version: Version
    """Its version."""


class Architecture(Model):
    """What the model's config.json says, as far as memory depends on it."""

    parameters: Count
    """Number of parameters."""
    bytes_per_parameter: Annotated[float, Field(gt=0, le=8)]
    """Bytes of one weight: 2 for bfloat16."""
    layers: Count
    """Hidden layers."""
    attention_heads: Count
    """Attention heads; tensor parallelism must divide them."""
    kv_heads: Count
    """Key-value heads; beyond their number tensor parallelism replicates them."""
    head_dim: Count
    """Size of one head."""
    context_length: Count
    """Longest sequence in tokens (max_position_embeddings)."""
    kv_bytes_per_element: Annotated[float, Field(gt=0, le=8)] = 2.0
    """Bytes of one element of the KV cache."""


class Provenance(Model):
    """Where the measurements come from."""

    tool: str
    """Program and version that produced them."""
    database: str | None = None
    """The tool's source, such as a table of kernel timings."""
    command: str | None = None
    """The command that reproduces them."""
    image_digest: str | None = None
    """Digest of the engine image that was measured."""
    driver: str | None = None
    """GPU driver version."""
    flags: Items[str] = ()
    """Engine flags."""
    trace_digest: str | None = None
    """Digest of the calls that were replayed: of the trace that has them, or of synthetic calls."""
    llm: str | None = None
    """The LLM of that trace whose calls were replayed; unset where the calls are those of no LLM in particular."""
    date: Day | None = None
    """Day of the measurement, YYYY-MM-DD."""
    notes: str | None = None
    """Method and known limits."""


class Mix(Model):
    """The calls that were running while the series was taken."""

    input: Tokens
    """Mean prompt tokens, cached ones included."""
    output: Annotated[float, Field(ge=1, le=10_000_000)]
    """Mean generated tokens."""
    cached: Tokens = 0.0
    """Mean prompt tokens found in the prefix cache."""


class Point(Model):
    """One closed-loop measurement: `concurrency` calls running at all times."""

    concurrency: Annotated[int, Field(ge=1, le=1_000_000)]
    """k, calls running."""
    latency: Duration
    """R(k), mean latency of a call."""
    ttft: Duration
    """Mean time to the first token."""
    tpot: Duration | None = None
    """Mean time per output token after the first; (latency − ttft) ÷ (output − 1) if unset."""
    p50: Duration | None = None
    """Median latency; unset for estimates."""
    p95: Duration | None = None
    """95th percentile of it; unset for estimates."""
    p99: Duration | None = None
    """99th percentile of it; unset for estimates."""
    kv_usage: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest part of the KV cache that was in use; unset where the engine does not report it."""
    prefix_hits: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of the prompt tokens that the prefix cache held; unset where the engine does not report it."""
    calls: Count | None = None
    """Calls that were measured, warm-up left out; unset for estimates."""
    interval: Annotated[float, Field(ge=0, le=10)] | None = None
    """Half the width of the 95 % interval of the mean latency ÷ that mean."""


FURTHER = 1.5
"""Mean generated tokens from which on a time per further token can be distinguished from noise."""
_AGREE = 1.5
"""Factor within which ttft + tpot · (output − 1) is the latency. Of a point they are means over its calls, which a
short measurement draws from calls of many lengths, while `output` is the mean of all; a wrong unit is further off. Its
own interval, twice, comes on top."""


def contradiction(point: Point, mix: Mix) -> str | None:
    """Return why a point's latency cannot be made up of its time to the first token and that per further token.

    Args:
        point: the point.
        mix: the calls of its series.

    Returns:
        the reason with the values; None if there is no contradiction.
    """
    if mix.output < FURTHER:
        return None
    whole, first, steps = format_duration(point.latency), format_duration(point.ttft), f"{mix.output - 1:.4g}"
    if point.tpot is None:
        return f"latency is {whole}, ttft {first}: no time for further tokens" if point.ttft >= point.latency else None
    total = point.ttft + point.tpot * (mix.output - 1)
    factor = _AGREE + 2 * (point.interval or 0.0)
    if point.latency / factor <= total <= point.latency * factor:
        return None
    each, shown = format_duration(point.tpot), format_duration(float(significant(total)))
    return f"latency is {whole}, ttft {first} + {steps} further tokens · tpot {each} is {shown}"


class RatePoint(Model):
    """One open-loop measurement: calls arriving at random at a rate, in the groups in which they were recorded."""

    rate: Rate
    """Calls per second that arrived."""
    completed: Rate
    """Calls per second that were completed."""
    stable: bool
    """Whether the queue did not grow: false beyond saturation, where latency depends on how long it was measured."""
    latency: Duration
    """Mean latency of a call."""
    p50: Duration | None = None
    """Median of it; unset where an imported result does not report it."""
    p95: Duration | None = None
    """95th percentile; unset likewise."""
    p99: Duration | None = None
    """99th percentile; unset likewise."""
    ttft: Duration
    """Mean time to the first token."""
    tpot: Duration | None = None
    """Mean time per output token after the first."""
    concurrency: Annotated[float, Field(ge=0)]
    """Mean number of calls in flight."""
    kv_usage: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest part of the KV cache that was in use."""
    prefix_hits: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of the prompt tokens that the prefix cache held."""
    calls: Count
    """Calls that were measured, warm-up left out."""
    interval: Annotated[float, Field(ge=0, le=10)] | None = None
    """Half the width of the 95 % interval of the mean latency ÷ that mean; unset where single calls are not known."""


class Saturation(Model):
    """Where the load exceeds what an instance completes, found by bisection."""

    low: Rate
    """Calls per second at which the queue did not grow."""
    high: Rate | None = None
    """Calls per second at which it grew; unset if it never did."""


class Series(Model):
    """R(k) of one instance shape for one mix."""

    tp: TensorParallel
    """Tensor-parallel degree."""
    share: Share = 1.0
    """Share of each GPU."""
    neighbours: Literal["busy"] | None = None
    """`busy` if the rest of the GPU drew on the memory bandwidth meanwhile; unset if it was idle."""
    mix: Mix
    """The calls."""
    points: Annotated[Items[Point], Field(min_length=1, max_length=200)]
    """Rising concurrency."""
    open_loop: Annotated[Items[RatePoint], Field(max_length=200)] = ()
    """Rising rate: a check of what `points` predict; unset for estimates."""
    saturation: Saturation | None = None
    """The rate that the instance sustains, where it was measured."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        ks = [point.concurrency for point in self.points]
        if any(a >= b for a, b in itertools.pairwise(ks)):
            raise ValueError("the points must have strictly rising concurrency")
        if any(a.rate >= b.rate for a, b in itertools.pairwise(self.open_loop)):
            raise ValueError("the open-loop points must have strictly rising rates")
        if any(point.latency <= 0 for point in self.points):
            raise ValueError("latency must be greater than zero")
        if self.neighbours is not None and self.share == 1.0:
            raise ValueError("a whole GPU has no neighbours")
        return self


class Unusable(Model):
    """A shape on which the engine did not run when it was to be measured; a compile does not plan with it."""

    tp: TensorParallel
    """Tensor-parallel degree."""
    share: Share = 1.0
    """Share of each GPU."""
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    """Why, such as `out of memory`."""
    max_model_len: Count | None = None
    """Tokens of a call that it could not hold; LLMs with shorter ones may run. Unset where the length was not why."""

    def concerns(self, longest: int) -> bool:
        """Return whether it rules out an LLM whose calls may have so many tokens."""
        return self.max_model_len is None or longest >= self.max_model_len


class ProfileSpec(Model):
    """The measurements, and what they are valid for."""

    source: ProfileSource
    """`measured` on the GPU named here, `estimated` by a model, or `imported` from another tool's measurement."""
    model: ModelId
    """The model."""
    revision: Revision | None = None
    """The model's revision, where it was pinned."""
    product: Product
    """The GPU product."""
    engine: Engine
    """The engine."""
    architecture: Architecture
    """The model's shape."""
    provenance: Provenance
    """Where the measurements come from."""
    series: Items[Series] = ()
    """One entry per shape and mix; at least one, unless every shape is unusable."""
    unusable: Items[Unusable] = ()
    """Shapes that were tried and do not run."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.series and not self.unusable:
            raise ValueError("a profile needs at least one series")
        return self


class Profile(Document):
    """What one model does on one GPU product under load."""

    kind: Literal["Profile"]
    """The kind of document."""
    metadata: FileMetadata
    """Its name."""
    spec: ProfileSpec
    """Its content."""
