"""Push until it is taken: look where the remote's branch is, make a commit on top of that, and offer it.

Nothing is ever forced, merged or rebased. A commit is made in a private tree (see :mod:`.sidetree`) and pushed from
there; the person's checkout is brought forward afterwards (see :mod:`.forward`), or left as it is. So a run that fails
or dies has changed nothing here, and either nothing or everything there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from scepsy.publishing.remote import Remote
from scepsy.publishing.scratch_worktree import SideTree
from scepsy.publishing.transport import RemoteFailed, fetch, heads, push
from scepsy.repository.commit import CannotCommit
from scepsy.repository.git import ask, git
from scepsy.repository.worktree import WorkTree, has_commit

ATTEMPTS = 40
"""So often a commit is made anew because somebody else's came first."""
_FAULTS = 3  # so often in a row the remote may fail to answer
_FIRST, _LONGEST = 0.1, 30.0  # seconds between attempts
_DEPTH = 50  # of a branch with nothing but output: enough for the plans before

_T = TypeVar("_T")


class Diverged(CannotCommit):
    """The local branch has commits that the remote's lacks, which has moved on too."""


@dataclass(frozen=True)
class Pushed:
    """How a push ended.

    Attributes:
        commit: what the remote's branch is at.
        moved: whether we moved it there.
        attempts: how many commits were offered.
    """

    commit: str
    moved: bool
    attempts: int


class Upstream:
    """The branch that the person is on, here and at its remote.

    Args:
        tree: the person's work tree; HEAD is on a branch with a commit.
        side: a side tree for that branch.
        remote: where the branch is pushed; None where the project is in no remote.
    """

    def __init__(self, tree: WorkTree, side: SideTree, remote: Remote | None) -> None:
        self.tree, self.side, self.remote = tree, side, remote
        self.tip: str | None = None

    @property
    def name(self) -> str:
        """The branch as people write it, such as origin/main."""
        return f"{self.remote.name}/{self.side.branch}" if self.remote else self.side.branch

    def look(self, ahead: bool) -> str:
        """Return the newest commit of the branch: the remote's if HEAD is behind it, else HEAD.

        Args:
            ahead: whether HEAD may have commits that the remote does not have.

        Raises:
            Diverged: both have commits that the other lacks; or HEAD has, and may not.
            RemoteFailed: the remote does not answer.
        """
        head = self.tree.head
        assert head is not None  # noqa: S101 - on a branch with a commit
        if self.remote is None:
            return head
        self.tip = tip(self.side, self.remote)
        if self.tip is not None and self.side.contains(self.tip, head):
            return self.tip
        if self.tip is not None and not self.side.contains(head, self.tip):
            raise Diverged(
                f"{self.side.branch} has commits that {self.name} lacks, and {self.name} has moved on:"
                f" {_count(self.side, self.tip, head)} here, {_count(self.side, head, self.tip)} there;"
                " nothing was pushed or changed",
                f"rebase your commits, then re-run: git pull --rebase {self.remote.name} {self.side.branch}",
            )
        if not ahead:
            raise Diverged(
                f"{self.side.branch} has commits that {self.name} lacks, so others could not find what the output"
                " was made from; nothing was pushed or changed",
                f"push them first: git push {self.remote.name} {self.side.branch}",
            )
        return head


def tip(side: SideTree, remote: Remote, depth: int | None = None, branch: str | None = None) -> str | None:
    """Return the commit that a branch of the remote is at, and have it in the side tree; None if there is none.

    Args:
        side: the side tree.
        remote: the remote.
        depth: so many commits are enough; all if None.
        branch: the branch; the side tree's if None.

    Raises:
        RemoteFailed: the remote does not answer.
    """
    name = branch or side.branch
    there = patiently(lambda: heads(side.root, remote, [name]).get(name))
    if there is None or _whole(side, there):
        return there
    patiently(lambda: fetch(side.root, remote, name, depth))
    return ask(side.root, "rev-parse", "-q", "--verify", "refs/scepsy/remote")


def _whole(side: SideTree, commit: str) -> bool:
    """Tell whether a commit is there with all that belongs to it: a killed fetch may leave one without its files."""
    if not has_commit(side.root, commit):
        return False
    held = (ask(side.root, "rev-parse", "-q", "--verify", f"refs/scepsy/{name}") for name in ("lender", "remote"))
    return any(reference is not None and side.contains(reference, commit) for reference in held)


def output_tip(side: SideTree, remote: Remote) -> str | None:
    """Return as :func:`tip` does, for a branch of which only the newest commits matter."""
    return tip(side, remote, None if remote.protocols == "file" else _DEPTH)


def push_until_taken(
    side: SideTree,
    remote: Remote,
    look: Callable[[], _T],
    make: Callable[[_T], str | None],
    there: Callable[[], str | None],
) -> Pushed | None:
    """Make a commit and push it; when somebody else was faster, look again, make it anew on top, and push that.

    Args:
        side: the side tree of the branch that is pushed.
        remote: where.
        look: finds out what there is to build on.
        make: makes the commit on top of that; None when there is nothing to push.
        there: the commit that the remote's branch was at when `look` looked.

    Returns:
        How it ended; None if there was nothing to push.

    Raises:
        Declined: the remote takes no such commit.
        RemoteFailed: the remote does not answer, or somebody else was always faster.
        ScepsyError: as `look` and `make` do.
    """
    made: str | None = None
    seen: tuple[_T, str | None] | None = None
    for attempt in range(1, ATTEMPTS + 1):
        began = time.monotonic()
        base, before = look(), there()
        if made is not None and before is not None and has_commit(side.root, before) and side.contains(before, made):
            return Pushed(made, True, attempt - 1)  # it was taken, though the answer was lost
        if seen != (base, before):
            made, seen = make(base), (base, before)
        if made is None or made == before:
            return None
        try:
            if push(side.root, remote, side.branch, made):
                return Pushed(made, True, attempt)
        except RemoteFailed as error:
            if not error.again or attempt > _FAULTS:
                raise
        # Whoever needs long for an attempt meets others for as long.
        time.sleep(_pause(attempt, time.monotonic() - began))
    raise RemoteFailed(
        f"gave up after {ATTEMPTS} attempts: each time another push moved {side.branch} at {remote.name} first;"
        " nothing was changed",
        "re-run later",
    )


def patiently(work: Callable[[], _T]) -> _T:
    """Ask a remote again when it does not answer as it should, a few times.

    Raises:
        RemoteFailed: it still does not.
    """
    for attempt in range(1, _FAULTS):
        try:
            return work()
        except RemoteFailed as error:
            if not error.again:
                raise
        time.sleep(_pause(attempt))
    return work()


def tracking(tree: WorkTree, remote: Remote, branch: str) -> str | None:
    """Return the reference here that says where the remote's branch is; None if the remote has no name."""
    reference = f"refs/remotes/{remote.name}/{branch}"
    return reference if ask(tree.root, "check-ref-format", reference) is not None else None


def _pause(attempt: int, unit: float = 0.0) -> float:
    # Full jitter: several compilers that met once should not meet again. S311: nothing secret about it.
    return random.uniform(0.0, min(_LONGEST, max(unit, _FIRST) * 1.5**attempt))  # noqa: S311


def _count(side: SideTree, without: str, of: str) -> int:
    return int(git(side.root, "rev-list", "--count", of, f"^{without}").decode())
