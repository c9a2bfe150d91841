"""`scepsy compile --commit --push` against a real Git server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.conftest import Scepsy, git
from tests.publishing.git_server import GitServer, bare
from tests.publishing.project_edits import WORKFLOW, commit_all, edit, push, state


def test_the_commit_is_pushed_and_the_checkout_is_at_it(project: Path, remote: Path, scepsy: Scepsy) -> None:
    before = git(project, "rev-parse", "HEAD")
    result = push(scepsy, project)
    head = git(project, "rev-parse", "HEAD")
    assert result["commit"] == result["pushed"]["commit"] == head == git(remote, "rev-parse", "main")
    url = git(project, "remote", "get-url", "origin")
    assert result["pushed"] == {"remote": "origin", "url": url, "branch": "main", "commit": head, "attempts": 1}
    assert git(project, "rev-parse", "HEAD^", "origin/main") == f"{before}\n{head}"
    assert git(project, "status", "--porcelain", "--branch") == "## main...origin/main"
    assert not (project / ".git" / "scepsy-push").exists()
    assert scepsy("compile", "--project", project, "--check").code == 0
    again = push(scepsy, project)
    assert ("pushed" not in again, git(project, "rev-parse", "HEAD")) == (True, head)


def test_the_text_says_what_was_pushed_where(project: Path, scepsy: Scepsy) -> None:
    ran = scepsy("compile", "--project", project, "--commit", "--push")
    url = git(project, "remote", "get-url", "origin")
    assert f"Pushed {git(project, 'rev-parse', 'HEAD')[:12]} to origin ({url}), branch main." in ran.out


def test_a_remote_that_moved_is_compiled_on_top_of(project: Path, other: Path, remote: Path, scepsy: Scepsy) -> None:
    edit(other / WORKFLOW, "12/s", "3/s")
    commit_all(other, "Less")
    git(other, "push", "-q")
    result = push(scepsy, project)
    assert git(remote, "log", "--format=%s", "main").splitlines()[:2] == ["Compile one-node", "Less"]
    assert "rate: 3/s" in json.dumps(result["clusters"]).replace('"', "")
    assert "rate: 3/s" in (project / WORKFLOW).read_text()
    assert git(project, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")
    assert git(project, "status", "--porcelain") == ""


def test_a_remote_that_moves_while_we_push_is_compiled_on_top_of(
    project: Path, other: Path, remote: Path, server: GitServer, scepsy: Scepsy
) -> None:
    def first() -> None:
        edit(other / WORKFLOW, "12/s", "3/s")
        commit_all(other, "Faster")
        git(other, "push", "-q")

    server.faults = [("/git-receive-pack", first)]
    result = push(scepsy, project)
    assert result["pushed"]["attempts"] == 2
    assert git(remote, "log", "--format=%s", "main").splitlines()[:2] == ["Compile one-node", "Faster"]
    assert "rate: 3/s" in git(remote, "show", "main:plans/one-node.yaml").replace('"', "")
    assert git(project, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")


def test_own_commits_that_the_remote_lacks_go_with_it(project: Path, remote: Path, scepsy: Scepsy) -> None:
    edit(project / WORKFLOW, "12/s", "3/s")
    commit_all(project, "Mine")
    push(scepsy, project)
    assert git(remote, "log", "--format=%s", "main").splitlines()[:2] == ["Compile one-node", "Mine"]
    edit(project / "README.md", "", "More.\n")
    commit_all(project, "Words")
    result = push(scepsy, project)
    assert (result.get("commit"), result["pushed"]["commit"]) == (None, git(remote, "rev-parse", "main"))
    assert git(remote, "log", "-1", "--format=%s", "main") == "Words"


def test_a_rebase_is_left_to_the_person(project: Path, other: Path, remote: Path, scepsy: Scepsy) -> None:
    edit(other / "README.md", "", "Theirs.\n")
    commit_all(other, "Theirs")
    git(other, "push", "-q")
    edit(project / WORKFLOW, "12/s", "3/s")
    commit_all(project, "Mine")
    before, there = state(project), git(remote, "rev-parse", "main")
    error = push(scepsy, project, code=1)["error"]
    assert "main has commits that origin/main lacks, and origin/main has moved on: 1 here, 1 there" in error["message"]
    assert error["hint"] == "rebase your commits, then re-run: git pull --rebase origin main"
    assert (state(project), git(remote, "rev-parse", "main")) == (before, there)
    git(project, "pull", "-q", "--rebase", "origin", "main")
    push(scepsy, project)
    assert git(remote, "log", "--format=%s", "main").splitlines()[:3] == ["Compile one-node", "Mine", "Theirs"]


def test_inputs_that_are_not_committed_are_refused_and_other_edits_stay(
    project: Path, remote: Path, scepsy: Scepsy
) -> None:
    edit(project / WORKFLOW, "12/s", "10/s")
    (project / "workflows/new.yaml").write_text("x")
    before = state(project)
    message = push(scepsy, project, code=1)["error"]["message"]
    assert f"{WORKFLOW}: modified" in message
    assert "workflows/new.yaml: untracked" in message
    assert state(project) == before
    git(project, "checkout", "-q", WORKFLOW)
    (project / "workflows/new.yaml").unlink()
    (project / "README.md").write_text("mine\n")
    (project / "notes.txt").write_text("staged\n")
    git(project, "add", "notes.txt")
    push(scepsy, project)
    assert git(project, "status", "--porcelain") == "M README.md\nA  notes.txt"
    assert git(remote, "show", "--stat", "main").count("README") == 0


def test_a_checkout_with_edits_in_the_way_is_left_as_it_is(
    project: Path, other: Path, remote: Path, scepsy: Scepsy
) -> None:
    edit(other / "README.md", "", "Theirs.\n")
    commit_all(other, "Theirs")
    git(other, "push", "-q")
    (project / "README.md").write_text("mine\n")
    before = state(project)
    ran = scepsy("compile", "--project", project, "--commit", "--push")
    assert (ran.code, state(project)) == (0, before)
    remedy = "git stash -u && git pull --ff-only origin main && git stash pop"
    words = f"Your checkout was not updated: local changes in README.md. Update it with: {remedy}\n"
    assert words in ran.out
    assert git(remote, "log", "-1", "--format=%s", "main") == "Compile one-node"
    again = push(scepsy, project)
    assert (again["left"], again["remedy"]) == ("local changes in README.md", remedy)
    git(project, "checkout", "-q", "README.md")
    assert [push(scepsy, project)[key] for key in ("left", "remedy")] == ["", ""]
    assert git(project, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")


def test_the_remedy_for_edits_in_the_way_works_as_it_is_given(
    project: Path, other: Path, remote: Path, scepsy: Scepsy
) -> None:
    edit(other / "README.md", "", "Theirs.\n")
    (other / "notes.txt").write_text("theirs\n")
    git(other, "add", "notes.txt")
    commit_all(other, "Theirs")
    git(other, "push", "-q")
    (project / "README.md").write_text((project / "README.md").read_text() + "Mine.\n")
    git(project, "branch", "--unset-upstream")
    git(project, "config", "pull.rebase", "true")
    left = push(scepsy, project, "--remote", "origin")
    subprocess.run(left["remedy"], shell=True, cwd=project, check=True, capture_output=True)
    assert git(project, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")
    text = (project / "README.md").read_text()
    assert text.startswith("Theirs.\n")
    assert text.endswith("Mine.\n")


def test_output_that_was_written_before_is_committed_and_hand_edits_need_force(
    project: Path, remote: Path, scepsy: Scepsy
) -> None:
    assert scepsy("compile", "--project", project).code == 0
    edit(project / WORKFLOW, "12/s", "3/s")
    commit_all(project)
    gateway = project / "rendered/one-node/llm-serving/deployment-gateway.yaml"
    gateway.write_text("mine\n")
    before, there = state(project), git(remote, "rev-parse", "main")
    assert "edited by hand since the last compile" in push(scepsy, project, code=1)["error"]["message"]
    assert (state(project), git(remote, "rev-parse", "main")) == (before, there)
    assert push(scepsy, project, "--force")["left"] == ""
    assert git(project, "status", "--porcelain") == ""
    assert "mine" not in gateway.read_text()


def test_a_branch_of_the_remote_is_made_if_it_lacks_it(project: Path, remote: Path, scepsy: Scepsy) -> None:
    git(project, "switch", "-q", "-c", "topic/new")
    result = push(scepsy, project)
    assert result["pushed"]["branch"] == "topic/new"
    assert git(remote, "log", "-1", "--format=%s", "topic/new") == "Compile one-node"


def test_a_project_in_a_folder_and_a_shallow_clone_work(tmp_path: Path, project: Path, scepsy: Scepsy) -> None:
    url = git(project, "remote", "get-url", "origin")
    (project / "teams").mkdir()
    for name in ("scepsy.yaml", "workflows", "clusters", "profiles"):
        git(project, "mv", name, f"teams/{name}")
    commit_all(project, "Move")
    git(project, "push", "-q")
    git(tmp_path, "clone", "-q", "--depth=1", url, "shallow")
    edit(project / "README.md", "", "More.\n")
    commit_all(project, "More")
    git(project, "push", "-q")
    result = push(scepsy, tmp_path / "shallow/teams")
    assert (result["left"], result["pushed"]["attempts"]) == ("", 1)
    assert git(tmp_path / "shallow", "log", "--format=%s").splitlines()[:2] == ["Compile one-node", "More"]
    assert git(tmp_path / "shallow", "status", "--porcelain") == ""


@pytest.mark.parametrize(("make", "message"), [
    (["checkout", "-q", "--detach"], "HEAD is detached, so there is no branch to push"),
    (["remote", "remove", "origin"], 'there is no remote "origin" to push to'),
    (["remote", "set-url", "origin", "ext::sh -c touch% ran"], "needs the program git-remote-ext"),
    (["remote", "set-url", "origin", "/tmp/x.git"], "is a directory on this machine, whose hooks would run here"),
    (["remote", "set-url", "origin", "file:///tmp/x.git"], "is a directory on this machine"),
    (["remote", "set-url", "origin", "git://127.0.0.1/x"], "uses git, which is not supported for pushing"),
    (["merge", "-q", "--no-commit", "--no-ff", "side"], "a merge is in progress"),
])  # fmt: skip
def test_what_cannot_be_pushed_is_said(project: Path, scepsy: Scepsy, make: list[str], message: str) -> None:
    git(project, "switch", "-q", "-c", "side")
    git(project, "commit", "-q", "--allow-empty", "-m", "Side")
    git(project, "switch", "-q", "main")
    git(project, *make)
    before = state(project)
    assert message in push(scepsy, project, code=1)["error"]["message"]
    assert state(project) == before


@pytest.mark.parametrize(("arguments", "message"), [
    (["--push"], "so it needs --commit"),
    (["--commit", "--branch", "x"], "are for --push"),
    (["--commit", "--push", "--remote", "o", "--repository", "https://h/x"], "pass only one"),
])  # fmt: skip
def test_options_that_do_not_go_together(scepsy: Scepsy, arguments: list[str], message: str) -> None:
    ran = scepsy("compile", *arguments)
    assert (ran.code, message in ran.err) == (1, True)


# ------------------------------------------------------------------------------------------ branches of output alone


def metadata(remote: Path, branch: str) -> dict:
    return json.loads(git(remote, "show", f"{branch}:hydrator.metadata"))


def test_an_environment_branch_holds_output_and_what_it_was_made_from(
    project: Path, remote: Path, scepsy: Scepsy
) -> None:
    before, dry = state(project), git(project, "rev-parse", "HEAD")
    result = push(scepsy, project, "--branch", "environments/prod")
    assert state(project)[:2] == before[:2]
    made = git(remote, "rev-parse", "environments/prod")
    assert result["pushed"]["commit"] == result["commit"] == made
    assert git(remote, "rev-list", "--count", made) == "1"
    names = git(remote, "ls-tree", "--name-only", made).split()
    assert names == ["hydrator.metadata", "plans", "rendered"]
    assert metadata(remote, made) == {
        "repoURL": git(project, "remote", "get-url", "origin"),
        "drySha": dry,
        "author": "Ada Lovelace <ada@example.com>",
        "date": git(project, "log", "-1", "--format=%aI"),
        "subject": "Start from the example rag-reranker",
    }
    said = git(remote, "log", "-1", "--format=%B", made)
    assert f"Argocd-reference-commit-sha: {dry}" in said
    assert "Argocd-reference-commit-author: Ada Lovelace <ada@example.com>" in said


def test_the_same_output_is_not_committed_again(project: Path, remote: Path, scepsy: Scepsy) -> None:
    push(scepsy, project, "--branch", "environments/prod")
    made = git(remote, "rev-parse", "environments/prod")
    edit(project / "README.md", "", "More.\n")
    commit_all(project)
    git(project, "push", "-q")
    result = push(scepsy, project, "--branch", "environments/prod")
    assert (result.get("pushed"), git(remote, "rev-parse", "environments/prod")) == (None, made)
    assert result["clusters"][0]["upToDate"]
    edit(project / WORKFLOW, "12/s", "3/s")
    commit_all(project)
    git(project, "push", "-q")
    push(scepsy, project, "--branch", "environments/prod")
    assert git(remote, "rev-parse", "environments/prod^") == made
    assert metadata(remote, "environments/prod")["drySha"] == git(project, "rev-parse", "HEAD")


def test_only_our_own_files_of_a_branch_change_and_stale_ones_go(
    project: Path, other: Path, remote: Path, scepsy: Scepsy
) -> None:
    push(scepsy, project, "--branch", "environments/prod")
    git(other, "fetch", "-q")
    git(other, "switch", "-q", "environments/prod")
    (other / "theirs").mkdir()
    (other / "theirs/app.yaml").write_text("kind: App\n")
    commit_all(other, "Theirs")
    git(other, "push", "-q", "origin", "environments/prod")
    edit(project / "scepsy.yaml", "namespace: llm-serving", "namespace: other")
    commit_all(project)
    git(project, "push", "-q")
    push(scepsy, project, "--branch", "environments/prod")
    names = git(remote, "ls-tree", "-r", "--name-only", "environments/prod").split()
    assert "theirs/app.yaml" in names
    assert {Path(name).parts[2] for name in names if name.startswith("rendered/")} == {"other"}


def test_a_proposed_branch_continues_the_active_one(project: Path, remote: Path, scepsy: Scepsy) -> None:
    push(scepsy, project, "--branch", "environments/prod")
    active = git(remote, "rev-parse", "environments/prod")
    assert "pushed" not in push(scepsy, project, "--branch", "environments/prod-next")
    edit(project / WORKFLOW, "12/s", "3/s")
    commit_all(project)
    git(project, "push", "-q")
    push(scepsy, project, "--branch", "environments/prod-next")
    assert git(remote, "rev-parse", "environments/prod-next^", "environments/prod") == f"{active}\n{active}"


def test_output_is_made_from_the_newest_specs_and_on_top_of_others(
    project: Path, other: Path, remote: Path, server: GitServer, scepsy: Scepsy
) -> None:
    push(scepsy, project, "--branch", "environments/prod")
    server.login = None

    def meanwhile() -> None:
        edit(other / WORKFLOW, "12/s", "3/s")
        commit_all(other, "Less")
        git(other, "push", "-q")
        git(other, "fetch", "-q")
        git(other, "switch", "-q", "environments/prod")
        (other / "theirs.yaml").write_text("x")
        commit_all(other, "Theirs")
        git(other, "push", "-q", "origin", "environments/prod")

    edit(project / WORKFLOW, "12/s", "5/s")
    commit_all(project)
    git(project, "push", "-q")
    git(other, "pull", "-q")
    git(other, "reset", "-q", "--hard", "origin/main")
    edit(other / WORKFLOW, "5/s", "12/s")
    server.faults = [("/git-receive-pack", meanwhile)]
    result = push(scepsy, project, "--branch", "environments/prod")
    assert result["pushed"]["attempts"] == 2
    assert metadata(remote, "environments/prod")["drySha"] == git(remote, "rev-parse", "main")
    assert git(remote, "log", "--format=%s", "environments/prod").splitlines()[:2] == ["Compile one-node", "Theirs"]


def test_specs_must_be_at_the_remote_and_their_branch_is_no_place_for_output(
    project: Path, remote: Path, scepsy: Scepsy
) -> None:
    git(project, "switch", "-q", "-c", "topic")
    git(project, "push", "-q", "origin", "topic")
    assert "holds a project (scepsy.yaml)" in push(scepsy, project, "--branch", "main", code=1)["error"]["message"]
    edit(project / WORKFLOW, "12/s", "3/s")
    commit_all(project)
    error = push(scepsy, project, "--branch", "environments/prod", code=1)["error"]
    assert "topic has commits that origin/topic lacks" in error["message"]
    assert error["hint"] == "push them first: git push origin topic"
    assert git(remote, "for-each-ref", "--format=%(refname:short)", "refs/heads").split() == ["main", "topic"]


def test_output_goes_to_a_repository_of_its_own(project: Path, server: GitServer, scepsy: Scepsy) -> None:
    rendered = bare(server.root, "rendered.git")
    git(rendered, "symbolic-ref", "HEAD", "refs/heads/trunk")
    url = f"{server.url}/rendered.git"
    result = push(scepsy, project, "--repository", url)
    assert result["pushed"]["branch"] == "main"
    git(rendered, "branch", "-m", "main", "trunk")
    edit(project / WORKFLOW, "12/s", "3/s")
    commit_all(project)
    git(project, "push", "-q")
    result = push(scepsy, project, "--repository", url)
    assert (result["pushed"]["branch"], result["pushed"]["remote"]) == ("trunk", url)
    assert git(rendered, "ls-tree", "--name-only", "trunk").split() == ["hydrator.metadata", "plans", "rendered"]
    assert metadata(rendered, "trunk")["repoURL"] == git(project, "remote", "get-url", "origin")
    message = push(scepsy, project, "--repository", "http://me:hunter22@127.0.0.1/x", code=1)["error"]["message"]
    assert "the address contains a password" in message
    assert "hunter22" not in message


def test_a_linked_work_tree_and_a_repository_with_sha256_work(
    tmp_path: Path, project: Path, server: GitServer, remote: Path, scepsy: Scepsy
) -> None:
    git(project, "worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))
    assert push(scepsy, tmp_path / "linked")["pushed"]["branch"] == "linked"
    assert git(tmp_path / "linked", "status", "--porcelain") == ""
    assert git(remote, "log", "-1", "--format=%s", "linked") == "Compile one-node"

    git(tmp_path, "init", "-q", "--bare", "--object-format=sha256", "--initial-branch=main", str(server.root / "s.git"))
    git(server.root / "s.git", "config", "http.receivepack", "true")
    git(tmp_path, "init", "-q", "--object-format=sha256", "--initial-branch=main", "long")
    for name in ("scepsy.yaml", "workflows", "clusters", "profiles"):
        git(tmp_path / "linked", "archive", "-o", str(tmp_path / "a.tar"), "HEAD", name)
        subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", tmp_path / "long"], check=True)
    commit_all(tmp_path / "long")
    git(tmp_path / "long", "remote", "add", "origin", f"{server.url}/s.git")
    assert len(push(scepsy, tmp_path / "long")["pushed"]["commit"]) == 64
    assert len(metadata_after(scepsy, tmp_path / "long", server)["drySha"]) == 64


def metadata_after(scepsy: Scepsy, project: Path, server: GitServer) -> dict:
    push(scepsy, project, "--branch", "environments/long")
    return metadata(server.root / "s.git", "environments/long")


def test_names_that_are_no_branches_are_refused(project: Path, scepsy: Scepsy) -> None:
    before = state(project)
    for name in ("", "-f", "a..b", "x:y", "a b", "x*", "../main", "refs/heads/x.lock"):
        error = push(scepsy, project, f"--branch={name}", code=1)["error"]
        assert "is not a valid branch name" in error["message"]
        assert error["hint"] == "use a name such as team/topic, without spaces and ~^:?*["
    assert state(project) == before


def test_specs_of_others_that_do_not_compile_are_said_to_be_theirs(
    project: Path, other: Path, remote: Path, scepsy: Scepsy
) -> None:
    edit(other / WORKFLOW, "12/s", "12")
    commit_all(other, "Broken")
    git(other, "push", "-q")
    before, there = state(project), git(remote, "rev-parse", "main")
    message = push(scepsy, project, code=1)["error"]["message"]
    assert message.startswith(f"origin/main at {there[:12]} does not compile:\n{WORKFLOW}:9:12: ")
    assert (state(project), git(remote, "rev-parse", "main")) == (before, there)


def test_a_project_without_a_remote_can_have_a_repository_for_its_output(
    project: Path, server: GitServer, scepsy: Scepsy
) -> None:
    rendered = bare(server.root, "rendered.git")
    git(project, "remote", "remove", "origin")
    result = push(scepsy, project, "--repository", f"{server.url}/rendered.git", "--branch", "prod")
    assert result["pushed"]["commit"] == git(rendered, "rev-parse", "prod")
    assert "repoURL" not in metadata(rendered, "prod")
    assert metadata(rendered, "prod")["drySha"] == git(project, "rev-parse", "HEAD")
