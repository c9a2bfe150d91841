"""What `compile` and `explain` print with `--output json`, and errors of every command as data."""

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
    """The remote's address, without user and password; empty for a path that only this machine can use."""
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
    """The objective; null when the targets cannot be sustained."""


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
