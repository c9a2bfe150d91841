"""What `profile plan --output json` prints."""

from __future__ import annotations

from typing import Literal

from scepsy.documents.command_results import Failure
from scepsy.documents.model import Document, Items, Model


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
    """Why: not profiled, only estimated, or why the profile is stale."""
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
    """Longest call in tokens; null for the model's limit."""
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
    """A measured or imported Profile that is stale for every workflow."""

    profile: str
    """The Profile."""
    reason: str
    """Why, with the values."""


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
    """Profiles that are stale."""
    memory_unknown: Items[str] = ()
    """Models of which there is no profile: only the measurement shows whether a shape has enough memory."""
    image: str | None = None
    """Image of the jobs; without one (`spec.profiling.image`) nothing can be submitted."""
    error: Failure | None = None
    """Why it failed."""
