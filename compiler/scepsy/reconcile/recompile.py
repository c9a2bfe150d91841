"""`scepsy drift --recompile`: write what was observed, compile with it, and push it or propose it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from scepsy.compilation import Inputs
from scepsy.documents import Workspace
from scepsy.documents.command_results import CompileResult
from scepsy.documents.drift_result import DriftFinding, DriftResponse, DriftResult
from scepsy.documents.workspace import with_observed
from scepsy.drift.lost_hardware import BACK, LOST
from scepsy.drift.observed_documents import observed_files
from scepsy.errors import ScepsyError
from scepsy.publishing.build import build
from scepsy.publishing.publish import AlreadyProposed, Amendment, Change, Destination, publish
from scepsy.publishing.pull_requests import Forge, forge_of
from scepsy.publishing.remote import find_remote
from scepsy.reconcile.check import Looked, plan_path
from scepsy.repository.commit_message import one_line
from scepsy.repository.outputs import apply, compare
from scepsy.repository.worktree import WorkTree, read_at_head

How = Literal["write", "push", "propose"]
"""What becomes of the result: files in the checkout, a commit on the branch of the specs, or a pull request."""

_PREFIX = "scepsy/drift-"
"""How the names of branches with proposals begin."""
_STALE = ("profile-outdated", "profile-gone", "profile-old")
"""Kinds of findings that a measurement mends."""
_LISTED = 20
_HIT = 4
"""How many instances are named that a finding hits."""
_UNNAMED, _LONGEST = re.compile(r"[^A-Za-z0-9._/-]"), 120
"""What is in no name of a node, a GPU, an LLM or an object, and how long one may be: clusters give names too."""
_REFUSED = 7 * 86_400.0
"""Seconds for which a pull request that a person closed is an answer."""


class Superseded(ScepsyError):
    """The plan that was judged is no longer the newest."""


class Undecided(ScepsyError):
    """A pull request is open, or was closed by a person: nothing is proposed."""


@dataclass(frozen=True)
class Recompilation:
    """What to do about drift.

    Attributes:
        project: directory with `scepsy.yaml`.
        how: what becomes of the result.
        context: a context of the kubeconfig, for measurements; a pod's own account if None.
    """

    project: Path
    how: How
    context: str | None = None

    def answer(self, looked: Looked) -> DriftResult:
        """Do what a look calls for: compile again if that is worth it, and measure what no longer holds.

        Returns:
            What was found, with what was done about it.

        Raises:
            ScepsyError: it cannot be compiled, pushed or proposed; nothing was changed then, unless the message says
                otherwise.
        """
        response = DriftResponse(
            compile=looked.response.compile, why=looked.response.why, profiling=self._measured(looked)
        )
        result = looked.result.model_copy(update={"response": response})
        if not looked.response.compile or isinstance(looked.inputs, ScepsyError):
            return result
        try:
            return self._compiled(looked, looked.inputs, result, response)
        except (Superseded, Undecided) as error:
            why = f"{error.message}; {error.hint}" if error.hint else error.message
            return result.model_copy(update={"response": response.model_copy(update={"compile": False, "why": why})})

    def _compiled(self, looked: Looked, inputs: Inputs, result: DriftResult, response: DriftResponse) -> DriftResult:
        cluster = looked.plan.spec.cluster
        if self.how == "write":
            compiled = _written(looked, inputs)
            done = f"observed values and the plan of cluster {cluster} are written; look at them: git status, git diff"
            return _with(result, response, compiled, done)

        def change(workspace: Workspace) -> Mapping[PurePosixPath, bytes | None]:
            _check_newest(workspace, looked)
            return observed_files(workspace, inputs, looked.seen.change, looked.seen.missing, looked.seen.at)

        reason = _reason(result)
        if self.how == "push":
            compiled = publish(self.project, cluster, Destination(), False, Amendment(change, reason))
            done = "" if compiled.pushed is None else f"pushed {compiled.pushed.commit[:12]}"
            return _with(result, response, compiled, done or "the branch has it already")
        if looked.tree is None or looked.tree.branch is None:
            raise ScepsyError("a pull request needs a branch of a Git repository", "check one out")
        # Whether one can be asked for shows before anything is pushed.
        forge = forge_of(find_remote(looked.tree, None))
        occasion = _occasion(looked, looked.tree)
        _check_undecided(forge, cluster, occasion, looked.seen.at)
        branch, commit, made = self._branch(cluster, occasion, change, reason)
        if commit is None:
            return _with(result, response, made, "the branch has it already")
        if made is None:  # whoever pushed it may have opened one meanwhile
            _check_undecided(forge, cluster, occasion, looked.seen.at)
        url = self._proposed(forge, branch, looked.tree.branch, result)
        response = response.model_copy(update={"pull_request": url})
        return _with(result, response, made, f"proposed {commit[:12]}")

    def _branch(
        self, cluster: str, occasion: str, change: Change, reason: str
    ) -> tuple[str, str | None, CompileResult | None]:
        """Push to a branch that is not there yet, or take one that was pushed for this and got no pull request.

        Returns:
            The branch, its commit (None if there is nothing to propose), and what was compiled.
        """
        for branch in _branches(cluster, occasion):
            try:
                compiled = publish(self.project, cluster, Destination(), False, Amendment(change, reason, branch))
            except AlreadyProposed as there:
                if there.current:
                    return branch, there.commit, None
            else:
                return branch, compiled.pushed.commit if compiled.pushed is not None else None, compiled
        raise ScepsyError(f"too many branches begin with {_PREFIX}{cluster}-{occasion}", "delete those that are merged")

    @staticmethod
    def _proposed(forge: Forge, branch: str, into: str, result: DriftResult) -> str:
        title = f"scepsy: recompile {result.cluster} ({_told(result.findings[0])})"
        try:
            return forge.open(branch, into, title, proposal(result))
        except ScepsyError as error:
            message = f"the branch {branch} was pushed, but {error.message}"
            raise ScepsyError(message, error.hint or "run again, or open the pull request by hand") from error

    def _measured(self, looked: Looked) -> tuple[str, ...]:
        """Submit the measurement of profiles that no longer hold, where the project says how; say what became of it."""
        stale = [f for f in looked.result.findings if f.area == "profiles" and f.kind in _STALE]
        if not stale or looked.workspace.project.document.spec.profiling.image is None:
            return ()
        if self.context is None and looked.kubernetes is None:
            return ("nothing was measured anew: no cluster is named (--context)",)
        from scepsy.profiling.jobs.lifecycle import Where, submit_missing  # noqa: PLC0415 - slow to import

        try:
            return tuple(submit_missing(Where(self.project, looked.plan.spec.cluster, self.context, None)))
        except ScepsyError as error:
            return (f"nothing was measured anew: {error.message}",)


def _with(result: DriftResult, response: DriftResponse, compiled: CompileResult | None, done: str) -> DriftResult:
    return result.model_copy(update={"response": response.model_copy(update={"done": done}), "compiled": compiled})


def _written(looked: Looked, inputs: Inputs) -> CompileResult:
    """Compile with what was observed, and write all of it, or nothing."""
    workspace, tree = looked.workspace, looked.tree
    files = observed_files(workspace, inputs, looked.seen.change, looked.seen.missing, looked.seen.at)
    built = build(with_observed(workspace, files), tree, [looked.plan.spec.cluster])
    state = compare(workspace.root, tree, built.outputs, files)
    apply(workspace.root, built.outputs, state, False, files)
    return built.result(state, (), False, None)


def _check_newest(workspace: Workspace, looked: Looked) -> None:
    """Check that nobody compiled since: what was found is about the plan that was judged.

    Raises:
        Superseded: somebody did.
    """
    cluster = looked.plan.spec.cluster
    newest = workspace.root / plan_path(workspace, cluster)
    mine = read_at_head(looked.tree, plan_path(looked.workspace, cluster)) if looked.tree is not None else None
    if not newest.is_file() or newest.read_bytes() != mine:
        tree = looked.tree
        where = [] if tree is None else [find_remote(tree, None).name, tree.branch or "HEAD"]
        pull = shlex.join(["git", "pull", "--ff-only", *where])
        raise Superseded(
            f"the plan of cluster {cluster} is another one at the remote by now", f"bring the checkout forward: {pull}"
        )


def _occasion(looked: Looked, tree: WorkTree) -> str:
    """Return a name for what compiling again is proposed for: the plan, and what is wrong with it, without figures."""
    findings = looked.result.findings
    lost = [f for f in findings if f.kind in LOST and f.instances]
    about = lost or [f for f in findings if f.area == "traffic" or f.kind in BACK]
    plan = read_at_head(tree, plan_path(looked.workspace, looked.plan.spec.cluster)) or b""
    text = json.dumps(sorted((f.kind, f.severity, f.subject) for f in about))
    return hashlib.sha256(hashlib.sha256(plan).digest() + text.encode()).hexdigest()[:8]


def _branches(cluster: str, occasion: str) -> Iterator[str]:
    """Yield the names that a branch for it may have: the first that is free is taken."""
    yield f"{_PREFIX}{cluster}-{occasion}"
    yield from (f"{_PREFIX}{cluster}-{occasion}-{count}" for count in range(2, 100))


def _check_undecided(forge: Forge, cluster: str, occasion: str, at: float) -> None:
    """Check that no pull request about the cluster is open, and that nobody closed one for the same of late.

    Raises:
        Undecided: there is one.
    """
    name = rf"{re.escape(_PREFIX + cluster)}-([0-9a-f]{{8}})(-[0-9]{{1,2}})?"
    for request in forge.pending():
        if found := re.fullmatch(name, request.branch):
            about = "" if found[1] == occasion else ", and it is about something else"
            raise Undecided(f"{request.url or request.branch} is not decided yet{about}", "merge it, or close it")
    for request in forge.refused(at - _REFUSED):
        if (found := re.fullmatch(name, request.branch)) and found[1] == occasion:
            raise Undecided(
                f"{request.url or request.branch} was for the same and was closed; that is an answer for 7 days"
            )


def _reason(result: DriftResult) -> str:
    """Return what was found, for the commit message."""
    lines = [f"Drift: {_told(f)}" for f in result.findings[:_LISTED]]
    lines += [f"Drift: {len(result.findings) - _LISTED} more"] if len(result.findings) > _LISTED else []
    why = result.response.why if result.response is not None else ""
    return "\n".join([*lines, *([f"Compiled again: {one_line(why)}"] if why else [])])


def _told(finding: DriftFinding) -> str:
    """Return a finding for a commit message or a title, in words that none but the project and Scepsy chose.

    Forges and CI read commands there (`[skip ci]`, `fixes #12`, `@all`, trailers), more of them than could be listed.
    So what a cluster or its objects say of themselves stays out: what it is, of what, and which instances it hits. What
    is found of traffic and profiles has figures, and names of the project only.
    """
    subject = _UNNAMED.sub("_", finding.subject)[:_LONGEST]
    if finding.area in ("traffic", "profiles"):
        return f"{subject}: {one_line(finding.what)}"
    hit = ", ".join(finding.instances[:_HIT])
    more = f" and {len(finding.instances) - _HIT} more" if len(finding.instances) > _HIT else ""
    return f"{subject}: {finding.kind}" + (f"; hit: {hit}{more}" if hit else "")


def proposal(result: DriftResult) -> str:
    """Return the text of a pull request, Markdown: what was found, what it costs, what compiling again gives."""
    lines = [f"`scepsy drift` looked at cluster `{result.cluster}` at {result.at}.", "", "**Found**", ""]
    lines += [
        f"- {f.severity}: {_escaped(f.subject)}: {_escaped(f.what)}" + (f" (since {f.since})" if f.since else "")
        for f in result.findings[:_LISTED]
    ]
    lines += [f"- and {len(result.findings) - _LISTED} more"] if len(result.findings) > _LISTED else []
    cost = next((f.cost for f in result.findings if f.cost is not None), None)
    gain = next((f.gain for f in result.findings if f.gain is not None), None)
    then = {own.workflow: own for own in gain.workflows} if gain is not None else {}
    if cost is not None and cost.workflows:
        lines += ["", "**Predicted** (estimates)", "", "| workflow | rate | mean latency now | then | capacity then |"]
        lines += ["|---|---|---|---|---|"]
        for own in cost.workflows:
            after = then.get(own.workflow)
            now = "grows without bound" if own.latency is None else f"{own.latency:.3g} s"
            later = "" if after is None or after.latency is None else f"{after.latency:.3g} s"
            capacity = "" if after is None else f"{after.capacity:.3g}/s"
            lines.append(f"| {_escaped(own.workflow)} | {own.rate:.3g}/s | {now} | {later} | {capacity} |")
    if result.response is not None and result.response.why:
        lines += ["", f"Compiled again: {_escaped(result.response.why)}."]
    lines += ["", "What was observed is in `observed/`; files that people wrote are as they were."]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return a text that Markdown shows as it is: names come from clusters, and from strangers."""
    plain = json.dumps(one_line(text), ensure_ascii=False)[1:-1].replace('\\"', '"')
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#!|@" else c for c in plain)
