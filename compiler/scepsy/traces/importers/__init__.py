"""Exports of other tools → calls of the native trace format.

Each format has a module that turns the records of a file into spans: a tree per trace, in which some spans are LLM
calls. `gathering` reads files, and `waiting` tells from the tree which call waited for which.
"""

from scepsy.traces.importers.importer import FORMATS, Gathered, ReadFile, gather
from scepsy.traces.importers.model_names import names_of, parse_renames

__all__ = ["FORMATS", "Gathered", "ReadFile", "gather", "names_of", "parse_renames"]
