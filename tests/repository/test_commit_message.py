"""The commit message and its trailers, as git and Argo CD read them."""

from __future__ import annotations

import json
from email.headerregistry import HeaderRegistry
from pathlib import PurePosixPath

import pytest

from scepsy.repository import message, open_worktree, trailers

P = PurePosixPath
DIGEST = "0" * 64


def parsed(git, text, tmp_path):
    (tmp_path / "message").write_text(text)
    lines = git("interpret-trailers", "--parse", "--no-divider", str(tmp_path / "message")).split("\n")
    return dict(line.split(": ", 1) for line in lines if not line.startswith("Scepsy")), lines


def test_the_trailers_describe_head_and_every_input_in_order(root, git, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2025-06-09T13:50:18-04:00")
    git("commit", "-q", "--allow-empty", "-m", "Raise the rate", "-m", 'Because of "x".\n\nSigned-off-by: Ada')
    git("remote", "add", "origin", "https://git.example.com/team/specs.git")

    block = trailers(open_worktree(root), {P("workflows/b.yaml"): DIGEST, P("clusters/a b.yaml"): DIGEST})
    text = message("Compile prod", "Two instances move.", block)

    assert text == (
        "Compile prod\n\nTwo instances move.\n\n"
        "Argocd-reference-commit-author: Ada Lovelace <ada@example.com>\n"
        f"Argocd-reference-commit-sha: {git('rev-parse', 'HEAD')}\n"
        "Argocd-reference-commit-subject: Raise the rate\n"
        'Argocd-reference-commit-body: "Because of \\"x\\".\\n\\nSigned-off-by: Ada"\n'
        "Argocd-reference-commit-repourl: https://git.example.com/team/specs.git\n"
        "Argocd-reference-commit-date: 2025-06-09T13:50:18-04:00\n"
        f"Scepsy-input: clusters/a b.yaml sha256:{DIGEST}\n"
        f"Scepsy-input: workflows/b.yaml sha256:{DIGEST}\n"
    )
    assert len(parsed(git, text, tmp_path)[1]) == 8


@pytest.mark.parametrize(
    ("origin", "public"),
    [
        ("https://ci:glpat-secret@git.example.com/t/r.git", "https://git.example.com/t/r.git"),
        ("https://ghp_secret@github.com/t/r", "https://github.com/t/r"),
        ("https://git.example.com:8443/t/r?private_token=secret#secret", "https://git.example.com:8443/t/r"),
        ("https://u:p@ss/w:secret@git.example.com/r", None),
        ("git@github.com:t/r.git", "ssh://git@github.com/t/r.git"),
        ("ssh://git:secret@git.example.com:22/r", "ssh://git@git.example.com:22/r"),
        ("git@[::1]:r.git", "ssh://git@[::1]/r.git"),
        ("/srv/git/r.git", None),
        ("../r.git", None),
        ("token:secret@git.example.com:r.git", None),
        ("ext::sh -c secret", None),
    ],
)
def test_the_origin_is_given_as_a_url_without_any_secret(root, git, origin, public):
    git("config", "remote.origin.url", origin)

    block = trailers(open_worktree(root), {})

    assert "secret" not in block
    assert (f"repourl: {public}\n" in block) if public else ("repourl" not in block)


def test_without_an_origin_there_is_no_repourl(root):
    assert "repourl" not in trailers(open_worktree(root), {})


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("dependabot[bot]", "49699333+dependabot[bot]@users.noreply.github.com"),
        ("Doe, John (Ops)", "john.doe@example.com"),
        ("Zoë Müller", "zoe@example.com"),
        ('The "Boss" \\o/', "boss@example.com"),
    ],
)
def test_the_author_is_one_that_a_strict_mail_parser_accepts(root, git, monkeypatch, name, address):
    monkeypatch.setenv("GIT_AUTHOR_NAME", name)
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", address)
    git("commit", "-q", "--allow-empty", "-m", "x")

    value = trailers(open_worktree(root), {}).partition("author: ")[2].partition("\n")[0]

    [parsed] = HeaderRegistry()("From", value).addresses
    assert parsed.display_name == name
    assert f"{parsed.username}@{parsed.domain}" == address


def test_no_value_can_break_out_of_its_line(root, git, tmp_path):
    tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    git("mktree", "--missing")
    raw = (
        f"tree {tree}\nauthor A\x1b[31m <a@b> 1700000000 +0000\ncommitter A <a@b> 1700000000 +0000\n\n"
        "Subject\x0bArgocd-reference-commit-sha: evil\n\nbody\x00\nArgocd-reference-commit-sha: evil\u2028x\r\n"
    ).replace("\x00", "\x01")
    (tmp_path / "raw").write_text(raw, newline="")
    git("update-ref", "HEAD", git("hash-object", "-t", "commit", "-w", "--literally", str(tmp_path / "raw")))

    block = trailers(open_worktree(root), {P("a\nArgocd-reference-commit-sha: evil\x1b"): DIGEST})
    text = message("Compile\nArgocd-reference-commit-sha: evil", "ok\nArgocd-reference-commit-sha: evil\x1b[0m", block)

    assert [line for line in text.splitlines() if line.startswith("Argocd-reference-commit-sha")] == [
        f"Argocd-reference-commit-sha: {git('rev-parse', 'HEAD')}"
    ]
    assert "\x1b" not in text
    assert text.splitlines()[0] == "Compile Argocd-reference-commit-sha: evil"


def test_a_long_body_stays_within_the_longest_line_that_argo_cd_reads(root, git):
    git("commit", "-q", "--allow-empty", "-m", "x", "-m", "\U0001f600" * 20_000)

    block = trailers(open_worktree(root), {})

    body = block.partition("body: ")[2].partition("\n")[0]
    assert set(json.loads(body)) == {"\U0001f600"}
    assert max(map(len, block.encode().split(b"\n"))) < 65_536


def test_before_the_first_commit_only_inputs_are_named(tmp_path, git):
    git("init", "-q", "new", at=tmp_path)

    assert trailers(open_worktree(tmp_path / "new"), {P("a"): DIGEST}) == f"Scepsy-input: a sha256:{DIGEST}\n"


def test_a_sha256_commit_is_named_by_as_many_digits_as_argo_cd_accepts(tmp_path, git):
    git("init", "-q", "--object-format=sha256", "new", at=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "x", at=tmp_path / "new")

    block = trailers(open_worktree(tmp_path / "new"), {})

    assert f"sha: {git('rev-parse', 'HEAD', at=tmp_path / 'new')[:40]}\n" in block


def test_a_message_may_be_a_subject_alone():
    assert message("Compile") == "Compile\n"
