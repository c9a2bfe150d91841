"""Where to push: which remote, at which address, with which credentials; and how no secret gets into a message.

Of the target repository's own configuration only data is taken: the address of the remote, headers for it, and who
commits. What could run a program (``core.sshCommand``, ``credential.helper``, ``url.*.insteadOf``,
``remote.*.receivepack``, ``ext::`` addresses, hooks) or weaken TLS is not. The environment, and the user's and the
system's configuration of git, are trusted.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from scepsy.errors import ScepsyError
from scepsy.remote_api.credentials import may_send_token, read_token
from scepsy.repository.commit_message import one_line, public_url
from scepsy.repository.git import ask
from scepsy.repository.worktree import WorkTree

TOKEN, TOKEN_FILE, USER = "SCEPSY_GIT_TOKEN", "SCEPSY_GIT_TOKEN_FILE", "SCEPSY_GIT_USER"
_USER = "x-access-token"

_NETWORK = {
    "https": "https:ssh",
    "http": "http:https:ssh",
    "ssh": "https:ssh",
    "git+ssh": "https:ssh",
    "ssh+git": "https:ssh",
}
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCP_LIKE = re.compile(r"(?![A-Za-z0-9+.-]+://)(?:[^@/:]+@)?(?:\[[^\]]+\]|[^@/:\[\]-][^@/:\[\]]*):(?!//).+", re.DOTALL)
_IN_URL = re.compile(r"(https?://)[^/\s@'\"]*@", re.IGNORECASE)
_HEADER = re.compile(r"(authorization\s*:\s*)[^\r\n]+", re.IGNORECASE)
_HIDDEN = "***"


class NoRemote(ScepsyError):
    """There is nowhere to push to, or the address is not one that is pushed to."""


@dataclass(frozen=True)
class Remote:
    """An address to push to.

    Attributes:
        name: the remote's name, or the address as people may read it where it has none.
        url: the address, without a password.
        protocols: what git may speak, in the form of ``GIT_ALLOW_PROTOCOL``.
        settings: git's configuration for talking to it; holds secrets, so it goes by the environment.
        secrets: what no message may hold.
    """

    name: str
    url: str
    protocols: str
    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The address as anyone may read it; a path where it is one."""
        return public_url(self.url) or (self.url if self.protocols == "file" else "")

    def redact(self, text: str) -> str:
        """Return a text, such as git's output, with every secret redacted out."""
        return redacted(text, self.secrets)


def redacted(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return a text without these secrets, without users and passwords in URLs, and without authorization headers."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _HEADER.sub(rf"\1{_HIDDEN}", _IN_URL.sub(rf"\1{_HIDDEN}@", text))


def find_remote(tree: WorkTree, name: str | None, environment: Mapping[str, str] = os.environ) -> Remote:
    """Return the remote that a branch is pushed to.

    Args:
        tree: the work tree.
        name: the remote's name; chosen as git does if None.
        environment: may hold the token.

    Raises:
        NoRemote: there is no such remote, or nothing is pushed to such an address.
        GitFailed: git fails.
        ScepsyError: the token's file cannot be read.
    """
    chosen = name or _usual(tree)
    url = _first(tree, f"remote.{chosen}.pushurl") or _first(tree, f"remote.{chosen}.url")
    if not url:
        named = (ask(tree.root, "remote") or "").split()
        known = f"remotes here: {', '.join(named)}" if named else f"name one: git remote add {chosen} URL"
        raise NoRemote(f'there is no remote "{one_line(chosen)}" to push to', known)
    header = None
    if _parts(url) and url.lower().startswith(("http://", "https://")):
        asked = ("config", "--local", "--includes", "--get-urlmatch", "http.extraHeader", _bare(url))
        header = ask(tree.root, *asked)
    return _remote(chosen, url, tree.root, header, environment)


def given_remote(url: str, tree: WorkTree, environment: Mapping[str, str] = os.environ) -> Remote:
    """Return the remote at an address that was given on the command line.

    Raises:
        NoRemote: it holds a password, which everybody on this machine can read there, or is of another kind.
        ScepsyError: the token's file cannot be read.
    """
    parts = _parts(url)
    if parts is not None and parts.password is not None:
        raise NoRemote(
            "the address contains a password, which every process on this machine can read on a command line",
            f"remove it from the address, and set {TOKEN} to the token",
        )
    remote = _remote("", url, tree.root, None, environment)
    return Remote(remote.shown or "the repository", remote.url, remote.protocols, remote.settings, remote.secrets)


def origin(tree: WorkTree) -> str:
    """Return the address of the remote `origin` as anyone may read it; empty where there is none, or only a path.

    Raises:
        GitFailed: git fails.
    """
    return public_url(_first(tree, "remote.origin.url"))


def _usual(tree: WorkTree) -> str:
    """Choose as git does: where the branch, or every branch, is pushed; where it came from; origin."""
    asked = [f"branch.{tree.branch}.pushRemote", "remote.pushDefault", f"branch.{tree.branch}.remote"]
    found = (ask(tree.root, "config", "--get", key) for key in asked)
    return next((name for name in found if name and name != "."), "origin")


def _first(tree: WorkTree, key: str) -> str:
    return (ask(tree.root, "config", "--null", "--get-all", key) or "").partition("\0")[0]


def _remote(name: str, url: str, where: Path, header: str | None, environment: Mapping[str, str]) -> Remote:
    if "\n" in url or "\0" in url or url.startswith("-"):
        raise NoRemote(f"the address of {name or 'the repository'} is not valid", "use https:// or ssh://")
    label = name or redacted(url)
    if _HELPER.match(url):
        raise NoRemote(
            f"{label} needs the program git-remote-{url.partition('::')[0]}, which Scepsy does not run",
            "use an address with https:// or ssh://",
        )
    if _SCP_LIKE.fullmatch(url):
        return Remote(name, url, _NETWORK["ssh"])
    parts = _parts(url)
    scheme = parts.scheme.lower() if parts and "://" in url else "file"
    if scheme == "file":
        return _directory(label, name, url, where)
    if scheme not in _NETWORK or parts is None:
        raise NoRemote(f"{label} uses {scheme}, which is not supported for pushing", "use https:// or ssh://")
    if not scheme.startswith("http"):
        return Remote(name, url, _NETWORK[scheme])
    return _over_http(name, url, header, environment)


def _directory(label: str, name: str, url: str, where: Path) -> Remote:
    # `git push` runs the hooks that lie in such a repository. Asked outside it: its configuration is not trusted.
    if ask(Path("/"), "config", "--get", "protocol.file.allow") != "always":
        raise NoRemote(
            f"{label} is a directory on this machine, whose hooks would run here",
            "serve it over https or ssh, or if you trust it: git config --global protocol.file.allow always",
        )
    path = unquote(urlsplit(url).path) if url.startswith("file:") else str(where / url)
    return Remote(name, path, "file")


def _over_http(name: str, url: str, header: str | None, environment: Mapping[str, str]) -> Remote:
    parts = urlsplit(url)
    bare, origin = _bare(url), f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
    settings: list[tuple[str, str]] = []
    secrets: set[str] = set()
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    token = read_token(environment, TOKEN, TOKEN_FILE)
    if token is not None and may_send_token(parts.scheme, parts.hostname or ""):
        header = _basic(environment.get(USER) or _USER, token)
    elif parts.password is not None:
        header = _basic(user, password)
    elif user:
        settings.append((f"credential.{origin}.username", user))
        secrets.add(user)  # may be a token
    if header:
        settings += [(f"http.{origin}.extraHeader", header), (f"http.{origin}.followRedirects", "false")]
        secrets |= {header, header.split()[-1]}
    secrets |= {text for text in (password, parts.password, token) if text}
    return Remote(name, bare, _NETWORK[parts.scheme], tuple(settings), tuple(sorted(s for s in secrets if len(s) > 2)))


def _basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _parts(url: str) -> SplitResult | None:
    """Return the parts of a URL, or None if it is not a URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return None
