"""The Kubernetes API, read only: objects as plain values, faults as errors that name the missing permission.

The `kubernetes` client knows every way to log in and to check the server's certificate; with that, requests are plain
HTTP, because what the client makes of answers differs between its versions. Transient failures are tried again within
bounds. No token is ever part of a message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from scepsy.cluster.connection import (
    CLOCK,
    Clock,
    Unreachable,
    after,
    configuration,
    is_certificate,
    is_object,
    network,
    page_of,
    place,
    said,
    shown,
)
from scepsy.errors import ScepsyError

if TYPE_CHECKING:
    import urllib3

CONNECT = 4.0
"""Seconds for which a server that was never reached is tried."""
PATIENCE = 30.0
"""Seconds for which a server that answers, but fails, is tried."""
ROLE = "gitops/observe"
"""The folder with the permissions that are needed."""
_PAGE = 500
_ATTEMPTS = 5
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
_LONGEST_AFTER = 30.0
_CONNECT_TIMEOUT, _READ_TIMEOUT = 5.0, 30.0
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))

Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of objects, in the words of a Role.

    Attributes:
        resource: its plural.
        group: its API group; empty for the core.
        version: of the group.
    """

    resource: str
    group: str = ""
    version: str = "v1"

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of its objects, or of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(["namespaces", namespace] if namespace else []), self.resource, *([name] if name else [])]
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


NODES = Kind("nodes")
SLICES = Kind("resourceslices", "resource.k8s.io")
CLASSES = Kind("deviceclasses", "resource.k8s.io")
CLAIMS = Kind("resourceclaims", "resource.k8s.io")
PODS = Kind("pods")
APPLICATIONS = Kind("applications", "argoproj.io", "v1alpha1")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split what arrives in pieces into lines."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


class Reader(Protocol):
    """What this room needs of a cluster."""

    place: str
    """The server, for messages."""

    def version(self) -> Object:
        """Return what the server says about itself."""

    def objects(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Return all objects of a kind, by name; of one namespace, or of all."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none of that name."""


class Kubernetes:
    """A cluster, reached as a kubeconfig says.

    Attributes:
        place: the server, for messages.
        patience: seconds for which a failing server is tried.

    Args:
        context: a context of the kubeconfig; its current one if None, or a pod's own account where there is no file.
        clock: tells the time, and waits.

    Raises:
        ScepsyError: there is no such context, or no configuration.
    """

    def __init__(self, context: str | None = None, clock: Clock = CLOCK) -> None:
        from kubernetes import client  # noqa: PLC0415 - slow to import

        self._settings = configuration(context)
        self._settings.retries = False  # tried again here
        self._pool: urllib3.PoolManager = client.ApiClient(self._settings).rest_client.pool_manager
        self._server = str(self._settings.host).rstrip("/")
        self._clock = clock
        self._reached = False
        self.place = place(self._server)
        self.patience = PATIENCE

    def version(self) -> Object:
        """Return what the server says about itself: `gitVersion`, `major`, `minor`.

        Raises:
            ScepsyError: the server refuses, cannot be reached, or is no Kubernetes.
        """
        wish = "read its version"
        answer: Object = self._ask(wish, "/version", {}, frozenset())
        if not isinstance(answer.get("gitVersion"), str):
            raise self._foreign(wish)
        return answer

    def objects(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Return all objects of a kind, by name, however many pages that takes.

        Args:
            kind: what.
            namespace: only those in it.

        Raises:
            ScepsyError: the server refuses, does not know the kind, cannot be reached, or is no Kubernetes.
        """
        wish = f"list {kind}" + (f" in namespace {namespace}" if namespace else "")
        for _ in range(_ATTEMPTS):
            found: dict[str, Object] = {}
            following = ""
            while True:
                query = {"limit": str(_PAGE)} | ({"continue": following} if following else {})
                answer = self._ask(wish, kind.path(namespace), query, frozenset((410,)) if following else frozenset())
                if answer is None:
                    break  # the list changed while its pages were read: from the beginning
                page = page_of(answer)
                if page is None:
                    raise self._foreign(wish)
                items, following = page
                found |= {f"{i['metadata'].get('namespace', '')}/{i['metadata']['name']}": i for i in items}
                if not following:
                    return [item for _, item in sorted(found.items())]
        raise Unreachable(f"{self.place} cannot {wish}: the list expires while it is read", "try again")

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none of that name.

        Raises:
            ScepsyError: the server refuses, cannot be reached, or is no Kubernetes.
        """
        wish = f"get {kind} in namespace {namespace}"
        answer: Object | None = self._ask(wish, kind.path(namespace, name), {}, frozenset((404,)))
        if answer is not None and not is_object(answer):
            raise self._foreign(wish)
        return answer

    def watch(self, kind: Kind, seconds: int = 300) -> Iterator[Object]:
        """Yield the changes of a kind of objects, in all namespaces, beginning with those that are there.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes: a watch without a
        resource version starts with an ADDED event for every object.

        Args:
            kind: what.
            seconds: after so many the server ends it; whoever wants to know more asks again.

        Yields:
            Events, with `type` (ADDED, MODIFIED, DELETED) and `object`.

        Raises:
            ScepsyError: the server refuses, ends it with an error, or cannot be reached.
        """
        import urllib3  # noqa: PLC0415 - with the client

        wish = f"watch {kind}"
        url = f"{self._server}{kind.path()}?{urlencode({'watch': '1', 'timeoutSeconds': str(seconds)})}"
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=seconds + _READ_TIMEOUT)
        headers = {"Accept": "application/json", **self._credentials()}
        try:
            response = self._pool.request(
                "GET", url, headers=headers, timeout=timeout, retries=False, redirect=False, preload_content=False
            )
            with response:
                if response.status != 200:
                    raise self._error(wish, response.status, said(response.read()), response.status in _TRANSIENT)
                for line in _lines(response.stream(65_536)):
                    event = json.loads(line)
                    if not isinstance(event, dict) or event.get("type") == "ERROR":
                        raise Unreachable(f"{self.place} ends the watch of {kind}", "it is begun again")
                    yield event
        except urllib3.exceptions.HTTPError as error:
            raise self._error(wish, 0, network(error), transient=not is_certificate(error)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise Unreachable(f"{self.place} broke off the watch of {kind}", "it is begun again") from error

    def _ask(self, wish: str, path: str, query: dict[str, str], expected: frozenset[int]) -> Any:
        """Send a request until it succeeds, fails for good, or patience ends; None for a status that is expected."""
        began, pause = self._clock.now(), _FIRST_PAUSE
        while True:
            status, answer, wanted = self._once(path, query)
            if status:
                self._reached = True
            if status in expected:
                return None
            if 200 <= status < 300 and isinstance(answer, dict):
                return answer
            transient = wanted >= 0 and (status in _TRANSIENT or status < 300)
            wait = max(pause, min(wanted, _LONGEST_AFTER))
            limit = self.patience if self._reached else min(CONNECT, self.patience)
            if not transient or self._clock.now() - began + wait > limit:
                raise self._error(wish, status, answer if isinstance(answer, str) else "", transient)
            self._clock.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(self, path: str, query: dict[str, str]) -> tuple[int, Any, float]:
        """Send a request.

        Returns:
            The status, 0 where there was no answer; the object, else what the server or the network said;
            the seconds that the server wants to be left alone for, negative where trying again cannot help.
        """
        import urllib3  # noqa: PLC0415 - with the client

        url = f"{self._server}{path}" + (f"?{urlencode(query)}" if query else "")
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT)
        try:
            headers = {"Accept": "application/json", **self._credentials()}
            # A redirect would carry the token elsewhere.
            response = self._pool.request("GET", url, headers=headers, timeout=timeout, retries=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            return 0, network(error), -1.0 if is_certificate(error) else 0.0
        except OSError as error:
            return 0, shown(error.strerror or str(error)), 0.0
        if 200 <= response.status < 300:
            try:
                return response.status, json.loads(response.data), 0.0
            except (ValueError, RecursionError):
                return response.status, "", 0.0
        return response.status, said(response.data), after(response.headers)

    def _credentials(self) -> dict[str, str]:
        """Return headers. Asked for with every request: a token that a program fetched is renewed here."""
        try:
            return {entry["key"]: entry["value"] for entry in self._settings.auth_settings().values()}
        except Exception as error:  # whatever the program of the kubeconfig does; its words may hold the token
            raise ScepsyError(f"the credentials for {self.place} cannot be renewed", "log in again") from error

    def _foreign(self, wish: str) -> ScepsyError:
        """Say that what answers is something else: taken at its word, the cluster would have nothing at all."""
        return Unreachable(
            f"{self.place} does not answer as Kubernetes does, asked to {wish}",
            "is the address in the kubeconfig right? a proxy, or another service, may answer in its place",
        )

    def _error(self, wish: str, status: int, message: str, transient: bool) -> ScepsyError:
        behind = f": {message}" if message else ""
        match status:
            case 0:
                return Unreachable(
                    f"{self.place} cannot be reached{behind}",
                    "is the address in the kubeconfig right, and the network (VPN, port-forward) up?"
                    if transient
                    else "the kubeconfig must name the authority that signed the server's certificate",
                )
            case 401:
                return ScepsyError(
                    f"{self.place} does not accept the credentials (401){behind}",
                    "log in again, or name another context of the kubeconfig with --context",
                )
            case 403:
                return ScepsyError(
                    f"{self.place} does not allow to {wish} (403){behind}",
                    f"ask for the permission to {wish}; {ROLE} has all that are needed",
                )
            case 404:
                return ScepsyError(
                    f"{self.place} does not know how to {wish} (404){behind}",
                    "dynamic resource allocation (resource.k8s.io/v1) needs Kubernetes 1.34 or later"
                    if "resource.k8s.io" in wish
                    else "",
                )
        if transient:
            what = f"keeps failing with {status}" if status >= 300 else "sends answers that are no JSON objects"
            return Unreachable(f"{self.place} {what}, asked to {wish}{behind}", "try again later")
        return ScepsyError(f"{self.place} does not {wish} ({status}){behind}")
