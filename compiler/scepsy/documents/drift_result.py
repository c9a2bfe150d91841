"""What `scepsy drift --output json` prints."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from scepsy.documents.command_results import CompileResult, Failure
from scepsy.documents.model import Document, Items, Model

Area = Literal["traffic", "cluster", "objects", "profiles"]
"""What is compared with the Plan: the load, the hardware, the live Kubernetes objects, the speed of the engines."""

Severity = Literal["critical", "warning", "info"]
"""`critical`: calls fail or wait without bound, now or at the observed load; `warning`: the plan no longer fits;
`info`: no action is urgent."""


class FindingKind(StrEnum):
    """The kinds of findings; `scepsy.drift.kinds` says what each does to the plan, and what to do about it."""

    EXECUTIONS_ABOVE = "executions-above"
    EXECUTIONS_BELOW = "executions-below"
    CALLS_ABOVE = "calls-above"
    CALLS_BELOW = "calls-below"
    LOAD_ABOVE = "load-above"
    LOAD_BELOW = "load-below"
    INPUT_TOKENS_ABOVE = "input-tokens-above"
    INPUT_TOKENS_BELOW = "input-tokens-below"
    OUTPUT_TOKENS_ABOVE = "output-tokens-above"
    OUTPUT_TOKENS_BELOW = "output-tokens-below"
    NODE_GONE = "node-gone"
    NODE_NOT_READY = "node-not-ready"
    NODE_BACK = "node-back"
    NODE_SILENT = "node-silent"
    NODE_NEW = "node-new"
    NODE_CORDONED = "node-cordoned"
    NODE_TAINTED = "node-tainted"
    PRODUCT_CHANGED = "product-changed"
    GPU_GONE = "gpu-gone"
    GPU_MOVED = "gpu-moved"
    GPU_SICK = "gpu-sick"
    GPU_BACK = "gpu-back"
    GPU_NEW = "gpu-new"
    GPU_REPORTED = "gpu-reported"
    MEMORY_CHANGED = "memory-changed"
    DEVICE_CLASS_GONE = "device-class-gone"
    KUBERNETES_VERSION = "kubernetes-version"
    APPLICATION_GONE = "application-gone"
    APPLICATION_ERROR = "application-error"
    APPLICATION_UNHEALTHY = "application-unhealthy"
    SYNC_FAILED = "sync-failed"
    SYNC_FAILING = "sync-failing"
    SYNC_STUCK = "sync-stuck"
    OUT_OF_SYNC = "out-of-sync"
    POD_PENDING = "pod-pending"
    POD_CRASHING = "pod-crashing"
    CLAIM_UNALLOCATED = "claim-unallocated"
    ENGINE_CHANGED = "engine-changed"
    REVISION_CHANGED = "revision-changed"
    PROFILE_GONE = "profile-gone"
    PROFILE_OUTDATED = "profile-outdated"
    PROFILE_OLD = "profile-old"
    LATENCY_ABOVE = "latency-above"
    LATENCY_BELOW = "latency-below"


class DriftPrediction(Model):
    """The prediction for one workflow."""

    workflow: str
    """Its name."""
    rate: float
    """Assumed executions per second."""
    latency: float | None = None
    """Predicted mean latency of an execution, seconds; unset if an LLM is saturated or missing."""
    capacity: float
    """Executions per second that saturate an LLM, the other workflows at their rates."""


class DriftImpact(Model):
    """The predictions under one allocation."""

    workflows: Items[DriftPrediction] = ()
    """Per workflow."""
    gpus: float | None = None
    """GPUs that the allocation takes."""
    note: str = ""
    """What is assumed, or why nothing is predicted."""


class DriftFinding(Model):
    """One difference from the Plan."""

    area: Area
    """What was compared."""
    kind: FindingKind
    """What it is, for programs."""
    severity: Severity
    """How bad."""
    subject: str
    """An LLM, an instance, a node, a GPU or an object."""
    what: str
    """One sentence with the values."""
    since: str | None = None
    """When it began, as far as known: UTC, RFC 3339."""
    at_least_since: bool = False
    """Whether it may have begun earlier, before the data begin."""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """1 - the probability that chance alone shows this in one check; unset if chance plays no part."""
    cost: DriftImpact | None = None
    """The predictions with the committed allocation."""
    gain: DriftImpact | None = None
    """The predictions after a recompile."""
    instances: Items[str] = ()
    """The affected instances of the Plan."""


class DriftCheck(Model):
    """One comparison with the Plan, done or skipped."""

    area: Area
    """What was compared."""
    subject: str = ""
    """Of what; empty for the area as a whole."""
    what: str
    """The checked property."""
    checked: bool
    """Whether it was checked; if not, nothing is known about it."""
    reason: str = ""
    """Why it was skipped."""
    note: str = ""
    """The values."""


class DriftJudged(Model):
    """Deprecated: an entry of `judged`."""

    area: Area
    """What was compared."""
    subject: str = ""
    """Of what; empty for the area as a whole."""
    what: str
    """The checked property."""
    judged: bool
    """Whether it was checked."""
    reason: str = ""
    """Why it was skipped."""
    note: str = ""
    """The values."""


class DriftResponse(Model):
    """Whether to recompile, and what was done."""

    compile: bool
    """Whether to recompile."""
    why: str
    """The reason."""
    done: str = ""
    """What `--recompile` did; empty for nothing."""
    pull_request: str = ""
    """Address of the opened pull request."""
    profiling: Items[str] = ()
    """Profiling jobs that were submitted because profiles no longer hold, or why none could be."""


class DriftResult(Document):
    """What `scepsy drift --output json` prints."""

    kind: Literal["DriftResult"] = "DriftResult"
    """The kind of object."""
    cluster: str = ""
    """The cluster."""
    at: str = ""
    """When it was checked: UTC, RFC 3339."""
    drift: bool = False
    """Whether there are findings; then the command ends with exit code 2."""
    findings: Items[DriftFinding] = ()
    """The differences from the Plan, the worst first."""
    checks: Items[DriftCheck] = ()
    """The comparisons with the Plan, done and skipped."""
    judged: Items[DriftJudged] = ()
    """Deprecated: the same as `checks`; removed in the next release."""
    false_alarm_rate: float = 0.0
    """Accepted false alarms per hour of checking, over all tests."""
    alarms: float = 0.0
    """Deprecated: the same as `falseAlarmRate`; removed in the next release."""
    notes: Items[str] = ()
    """The limits of the result."""
    response: DriftResponse | None = None
    """Whether to recompile."""
    compiled: CompileResult | None = None
    """What was compiled (`--recompile`)."""
    error: Failure | None = None
    """Why the command failed."""
