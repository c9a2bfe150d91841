"""Allocation: which shape and how many replicas for every LLM, and the proof of how good that is.

Section 2.4 of the model: a multiple-choice knapsack over GPU units, solved exactly.
"""

from scepsy.allocation.infeasible import Infeasible
from scepsy.allocation.options import Option, OptionTable, option_tables
from scepsy.allocation.problem import OBJECTIVE, Problem, build_problem, reweighed
from scepsy.allocation.remedy import remedy
from scepsy.allocation.replan import Replanned, replan
from scepsy.allocation.search import Candidate, Enumeration
from scepsy.allocation.solution import Solution, solve

__all__ = [
    "OBJECTIVE",
    "Candidate",
    "Enumeration",
    "Infeasible",
    "Option",
    "OptionTable",
    "Problem",
    "Replanned",
    "Solution",
    "build_problem",
    "option_tables",
    "remedy",
    "replan",
    "reweighed",
    "solve",
]
