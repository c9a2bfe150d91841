"""Run `scepsy compile` in GitHub Actions and say there what it found: annotations, and a log that commands nothing.

A runner obeys lines of the log such as ``::add-mask::…``, and specs come from strangers. So whatever is printed stands
between ``::stop-commands::`` and its secret end, or is escaped as GitHub's toolkit does it
(packages/core/src/command.ts).
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

MOST = 10
"""So many annotations of a kind GitHub shows for a step."""
_OUT_OF_DATE = 2
_PATHS = 20  # named in one annotation


class Note(NamedTuple):
    """One annotation: a message, and where it belongs (repository-relative; no place if the path is empty)."""

    message: str
    path: str = ""
    line: int = 0
    column: int = 0


def command(asked: Mapping[str, str]) -> list[str]:
    """Return the command that the inputs, as environment variables, ask for.

    Raises:
        ValueError: they ask for nothing that there is, or for a push on a pull request.
    """
    mode, stale = asked.get("MODE"), asked.get("OUT_OF_DATE", "fail")
    if mode not in ("check", "push") or stale not in ("fail", "warn"):
        raise ValueError("the input mode is check or push, and out-of-date is fail or warn")
    if mode == "push" and asked.get("GITHUB_EVENT_NAME", "").startswith("pull_request"):
        raise ValueError("nothing is pushed for a pull request: use mode check there")
    words = ["scepsy", "compile", f"--project={asked.get('PROJECT') or '.'}", "--output=json"]
    words += [f"--cluster={asked['CLUSTER']}"] if asked.get("CLUSTER") else []
    if mode == "check":
        return [*words, "--check"]
    return [*words, "--commit", "--push", *([f"--branch={asked['BRANCH']}"] if asked.get("BRANCH") else [])]


def notes(result: Mapping[str, Any]) -> list[Note]:
    """Return what is wrong, from the JSON that `scepsy compile` printed: errors, or output that is out of date."""
    error = result.get("error")
    if error:
        problems = error.get("problems") or [error]
        return [
            Note(_lines(p["message"], p.get("hint")), p.get("path", ""), p.get("line", 0), p.get("column", 0))
            for p in problems
        ]
    stale = [c for c in result.get("clusters", ()) if not c["upToDate"]]
    return [_stale(c) for c in [*stale, *result.get("gone", ())]]


def _stale(cluster: Mapping[str, Any]) -> Note:
    changes = cluster.get("changes", {})
    kinds = (("added", "missing"), ("changed", "differs"), ("removed", "left over"), ("uncommitted", "not committed"))
    paths = [f"{path} ({word})" for kind, word in kinds for path in changes.get(kind, ())]
    more = [f"and {len(paths) - _PATHS} more"] if len(paths) > _PATHS else []
    edited = changes.get("edited")
    remedy = "Run: scepsy compile --commit" + (" --force (files were edited by hand)" if edited else "")
    what = f"The output of cluster {cluster['cluster']} is not what the specs compile to:"
    return Note(_lines(what, *paths[:_PATHS], *more, remedy))


def commands(level: str, found: list[Note]) -> list[str]:
    """Return workflow commands for the first of them; the last one counts those that are left out."""
    shown = found if len(found) <= MOST else found[: MOST - 1]
    lines = []
    for note in shown:
        place = {"file": note.path, "line": note.line, "col": note.column}
        properties = {**{name: value for name, value in place.items() if value}, "title": "Scepsy"}
        said = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
        lines.append(f"::{level} {said}::{_data(note.message)}")
    if len(shown) < len(found):
        lines.append(f"::{level} title=Scepsy::{len(found) - len(shown)} more: see the log of this step")
    return lines


def guarded(text: str) -> str:
    """Return a text for the log in which the runner finds no command, and a terminal none either."""
    end = secrets.token_hex(16)
    shown = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
    return f"::stop-commands::{end}\n{shown}\n::{end}::"


def _in_repository(note: Note, project: str) -> Note:
    """Return a note whose path, which Scepsy gives from the project on, begins at the top of the repository."""
    path = os.path.normpath(os.path.join(project, note.path))
    return note._replace(path=path) if note.path and os.path.lexists(path) else note


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _lines(*texts: str | None) -> str:
    return "\n".join(text for text in texts if text)


def _summary(result: Mapping[str, Any]) -> str:
    lines = [f"Cluster {c['cluster']}: {'up to date' if c['upToDate'] else 'new output'}" for c in result["clusters"]]
    lines += [f"Cluster {c['cluster']}: no longer in the project" for c in result.get("gone", ())]
    pushed = result.get("pushed")
    lines += [f"Pushed {pushed['commit']} to {pushed['remote']}, branch {pushed['branch']}"] if pushed else []
    return _lines(*lines) or "There is no cluster"


def main() -> int:
    """Run the command, print what it found, and return the exit code of the step."""
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        words = command(os.environ)
    except ValueError as error:
        print(*commands("error", [Note(str(error))]), sep="\n")
        return 1
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603
    said = done.stderr.decode(errors="replace")
    try:
        result = json.loads(done.stdout)
    except ValueError:
        print(guarded(said))
        print(*commands("error", [Note(said.strip() or f"scepsy ended with {done.returncode}")]), sep="\n")
        return done.returncode if done.returncode > 0 else 1
    # What a push replaced is no fault.
    found = (
        [_in_repository(note, os.environ.get("PROJECT") or ".") for note in notes(result)] if done.returncode else []
    )
    pushed = result.get("pushed") or {}
    tolerated = done.returncode == _OUT_OF_DATE and os.environ.get("OUT_OF_DATE") == "warn"
    print(guarded(said if result.get("error") else _lines(_summary(result), *(note.message for note in found))))
    for line in commands("warning" if tolerated else "error", found):
        print(line)
    if pushed and os.environ.get("GITHUB_OUTPUT"):
        with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as outputs:
            outputs.write(f"commit={pushed['commit']}\n")
    if done.returncode < 0:
        return 1
    return 0 if tolerated else done.returncode


if __name__ == "__main__":
    sys.exit(main())
