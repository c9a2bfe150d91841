"""How a cluster is reached (a kubeconfig, or the service account of a pod), and how its responses are read.

No message repeats the content of a kubeconfig, nor a text of the libraries that may: it may be a token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from scepsy.documents import did_you_mean
from scepsy.errors import ScepsyError
from scepsy.remote_api.network_errors import excerpt


class Unreachable(ScepsyError):
    """The server cannot be reached, or failed until the deadline."""


def configuration(context: str | None, otherwise: str = "set KUBECONFIG to the file") -> Any:
    """Return the `kubernetes` client's configuration.

    Args:
        context: a context of the kubeconfig; its current one if None, or the pod's service account without a file.
        otherwise: the hint where there is neither.

    Raises:
        ScepsyError: there is no such context, or no configuration.
    """
    from kubernetes import client  # noqa: PLC0415 - slow to import

    config = _config()
    made = client.Configuration()
    try:
        if context is None and not _exists():
            config.load_incluster_config(client_configuration=made)
        else:
            config.load_kube_config(_kubeconfig(), context=context, client_configuration=made)
    except config.ConfigException as error:
        raise _missing(context, str(error), otherwise) from error
    except Exception as error:  # the file is the user's, and its readers raise anything
        # Their message may repeat the content of the file, such as a token.
        mark = getattr(error, "problem_mark", None)
        reason = f"line {mark.line + 1} is not YAML" if mark else getattr(error, "strerror", "") or "not a kubeconfig"
        raise ScepsyError(
            f"cannot read the kubeconfig {_files()}: {reason}", "fix the file, or set KUBECONFIG to another"
        ) from error
    return made


def place(url: str) -> str:
    """Return host and port of a server, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the cluster"


def server_message(body: bytes | str | None) -> str:
    """Return why a server failed: the message of a Kubernetes Status, or a text that is not an HTML page."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return "" if "<" in text else excerpt(text)
    return excerpt(str(answer.get("message") or "")) if isinstance(answer, dict) else ""


def mapping(value: Any) -> dict[str, Any]:
    """Return a value that should be an object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a value that should be a list of objects."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def is_object(answer: Mapping[str, Any]) -> bool:
    """Return whether a response is a Kubernetes object: one with a name."""
    return isinstance(mapping(answer.get("metadata")).get("name"), str)


def page_of(answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str] | None:
    """Return the objects of a page of a list, and the continue token of the next page; None if it is not a page.

    Go writes null for no items; an argo-server leaves the kind out.

    Args:
        answer: a JSON object.
    """
    metadata = answer.get("metadata")
    if "items" not in answer or not isinstance(metadata, dict | None):
        return None
    items = [] if answer["items"] is None else answer["items"]
    if not isinstance(items, list) or not all(isinstance(item, dict) and is_object(item) for item in items):
        return None
    if not str(answer.get("kind") or "List").endswith("List"):
        return None
    return items, str(mapping(metadata).get("continue") or "")


def _config() -> Any:
    """Return the client's module for configurations, which is typed in part."""
    from kubernetes import config  # noqa: PLC0415 - slow to import

    return config


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _files() -> str:
    """Return the kubeconfig's path, or paths, for a message."""
    return excerpt(" and ".join(path for path in _kubeconfig().split(os.pathsep) if path))


def _exists() -> bool:
    return any(os.path.exists(os.path.expanduser(path)) for path in _kubeconfig().split(os.pathsep) if path)


def _contexts() -> list[str]:
    """Return the names of the contexts that can be read, usable or not."""
    merger = _config().kube_config.KubeConfigMerger
    with suppress(Exception):  # the file is the user's
        listed = merger(_kubeconfig()).config.value["contexts"]
        return [str(entry.value["name"]) for entry in listed if "name" in entry.value]
    return []


def _missing(context: str | None, message: str, otherwise: str) -> ScepsyError:
    names = _contexts() if _exists() else []
    if context is not None and names and context not in names:
        return ScepsyError(f'the kubeconfig has no context "{context}"', did_you_mean(context, names))
    if not _exists():
        if os.environ.get("KUBECONFIG"):
            return ScepsyError(f"KUBECONFIG is {_files()}, which does not exist", otherwise)
        return ScepsyError(f"there is no kubeconfig {_files()}, and this is not a pod of a cluster", otherwise)
    # The client quotes the section in which a field is missing, which may hold a token.
    reason = excerpt(message.partition("{")[0].removeprefix("Invalid kube-config").removeprefix(" file").lstrip(". "))
    return ScepsyError(
        f"the kubeconfig {_files()} cannot be used: {reason}",
        f"name one of its contexts with --context: {excerpt(', '.join(sorted(names)))}"
        if names
        else "it has no contexts: set KUBECONFIG to a file with contexts",
    )
