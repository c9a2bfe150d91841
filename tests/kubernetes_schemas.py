"""The strict schemas of Kubernetes, each of which is read once."""

from __future__ import annotations

from functools import cache

from kubernetes_validate import ValidationError, utils

utils.schema_contents = cache(utils.schema_contents)
utils.all_versions = cache(utils.all_versions)


def validate(item: object, version: str) -> None:
    """Hold an object to the schema of its kind, which takes nothing that it does not name."""
    utils.validate(item, version, strict=True)


__all__ = ["ValidationError", "validate"]
