"""The Profile document of imported results."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from scepsy.documents import API_VERSION, Architecture, Profile
from scepsy.documents.model import FileMetadata, Version
from scepsy.documents.profile import Engine, ProfileSpec, Provenance
from scepsy.errors import ScepsyError, printable
from scepsy.profiling.importing.benchmark_result import Result
from scepsy.profiling.importing.options import Options, valid
from scepsy.profiling.importing.series import Imported


def imported_profile(options: Options, name: str, architecture: Architecture, imported: Imported) -> Profile:
    """Return the Profile of imported series.

    Args:
        options: what the command was given.
        name: the Profile's name.
        architecture: the model's shape.
        imported: the series, and the results that they were made of.

    Raises:
        ScepsyError: the version of the engine is unknown or contradictory.
    """
    digests = {result.digest for result in imported.used}
    flags = dict.fromkeys((*options.flags, *(flag for result in imported.used for flag in result.flags)))
    return Profile(
        api_version=API_VERSION,
        kind="Profile",
        metadata=FileMetadata(name=name),
        spec=ProfileSpec(
            source="imported",
            model=options.model,
            revision=options.revision,
            product=options.product,
            engine=Engine(name="vllm", version=_version(options, imported.used)),
            architecture=architecture,
            provenance=Provenance(
                tool=" and ".join(dict.fromkeys(result.tool for result in imported.used)),
                database=f"{len(digests):,} result file{'s' * (len(digests) != 1)}, {digest_of(digests)}",
                command=_command(options),
                image_digest=options.image_digest,
                driver=options.driver,
                flags=tuple(flags),
                date=max((result.day for result in imported.used if result.day), default=None),
                notes=" ".join(imported.notes),
            ),
            series=imported.series,
        ),
    )


def digest_of(digests: Iterable[str]) -> str:
    """Return one digest for all files: that of a single file, or of `sha256sum FILE… | cut -c1-64 | sort`."""
    lines = sorted(digest.removeprefix("sha256:") for digest in set(digests))
    if len(lines) == 1:
        return f"sha256:{lines[0]}"
    return "sha256:" + hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def _command(options: Options) -> str:
    """Return the command that imports the same files again, without local paths."""
    words: list[tuple[str, str | None]] = [
        ("--model", options.model),
        ("--product", options.product),
        ("--tp", None if options.tp is None else str(options.tp)),
        ("--share", None if options.share == 1 else f"{options.share:g}"),
        ("--engine-version", options.engine_version),
        ("--revision", options.revision),
        ("--config", None if options.config is None else options.config.name),
        ("--parameters", None if options.parameters is None else str(options.parameters)),
        ("--image-digest", options.image_digest),
        ("--driver", options.driver),
        *(("--flag", flag) for flag in options.flags),
    ]
    files = dict.fromkeys(printable(Path(os.path.realpath(file)).name) for file in options.files)
    words_given = [word for name, value in words if value is not None for word in (name, value)]
    return shlex.join(
        ["scepsy", "profile", "import", *files, *words_given, *(["--self-timed"] if options.self_timed else [])]
    )


def _version(options: Options, results: Sequence[Result]) -> str:
    stated = next((result.version for result in results if result.version), None)
    if options.engine_version and stated and options.engine_version != stated:
        raise ScepsyError(f"the results say version={stated}, --engine-version says {options.engine_version}")
    version = options.engine_version or stated
    if version is None:
        raise ScepsyError(
            "the results do not contain the version of vLLM",
            "use --engine-version 0.24.0 (next time: vllm bench serve --metadata version=…)",
        )
    return valid(Version, version, "--engine-version")
