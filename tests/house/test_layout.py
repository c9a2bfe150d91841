"""The folders of the tests are those of the packages, so that a test is found where its subject is."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OTHERS = {
    "end_to_end": "needs a control plane",
    "vllm": "needs a real vLLM",
    "publishing_at_length": "takes minutes",
    "examples": "golden directories of the examples",
    "gitops": "the folder gitops/",
    "profiling_jobs": "the folder profiling-jobs/",
    "house": "what holds for the whole repository",
}
"""Folders of tests that are no package, and what is in them."""


def test_every_folder_of_tests_is_a_package_or_is_listed_here() -> None:
    packages = {path.parent.name for path in (ROOT / "compiler/scepsy").glob("*/__init__.py")}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - packages - set(OTHERS) == set()
    assert set(OTHERS) - folders == set()
