"""What a repository's own configuration may do (nothing), and where secrets may be (nowhere)."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from tests.conftest import Scepsy, git
from tests.publishing.git_server import ASK, GitServer, bare, serving
from tests.publishing.project_edits import WORKFLOW, commit_all, edit, push

from scepsy.publishing.remote import NoRemote, find_remote, redacted
from scepsy.repository import open_worktree

HOOKS = (
    *("pre-push", "post-checkout", "post-merge", "post-index-change", "reference-transaction", "pre-commit"),
    *("commit-msg", "prepare-commit-msg", "post-commit", "pre-auto-gc", "post-rewrite", "push-to-checkout"),
)
PROGRAMS = (
    *("core.sshCommand", "core.gitProxy", "core.fsmonitor", "core.pager", "core.editor", "core.askPass"),
    *("core.alternateRefsCommand", "uploadpack.packObjectsHook", "gpg.program", "diff.external", "pager.log"),
    *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv", "merge.evil.driver"),
    *("remote.origin.receivepack", "remote.origin.uploadpack", "alias.fetch", "sequence.editor"),
)


def test_nothing_that_the_repository_configures_runs(
    project: Path, other: Path, remote: Path, server: GitServer, scepsy: Scepsy, tmp_path: Path
) -> None:
    (other / ".gitattributes").write_text("* filter=evil diff=evil merge=evil text eol=crlf\nplans/* ident\n")
    edit(other / "README.md", "", "Theirs.\n")
    commit_all(other, "Attributes")
    git(other, "push", "-q")
    trap = tmp_path / "trap"
    trap.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/ran\ncat\n')
    trap.chmod(0o755)
    for folder in (project / ".git/hooks", tmp_path / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in HOOKS:
            (folder / name).write_bytes(trap.read_bytes())
            (folder / name).chmod(0o755)
    settings = {key: str(trap) for key in PROGRAMS} | {
        "core.hooksPath": str(tmp_path / "hooks"),
        "credential.helper": f"!{trap}",
        f"credential.{server.url}.helper": f"!{trap}",
        f"url.ext::{trap} %S .insteadOf": server.url,
        f"url.ext::{trap} .pushInsteadOf": server.url,
        "protocol.ext.allow": "always",
        "protocol.allow": "always",
        "remote.origin.vcs": "evil",
        "remote.origin.proxy": "http://127.0.0.1:1",
        "http.proxy": "http://127.0.0.1:1",
        "commit.gpgSign": "true",
        "push.gpgSign": "true",
        "push.recurseSubmodules": "on-demand",
        "filter.evil.required": "true",
        "hook.evil.command": str(trap),
        "hook.evil.event": "pre-push",
    }
    for key, value in settings.items():
        git(project, "config", key, value)
    server.login = ("me", "secret-1")
    before = git(project, "rev-parse", "HEAD")
    error = push(scepsy, project, code=1)["error"]
    assert "rejects the credentials (401)" in error["message"]
    server.login = None
    result = push(scepsy, project)
    assert ".gitattributes" not in result["left"]
    assert git(remote, "log", "--format=%s", "main").splitlines()[:2] == ["Compile one-node", "Attributes"]
    assert git(remote, "show", "main:plans/one-node.yaml").startswith("# Written by scepsy")
    assert push(scepsy, project, "--branch", "environments/x")["pushed"]["branch"] == "environments/x"
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert before != git(project, "rev-parse", "HEAD") or "is not a plain file" in result["left"]


def test_a_checkout_whose_files_a_filter_makes_is_left_as_it_is(
    project: Path, other: Path, remote: Path, scepsy: Scepsy
) -> None:
    (project / ".git/info").mkdir(exist_ok=True)
    (project / ".git/info/attributes").write_text("README.md filter=lfs\n")
    edit(other / "README.md", "", "Theirs.\n")
    commit_all(other)
    git(other, "push", "-q")
    head = git(project, "rev-parse", "HEAD")
    assert push(scepsy, project)["left"] == "README.md is not a plain file that could be brought forward here"
    assert git(project, "rev-parse", "HEAD") == head


def test_large_files_that_git_lfs_keeps_are_compiled_as_they_are(project: Path, remote: Path, scepsy: Scepsy) -> None:
    import hashlib  # noqa: PLC0415

    (project / ".gitattributes").write_text("*.yaml filter=lfs\n")
    profile = project / "profiles/qwen3-8b-h100.yaml"
    content = profile.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    kept = project / ".git/lfs/objects" / digest[:2] / digest[2:4] / digest
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    profile.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n")
    commit_all(project, "Pointers")
    profile.write_bytes(content)
    push(scepsy, project)
    assert f"profiles/qwen3-8b-h100.yaml: sha256:{digest}" in git(remote, "show", "main:plans/one-node.yaml")


SECRET = "s3cr3t/Tok:en"


def login(how: str, project: Path, home: Path, server: GitServer, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """Give the secret in one of the ways; return the file that then holds it."""
    quoted = "s3cr3t%2FTok%3Aen"
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    monkeypatch.setenv("SCEPSY_GIT_USER", "me")
    if how == "variable":
        monkeypatch.setenv("SCEPSY_GIT_TOKEN", SECRET)
    elif how == "file":
        (home / "token").write_text(SECRET + "\n")
        monkeypatch.setenv("SCEPSY_GIT_TOKEN_FILE", str(home / "token"))
        return home / "token"
    elif how == "address":
        git(project, "remote", "set-url", "origin", server.url.replace("//", f"//me:{quoted}@") + "/specs.git")
        return project / ".git/config"
    elif how == "header":
        git(project, "config", f"http.{server.url}/.extraheader", f"AUTHORIZATION: basic {encoded}")
        return project / ".git/config"
    elif how == "helper":
        (home / "store").write_text(server.url.replace("//", f"//me:{quoted}@") + "\n")
        git(project, "config", "--global", "credential.helper", f"store --file={home / 'store'}")
        return home / "store"
    elif how == "askpass":
        (home / "ask").write_text(f"#!/bin/sh\ncase $1 in User*) echo me;; *) echo '{SECRET}';; esac\n")
        (home / "ask").chmod(0o755)
        monkeypatch.setenv("GIT_ASKPASS", str(home / "ask"))
        return home / "ask"
    return None


@pytest.mark.parametrize("how", ["variable", "file", "address", "header", "helper", "askpass"])
def test_a_secret_is_used_and_then_nowhere_to_be_found(
    project: Path, other: Path, server: GitServer, scepsy: Scepsy, git_home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, how: str,
) -> None:  # fmt: skip
    edit(other / WORKFLOW, "12/s", "3/s")
    commit_all(other, "Less")
    git(other, "push", "-q")
    holder = login(how, project, git_home, server, monkeypatch)
    git(project, "config", "--global", "trace2.eventTarget", str(tmp_path / "trace"))  # the command line of each git
    server.login = ("me", SECRET)
    ran = [scepsy("compile", "--project", project, "--commit", "--push", "--output", "json")]
    assert ran[0].code == 0, ran[0].err
    if how in ("variable", "address"):
        server.login = ("me", "another")
        ran.append(scepsy("compile", "--project", project, "--commit", "--push", "--output", "json"))
        ran.append(scepsy("compile", "--project", project, "--commit", "--push", "--branch", "x"))
        assert [r.code for r in ran[1:]] == [1, 1]
        assert "(401)" in ran[1].out
    secrets = [SECRET, "s3cr3t%2FTok%3Aen", base64.b64encode(f"me:{SECRET}".encode()).decode()]
    printed = "".join(r.out + r.err for r in ran)
    assert not [s for s in secrets if s in printed]
    trace = (tmp_path / "trace").read_text()
    assert "remote-http" in trace
    files = [p for place in (tmp_path, git_home) for p in place.rglob("*") if p.is_file() and p != holder]
    assert not [(p, s) for p in files for s in secrets if s.encode() in p.read_bytes()]
    for repository in (project, server.root / "specs.git"):
        objects = subprocess.run(
            ["git", "-C", repository, "cat-file", "--batch-all-objects", "--batch"], check=True, capture_output=True
        ).stdout
        assert b"Compile one-node" in objects
        assert not [s for s in secrets if s.encode() in objects]


def test_a_secret_is_not_taken_to_where_the_remote_redirects(
    project: Path, server: GitServer, scepsy: Scepsy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    bare(tmp_path / "elsewhere")
    monkeypatch.setenv("SCEPSY_GIT_TOKEN", SECRET)
    with serving(tmp_path / "elsewhere") as thief:
        server.redirect = thief.url
        server.faults = [(ASK, 302)]
        error = push(scepsy, project, code=1)["error"]
        assert "has moved (redirected)" in error["message"]
        assert thief.seen == []


@pytest.mark.parametrize(("url", "settings"), [
    ("http://git.example/x", []),
    ("https://git.example/x", ["http.https://git.example/.extraHeader", "http.https://git.example/.followRedirects"]),
    ("http://127.0.0.1:80/x", ["http.http://127.0.0.1:80/.extraHeader", "http.http://127.0.0.1:80/.followRedirects"]),
    ("ssh://git@git.example/x", []),
    ("git@git.example:x", []),
    ("https://ada@git.example/x", ["http.https://git.example/.extraHeader", "http.https://git.example/.followRedirects"]),
])  # fmt: skip
def test_a_token_goes_over_tls_or_stays_on_this_machine(project: Path, url: str, settings: list[str]) -> None:
    git(project, "remote", "set-url", "origin", url)
    remote = find_remote(open_worktree(project), None, {"SCEPSY_GIT_TOKEN": "t0ken"})
    assert [key for key, _ in remote.settings] == settings
    assert "t0ken" not in repr(remote)
    assert "t0ken" not in remote.url


def test_a_user_in_the_address_is_told_to_the_helper_and_to_nobody_else(project: Path) -> None:
    git(project, "remote", "set-url", "origin", "https://ghp_likeatoken@git.example/x")
    remote = find_remote(open_worktree(project), None, {})
    assert remote.settings == (("credential.https://git.example/.username", "ghp_likeatoken"),)
    assert (remote.url, remote.shown) == ("https://git.example/x", "https://git.example/x")


@pytest.mark.parametrize(("branch", "remotes", "chosen"), [
    ({}, ["origin", "fork"], "origin"),
    ({"branch.main.remote": "fork"}, ["origin", "fork"], "fork"),
    ({"branch.main.remote": "origin", "remote.pushDefault": "fork"}, ["origin", "fork"], "fork"),
    ({"branch.main.pushRemote": "fork", "remote.pushDefault": "origin"}, ["origin", "fork"], "fork"),
    ({"branch.main.remote": "."}, ["origin"], "origin"),
    ({"remote.origin.pushurl": "https://push.example/x"}, ["origin"], "origin"),
])  # fmt: skip
def test_the_remote_is_the_one_that_git_would_push_to(
    project: Path, branch: dict[str, str], remotes: list[str], chosen: str
) -> None:
    git(project, "config", "--unset", "branch.main.remote")
    for name in remotes:
        git(project, "config", f"remote.{name}.url", f"https://{name}.example/x")
    for key, value in branch.items():
        git(project, "config", key, value)
    remote = find_remote(open_worktree(project), None, {})
    assert remote.name == chosen
    assert remote.url == branch.get("remote.origin.pushurl", f"https://{chosen}.example/x")


def test_a_directory_is_pushed_to_when_the_person_allows_it(project: Path, scepsy: Scepsy, tmp_path: Path) -> None:
    local = bare(tmp_path, "local.git")
    git(project, "remote", "set-url", "origin", str(local))
    git(project, "config", "protocol.file.allow", "always")
    assert "whose hooks would run here" in push(scepsy, project, code=1)["error"]["message"]
    git(project, "config", "--global", "protocol.file.allow", "always")
    assert push(scepsy, project)["pushed"]["commit"] == git(local, "rev-parse", "main")


def test_secrets_are_blotted_out_of_what_git_says() -> None:
    said = "fatal: unable to access 'https://me:pa55@h/x': hello pa55\n> Authorization: Basic bWU6cGE1NQ==\n"
    assert redacted(said, ("pa55",)) == ("fatal: unable to access 'https://***@h/x': hello ***\n> Authorization: ***\n")


def test_a_token_file_that_cannot_be_read_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="cannot read the token file /nowhere: No such file or directory"):
        find_remote(open_worktree(project), None, {"SCEPSY_GIT_TOKEN_FILE": "/nowhere"})


def test_no_remote_of_that_name_lists_those_there_are(project: Path) -> None:
    with pytest.raises(NoRemote, match='there is no remote "upstream" to push to\n  hint: remotes here: origin'):
        find_remote(open_worktree(project), "upstream", {})
