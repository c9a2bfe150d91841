"""What a test of pushing does again and again."""

from __future__ import annotations

import json
from pathlib import Path

from tests import published_schemas as published
from tests.conftest import Scepsy, git

WORKFLOW = "workflows/rag-reranker.yaml"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


def commit_all(project: Path, message: str = "Edit") -> None:
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", message)


def push(scepsy: Scepsy, project: Path, *more: object, code: int = 0) -> dict:
    ran = scepsy("compile", "--project", project, "--commit", "--push", "--output", "json", *more)
    assert ran.code == code, ran.err + ran.out
    result = json.loads(ran.out)
    published.validate(result, "CompileResult")
    return result


def state(project: Path) -> tuple[str, ...]:
    asked = (
        ("rev-parse", "HEAD"),
        ("--no-optional-locks", "status", "--porcelain"),
        ("for-each-ref",),
        ("ls-files", "--stage"),
    )
    files = sorted(p.name for p in (project / ".git").iterdir())
    return (*(git(project, *words) for words in asked), *files)
