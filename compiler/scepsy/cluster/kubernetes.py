"""The Kubernetes API, read only: objects as plain values, failures as errors that name the missing permission.

The `kubernetes` client knows every way to log in and to check the server's certificate; with that, requests are plain
HTTP, because how the client parses responses differs between its versions. Transient failures are retried. No message
contains a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from scepsy.cluster.connection import Unreachable, configuration, is_object, page_of, place, server_message
from scepsy.errors import ScepsyError
from scepsy.remote_api.network_errors import describe, is_tls
from scepsy.remote_api.retry import CLOCK, DEADLINE, UNREACHED_DEADLINE, Backoff, Clock, is_transient, retry_after

if TYPE_CHECKING:
    import urllib3

ROLE = "gitops/observe"
"""The folder with the required permissions."""
_PAGE = 500
_LIST_ATTEMPTS = 5  # lists that may expire while their pages are read
_CONNECT_TIMEOUT, _READ_TIMEOUT = 5.0, 30.0

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
    """Split chunks into lines."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


class Reader(Protocol):
    """What discovery needs of a cluster."""

    place: str
    """The server, for messages."""

    def version(self) -> Object:
        """Return the server's version."""

    def objects(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Return all objects of a kind, by name; of one namespace, or of all."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none of that name."""


class Kubernetes:
    """A cluster, reached as a kubeconfig says.

    Attributes:
        place: the server, for messages.
        deadline: seconds for which a failing server is tried.

    Args:
        context: a context of the kubeconfig; its current one if None, or the pod's service account without a file.
        clock: the clock for retries.

    Raises:
        ScepsyError: there is no such context, or no configuration.
    """

    def __init__(self, context: str | None = None, clock: Clock = CLOCK) -> None:
        from kubernetes import client  # noqa: PLC0415 - slow to import

        self._settings = configuration(context)
        self._settings.retries = False  # retried here
        self._pool: urllib3.PoolManager = client.ApiClient(self._settings).rest_client.pool_manager
        self._server = str(self._settings.host).rstrip("/")
        self._clock = clock
        self._reached = False
        self.place = place(self._server)
        self.deadline = DEADLINE

    def version(self) -> Object:
        """Return the server's version: `gitVersion`, `major`, `minor`.

        Raises:
            ScepsyError: the server refuses, cannot be reached, or is not a Kubernetes API server.
        """
        wish = "read its version"
        answer: Object = self._ask(wish, "/version", {}, frozenset())
        if not isinstance(answer.get("gitVersion"), str):
            raise self._not_kubernetes(wish)
        return answer

    def objects(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Return all objects of a kind, by name, from all pages.

        Args:
            kind: what.
            namespace: only those in it.

        Raises:
            ScepsyError: the server refuses, does not know the kind, cannot be reached, or is not Kubernetes.
        """
        wish = f"list {kind}" + (f" in namespace {namespace}" if namespace else "")
        for _ in range(_LIST_ATTEMPTS):
            objects: dict[str, Object] = {}
            following = ""
            while True:
                query = {"limit": str(_PAGE)} | ({"continue": following} if following else {})
                answer = self._ask(wish, kind.path(namespace), query, frozenset((410,)) if following else frozenset())
                if answer is None:
                    break  # the list changed while its pages were read: from the beginning
                page = page_of(answer)
                if page is None:
                    raise self._not_kubernetes(wish)
                items, following = page
                objects |= {f"{i['metadata'].get('namespace', '')}/{i['metadata']['name']}": i for i in items}
                if not following:
                    return [item for _, item in sorted(objects.items())]
        raise Unreachable(f"{self.place} cannot {wish}: the list expires before all pages are read", "try again")

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none of that name.

        Raises:
            ScepsyError: the server refuses, cannot be reached, or is not a Kubernetes API server.
        """
        wish = f"get {kind} in namespace {namespace}"
        answer: Object | None = self._ask(wish, kind.path(namespace, name), {}, frozenset((404,)))
        if answer is not None and not is_object(answer):
            raise self._not_kubernetes(wish)
        return answer

    def watch(self, kind: Kind, seconds: int = 300) -> Iterator[Object]:
        """Yield the changes of a kind of objects, in all namespaces, beginning with the existing objects.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes: a watch without a
        resource version starts with an ADDED event for every object.

        Args:
            kind: what.
            seconds: after so many the server ends it; the caller starts another one.

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
                    raise self._error(
                        wish, response.status, server_message(response.read()), is_transient(response.status)
                    )
                for line in _lines(response.stream(65_536)):
                    event = json.loads(line)
                    if not isinstance(event, dict) or event.get("type") == "ERROR":
                        raise Unreachable(f"watch on {kind} closed by {self.place}; reconnecting")
                    yield event
        except urllib3.exceptions.HTTPError as error:
            raise self._error(wish, 0, describe(error), transient=not is_tls(error)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise Unreachable(f"watch on {kind} closed by {self.place}; reconnecting") from error

    def _ask(self, wish: str, path: str, query: dict[str, str], expected: frozenset[int]) -> Any:
        """Send a request until it succeeds, fails permanently, or the deadline passes; None for an expected status."""
        backoff = Backoff(self._clock)
        while True:
            status, answer, wanted = self._once(path, query)
            if status:
                self._reached = True
            if status in expected:
                return None
            if 200 <= status < 300 and isinstance(answer, dict):
                return answer
            transient = wanted >= 0 and (is_transient(status) or status < 300)
            deadline = self.deadline if self._reached else min(UNREACHED_DEADLINE, self.deadline)
            delay = backoff.delay(wanted, deadline)
            if not transient or delay is None:
                raise self._error(wish, status, answer if isinstance(answer, str) else "", transient)
            self._clock.sleep(delay)

    def _once(self, path: str, query: dict[str, str]) -> tuple[int, Any, float]:
        """Send a request.

        Returns:
            The status, 0 where there was no response; the object, else the message of the server or the network;
            the seconds of Retry-After, negative where another attempt cannot help.
        """
        import urllib3  # noqa: PLC0415 - with the client

        url = f"{self._server}{path}" + (f"?{urlencode(query)}" if query else "")
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT)
        try:
            headers = {"Accept": "application/json", **self._credentials()}
            # A redirect would carry the token elsewhere.
            response = self._pool.request("GET", url, headers=headers, timeout=timeout, retries=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            return 0, describe(error), -1.0 if is_tls(error) else 0.0
        except OSError as error:
            return 0, describe(error), 0.0
        if 200 <= response.status < 300:
            try:
                return response.status, json.loads(response.data), 0.0
            except (ValueError, RecursionError):
                return response.status, "", 0.0
        return response.status, server_message(response.data), retry_after(response.headers)

    def _credentials(self) -> dict[str, str]:
        """Return headers, for every request again: a token that a program fetched is renewed here."""
        try:
            return {entry["key"]: entry["value"] for entry in self._settings.auth_settings().values()}
        except Exception as error:  # the kubeconfig's program may raise anything, and quote the token
            raise ScepsyError(f"cannot renew the credentials for {self.place}", "log in again") from error

    def _not_kubernetes(self, wish: str) -> ScepsyError:
        """Return the error for a server of another kind: read as Kubernetes, it would be an empty cluster."""
        return Unreachable(
            f'{self.place} is not a Kubernetes API server (unexpected response to "{wish}")',
            "check the address in the kubeconfig: a proxy or another service may respond in its place",
        )

    def _error(self, wish: str, status: int, message: str, transient: bool) -> ScepsyError:
        reason = f": {message}" if message else ""
        match status:
            case 0:
                return Unreachable(
                    f"cannot connect to {self.place}{reason}",
                    "check the address in the kubeconfig, and the network (VPN, port-forward)"
                    if transient
                    else "set certificate-authority in the kubeconfig to the CA that signed the server's certificate",
                )
            case 401:
                return ScepsyError(
                    f"unauthorized: {self.place} rejects the credentials (401){reason}",
                    "log in again, or name another context of the kubeconfig with --context",
                )
            case 403:
                return ScepsyError(
                    f"forbidden: the credentials cannot {wish} on {self.place} (403){reason}",
                    f"ask for the permission to {wish}; {ROLE} grants all required permissions",
                )
            case 404:
                return ScepsyError(
                    f"not found: {self.place} cannot {wish} (404){reason}",
                    "dynamic resource allocation (resource.k8s.io/v1) needs Kubernetes 1.34 or later"
                    if "resource.k8s.io" in wish
                    else "",
                )
        if transient:
            what = f"keeps failing with {status}" if status >= 300 else "sends responses that are not JSON objects"
            return Unreachable(f'{self.place} {what} (request: "{wish}"){reason}', "try again later")
        return ScepsyError(f"{self.place} cannot {wish} ({status}){reason}")
