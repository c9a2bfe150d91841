"""The Profile document of a measurement, the command that reproduces it, and what an interrupted one must match."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from scepsy import __version__
from scepsy.documents import API_VERSION, Profile
from scepsy.documents.model import FileMetadata
from scepsy.documents.profile import Engine as EngineVersion
from scepsy.documents.profile import ProfileSpec, Provenance, Series, TensorParallel, Unusable
from scepsy.profiling.measuring.inputs import Inputs
from scepsy.profiling.measuring.named_files import NamedFiles
from scepsy.profiling.measuring.options import Options, RunningServer, StartedServer


def profile_document(
    options: Options,
    inputs: Inputs,
    version: str,
    day: str,
    notes: Sequence[str],
    series: tuple[Series, ...] = (),
    unusable: tuple[Unusable, ...] = (),
) -> Profile:
    """Return the Profile of a measurement.

    Args:
        options: the options of the command.
        inputs: the checked inputs.
        version: the engine's version.
        day: the day of the measurement, YYYY-MM-DD.
        notes: sentences for the provenance.
        series: the measured series, if the shape runs.
        unusable: the shape, if it does not run.
    """
    return Profile(
        api_version=API_VERSION,
        kind="Profile",
        metadata=FileMetadata(name=inputs.name),
        spec=ProfileSpec(
            source="measured",
            model=options.model,
            revision=options.revision,
            product=options.product,
            engine=EngineVersion(name="vllm", version=version),
            architecture=inputs.architecture,
            provenance=Provenance(
                tool=f"scepsy {__version__}",
                command=command(options),
                image_digest=inputs.image_digest,
                driver=inputs.driver,
                flags=engine_flags(options, inputs),
                trace_digest=options.trace_digest or inputs.calls,
                llm=options.llm,
                date=day,
                notes=" ".join(notes) or None,
            ),
            series=series,
            unusable=unusable,
        ),
    )


def command(options: Options) -> str:
    """Return the command that reproduces a measurement, without secrets and without local directories."""
    words: list[tuple[str, str | int | None]] = []
    server, files = options.server, options.files
    if isinstance(server, RunningServer):
        words += [
            ("--base-url", server.base_url),
            ("--served-as", server.served_as),
            ("--api-key-env", server.api_key_env),
        ]
    else:
        words += [("--memory", server.memory), ("--sharing", server.sharing), ("--max-model-len", server.max_model_len)]
        words += [("--neighbours", server.neighbours)] if server.neighbours == "busy" else []
        words += [("--flag", flag) for flag in options.flags]
    words += [("--model", options.model), ("--revision", options.revision)]
    words += [("--trace", files.trace.name if isinstance(files, NamedFiles) else "calls.jsonl")]
    words += [
        ("--llm", options.llm),
        ("--product", options.product),
        ("--tp", options.tp),
        ("--share", f"{options.share:g}"),
        ("--config", options.config.name if options.config else None),
        ("--parameters", options.parameters),
        ("--max-num-seqs", options.max_num_seqs),
        ("--budget", options.budget),
    ]
    words += [("-o", files.output.name)] if isinstance(files, NamedFiles) else []
    start = ["--serve"] if isinstance(server, StartedServer) else []
    values = [str(word) for name, value in words if value is not None for word in (name, value)]
    return shlex.join(["scepsy", "profile", "run", *start, *values])


def journal_arguments(options: Options, inputs: Inputs, version: str) -> Mapping[str, Any]:
    """Return the arguments that must be equal to resume a measurement; address and API key of the server may differ."""
    return {
        "model": options.model,
        "revision": options.revision,
        "engine": version,
        "trace": inputs.calls,
        "llm": options.llm,
        "product": options.product,
        "tp": options.tp,
        "share": inputs.share,
        "max-num-seqs": options.max_num_seqs,
        "vocabulary": inputs.scope.vocabulary,
        "budget": inputs.scope.budget,
        "image-digest": inputs.image_digest,
        "driver": inputs.driver,
        "flags": list(engine_flags(options, inputs)),
        # Left out if idle, as in journals written before the option existed.
        **({"neighbours": "busy"} if inputs.neighbours == "busy" else {}),
    }


def engine_flags(options: Options, inputs: Inputs) -> tuple[str, ...]:
    """Return the engine's flags that affect latency."""
    return options.flags if inputs.serving is None else inputs.serving.flags


def tensor_parallel(options: Options) -> TensorParallel:
    """Return the tensor-parallel degree."""
    return options.tp  # type: ignore[return-value]  # click offers these four only
