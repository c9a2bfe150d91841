"""Pull requests: asked for through the API of the forge that hosts the remote.

GitHub (REST "Create a pull request"), GitLab ("Create MR") and Gitea or Forgejo ("Create a pull request"). Which one it
is follows from the host's name, or from what their CI sets. The token goes to that host's API alone, never over plain
HTTP to another machine, and is in no message; redirects are not followed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, quote, urlsplit

from scepsy.errors import ScepsyError
from scepsy.repository.message import one_line, public_url
from scepsy.repository.remote import Remote, blotted

Kind = Literal["github", "gitlab", "gitea"]
KIND, TOKEN, TOKEN_FILE = "SCEPSY_FORGE", "SCEPSY_FORGE_TOKEN", "SCEPSY_FORGE_TOKEN_FILE"
"""Environment variables: which forge it is where its name does not tell, and the token or a file with it."""
_TOKENS: Mapping[Kind, str] = {"github": "GITHUB_TOKEN", "gitlab": "GITLAB_TOKEN", "gitea": "GITEA_TOKEN"}
_LOCAL = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[?::1\]?|.+\.svc(\.cluster\.local)?")
_TIMEOUT = 30.0
_LONGEST_TITLE, _LONGEST_BODY = 200, 50_000


class ForgeError(ScepsyError):
    """A pull request cannot be opened."""


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
            path = f"/projects/{quote(self.repository, safe='')}/merge_requests"
            fields = {"source_branch": branch, "target_branch": into, "title": title, "description": text}
            fields |= {"remove_source_branch": "true"}
        else:
            path = f"/repos/{quote(self.repository)}/pulls"
            fields = {"head": branch, "base": into, "title": title, "body": text}
        answer = self._post(path, fields)
        url = answer.get("web_url" if self.kind == "gitlab" else "html_url")
        return one_line(blotted(str(url or ""), (self.token,)))

    def _post(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        import urllib3  # noqa: PLC0415 - slow to import

        key = "PRIVATE-TOKEN" if self.kind == "gitlab" else "Authorization"
        value = self.token if self.kind == "gitlab" else f"token {self.token}"
        headers = {key: value, "Accept": "application/json", "Content-Type": "application/json", "User-Agent": "scepsy"}
        place = f"{self.kind} at {self.api}"
        try:
            with urllib3.PoolManager(cert_reqs="CERT_REQUIRED") as pool:
                response = pool.request(
                    "POST",
                    self.api + path,
                    body=json.dumps(fields).encode(),
                    headers=headers,
                    timeout=_TIMEOUT,
                    retries=False,
                    redirect=False,
                )
        except urllib3.exceptions.HTTPError as error:
            raise ForgeError(
                f"{place} cannot be reached: {type(error).__name__}", "is the network up, and the address right?"
            ) from None
        try:
            answer = json.loads(response.data)
        except (ValueError, RecursionError):
            answer = {}
        if 200 <= response.status < 300 and isinstance(answer, dict):
            return answer
        said = json.dumps(answer)[:300] if answer else ""
        told = f": {one_line(blotted(said, (self.token,)))}" if said else ""
        hint = {
            401: f"is the token in {TOKEN} right, and not expired?",
            403: "the token needs the permission to write pull requests",
            404: "the token must be allowed to see the repository",
        }.get(response.status, "")
        raise ForgeError(f"{place} opens no pull request ({response.status}){told}", hint)


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
    if not host or "/" not in path:
        raise ForgeError(
            f"{remote.name} is not a repository of a forge, so no pull request can be opened there",
            "push to a branch instead: --recompile --push",
        )
    kind, api = _which(parts, environment)
    if urlsplit(api).scheme == "http" and not _LOCAL.fullmatch(urlsplit(api).hostname or ""):
        raise ForgeError(f"the token would go to {host} unencrypted", "use an https:// address for the remote")
    return Forge(kind, api, path, _token(kind, environment))


def _which(parts: SplitResult, environment: Mapping[str, str]) -> tuple[Kind, str]:
    """Return which forge a host is, and the address of its API."""
    host = parts.hostname or ""
    for server, address, kind in _RUNNERS:
        if _place(urlsplit(environment.get(server, ""))) == _place(parts) and environment.get(address):
            return kind, environment[address].rstrip("/")
    kind = _kind(host, environment.get(KIND, ""))
    if kind == "github" and host == "github.com":
        return kind, "https://api.github.com"
    # An SSH address says nothing of the port of the API.
    scheme = "http" if parts.scheme == "http" else "https"
    place = f"{host}:{parts.port}" if parts.port and parts.scheme.startswith("http") else host
    return kind, f"{scheme}://{place}/api/{_VERSIONS[kind]}"


_VERSIONS: Mapping[Kind, str] = {"github": "v3", "gitlab": "v4", "gitea": "v1"}
_RUNNERS: tuple[tuple[str, str, Kind], ...] = (
    ("GITHUB_SERVER_URL", "GITHUB_API_URL", "github"),
    ("CI_SERVER_URL", "CI_API_V4_URL", "gitlab"),
)
"""Variables in which the CI of a forge gives its address, and that of its API."""


def _place(parts: SplitResult) -> tuple[str | None, int | None]:
    return parts.hostname, parts.port if parts.scheme.startswith("http") else None


def _kind(host: str, given: str) -> Kind:
    for kind in _TOKENS:
        if given == kind or (not given and kind in host):
            return kind
    if not given and ("forgejo" in host or host == "codeberg.org"):
        return "gitea"
    what = f"{KIND} is {given[:40]!r}, which is no forge" if given else f"which forge {host} is cannot be told"
    raise ForgeError(what, f"set {KIND} to github, gitlab or gitea (for Forgejo too)")


def _token(kind: Kind, environment: Mapping[str, str]) -> str:
    token = environment.get(TOKEN)
    file = environment.get(TOKEN_FILE)
    if not token and file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ForgeError(f"the file that {TOKEN_FILE} names cannot be read: {reason}") from None
    token = token or environment.get(_TOKENS[kind])
    if not token:
        raise ForgeError(f"there is no token for {kind}", f"put one into {TOKEN}, or its file's path into {TOKEN_FILE}")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ForgeError("the token of the forge is none: it has blanks, or other such characters")
    return token
