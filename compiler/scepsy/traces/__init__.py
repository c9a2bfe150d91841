"""Traces of LLM calls: recorded by a proxy or imported from other tools, in one native format."""
