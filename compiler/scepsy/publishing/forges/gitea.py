"""Gitea and Forgejo ("List a repo's pull requests", "Create a pull request"): GitHub's objects, at other addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scepsy.publishing.forges.github import GitHub


class Gitea(GitHub):
    """Codeberg, and any other Gitea or Forgejo."""

    name = "gitea"
    labels = ("gitea", "forgejo")
    home = "codeberg.org"
    ssh_over_https: ClassVar[Mapping[str, str]] = {}
    token = "GITEA_TOKEN"  # noqa: S105 - the name of a variable
    runner_tokens = ("GITEA_TOKEN", "GITHUB_TOKEN")
    api_version = "v1"
    newest_first: ClassVar[Mapping[str, str]] = {"sort": "recentupdate"}
    page_size: ClassVar[Mapping[str, str]] = {"limit": "50"}

    def is_runner_api(self, api: str) -> bool:
        """Return whether it is Gitea's, in GitHub's variables."""
        return api.endswith("/api/v1")

    def api_of(self, scheme: str, host: str) -> str:
        """Return the address of the API of a host."""
        return f"{scheme}://{host}/api/{self.api_version}"
