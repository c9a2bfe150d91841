"""The schemas that Scepsy publishes, each of which is made once."""

from __future__ import annotations

from functools import cache

from jsonschema import Draft202012Validator

from scepsy.documents import schema


def validate(document: object, kind: str) -> None:
    """Hold a document, or what a command printed, to the schema of its kind."""
    _validator(kind).validate(document)


@cache
def _validator(kind: str) -> Draft202012Validator:
    made = schema(kind)
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)
