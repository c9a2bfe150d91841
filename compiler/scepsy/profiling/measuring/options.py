"""The options of `scepsy profile run`, grouped and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scepsy.documents.cluster import Sharing
from scepsy.documents.diagnostics import printable
from scepsy.documents.profile import Neighbours
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.job_directory import JobDirectory
from scepsy.profiling.measuring.named_files import MeasurementFiles, NamedFiles

DEFAULT = Path("profile.yaml")
"""The file that is written without -o."""


@dataclass(frozen=True)
class RunningServer:
    """A server that runs already.

    Attributes:
        base_url: where it listens.
        served_as: the name under which it serves the model.
        api_key_env: the environment variable with its API key.
    """

    base_url: str
    served_as: str | None
    api_key_env: str | None


@dataclass(frozen=True)
class StartedServer:
    """A server that the command starts and stops.

    Attributes:
        memory: memory of one GPU, a quantity.
        sharing: how GPUs are shared.
        max_model_len: longest call in tokens; the model's context length if None.
        neighbours: load on the rest of each GPU.
    """

    memory: str
    sharing: Sharing
    max_model_len: int | None
    neighbours: Neighbours


@dataclass(frozen=True)
class Options:
    """The options of the command; texts as typed.

    Attributes:
        server: what is measured.
        files: where calls come from and results go.
        model: the model's id.
        revision: its revision.
        llm: the LLM's name in the trace.
        product: the GPU product.
        tp: the engine's tensor-parallel degree.
        share: its share of each GPU.
        config: the model's config.json; fetched from Hugging Face if None.
        parameters: its number of parameters, where it cannot be counted.
        max_num_seqs: most calls that the engine runs at once.
        budget: a duration for all points together.
        wait: a duration in which the server must become healthy.
        date: the day of the measurement, YYYY-MM-DD; today if None.
        image_digest: digest of the engine's image, or the image with it.
        driver: version of the GPU's driver.
        flags: the engine's flags.
        trace_digest: digest of the trace from which the calls were taken.
    """

    server: RunningServer | StartedServer
    files: MeasurementFiles
    model: str
    revision: str | None
    llm: str
    product: str
    tp: int
    share: float
    config: Path | None
    parameters: int | None
    max_num_seqs: int
    budget: str
    wait: str | None
    date: str | None
    image_digest: str | None
    driver: str | None
    flags: tuple[str, ...]
    trace_digest: str | None


def options_of(values: Mapping[str, Any], job: JobDirectory | None) -> Options:
    """Put the options into groups, and check that they go together."""
    if (values["base_url"] is None) != values["serve"]:
        raise ScepsyError("give either --base-url (measure a running server) or --serve (start one)")
    server: RunningServer | StartedServer
    if values["serve"]:
        _only(values, "--base-url", "served_as", "api_key_env")
        if values["memory"] is None:
            raise ScepsyError("--serve needs --memory, the memory of one GPU, such as 80Gi")
        server = StartedServer(
            values["memory"], values["sharing"], values["max_model_len"], values["neighbours"] or "idle"
        )
    else:
        _only(values, "--serve", "memory", "max_model_len", "neighbours")
        server = RunningServer(_address(values["base_url"]), values["served_as"], values["api_key_env"])
    files: MeasurementFiles
    if job is not None:
        _only(values, "-o", "trace", "output")
        files = job
    elif values["trace"] is None:
        raise ScepsyError("--trace is missing", "give the file with the recorded calls to replay")
    else:
        files = NamedFiles(values["trace"], values["output"] or DEFAULT)
    grouped = {"base_url", "served_as", "api_key_env", "serve", "memory", "sharing", "max_model_len", "neighbours"}
    grouped |= {"job", "trace", "output"}
    return Options(server, files, **{name: value for name, value in values.items() if name not in grouped})


def _address(url: str) -> str:
    """Return the address of a server if it is valid and has no secret: it becomes part of a file.

    Raises:
        ScepsyError: it is not a valid address, or has a part that may be a secret.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        bare = printable(url.rpartition("@")[2].partition("?")[0])[:100]
        raise ScepsyError(f'--base-url: "{bare}" is not a valid server address', "write http://HOST:PORT")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ScepsyError(
            "--base-url: the address must not have a password, query or fragment", "pass the API key with --api-key-env"
        )
    return url


def _only(values: Mapping[str, Any], other: str, *names: str) -> None:
    for name in names:
        if values[name] is not None:
            raise ScepsyError(f"--{name.replace('_', '-')} needs {other}")
