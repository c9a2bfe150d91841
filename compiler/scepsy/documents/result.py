"""What the commands print with `--output json`: versioned objects, documented by their schemas."""

from __future__ import annotations

from typing import Literal

from scepsy.documents.model import Document, Items, Model
from scepsy.documents.plan import PlanSpec


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
