"""GitHub (REST "List pull requests", "Create a pull request")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from scepsy.publishing.forges.forge_api import ForgeApi, part_of


class GitHub(ForgeApi):
    """github.com and GitHub Enterprise Server."""

    name = "github"
    labels: ClassVar[tuple[str, ...]] = ("github",)
    home = "github.com"
    ssh_over_https: ClassVar[Mapping[str, str]] = {"ssh.github.com": "github.com"}
    token = "GITHUB_TOKEN"  # noqa: S105 - the name of a variable
    runner = ("GITHUB_SERVER_URL", "GITHUB_API_URL")
    runner_tokens: ClassVar[tuple[str, ...]] = ("GITHUB_TOKEN",)
    api_version = "v3"
    newest_first: ClassVar[Mapping[str, str]] = {"sort": "updated", "direction": "desc"}
    page_size: ClassVar[Mapping[str, str]] = {"per_page": "100"}

    def is_runner_api(self, api: str) -> bool:
        """Return whether it is GitHub's: runners of Gitea and Forgejo use the same variables."""
        return not api.endswith("/api/v1")

    def api_of(self, scheme: str, host: str) -> str:
        """Return the address of the API; github.com has a host for it."""
        return "https://api.github.com" if host == self.home else super().api_of(scheme, host)

    def pull_requests_path(self, repository: str) -> str:
        """Return the path of a repository's pull requests."""
        return f"/repos/{quote(repository)}/pulls"

    def new_pull_request(self, branch: str, into: str, title: str, body: str) -> dict[str, str]:
        """Return the JSON that opens a pull request."""
        return {"head": branch, "base": into, "title": title, "body": body}

    def source_branch(self, item: Mapping[str, Any]) -> str | None:
        """Return the branch of a pull request; None if it is in a fork."""
        head, base = part_of(item, "head"), part_of(item, "base")
        if part_of(head, "repo").get("id") != part_of(base, "repo").get("id"):
            return None
        # If the branch is deleted, only the label of Gitea still has its name; GitHub's label begins with the owner.
        return str(head.get("label") or head.get("ref") or "").rpartition(":")[2] or None
