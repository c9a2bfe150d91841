"""Prints the result of a drift check for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from scepsy.documents.drift_result import DriftFinding, DriftImpact, DriftResponse, DriftResult
from scepsy.documents.units import format_duration, format_rate, significant

_COLOUR = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def show_drift(console: Console, result: DriftResult) -> None:
    """Print findings, predictions, and the checks that were done and skipped."""
    console.print(f"Cluster {result.cluster}, {result.at}")
    console.print()
    for finding in result.findings:
        _finding(console, finding)
    # Every finding carries what all of them cost together: it is printed once.
    for title, impacts in (
        ("Now", [f.cost for f in result.findings]),
        ("Compiled again", [f.gain for f in result.findings]),
    ):
        for impact in dict.fromkeys(impact.model_dump_json() for impact in impacts if impact is not None):
            _impact(console, title, DriftImpact.model_validate_json(impact))
    if any(f.cost or f.gain for f in result.findings):
        console.print()
    _checks(console, result)
    for note in result.notes:
        console.print(escape(f"Note: {note}"), soft_wrap=True)
    console.print()
    console.print(_summary(result))
    if result.findings and result.response is not None:
        _response(console, result.response)


def _checks(console: Console, result: DriftResult) -> None:
    """Print the checks that were done, then those that were skipped."""
    for title, checks in (
        ("Checked", [(check, check.note or "yes") for check in result.checks if check.checked]),
        ("Not checked", [(check, check.reason) for check in result.checks if not check.checked]),
    ):
        if checks:
            console.print(title)
        for check, text in checks:
            subject = f"{check.area:8} {check.subject}".rstrip()
            console.print(escape(f"  {subject} {check.what}: {text}"), soft_wrap=True)


def _response(console: Console, response: DriftResponse) -> None:
    """Print whether to recompile, and what was done."""
    verdict = "Recompile" if response.compile else "Keep the plan"
    lines = [f"{verdict}: {response.why}"]
    if response.compile and not response.done:
        lines.append("Next: scepsy drift --recompile, with --push or --pull-request to publish it")
    if response.done:
        lines.append(f"Done: {response.done}")
    if response.pull_request:
        lines.append(f"Pull request: {response.pull_request}")
    lines += [f"Profiles: {line}" for line in response.profiling]
    for line in lines:
        console.print(escape(line), soft_wrap=True)


def _summary(result: DriftResult) -> str:
    if result.findings:
        count = len(result.findings)
        return f"Drift: {count} finding{'s' * (count != 1)}"
    if result.error is not None:
        return "No findings, but not everything that was asked for could be checked"
    skipped = sum(not check.checked for check in result.checks)
    return "No drift" + (f" ({skipped} checks skipped)" if skipped else "")


def _finding(console: Console, finding: DriftFinding) -> None:
    colour = _COLOUR[finding.severity]
    console.print(
        f"[{colour}]{finding.severity}[/] {finding.area}: [bold]{escape(finding.subject)}[/] {escape(finding.what)}",
        soft_wrap=True,
    )
    confidence = "" if finding.confidence is None else _confidence(finding.confidence)
    if finding.since is not None:
        since = "since before" if finding.at_least_since else "since about" if finding.confidence else "since"
        console.print(f"  {since} {finding.since}" + (f", {confidence}" if confidence else ""))
    elif confidence:
        console.print(f"  {confidence}")
    if finding.instances:
        console.print(f"  instances: {', '.join(finding.instances)}", soft_wrap=True)
    console.print()


def _confidence(confidence: float) -> str:
    digits = 2 if confidence >= 0.99 else 0
    more = "at least " if confidence >= 0.9999 else ""
    return f"confidence {more}{100 * confidence:.{digits}f} %"


def _impact(console: Console, title: str, impact: DriftImpact) -> None:
    note = f" ({impact.note})" if impact.note else ""
    if not impact.workflows:
        console.print(escape(f"{title}: {impact.note}"), soft_wrap=True)
        return
    gpus = "" if impact.gpus is None else f" on {significant(impact.gpus, 3)} GPUs"
    console.print(escape(f"{title}{gpus}{note}"), soft_wrap=True)
    for workflow in impact.workflows:
        latency = "grows without bound" if workflow.latency is None else f"~{format_duration(workflow.latency)}"
        capacity = format_rate(workflow.capacity) if workflow.capacity > 1e-9 else "none"
        line = f"  {workflow.workflow} at {format_rate(workflow.rate)}: mean latency {latency}, capacity ~{capacity}"
        console.print(escape(line), soft_wrap=True)
