"""The Workflow document: what an agentic workflow calls, how often, and its objectives."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from scepsy.documents.model import (
    Document,
    Items,
    KubernetesName,
    Metadata,
    Model,
    ModelId,
    RelativePath,
    Revision,
    Tokens,
)
from scepsy.documents.units import Duration, format_rate, parse_rate

Positive = Annotated[float, Field(gt=0, le=1e6)]


MOST_RUNNING = 1024
"""Most calls that an instance may be configured to run at once."""
OBSERVED: Final = "observed"
"""In place of a rate: the one at which the recorded executions arrived."""


def _rate(value: Any) -> Any:
    return value if value == OBSERVED else parse_rate(value)


class Target(Model):
    """The load that the deployment must sustain; `target: observed` is short for `target: {rate: observed}`."""

    rate: Annotated[
        float | Literal["observed"],
        BeforeValidator(_rate),
        PlainSerializer(lambda rate: rate if rate == OBSERVED else format_rate(rate), return_type=str),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": r"^(observed|[0-9]+(\.[0-9]+)?\s*/\s*(s|min|h))$",
                "examples": ["4/s", "30/min", "observed"],
            }
        ),
    ]
    """Workflow executions per second to sustain, such as `4/s`; `observed`: as many as the trace shows."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"rate": value} if value == OBSERVED else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """Both ways to write it."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        schema["anyOf"] = [
            {"type": "object", "required": schema.pop("required")},
            {"type": "string", "const": OBSERVED},
        ]
        schema.pop("type")
        return dict(reference)

    @property
    def per_second(self) -> float:
        """The rate.

        Raises:
            ValueError: it is `observed`, and has not been looked up yet.
        """
        return float(self.rate)


class Objective(Model):
    """Upper bounds on the latency of one execution."""

    mean: Duration | None = None
    """Mean latency."""
    p50: Duration | None = None
    """Median latency; like the other percentiles enforced where the demand holds recorded executions."""
    p95: Duration | None = None
    """95th percentile of latency."""
    p99: Duration | None = None
    """99th percentile of latency."""

    @property
    def quantiles(self) -> dict[float, float]:
        """The bounds on quantiles, seconds."""
        given = {0.5: self.p50, 0.95: self.p95, 0.99: self.p99}
        return {quantile: bound for quantile, bound in given.items() if bound is not None}


class PodTemplate(Model):
    """What a platform team may add to the pods of one LLM; it cannot replace what Scepsy sets."""

    annotations: dict[str, str] = {}
    """Pod annotations."""
    labels: dict[str, str] = {}
    """Pod labels; `app.kubernetes.io/*` and `scepsy.dev/*` are taken."""
    node_selector: dict[str, str] = {}
    """Node labels that the pods additionally require."""
    tolerations: Items[dict[str, Any]] = ()
    """Kubernetes tolerations, added to the one for `nvidia.com/gpu`."""
    env: dict[str, str] = {}
    """Environment variables of the engine container; those that Scepsy sets are taken."""


class Llm(Model):
    """An LLM that the workflow calls."""

    name: KubernetesName
    """What the agent code sends as `model`; two workflows that use the same name share the LLM."""
    model: ModelId
    """The model that serves it, such as `Qwen/Qwen3-8B`."""
    revision: Revision | None = None
    """The pinned revision of the model's files."""
    max_model_len: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """Longest call in tokens, prompt and output together (vLLM's --max-model-len); the model's own limit if unset."""
    max_num_seqs: Annotated[int, Field(ge=1, le=MOST_RUNNING)] = 256
    """Most calls that one instance runs at once (vLLM's --max-num-seqs); the rest waits in the gateway."""
    tensor_parallel: Items[Literal[1, 2, 4, 8]] = ()
    """Tensor-parallel degrees that may be chosen; all that are profiled if empty."""
    pod_template: PodTemplate = PodTemplate()
    """Additions to its pods."""


class TokenDistribution(Model):
    """How many tokens a call has."""

    mean: Tokens
    """Mean over calls."""
    max: Tokens | None = None
    """Maximum over calls."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.mean:
            raise ValueError(f"max {self.max:g} is below mean {self.mean:g}")
        return self


class LlmStatistics(Model):
    """How one LLM is called by one execution of the workflow."""

    llm: KubernetesName
    """The LLM's name in this workflow."""
    calls: Positive
    """Mean number of calls per execution."""
    fan_out: Positive = 1.0
    """Mean size of a group of calls that start together."""
    parallelism: Annotated[float, Field(ge=1, le=1e6)] | None = None
    """Sum of all call durations ÷ sum of the time in which at least one call runs; `fanOut` if unset."""
    input_tokens: TokenDistribution
    """Prompt tokens per call, cached ones included."""
    output_tokens: TokenDistribution
    """Generated tokens per call."""
    cached_tokens: TokenDistribution = TokenDistribution(mean=0.0)
    """Prompt tokens per call that the prefix cache holds."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cached_tokens.mean > self.input_tokens.mean:
            raise ValueError("cachedTokens.mean is above inputTokens.mean: cached tokens are part of the prompt")
        if self.fan_out < 1 or self.fan_out > max(1.0, self.calls):
            raise ValueError("fanOut must lie between 1 and the number of calls")
        if self.parallelism is not None and self.parallelism > max(1.0, self.calls):
            raise ValueError("parallelism is above calls: no more calls can run at once than there are")
        return self


class Statistics(Model):
    """Demand given as statistics."""

    outside: Duration = 0.0
    """Mean time of an execution outside LLM calls: tools, retrieval, orchestration."""
    llms: Annotated[Items[LlmStatistics], Field(min_length=1)]
    """One entry per LLM."""


class DemandSource(Model):
    """Where the demand comes from: exactly one of a trace, a summary of a trace, and statistics."""

    traces: RelativePath | None = None
    """A JSONL file with one line per LLM call, gzipped or not, relative to this file."""
    summary: RelativePath | None = None
    """A TraceSummary, as `scepsy trace stats --summary` writes it, relative to this file."""
    statistics: Statistics | None = None
    """Statistics, written by hand."""
    quantile: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    """Plan for heavy executions: each LLM for the time that so large a part of the executions does not exceed."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(source is not None for source in (self.traces, self.summary, self.statistics)) != 1:
            raise ValueError("give exactly one of traces, summary and statistics")
        if self.quantile is not None and self.statistics is not None:
            raise ValueError("a quantile needs recorded executions: statistics only know means")
        return self


class WorkflowSpec(Model):
    """The workflow's objectives, and what it calls."""

    target: Target
    """The load to plan for."""
    priority: Positive = 1.0
    """Weight of this workflow's slowdown in the objective, against the other workflows."""
    objective: Objective = Objective()
    """Latency bounds."""
    llms: Annotated[Items[Llm], Field(min_length=1, max_length=200)]
    """The LLMs that it calls."""
    demand: DemandSource
    """How it calls them."""


class Workflow(Document):
    """An agentic workflow: its LLMs, how one execution calls them, and the load to sustain."""

    kind: Literal["Workflow"]
    """The kind of document."""
    metadata: Metadata
    """Its name."""
    spec: WorkflowSpec
    """Its content."""
