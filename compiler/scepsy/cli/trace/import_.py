"""`scepsy trace import`: read exports of other tools, and write one trace of the workflow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import click
from pydantic import TypeAdapter, ValidationError

from scepsy.cli.options import project_option
from scepsy.documents import PROJECT_FILE, DocumentError, Workflow
from scepsy.documents.diagnostics import printable
from scepsy.documents.model import KubernetesName
from scepsy.documents.paths import output_path
from scepsy.errors import ScepsyError
from scepsy.report.trace_import_terminal import TraceProject, by_count, import_lines, many
from scepsy.repository.partial_project import read_part
from scepsy.repository.single_file import write_at_once
from scepsy.traces.call import Call, Execution, encoded
from scepsy.traces.importers.import_files import Imported, import_files, renamed
from scepsy.traces.importers.model_names import names_of, parse_renames
from scepsy.traces.importers.registry import FORMATS

_OTHER_FILE = "replace it with --force, or name another file with -o"


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
    context = _project(project, workflow)
    known = context.llms if context else None
    renames = parse_renames(llms, known)
    target = _target(output, context, workflow, project)
    _check_target(target, files, force)
    imported = import_files(files, format_)
    if not imported.calls:
        raise ScepsyError(_nothing_imported(imported), "check that the export contains LLM calls with models and times")
    if all(call.error is not None for call in imported.calls):
        raise ScepsyError(f"all calls failed ({many(len(imported.calls), 'call')}): they cannot serve as demand")
    models = Counter(call.model for call in imported.calls)
    calls = renamed(imported.calls, names_of(models, known, renames))
    write_at_once(target, _text(calls, imported.executions), replace=force)
    unused = [f"--llm {model}=…: no call has that model" for model in sorted(renames.keys() - models.keys())]
    noted = replace(imported, notes=(*imported.notes, *unused))
    for line in import_lines(noted, calls, target, workflow, context):
        click.echo(line)


def _check_name(workflow: str) -> None:
    try:
        TypeAdapter(KubernetesName).validate_python(workflow)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ScepsyError(f"--workflow: {printable(reason)}", "use the name in the workflow's document") from error


def _project(project: Path, workflow: str) -> TraceProject | None:
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
        return TraceProject(part.directory, part.root, None, names, part.folder / f"{workflow}.yaml", None)
    loaded = part.documents[workflow]
    spec = loaded.document.spec
    return TraceProject(part.directory, part.root, spec.llms, names, part.path(loaded), spec.demand.traces)


def _target(output: Path | None, context: TraceProject | None, workflow: str, project: Path) -> Path:
    """Return the file to write: what was asked for, or one in the project, inside its repository."""
    if output is not None:
        return Path(os.path.realpath(output))
    if context is None:
        raise ScepsyError(
            f"there is no {PROJECT_FILE} in {project.absolute()}, so there is no traces/ to write to",
            "name the file to write with -o, or the project with --project",
        )
    relative = PurePosixPath(context.directory.relative_to(context.root).as_posix(), "traces", f"{workflow}.jsonl")
    return output_path(context.root, relative)


def _check_target(target: Path, files: Sequence[Path], force: bool) -> None:
    if target.is_dir():
        raise ScepsyError(f"{target} is a directory", "name the file to write: -o FILE")
    if any(Path(os.path.realpath(file)) == target for file in files):
        raise ScepsyError(f"{target} is one of the files to import", "name another file to write: -o FILE")
    if target.exists() and not force:
        raise ScepsyError(f"{target} exists", _OTHER_FILE)
    if target.parent.name != "traces" and not target.parent.is_dir():
        raise ScepsyError(f"the directory {target.parent} does not exist", "create it first")


def _nothing_imported(imported: Imported) -> str:
    reasons = "".join(f"\n  {count:6}  {printable(reason)}" for reason, count in by_count(imported.skipped))
    return (
        "there are no LLM calls in "
        + ", ".join(str(f.path) for f in imported.files[:5])
        + (f" and {len(imported.files) - 5} more" if len(imported.files) > 5 else "")
        + (f"; skipped:{reasons}" if reasons else "")
    )


def _text(calls: Sequence[Call], executions: Sequence[Execution]) -> bytes:
    """Return the file: per execution its bounds if they are known, then its calls."""
    bounds = {execution.execution: execution for execution in executions}
    lines = []
    last = None
    for call in calls:
        if call.execution != last and call.execution in bounds:
            lines.append(encoded(bounds[call.execution]))
        last = call.execution
        lines.append(encoded(call))
    return b"".join(lines)
