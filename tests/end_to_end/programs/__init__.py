"""The programs of a cluster, compiled from Go modules.

Their versions stand in the `go.mod` files beside this one, and nowhere else. What was compiled is kept outside the
checkout, under the hash of those files and of the recipe, so a checkout of another branch neither waits nor collides.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KUBERNETES = "k8s.io/kubernetes"
ARGO_CD = "github.com/argoproj/argo-cd/v3"


@dataclass(frozen=True)
class Program:
    """A program and where it comes from.

    Attributes:
        name: its file's name.
        folder: the folder with its `go.mod`.
        package: its main package.
    """

    name: str
    folder: str
    package: str


PROGRAMS = (
    Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Program("kube-apiserver", "kubernetes", f"{KUBERNETES}/cmd/kube-apiserver"),
    Program("kube-scheduler", "kubernetes", f"{KUBERNETES}/cmd/kube-scheduler"),
    Program("kube-controller-manager", "kubernetes", f"{KUBERNETES}/cmd/kube-controller-manager"),
    Program("kubectl", "kubernetes", f"{KUBERNETES}/cmd/kubectl"),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    Program("argocd", "argocd", f"{ARGO_CD}/cmd"),
)
# Argo CD's program looks at its own name; the last one is what Git calls for passwords.
ARGO_CD_NAMES = ("argocd-repo-server", "argocd-application-controller", "argocd-git-ask-pass")
# Of Argo CD's own manifests: its CRDs, and the ConfigMaps that it starts with.
ARGO_CD_PARTS = ("crds", "base/config")

# Without symbols the programs are a third smaller; static ones run on any machine that shares the cache.
FLAGS = ("-trimpath", "-buildvcs=false")
STRIP = "-s -w"


class MissingTool(Exception):
    """A program that the harness needs and does not build."""


@dataclass(frozen=True)
class Programs:
    """Where everything lies.

    Attributes:
        bin: the programs.
        argocd_manifests: Argo CD's own manifests, of the version that was built: CRDs and default configuration.
    """

    bin: Path
    argocd_manifests: Path

    def __getitem__(self, name: str) -> Path:
        return self.bin / name


def programs() -> Programs:
    """Return the programs, compiled first where the cache lacks them.

    Raises:
        MissingTool: Go, git, openssl or redis-server is missing.
        subprocess.CalledProcessError: a program does not compile; what Go says was printed.
    """
    require("git", "openssl", "redis-server")
    directory = cache() / recipe()
    made = Programs(directory / "bin", directory / "argocd")
    if not _complete(made):
        require("go")
        made.bin.mkdir(parents=True, exist_ok=True)
        with _alone(directory / "lock"):
            _build(made)
    return made


def require(*names: str) -> None:
    """Raise if one of these is not installed."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise MissingTool(f"the cluster tests need {' and '.join(missing)} on the PATH")


def cache() -> Path:
    """Return the folder of everything compiled; it may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scepsy" / "cluster"


def recipe() -> str:
    """Return the hash of what decides over the programs: the versions, and how they are compiled."""
    digest = hashlib.sha256(repr((PROGRAMS, FLAGS, STRIP, ARGO_CD_NAMES, ARGO_CD_PARTS)).encode())
    for path in sorted(HERE.glob("*/go.*")):
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def version(module: str, folder: str) -> str:
    """Return the version of a module, as its `go.mod` has it."""
    text = (HERE / folder / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^\s+{re.escape(module)} (v\S+) // indirect$", text, re.MULTILINE)
    assert found, f"{folder}/go.mod does not name {module}"
    return found[1]


def _complete(made: Programs) -> bool:
    return all((made.bin / program.name).exists() for program in PROGRAMS) and made.argocd_manifests.exists()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time compile; the others find what it made."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Another run compiles the programs of {path.parent}: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(made: Programs) -> None:
    missing = [program for program in PROGRAMS if not (made.bin / program.name).exists()]
    if missing:
        names = ", ".join(program.name for program in missing)
        _say(f"Compiling {names} into {made.bin}: 10 to 20 minutes on two cores the first time, then never again.")
    for program in missing:
        # Go's own file names are not atomic; a name appears here when its program is whole.
        draft = made.bin / f".{program.name}.{os.getpid()}"
        _go(program.folder, "build", *FLAGS, "-ldflags", _ldflags(program), "-o", str(draft), program.package)
        draft.replace(made.bin / program.name)
    for name in ARGO_CD_NAMES:
        if not (made.bin / name).exists():
            (made.bin / name).symlink_to("argocd")
    if not made.argocd_manifests.exists():
        module = Path(_go("argocd", "list", "-m", "-f", "{{.Dir}}", ARGO_CD).strip())
        draft = made.argocd_manifests.with_name(f".argocd.{os.getpid()}")
        for part in ARGO_CD_PARTS:
            shutil.copytree(module / "manifests" / part, draft / part, copy_function=shutil.copyfile)
            # Folders of Go's module cache are read-only, and so are their copies.
            (draft / part).chmod(0o755)
        draft.replace(made.argocd_manifests)


def _ldflags(program: Program) -> str:
    """Return the linker's flags; Kubernetes' programs learn their version from it, as in its own releases."""
    if program.folder != "kubernetes":
        return STRIP
    number = version(KUBERNETES, "kubernetes")
    major, minor, _ = number.removeprefix("v").split(".", 2)
    values = {"gitVersion": number, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join([STRIP, *(f"-X {p}.{key}={value}" for p in packages for key, value in values.items())])


def _go(folder: str, *arguments: str) -> str:
    # GOFLAGS of the machine could change what is built; modules are never rewritten by a build.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    done = subprocess.run(
        ["go", *arguments], cwd=HERE / folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _say(line: str) -> None:
    """Tell the person who waits, past pytest's capture."""
    print(f"\n{line}", file=sys.__stderr__, flush=True)


def main() -> int:
    """Compile, as a command: `python -m tests.end_to_end.programs`."""
    try:
        made = programs()
    except MissingTool as error:
        _say(str(error))
        return 1
    _say(f"The cluster's programs lie in {made.bin}.")
    return 0
