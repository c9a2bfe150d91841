"""JSON Schemas of the documents, for editors and for CI."""

from __future__ import annotations

import json
from typing import Any

from scepsy.documents.command_results import CompileResult, ExplainResult
from scepsy.documents.drift_result import DriftResult
from scepsy.documents.loading import KINDS
from scepsy.documents.model import Document
from scepsy.documents.profile_plan_result import ProfilePlanResult
from scepsy.documents.trace_statistics import TraceStatistics

PUBLISHED: dict[str, type[Document]] = {
    **KINDS,
    "CompileResult": CompileResult,
    "DriftResult": DriftResult,
    "ExplainResult": ExplainResult,
    "ProfilePlanResult": ProfilePlanResult,
    "TraceStatistics": TraceStatistics,
}
"""Everything that has a published schema: documents, and what commands print."""


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a kind.

    Raises:
        KeyError: no such kind.
    """
    body = PUBLISHED[kind].model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://scepsy.dev/schemas/v1alpha1/{kind.lower()}.json",
        **body,
    }


def schema_text(kind: str) -> str:
    """Return the schema as it is published in `schemas/`."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"
