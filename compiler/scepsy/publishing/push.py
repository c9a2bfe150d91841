"""Push until the remote accepts it: find the remote's branch, make a commit on top of it, and push that.

Nothing is ever forced, merged or rebased. A commit is made in a scratch worktree (:mod:`.scratch_worktree`) and pushed
from there; afterwards the user's checkout is fast-forwarded (:mod:`.fast_forward`), or stays unchanged. So a run that
fails or is killed changes nothing locally, and all or nothing at the remote.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from scepsy.publishing.remote import Remote
from scepsy.publishing.scratch_worktree import ScratchWorktree
from scepsy.publishing.transport import RemoteFailed, fetch, heads, push
from scepsy.repository.commit import CannotCommit
from scepsy.repository.git import ask, git
from scepsy.repository.worktree import WorkTree, has_commit

ATTEMPTS = 40
"""How often a commit is made again because another push was first."""
_FAULTS = 3  # times in a row that the remote may fail to answer
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
        tree: the user's work tree; HEAD is on a branch with a commit.
        scratch: a scratch worktree for that branch.
        remote: where the branch is pushed; None where the project is in no remote.
    """

    def __init__(self, tree: WorkTree, scratch: ScratchWorktree, remote: Remote | None) -> None:
        self.tree, self.scratch, self.remote = tree, scratch, remote
        self.tip: str | None = None

    @property
    def name(self) -> str:
        """The branch as people write it, such as origin/main."""
        return f"{self.remote.name}/{self.scratch.branch}" if self.remote else self.scratch.branch

    def newest(self, ahead: bool) -> str:
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
        self.tip = tip(self.scratch, self.remote)
        if self.tip is not None and self.scratch.contains(self.tip, head):
            return self.tip
        if self.tip is not None and not self.scratch.contains(head, self.tip):
            raise Diverged(
                f"{self.scratch.branch} has commits that {self.name} lacks, and {self.name} has moved on:"
                f" {_count(self.scratch, self.tip, head)} here, {_count(self.scratch, head, self.tip)} there;"
                " nothing was pushed or changed",
                f"rebase your commits, then re-run: git pull --rebase {self.remote.name} {self.scratch.branch}",
            )
        if not ahead:
            raise Diverged(
                f"{self.scratch.branch} has commits that {self.name} lacks, so others could not find what the output"
                " was made from; nothing was pushed or changed",
                f"push them first: git push {self.remote.name} {self.scratch.branch}",
            )
        return head


def tip(scratch: ScratchWorktree, remote: Remote, depth: int | None = None, branch: str | None = None) -> str | None:
    """Return the commit that a branch of the remote is at, and have it in the scratch worktree; None if there is none.

    Args:
        scratch: the scratch worktree.
        remote: the remote.
        depth: so many commits are enough; all if None.
        branch: the branch; the scratch worktree's if None.

    Raises:
        RemoteFailed: the remote does not answer.
    """
    name = branch or scratch.branch
    there = with_retries(lambda: heads(scratch.root, remote, [name]).get(name))
    if there is None or _whole(scratch, there):
        return there
    with_retries(lambda: fetch(scratch.root, remote, name, depth))
    return ask(scratch.root, "rev-parse", "-q", "--verify", "refs/scepsy/remote")


def _whole(scratch: ScratchWorktree, commit: str) -> bool:
    """Tell whether a commit is there with all that belongs to it: a killed fetch may leave one without its files."""
    if not has_commit(scratch.root, commit):
        return False
    held = (ask(scratch.root, "rev-parse", "-q", "--verify", f"refs/scepsy/{name}") for name in ("lender", "remote"))
    return any(reference is not None and scratch.contains(reference, commit) for reference in held)


def output_tip(scratch: ScratchWorktree, remote: Remote) -> str | None:
    """Return as :func:`tip` does, for a branch of which only the newest commits matter."""
    return tip(scratch, remote, None if remote.protocols == "file" else _DEPTH)


def push_until_taken(
    scratch: ScratchWorktree,
    remote: Remote,
    find_base: Callable[[], _T],
    make: Callable[[_T], str | None],
    there: Callable[[], str | None],
) -> Pushed | None:
    """Make a commit and push it; if another push was first, make it again on top of that, and push.

    Args:
        scratch: the scratch worktree of the branch that is pushed.
        remote: where.
        find_base: fetches, and returns what to build on.
        make: makes the commit on top of that; None when there is nothing to push.
        there: the commit that the remote's branch was at when `find_base` returned.

    Returns:
        How it ended; None if there was nothing to push.

    Raises:
        Declined: the remote takes no such commit.
        RemoteFailed: the remote does not answer, or another push was first each time.
        ScepsyError: as `find_base` and `make` do.
    """
    made: str | None = None
    made_on: tuple[_T, str | None] | None = None
    for attempt in range(1, ATTEMPTS + 1):
        began = time.monotonic()
        base, before = find_base(), there()
        if (
            made is not None
            and before is not None
            and has_commit(scratch.root, before)
            and scratch.contains(before, made)
        ):
            return Pushed(made, True, attempt - 1)  # it was taken, though the answer was lost
        if made_on != (base, before):
            made, made_on = make(base), (base, before)
        if made is None or made == before:
            return None
        try:
            if push(scratch.root, remote, scratch.branch, made):
                return Pushed(made, True, attempt)
        except RemoteFailed as error:
            if not error.again or attempt > _FAULTS:
                raise
        # The longer an attempt takes, the more other pushes it meets.
        time.sleep(_pause(attempt, time.monotonic() - began))
    raise RemoteFailed(
        f"gave up after {ATTEMPTS} attempts: each time another push moved {scratch.branch} at {remote.name} first;"
        " nothing was changed",
        "re-run later",
    )


def with_retries(work: Callable[[], _T]) -> _T:
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
    """Return the reference here of the remote's branch; None if the remote has no name."""
    reference = f"refs/remotes/{remote.name}/{branch}"
    return reference if ask(tree.root, "check-ref-format", reference) is not None else None


def _pause(attempt: int, unit: float = 0.0) -> float:
    # Full jitter: several compilers that met once should not meet again. S311: nothing secret about it.
    return random.uniform(0.0, min(_LONGEST, max(unit, _FIRST) * 1.5**attempt))  # noqa: S311


def _count(scratch: ScratchWorktree, without: str, of: str) -> int:
    return int(git(scratch.root, "rev-list", "--count", of, f"^{without}").decode())
