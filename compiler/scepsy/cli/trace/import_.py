"""`scepsy trace import`: read exports of other tools, and write one trace of the workflow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import click
from pydantic import TypeAdapter, ValidationError

from scepsy.cli.options import project_option
from scepsy.documents import PROJECT_FILE, DocumentError, Llm, Workflow
from scepsy.documents.diagnostics import did_you_mean, printable
from scepsy.documents.model import KubernetesName
from scepsy.documents.paths import output_path
from scepsy.errors import ScepsyError
from scepsy.repository.partial_project import read_part
from scepsy.repository.single_file import write_at_once
from scepsy.traces.call import ESTIMABLE, Call, Execution, encoded
from scepsy.traces.importers.import_files import Imported, import_files, renamed
from scepsy.traces.importers.model_names import names_of, parse_renames
from scepsy.traces.importers.registry import FORMATS

_OTHER_FILE = "replace it with --force, or name another file with -o"
_UNIX = 1e8
"""Seconds above this are a Unix time (after 1973); below, a clock of the execution's own."""


@dataclass(frozen=True)
class _Home:
    """The project that a trace is imported into.

    Attributes:
        directory: where `scepsy.yaml` lies, a real path.
        root: top of the repository, or `directory` where there is none.
        llms: what the workflow calls; None if the project has no such workflow.
        others: the names of the workflows that it has.
        document: where the workflow's document lies, or would.
        traces: the trace that it names, if any.
    """

    directory: Path
    root: Path
    llms: tuple[Llm, ...] | None
    others: tuple[str, ...]
    document: Path
    traces: str | None


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--workflow", metavar="NAME", required=True, help="The workflow that the calls belong to.")
@click.option(
    "--format",
    "format_",
    type=click.Choice([known.name for known in FORMATS]),
    help="The files' format; detected from their content if not given.",
)
@click.option("--llm", "llms", metavar="MODEL=NAME", multiple=True, help="Call the trace's MODEL by the LLM's NAME.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; traces/NAME.jsonl in the project if not given.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@project_option
def command(
    files: tuple[Path, ...],
    workflow: str,
    format_: str | None,
    llms: tuple[str, ...],
    output: Path | None,
    force: bool,
    project: Path,
) -> None:
    """Turn exports of other tools into a trace of the workflow."""
    _check_name(workflow)
    home = _home(project, workflow)
    known = home.llms if home else None
    renames = parse_renames(llms, known)
    target = _target(output, home, workflow, project)
    _check_target(target, files, force)
    found = import_files(files, format_)
    if not found.calls:
        raise ScepsyError(_nothing(found), "check that the export contains LLM calls with models and times")
    if all(call.error is not None for call in found.calls):
        raise ScepsyError(f"all calls failed ({_many(len(found.calls), 'call')}): they cannot serve as demand")
    models = Counter(call.model for call in found.calls)
    calls = renamed(found.calls, names_of(models, known, renames))
    write_at_once(target, _text(calls, found.executions), replace=force)
    unused = [f"--llm {model}=…: no call has that model" for model in sorted(renames.keys() - models.keys())]
    show(replace(found, notes=(*found.notes, *unused)), calls, target, workflow, home)


def _check_name(workflow: str) -> None:
    try:
        TypeAdapter(KubernetesName).validate_python(workflow)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ScepsyError(f"--workflow: {printable(reason)}", "use the name in the workflow's document") from error


def _home(project: Path, workflow: str) -> _Home | None:
    """Find the project, and the workflow's LLMs in it.

    The project need not be complete: a trace is often there before the documents are. So only what is asked for is
    read, and problems matter only where they may hide it.
    """
    if not (project / PROJECT_FILE).exists():
        return None
    part = read_part(project, Workflow)
    if workflow not in part.documents and part.problems:
        raise DocumentError(part.problems)
    names = tuple(part.documents)
    if workflow not in part.documents:
        return _Home(part.directory, part.root, None, names, part.folder / f"{workflow}.yaml", None)
    loaded = part.documents[workflow]
    spec = loaded.document.spec
    return _Home(part.directory, part.root, spec.llms, names, part.path(loaded), spec.demand.traces)


def _target(output: Path | None, home: _Home | None, workflow: str, project: Path) -> Path:
    """Return the file to write: what was asked for, or one in the project, inside its repository."""
    if output is not None:
        return Path(os.path.realpath(output))
    if home is None:
        raise ScepsyError(
            f"there is no {PROJECT_FILE} in {project.absolute()}, so there is no traces/ to write to",
            "name the file to write with -o, or the project with --project",
        )
    relative = PurePosixPath(home.directory.relative_to(home.root).as_posix(), "traces", f"{workflow}.jsonl")
    return output_path(home.root, relative)


def _check_target(target: Path, files: Sequence[Path], force: bool) -> None:
    if target.is_dir():
        raise ScepsyError(f"{target} is a directory", "name the file to write: -o FILE")
    if any(Path(os.path.realpath(file)) == target for file in files):
        raise ScepsyError(f"{target} is one of the files to import", "name another file to write: -o FILE")
    if target.exists() and not force:
        raise ScepsyError(f"{target} exists", _OTHER_FILE)
    if target.parent.name != "traces" and not target.parent.is_dir():
        raise ScepsyError(f"the directory {target.parent} does not exist", "create it first")


def _nothing(found: Imported) -> str:
    reasons = "".join(f"\n  {count:6}  {printable(reason)}" for reason, count in _by_count(found.skipped))
    return (
        "there are no LLM calls in "
        + ", ".join(str(f.path) for f in found.files[:5])
        + (f" and {len(found.files) - 5} more" if len(found.files) > 5 else "")
        + (f"; skipped:{reasons}" if reasons else "")
    )


def _text(calls: Sequence[Call], executions: Sequence[Execution]) -> bytes:
    """Return the file: per execution its own line if it has one, then its calls."""
    bounds = {execution.execution: execution for execution in executions}
    lines = []
    last = None
    for call in calls:
        if call.execution != last and call.execution in bounds:
            lines.append(encoded(bounds[call.execution]))
        last = call.execution
        lines.append(encoded(call))
    return b"".join(lines)


def show(found: Imported, calls: Sequence[Call], target: Path, workflow: str, home: _Home | None) -> None:
    """Print what was read, what was not, and what to do next.

    Args:
        found: what was imported from the files.
        calls: its calls, by the names of LLMs.
        target: the file that was written.
        workflow: the workflow's name.
        home: the project, if there is one.
    """
    rows = [
        (
            printable(str(f.path)),
            f.format,
            _many(f.calls, "call"),
            _many(f.executions, "execution"),
            _period(f.first, f.last),
        )
        for f in found.files
    ]
    _table("Read", rows)
    tokens: dict[str, list[float]] = {}
    for call in calls:
        sums = tokens.setdefault(call.model, [0, 0, 0, 0])
        for i, count in enumerate((1, call.input_tokens, call.cached_tokens, call.output_tokens)):
            sums[i] += count
    units = ("calls", "input tokens", "of them cached", "output tokens")
    by_llm = [
        (printable(m), *(f"{n:.0f} {w}" for n, w in zip(s, units, strict=True))) for m, s in sorted(tokens.items())
    ]
    _table("LLMs", by_llm)
    _table("Skipped", [(f"{count}", printable(reason)) for reason, count in _by_count(found.skipped)])
    for note in (*found.notes, *_notes(calls, workflow, home)):
        click.echo(f"note: {printable(note)}")
    executions = len({call.execution for call in calls})
    click.echo(f"Wrote {target}: {_many(len(calls), 'call')} of {_many(executions, 'execution')}")
    click.echo(f"Next: {_next(target, workflow, home)}")


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows with aligned columns; numbers at the beginning of a cell are aligned by their last digit."""
    if not rows:
        return
    click.echo(f"{title}:")
    digits = [
        max(len(cell.split(" ")[0]) if cell[:1].isdigit() else 0 for cell in column)
        for column in zip(*rows, strict=True)
    ]
    lined = [
        [
            " " * (d - len(cell.split(" ")[0])) + cell if cell[:1].isdigit() else cell
            for cell, d in zip(row, digits, strict=True)
        ]
        for row in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*lined, strict=True)]
    for row in lined:
        click.echo("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _period(first: float | None, last: float | None) -> str:
    """Write when calls were made, or how long they took on a clock of their own."""
    if first is None or last is None:
        return ""
    if first < _UNIX or last > 4e9:
        return f"{last - first:.1f} s"
    begin, end = (datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S") for t in (first, last))
    return f"{begin} … {end if end[:10] != begin[:10] else end[11:]} UTC"


def _by_count(reasons: Counter[str]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))


def _notes(calls: Sequence[Call], workflow: str, home: _Home | None) -> list[str]:
    """Return notes on what was estimated, what failed, and why names were kept."""
    notes = []
    words = dict(
        zip(ESTIMABLE, ("the execution", "the end", "input tokens", "output tokens", "cached tokens"), strict=True)
    )
    for name, what in words.items():
        count = sum(name in call.estimated for call in calls)
        if count:
            notes.append(f"{what} of {count} of {len(calls)} calls {_how(name)}")
    failed = sum(call.error is not None for call in calls)
    if failed:
        notes.append(f"{failed} calls failed: they are in the trace, but not in the demand")
    if home is None:
        notes.append("no project found here, so models keep their names")
    elif home.llms is None:
        near = did_you_mean(workflow, list(home.others)) if home.others else ""
        notes.append(
            f'the project has no workflow "{workflow}" yet, so models keep their names' + (f" ({near})" if near else "")
        )
    return notes


def _how(name: str) -> str:
    """Return how a field is estimated."""
    return {
        "execution": "is estimated",
        "end": "is estimated, from the seconds per output token of others",
        "cachedTokens": "are estimated, from the blocks that earlier calls had",
    }.get(name, "are estimated, from the mean of the model's other calls or the length of the texts")


def _next(target: Path, workflow: str, home: _Home | None) -> str:
    """Say what is left to do: to name the trace in the workflow's document, unless that is done."""
    if home is None or not target.is_relative_to(home.root):
        named = f"demand: {{traces: ../traces/{target.name}}}"
        return f"copy it to traces/ of the project, and give the workflow {workflow} in its spec  {named}"
    path = PurePosixPath(os.path.relpath(target, home.document.parent)).as_posix()
    shown = PurePosixPath(os.path.relpath(home.document, home.directory)).as_posix()
    if home.traces is not None and os.path.normpath(home.traces) == path:
        return f"scepsy compile; {shown} already names this trace"
    return f"in spec of {shown} write  demand: {{traces: {path}}}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
