"""Pull requests: asked for at the right address, in the forge's own words, and no token anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.publishing.forge_api import Api, answering, decide

from scepsy.errors import ScepsyError
from scepsy.publishing.pull_requests import Forge, ForgeError, forge_of
from scepsy.publishing.remote import Remote

TOKEN = "glpat-s3cret-of-the-platform-team"


def remote(url: str) -> Remote:
    return Remote("origin", url, "https")


@pytest.mark.parametrize(
    ("url", "environment", "kind", "api", "repository"),
    [
        ("https://github.com/acme/serving.git", {}, "github", "https://api.github.com", "acme/serving"),
        ("git@github.com:acme/serving.git", {}, "github", "https://api.github.com", "acme/serving"),
        ("https://github.acme.com/a/b", {}, "github", "https://github.acme.com/api/v3", "a/b"),
        ("https://gitlab.com/acme/ml/serving", {}, "gitlab", "https://gitlab.com/api/v4", "acme/ml/serving"),
        ("ssh://git@gitlab.acme.com:2222/a/b.git", {}, "gitlab", "https://gitlab.acme.com/api/v4", "a/b"),
        ("https://gitea.acme.com:3000/a/b.git", {}, "gitea", "https://gitea.acme.com:3000/api/v1", "a/b"),
        ("https://codeberg.org/a/b", {}, "gitea", "https://codeberg.org/api/v1", "a/b"),
        ("https://git.acme.com/a/b", {"SCEPSY_FORGE": "gitlab"}, "gitlab", "https://git.acme.com/api/v4", "a/b"),
        (
            "https://git.acme.com/a/b",
            {"GITHUB_SERVER_URL": "https://git.acme.com", "GITHUB_API_URL": "https://api.acme.com/"},
            "github", "https://api.acme.com", "a/b",
        ),
        (
            "https://git.acme.com/a/b",
            {"CI_SERVER_URL": "https://git.acme.com", "CI_API_V4_URL": "https://git.acme.com/api/v4"},
            "gitlab", "https://git.acme.com/api/v4", "a/b",
        ),
        (
            "https://git.acme.com/a/b",
            {"GITHUB_SERVER_URL": "https://git.acme.com", "GITHUB_API_URL": "https://git.acme.com/api/v1"},
            "gitea", "https://git.acme.com/api/v1", "a/b",
        ),
        ("ssh://git@ssh.github.com:443/a/b.git", {}, "github", "https://api.github.com", "a/b"),
        ("ssh://git@altssh.gitlab.com:443/a/b.git", {}, "gitlab", "https://gitlab.com/api/v4", "a/b"),
        ("https://gitea.acme.com/a/b", {"CI_SERVER_URL": "https://x:y"}, "gitea", "https://gitea.acme.com/api/v1", "a/b"),
        ("https://[fd00::1]:3000/a/b", {"SCEPSY_FORGE": "gitea"}, "gitea", "https://[fd00::1]:3000/api/v1", "a/b"),
    ],
)  # fmt: skip
def test_the_forge_follows_from_the_remote(
    url: str, environment: dict[str, str], kind: str, api: str, repository: str
) -> None:
    forge = forge_of(remote(url), {"SCEPSY_FORGE_TOKEN": TOKEN, **environment})
    assert (forge.kind, forge.api, forge.repository) == (kind, api, repository)


@pytest.mark.parametrize(
    ("url", "environment", "message", "hint"),
    [
        ("https://git.acme.com/a/b", {}, "cannot determine which forge git.acme.com is", "set SCEPSY_FORGE to"),
        ("https://git.acme.com/a/b", {"SCEPSY_FORGE": "svn"}, "unknown forge in SCEPSY_FORGE: 'svn'", "github, gitlab, gitea"),
        ("https://notgithub.com/a/b", {}, "cannot determine which forge notgithub.com is", "set SCEPSY_FORGE to"),
        ("https://host:abc/a/b", {}, "is not a repository of a forge", "--push"),
        ("https://github.com:99999/a/b", {}, "is not a repository of a forge", "--push"),
        ("/srv/git/specs.git", {}, "is not a repository of a forge", "--push"),
        ("https://github.com/specs", {}, "is not a repository of a forge", "--push"),
        ("http://gitlab.acme.com/a/b", {}, "refusing to send the token to gitlab.acme.com over plain HTTP", "https://"),
        ("https://github.com/a/b", {"SCEPSY_FORGE_TOKEN": ""}, "there is no token for github", "SCEPSY_FORGE_TOKEN"),
        ("https://github.com/a/b", {"SCEPSY_FORGE_TOKEN": "a b"}, "invalid token in SCEPSY_FORGE_TOKEN: contains whitespace or non-printable characters", "give the token alone"),
        (
            "https://github.com/a/b", {"SCEPSY_FORGE_TOKEN": "", "SCEPSY_FORGE_TOKEN_FILE": "/nowhere"},
            "cannot read the token file /nowhere: No such file or directory", "fix or unset SCEPSY_FORGE_TOKEN_FILE",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_before_anything_is_pushed(
    url: str, environment: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(ScepsyError) as error:
        forge_of(remote(url), {"SCEPSY_FORGE_TOKEN": TOKEN, **environment})
    assert message in error.value.message
    assert hint in error.value.hint
    assert TOKEN not in str(error.value)


AMBIENT = {"GITHUB_TOKEN": "hub", "GITLAB_TOKEN": "lab", "GITEA_TOKEN": "tea"}
ACTIONS = {"GITHUB_SERVER_URL": "https://git.acme.com", "GITHUB_API_URL": "https://git.acme.com/api/v3"}
FORGEJO = {"GITHUB_SERVER_URL": "https://git.acme.com", "GITHUB_API_URL": "https://git.acme.com/api/v1"}
PIPELINE = {"CI_SERVER_URL": "https://git.acme.com", "CI_API_V4_URL": "https://git.acme.com/api/v4"}


@pytest.mark.parametrize(
    ("url", "environment", "token"),
    [
        ("https://github.com/a/b", {}, "hub"),
        ("ssh://git@ssh.github.com:443/a/b", {}, "hub"),
        ("https://gitlab.com/a/b", {}, "lab"),
        ("https://codeberg.org/a/b", {}, "tea"),
        ("https://git.acme.com/a/b", ACTIONS, "hub"),
        ("https://git.acme.com/a/b", FORGEJO, "tea"),
        ("https://git.acme.com/a/b", FORGEJO | {"GITEA_TOKEN": ""}, "hub"),
        ("https://git.acme.com/a/b", PIPELINE, "lab"),
        ("https://github.com/a/b", {"SCEPSY_FORGE_TOKEN": "ours"}, "ours"),
        ("https://github.acme.com/a/b", {"SCEPSY_FORGE_TOKEN": "ours"}, "ours"),
    ],
)
def test_a_token_that_was_not_set_for_us_goes_where_it_belongs(
    url: str, environment: dict[str, str], token: str
) -> None:
    forge = forge_of(remote(url), AMBIENT | environment)
    assert forge.token == token
    assert token not in repr(forge).replace("github", "").replace("gitlab", "").replace("gitea", "")


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("https://github.evil.example/a/b", {}),
        ("https://github.com.evil.example/a/b", {}),
        ("https://gitlab.evil.example/a/b", {}),
        ("https://gitea.evil.example/a/b", {}),
        ("https://forgejo.evil.example/a/b", {}),
        ("https://github.evil.example/a/b", ACTIONS),
        ("https://gitlab.evil.example/a/b", PIPELINE),
        ("https://evil.example/a/b", {"SCEPSY_FORGE": "github"}),
    ],
)
def test_a_token_that_was_not_set_for_us_goes_nowhere_else(url: str, environment: dict[str, str]) -> None:
    with pytest.raises(ForgeError, match=r"there is no token for git\w+ at \w+\.[\w.]+") as error:
        forge_of(remote(url), AMBIENT | environment)
    assert "SCEPSY_FORGE_TOKEN" in error.value.hint


@pytest.fixture
def api() -> Iterator[Api]:
    with answering() as own:
        yield own


@pytest.mark.parametrize(
    ("kind", "path", "header", "body", "url"),
    [
        (
            "github", "/repos/a/b/pulls", ("Authorization", f"token {TOKEN}"),
            {"head": "scepsy/drift-c", "base": "main", "title": "Two lines", "body": "Text\n"}, "https://forge/pulls/7",
        ),
        (
            "gitea", "/repos/a/b/pulls", ("Authorization", f"token {TOKEN}"),
            {"head": "scepsy/drift-c", "base": "main", "title": "Two lines", "body": "Text\n"}, "https://forge/pulls/7",
        ),
        (
            "gitlab", "/projects/a%2Fb/merge_requests", ("PRIVATE-TOKEN", TOKEN),
            {
                "source_branch": "scepsy/drift-c", "target_branch": "main", "title": "Two lines",
                "description": "Text\n", "remove_source_branch": "true",
            },
            "https://forge/mr/7",
        ),
    ],
)  # fmt: skip
def test_every_forge_is_asked_in_its_own_words(
    api: Api, kind: Any, path: str, header: tuple[str, str], body: dict[str, str], url: str
) -> None:
    assert Forge(kind, api.url, "a/b", TOKEN).open("scepsy/drift-c", "main", "Two\nlines", "Text\n") == url
    asked = api.asked[0]
    assert (asked[0], asked[1][header[0]], asked[2]) == (path, header[1], body)


@pytest.mark.parametrize(
    ("status", "answer", "message", "hint"),
    [
        (401, {"message": f"bad {TOKEN}"}, "did not open a pull request (401): ", "SCEPSY_FORGE_TOKEN"),
        (403, {"message": "no"}, "(403)", "permission"),
        (422, {"message": "A pull request already exists"}, "A pull request already exists", ""),
        (500, b"<html>", "(500)", ""),
        (500, b"[" * 200_000, "(500)", ""),
        (302, {}, "(302)", ""),
    ],
)
def test_a_refusal_says_why_and_never_the_token(api: Api, status: int, answer: Any, message: str, hint: str) -> None:
    api.status, api.answer = status, answer
    with pytest.raises(ForgeError) as error:
        Forge("github", api.url, "a/b", TOKEN).open("x", "main", "t", "b")
    assert message in error.value.message
    assert hint in error.value.hint
    assert TOKEN not in str(error.value)
    assert len(api.asked) == 1


def test_a_forge_out_of_reach_is_told() -> None:
    with pytest.raises(ForgeError, match=r"cannot connect to github at http://127\.0\.0\.1:1: Connection refused"):
        Forge("github", "http://127.0.0.1:1", "a/b", TOKEN).open("x", "main", "t", "b")


DAY = 86_400.0
NOW = 1_767_945_600.0  # 2026-01-09T08:00:00Z


@pytest.mark.parametrize(
    ("kind", "header", "paths", "url"),
    [
        (
            "github", ("Authorization", f"token {TOKEN}"),
            [
                "/repos/a/b/pulls?state=open&per_page=100&page=1",
                "/repos/a/b/pulls?state=closed&sort=updated&direction=desc&per_page=100&page=1",
            ],
            "https://forge/pulls",
        ),
        (
            "gitea", ("Authorization", f"token {TOKEN}"),
            [
                "/repos/a/b/pulls?state=open&limit=50&page=1",
                "/repos/a/b/pulls?state=closed&sort=recentupdate&limit=50&page=1",
            ],
            "https://forge/pulls",
        ),
        (
            "gitlab", ("PRIVATE-TOKEN", TOKEN),
            [
                "/projects/a%2Fb/merge_requests?state=opened&per_page=100&page=1",
                "/projects/a%2Fb/merge_requests?state=closed&order_by=updated_at&sort=desc&per_page=100&page=1",
            ],
            "https://forge/mr",
        ),
    ],
)  # fmt: skip
def test_every_forge_lists_what_is_open_and_what_was_closed_of_late_in_this_repository(
    api: Api, kind: Any, header: tuple[str, str], paths: list[str], url: str
) -> None:
    for number in range(5):
        api.have(f"open-{number}", number)
    api.have("open-fork", 5, fork=True)
    decide(api.have("closed-yesterday", 6), "2026-01-08T08:00:00.000Z")
    decide(api.have("merged-yesterday", 7), "2026-01-08T09:00:00Z", merge=True)
    decide(api.have("closed-a-month-ago", 8), "2025-12-08T08:00:00+01:00")
    forge = Forge(kind, api.url, "a/b", TOKEN)
    assert [(r.branch, r.url) for r in forge.pending()] == [(f"open-{n}", f"{url}/{n}") for n in (4, 3, 2, 1, 0)]
    assert [(r.branch, r.url) for r in forge.refused(NOW - 7 * DAY)] == [("closed-yesterday", f"{url}/6")]
    assert [path for path, _ in api.listed if path.endswith("page=1")] == paths
    assert {headers[header[0]] for _, headers in api.listed} == {header[1]}


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (401, {"message": f"bad {TOKEN}"}, "did not list pull requests (401): "),
        (503, b"<html>", "did not list pull requests (503)"),
        (302, {}, "did not list pull requests (302)"),
        (200, {"message": TOKEN}, "unexpected answer"),
        (200, [{"state": "open"}, 5], "too many pull requests to search"),
    ],
)
def test_a_list_that_is_refused_or_none_says_so_and_never_the_token(
    api: Api, status: int, answer: Any, message: str
) -> None:
    api.listing = status, answer
    with pytest.raises(ForgeError) as error:
        list(Forge("github", api.url, "a/b", TOKEN).pending())
    assert message in error.value.message
    assert TOKEN not in str(error.value)
