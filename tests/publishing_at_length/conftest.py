"""The fixtures of tests/publishing."""

from __future__ import annotations

from tests.publishing.conftest import other, project, remote, server

__all__ = ["other", "project", "remote", "server"]
