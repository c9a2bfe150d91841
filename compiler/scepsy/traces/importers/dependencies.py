"""Which calls each call of a trace waited for, derived from the tree of spans and its times.

A span waited for its siblings that had ended before it began, with all that is inside them; where there are none, for
what the span around both waited for. So two branches that run side by side stay apart, although a call of one may
begin after a call of the other ended.

"Ended before it began" is an interval order: of the siblings that a span waited for, those that ended before another
of them began add nothing. With siblings sorted by their end, what is left is a slice of them, so the answer for
thousands of calls takes little more than sorting them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from scepsy.traces.importers.span import Span
from scepsy.traces.importers.span_tree import parents_of, top_down

MOST = 64
"""A call that waited for more than this many is left to the times, where they say the same."""

Slice = tuple["_Node", int, int]


@dataclass(slots=True, eq=False)
class _Node:
    """A span and all that is inside it.

    Attributes:
        span: the span; None around the whole trace.
        low: when it began, or the first span inside it.
        high: when it ended, or the last span inside it.
        is_call: whether it is a call that others can wait for.
        calls: how many such calls there are, itself included.
        inside: the nodes of its children that hold calls, by their end.
        ends: their ends and beginnings.
        peaks: the latest beginning among the first k + 1 of them, and the end of that one.
        called: how many calls the first k of them hold, for each k.
        left: how many calls inside the first k are waited for by no other inside their node, for each k.
        after: what it waited for: some children of a node around it; None for nothing.
        before: how many calls had to end before it could begin.
    """

    span: Span | None
    low: float
    high: float
    is_call: bool
    calls: int = 0
    inside: list[_Node] = field(default_factory=list)
    ends: list[tuple[float, float]] = field(default_factory=list)
    peaks: list[tuple[float, float]] = field(default_factory=list)
    called: list[int] = field(default_factory=lambda: [0])
    left: list[int] = field(default_factory=lambda: [0])
    after: Slice | None = None
    before: int = 0

    @property
    def last(self) -> tuple[int, int]:
        """The slice of `inside` that no other child waited for."""
        return _latest(self, len(self.inside)), len(self.inside)

    @property
    def loose(self) -> int:
        """How many calls nothing inside waited for."""
        low, high = self.last
        return self.is_call + self.left[high] - self.left[low]


def waits(spans: Sequence[Span]) -> dict[str, tuple[str, ...] | None]:
    """Return for each call of a trace that succeeded the ids of the calls that it waited for.

    Args:
        spans: the spans of one trace, each id once.

    Returns:
        By id: ids in order of their start, reduced transitively, `()` for a call that waited for nothing. None for one
        that waited for more than MOST, if those are all that had ended before it began. Where times say something
        else, longer lists are given as long as they are at most MOST per call of the trace; past that, each is cut
        to the MOST that ended last.
    """
    root = _tree(spans)
    nodes = [root]
    for node in nodes:
        nodes += node.inside
    for node in nodes:
        for child in node.inside:
            # Of two spans without length at one time, neither waited for the other.
            edge = (child.low, child.low if child.high == child.low else math.inf)
            count = bisect_left(node.ends, edge)
            child.after = (node, _latest(node, count), count) if count else node.after
            child.before = node.before + node.called[count]
    return _named([node for node in nodes if node.is_call])


def _named(calls: Sequence[_Node]) -> dict[str, tuple[str, ...] | None]:
    ends = sorted(_times(node)[1] for node in calls)
    known: dict[tuple[int, int, int], list[Span]] = {}
    result: dict[str, tuple[str, ...] | None] = {}
    spare = MOST * len(calls)
    for node in calls:
        assert node.span is not None  # noqa: S101 - only the node around the whole trace has none
        if node.after is None:
            result[node.span.id] = ()
            continue
        around, low, high = node.after
        size = around.left[high] - around.left[low]
        start, end = _times(node)
        if size > MOST and node.before == bisect_right(ends, start) - (start == end):
            result[node.span.id] = None
            continue
        key = (id(around), low, high)
        if key not in known:
            known[key] = _loose(around.inside[low:high])
        waited = known[key]
        spare -= size
        if size > MOST and spare < 0:
            waited = sorted(waited, key=lambda s: (s.end or 0.0, s.id))[-MOST:]
        result[node.span.id] = tuple(s.id for s in sorted(waited, key=lambda s: (s.start or 0.0, s.id)))
    return result


def _times(node: _Node) -> tuple[float, float]:
    """Return start and end of a call itself, to the microsecond."""
    span = node.span
    return (round(span.start or 0.0, 6), round(span.end or 0.0, 6)) if span else (0.0, 0.0)


def _loose(nodes: Sequence[_Node]) -> list[Span]:
    """Return the calls inside some nodes that nothing else inside them waited for."""
    found, todo = [], list(nodes)
    while todo:
        node = todo.pop()
        if node.is_call and node.span is not None:
            found.append(node.span)
        low, high = node.last
        todo += node.inside[low:high]
    return found


def _latest(node: _Node, count: int) -> int:
    """Return where the slice of the first `count` children begins that no other of these waited for."""
    if not count:
        return 0
    low, high = node.peaks[count - 1]
    return bisect_left(node.ends, (low, math.inf if high > low else low), 0, count)


def _tree(spans: Sequence[Span]) -> _Node:
    """Return the node around a whole trace; subtrees without calls are left out, as nothing can wait for them."""
    parents = parents_of(spans)
    # To the microsecond, as the native format has times: rounding must not change their order.
    nodes = [
        _Node(
            span,
            math.inf if span.start is None else round(span.start, 6),
            -math.inf if span.end is None else round(span.end, 6),
            span.request is not None and span.request.error is None,
        )
        for span in spans
    ]
    root = _Node(None, -math.inf, math.inf, False)
    for i in reversed(top_down(parents)):
        node = nodes[i]
        _close(node)
        if node.calls:
            around = nodes[parents[i]] if parents[i] >= 0 else root
            around.inside.append(node)
            around.low, around.high = min(around.low, node.low), max(around.high, node.high)
    _close(root)
    return root


def _close(node: _Node) -> None:
    """Sum up what is inside a node, once all of it is there."""
    node.inside.sort(key=lambda n: (n.high, n.low, n.span.id if n.span else ""))
    node.ends = [(n.high, n.low) for n in node.inside]
    node.peaks = list(accumulate(((n.low, n.high) for n in node.inside), max))
    node.called = [0, *accumulate(n.calls for n in node.inside)]
    node.left = [0, *accumulate(n.loose for n in node.inside)]
    node.calls = node.is_call + node.called[-1]
