"""Files and directories → the runs in them that a profile can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scepsy.errors import ScepsyError, printable
from scepsy.profiling.importing.benchmark_result import Result
from scepsy.profiling.importing.json_files import Left, read_files
from scepsy.profiling.importing.load_kinds import Closed, Open, kind_of
from scepsy.profiling.importing.options import Options
from scepsy.profiling.importing.registry import reader_of, tools


def runs_of(options: Options) -> tuple[list[Closed | Open], list[Left]]:
    """Return the runs that a profile can use, and what is left out.

    Raises:
        ScepsyError: a file cannot be read, or the results are of several models or settings.
    """
    runs: list[Closed | Open] = []
    left: list[Left] = []
    seen: dict[tuple[Any, ...], str] = {}
    for file in read_files(options.files):
        if isinstance(file, Left):
            left.append(file)
            continue
        readers = [reader_of(value) for value in file.values]
        if not any(readers):
            left.append(Left(file.name, f"no result of {tools()}"))
            continue
        for number, (value, reader) in enumerate(zip(file.values, readers, strict=True), 1):
            name = file.name if len(file.values) == 1 else f"{file.name} ({number})"
            if reader is None:
                left.append(Left(name, f"no result of {tools()}", failed=True))
                continue
            result = reader.read(value, name, file.folder, file.digest)
            if isinstance(result, str):
                left.append(Left(name, result, failed=True))
            elif result.identity in seen:
                left.append(Left(name, f"the same run as {seen[result.identity]}"))
            else:
                seen[result.identity] = name
                kind = _kind(result, options)
                if isinstance(kind, str):
                    left.append(Left(name, kind, failed=True))
                else:
                    runs.append(kind)
    _check_one_engine([run.result for run in runs])
    return runs, left


def _kind(result: Result, options: Options) -> Closed | Open | str:
    if options.tp is not None and result.tp not in (None, options.tp):
        return f"its tensor-parallel degree is {result.tp}, --tp says {options.tp}"
    return kind_of(result, self_timed=options.self_timed)


def _check_one_engine(results: Sequence[Result]) -> None:
    """Refuse results of several models or settings: their series could not be told apart in one Profile."""
    for what, values in (
        ("models", {result.served for result in results if result.served}),
        ("versions of the engine", {result.version for result in results if result.version}),
        ("settings of the engine", {" ".join(result.flags) or "(none)" for result in results}),
    ):
        if len(values) > 1:
            shown = "".join(f"\n    {printable(value)[:200]}" for value in sorted(values)[:8])
            raise ScepsyError(
                f"the results are of {len(values)} {what}, a Profile is of one:{shown}",
                "name the files or directories of one of them, and import the others with another -o",
            )
