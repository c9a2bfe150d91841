"""The one door to the git program: every call goes through :func:`git`, or :func:`network` where it needs a remote."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from scepsy.errors import ScepsyError

# Of the GIT_* variables only these reach git: who commits and where the user's settings are. The others (GIT_DIR,
# GIT_INDEX_FILE, GIT_WORK_TREE, GIT_GLOB_PATHSPECS ...) are set inside hooks and aliases and would point us elsewhere.
_KEPT_VARIABLES = (
    "GIT_AUTHOR_",
    "GIT_COMMITTER_",
    "GIT_CONFIG_",
    "GIT_EXEC_PATH",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_TEST_ASSUME_DIFFERENT_OWNER",
)

_NOTHING: Mapping[str, str] = MappingProxyType({})

_ENVIRONMENT = {
    "LC_ALL": "C",  # messages are matched below
    "GIT_OPTIONAL_LOCKS": "0",  # looking must not refresh the index of the user's tree
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "none",  # a partial clone must not fetch behind our back: that runs ssh and helpers
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # replacements are local: Argo CD reads the objects themselves
}

# A compiler runs on repositories it was not written for: none of their programs may run.
_QUIET = (
    "--no-pager",
    "--literal-pathspecs",
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "hook.reference-transaction.enabled=false"),  # hooks in the configuration, from git 2.54 on
    *("-c", "hook.post-index-change.enabled=false"),
    *("-c", "hook.pre-push.enabled=false"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "log.showSignature=false"),  # it runs gpg
    *("-c", "i18n.commitEncoding=UTF-8"),
    # A commit that drives a cluster names a person on purpose, never root@hostname.
    *("-c", "user.useConfigOnly=true"),
)
_OPTIONS = (*_QUIET, *("-c", "credential.helper="), *("-c", "core.askPass="))

# To talk to a remote git needs what the person set up for it; never called in a repository that is not ours.
_NETWORK_VARIABLES = ("GIT_ASKPASS", "GIT_SSH", "GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_", "GIT_PROXY")
_NETWORK_OPTIONS = (
    *_QUIET,
    *("-c", "fetch.recurseSubmodules=no"),
    *("-c", "push.recurseSubmodules=no"),
    *("-c", "push.followTags=false"),
    *("-c", "push.gpgSign=false"),
    *("-c", "core.alternateRefsCommand=true"),  # the program: else git runs in the repository that objects come from
)


class GitFailed(ScepsyError):
    """A git command failed; the message is git's stderr.

    Args:
        message: what failed.
        hint: what to do next.
        status: git's exit status; 0 when git did not run.
        stderr: git's standard error.
    """

    def __init__(self, message: str, hint: str = "", status: int = 0, stderr: str = "") -> None:
        super().__init__(message, hint)
        self.status = status
        self.stderr = stderr


def environment(inherited: Mapping[str, str], variables: Mapping[str, str] = _NOTHING) -> dict[str, str]:
    """Return the environment git runs in.

    Args:
        inherited: the environment of this process.
        variables: what one call adds to it, such as ``GIT_INDEX_FILE``.

    Returns:
        What was inherited, without the variables that point git elsewhere, plus ours.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("GIT_") or (name.startswith(_KEPT_VARIABLES) and name != "GIT_CONFIG")
    }
    return kept | _ENVIRONMENT | dict(variables)


def git(where: Path, *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] = _NOTHING) -> bytes:
    """Run git and return what it printed.

    Args:
        where: the directory to run in.
        arguments: the subcommand and its arguments.
        stdin: what git reads.
        variables: environment variables for this call.

    Returns:
        Standard output.

    Raises:
        GitFailed: when git is not there, refuses the repository, or fails.
    """
    command = ["git", *_OPTIONS, "-C", str(where), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, arguments never seen by a shell
            command, input=stdin, capture_output=True, check=False, env=environment(os.environ, variables)
        )
    except FileNotFoundError:
        raise GitFailed("git is not installed, or not on PATH", "install git 2.34 or later") from None
    except (OSError, ValueError) as error:
        raise GitFailed(f"git could not be run: {error}") from None
    if done.returncode == 0:
        return done.stdout
    stderr = done.stderr.decode(errors="replace").strip()
    if "dubious ownership" in stderr or "unsafe repository" in stderr:
        named = re.search(r"repository at '(.*)'", stderr) or re.search(r"repository \('(.*)' is owned", stderr)
        place = named[1] if named else str(where)
        raise GitFailed(
            f"git refuses the repository at {place}: it belongs to another user (safe.directory)",
            f"if you trust it: git config --global --add safe.directory {shlex.quote(place)}",
            done.returncode,
            stderr,
        )
    detail = stderr or f"exit status {done.returncode}"
    raise GitFailed(f"git {arguments[0]} failed in {where}: {detail}", "", done.returncode, stderr)


@dataclass(frozen=True)
class RemoteOutput:
    """Git's output from talking to a remote.

    Attributes:
        status: its exit status; None when it took too long and was ended.
        stdout: standard output.
        stderr: standard error.
    """

    status: int | None
    stdout: str
    stderr: str


def network(
    where: Path, *arguments: str, protocols: str, settings: Iterable[tuple[str, str]] = (), seconds: float
) -> RemoteOutput:
    """Run git where it talks to a remote, with the user's credentials.

    Args:
        where: a repository of ours: whatever its configuration names is run.
        arguments: the subcommand and its arguments; nothing secret.
        protocols: what git may speak, in the form of ``GIT_ALLOW_PROTOCOL``.
        settings: configuration for this call; may be secret, so it goes by the environment.
        seconds: it is ended after this time.

    Raises:
        GitFailed: when git is not there or cannot be run.
    """
    network_only = {name: value for name, value in os.environ.items() if name.startswith(_NETWORK_VARIABLES)}
    variables = network_only | configured(settings) | {"GIT_ALLOW_PROTOCOL": protocols}
    command = ["git", *_NETWORK_OPTIONS, "-C", str(where), *arguments]
    try:
        # A new session: nothing in it can ask on the terminal, and it ends with all its children.
        process = subprocess.Popen(  # noqa: S603 - a fixed program, arguments never seen by a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(os.environ, variables),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise GitFailed("git is not installed, or not on PATH", "install git 2.34 or later") from None
    except (OSError, ValueError) as error:
        raise GitFailed(f"git could not be run: {error}") from None
    status: int | None
    try:
        out, err = process.communicate(timeout=seconds)
        status = process.returncode
    except subprocess.TimeoutExpired:
        _end(process)
        out, err, status = b"", b"", None
    except BaseException:
        _end(process)
        raise
    return RemoteOutput(status, out.decode(errors="replace"), err.decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def configured(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return variables that give git these settings, after those that the environment gives it already."""
    first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    variables: dict[str, str] = {}
    count = first
    for key, value in settings:
        variables |= {f"GIT_CONFIG_KEY_{count}": key, f"GIT_CONFIG_VALUE_{count}": value}
        count += 1
    return variables | {"GIT_CONFIG_COUNT": str(count)}


def line(where: Path, *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] = _NOTHING) -> str:
    """Run git for one line, such as a hash or a path.

    Args:
        where: the directory to run in.
        arguments: the subcommand and its arguments.
        stdin: what git reads.
        variables: environment variables for this call.

    Returns:
        The line without its newline.

    Raises:
        GitFailed: as :func:`git`.
    """
    # Only the newline that git added: a directory's name may end in white space, or in a newline.
    return os.fsdecode(git(where, *arguments, stdin=stdin, variables=variables).removesuffix(b"\n"))


def ask(where: Path, *arguments: str) -> str | None:
    """Run git for one line that need not exist, such as the hash of a ref.

    Args:
        where: the directory to run in.
        arguments: the subcommand and its arguments.

    Returns:
        The line without its newline; None when git answers with status 1 (there is none).

    Raises:
        GitFailed: for every other failure.
    """
    try:
        return line(where, *arguments)
    except GitFailed as error:
        if error.status == 1:
            return None
        raise


def no_filters(where: Path) -> dict[str, str]:
    """Return variables that keep git from running the clean filters that are configured.

    Whatever writes an index may compare files that changed in the same instant as the old index with their entries, and
    for that runs their filters. Without them git takes such a file for changed until the next refresh: harmless.

    Args:
        where: the directory git will run in.

    Returns:
        Variables for :func:`git`.

    Raises:
        GitFailed: when git fails.
    """
    names = ask(where, "config", "--name-only", "-z", "--get-regexp", r"^filter\.") or ""
    drivers = sorted({name.rpartition(".")[0] for name in names.split("\0") if name})
    # As variables, since a driver's name may hold what ``-c`` would misread; after those that the person set.
    off = (("clean", ""), ("process", ""), ("required", "false"))
    return configured((f"{driver}.{key}", value) for driver in drivers for key, value in off)
