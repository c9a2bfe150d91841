"""The documentation: short enough, without dead links, and showing what the commands really print."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.conftest import Demo, Scepsy

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        check=True, capture_output=True, text=True,
    ).stdout.split()
)  # fmt: skip


def test_the_readme_has_at_most_700_words():
    assert len((ROOT / "README.md").read_text().split()) <= 700


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_relative_link_of_a_page_leads_to_a_file_and_a_heading(page: Path):
    dead = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if not leads_somewhere(page, link)]
    assert dead == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link is absolute, or its file and its heading exist."""
    if "://" in link:
        return True
    name, _, heading = link.partition("#")
    target = (page.parent / name) if name else page
    return target.exists() and (not heading or heading in headings(target))


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as forges make them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_the_readme_shows_the_plan_that_the_demo_prints(scepsy: Scepsy, demo: Demo, tmp_path: Path):
    printed = scepsy("compile", "--project", demo(tmp_path / "demo")).out
    shown = (ROOT / "README.md").read_text().partition("    Plan for cluster")[2].partition("\n\n`make test`")[0]
    lines = [line.strip() for line in ("Plan for cluster" + shown).splitlines() if line.strip()]
    assert lines == [line.strip() for line in printed.splitlines() if line.strip()][: len(lines)]


def test_the_index_lists_every_page_of_the_docs():
    index = (ROOT / "docs/index.md").read_text()
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index]
    assert missing == ["index.md"]
