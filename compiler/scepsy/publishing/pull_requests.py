"""Pull requests: listed and opened through the API of the forge that hosts the remote.

GitHub (REST "List pull requests", "Create a pull request"), GitLab ("List project merge requests", "Create MR") and
Gitea or Forgejo ("List a repo's pull requests", "Create a pull request"). Which one it is follows from the host's name,
or from what their CI sets. The token goes to that host's API alone, never over plain HTTP to another machine, and is in
no message; redirects are not followed. A token that was not set for us (`GITHUB_TOKEN` and the like) goes only where it
is known to belong.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from scepsy.errors import ScepsyError
from scepsy.publishing.remote import Remote, blotted
from scepsy.repository.commit_message import one_line, public_url

Kind = Literal["github", "gitlab", "gitea"]
KIND, TOKEN, TOKEN_FILE = "SCEPSY_FORGE", "SCEPSY_FORGE_TOKEN", "SCEPSY_FORGE_TOKEN_FILE"
"""Environment variables: which forge it is where its name does not tell, and the token or a file with it."""
_TOKENS: Mapping[Kind, str] = {"github": "GITHUB_TOKEN", "gitlab": "GITLAB_TOKEN", "gitea": "GITEA_TOKEN"}
_LOCAL = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[?::1\]?|.+\.svc(\.cluster\.local)?")
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
        kind: which one.
        api: address of its API.
        repository: the repository's path there, `owner/name`.
        token: a token that may open pull requests.
    """

    kind: Kind
    api: str
    repository: str
    token: str = field(repr=False)

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
        if self.kind == "gitlab":
            fields = {"source_branch": branch, "target_branch": into, "title": title, "description": text}
            fields |= {"remove_source_branch": "true"}
        else:
            fields = {"head": branch, "base": into, "title": title, "body": text}
        answer = self._ask("POST", self._path, "opens no pull request", fields)
        return self._url(answer if isinstance(answer, dict) else {})

    def pending(self) -> Iterator[Request]:
        """Yield the pull requests that are open.

        Raises:
            ForgeError: the forge refuses, or cannot be reached.
        """
        asked = {"state": "opened" if self.kind == "gitlab" else "open"}
        for item in self._listed(asked):
            yield from self._request(item)

    def refused(self, since: float) -> Iterator[Request]:
        """Yield the pull requests that were closed without being merged.

        Args:
            since: when, Unix seconds.

        Raises:
            ForgeError: the forge refuses, or cannot be reached.
        """
        newest = {
            "github": {"sort": "updated", "direction": "desc"},
            "gitlab": {"order_by": "updated_at", "sort": "desc"},
            "gitea": {"sort": "recentupdate"},
        }[self.kind]
        for item in self._listed({"state": "closed", **newest}):
            if _moment(item.get("updated_at")) < since:
                return
            if not item.get("merged_at") and _moment(item.get("closed_at")) >= since:
                yield from self._request(item)

    @property
    def _path(self) -> str:
        if self.kind == "gitlab":
            return f"/projects/{quote(self.repository, safe='')}/merge_requests"
        return f"/repos/{quote(self.repository)}/pulls"

    def _listed(self, asked: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        what = "lists no pull requests"
        size = {"limit": "50"} if self.kind == "gitea" else {"per_page": "100"}
        for page in range(1, _PAGES + 1):
            query = urlencode({**asked, **size, "page": str(page)})
            items = self._ask("GET", f"{self._path}?{query}", what)
            if not isinstance(items, list):
                raise ForgeError(f"{self._place} {what}: it answers with something else", "is that its API?")
            if not items:
                return
            yield from (item for item in items if isinstance(item, dict))
        raise ForgeError(f"{self._place} has more pull requests than can be looked through", "close some")

    def _request(self, item: Mapping[str, Any]) -> Iterator[Request]:
        """Yield what an entry of a list is, unless its branch is one of another repository: a fork's says nothing."""
        if self.kind == "gitlab":
            own, branch = item.get("source_project_id") == item.get("target_project_id"), item.get("source_branch")
        else:
            head, base = _part(item, "head"), _part(item, "base")
            own = _part(head, "repo").get("id") == _part(base, "repo").get("id")
            # Where the branch is gone, only the label of Gitea still names it; GitHub's begins with the owner.
            branch = str(head.get("label") or head.get("ref") or "").rpartition(":")[2]
        if own and branch:
            yield Request(str(branch), self._url(item))

    def _url(self, item: Mapping[str, Any]) -> str:
        url = item.get("web_url" if self.kind == "gitlab" else "html_url")
        return one_line(blotted(str(url or ""), (self.token,)))

    @property
    def _place(self) -> str:
        return f"{self.kind} at {self.api}"

    def _ask(self, method: str, path: str, failure: str, fields: Mapping[str, str] | None = None) -> Any:
        """Return what the API answers; `failure` says what it did not do if it refuses."""
        import urllib3  # noqa: PLC0415 - slow to import

        key = "PRIVATE-TOKEN" if self.kind == "gitlab" else "Authorization"
        value = self.token if self.kind == "gitlab" else f"token {self.token}"
        headers = {key: value, "Accept": "application/json", "Content-Type": "application/json", "User-Agent": "scepsy"}
        try:
            with urllib3.PoolManager(cert_reqs="CERT_REQUIRED") as pool:
                response = pool.request(
                    method,
                    self.api + path,
                    body=None if fields is None else json.dumps(fields).encode(),
                    headers=headers,
                    timeout=_TIMEOUT,
                    retries=False,
                    redirect=False,
                )
        except urllib3.exceptions.HTTPError as error:
            raise ForgeError(
                f"{self._place} cannot be reached: {type(error).__name__}",
                "is the network up, and the address right?",
            ) from None
        try:
            answer = json.loads(response.data)
        except (ValueError, RecursionError):
            answer = {}
        if 200 <= response.status < 300:
            return answer
        said = json.dumps(answer)[:300] if answer else ""
        told = f": {one_line(blotted(said, (self.token,)))}" if said else ""
        hint = {
            401: f"is the token in {TOKEN} right, and not expired?",
            403: "the token needs the permission to write pull requests",
            404: "the token must be allowed to see the repository",
        }.get(response.status, "")
        raise ForgeError(f"{self._place} {failure} ({response.status}){told}", hint)


def _part(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = item.get(key)
    return part if isinstance(part, dict) else {}


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
        ForgeError: it is none that is known, or there is no token.
    """
    parts = urlsplit(public_url(remote.url))
    host, path = parts.hostname or "", parts.path.strip("/").removesuffix(".git")
    if not host or "/" not in path or not _has_port(parts):
        raise ForgeError(
            f"{remote.name} is not a repository of a forge, so no pull request can be opened there",
            "push to a branch instead: --recompile --push",
        )
    parts = parts._replace(netloc=_OVER_443.get(host, parts.netloc))
    kind, api, ambient = _which(parts, environment)
    if urlsplit(api).scheme == "http" and not _LOCAL.fullmatch(urlsplit(api).hostname or ""):
        raise ForgeError(f"the token would go to {host} unencrypted", "use an https:// address for the remote")
    return Forge(kind, api, path, _token(f"{kind} at {parts.hostname}", ambient, environment))


_OVER_443: Mapping[str, str] = {"ssh.github.com": "github.com", "altssh.gitlab.com": "gitlab.com"}
"""Hosts where forges take ssh on the port of https, and what they are called else."""


def _which(parts: SplitResult, environment: Mapping[str, str]) -> tuple[Kind, str, tuple[str, ...]]:
    """Return which forge a host is, the address of its API, and the variables of others whose token belongs there."""
    host = parts.hostname or ""
    for server, address, kind in _RUNNERS:
        if _place(_split(environment.get(server, ""))) == _place(parts) and environment.get(address):
            api = environment[address].rstrip("/")
            if kind == "github" and api.endswith("/api/v1"):  # Gitea's and Forgejo's runners take GitHub's names
                return "gitea", api, (_TOKENS["gitea"], _TOKENS["github"])
            return kind, api, (_TOKENS[kind],)
    kind = _kind(host, environment.get(KIND, ""))
    ambient = (_TOKENS[kind],) if host == _HOMES[kind] else ()
    if kind == "github" and host == "github.com":
        return kind, "https://api.github.com", ambient
    # An SSH address says nothing of the port of the API.
    scheme = "http" if parts.scheme == "http" else "https"
    name = f"[{host}]" if ":" in host else host
    place = f"{name}:{parts.port}" if parts.port and parts.scheme.startswith("http") else name
    return kind, f"{scheme}://{place}/api/{_VERSIONS[kind]}", ambient


_VERSIONS: Mapping[Kind, str] = {"github": "v3", "gitlab": "v4", "gitea": "v1"}
_HOMES: Mapping[Kind, str] = {"github": "github.com", "gitlab": "gitlab.com", "gitea": "codeberg.org"}
_RUNNERS: tuple[tuple[str, str, Kind], ...] = (
    ("GITHUB_SERVER_URL", "GITHUB_API_URL", "github"),
    ("CI_SERVER_URL", "CI_API_V4_URL", "gitlab"),
)
"""Variables in which the CI of a forge gives its address, and that of its API."""


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


def _kind(host: str, given: str) -> Kind:
    labels = host.split(".")
    for kind in _TOKENS:
        if given == kind or (not given and kind in labels):
            return kind
    if not given and ("forgejo" in labels or host == _HOMES["gitea"]):
        return "gitea"
    what = f"{KIND} is {given[:40]!r}, which is no forge" if given else f"which forge {host} is cannot be told"
    raise ForgeError(what, f"set {KIND} to github, gitlab or gitea (for Forgejo too)")


def _token(forge: str, ambient: tuple[str, ...], environment: Mapping[str, str]) -> str:
    token = environment.get(TOKEN)
    file = environment.get(TOKEN_FILE)
    if not token and file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ForgeError(f"the file that {TOKEN_FILE} names cannot be read: {reason}") from None
    token = token or next((own for name in ambient if (own := environment.get(name))), None)
    if not token:
        raise ForgeError(
            f"there is no token for {forge}", f"put one into {TOKEN}, or its file's path into {TOKEN_FILE}"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ForgeError("the token of the forge is none: it has blanks, or other such characters")
    return token
