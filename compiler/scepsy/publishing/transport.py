"""What is asked of a remote (where its branches are, their commits, to take a commit), and what its refusals mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from scepsy.errors import ScepsyError
from scepsy.publishing.remote import TOKEN, Remote
from scepsy.repository.commit_message import one_line
from scepsy.repository.git import RemoteOutput, network

TIMEOUT = "SCEPSY_GIT_TIMEOUT"
_SECONDS = 120.0
_SHOWN = 6  # lines of a remote's output that are shown

# The first pattern that matches git's stderr names the error: (pattern, what, what to do, worth another try).
_TOKEN_HINT = (
    f"put a token that may push into {TOKEN}, or set up git's credential helper or ssh for your user"
    " (the repository's own configuration is not used for that)"
)
_REMOTE_ERRORS: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"returned error: 403|HTTP 403",
        "denies access (403)",
        f"the credentials lack permission: {_TOKEN_HINT}",
        False,
    ),
    (
        r"Authentication failed|returned error: 401|HTTP 401|could not read (Username|Password)"
        r"|terminal prompts disabled|Permission denied \(|Invalid username or password|HTTP Basic: Access denied",
        "rejects the credentials (401)",
        _TOKEN_HINT,
        False,
    ),
    (r"Host key verification failed", "has an unknown ssh host key", "add its key to ~/.ssh/known_hosts", False),
    (
        r"SSL certificate problem|certificate verif|server certificate",
        "has a certificate that is not trusted",
        "trust its certificate authority: git config --global http.sslCAInfo FILE",
        False,
    ),
    (
        r"Repository not found|repository '.*' not found|returned error: 404|does not appear to be a git repository",
        "has no such repository, or the credentials cannot read it",
        f"check the address; else {_TOKEN_HINT}",
        False,
    ),
    (
        r"git-http-push failed|not valid: is this a git repository|bad line length character|invalid server response",
        "is not a Git repository",
        "check the address: a login page or a shell's greeting may answer instead",
        False,
    ),
    (
        r"returned error: 30\d|unable to update url base from redirection",
        "has moved (redirected)",
        "git remote set-url NAME its new address",
        False,
    ),
    (
        r"transport '.*' not allowed",
        "uses a protocol that is not allowed",
        "use https:// or ssh://",
        False,
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "could not be read: the disk is full",
        "free disk space, then re-run",
        False,
    ),
    (r"returned error: 429", "limits the rate of requests (429)", "re-run later", True),
    (
        r"Could not resolve host|Name or service not known|Temporary failure in name resolution",
        "cannot be found: the host name does not resolve",
        "check the network",
        True,
    ),
    (
        r"Connection (refused|reset|closed|timed out)|Failed to connect|Couldn't connect|Network is unreachable"
        r"|No route to host|returned error: 5\d\d|RPC failed|hung up|early EOF|unexpected disconnect|Empty reply"
        r"|unable to access|send-pack|fetch-pack|Broken pipe",
        "is unavailable",
        "re-run when it is available",
        True,
    ),
)


class RemoteFailed(ScepsyError):
    """A remote could not be used.

    Args:
        message: what is wrong.
        hint: what to do next.
        again: whether another try may help.
    """

    def __init__(self, message: str, hint: str = "", again: bool = False) -> None:
        super().__init__(message, hint)
        self.again = again


class Declined(ScepsyError):
    """The remote does not take a commit on this branch."""


def timeout(environment: Mapping[str, str] = os.environ) -> float:
    """Return how long one exchange with a remote may take, seconds.

    Raises:
        ScepsyError: the variable is not a number.
    """
    text = environment.get(TIMEOUT, "")
    try:
        seconds = float(text) if text else _SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ScepsyError(
            f"{TIMEOUT} is {text!r:.40}, not a number of seconds", "set it to one such as 120, or unset it"
        )
    return seconds


def heads(where: Path, remote: Remote, branches: Iterable[str]) -> dict[str, str]:
    """Ask which commits branches are at.

    Args:
        where: a scratch worktree of that remote.
        remote: the remote.
        branches: their names.

    Returns:
        The commit of each branch that there is.

    Raises:
        RemoteFailed: it does not answer.
    """
    references = {f"refs/heads/{branch}": branch for branch in branches}
    output = _asked(where, remote, "ls-remote", "origin", *references)
    pairs = (line.split("\t") for line in output.stdout.splitlines() if "\t" in line)
    return {references[name]: oid for oid, name in pairs if name in references}


def default_branch(where: Path, remote: Remote) -> str | None:
    """Ask which branch the remote's HEAD names; None where it names none that it has.

    Raises:
        RemoteFailed: it does not answer.
    """
    output = _asked(where, remote, "ls-remote", "--symref", "origin", "HEAD")
    found = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", output.stdout, re.MULTILINE)
    return found[1] if found else None


def fetch(where: Path, remote: Remote, branch: str, depth: int | None = None) -> None:
    """Bring a branch's commits here, as `refs/scepsy/remote`.

    Args:
        where: a scratch worktree of that remote.
        remote: the remote.
        branch: the branch, which is there.
        depth: so many commits are enough; all if None.

    Raises:
        RemoteFailed: it does not answer, or the branch does not exist.
    """
    some = () if depth is None else (f"--depth={depth}",)
    flags = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
    _asked(where, remote, "fetch", *flags, *some, "origin", f"+refs/heads/{branch}:refs/scepsy/remote")


def push(where: Path, remote: Remote, branch: str, commit: str) -> bool:
    """Ask the remote to move a branch on to a commit; never by force.

    Returns:
        Whether it did; False when another push moved the branch first.

    Raises:
        Declined: it takes no such commit.
        RemoteFailed: it does not answer; it may have taken the commit.
    """
    flags = ("--porcelain", "--no-verify", "--no-signed", "--no-follow-tags", "--no-recurse-submodules")
    output = _talk(where, remote, "push", *flags, "origin", f"{commit}:refs/heads/{branch}")
    if output.status == 0:
        return True
    refusal = re.search(r"^!\t\S+\t\[(remote )?rejected\] ?(?:\((.*)\))?", output.stdout, re.MULTILINE)
    if refusal is None:
        raise _failure(remote, output)
    reason = refusal[2] or ""
    if not refusal[1] or re.search(
        r"cannot lock ref|failed to (lock|update ref)|incorrect old value|already exists", reason
    ):
        return False
    words = [line for line in output.stderr.splitlines() if line.startswith("remote:")]
    detail = _indented(remote, "\n".join(line.removeprefix("remote:").strip() for line in words))
    raise Declined(
        f"{remote.name} rejects commits on the branch {branch}: {one_line(remote.redact(reason))}{detail}",
        "where changes need a review, push to another branch and open a pull request from it: --branch NAME",
    )


def _asked(where: Path, remote: Remote, *arguments: str) -> RemoteOutput:
    output = _talk(where, remote, *arguments)
    if output.status != 0:
        raise _failure(remote, output)
    return output


def _talk(where: Path, remote: Remote, *arguments: str) -> RemoteOutput:
    return network(where, *arguments, protocols=remote.protocols, settings=remote.settings, seconds=timeout())


def _failure(remote: Remote, output: RemoteOutput) -> RemoteFailed:
    place = f"{remote.name} ({remote.shown})" if remote.shown and remote.shown != remote.name else remote.name
    if output.status is None:
        return RemoteFailed(
            f"{place} did not answer within {timeout():g} s",
            f"re-run; {TIMEOUT} sets another timeout",
        )
    detail = _indented(remote, output.stderr)
    for pattern, what, remedy, again in _REMOTE_ERRORS:
        if re.search(pattern, output.stderr):
            return RemoteFailed(f"{place} {what}{detail}", remedy, again)
    return RemoteFailed(
        f"{place} could not be used{detail or f': exit status {output.status}'}",
        f"check the address; see the output of: git ls-remote {remote.name}",
    )


def _indented(remote: Remote, text: str) -> str:
    """Return output as indented lines, without secrets and without what steers a terminal."""
    lines = [one_line(line) for line in remote.redact(text).splitlines()]
    return "".join(f"\n    {line}" for line in [line for line in lines if line][:_SHOWN])
