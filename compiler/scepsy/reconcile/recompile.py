"""Recompiles with the observed values, and writes, pushes or proposes the result: `scepsy drift --recompile`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from scepsy.compilation import Inputs
from scepsy.documents import Workspace
from scepsy.documents.command_results import CompileResult
from scepsy.documents.drift_result import DriftResponse, DriftResult
from scepsy.documents.workspace import with_observed
from scepsy.drift.kinds import KINDS, Effect
from scepsy.drift.observed_documents import observed_files
from scepsy.errors import ScepsyError
from scepsy.publishing.build import build
from scepsy.publishing.publish import AlreadyProposed, Amendment, Change, Destination, publish
from scepsy.publishing.pull_requests import Forge, forge_of
from scepsy.publishing.remote import find_remote
from scepsy.reconcile.check import CheckResult
from scepsy.reconcile.committed_plan import plan_path
from scepsy.reconcile.proposal import (
    BRANCH_PREFIX,
    branch_names,
    commit_reason,
    digest_in,
    digest_of,
    pull_request_body,
    pull_request_title,
)
from scepsy.repository.outputs import apply, compare
from scepsy.repository.worktree import WorkTree, read_at_head

How = Literal["write", "push", "propose"]
"""What to do with the result: write files into the checkout, commit and push them, or open a pull request."""

_CLOSED_COUNTS = 7 * 86_400.0
"""Seconds for which the same is not proposed again after a person closed the pull request."""


class Superseded(ScepsyError):
    """The checked plan is no longer the newest."""


class Undecided(ScepsyError):
    """A pull request is open, or was closed by a person: nothing is proposed."""


@dataclass(frozen=True)
class Recompilation:
    """How to act on drift.

    Attributes:
        project: directory with `scepsy.yaml`.
        how: what to do with the result.
        context: a context of the kubeconfig, for profiling jobs; the pod's account if None.
    """

    project: Path
    how: How
    context: str | None = None

    def act_on(self, checked: CheckResult) -> DriftResult:
        """Recompile if the check decided so, and submit profiling jobs for profiles that no longer hold.

        Returns:
            The result of the check, with what was done.

        Raises:
            ScepsyError: it cannot be compiled, pushed or proposed; then nothing changed, unless the message says
                otherwise.
        """
        decision = checked.decision
        response = DriftResponse(compile=decision.compile, why=decision.why, profiling=self._submitted(checked))
        result = checked.document.model_copy(update={"response": response})
        if not decision.compile or isinstance(checked.inputs, ScepsyError):
            return result
        try:
            if self.how == "write":
                return _write(checked, checked.inputs, result, response)
            return self._publish(checked, checked.inputs, result, response)
        except (Superseded, Undecided) as error:
            why = f"{error.message}; {error.hint}" if error.hint else error.message
            return result.model_copy(update={"response": response.model_copy(update={"compile": False, "why": why})})

    def _publish(
        self, checked: CheckResult, inputs: Inputs, result: DriftResult, response: DriftResponse
    ) -> DriftResult:
        """Recompile on top of the remote's newest commit; push the result or propose it."""
        cluster, comparison = checked.plan.spec.cluster, checked.comparison

        def change(workspace: Workspace) -> Mapping[PurePosixPath, bytes | None]:
            _check_newest(workspace, checked)
            return observed_files(workspace, inputs, comparison.change, comparison.missing, comparison.at)

        reason = commit_reason(result)
        if self.how == "push":
            compiled = publish(self.project, cluster, Destination(), False, Amendment(change, reason))
            done = "" if compiled.pushed is None else f"pushed {compiled.pushed.commit[:12]}"
            return _with(result, response, compiled, done or _UP_TO_DATE)
        if checked.tree is None or checked.tree.branch is None:
            raise ScepsyError("a pull request needs a branch of a Git repository", "check one out")
        # First, so that an error about the forge comes before anything is pushed.
        forge = forge_of(find_remote(checked.tree, None))
        digest = _digest(checked, checked.tree)
        _check_undecided(forge, cluster, digest, comparison.at)
        branch, commit, compiled_now = self._branch(cluster, digest, change, reason)
        if commit is None:
            return _with(result, response, compiled_now, _UP_TO_DATE)
        if compiled_now is None:  # another check that pushed the branch may have opened a pull request since
            _check_undecided(forge, cluster, digest, comparison.at)
        url = _open(forge, branch, checked.tree.branch, result)
        response = response.model_copy(update={"pull_request": url})
        return _with(result, response, compiled_now, f"proposed {commit[:12]}")

    def _branch(
        self, cluster: str, digest: str, change: Change, reason: str
    ) -> tuple[str, str | None, CompileResult | None]:
        """Push to a new branch, or take an existing one that was pushed for the same and has no pull request.

        Returns:
            The branch, its commit (None if there is nothing to propose), and what was compiled.
        """
        for branch in branch_names(cluster, digest):
            try:
                compiled = publish(self.project, cluster, Destination(), False, Amendment(change, reason, branch))
            except AlreadyProposed as existing:
                if existing.current:
                    return branch, existing.commit, None
            else:
                return branch, compiled.pushed.commit if compiled.pushed is not None else None, compiled
        raise ScepsyError(f"too many branches begin with {BRANCH_PREFIX}{cluster}-{digest}", "delete merged ones")

    def _submitted(self, checked: CheckResult) -> tuple[str, ...]:
        """Submit profiling jobs for profiles that no longer hold, if the project has an image for them; report it."""
        stale = any(KINDS[f.kind].effect is Effect.PROFILE_STALE for f in checked.document.findings)
        if not stale or checked.workspace.project.document.spec.profiling.image is None:
            return ()
        if self.context is None and checked.kubernetes is None:
            return ("no profiling job submitted: no cluster is named (--context)",)
        from scepsy.profiling.jobs.submit import submit_missing  # noqa: PLC0415 - slow to import
        from scepsy.profiling.jobs.target import Target  # noqa: PLC0415 - slow to import

        try:
            target = Target(self.project, checked.plan.spec.cluster, self.context, None)
            return tuple(submit_missing(target, lambda line: print(line, file=sys.stderr)))
        except ScepsyError as error:
            return (f"no profiling job submitted: {error.message}",)


_UP_TO_DATE = "the branch is already up to date"


def _with(result: DriftResult, response: DriftResponse, compiled: CompileResult | None, done: str) -> DriftResult:
    return result.model_copy(update={"response": response.model_copy(update={"done": done}), "compiled": compiled})


def _write(checked: CheckResult, inputs: Inputs, result: DriftResult, response: DriftResponse) -> DriftResult:
    """Recompile, and write everything into the checkout, or nothing."""
    workspace, tree, comparison = checked.workspace, checked.tree, checked.comparison
    cluster = checked.plan.spec.cluster
    files = observed_files(workspace, inputs, comparison.change, comparison.missing, comparison.at)
    built = build(with_observed(workspace, files), tree, [cluster])
    state = compare(workspace.root, tree, built.outputs, files)
    apply(workspace.root, built.outputs, state, False, files)
    done = f"wrote observed values and the plan of cluster {cluster}; review them: git status, git diff"
    return _with(result, response, built.result(state, (), False, None), done)


def _open(forge: Forge, branch: str, into: str, result: DriftResult) -> str:
    """Open the pull request; return its address."""
    try:
        return forge.open(branch, into, pull_request_title(result), pull_request_body(result))
    except ScepsyError as error:
        message = f"the branch {branch} was pushed, but {error.message}"
        raise ScepsyError(message, error.hint or "run again, or open the pull request by hand") from error


def _check_newest(workspace: Workspace, checked: CheckResult) -> None:
    """Check that the remote has no newer plan: findings are about the plan that was checked.

    Raises:
        Superseded: it has.
    """
    cluster, tree = checked.plan.spec.cluster, checked.tree
    newest = workspace.root / plan_path(workspace, cluster)
    expected = read_at_head(tree, plan_path(checked.workspace, cluster)) if tree is not None else None
    if not newest.is_file() or newest.read_bytes() != expected:
        where = [] if tree is None else [find_remote(tree, None).name, tree.branch or "HEAD"]
        pull = shlex.join(["git", "pull", "--ff-only", *where])
        raise Superseded(f"the remote has a newer plan for cluster {cluster}", f"update the checkout: {pull}")


def _digest(checked: CheckResult, tree: WorkTree) -> str:
    """Return a digest of the plan and its findings."""
    plan = read_at_head(tree, plan_path(checked.workspace, checked.plan.spec.cluster)) or b""
    return digest_of(plan, checked.document.findings)


def _check_undecided(forge: Forge, cluster: str, digest: str, at: float) -> None:
    """Check that no pull request for the cluster is open, and that none for the same was closed recently.

    Raises:
        Undecided: there is one.
    """
    for request in forge.pending():
        if (pending := digest_in(request.branch, cluster)) is not None:
            other = "" if pending == digest else ", although it is about other findings"
            raise Undecided(f"{request.url or request.branch} is still open{other}", "merge it, or close it")
    for request in forge.refused(at - _CLOSED_COUNTS):
        if digest_in(request.branch, cluster) == digest:
            raise Undecided(
                f"{request.url or request.branch} proposed the same change and was closed without merging;"
                " not proposing it again for 7 days"
            )
