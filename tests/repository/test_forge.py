"""Pull requests: asked for at the right address, in the forge's own words, and no token anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.repository.forge_api import Api, answering

from scepsy.repository.forge import Forge, ForgeError, forge_of
from scepsy.repository.remote import Remote

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
        ("https://git.acme.com/a/b", {}, "which forge git.acme.com is cannot be told", "SCEPSY_FORGE"),
        ("https://git.acme.com/a/b", {"SCEPSY_FORGE": "svn"}, "'svn', which is no forge", "github, gitlab or gitea"),
        ("/srv/git/specs.git", {}, "is not a repository of a forge", "--push"),
        ("https://github.com/specs", {}, "is not a repository of a forge", "--push"),
        ("http://gitlab.acme.com/a/b", {}, "the token would go to gitlab.acme.com unencrypted", "https://"),
        ("https://github.com/a/b", {"SCEPSY_FORGE_TOKEN": ""}, "there is no token for github", "SCEPSY_FORGE_TOKEN"),
        ("https://github.com/a/b", {"SCEPSY_FORGE_TOKEN": "a b"}, "the token of the forge is none", ""),
        (
            "https://github.com/a/b", {"SCEPSY_FORGE_TOKEN": "", "SCEPSY_FORGE_TOKEN_FILE": "/nowhere"},
            "the file that SCEPSY_FORGE_TOKEN_FILE names cannot be read: No such file or directory", "",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_before_anything_is_pushed(
    url: str, environment: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(ForgeError) as error:
        forge_of(remote(url), {"SCEPSY_FORGE_TOKEN": TOKEN, **environment})
    assert message in error.value.message
    assert hint in error.value.hint
    assert TOKEN not in str(error.value)


def test_the_token_may_be_the_one_of_the_forges_own_ci() -> None:
    assert forge_of(remote("https://github.com/a/b"), {"GITHUB_TOKEN": "own"}).token == "own"
    assert "own" not in repr(forge_of(remote("https://github.com/a/b"), {"GITHUB_TOKEN": "own"}))


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
        (401, {"message": f"bad {TOKEN}"}, "opens no pull request (401): ", "SCEPSY_FORGE_TOKEN"),
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
    with pytest.raises(ForgeError, match=r"github at http://127\.0\.0\.1:1 cannot be reached"):
        Forge("github", "http://127.0.0.1:1", "a/b", TOKEN).open("x", "main", "t", "b")
