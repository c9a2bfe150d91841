"""The small files of a model: from its directory, or from the hub that the engine loads it from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError
from scepsy.profiling.measuring.architecture import bytes_per_weight, is_countable
from scepsy.profiling.measuring.failures import TryAgain

_NOT_THERE = {"RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError", "HFValidationError"}
"""Errors of huggingface_hub that another attempt does not fix."""


def fetched(model: str, revision: str | None, name: str) -> Path:
    """Return a file of a model: of its directory if the model is one, else from the hub or its cache.

    Args:
        model: the model's id, or its directory.
        revision: its revision; the newest one if None.
        name: the file's name.

    Raises:
        TryAgain: the hub does not answer.
        ScepsyError: there is no such model or file, or the package huggingface_hub is missing.
    """
    local = Path(model) / name
    if local.parent.is_dir():
        if not local.is_file():
            raise ScepsyError(f"{local} is not there")
        return local
    try:
        hub = import_module("huggingface_hub")
    except ModuleNotFoundError as missing:
        raise ScepsyError(
            f"{name} of {model} is fetched with the package huggingface_hub, which is not installed",
            "pip install huggingface_hub, or name the file: --config FILE",
        ) from missing
    try:
        return Path(hub.hf_hub_download(model, name, revision=revision))
    except Exception as error:
        # Its classes are of several bases, which differ from version to version; their names do not.
        names = {kind.__name__ for kind in type(error).__mro__}
        at = f" at the revision {revision}" if revision else ""
        reason = printable(" ".join(str(error).split())[:300])
        message = f"cannot fetch {name} of {model}{at}: {reason or type(error).__name__}"
        if names & _NOT_THERE:
            raise ScepsyError(message, "is it the model's id? a gated model needs HF_TOKEN") from error
        raise TryAgain(message, "the hub must be reachable, or the model be in the cache (HF_HOME)") from error


def parameters_of(model: str, revision: str | None, config: Mapping[str, Any]) -> int | None:
    """Return how many parameters a model has that cannot be counted; None if it can be.

    The index of sharded weights says their bytes.

    Args:
        model: the model's id, or its directory.
        revision: its revision.
        config: its config.json.

    Raises:
        ScepsyError: the index cannot be had, or does not say it.
    """
    if is_countable(config):
        return None
    try:
        index = json.loads(fetched(model, revision, "model.safetensors.index.json").read_bytes())
        return round(int(index["metadata"]["total_size"]) / bytes_per_weight(config))
    except TryAgain:
        raise
    except (ScepsyError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ScepsyError(
            f"how many parameters {model} has cannot be counted, nor read from an index of its weights",
            "give --parameters",
        ) from error
