"""Whether to compile again: what it would give, against what every change costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scepsy.documents.project import DriftSettings
from scepsy.drift.check import Look
from scepsy.drift.finding import Outlook
from scepsy.drift.lost_hardware import BACK, LOST

_EDITED = ("engine-changed", "revision-changed")
"""Kinds of findings about documents that nobody has compiled yet: that is for those who changed them."""
_NAMED = 4
"""How many things a reason names."""


@dataclass(frozen=True)
class Response:
    """What to do about what was found.

    Attributes:
        compile: whether to compile again.
        why: the reason, for people.
    """

    compile: bool
    why: str


def respond(
    seen: Look, priorities: Mapping[str, float], settings: DriftSettings, changed: float | None = None
) -> Response:
    """Decide whether to compile again.

    Instances that lost their GPUs, and workflows that no longer get through, are neither weighed nor waited with: so
    long as there is something to be had. Everything else must not come too soon after the last change. Hardware that is
    back is then planned with whatever that saves: left out, it would be drift for ever, and every later plan would lack
    it. Other traffic must save enough.

    Args:
        seen: what was found.
        priorities: of the workflows.
        settings: the project's thresholds.
        changed: when the plan last changed, Unix seconds; None if nobody knows.
    """
    findings = seen.report.findings
    lost = sorted({name for f in findings if f.kind in LOST for name in f.instances})
    if not lost and not any(f.area == "traffic" or f.kind in BACK for f in findings):
        if any(f.kind in _EDITED for f in findings):
            return Response(False, "people changed documents since it was compiled: scepsy compile --commit")
        return Response(False, "nothing was found that compiling again would mend")
    if seen.cost is None or seen.gain is None:
        return Response(False, "the documents cannot be compiled as they are: see scepsy compile --check")
    if not seen.gain.workflows:
        return Response(False, seen.gain.note or "no allocation carries it")
    if lost:
        return Response(True, f"{_some(lost)} lost their GPUs")
    if not seen.news:
        if seen.edited:
            return Response(False, "documents already say so, and nobody compiled them: scepsy compile --commit")
        return Response(False, "it is planned for already: no more than the targets, or than what was observed before")
    after = {own.workflow: own.latency for own in seen.gain.workflows}
    restored = [own.workflow for own in seen.cost.workflows if own.latency is None and after.get(own.workflow)]
    if restored:
        return Response(True, f"{_some(restored)} would get through again")
    age = settings.cool_down if changed is None else max(0.0, seen.at - changed)
    if age < settings.cool_down:
        ago, whole = age / 60, settings.cool_down / 60
        why = f"the plan changed {ago:.0f} min ago, and stays for {whole:.3g} min (spec.drift.coolDown)"
        return Response(False, why)
    back = [f.subject for f in findings if f.kind in BACK]
    if back:
        return Response(True, f"{_some(back)} can be planned with again")
    saved = savings(seen.cost, seen.gain, priorities)
    least = f"{settings.minimum_gain:.0%} are asked for (spec.drift.minimumGain)"
    if saved < settings.minimum_gain:
        return Response(False, f"it would save {max(0.0, saved):.1%} of the predicted latency; {least}")
    return Response(True, f"it saves {saved:.1%} of the predicted latency; {least}")


def _some(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def savings(cost: Outlook, gain: Outlook, priorities: Mapping[str, float]) -> float:
    """Return the part of the predicted latency that one outlook saves over another: the mean, by priority.

    Args:
        cost: latencies now.
        gain: latencies then; workflows with a latency in only one of them do not count.
        priorities: of the workflows; 1 where none is given.
    """
    after = {own.workflow: own.latency for own in gain.workflows}
    pairs = [
        (priorities.get(own.workflow, 1.0), own.latency, then)
        for own in cost.workflows
        if own.latency and (then := after.get(own.workflow)) is not None
    ]
    weight = sum(priority for priority, _, _ in pairs)
    return sum(priority * (1 - then / now) for priority, now, then in pairs) / weight if weight else 0.0
