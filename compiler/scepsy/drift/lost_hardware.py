"""What of a cluster is not to be planned with: what was observed to be missing, what was lost, what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scepsy.documents import Workspace
from scepsy.drift.finding import Finding, unix

LOST = ("node-gone", "node-not-ready", "gpu-gone", "gpu-moved", "gpu-sick")
"""Kinds of findings about hardware that instances cannot run on any more."""
BACK = ("node-back", "gpu-back")
"""Kinds of findings about hardware that was planned without, and is there again."""


@dataclass(frozen=True)
class Missing:
    """Hardware that is not to be used.

    Attributes:
        nodes: names of nodes.
        gpus: UUIDs of single GPUs.
        at: when that was written, Unix seconds; None if it is not. The same hardware is missing whenever that was.
    """

    nodes: frozenset[str] = frozenset()
    gpus: frozenset[str] = frozenset()
    at: float | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return bool(self.nodes or self.gpus)

    def after(self, findings: Sequence[Finding]) -> Missing:
        """Return what is missing now, in view of what was lost and what came back."""

        def subjects(kinds: Sequence[str], word: str) -> set[str]:
            return {f.subject for f in findings if f.area == "cluster" and f.kind in kinds and f.kind.startswith(word)}

        return Missing(
            (self.nodes | subjects(LOST, "node-")) - subjects(BACK, "node-"),
            (self.gpus | subjects(LOST, "gpu-")) - subjects(BACK, "gpu-"),
        )


NOTHING = Missing()
"""Nothing is missing."""


def known_missing(workspace: Workspace, cluster: str) -> Missing:
    """Return what was observed to be missing, as far as the Cluster document still has it."""
    loaded = workspace.missing.get(cluster)
    if loaded is None:
        return NOTHING
    nodes = workspace.clusters[cluster].document.spec.nodes
    return Missing(
        frozenset(loaded.document.spec.missing_nodes) & {node.name for node in nodes},
        frozenset(loaded.document.spec.missing_gpus) & {gpu.uuid for node in nodes for gpu in node.gpus},
        unix(loaded.document.spec.at),
    )
