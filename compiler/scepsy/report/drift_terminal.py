"""A look at drift for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from scepsy.documents.drift_result import DriftFinding, DriftOutlook, DriftResponse, DriftResult
from scepsy.documents.units import format_duration, format_rate, significant

_COLOUR = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def show_drift(console: Console, result: DriftResult) -> None:
    """Print what was found, what was judged, and what could not be."""
    console.print(f"Cluster {result.cluster}, {result.at}")
    console.print()
    for finding in result.findings:
        _finding(console, finding)
    # Findings come with what they cost together: it is told once.
    for word, outlooks in (
        ("Now", [f.cost for f in result.findings]),
        ("Compiled again", [f.gain for f in result.findings]),
    ):
        for outlook in dict.fromkeys(own.model_dump_json() for own in outlooks if own is not None):
            _outlook(console, word, DriftOutlook.model_validate_json(outlook))
    if any(f.cost or f.gain for f in result.findings):
        console.print()
    judged = [own for own in result.judged if own.judged]
    unknown = [own for own in result.judged if not own.judged]
    if judged:
        console.print("Judged")
        for own in judged:
            console.print(
                escape(f"  {_subject(own.area, own.subject)} {own.what}: {own.note or 'yes'}"), soft_wrap=True
            )
    if unknown:
        console.print("Not judged: of this nothing is known")
        for own in unknown:
            console.print(escape(f"  {_subject(own.area, own.subject)} {own.what}: {own.reason}"), soft_wrap=True)
    for note in result.notes:
        console.print(escape(f"Note: {note}"), soft_wrap=True)
    console.print()
    console.print(_summary(result))
    if result.findings and result.response is not None:
        _response(console, result.response)


def _response(console: Console, response: DriftResponse) -> None:
    """Say whether compiling again is worth it, and what was done."""
    verdict = "Compile again" if response.compile else "Leave the plan"
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
        return "Nothing was found where it could be looked at; that is not all that was asked for"
    missing = sum(not own.judged for own in result.judged)
    return "No drift" + (f" in what could be judged ({missing} could not)" if missing else "")


def _subject(area: str, subject: str) -> str:
    return f"{area:8} {subject}".rstrip()


def _finding(console: Console, finding: DriftFinding) -> None:
    colour = _COLOUR[finding.severity]
    console.print(
        f"[{colour}]{finding.severity}[/] {finding.area}: [bold]{escape(finding.subject)}[/] {escape(finding.what)}",
        soft_wrap=True,
    )
    if finding.since is not None:
        words = "since before" if finding.at_least_since else "since about" if finding.confidence else "since"
        sure = "" if finding.confidence is None else f", {_sure(finding.confidence)}"
        console.print(f"  {words} {finding.since}{sure}")
    elif finding.confidence is not None:
        console.print(f"  {_sure(finding.confidence)}")
    if finding.instances:
        console.print(f"  instances: {', '.join(finding.instances)}", soft_wrap=True)
    console.print()


def _sure(confidence: float) -> str:
    digits = 2 if confidence >= 0.99 else 0
    more = "at least " if confidence >= 0.9999 else ""
    return f"{more}{100 * confidence:.{digits}f} % sure that it is no chance"


def _outlook(console: Console, word: str, outlook: DriftOutlook) -> None:
    note = f" ({outlook.note})" if outlook.note else ""
    if not outlook.workflows:
        console.print(escape(f"{word}: {outlook.note}"), soft_wrap=True)
        return
    gpus = "" if outlook.gpus is None else f" on {significant(outlook.gpus, 3)} GPUs"
    console.print(escape(f"{word}{gpus}{note}"), soft_wrap=True)
    for own in outlook.workflows:
        latency = "grows without bound" if own.latency is None else f"~{format_duration(own.latency)}"
        capacity = format_rate(own.capacity) if own.capacity > 1e-9 else "none"
        line = f"  {own.workflow} at {format_rate(own.rate)}: mean latency {latency}, capacity ~{capacity}"
        console.print(escape(line), soft_wrap=True)
