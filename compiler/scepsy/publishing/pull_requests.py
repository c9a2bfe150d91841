"""Pull requests: listed and opened through the API of the forge that hosts the remote (:mod:`.forges`).

Which forge it is follows from the host's name, or from what its CI sets. The token goes to that host's API alone, never
over plain HTTP to another machine, and is in no message; redirects are not followed. A token that is not meant for
Scepsy (`GITHUB_TOKEN` and the like) goes only to the host that it belongs to.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from scepsy.errors import ScepsyError
from scepsy.publishing.forges.forge_api import ForgeApi
from scepsy.publishing.forges.registry import FORGES
from scepsy.publishing.remote import Remote, redacted
from scepsy.remote_api.credentials import check_encrypted, read_token
from scepsy.remote_api.network_errors import describe, is_tls
from scepsy.remote_api.retry import ATTEMPTS, CLOCK, Backoff, Clock, is_transient, retry_after
from scepsy.repository.commit_message import one_line, public_url

KIND, TOKEN, TOKEN_FILE = "SCEPSY_FORGE", "SCEPSY_FORGE_TOKEN", "SCEPSY_FORGE_TOKEN_FILE"
"""Environment variables: the forge, if the host's name does not say it, and the token or the path of its file."""
_TIMEOUT = 30.0
_LONGEST_TITLE, _LONGEST_BODY = 200, 50_000
_PAGES = 100  # of so many requests each: 100 at GitHub and GitLab, 50 at Gitea


class ForgeError(ScepsyError):
    """A pull request cannot be opened."""


@dataclass(frozen=True)
class Request:
    """A pull request.

    Attributes:
        branch: the branch of the same repository that it is for.
        url: the address for people.
    """

    branch: str
    url: str


@dataclass(frozen=True)
class Forge:
    """The forge that hosts a repository.

    Attributes:
        kind: its name in the registry.
        api: address of its API.
        repository: the repository's path there, `owner/name`.
        token: a token that may open pull requests.
        clock: the clock for retries.
    """

    kind: str
    api: str
    repository: str
    token: str = field(repr=False)
    clock: Clock = field(default=CLOCK, repr=False, compare=False)

    def open(self, branch: str, into: str, title: str, body: str) -> str:
        """Open a pull request.

        Args:
            branch: has the commits.
            into: the branch that they are for.
            title: one line.
            body: Markdown.

        Returns:
            The address for people.

        Raises:
            ForgeError: the forge refuses, or cannot be reached.
        """
        text, title = body[:_LONGEST_BODY], one_line(title)[:_LONGEST_TITLE]
        fields = self._kind.new_pull_request(branch, into, title, text)
        answer = self._ask("POST", self._path, "did not open a pull request", fields)
        return self._url(answer if isinstance(answer, dict) else {})

    def pending(self) -> Iterator[Request]:
        """Yield the pull requests that are open.

        Raises:
            ForgeError: the forge refuses, or cannot be reached.
        """
        for item in self._listed({"state": self._kind.open_state}):
            yield from self._request(item)

    def refused(self, since: float) -> Iterator[Request]:
        """Yield the pull requests that were closed without being merged.

        Args:
            since: when, Unix seconds.

        Raises:
            ForgeError: the forge refuses, or cannot be reached.
        """
        for item in self._listed({"state": "closed", **self._kind.newest_first}):
            if _moment(item.get("updated_at")) < since:
                return
            if not item.get("merged_at") and _moment(item.get("closed_at")) >= since:
                yield from self._request(item)

    @property
    def _kind(self) -> ForgeApi:
        return FORGES[self.kind]

    @property
    def _path(self) -> str:
        return self._kind.pull_requests_path(self.repository)

    def _listed(self, asked: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        what = "did not list pull requests"
        for page in range(1, _PAGES + 1):
            query = urlencode({**asked, **self._kind.page_size, "page": str(page)})
            items = self._ask("GET", f"{self._path}?{query}", what)
            if not isinstance(items, list):
                raise ForgeError(f"{self._place} {what}: unexpected answer", "check that this address is its API")
            if not items:
                return
            yield from (item for item in items if isinstance(item, dict))
        raise ForgeError(f"{self._place} has too many pull requests to search", "close some")

    def _request(self, item: Mapping[str, Any]) -> Iterator[Request]:
        """Yield what an entry of a list is, unless its branch is in another repository: a fork's does not count."""
        branch = self._kind.source_branch(item)
        if branch:
            yield Request(branch, self._url(item))

    def _url(self, item: Mapping[str, Any]) -> str:
        url = item.get(self._kind.url_key)
        return one_line(redacted(str(url or ""), (self.token,)))

    @property
    def _place(self) -> str:
        return f"{self.kind} at {self.api}"

    def _ask(self, method: str, path: str, failure: str, fields: Mapping[str, str] | None = None) -> Any:
        """Return what the API answers; `failure` says what it did not do if it refuses."""
        import urllib3  # noqa: PLC0415 - slow to import

        key, value = self._kind.authorization(self.token)
        headers = {key: value, "Accept": "application/json", "Content-Type": "application/json", "User-Agent": "scepsy"}
        content = None if fields is None else json.dumps(fields).encode()
        backoff = Backoff(self.clock, ATTEMPTS)
        idempotent = method == "GET"  # one that opens a pull request might open another one
        with urllib3.PoolManager(cert_reqs="CERT_REQUIRED", timeout=_TIMEOUT, retries=False) as pool:
            while True:
                try:
                    response = pool.request(method, self.api + path, body=content, headers=headers, redirect=False)
                except urllib3.exceptions.HTTPError as error:
                    delay = backoff.delay() if idempotent and not is_tls(error) else None
                    if delay is None:
                        raise ForgeError(
                            f"cannot connect to {self._place}: {describe(error)}",
                            "check the network, and the address of the remote",
                        ) from None
                else:
                    again = is_transient(response.status, idempotent)
                    delay = backoff.delay(retry_after(response.headers)) if again else None
                    if delay is None:
                        break
                self.clock.sleep(delay)
        try:
            answer = json.loads(response.data)
        except (ValueError, RecursionError):
            answer = {}
        if 200 <= response.status < 300:
            return answer
        output = json.dumps(answer)[:300] if answer else ""
        detail = f": {one_line(redacted(output, (self.token,)))}" if output else ""
        hint = {
            401: f"is the token in {TOKEN} right, and not expired?",
            403: "the token needs the permission to write pull requests",
            404: "the token must be allowed to see the repository",
        }.get(response.status, "")
        raise ForgeError(f"{self._place} {failure} ({response.status}){detail}", hint)


def _moment(text: object) -> float:
    """Return a time as Unix seconds; 0 where there is none."""
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def forge_of(remote: Remote, environment: Mapping[str, str] = os.environ) -> Forge:
    """Return the forge of a remote.

    Args:
        remote: where the branch is pushed.
        environment: has the token, and says which forge it is where the host's name does not.

    Raises:
        ForgeError: it is not a known forge, or there is no token.
        CredentialError: the token cannot be read, is invalid, or would be sent over plain HTTP.
    """
    parts = urlsplit(public_url(remote.url))
    host, path = parts.hostname or "", parts.path.strip("/").removesuffix(".git")
    if not host or "/" not in path or not _has_port(parts):
        raise ForgeError(
            f"{remote.name} is not a repository of a forge, so no pull request can be opened there",
            "push to a branch instead: --recompile --push",
        )
    parts = parts._replace(netloc=_behind_ssh_over_https(host) or parts.netloc)
    kind, api, ambient = _which(parts, environment)
    check_encrypted(urlsplit(api).scheme, urlsplit(api).hostname or "")
    return Forge(kind, api, path, _token(f"{kind} at {parts.hostname}", ambient, environment))


def _behind_ssh_over_https(host: str) -> str | None:
    return next((kind.ssh_over_https[host] for kind in FORGES.values() if host in kind.ssh_over_https), None)


def _which(parts: SplitResult, environment: Mapping[str, str]) -> tuple[str, str, tuple[str, ...]]:
    """Return which forge a host is, the address of its API, and the variables of others whose token belongs there."""
    host = parts.hostname or ""
    for kind in FORGES.values():
        server, address = kind.runner
        api = environment.get(address, "").rstrip("/")
        if api and kind.is_runner_api(api) and _place(_split(environment.get(server, ""))) == _place(parts):
            return kind.name, api, kind.runner_tokens
    kind = _kind(host, environment.get(KIND, ""))
    ambient = (kind.token,) if host == kind.home else ()
    # An SSH address says nothing about the port of the API.
    scheme = "http" if parts.scheme == "http" else "https"
    name = f"[{host}]" if ":" in host else host
    place = f"{name}:{parts.port}" if parts.port and parts.scheme.startswith("http") else name
    return kind.name, kind.api_of(scheme, place), ambient


def _has_port(parts: SplitResult) -> bool:
    """Tell whether the port of an address is one, or not given."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        return urlsplit("")
    return parts if _has_port(parts) else urlsplit("")


def _place(parts: SplitResult) -> tuple[str | None, int | None]:
    return parts.hostname, parts.port if parts.scheme.startswith("http") else None


def _kind(host: str, given: str) -> ForgeApi:
    if given in FORGES:
        return FORGES[given]
    for kind in FORGES.values():
        if not given and (host == kind.home or not {*kind.labels}.isdisjoint(host.split("."))):
            return kind
    what = f"unknown forge in {KIND}: {given[:40]!r}" if given else f"cannot determine which forge {host} is"
    raise ForgeError(what, f"set {KIND} to {', '.join(FORGES)} (gitea for Forgejo too)")


def _token(forge: str, ambient: tuple[str, ...], environment: Mapping[str, str]) -> str:
    token = read_token(environment, TOKEN, TOKEN_FILE)
    for variable in ambient:
        token = token or read_token(environment, variable)
    if token is None:
        raise ForgeError(
            f"there is no token for {forge}", f"set {TOKEN} to the token, or {TOKEN_FILE} to the path of a file with it"
        )
    return token
