"""The forges, by name."""

from __future__ import annotations

from collections.abc import Mapping

from scepsy.publishing.forges.forge_api import ForgeApi
from scepsy.publishing.forges.gitea import Gitea
from scepsy.publishing.forges.github import GitHub
from scepsy.publishing.forges.gitlab import GitLab

FORGES: Mapping[str, ForgeApi] = {forge.name: forge for forge in (GitHub(), GitLab(), Gitea())}
