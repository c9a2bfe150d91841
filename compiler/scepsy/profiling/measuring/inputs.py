"""Everything that a measurement needs, checked before the server is contacted or started."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from scepsy.documents import Architecture
from scepsy.documents.diagnostics import printable
from scepsy.documents.model import ModelId, NodeName, Product, Revision
from scepsy.documents.profile import Neighbours
from scepsy.documents.units import option_duration, parse_memory, parse_share
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import startup_seconds
from scepsy.profiling.measuring import Scope, architecture_of, read_config, read_workload, vocabulary_of
from scepsy.profiling.measuring.gpu_check import check_gpus
from scepsy.profiling.measuring.huggingface import fetched, parameters_of
from scepsy.profiling.measuring.job_directory import JobDirectory
from scepsy.profiling.measuring.named_files import NamedFiles
from scepsy.profiling.measuring.options import Options, RunningServer, StartedServer
from scepsy.profiling.measuring.server_configuration import ServerConfiguration
from scepsy.profiling.measuring.vllm_server import find_vllm
from scepsy.remote_api.credentials import check_encrypted, read_token
from scepsy.sharing import backend_of

_HEALTHY_WITHIN = "10min"
"""Time in which a server that is not started here must become healthy, without --wait."""


@dataclass(frozen=True)
class Inputs:
    """The checked inputs of a measurement.

    Attributes:
        scope: what is measured.
        architecture: the model's shape.
        key: the API key of a running server.
        serving: the configuration of a server that the command starts.
        share: the share.
        wait: seconds in which the server must become healthy.
        name: the Profile's name.
        calls: digest of the calls.
        image_digest: digest of the engine's image.
        driver: version of the driver.
        notes: further notes for the Profile.
        date: the day, YYYY-MM-DD.
    """

    scope: Scope
    architecture: Architecture
    key: str | None
    serving: ServerConfiguration | None
    share: float
    wait: float
    name: str
    calls: str
    image_digest: str | None
    driver: str | None
    notes: tuple[str, ...]
    date: str

    @property
    def neighbours(self) -> Neighbours:
        """Load on the rest of each GPU."""
        return "idle" if self.serving is None else self.serving.neighbours


def check_inputs(options: Options) -> Inputs:
    """Check everything that can be checked without the server.

    Raises:
        ScepsyError: an option is invalid, or a file cannot be read.
    """
    share, server, files = _share(options.share), options.server, options.files
    _valid(ModelId, options.model, "--model")
    _valid(Product, options.product, "--product")
    if options.revision is not None:
        _valid(Revision, options.revision, "--revision")
    point = f"tp{options.tp}-s{round(share * 10)}"
    if isinstance(files, NamedFiles):
        name = _valid(NodeName, _slug(files.output.stem), "-o")
    else:
        name = _valid(NodeName, f"{_slug(options.model.rpartition('/')[2])[:200]}-{point}", "--model")
    files.prepare(point)
    if isinstance(server, StartedServer):
        find_vllm()
    config = read_config(options.config or fetched(options.model, options.revision, "config.json"))
    with files.calls() as calls:
        # A job unpacks its calls into a temporary file, whose name means nothing.
        workload, digest = read_workload(calls, options.llm, calls.name if isinstance(files, JobDirectory) else "")
    parameters = options.parameters
    if parameters is None and options.config is None:
        parameters = parameters_of(options.model, options.revision, config)
    architecture = architecture_of(config, parameters, options.flags)
    image, notes = _image(options.image_digest)
    inputs = Inputs(
        scope=Scope(workload, vocabulary_of(config), options.max_num_seqs, option_duration(options.budget, "--budget")),
        architecture=architecture,
        key=_key(server) if isinstance(server, RunningServer) else None,
        serving=None,
        share=share,
        wait=option_duration(options.wait or _HEALTHY_WITHIN, "--wait"),
        name=name,
        calls=digest,
        image_digest=image,
        driver=options.driver,
        notes=notes,
        date=_date(options.date),
    )
    return _with_serving(options, server, inputs) if isinstance(server, StartedServer) else inputs


def _with_serving(options: Options, server: StartedServer, inputs: Inputs) -> Inputs:
    """Add the configuration of the server to start, and check the GPUs that it will have."""
    try:
        card = parse_memory(int(server.memory) if server.memory.isdecimal() else server.memory)
    except ValueError as error:
        raise ScepsyError(f"--memory: {error}") from error
    serving = ServerConfiguration(
        name=options.llm,
        model=options.model,
        revision=options.revision,
        architecture=inputs.architecture,
        tp=options.tp,
        share=inputs.share,
        sharing=server.sharing,
        card=card,
        max_model_len=server.max_model_len or inputs.architecture.context_length,
        max_num_seqs=options.max_num_seqs,
        extra=options.flags,
        neighbours=server.neighbours,
    )
    if inputs.scope.workload.longest > serving.max_model_len:
        raise too_long(inputs.scope, serving.max_model_len, "--max-model-len")
    # Under HAMi, nvidia-smi shows a slice as a whole card.
    whole = inputs.share == 1.0 or backend_of(server.sharing).shows_whole_card
    driver = check_gpus(options.product, options.tp, card if whole else None)
    unverified = ("nvidia-smi is not installed: the GPU product was not verified.",) if driver is None else ()
    return replace(
        inputs,
        serving=serving,
        wait=startup_seconds(serving.weights) if options.wait is None else inputs.wait,
        driver=options.driver or driver,
        notes=(*inputs.notes, *unverified),
    )


def too_long(scope: Scope, longest: int, who: str) -> ScepsyError:
    """Return the error for a recorded call that is longer than the server accepts."""
    return ScepsyError(
        f"the longest recorded call has {scope.workload.longest} tokens, {who} allows {longest}",
        f"start it with --max-model-len {scope.workload.longest} or more",
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")


def _image(values: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the digest of an image reference, and a note if it has none."""
    if values is None:
        return None, ()
    digest = values.rpartition("@")[2]
    if re.fullmatch(r"[a-z0-9]+:[0-9a-f]{32,}", digest):
        return digest, ()
    return None, (f"The image {values} was not pinned by its digest.",)


def _valid(kind: Any, value: str, option: str) -> str:
    try:
        checked: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ScepsyError(
            f"{option}: {printable(str(error.errors()[0]['msg']).removeprefix('Value error, '))}"
        ) from error
    return checked


def _share(value: float) -> float:
    try:
        return parse_share(value)
    except ValueError as error:
        raise ScepsyError(f"--share: {error}") from error


def _date(text: str | None) -> str:
    if text is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ScepsyError(f'--date: "{text}" is not a valid date such as 2026-01-31') from error


def _key(server: RunningServer) -> str | None:
    variable = server.api_key_env
    if variable is None:
        return None
    key = read_token(os.environ, variable)
    if key is None:
        raise ScepsyError(f"--api-key-env: the environment variable {variable} is not set")
    address = urlsplit(server.base_url)
    check_encrypted(address.scheme, address.hostname or "", "API key")
    return key
