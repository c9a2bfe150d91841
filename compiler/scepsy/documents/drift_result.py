"""What `scepsy drift --output json` prints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scepsy.documents.command_results import CompileResult, Failure
from scepsy.documents.model import Document, Items, Model


class DriftFigures(Model):
    """What to expect of one workflow."""

    workflow: str
    """Its name."""
    rate: float
    """Executions per second that are assumed."""
    latency: float | None = None
    """Predicted mean latency of an execution, seconds; unset where an LLM is saturated or missing."""
    capacity: float
    """Executions per second at which an LLM is saturated, the others at their rates."""


class DriftOutlook(Model):
    """What to expect under one allocation."""

    workflows: Items[DriftFigures] = ()
    """Per workflow."""
    gpus: float | None = None
    """GPUs that the allocation takes."""
    note: str = ""
    """What is assumed, or why there are no figures."""


class DriftFinding(Model):
    """One way in which the world differs from the Plan."""

    area: Literal["traffic", "cluster", "objects", "profiles"]
    """What was compared."""
    kind: str
    """What it is, for programs, such as `load-above` or `node-gone`."""
    severity: Literal["critical", "warning", "info"]
    """How bad."""
    subject: str
    """What it is about: an LLM, an instance, a node, a GPU, an object."""
    what: str
    """One sentence with the figures."""
    since: str | None = None
    """When it began, as far as can be told: UTC, RFC 3339."""
    at_least_since: bool = False
    """Whether it may have begun earlier: that is where knowledge begins."""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """1 - the probability that chance alone would show this in one look; unset for what is not a matter of chance."""
    cost: DriftOutlook | None = None
    """What it does with the committed allocation."""
    gain: DriftOutlook | None = None
    """What compiling again would give."""
    instances: Items[str] = ()
    """Instances of the Plan that it affects."""


class DriftJudged(Model):
    """Something that was compared with the Plan, or could not be."""

    area: Literal["traffic", "cluster", "objects", "profiles"]
    """What was compared."""
    subject: str = ""
    """Of what; empty for the area as a whole."""
    what: str
    """In words."""
    judged: bool
    """Whether it could be."""
    reason: str = ""
    """Why it could not."""
    note: str = ""
    """The figures."""


class DriftResponse(Model):
    """Whether compiling again is worth it, and what was done about it."""

    compile: bool
    """Whether it is."""
    why: str
    """The reason."""
    done: str = ""
    """What was done about it (`--recompile`); empty for nothing."""
    pull_request: str = ""
    """Address of the pull request that was opened."""
    profiling: Items[str] = ()
    """What was submitted for measurement, because profiles no longer hold, or why nothing could be."""


class DriftResult(Document):
    """What `scepsy drift --output json` prints."""

    kind: Literal["DriftResult"] = "DriftResult"
    """The kind of object."""
    cluster: str = ""
    """The cluster."""
    at: str = ""
    """When it was looked at: UTC, RFC 3339."""
    drift: bool = False
    """Whether anything was found; then the command ends with exit code 2."""
    findings: Items[DriftFinding] = ()
    """What was found, the worst first."""
    judged: Items[DriftJudged] = ()
    """What was compared with the Plan, and what could not be: of that nothing is known."""
    alarms: float = 0.0
    """False alarms per hour of looking that were allowed, over everything that is left to chance."""
    notes: Items[str] = ()
    """What cannot be told from these figures at all."""
    response: DriftResponse | None = None
    """Whether to compile again."""
    compiled: CompileResult | None = None
    """What was compiled (`--recompile`)."""
    error: Failure | None = None
    """Why the command failed."""
