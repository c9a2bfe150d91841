"""`scepsy compile --commit --push`: compile on top of what the remote has, until the remote takes the commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scepsy.documents import DocumentError, Workspace, load_workspace
from scepsy.documents.command_results import CompileResult, PushedCommit
from scepsy.documents.paths import output_path
from scepsy.errors import ScepsyError
from scepsy.publishing.build import Built, build
from scepsy.publishing.fast_forward import CheckoutUpdate, fast_forward
from scepsy.publishing.hydrator_metadata import METADATA, metadata, start_of
from scepsy.publishing.push import (
    Pushed,
    Upstream,
    output_tip,
    push_until_taken,
    tip,
    tracking,
    with_retries,
)
from scepsy.publishing.remote import NoRemote, Remote, find_remote, given_remote
from scepsy.publishing.scratch_worktree import ScratchWorktree, scratch_directory
from scepsy.publishing.transport import default_branch
from scepsy.repository import CannotCommit, WorkTree, WouldOverwrite, check_committable, open_worktree_or_none
from scepsy.repository.commit import check_branch_name
from scepsy.repository.git import ask
from scepsy.repository.outputs import (
    Output,
    State,
    check_inputs,
    compare,
    documents_of,
    gone,
    make_outputs,
)
from scepsy.repository.worktree import read_at_head
from scepsy.sharing import CLUSTER_CHECKS

Change = Callable[[Workspace], Mapping[PurePosixPath, bytes | None]]
"""Writes inputs: from the project on top of the remote, the new content of files (None to remove one)."""

_FALLBACK = "main"


@dataclass(frozen=True)
class Destination:
    """Where the commit goes, from the options.

    Attributes:
        remote: the remote's name; the one that git would push to if None.
        branch: the branch; the current one if None.
        repository: the address of another repository, for output alone.
    """

    remote: str | None = None
    branch: str | None = None
    repository: str | None = None


@dataclass
class _Round:
    """What the last attempt compiled, and how it compares with where it goes."""

    built: Built
    left_over: list[Output]
    state: State
    commit: str | None
    ours: frozenset[PurePosixPath] = frozenset()


@dataclass(frozen=True)
class Amendment:
    """Inputs that go into the same commit.

    Attributes:
        change: writes them; asked again on top of whatever others push meanwhile.
        reason: why, for the commit message.
        branch: a new branch to push to, for people to review; None for the branch of the specs.
    """

    change: Change
    reason: str
    branch: str | None = None


class AlreadyProposed(ScepsyError):
    """The branch of a proposal exists.

    Args:
        message: what is wrong.
        commit: what the branch is at.
        current: whether that was made on top of what the branch of the specs has now.
    """

    def __init__(self, message: str, commit: str, current: bool) -> None:
        super().__init__(message)
        self.commit, self.current = commit, current


def publish(
    project: Path, cluster: str | None, destination: Destination, force: bool, amendment: Amendment | None = None
) -> CompileResult:
    """Compile one cluster or all, commit and push.

    The compile is made in a private tree on top of the remote's branch, so the checkout is as it was if anything goes
    wrong; in the end it is brought forward to the pushed commit, or left unchanged.

    Args:
        project: directory with `scepsy.yaml`.
        cluster: the cluster; all of them if None.
        destination: where to push.
        force: overwrite output files that were edited by hand.
        amendment: inputs that go into the same commit; only where specs and output lie side by side.

    Raises:
        AlreadyProposed: the new branch for it exists.
        ScepsyError: something is wrong; nothing was pushed then, unless the message states otherwise.
    """
    if not project.is_dir():
        raise ScepsyError(f"there is no directory {project}", "name one with scepsy.yaml")
    tree = open_worktree_or_none(project)
    if tree is None:
        raise ScepsyError(f"{project} is not in a Git repository, so nothing can be pushed", "run: git init")
    if tree.head is None:
        raise CannotCommit("there is no commit yet: the project's documents are not committed", "commit them first")
    if tree.branch is None:
        raise CannotCommit(
            "HEAD is detached, so there is no branch to push",
            "put this commit on its branch: git switch -C NAME",
        )
    where = Path(os.path.realpath(project)).relative_to(tree.root)
    if not (tree.root / where / "scepsy.yaml").exists():
        load_workspace(project, tree.root, cluster_checks=CLUSTER_CHECKS)  # reports what is missing
    if destination.branch is not None:
        check_branch_name(tree, destination.branch)
    check_committable(tree, {})
    try:
        with scratch_directory(tree) as room:
            job = _Job(tree, where, cluster, force, amendment, room)
            if amendment is not None and amendment.branch is not None:
                return job.proposed(find_remote(tree, destination.remote), amendment.branch)
            if destination.repository is None and destination.branch in (None, tree.branch):
                return job.beside(find_remote(tree, destination.remote))
            if amendment is not None:
                raise ScepsyError(
                    "inputs can only be changed on the branch of the specs, where output lies beside them",
                    "push without --branch and --repository",
                )
            return job.apart(destination)
    except OSError as error:
        place = error.filename2 or error.filename or tree.git_dir
        raise CannotCommit(
            f"cannot prepare the commit: {place}: {error.strerror or error}; nothing was pushed or changed",
            "fix this and re-run",
        ) from None


def follow(project: Path) -> str:
    """Bring the checkout forward to the remote's branch, if it is behind and nothing in it would be lost.

    Returns:
        Why it was left unchanged; empty if it is at the remote's branch, or ahead of it.

    Raises:
        ScepsyError: the remote does not answer, or both have commits that the other lacks.
    """
    tree = open_worktree_or_none(project)
    if tree is None or tree.head is None or tree.branch is None:
        raise ScepsyError(f"{project} is not on a branch of a Git repository", "check one out")
    remote = find_remote(tree, None)
    with scratch_directory(tree) as room:
        scratch = ScratchWorktree(tree, room / "tree", tree.branch, remote)
        there = Upstream(tree, scratch, remote).newest(ahead=True)
        return fast_forward(tree, scratch, there, (), tracking(tree, remote, tree.branch)).why


class _Job:
    def __init__(
        self,
        tree: WorkTree,
        where: Path,
        cluster: str | None,
        force: bool,
        amendment: Amendment | None,
        room: Path,
    ) -> None:
        self.tree, self.where, self.cluster, self.force, self.amendment, self.room = (
            tree, where, cluster, force, amendment, room,
        )  # fmt: skip
        self.last: _Round | None = None

    def beside(self, remote: Remote) -> CompileResult:
        """Push the branch that the specs are on, with the output beside them."""
        scratch = self._scratch("tree", self.tree.branch or "", remote)
        upstream = Upstream(self.tree, scratch, remote)

        def make(base: str) -> str | None:
            tree = scratch.at(base)
            self.last = self._compiled(upstream, tree, tree)
            return self.last.commit or (base if base != upstream.tip else None)

        pushed = push_until_taken(scratch, remote, lambda: upstream.newest(ahead=True), make, lambda: upstream.tip)
        at = pushed.commit if pushed else upstream.tip
        left = CheckoutUpdate()
        if at is not None:
            ours = self.last.ours if self.last else ()
            left = fast_forward(self.tree, scratch, at, ours, tracking(self.tree, remote, scratch.branch))
        return self._result(pushed, remote, scratch.branch, left)

    def proposed(self, remote: Remote, branch: str) -> CompileResult:
        """Push a new branch off the one that the specs are on; the checkout is not changed."""
        upstream = Upstream(self.tree, self._scratch("tree", self.tree.branch or "", remote), remote)
        scratch = self._scratch("proposal", branch, remote)
        remote_tip: list[str | None] = [None]

        def find_base() -> str:
            remote_tip[0] = tip(scratch, remote)
            base = upstream.newest(ahead=False)
            tip(scratch, remote, branch=self.tree.branch)  # its objects
            return base

        def make(base: str) -> str | None:
            if remote_tip[0] is not None:
                current = ask(scratch.root, "rev-parse", "-q", "--verify", f"{remote_tip[0]}^1") == base
                raise AlreadyProposed(f"the branch {branch} of {remote.name} exists", remote_tip[0], current)
            tree = scratch.at(base)
            self.last = self._compiled(upstream, tree, tree)
            return self.last.commit

        return self._result(
            push_until_taken(scratch, remote, find_base, make, lambda: remote_tip[0]), remote, branch, CheckoutUpdate()
        )

    def apart(self, destination: Destination) -> CompileResult:
        """Push a branch that holds output alone."""
        source, remote = self._remotes(destination)
        dry = self._scratch("tree", self.tree.branch or "", source)
        upstream = Upstream(self.tree, dry, source)
        branch = destination.branch or self._default(remote)
        wet = self._scratch("output", branch, remote)
        remote_tip: list[str | None] = [None]

        def find_base() -> tuple[str, str | None]:
            base = upstream.newest(ahead=source is None)
            remote_tip[0] = output_tip(wet, remote)
            return base, remote_tip[0] or self._start(remote, branch, wet)

        def make(found: tuple[str, str | None]) -> str | None:
            base, start = found
            tree, output = dry.at(base), wet.at(start)
            self._refuse_specs(output, remote)
            self.last = self._compiled(upstream, tree, output)
            return self.last.commit

        pushed = push_until_taken(wet, remote, find_base, make, lambda: remote_tip[0])
        return self._result(pushed, remote, branch, CheckoutUpdate())

    def _scratch(self, name: str, branch: str, remote: Remote | None) -> ScratchWorktree:
        return ScratchWorktree(self.tree, self.room / name, branch, remote)

    def _remotes(self, destination: Destination) -> tuple[Remote | None, Remote]:
        if destination.repository is None:
            remote = find_remote(self.tree, destination.remote)
            return remote, remote
        try:
            source: Remote | None = find_remote(self.tree, None)
        except NoRemote:
            source = None
        return source, given_remote(destination.repository, self.tree)

    def _default(self, remote: Remote) -> str:
        probe = self._scratch("probe", _FALLBACK, remote)
        return with_retries(lambda: default_branch(probe.root, remote)) or _FALLBACK

    def _start(self, remote: Remote, branch: str, wet: ScratchWorktree) -> str | None:
        """Return where a new branch starts: a proposed branch at the one that it is proposed for."""
        active = start_of(branch)
        return tip(wet, remote, branch=active) if active else None

    def _refuse_specs(self, output: WorkTree, remote: Remote) -> None:
        specs = PurePosixPath(self.where / "scepsy.yaml")
        if output.head is not None and read_at_head(output, specs) is not None:
            raise CannotCommit(
                f"the branch {output.branch} of {remote.name} holds a project ({specs}), not only output",
                "name another branch, such as environments/NAME; or check that branch out, and push without --branch",
            )

    def _changed(self, tree: WorkTree) -> dict[PurePosixPath, bytes | None]:
        """Write the inputs that belong to the commit."""
        if self.amendment is None:
            return {}
        files = dict(
            self.amendment.change(load_workspace(tree.root / self.where, tree.root, cluster_checks=CLUSTER_CHECKS))
        )
        for path, data in files.items():
            target = output_path(tree.root, path)
            if data is None:
                target.unlink(missing_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        return files

    def _compiled(self, upstream: Upstream, tree: WorkTree, output: WorkTree) -> _Round:
        """Compile `tree`, and commit in `output`, which is the same tree if specs and output lie side by side."""
        with _explained(self.tree, upstream, tree, output):
            others = self._changed(tree)
            workspace = load_workspace(tree.root / self.where, tree.root, cluster_checks=CLUSTER_CHECKS)
            names = [self.cluster] if self.cluster is not None else list(workspace.clusters)
            built = build(workspace, output, names)
            left_over = gone(workspace, output.root) if self.cluster is None else []
            everything = [*built.outputs, *left_over]
            state = compare(output.root, output, everything)
            check_inputs(self.tree, everything, documents_of(workspace, self.tree.root), tree)
            ours = self._in_checkout(everything) if output is tree else frozenset()
            if not self.force and (state.changes.edited or state.changes.foreign):
                raise WouldOverwrite(state.changes)
            if output is not tree and (state.changes.any or state.uncommitted):
                others[METADATA] = metadata(tree)
            reason = self.amendment.reason if self.amendment is not None else ""
            made = make_outputs(output, everything, others, tree, reason)
        return _Round(built, left_over, state, made, ours)

    def _in_checkout(self, outputs: list[Output]) -> frozenset[PurePosixPath]:
        """Return the outputs that differ in the checkout and may be replaced there."""
        changes = compare(self.tree.root, self.tree, outputs).changes
        if not self.force and (changes.edited or changes.foreign):
            raise WouldOverwrite(changes)
        return frozenset((*changes.added, *changes.changed, *changes.removed))

    def _result(self, pushed: Pushed | None, remote: Remote, branch: str, left: CheckoutUpdate) -> CompileResult:
        last = self.last
        assert last is not None  # noqa: S101 - made at least once
        result = last.built.result(last.state, last.left_over, False, last.commit)
        done = pushed and PushedCommit(
            remote=remote.name, url=remote.shown, branch=branch, commit=pushed.commit, attempts=pushed.attempts
        )
        return result.model_copy(update={"pushed": done, "left": left.why, "remedy": left.remedy(remote.name, branch)})


@contextmanager
def _explained(mine: WorkTree, upstream: Upstream, tree: WorkTree, output: WorkTree) -> Iterator[None]:
    """Within it, errors speak of the checkout and of the remote, not of private trees."""
    try:
        yield
    except DocumentError as error:
        if tree.head == mine.head:
            raise
        raise ScepsyError(f"{upstream.name} at {str(tree.head)[:12]} does not compile:\n{error}") from None
    except ScepsyError as error:
        for root in (tree.root, output.root):
            error.message = error.message.replace(str(root), str(mine.root))
            error.args = (error.message,)
        raise
