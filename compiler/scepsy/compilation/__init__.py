"""Compilation: a workspace of documents → the Plan of a cluster."""

from scepsy.compilation.compiler import Compilation, compile_plan
from scepsy.compilation.inputs import Inputs, collect_inputs
from scepsy.compilation.unchanged import unchanged_plan

__all__ = ["Compilation", "Inputs", "collect_inputs", "compile_plan", "unchanged_plan"]
