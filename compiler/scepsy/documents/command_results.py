"""What the commands print with `--output json`: versioned objects, documented by their schemas."""

from __future__ import annotations

from typing import Literal

from scepsy.documents.diagnostics import DocumentError
from scepsy.documents.model import Document, Items, Model
from scepsy.documents.plan import PlanSpec
from scepsy.errors import ScepsyError


class Problem(Model):
    """One problem at one position."""

    path: str
    """The file."""
    line: int
    """1-based."""
    column: int
    """1-based."""
    message: str
    """What is wrong."""
    hint: str = ""
    """What to do."""


class Failure(Model):
    """Why a command ended with exit code 1."""

    message: str
    """What is wrong."""
    hint: str = ""
    """What to do."""
    problems: Items[Problem] = ()
    """The single problems in documents, where the error is about documents."""


def failure_of(error: ScepsyError) -> Failure:
    """Return an error as data, with single problems where it has them."""
    if not isinstance(error, DocumentError):
        return Failure(message=error.message, hint=error.hint)
    problems = tuple(
        Problem(path=d.position.path, line=d.position.line, column=d.position.column, message=d.message, hint=d.hint)
        for d in error.diagnostics
    )
    count = len(problems)
    return Failure(message=f"{count} problem{'s' * (count != 1)} in the documents", problems=problems)


class FileChanges(Model):
    """Paths of output files, relative to the repository, by what happened to them (or would happen)."""

    added: Items[str] = ()
    """New."""
    changed: Items[str] = ()
    """Rewritten."""
    removed: Items[str] = ()
    """Written by an earlier compile and no longer wanted."""
    uncommitted: Items[str] = ()
    """As wanted in the work tree, but not in HEAD."""
    edited: Items[str] = ()
    """Edited by hand since they were written."""


class ClusterResult(Model):
    """One cluster."""

    cluster: str
    """Its name."""
    up_to_date: bool
    """Whether nothing had to change."""
    plan: PlanSpec
    """The plan."""
    changes: FileChanges = FileChanges()
    """The files."""
    note: str = ""
    """What a re-plan kept, moved or spared."""


class GoneCluster(Model):
    """A cluster that the project no longer has; its outputs are removed."""

    cluster: str
    """Its name."""
    changes: FileChanges = FileChanges()
    """The files."""


class PushedCommit(Model):
    """What was pushed."""

    remote: str
    """The remote's name, or the repository's address where it was given."""
    url: str = ""
    """The remote's address, without user and password; empty for one that nobody else could use."""
    branch: str
    """The branch there."""
    commit: str
    """The commit that it is at."""
    attempts: int = 1
    """How many commits were offered until one was taken, because others moved the branch first."""


class CompileResult(Document):
    """What `scepsy compile --output json` prints."""

    kind: Literal["CompileResult"] = "CompileResult"
    """The kind of object."""
    clusters: Items[ClusterResult] = ()
    """One entry per cluster."""
    gone: Items[GoneCluster] = ()
    """Clusters whose outputs are left over from earlier compiles."""
    checked: bool = False
    """Whether nothing was to be written (`--check`)."""
    commit: str | None = None
    """The commit that was made."""
    pushed: PushedCommit | None = None
    """What was pushed (`--push`); null if there was nothing to push."""
    left: str = ""
    """Why the checkout was left as it was, though the branch at the remote is further on; empty if it was not."""
    remedy: str = ""
    """The command that brings the checkout forward then."""
    error: Failure | None = None
    """Why it failed; then nothing was written."""


class ShareOfLatency(Model):
    """An LLM's part of a workflow's latency."""

    llm: str
    """The LLM; empty for the time outside LLMs."""
    seconds: float
    """Its part of the mean latency."""
    fraction: float
    """The same as a fraction of the latency."""


class WorkflowExplanation(Model):
    """Why a workflow gets what it gets."""

    workflow: str
    """Its name."""
    latency: float
    """Predicted mean latency, seconds."""
    least: float
    """The least that it alone could have on the cluster, seconds."""
    capacity: float
    """Rate at which an LLM is saturated, executions per second."""
    bottleneck: str
    """The LLM that limits the rate."""
    parts: Items[ShareOfLatency]
    """Where the latency comes from, largest first."""


class Alternative(Model):
    """Another option of one LLM, the others unchanged."""

    llm: str
    """The LLM."""
    option: str
    """Shape and replicas."""
    gpus: float
    """GPUs that it takes."""
    objective: float
    """The plan's objective with it."""
    placeable: bool
    """Whether it could be placed with everything else."""


class Budget(Model):
    """The objective of the best plan with another number of GPUs."""

    product: str
    """GPU product."""
    gpus: int
    """So many of them."""
    objective: float | None
    """The objective; none when the targets cannot be sustained."""


class ExplainResult(Document):
    """What `scepsy explain --output json` prints."""

    kind: Literal["ExplainResult"] = "ExplainResult"
    """The kind of object."""
    cluster: str = ""
    """The cluster."""
    objective: float = 0.0
    """The plan's objective."""
    workflows: Items[WorkflowExplanation] = ()
    """Per workflow."""
    alternatives: Items[Alternative] = ()
    """Per LLM its next-best options."""
    budgets: Items[Budget] = ()
    """One GPU less, and one more, of every product."""
    error: Failure | None = None
    """Why it failed."""


class Estimate(Model):
    """A mean over executions, and how sure it is."""

    mean: float
    """Σ numerator ÷ Σ denominator over executions."""
    low: float | None = None
    """Lower end of its 95 % bootstrap interval; none with one execution."""
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
    """Sum of call durations ÷ time in which at least one call runs; none where no call takes time."""
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
    """Part of all LLM time; none where no call takes time."""
    spread: ShareStatistics | None = None
    """How the share differs between executions; none with too few of them."""


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
    """Whether means are a safe basis; none with too few executions to tell."""
    kinds: Items[KindOfExecution] = ()
    """Two kinds of executions, if there are."""
    kinds_differ_in: str = ""
    """What tells them apart."""
    arrivals: ArrivalStatistics | None = None
    """How executions arrived."""
    arrivals_unknown: str = ""
    """Why that cannot be told."""
    warnings: Items[str] = ()
    """What makes means an unsafe basis, with numbers."""
    error: Failure | None = None
    """Why it failed."""


class MeasuredMix(Model):
    """Mean tokens of calls."""

    input: float
    """Prompt tokens, cached ones included."""
    output: float
    """Generated tokens."""
    cached: float
    """Prompt tokens that a prefix cache held."""


class MissingShape(Model):
    """A shape to measure."""

    tp: int
    """Tensor-parallel degree."""
    share: float
    """Share of each GPU."""
    why: str
    """Why: not profiled, only estimated, or why what is measured no longer holds."""
    gpu_hours: float
    """What it is expected to cost if it takes its whole budget; an estimate."""


class WorkflowLlm(Model):
    """An LLM as one workflow calls it."""

    workflow: str
    """The workflow."""
    llm: str
    """The LLM."""


class PlannedSweep(Model):
    """Measurements of one model on one product with the calls of one LLM."""

    model: str
    """The model."""
    revision: str | None = None
    """Its revision, where it is pinned."""
    product: str
    """GPU product."""
    llm: str
    """The LLM whose calls are replayed."""
    workflow: str
    """The workflow that makes them."""
    mix: MeasuredMix
    """Their tokens."""
    max_num_seqs: int
    """Most calls that run at once."""
    max_model_len: int | None = None
    """Longest call in tokens; none for the model's own limit."""
    serves: Items[WorkflowLlm]
    """All whose calls are alike enough to share the measurement."""
    points: Items[MissingShape]
    """What to measure."""
    gpu_hours: float
    """What it is expected to cost; an estimate."""


class CoveredShape(Model):
    """A shape that is measured already."""

    model: str
    """The model."""
    product: str
    """GPU product."""
    llm: str
    """The LLM whose calls it was measured for."""
    tp: int
    """Tensor-parallel degree."""
    share: float
    """Share of each GPU."""
    profile: str
    """The Profile."""


class RuledOutShape(Model):
    """A shape that cannot serve, and is not measured."""

    model: str
    """The model."""
    product: str
    """GPU product."""
    llm: str
    """The LLM."""
    tp: int
    """Tensor-parallel degree."""
    share: float
    """Share of each GPU."""
    reason: str
    """Why."""


class StaleProfile(Model):
    """A measured or imported Profile that no longer holds for anybody."""

    profile: str
    """The Profile."""
    reason: str
    """Why, with the figures."""


class ProfilePlanResult(Document):
    """What `scepsy profile plan --output json` prints."""

    kind: Literal["ProfilePlanResult"] = "ProfilePlanResult"
    """The kind of object."""
    cluster: str = ""
    """The cluster."""
    engine: str = ""
    """Version of the engine that profiles must match."""
    budget: float = 0.0
    """Seconds for the measurement of one shape, the engine's start left out."""
    gpu_hours: float = 0.0
    """What all measurements are expected to cost; an estimate."""
    sweeps: Items[PlannedSweep] = ()
    """What to measure."""
    covered: Items[CoveredShape] = ()
    """What is measured already."""
    ruled_out: Items[RuledOutShape] = ()
    """What cannot serve."""
    stale: Items[StaleProfile] = ()
    """Profiles that no longer hold."""
    memory_unknown: Items[str] = ()
    """Models of which there is no profile: whether a shape has memory enough is found out by measuring."""
    image: str | None = None
    """Image of the jobs; without one (`spec.profiling.image`) nothing can be submitted."""
    error: Failure | None = None
    """Why it failed."""
