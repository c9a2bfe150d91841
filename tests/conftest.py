"""What several test folders share: the command line as a function, and Git without this machine's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import settings

from scepsy.cli import main
from scepsy.traces.trace import Trace
from scepsy.traces.trace_reader import read_trace

# No test fails because the machine is busy.
settings.register_profile("scepsy", deadline=None)
settings.load_profile("scepsy")


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Scepsy = Callable[..., Ran]
Demo = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden directories")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests on a real cluster and on a real vLLM, and those that take minutes, to their own targets."""
    if collection_path.parent != Path(__file__).parent or collection_path.name not in (
        "end_to_end",
        "vllm",
        "publishing_at_length",
    ):
        return None
    named = any(collection_path.name in Path(str(argument)).parts for argument in config.args)
    return None if named else True


@pytest.fixture
def git_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which Git knows who commits, and nothing of this machine."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    # The sample hooks are a dozen files of each repository that is made, copied and removed: left out.
    for name in ("hooks", "info"):
        (home / "template" / name).mkdir(parents=True)
    (home / ".gitconfig").write_text(
        f"[user]\n name = Ada Lovelace\n email = ada@example.com\n[init]\n templateDir = {home / 'template'}\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return home


_TRACES: dict[tuple[bytes, str, tuple[str, ...]], tuple[Trace, str]] = {}
"""Traces that were read, with their digests, by the bytes of the file, its name in messages and the LLMs."""


def _read_trace(path: Path, name: str, llms: Collection[str]) -> tuple[Trace, str]:
    """Read a trace like `read_trace`, but equal bytes only once: most tests compile the traces of the same examples."""
    try:
        key = sha256(path.read_bytes()).digest(), name, tuple(llms)
    except OSError:
        return read_trace(path, name, llms)
    if key not in _TRACES:
        _TRACES[key] = read_trace(path, name, llms)
    return _TRACES[key]


@pytest.fixture
def scepsy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, git_home: Path) -> Scepsy:
    """Run a command as a user would: `scepsy("compile", "--project", path)`."""
    monkeypatch.setattr("scepsy.demand.workflow_demand.read_trace", _read_trace)

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["scepsy", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def _demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every example is made and compiled once, to be copied for every test."""
    return tmp_path_factory.mktemp("demos")


@pytest.fixture
def demo(scepsy: Scepsy, _demos: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Lay down an example, with its Git repository: `demo(path, "both", compiled=True)`.

    It is as `scepsy init --example` leaves it, or `scepsy compile --commit` after that, so many days ago.
    """

    def lay(path: Path, name: str = "rag-reranker", *, compiled: bool = False, days: int = 0) -> Path:
        made = _demos / f"{name}-{'compiled' if compiled else 'new'}-{days}"
        if not made.exists():
            # Known by its name only once it is whole.
            draft = _demos / f"draft-of-{made.name}"
            shutil.rmtree(draft, ignore_errors=True)
            if compiled:
                lay(draft, name)
                with monkeypatch.context() as patch:
                    patch.setenv("GIT_COMMITTER_DATE", f"@{int(time.time()) - days * 86400} +0000")
                    ran = scepsy("compile", "--project", draft, "--commit")
            else:
                ran = scepsy("init", draft, "--example", name)
            assert ran.code == 0, ran.err
            draft.rename(made)
        return Path(shutil.copytree(made, path, symlinks=True))

    return lay


def git(directory: Path, *arguments: str) -> str:
    """Run git in a directory and return what it printed."""
    done = subprocess.run(["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
