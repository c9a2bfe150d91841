"""Allocation: which shape and how many replicas for every LLM, and the proof of how good that is.

Section 2.4 of the model: a multiple-choice knapsack over GPU units, solved exactly.
"""

from scepsy.allocation.best_first import Candidate, Enumeration
from scepsy.allocation.branch_and_place import Solution
from scepsy.allocation.cutting_planes import solve
from scepsy.allocation.feasibility_hints import feasibility_hint
from scepsy.allocation.fewest_gpus import fewest_gpus
from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.options import Option, OptionTable, option_tables
from scepsy.allocation.problem import OBJECTIVE, Bound, Problem, beyond_reach, build_problem, reweighed
from scepsy.allocation.replan import Replanned, replan

__all__ = [
    "OBJECTIVE",
    "Bound",
    "Candidate",
    "Enumeration",
    "Infeasible",
    "Option",
    "OptionTable",
    "Problem",
    "Replanned",
    "Solution",
    "beyond_reach",
    "build_problem",
    "feasibility_hint",
    "fewest_gpus",
    "option_tables",
    "replan",
    "reweighed",
    "solve",
]
