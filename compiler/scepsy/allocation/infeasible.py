"""The error if no allocation sustains the target rates."""

from __future__ import annotations

from scepsy.allocation.options import OptionTable
from scepsy.allocation.problem import Problem
from scepsy.errors import ScepsyError


class Infeasible(ScepsyError):
    """No allocation sustains the target rates on this inventory.

    Attributes:
        problem: the problem.
        table: the LLM that has no option at all; None if the LLMs do not fit together.
        proven: whether it is proven; otherwise the search ended without an allocation.
    """

    def __init__(
        self, problem: Problem, table: OptionTable | None, message: str = "", hint: str = "", proven: bool = True
    ) -> None:
        default = "the LLMs do not fit together" if table is None else f'the LLM "{table.load.name}" does not fit'
        super().__init__(message or default, hint)
        self.problem = problem
        self.table = table
        self.proven = proven
