"""`scepsy init --gitops`: the platform team's files, with an environment for each cluster."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.conftest import Demo, Scepsy, git

GITOPS = Path(__file__).resolve().parents[2] / "gitops"
COMPONENTS = ("applicationset", "argocd", "drift", "events", "installation", "namespace", "observe", "priority")
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on the PATH")


@pytest.fixture
def project(tmp_path: Path, demo: Demo) -> Path:
    """An example, whose remote is named with a token in its address."""
    directory = demo(tmp_path / "llms")
    git(directory, "remote", "add", "origin", "https://me:ghp_secret@git.example.com/team/llms.git")
    git(directory, "branch", "-m", "live")
    return directory


def files(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def values(directory: Path, cluster: str = "one-node") -> dict[str, str]:
    path = directory / f"gitops/environments/{cluster}/environment.yaml"
    found: dict[str, str] = yaml.safe_load(path.read_text())["data"]
    return found


def test_a_project_gets_the_components_as_they_ship_and_an_environment_of_its_own(
    project: Path, scepsy: Scepsy
) -> None:
    before = files(project)
    ran = scepsy("init", project, "--gitops")
    assert (ran.code, ran.err) == (0, "")
    made = {name: text for name, text in files(project).items() if name not in before}
    shipped = {
        f"gitops/{name}/{path.name}": path.read_text() for name in COMPONENTS for path in (GITOPS / name).glob("*.yaml")
    }
    environment = {f"gitops/environments/one-node/{name}.yaml" for name in ("environment", "kustomization")}
    all_clusters = {f"gitops/applicationset-example/{name}.yaml" for name in ("environment", "kustomization")}
    assert {name: text for name, text in made.items() if name not in environment | all_clusters} == shipped
    assert set(made) == set(shipped) | environment | all_clusters
    assert values(project) == {
        **yaml.safe_load((GITOPS / "example/environment.yaml").read_text())["data"],
        "name": "example-one-node",
        "repository": "https://git.example.com/team/llms.git",
        "revision": "live",
        "path": "rendered/one-node/llm-serving",
        "namespace": "llm-serving",
        "driftNamespace": "llm-serving-drift",
        "project": ".",
        "planCluster": "one-node",
        "application": "argocd/example-one-node",
    }
    assert yaml.safe_load(made["gitops/applicationset-example/environment.yaml"])["data"] == {
        "name": "example",
        "repository": "https://git.example.com/team/llms.git",
        "revision": "live",
        "paths": "rendered/*/*",
        "namespace": "llm-serving",
        "argocdNamespace": "argocd",
    }
    assert not any("ghp_secret" in text for text in made.values())
    assert git(project, "status", "--porcelain") == "?? gitops/"
    assert ran.out.splitlines() == [
        f"Wrote {len(made)} files to {project}/gitops",
        "Next:",
        f"  read {project}/gitops/environments/one-node/environment.yaml, and kustomization.yaml beside it",
        f"  commit {project}/gitops",
        f"  once per Argo CD, read {project}/gitops/installation/argocd-cm.yaml, then",
        f"  kubectl apply --server-side --field-manager=scepsy -f {project}/gitops/installation/argocd-cm.yaml",
        f"  kubectl apply --server-side -k {project}/gitops/environments/one-node",
    ]


@needs_kubectl
def test_kustomize_builds_it_with_every_component(project: Path, scepsy: Scepsy) -> None:
    scepsy("init", project, "--gitops")
    folder = project / "gitops/environments/one-node"
    switches = folder / "kustomization.yaml"
    switches.write_text(switches.read_text().replace("  # - ../../", "  - ../../"))
    built = subprocess.run([str(KUBECTL), "kustomize", folder], check=True, capture_output=True, text=True)
    items = list(yaml.safe_load_all(built.stdout))
    assert {"Application", "CronWorkflow", "Sensor", "PriorityClass"} <= {item["kind"] for item in items}
    [application] = [item for item in items if item["kind"] == "Application"]
    assert application["metadata"]["name"] == "example-one-node"
    assert application["spec"]["source"]["repoURL"] == "https://git.example.com/team/llms.git"


def test_the_path_is_where_compile_writes(project: Path, scepsy: Scepsy) -> None:
    scepsy("init", project, "--gitops")
    assert scepsy("compile", "--project", project).code == 0
    assert list((project / values(project)["path"]).glob("*.yaml"))


def test_what_is_there_stays_and_is_named(project: Path, scepsy: Scepsy) -> None:
    scepsy("init", project, "--gitops")
    for name in ("argocd/application.yaml", "environments/one-node/environment.yaml"):
        path = project / "gitops" / name
        path.write_text(path.read_text() + "# mine\n")
    (project / "gitops/drift/schedule.yaml").unlink()
    before = files(project / "gitops")

    ran = scepsy("init", project, "--gitops")

    assert ran.code == 0
    assert ran.out.splitlines()[:2] == [
        f"Wrote 1 file to {project}/gitops",
        "Kept unchanged: gitops/argocd/application.yaml, gitops/environments/one-node/environment.yaml",
    ]
    after = files(project / "gitops")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"drift/schedule.yaml"}
    assert scepsy("init", project, "--gitops").out.startswith(f"Wrote 0 files to {project}/gitops\n")


def test_an_example_comes_with_it(tmp_path: Path, scepsy: Scepsy) -> None:
    ran = scepsy("init", tmp_path / "new", "--example", "--gitops")
    assert ran.code == 0
    assert values(tmp_path / "new")["name"] == "example-one-node"
    assert git(tmp_path / "new", "log", "--format=%s") == "Start from the example rag-reranker"
    # Nobody knows where it will be pushed to.
    assert "environment.yaml, and kustomization.yaml beside it; set `repository` there" in ran.out
    assert values(tmp_path / "new")["repository"] == "https://git.example.com/platform/llm-serving.git"
    assert scepsy("compile", "--project", tmp_path / "new", "--commit").code == 0


def test_an_empty_project_gets_its_environments_when_it_has_clusters(
    tmp_path: Path, project: Path, scepsy: Scepsy
) -> None:
    new = tmp_path / "new"
    ran = scepsy("init", new, "--gitops")
    assert ran.code == 0
    assert not (new / "gitops/environments").exists()
    assert ran.out.splitlines()[-1] == (
        f"Next: add a cluster (scepsy cluster discover NAME --write), then its environment: scepsy init {new} --gitops"
    )
    text = (project / "clusters/one-node.yaml").read_text()
    for name in ("east", "west"):
        (new / f"clusters/{name}.yaml").write_text(text.replace("name: one-node", f"name: {name}"))
    ran = scepsy("init", new, "--gitops")
    assert (ran.code, ran.out.splitlines()[0]) == (0, f"Wrote 4 files to {new}/gitops")
    for name in ("east", "west"):
        assert (values(new, name)["name"], values(new, name)["planCluster"]) == (f"new-{name}", name)
        assert f"  kubectl apply --server-side -k {new}/gitops/environments/{name}" in ran.out


def test_a_project_may_be_a_directory_of_its_repository(project: Path, tmp_path: Path, scepsy: Scepsy) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    git(whole, "init", "-q", "-b", "main")
    git(whole, "remote", "add", "origin", "git@git.example.com:team/all.git")
    shutil.copytree(project, whole / "models/llms", ignore=shutil.ignore_patterns(".git"))
    assert scepsy("init", whole / "models/llms", "--gitops").code == 0
    found = values(whole / "models/llms")
    assert found["project"] == "models/llms"
    assert found["path"] == "models/llms/rendered/one-node/llm-serving"
    assert found["repository"] == "ssh://git@git.example.com/team/all.git"


@pytest.mark.parametrize("name", ["null", "1e3", "on"])
def test_a_name_is_not_taken_for_something_else(name: str, project: Path, scepsy: Scepsy) -> None:
    settings = project / "scepsy.yaml"
    settings.write_text(settings.read_text().replace("namespace: llm-serving", f'namespace: "{name}"'))
    assert scepsy("init", project, "--gitops").code == 0
    assert values(project)["namespace"] == name


def test_a_directory_that_is_no_project_is_refused(tmp_path: Path, scepsy: Scepsy) -> None:
    (tmp_path / "file").write_text("x")
    ran = scepsy("init", tmp_path, "--gitops")
    assert (ran.code, ran.out) == (1, "")
    assert (
        ran.err == f"error: {tmp_path} is not empty\n  hint: name a new directory; --gitops alone adds to a project\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("file", "text"), [("scepsy.yaml", "kind: Projekt\n"), ("clusters/one-node.yaml", "kind: Cluster\nspec: {}\n")]
)
def test_a_document_that_is_wrong_is_shown_and_nothing_is_written(
    file: str, text: str, project: Path, scepsy: Scepsy
) -> None:
    (project / file).write_text(text)
    ran = scepsy("init", project, "--gitops")
    assert ran.code == 1
    assert f"{file}:1:" in ran.err
    assert not (project / "gitops").exists()


def test_nothing_is_written_outside_the_repository(project: Path, tmp_path: Path, scepsy: Scepsy) -> None:
    (tmp_path / "elsewhere").mkdir()
    (project / "gitops").symlink_to(tmp_path / "elsewhere")
    ran = scepsy("init", project, "--gitops")
    assert (ran.code, "would be written through the symlink" in ran.err) == (1, True)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_cannot_be_written_is_an_error(project: Path, scepsy: Scepsy) -> None:
    (project / "gitops").write_text("a file")
    ran = scepsy("init", project, "--gitops")
    assert ran.code == 1
    assert ran.err.startswith(f"error: cannot write {project}/gitops/")
    assert "Traceback" not in ran.err
