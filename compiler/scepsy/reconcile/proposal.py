"""The texts and branch names of a recompile: commit message, title and body of the pull request."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence

from scepsy.documents.drift_result import DriftFinding, DriftImpact, DriftResult
from scepsy.drift.kinds import KINDS
from scepsy.repository.commit_message import one_line

BRANCH_PREFIX = "scepsy/drift-"
"""How the names of branches with proposals begin."""
_LISTED = 20
"""How many findings a text lists."""
_NAMED = 4
"""How many affected instances a finding names."""
_UNSAFE, _LONGEST = re.compile(r"[^A-Za-z0-9._/-]"), 120
"""Characters that no name of a node, a GPU, an LLM or an object has, and the length of the longest; names come from
clusters too."""


def digest_of(plan: bytes, findings: Sequence[DriftFinding]) -> str:
    """Return a digest of what a recompile is proposed for: the plan and its findings, without their values.

    Args:
        plan: the committed plan's file.
        findings: all of them; lost hardware alone counts if there is any, else traffic and returned hardware.
    """
    lost = [f for f in findings if KINDS[f.kind].effect.loses_hardware and f.instances]
    reasons = lost or [f for f in findings if _is_reason(f)]
    text = json.dumps(sorted((f.kind, f.severity, f.subject) for f in reasons))
    return hashlib.sha256(hashlib.sha256(plan).digest() + text.encode()).hexdigest()[:8]


def _is_reason(finding: DriftFinding) -> bool:
    effect = KINDS[finding.kind].effect
    return effect.changes_traffic or effect.returns_hardware


def branch_names(cluster: str, digest: str) -> Iterator[str]:
    """Yield the names that the branch of a proposal may have; the first free one is taken."""
    yield f"{BRANCH_PREFIX}{cluster}-{digest}"
    yield from (f"{BRANCH_PREFIX}{cluster}-{digest}-{count}" for count in range(2, 100))


def digest_in(branch: str, cluster: str) -> str | None:
    """Return the digest in the name of a branch; None if it is not one of a proposal for the cluster."""
    match = re.fullmatch(rf"{re.escape(BRANCH_PREFIX + cluster)}-([0-9a-f]{{8}})(-[0-9]{{1,2}})?", branch)
    return None if match is None else match[1]


def commit_reason(result: DriftResult) -> str:
    """Return the part of the commit message that lists the findings."""
    lines = [f"Drift: {_summary(f)}" for f in result.findings[:_LISTED]]
    lines += [f"Drift: {len(result.findings) - _LISTED} more"] if len(result.findings) > _LISTED else []
    why = result.response.why if result.response is not None else ""
    return "\n".join([*lines, *([f"Compiled again: {one_line(why)}"] if why else [])])


def pull_request_title(result: DriftResult) -> str:
    """Return the title of the pull request."""
    return f"scepsy: recompile {result.cluster} ({_summary(result.findings[0])})"


def _summary(finding: DriftFinding) -> str:
    """Return a finding for a commit message or a title, only with words that the project or Scepsy chose.

    Forges and CI read commands there (`[skip ci]`, `fixes #12`, `@all`, trailers), more than a filter could list. So
    texts from a cluster or its objects are left out: the summary has the kind, the subject and the affected instances.
    Findings about traffic and profiles contain only values and names of the project.
    """
    subject = _UNSAFE.sub("_", finding.subject)[:_LONGEST]
    if finding.area in ("traffic", "profiles"):
        return f"{subject}: {one_line(finding.what)}"
    affected = ", ".join(finding.instances[:_NAMED])
    more = f" and {len(finding.instances) - _NAMED} more" if len(finding.instances) > _NAMED else ""
    return f"{subject}: {finding.kind}" + (f"; affected: {affected}{more}" if affected else "")


def pull_request_body(result: DriftResult) -> str:
    """Return the text of the pull request, Markdown: findings, what they cost, what the recompile gains."""
    lines = [f"`scepsy drift` checked cluster `{result.cluster}` at {result.at}.", "", "**Findings**", ""]
    lines += [
        f"- {f.severity}: {_escaped(f.subject)}: {_escaped(f.what)}" + (f" (since {f.since})" if f.since else "")
        for f in result.findings[:_LISTED]
    ]
    lines += [f"- and {len(result.findings) - _LISTED} more"] if len(result.findings) > _LISTED else []
    cost = next((f.cost for f in result.findings if f.cost is not None), None)
    gain = next((f.gain for f in result.findings if f.gain is not None), None)
    lines += _predictions(cost, gain)
    if result.response is not None and result.response.why:
        lines += ["", f"Compiled again: {_escaped(result.response.why)}."]
    lines += ["", "Observed values are in `observed/`; files that people wrote are unchanged."]
    return "\n".join(lines) + "\n"


def _predictions(cost: DriftImpact | None, gain: DriftImpact | None) -> list[str]:
    """Return a table of what is predicted before and after the recompile; nothing if the cost is not known."""
    if cost is None or not cost.workflows:
        return []
    after = {workflow.workflow: workflow for workflow in gain.workflows} if gain is not None else {}
    lines = ["", "**Predicted** (estimates)", "", "| workflow | rate | mean latency now | then | capacity then |"]
    lines += ["|---|---|---|---|---|"]
    for workflow in cost.workflows:
        then = after.get(workflow.workflow)
        now = "grows without bound" if workflow.latency is None else f"{workflow.latency:.3g} s"
        later = "" if then is None or then.latency is None else f"{then.latency:.3g} s"
        capacity = "" if then is None else f"{then.capacity:.3g}/s"
        lines.append(f"| {_escaped(workflow.workflow)} | {workflow.rate:.3g}/s | {now} | {later} | {capacity} |")
    return lines


def _escaped(text: str) -> str:
    """Return a text that Markdown shows literally: names come from clusters, and from other people."""
    plain = json.dumps(one_line(text), ensure_ascii=False)[1:-1].replace('\\"', '"')
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#!|@" else c for c in plain)
