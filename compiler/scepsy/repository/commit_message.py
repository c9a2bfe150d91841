"""The commit message: what was compiled from which commit, in trailers that Argo CD and its tools understand."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from scepsy.repository.git import GitFailed, git, line
from scepsy.repository.worktree import WorkTree

_REFERENCE = "Argocd-reference-commit-"

# Argo CD accepts 5 to 40 hexadecimal digits; of a SHA-256 hash the first 40 still name the commit.
_LONGEST_SHA = 40

# Argo CD reads the message line by line and stops at one of 64 KiB. Escaped, a character takes at most 12 bytes.
_LONGEST_BODY = 5_000

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~\u00a1-\U0010ffff -]+")
_SCP_LIKE = re.compile(r"(?:([^@/:]+)@)?(\[[^\]]+\]|[^@/:\[\]]+):(?!//|:)(.+)")
_SCHEMES = ("https", "http", "ssh", "git", "git+ssh", "ssh+git", "file")


def message(subject: str, body: str = "", trailers: str = "") -> str:
    """Put a commit message together.

    Args:
        subject: one line; line breaks and control characters become spaces.
        body: paragraphs, may be empty. Lines that would pass for our trailers are indented.
        trailers: what :func:`trailers` returned, may be empty.

    Returns:
        The message, with a newline at its end.
    """
    lines = [_printable(line).rstrip() for line in body.splitlines()]
    text = "\n".join(f" {line}" if _is_trailer_of_ours(line) else line for line in lines).strip("\n")
    return "\n\n".join(part for part in (one_line(subject), text, trailers.strip("\n")) if part) + "\n"


def trailers(tree: WorkTree, inputs: Mapping[PurePosixPath, str]) -> str:
    """Describe what a compile was made from: the commit at HEAD, and every input.

    Args:
        tree: the work tree, opened when the compile began.
        inputs: the sha256 (hexadecimal) of each input, by path relative to the root.

    Returns:
        Trailer lines: ``Argocd-reference-commit-*`` about HEAD (none before the first commit), then ``Scepsy-input``
        sorted by path.

    Raises:
        GitFailed: when git fails.
    """
    pairs = [(_REFERENCE + name, value) for name, value in (_reference(tree) if tree.head else {}).items()]
    pairs += [
        ("Scepsy-input", f"{_path(path)} sha256:{digest.removeprefix('sha256:')}")
        for path, digest in sorted(inputs.items())
    ]
    return "".join(f"{name}: {line}\n" for name, value in pairs if (line := one_line(value)))


def _reference(tree: WorkTree) -> dict[str, str]:
    about = describe(tree)
    body = about["body"]
    return about | {
        "sha": about["sha"][:_LONGEST_SHA],
        "body": json.dumps(body[:_LONGEST_BODY]) if body else "",
    }


def describe(tree: WorkTree) -> dict[str, str]:
    """Return what the commit at HEAD says of itself, and the address of the remote it comes from.

    Args:
        tree: the work tree, with a commit at HEAD.

    Returns:
        author (as in RFC 5322), sha, subject, body (less trailers of ours), repourl (as anyone may read it) and date
        (ISO 8601).

    Raises:
        GitFailed: when git fails.
    """
    fields = "%x00".join(("%an", "%ae", "%H", "%s", "%b", "%aI"))
    output = git(
        tree.root,
        *("log", "-1", "--no-color", "--no-notes", "--no-mailmap", "--encoding=UTF-8", f"--format={fields}"),
        tree.head or "HEAD",
    )
    name, email, sha, subject, body, date = output.decode(errors="replace").removesuffix("\n").split("\0")
    return {
        "author": _address(one_line(name), one_line(email)),
        "sha": sha,
        "subject": subject,
        "body": "\n".join(line for line in body.split("\n") if not _is_trailer_of_ours(line)).strip("\n"),
        "repourl": public_url(_origin(tree)),
        "date": date,
    }


def _origin(tree: WorkTree) -> str:
    try:
        return line(tree.root, "remote", "get-url", "origin")
    except GitFailed:
        return ""  # no such remote


def public_url(url: str) -> str:
    """Return the URL as anyone may read it, without user, password, token or query; nothing for a local path."""
    scp_like = _SCP_LIKE.fullmatch(url)
    if scp_like and "://" not in url:
        # git's short form is no URL to Argo CD: git@host:owner/repo.
        user, host, path = scp_like.groups()
        url = f"ssh://{f'{user}@' if user else ''}{host}/{path.lstrip('/')}"
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        # Over ssh the user (git) is part of the address, and no secret; elsewhere it may be a token.
        user = f"{parts.username}@" if parts.username and "ssh" in parts.scheme else ""
    except ValueError:
        return ""
    # An @ in the path is most likely the end of a password with a slash in it, where the host was looked for too early.
    if parts.scheme not in _SCHEMES or "@" in parts.path:
        return ""
    return urlunsplit((parts.scheme, user + host, parts.path, "", ""))


def _address(name: str, email: str) -> str:
    """Format an author for parsers of RFC 5322, which reject ``dependabot[bot] <1+dependabot[bot]@...>`` unquoted."""
    local, at, domain = email.rpartition("@")
    if not all(_ATOMS.fullmatch(atom) for atom in local.split(".")):
        local = _quoted(local)
    if not name:
        return f"<{local}{at}{domain}>"
    return f"{name if _PHRASE.fullmatch(name) else _quoted(name)} <{local}{at}{domain}>"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _path(path: PurePosixPath) -> str:
    text = str(path)
    return text if _printable(text) == text else json.dumps(text)


def _is_trailer_of_ours(line: str) -> bool:
    return line.lower().startswith((_REFERENCE.lower(), "scepsy-input:"))


def one_line(text: str) -> str:
    """Return a text in one line that steers no terminal."""
    return re.sub(" +", " ", _printable(text)).strip()


def _printable(text: str) -> str:
    """Replace all that could end a line or steer a terminal: control characters, separators, broken encoding."""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") else char for char in text)
