"""The tree of spans of a trace: parents, order, and the execution that its root spans."""

from __future__ import annotations

from collections.abc import Sequence

from scepsy.traces.call import Execution
from scepsy.traces.importers.span import Span


def parents_of(spans: Sequence[Span]) -> list[int]:
    """Return the position of each span's parent, -1 for a root; a parent that leads back to its child does not count.

    Args:
        spans: the spans of one trace, each id once.
    """
    place = {span.id: i for i, span in enumerate(spans)}
    parents = [place.get(span.parent, -1) if span.parent is not None else -1 for span in spans]
    # 0: not visited; 1: on the current way up; 2: known to lead to a root.
    state = [0] * len(spans)
    for i in range(len(spans)):
        way, at = [], i
        while at >= 0 and state[at] == 0:
            state[at] = 1
            way.append(at)
            at = parents[at]
        if at >= 0 and state[at] == 1:
            parents[at] = -1
        for passed in way:
            state[passed] = 2
    return parents


def top_down(parents: Sequence[int]) -> list[int]:
    """Return all positions, each after its parent."""
    children: list[list[int]] = [[] for _ in parents]
    order = []
    for i, parent in enumerate(parents):
        if parent < 0:
            order.append(i)
        else:
            children[parent].append(i)
    for i in order:
        order += children[i]
    return order


def execution_of(spans: Sequence[Span]) -> Execution | None:
    """Return when the execution of a trace began and ended: its root span, if that contains all calls.

    Args:
        spans: the spans of one trace.
    """
    calls = [s for s in spans if s.request]
    if not calls:
        return None
    first, last = round(min(s.start or 0.0 for s in calls), 6), round(max(s.end or 0.0 for s in calls), 6)
    for root in spans:
        if root.parent is not None or root.request or root.start is None or root.end is None:
            continue
        if round(root.start, 6) <= first and last <= round(root.end, 6):
            return Execution(root.trace, root.start, root.end)
    return None
