"""Create a project, empty or from an example."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from scepsy.documents import Cluster, Profile, Workflow, did_you_mean, load_file
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.errors import ScepsyError
from scepsy.repository.git import ask, git
from scepsy.repository.worktree import open_worktree_or_none

_NAME, _EMAIL = "Scepsy example", "scepsy@example.invalid"

_README = """\
# {title}

Workflows, clusters and profiles that [scepsy](https://scepsy.dev) compiles into Kubernetes manifests.

    scepsy compile            compile into plans/ and rendered/
    scepsy compile --commit   the same, and commit it; Argo CD syncs rendered/
    scepsy explain            the reasons for the allocation
"""

_EMPTY = """\
apiVersion: scepsy.dev/v1alpha1
kind: Project
metadata:
  name: {name}
spec:
  namespace: llm-serving
  engine:
    image: vllm/vllm-openai:v0.24.0   # pin it with a digest: …@sha256:…
    version: 0.24.0                   # of the engine in that image; profiles must match it
"""


def examples() -> dict[str, str]:
    """Return what every example is about, by name."""
    return {name: str(entry["about"]) for name, entry in _index().items()}


def create(directory: Path, example: str | None) -> list[str]:
    """Create a project.

    Args:
        directory: a new or empty directory.
        example: name of an example to fill it with.

    Returns:
        lines for the user: what was done, what to do next.

    Raises:
        ScepsyError: the directory holds something, or there is no such example.
    """
    if example is not None and example not in _index():
        raise ScepsyError(f'there is no example "{example}"', did_you_mean(example, list(_index())))
    if directory.exists() and any(directory.iterdir()):
        raise ScepsyError(f"{directory} is not empty", "name a new directory; --gitops alone adds to a project")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "README.md").write_text(_README.format(title=directory.resolve().name), encoding="utf-8")
        if example is None:
            name = "".join(c if c.isalnum() else "-" for c in directory.resolve().name.lower()).strip("-") or "project"
            (directory / "scepsy.yaml").write_text(_EMPTY.format(name=name[:40].strip("-")), encoding="utf-8")
            for folder in ("workflows", "clusters", "profiles", "traces"):
                (directory / folder).mkdir()
        else:
            _fill(directory, example)
    except OSError as error:
        raise ScepsyError(f"cannot write to {directory}: {error.strerror}", "name another directory") from error
    first = "add documents to workflows/, clusters/ and profiles/ (kinds: scepsy schema), then: scepsy compile"
    following = f"scepsy compile --project {directory} --commit" if example else first
    done = _create_repository(directory, f"Start from the example {example}" if example else None)
    return [*done, f"Next: {following}"]


def _index() -> dict[str, dict[str, object]]:
    data = (files("scepsy.examples") / "index.yaml").read_bytes()
    index: dict[str, dict[str, object]] = parse(SourceFile("index.yaml", data))[0].root.plain()
    return index


def _fill(directory: Path, example: str) -> None:
    """Copy the example's documents, and the profiles and traces that they need."""
    entry = _index()[example]
    with as_file(files("scepsy.examples")) as shipped:
        shutil.copyfile(shipped / "scepsy.yaml", directory / "scepsy.yaml")
        cluster = _copy(shipped, directory, f"clusters/{entry['cluster']}.yaml")
        products = {n.product for c in load_file(cluster, cluster.name, Cluster)[1] for n in c.document.spec.nodes}
        models: set[str] = set()
        workflows = entry["workflows"]
        for name in workflows if isinstance(workflows, list) else []:
            path = _copy(shipped, directory, f"workflows/{name}.yaml")
            for loaded in load_file(path, path.name, Workflow)[1]:
                models.update(llm.model for llm in loaded.document.spec.llms)
                traces = loaded.document.spec.demand.traces or loaded.document.spec.demand.summary
                if traces is not None:
                    _copy(shipped, directory, f"traces/{Path(traces).name}")
        for path in sorted((shipped / "profiles").glob("*.yaml")):
            for loaded_profile in load_file(path, path.name, Profile)[1]:
                spec = loaded_profile.document.spec
                if spec.model in models and spec.product in products:
                    _copy(shipped, directory, f"profiles/{path.name}")


def _copy(shipped: Path, directory: Path, name: str) -> Path:
    target = directory / name
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(shipped / name, target)
    return target


def _create_repository(directory: Path, subject: str | None) -> list[str]:
    """Make a directory a Git repository, and commit what it holds if `subject` is given.

    Without a subject a directory that lies in a repository stays part of it. If Git has no user.email, the
    new repository gets its own identity, so that an example works on a fresh machine.

    Returns:
        lines for the user: what was done.

    Raises:
        GitFailed: git is not installed, or failed.
    """
    done = [f"Wrote {directory}"]
    if subject is None and open_worktree_or_none(directory) is not None:
        return [*done, "It is inside a Git repository: commit it there (git add, git commit)"]
    around = open_worktree_or_none(directory)
    if around is not None:
        done.append(
            f"It is inside the Git repository {around.root}, but is a separate repository, not part of that one"
        )
    git(directory, "init", "--quiet", "--initial-branch=main")
    if subject is None:
        return [*done, "Made it a Git repository"]
    if ask(directory, "config", "user.email") is None:
        git(directory, "config", "user.name", _NAME)
        git(directory, "config", "user.email", _EMAIL)
        done.append(f"Git knows no user.email here: this repository uses {_NAME} <{_EMAIL}>")
    git(directory, "add", "--all", ".")
    git(directory, "commit", "--quiet", "--no-gpg-sign", "-m", subject)
    return [*done, "Made it a Git repository and committed the example"]
