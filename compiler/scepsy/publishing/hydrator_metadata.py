"""`hydrator.metadata`: what an environment branch was made from, as gitops-promoter and Argo CD's hydrator write it.

The contract: gitops-promoter's documentation, "Building a custom hydrator". JSON at the top of the branch, in a file
without the ending .json, which Argo CD would take for a manifest; `drySha` is the commit that was compiled.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from scepsy.repository.commit_message import describe
from scepsy.repository.worktree import WorkTree

METADATA = PurePosixPath("hydrator.metadata")
_LONGEST = 5_000


def metadata(source: WorkTree) -> bytes:
    """Return the content of `hydrator.metadata`: nothing in it but what the commit says of itself.

    Args:
        source: the work tree that was compiled, with a commit at HEAD.

    Raises:
        GitFailed: when git fails.
    """
    about = describe(source)
    fields = {
        "repoURL": about["repourl"],
        "drySha": about["sha"],
        "author": about["author"],
        "date": about["date"],
        "subject": about["subject"],
        "body": about["body"][:_LONGEST],
    }
    return (json.dumps({name: value for name, value in fields.items() if value}, indent=2) + "\n").encode()


def start_of(branch: str) -> str | None:
    """Return the branch that a new branch continues: `environments/x` for `environments/x-next`; None for no other."""
    return branch.removesuffix("-next") if branch.endswith("-next") and branch != "-next" else None
