"""The fixtures of tests/push."""

from __future__ import annotations

from tests.push.conftest import other, project, remote, server

__all__ = ["other", "project", "remote", "server"]
