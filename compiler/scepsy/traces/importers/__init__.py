"""Exports of other tools → calls of the native trace format.

Each format has a module that recognises its files and turns their records into spans: a tree per trace, in which some
spans are LLM calls. A new format is a module with a `FORMAT`, and its line in `registry`. `import_files` reads and
merges files, `duplicate_spans` keeps one span per call, and `dependencies` derives which call waited for which.
"""
