"""The nodes and GPUs of a cluster that a compile must not use: those observed as missing, lost, or returned since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scepsy.documents import Workspace
from scepsy.drift.finding import Finding, unix
from scepsy.drift.kinds import Effect


@dataclass(frozen=True)
class Missing:
    """Hardware that must not be used.

    Attributes:
        nodes: names of nodes.
        gpus: UUIDs of single GPUs.
        at: when that was written, Unix seconds; None if not known. It does not count for equality.
    """

    nodes: frozenset[str] = frozenset()
    gpus: frozenset[str] = frozenset()
    at: float | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return bool(self.nodes or self.gpus)

    def after(self, findings: Sequence[Finding]) -> Missing:
        """Return what is missing now, given what findings report as lost and as returned."""

        def subjects(effect: Effect) -> set[str]:
            return {finding.subject for finding in findings if finding.effect is effect}

        return Missing(
            (self.nodes | subjects(Effect.NODE_LOST)) - subjects(Effect.NODE_BACK),
            (self.gpus | subjects(Effect.GPU_LOST)) - subjects(Effect.GPU_BACK),
        )


NOTHING = Missing()
"""Nothing is missing."""


def known_missing(workspace: Workspace, cluster: str) -> Missing:
    """Return what the ObservedCluster document lists as missing and the Cluster document still has."""
    loaded = workspace.missing.get(cluster)
    if loaded is None:
        return NOTHING
    nodes = workspace.clusters[cluster].document.spec.nodes
    return Missing(
        frozenset(loaded.document.spec.missing_nodes) & {node.name for node in nodes},
        frozenset(loaded.document.spec.missing_gpus) & {gpu.uuid for node in nodes for gpu in node.gpus},
        unix(loaded.document.spec.at),
    )
