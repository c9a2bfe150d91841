"""What `scepsy profile import` is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from scepsy.errors import ScepsyError, printable


@dataclass(frozen=True)
class Options:
    """What the command was given.

    Attributes:
        files: results and directories of them.
        model: the model's id.
        product: the GPU product.
        tp: the engine's tensor-parallel degree; None for that of the results, else 1.
        share: its share of each GPU.
        engine_version: the engine's version; None for that in the results' metadata.
        revision: the model's revision, if it was pinned.
        config: the model's config.json; None for the shape in a profile of the project.
        parameters: its number of parameters, if it cannot be computed.
        image_digest: digest of the engine's image.
        driver: version of the GPU's driver.
        flags: engine flags besides those in the results.
        self_timed: results without a rate and without a limit replayed a trace at the recorded times.
        output: the file to write; None for one among the project's profiles.
        force: replace the file if it exists.
        project: directory with `scepsy.yaml`, if there is one.
    """

    files: tuple[Path, ...]
    model: str
    product: str
    tp: int | None
    share: float
    engine_version: str | None
    revision: str | None
    config: Path | None
    parameters: int | None
    image_digest: str | None
    driver: str | None
    flags: tuple[str, ...]
    self_timed: bool
    output: Path | None
    force: bool
    project: Path


def valid(kind: Any, value: str, option: str) -> str:
    """Return the value of an option if its type allows it.

    Raises:
        ScepsyError: it does not.
    """
    try:
        checked: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        message = printable(str(error.errors()[0]["msg"]).removeprefix("Value error, "))
        raise ScepsyError(f"{option}: {message}") from error
    return checked
