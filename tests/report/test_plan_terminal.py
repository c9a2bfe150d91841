"""The Plan as tables in a terminal: where numbers come from, and how good the plan is proven to be."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from scepsy.documents import Plan, load_file
from scepsy.report import show_plan

PLANS = Path(__file__).resolve().parents[1] / "examples" / "golden"


def shown(example: str, **proof: float) -> str:
    [path] = (PLANS / example / "plans").iterdir()
    spec = load_file(path, path.name, Plan)[1][0].document.spec
    spec = spec.model_copy(update={"proof": spec.proof.model_copy(update=proof)})
    out = io.StringIO()
    show_plan(Console(file=out, width=200), spec)
    return out.getvalue()


def test_a_proven_plan_has_a_gap_of_zero() -> None:
    text = shown("rag-reranker")
    assert "Optimality: proven (gap 0 %, predictor aggregate-llm-pipeline/mean-sum)\n" in text


@pytest.mark.parametrize(("gap", "percent"), [(0.04, "4"), (0.0123, "1.2"), (1.25, "125")])
def test_a_gap_is_shown_with_the_proven_lower_bound(gap: float, percent: str) -> None:
    text = shown("rag-reranker", gap=gap, lower_bound=1.68)
    expected = f"at most {percent} % above the best possible (proven lower bound 1.6800, predictor "
    assert f"Optimality: {expected}aggregate-llm-pipeline/mean-sum)\n" in text


def test_profiles_of_other_shares_are_marked_with_a_footnote() -> None:
    text = shown("rag-reranker")
    assert "profile" in text
    assert "estimated*" in text
    assert "\n* extrapolated or interpolated from other GPU shares\n" in text
