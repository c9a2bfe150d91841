"""Many compilers at once: each changes one line of a shared file, compiles, commits and pushes, again and again.

Run as `python -m tests.publishing.concurrent_compilers CHANGES CLONE...`: one process for each clone; prints how often each push tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tests.conftest import git
from tests.publishing.project_edits import WORKFLOW

from scepsy.documents import Workspace
from scepsy.publishing.publish import Amendment, Destination, publish


def pushes(project: Path, name: str, changes: int) -> list[int]:
    """Push so many changes from one clone; return how many attempts each took."""
    tried = []
    for number in range(changes):

        def change(workspace: Workspace, number: int = number) -> Mapping[PurePosixPath, bytes | None]:
            path = workspace.directory / WORKFLOW
            return {PurePosixPath(WORKFLOW): path.read_bytes() + f"# {name} {number}\n".encode()}

        result = publish(project, None, Destination(), False, Amendment(change, f"{name} {number}"))
        assert result.pushed is not None
        assert result.left == "", result.left
        tried.append(result.pushed.attempts)
    return tried


def main(changes: int, clones: list[Path]) -> None:
    """Fork one compiler for each clone."""
    children = []
    for clone in clones:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                print(json.dumps(pushes(clone, clone.name, changes)), flush=True)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]  # every one of them
    sys.exit(any(ended))


def crowd(place: Path, url: str, compilers: int, changes: int) -> list[int]:
    """Let them all push at once; return how many attempts each push took."""
    clones = [str(place / f"c{n}") for n in range(compilers)]
    for clone in clones:
        git(place, "clone", "-q", url, clone)
    done = subprocess.run(
        [sys.executable, "-m", "tests.publishing.concurrent_compilers", str(changes), *clones],
        capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [attempts for line in done.stdout.splitlines() for attempts in json.loads(line)]


def check_history(remote: Path, first: str, compilers: int, changes: int) -> None:
    """Check that every change is there once, in a line of commits, each with the output of its own specs."""
    commits = git(remote, "rev-list", "--reverse", "--parents", f"{first}..main").splitlines()
    parents = [line.split()[1:] for line in commits]
    hashes = [line.split()[0] for line in commits]
    assert parents == [[parent] for parent in [first, *hashes[:-1]]]
    assert len(hashes) == compilers * changes
    lines = [line for line in git(remote, "show", f"main:{WORKFLOW}").splitlines() if line.startswith("# c")]
    assert Counter(lines) == Counter(f"# c{n} {i}" for n in range(compilers) for i in range(changes))
    for commit in (hashes[0], hashes[len(hashes) // 2], hashes[-1]):
        digest = subprocess.run(
            f"git -C {remote} show {commit}:{WORKFLOW} | sha256sum",
            shell=True,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()[0]
        assert f"{WORKFLOW}: sha256:{digest}" in git(remote, "show", f"{commit}:plans/one-node.yaml")
    git(remote, "fsck", "--strict", "--no-dangling")


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
