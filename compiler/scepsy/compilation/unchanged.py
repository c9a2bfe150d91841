"""Whether the plan in force is what compiling again would give, without searching for it."""

from __future__ import annotations

from collections.abc import Sequence

from scepsy import __version__
from scepsy.compilation.inputs import collect_inputs
from scepsy.documents import Plan, Workspace


def compiler_name() -> str:
    """Return the program and version that a Plan names."""
    return f"scepsy {__version__}"


def unchanged_plan(workspace: Workspace, cluster: str, previous: Sequence[Plan]) -> Plan | None:
    """Return the plan in force if nothing that it was compiled from has changed.

    That is so if this version of the compiler wrote it, it is unedited (`spec.digest`), and the digests of all
    inputs are the same. Its files are rendered again all the same: they may have been edited.

    Args:
        workspace: the project.
        cluster: the cluster.
        previous: the plan in force, then earlier ones.

    Raises:
        DocumentError: the documents are wrong or do not fit together.
    """
    if not previous:
        return None
    spec = previous[0].spec
    if spec.compiler != compiler_name() or spec.digest != spec.content_digest():
        return None
    return previous[0] if spec.inputs == collect_inputs(workspace, cluster).digests else None
