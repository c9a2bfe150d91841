"""The table of finding kinds: what is compared, what a finding of the kind does to the plan, and what to do about it.

The names are those of `FindingKind`, which is part of the published DriftResult. A new kind needs a name there, a row
here, a line in docs/drift.md, and the module that finds it; everything else reads this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from scepsy.documents.drift_result import Area, FindingKind

Direction = Literal["above", "below"]
"""On which side of the Plan an observed value lies."""


class Effect(Enum):
    """What a finding does to the plan, and so whether it has a cost and whether a recompile helps."""

    NODE_LOST = auto()
    """A node cannot run instances any more."""
    GPU_LOST = auto()
    """A GPU cannot run instances any more."""
    NODE_BACK = auto()
    """A node that the plan does without is usable again."""
    GPU_BACK = auto()
    """A GPU that the plan does without is usable again."""
    ENGINE_DOWN = auto()
    """An instance does not run, although its hardware is there."""
    MORE_TRAFFIC = auto()
    """More load, or longer calls, than planned."""
    LESS_TRAFFIC = auto()
    """Less load, or shorter calls, than planned."""
    PROFILE_STALE = auto()
    """A profile no longer holds: it must be measured again."""
    PREDICTION_OFF = auto()
    """Calls take another time than the profile predicts."""
    DOCUMENTS_CHANGED = auto()
    """People changed documents after the plan was compiled."""
    NONE = auto()
    """Neither a cost nor a reason to recompile."""

    @property
    def loses_hardware(self) -> bool:
        """Whether instances lose their GPUs: a reason to recompile at once."""
        return self in (Effect.NODE_LOST, Effect.GPU_LOST)

    @property
    def returns_hardware(self) -> bool:
        """Whether there is more hardware than planned with: a reason to recompile after the cool-down."""
        return self in (Effect.NODE_BACK, Effect.GPU_BACK)

    @property
    def changes_traffic(self) -> bool:
        """Whether calls differ from the planned ones: a reason to recompile if that saves enough."""
        return self in (Effect.MORE_TRAFFIC, Effect.LESS_TRAFFIC)


@dataclass(frozen=True, slots=True)
class KindEntry:
    """One row of the table.

    Attributes:
        area: what is compared with the Plan.
        effect: what a finding of the kind does to the plan.
        remedy: what to do, one sentence; docs/drift.md has the same.
    """

    area: Area
    effect: Effect
    remedy: str


_RECOMPILE = "Recompile: `scepsy drift --recompile`."
_RETURNED = "Recompile to use it again: `scepsy drift --recompile`."
_LESS = "Nothing, or recompile to free GPUs: `scepsy drift --recompile`."
_SYNC = "Fix what Argo CD reports, then sync the Application again."

KINDS: Mapping[FindingKind, KindEntry] = {
    FindingKind.EXECUTIONS_ABOVE: KindEntry("traffic", Effect.MORE_TRAFFIC, _RECOMPILE),
    FindingKind.EXECUTIONS_BELOW: KindEntry("traffic", Effect.LESS_TRAFFIC, _LESS),
    FindingKind.CALLS_ABOVE: KindEntry("traffic", Effect.MORE_TRAFFIC, _RECOMPILE),
    FindingKind.CALLS_BELOW: KindEntry("traffic", Effect.LESS_TRAFFIC, _LESS),
    FindingKind.LOAD_ABOVE: KindEntry("traffic", Effect.MORE_TRAFFIC, _RECOMPILE),
    FindingKind.LOAD_BELOW: KindEntry("traffic", Effect.LESS_TRAFFIC, _LESS),
    FindingKind.INPUT_TOKENS_ABOVE: KindEntry("traffic", Effect.MORE_TRAFFIC, _RECOMPILE),
    FindingKind.INPUT_TOKENS_BELOW: KindEntry("traffic", Effect.LESS_TRAFFIC, _LESS),
    FindingKind.OUTPUT_TOKENS_ABOVE: KindEntry("traffic", Effect.MORE_TRAFFIC, _RECOMPILE),
    FindingKind.OUTPUT_TOKENS_BELOW: KindEntry("traffic", Effect.LESS_TRAFFIC, _LESS),
    FindingKind.NODE_GONE: KindEntry("cluster", Effect.NODE_LOST, _RECOMPILE),
    FindingKind.NODE_NOT_READY: KindEntry("cluster", Effect.NODE_LOST, "Repair the node, or recompile without it."),
    FindingKind.NODE_BACK: KindEntry("cluster", Effect.NODE_BACK, _RETURNED),
    FindingKind.NODE_SILENT: KindEntry("cluster", Effect.NONE, "Check the DRA driver's pod on the node."),
    FindingKind.NODE_NEW: KindEntry(
        "cluster", Effect.NONE, "Update the Cluster document: `scepsy cluster discover --write`, then compile."
    ),
    FindingKind.NODE_CORDONED: KindEntry(
        "cluster", Effect.NONE, "Uncordon the node, or remove it from the Cluster document."
    ),
    FindingKind.NODE_TAINTED: KindEntry(
        "cluster", Effect.NONE, "Remove the taint, or remove the node from the Cluster document."
    ),
    FindingKind.PRODUCT_CHANGED: KindEntry(
        "cluster", Effect.NONE, "Update the Cluster document: `scepsy cluster discover --write`, then compile."
    ),
    FindingKind.GPU_GONE: KindEntry("cluster", Effect.GPU_LOST, _RECOMPILE),
    FindingKind.GPU_MOVED: KindEntry(
        "cluster", Effect.GPU_LOST, "Recompile, and update the Cluster document: `scepsy cluster discover --write`."
    ),
    FindingKind.GPU_SICK: KindEntry("cluster", Effect.GPU_LOST, "Reset or replace the GPU, or recompile without it."),
    FindingKind.GPU_BACK: KindEntry("cluster", Effect.GPU_BACK, _RETURNED),
    FindingKind.GPU_NEW: KindEntry(
        "cluster", Effect.NONE, "Update the Cluster document: `scepsy cluster discover --write`, then compile."
    ),
    FindingKind.GPU_REPORTED: KindEntry(
        "cluster", Effect.NONE, "Check the GPU; if it must not be used, taint it or cordon the node."
    ),
    FindingKind.MEMORY_CHANGED: KindEntry(
        "cluster", Effect.NONE, "Update the Cluster document: `scepsy cluster discover --write`, then compile."
    ),
    FindingKind.DEVICE_CLASS_GONE: KindEntry("cluster", Effect.NONE, "Install the DRA driver again."),
    FindingKind.KUBERNETES_VERSION: KindEntry(
        "cluster", Effect.NONE, "Set `spec.kubernetes` of the Cluster document, then compile."
    ),
    FindingKind.APPLICATION_GONE: KindEntry(
        "objects", Effect.NONE, "Create the Argo CD Application, or correct `--application`."
    ),
    FindingKind.APPLICATION_ERROR: KindEntry("objects", Effect.NONE, _SYNC),
    FindingKind.APPLICATION_UNHEALTHY: KindEntry(
        "objects", Effect.NONE, "Check the objects that Argo CD shows as Degraded or Missing."
    ),
    FindingKind.SYNC_FAILED: KindEntry("objects", Effect.NONE, _SYNC),
    FindingKind.SYNC_FAILING: KindEntry("objects", Effect.NONE, _SYNC),
    FindingKind.SYNC_STUCK: KindEntry("objects", Effect.NONE, "Check what the sync waits for in Argo CD."),
    FindingKind.OUT_OF_SYNC: KindEntry(
        "objects", Effect.NONE, "Sync the Application, or commit what was changed by hand."
    ),
    FindingKind.POD_PENDING: KindEntry(
        "objects", Effect.ENGINE_DOWN, "Fix the reason that the scheduler or the container reports."
    ),
    FindingKind.POD_CRASHING: KindEntry("objects", Effect.ENGINE_DOWN, "Read the container's log: `kubectl logs`."),
    FindingKind.CLAIM_UNALLOCATED: KindEntry(
        "objects", Effect.ENGINE_DOWN, "Check that the GPU is there and that no other claim has it."
    ),
    FindingKind.ENGINE_CHANGED: KindEntry("profiles", Effect.DOCUMENTS_CHANGED, "Compile: `scepsy compile --commit`."),
    FindingKind.REVISION_CHANGED: KindEntry(
        "profiles", Effect.DOCUMENTS_CHANGED, "Compile: `scepsy compile --commit`."
    ),
    FindingKind.PROFILE_GONE: KindEntry(
        "profiles", Effect.PROFILE_STALE, "Restore the profile, or measure again: `scepsy profile plan`."
    ),
    FindingKind.PROFILE_OUTDATED: KindEntry(
        "profiles", Effect.PROFILE_STALE, "Measure again: `scepsy profile plan` lists the commands."
    ),
    FindingKind.PROFILE_OLD: KindEntry(
        "profiles", Effect.PROFILE_STALE, "Measure again: `scepsy profile plan` lists the commands."
    ),
    FindingKind.LATENCY_ABOVE: KindEntry(
        "profiles", Effect.PREDICTION_OFF, "Check the engines; if they are well, measure again: `scepsy profile plan`."
    ),
    FindingKind.LATENCY_BELOW: KindEntry(
        "profiles", Effect.PREDICTION_OFF, "Measure again: `scepsy profile plan` lists the commands."
    ),
}
"""All kinds."""

BothKinds = Mapping[Direction, FindingKind]
"""The kinds of one observed value: above the Plan, and below it."""
EXECUTIONS: BothKinds = {"above": FindingKind.EXECUTIONS_ABOVE, "below": FindingKind.EXECUTIONS_BELOW}
CALLS: BothKinds = {"above": FindingKind.CALLS_ABOVE, "below": FindingKind.CALLS_BELOW}
LOAD: BothKinds = {"above": FindingKind.LOAD_ABOVE, "below": FindingKind.LOAD_BELOW}
INPUT_TOKENS: BothKinds = {"above": FindingKind.INPUT_TOKENS_ABOVE, "below": FindingKind.INPUT_TOKENS_BELOW}
OUTPUT_TOKENS: BothKinds = {"above": FindingKind.OUTPUT_TOKENS_ABOVE, "below": FindingKind.OUTPUT_TOKENS_BELOW}
LATENCY: BothKinds = {"above": FindingKind.LATENCY_ABOVE, "below": FindingKind.LATENCY_BELOW}
