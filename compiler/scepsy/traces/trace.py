"""A trace as columns: many calls, one array per field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scepsy.traces.call import ESTIMABLE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Parents:
    """Which calls each call waited for, as a list per call in one array.

    Attributes:
        offsets: (N + 1,) the parents of call i are `calls[offsets[i]:offsets[i + 1]]`.
        calls: indices of calls; -1 for an id that is not in the execution.
        recorded: (N,) whether the trace states what the call waited for, even if nothing.
    """

    offsets: Ints
    calls: Ints
    recorded: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trace:
    """The calls of a trace that succeeded, N of them in E executions to M LLMs, by execution, start and end.

    Attributes:
        executions: (E,) ids, by their beginning, then by name.
        llms: (M,) names, sorted.
        execution: (N,) index into `executions`.
        llm: (N,) index into `llms`.
        start: (N,) seconds.
        end: (N,) seconds.
        input: (N,) prompt tokens, cached ones included.
        output: (N,) generated tokens.
        cached: (N,) prompt tokens that the prefix cache held.
        estimated: (N,) bit i is set where ESTIMABLE[i] was not recorded but estimated.
        began: (E,) beginning of the execution, seconds; that of its first call if not recorded.
        ended: (E,) its end, likewise.
        parents: what the calls waited for; None if not recorded.
        failed: calls that failed, by reason; they are in no array.
    """

    executions: tuple[str, ...]
    llms: tuple[str, ...]
    execution: Ints
    llm: Ints
    start: Floats
    end: Floats
    input: Floats
    output: Floats
    cached: Floats
    estimated: Bits
    began: Floats
    ended: Floats
    parents: Parents | None
    failed: dict[str, int]

    @property
    def calls(self) -> int:
        """N, how many calls there are."""
        return len(self.start)

    def estimates(self, name: str) -> int:
        """Return how many calls have a field of ESTIMABLE estimated."""
        return int(np.count_nonzero(self.estimated & (1 << ESTIMABLE.index(name))))

    def only(self, executions: Ints) -> Trace:
        """Return the trace of some executions, given by index in rising order; failed calls are left out."""
        keep = np.isin(self.execution, executions)
        number = np.full(len(self.executions), -1)
        number[executions] = np.arange(len(executions))
        parents = None
        if self.parents is not None:
            place = np.where(keep, np.cumsum(keep) - 1, -1)
            counts = np.diff(self.parents.offsets)[keep]
            kept = self.parents.calls[np.repeat(keep, np.diff(self.parents.offsets))]
            offsets = np.concatenate([[0], np.cumsum(counts)])
            parents = Parents(offsets, np.where(kept >= 0, place[kept], -1), self.parents.recorded[keep])
        return Trace(
            executions=tuple(self.executions[e] for e in executions),
            llms=self.llms,
            execution=number[self.execution[keep]],
            llm=self.llm[keep],
            start=self.start[keep],
            end=self.end[keep],
            input=self.input[keep],
            output=self.output[keep],
            cached=self.cached[keep],
            estimated=self.estimated[keep],
            began=self.began[executions],
            ended=self.ended[executions],
            parents=parents,
            failed={},
        )
