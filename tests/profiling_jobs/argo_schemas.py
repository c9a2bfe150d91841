"""The CRDs of Argo Workflows and Argo CD, as schemas that take nothing that they do not name."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema.validators import validator_for

from tests.profiling_jobs.sweep_workflow import SHARED

CRDS = SHARED / "crds"
needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"no CRDs of Argo at {CRDS}")


def validate(item: Any, kind: str) -> None:
    """Hold an object to the schema of a kind of Argo Workflows or Argo CD, which takes nothing that it does not name."""
    _validator(kind).validate(item)


@cache
def _validator(kind: str) -> Any:
    """Read a CRD once, and take its schema for one: holding it to the schema of schemas takes seconds."""
    [path] = [p for p in (CRDS / f"argo-{kind.lower()}s.yaml", CRDS / f"argocd-{kind.lower()}.yaml") if p.exists()]
    text = path.read_text(encoding="utf-8")
    [version] = yaml.load(text, Loader=_Loader)["spec"]["versions"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    return validator_for(schema)(schema)


class _Loader(yaml.CSafeLoader):
    pass


# CRDs hold bare `=`, which YAML 1.1 gives a special meaning.
_Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)


def closed(found: Any) -> Any:
    """A CRD's schema accepts unknown fields; this one does not."""
    if isinstance(found, list):
        return [closed(value) for value in found]
    if not isinstance(found, dict):
        return found
    made = {key: closed(value) for key, value in found.items()}
    if isinstance(made.get("properties"), dict) and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if made.get("x-kubernetes-int-or-string"):
        made = {"type": ["integer", "string"]}
    properties = made.get("properties", {})
    if "apiVersion" in properties and "metadata" in properties:
        properties["metadata"] = {"type": "object"}
    return made
