"""GitLab ("List project merge requests", "Create MR")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from scepsy.publishing.forges.forge_api import ForgeApi


class GitLab(ForgeApi):
    """gitlab.com, and any other GitLab."""

    name = "gitlab"
    labels = ("gitlab",)
    home = "gitlab.com"
    ssh_over_https: ClassVar[Mapping[str, str]] = {"altssh.gitlab.com": "gitlab.com"}
    token = "GITLAB_TOKEN"  # noqa: S105 - the name of a variable
    runner = ("CI_SERVER_URL", "CI_API_V4_URL")
    runner_tokens = ("GITLAB_TOKEN",)
    api_version = "v4"
    open_state = "opened"
    newest_first: ClassVar[Mapping[str, str]] = {"order_by": "updated_at", "sort": "desc"}
    page_size: ClassVar[Mapping[str, str]] = {"per_page": "100"}
    url_key = "web_url"

    def authorization(self, token: str) -> tuple[str, str]:
        """Return the header that holds the token: name and value."""
        return "PRIVATE-TOKEN", token

    def pull_requests_path(self, repository: str) -> str:
        """Return the path of a project's merge requests."""
        return f"/projects/{quote(repository, safe='')}/merge_requests"

    def new_pull_request(self, branch: str, into: str, title: str, body: str) -> dict[str, str]:
        """Return the JSON that opens a merge request."""
        fields = {"source_branch": branch, "target_branch": into, "title": title, "description": body}
        return fields | {"remove_source_branch": "true"}

    def source_branch(self, item: Mapping[str, Any]) -> str | None:
        """Return the branch of a merge request; None if it is in a fork."""
        if item.get("source_project_id") != item.get("target_project_id"):
            return None
        return str(item.get("source_branch") or "") or None
