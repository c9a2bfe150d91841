"""The table of finding kinds: complete, the same as in the documentation and in the published schema."""

from __future__ import annotations

import re
from pathlib import Path

from scepsy.documents import schema_text
from scepsy.documents.drift_result import FindingKind
from scepsy.drift.finding import Finding, Impact
from scepsy.drift.finding_impacts import with_impacts
from scepsy.drift.kinds import CALLS, EXECUTIONS, INPUT_TOKENS, KINDS, LATENCY, LOAD, OUTPUT_TOKENS, Effect

DOCUMENTATION = Path(__file__).parents[2] / "docs/drift.md"


def test_every_kind_has_a_row_and_every_effect_a_kind() -> None:
    assert list(KINDS) == list(FindingKind)
    assert {entry.effect for entry in KINDS.values()} == set(Effect)
    for kinds in (EXECUTIONS, CALLS, LOAD, INPUT_TOKENS, OUTPUT_TOKENS, LATENCY):
        assert (kinds["above"].endswith("-above"), kinds["below"].endswith("-below")) == (True, True)


def test_the_documentation_has_the_same_kinds_and_remedies() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8").partition("\n## Findings")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| .+ \| .+ \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(kind.value, entry.remedy) for kind, entry in KINDS.items()]


def test_the_published_schema_lists_every_kind() -> None:
    schema = schema_text("DriftResult")
    assert [kind for kind in FindingKind if f'"{kind}"' not in schema] == []


def test_cost_and_gain_follow_from_the_effect_of_a_kind() -> None:
    cost, gain = Impact(gpus=1.0), Impact(gpus=2.0)
    findings = [Finding(kind, "warning", "x", "", instances=("a",)) for kind in FindingKind]
    impacts = {f.kind: (f.cost, f.gain and f.gain.gpus) for f in with_impacts(findings, cost, gain)}
    for kind, entry in KINDS.items():
        effect = entry.effect
        costs = effect.changes_traffic or effect.loses_hardware
        costs = costs or effect in (Effect.ENGINE_DOWN, Effect.PREDICTION_OFF)
        gains = effect.changes_traffic or effect.loses_hardware or effect.returns_hardware
        assert impacts[kind] == (cost if costs else None, 2.0 if gains else None), kind
