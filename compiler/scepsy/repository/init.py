"""A new Git repository for a new project."""

from __future__ import annotations

from pathlib import Path

from scepsy.repository.git import ask, git
from scepsy.repository.worktree import NotAWorkTree, WorkTree, open_worktree

_NAME, _EMAIL = "Scepsy example", "scepsy@example.invalid"


def open_worktree_or_none(path: Path) -> WorkTree | None:
    """Find the Git work tree that contains a path, or None where there is no repository.

    Raises:
        NotAWorkTree: there is a repository, but no work tree (a bare one, or inside .git).
        GitFailed: git is not installed, or refuses the repository.
    """
    try:
        return open_worktree(path)
    except NotAWorkTree as error:
        if error.repository:
            raise
        return None


def create_repository(directory: Path, subject: str | None) -> list[str]:
    """Make a directory a Git repository, and commit what it holds if `subject` is given.

    Without a subject a directory that lies in a repository stays part of it. Where nobody told Git who commits, the
    new repository gets an identity of its own, so that an example works on a fresh machine.

    Returns:
        lines that say what was done.

    Raises:
        GitFailed: git is not installed, or failed.
    """
    done = [f"Wrote {directory}"]
    if subject is None and open_worktree_or_none(directory) is not None:
        return [*done, "It is inside a Git repository: commit it there (git add, git commit)"]
    around = open_worktree_or_none(directory)
    if around is not None:
        done.append(
            f"It is inside the Git repository {around.root}, but is a separate repository, not part of that one"
        )
    git(directory, "init", "--quiet", "--initial-branch=main")
    if subject is None:
        return [*done, "Made it a Git repository"]
    if ask(directory, "config", "user.email") is None:
        git(directory, "config", "user.name", _NAME)
        git(directory, "config", "user.email", _EMAIL)
        done.append(f"Git knows no user.email here: this repository uses {_NAME} <{_EMAIL}>")
    git(directory, "add", "--all", ".")
    git(directory, "commit", "--quiet", "--no-gpg-sign", "-m", subject)
    return [*done, "Made it a Git repository and committed the example"]
