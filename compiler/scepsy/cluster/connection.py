"""How a cluster is reached: kubeconfigs, a pod's own account, and what a network says when it fails.

Nothing of what is read here, and no text of the libraries that may repeat it, is part of a message.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from scepsy.documents import did_you_mean
from scepsy.documents.diagnostics import printable
from scepsy.errors import ScepsyError

MOST = 400
"""Most characters of what a server says that are repeated."""


@dataclass(frozen=True)
class Clock:
    """How time passes.

    Attributes:
        now: tells seconds.
        sleep: lets seconds pass.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()
"""Time as it is."""


class Unreachable(ScepsyError):
    """The server cannot be reached, or kept failing, for longer than it was waited for."""


def configuration(context: str | None, otherwise: str = "set KUBECONFIG to the file") -> Any:
    """Return the `kubernetes` client's configuration.

    Args:
        context: a context of the kubeconfig; its current one if None, or a pod's own account where there is no file.
        otherwise: what to do where there is neither, for the message.

    Raises:
        ScepsyError: there is no such context, or no configuration.
    """
    from kubernetes import client  # noqa: PLC0415 - slow to import

    config = _config()
    made = client.Configuration()
    try:
        if context is None and not _is_there():
            config.load_incluster_config(client_configuration=made)
        else:
            config.load_kube_config(_kubeconfig(), context=context, client_configuration=made)
    except config.ConfigException as error:
        raise _missing(context, str(error), otherwise) from error
    except Exception as error:  # the file is the user's, and its readers raise what they meet
        # In their own words there may be what stands in the file, such as a token.
        mark = getattr(error, "problem_mark", None)
        said = f"line {mark.line + 1} is no YAML" if mark else getattr(error, "strerror", "") or "it is none"
        raise ScepsyError(
            f"the kubeconfig {_named()} cannot be read: {said}", "mend the file, or set KUBECONFIG to another"
        ) from error
    return made


def place(url: str) -> str:
    """Return where a server is, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the cluster"


def network(error: Exception) -> str:
    """Say in few words what the network did; urllib3's own text names objects of Python."""
    import urllib3  # noqa: PLC0415 - with the client

    inner: BaseException = error
    while inner.__cause__ is not None and inner.__cause__ is not inner:
        inner = inner.__cause__
    if isinstance(error, getattr(urllib3.exceptions, "NameResolutionError", ())):  # since urllib3 2
        return "its name is unknown"
    if isinstance(inner, OSError) and inner.strerror:
        return shown(inner.strerror)
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "it does not answer in time"
    if isinstance(error, urllib3.exceptions.ProtocolError | urllib3.exceptions.IncompleteRead):
        return "the connection broke off"
    return shown(str(inner) if isinstance(error, urllib3.exceptions.SSLError) else type(error).__name__)


def is_certificate(error: Exception) -> bool:
    """Tell whether it is the server's certificate that is wrong: trying again does not help."""
    import urllib3  # noqa: PLC0415 - with the client

    reason = getattr(error, "reason", None) or error
    return isinstance(error, urllib3.exceptions.SSLError) or isinstance(reason, urllib3.exceptions.SSLError)


def said(body: bytes | str | None) -> str:
    """Return what a server says of a failure: the message of a Kubernetes Status, or a text that is no page."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return "" if "<" in text else shown(text)
    return shown(str(answer.get("message") or "")) if isinstance(answer, dict) else ""


def after(headers: Mapping[str, str]) -> float:
    """Return for how many seconds a server wants to be left alone."""
    value = next((value for key, value in headers.items() if key.lower() == "retry-after"), "")
    return float(value) if str(value).isdecimal() else 0.0


def mapping(value: Any) -> dict[str, Any]:
    """Return what should be an object; an empty one for anything else that a server sends in its place."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return those entries of what should be a list of objects that are objects."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def is_object(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer is an object as Kubernetes has them: one with a name."""
    return isinstance(mapping(answer.get("metadata")).get("name"), str)


def page_of(answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str] | None:
    """Return the objects of a page of a list, and what to ask for the next one with; None if it is no such page.

    Go writes null for no items; an argo-server leaves the kind out.

    Args:
        answer: a JSON object that came in place of a page.
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


def shown(text: str) -> str:
    """Return a text of somebody else as part of a message: one line, not too long."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= MOST else line[:MOST] + "…"


def _config() -> Any:
    """Return the client's module for configurations, of which not everything has types."""
    from kubernetes import config  # noqa: PLC0415 - slow to import

    return config


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _named() -> str:
    """Return the file, or the files, as part of a message."""
    return shown(" and ".join(path for path in _kubeconfig().split(os.pathsep) if path))


def _is_there() -> bool:
    return any(os.path.exists(os.path.expanduser(path)) for path in _kubeconfig().split(os.pathsep) if path)


def _contexts() -> list[str]:
    """Return the names of the contexts, as far as they can be read, whether or not one of them can be used."""
    merger = _config().kube_config.KubeConfigMerger
    with suppress(Exception):  # the file is the user's
        listed = merger(_kubeconfig()).config.value["contexts"]
        return [str(entry.value["name"]) for entry in listed if "name" in entry.value]
    return []


def _missing(context: str | None, message: str, otherwise: str) -> ScepsyError:
    names = _contexts() if _is_there() else []
    if context is not None and names and context not in names:
        return ScepsyError(f'the kubeconfig has no context "{context}"', did_you_mean(context, names))
    if not _is_there():
        if os.environ.get("KUBECONFIG"):
            return ScepsyError(f"KUBECONFIG names {_named()}, which does not exist", otherwise)
        return ScepsyError(f"there is no kubeconfig {_named()}, and this is no pod of a cluster", otherwise)
    # The client names what it misses something in by its content, which may be a token.
    reason = shown(message.partition("{")[0].removeprefix("Invalid kube-config").removeprefix(" file").lstrip(". "))
    return ScepsyError(
        f"the kubeconfig {_named()} cannot be used: {reason}",
        f"name one of its contexts with --context: {shown(', '.join(sorted(names)))}"
        if names
        else "it has no contexts: set KUBECONFIG to a file that has",
    )
