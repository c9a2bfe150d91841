"""Compilation: a workspace of documents → the Plan of a cluster."""

from scepsy.compilation.compiler import Compilation, Inputs, compile_plan, gather

__all__ = ["Compilation", "Inputs", "compile_plan", "gather"]
