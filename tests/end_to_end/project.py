"""A repository that uses Scepsy, and the remote that Argo CD reads it from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from scepsy.documents import Cluster, Plan, Project, load_file
from scepsy.manifests import render
from tests.conftest import Scepsy, git

BRANCH = "main"
D = TypeVar("D", Cluster, Plan, Project)


@dataclass(frozen=True)
class ScepsyProject:
    """A working copy and its remote.

    Attributes:
        directory: the working copy.
        remote: a bare repository.
        scepsy: runs a command.
        served: where the remote is served; a directory of this machine if empty.
    """

    directory: Path
    remote: Path
    scepsy: Scepsy
    served: str = ""

    @classmethod
    def from_example(
        cls, directory: Path, example: str, namespace: str, scepsy: Scepsy, sharing: str = ""
    ) -> ScepsyProject:
        """Do what a user does: init, choose a namespace (and a way of sharing, if any is given), compile, commit."""
        made = cls(directory / "work", directory / "remote.git", scepsy)
        made._run("init", made.directory, "--example", example)
        directory.mkdir(exist_ok=True)
        git(directory, "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(made.remote))
        made.edit("scepsy.yaml", "namespace: llm-serving", f"namespace: {namespace}")
        if sharing:
            [document] = (made.directory / "clusters").iterdir()
            made.edit(f"clusters/{document.name}", f"sharing: {made.cluster.spec.sharing}", f"sharing: {sharing}")
        made.compile()
        return made

    @property
    def url(self) -> str:
        """Where Argo CD reads it."""
        return self.served or self.remote.as_uri()

    @property
    def settings(self) -> Project:
        """The Project document."""
        return _only(self.directory / "scepsy.yaml", Project)

    @property
    def namespace(self) -> str:
        """Where its objects go."""
        return self.settings.spec.namespace

    @property
    def cluster(self) -> Cluster:
        """The Cluster document."""
        [path] = (self.directory / "clusters").iterdir()
        return _only(path, Cluster)

    @property
    def plan(self) -> Plan:
        """The Plan as it was written last."""
        [path] = (self.directory / "plans").iterdir()
        return _only(path, Plan)

    @property
    def path(self) -> str:
        """The folder that Argo CD syncs, relative to the repository."""
        return f"rendered/{self.cluster.metadata.name}/{self.namespace}"

    @property
    def head(self) -> str:
        """The commit that was made last."""
        return git(self.directory, "rev-parse", "HEAD")

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file; what is changed must be there once."""
        path = self.directory / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def compile(self, *options: str) -> None:
        """Commit what was edited, compile, and commit that."""
        if git(self.directory, "status", "--porcelain"):
            git(self.directory, "add", "--all")
            git(self.directory, "commit", "--quiet", "--message", "Edit")
        self._run("compile", "--project", self.directory, "--commit", *options)

    def publish(self, plan: Plan) -> None:
        """Commit and push what a Plan renders to, whoever made it, and nothing else in its folder."""
        folder = self.directory / self.path
        for path in folder.glob("*"):
            path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in render(plan, self.cluster, self.settings).items():
            (folder / name).write_bytes(content)
        self.commit("A plan")

    def commit(self, message: str) -> None:
        """Commit everything as it is, and push."""
        git(self.directory, "add", "--all")
        git(self.directory, "commit", "--quiet", "--allow-empty", "--message", message)
        self.push()

    def push(self) -> None:
        """Push the last commit."""
        git(self.directory, "push", "--quiet", "--force", str(self.remote), f"HEAD:refs/heads/{BRANCH}")

    def _run(self, *arguments: object) -> None:
        ran = self.scepsy(*arguments)
        assert ran.code == 0, ran.err


class MakeProject(Protocol):
    """The fixture `project`."""

    def __call__(self, example: str, push: bool = True, sharing: str = "") -> ScepsyProject:
        """Make a project from an example, with the example's way of sharing unless another is given."""


def _only(path: Path, kind: type[D]) -> D:
    _, [loaded], problems = load_file(path, path.name, kind)
    assert problems == []
    return loaded.document
