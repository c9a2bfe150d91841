"""What is particular to a forge: its hosts, its token, and how its API lists and opens pull requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar


class ForgeApi(ABC):
    """A kind of forge.

    Attributes:
        name: as `SCEPSY_FORGE` has it.
        labels: labels of a host's name that identify the forge.
        home: the public host whose token is the one in `token`.
        ssh_over_https: hosts that take ssh on port 443, and the host that they stand for.
        token: the environment variable that its own tools and CI read a token from.
        runner: the environment variables in which its CI gives its address, and that of its API.
        runner_tokens: the environment variables in which its CI gives a token.
        api_version: the last part of the API's address.
        open_state: the state of an open pull request, as a list is filtered by it.
        newest_first: parameters that sort a list by the last update, the newest first.
        page_size: parameters for the longest page of a list.
        url_key: where an answer has the address for people.
    """

    name: ClassVar[str]
    labels: ClassVar[tuple[str, ...]]
    home: ClassVar[str]
    ssh_over_https: ClassVar[Mapping[str, str]] = {}
    token: ClassVar[str]
    runner: ClassVar[tuple[str, str]]
    runner_tokens: ClassVar[tuple[str, ...]]
    api_version: ClassVar[str]
    open_state: ClassVar[str] = "open"
    newest_first: ClassVar[Mapping[str, str]]
    page_size: ClassVar[Mapping[str, str]]
    url_key: ClassVar[str] = "html_url"

    def is_runner_api(self, api: str) -> bool:
        """Return whether the address of an API that a runner gives is one of this forge."""
        return True

    def api_of(self, scheme: str, host: str) -> str:
        """Return the address of the API of a host, which may have a port."""
        return f"{scheme}://{host}/api/{self.api_version}"

    def authorization(self, token: str) -> tuple[str, str]:
        """Return the header that holds the token: name and value."""
        return "Authorization", f"token {token}"

    @abstractmethod
    def pull_requests_path(self, repository: str) -> str:
        """Return the path of a repository's pull requests below the API's address."""

    @abstractmethod
    def new_pull_request(self, branch: str, into: str, title: str, body: str) -> dict[str, str]:
        """Return the JSON that opens a pull request."""

    @abstractmethod
    def source_branch(self, item: Mapping[str, Any]) -> str | None:
        """Return the branch of an entry of a list; None if it is in a fork."""


def part_of(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object inside an answer; an empty one if there is none."""
    part = item.get(key)
    return part if isinstance(part, dict) else {}
