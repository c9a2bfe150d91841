"""A private work tree beside the user's: where a branch of a remote is compiled, committed and pushed from.

It is a separate repository inside the git directory, with a generated configuration and objects borrowed from the
user's. So nothing of the target repository's configuration is in force when git talks to the remote, its attributes
run no filter, and whatever happens there, the user's branch, index, work tree and references do not change.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scepsy.publishing.remote import Remote
from scepsy.repository.git import GitFailed, ask, git, line
from scepsy.repository.staging import Busy, write_durably
from scepsy.repository.worktree import WorkTree

_HOME = "scepsy-push"
_IDENTITY = r"^(user|author|committer)\.(name|email)$"
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\nsize \d+\n"
)

# Files as they were committed, whatever .gitattributes and the user's settings are.
_ATTRIBUTES = "* -text -eol -filter -ident -working-tree-encoding\n"
_CONFIG = """\
[core]
\tautocrlf = false
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tlogAllRefUpdates = false
\tsparseCheckout = false
\tsplitIndex = false
\tuntrackedCache = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\twriteCommitGraph = false
[feature]
\tmanyFiles = false
"""


@contextmanager
def scratch_directory(tree: WorkTree) -> Iterator[Path]:
    """Make an empty folder for scratch worktrees in the git directory; what a killed run left there is removed.

    Args:
        tree: the user's work tree.

    Yields:
        The folder; it is removed in the end.

    Raises:
        Busy: another process pushes from this work tree.
        OSError: it cannot be made.
    """
    home = tree.git_dir / _HOME
    handle = _locked(home)
    try:
        for left in home.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        # A unique name: git processes of a killed run may still write in theirs.
        yield Path(tempfile.mkdtemp(prefix="run-", dir=home))
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(handle)


def _locked(home: Path) -> int:
    """Make the folder, and lock it; the kernel drops the lock when this process dies."""
    while True:
        home.mkdir(mode=0o700, exist_ok=True)
        handle = -1
        try:
            handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(home)):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise Busy(f"another scepsy process pushes from {home.parent}", "wait until it ends, then re-run") from None
        except FileNotFoundError:
            pass  # removed by the process that had it: once more
        except OSError:
            if handle < 0:
                raise
            return handle  # some network file systems know no such lock; two runs at once are rare enough to go on
        if handle >= 0:
            os.close(handle)


class ScratchWorktree:
    """A private work tree for one branch of one remote.

    Args:
        tree: the user's work tree, which lends its objects, and the committer's name.
        root: where it is made, in a folder of :func:`scratch_directory`.
        branch: the branch.
        remote: where the branch is pushed; None where it is not.
    """

    def __init__(self, tree: WorkTree, root: Path, branch: str, remote: Remote | None) -> None:
        self.root, self.branch = root, branch
        self.git_dir = root / ".git"
        self._lender = tree
        kind = line(tree.root, "rev-parse", "--show-object-format")
        for folder in ("objects/info", "objects/pack", "refs/heads", "info"):
            (self.git_dir / folder).mkdir(parents=True)
        write_durably(self.git_dir / "HEAD", b"ref: refs/heads/" + os.fsencode(branch) + b"\n")
        objects = Path(os.path.realpath(_path(tree, "objects")))
        write_durably(self.git_dir / "objects" / "info" / "alternates", _quoted(os.fsencode(objects)) + b"\n")
        write_durably(self.git_dir / "info" / "attributes", _ATTRIBUTES.encode())
        shallow = Path(_path(tree, "shallow"))
        if shallow.is_file():
            shutil.copyfile(shallow, self.git_dir / "shallow")
        form = "" if kind == "sha1" else f"[extensions]\n\tobjectFormat = {kind}\n"
        version = f"[core]\n\trepositoryFormatVersion = {1 if form else 0}\n"
        write_durably(self.git_dir / "config", (version + form + _CONFIG).encode() + self._settings(tree, remote))
        if tree.head is not None:  # git reports it to the remote as present
            git(root, "update-ref", "refs/scepsy/lender", tree.head)

    @staticmethod
    def _settings(tree: WorkTree, remote: Remote | None) -> bytes:
        output = ask(tree.root, "config", "--null", "--get-regexp", _IDENTITY) or ""
        pairs = dict(entry.split("\n", 1) for entry in output.split("\0") if "\n" in entry)  # the last one counts
        lines = [_setting(key, value) for key, value in sorted(pairs.items())]
        if remote is not None:
            lines.append(_setting('remote "origin".url', remote.url))
        return b"".join(lines)

    def contains(self, commit: str, ancestor: str) -> bool:
        """Tell whether a commit is another, or comes after it."""
        try:
            git(self.root, "merge-base", "--is-ancestor", ancestor, commit)
        except GitFailed as error:
            if error.status == 1:
                return False
            raise
        return True

    def at(self, commit: str | None) -> WorkTree:
        """Return the work tree with exactly the files of a commit, and its branch there; empty and unborn if None.

        Raises:
            GitFailed: git fails.
            OSError: the disk does.
        """
        reference = f"refs/heads/{self.branch}"
        if commit is None:
            git(self.root, "read-tree", "--empty")
        else:
            git(self.root, "update-ref", "--no-deref", reference, commit)
            git(self.root, "read-tree", "--reset", "-u", commit)
        git(self.root, "clean", "-ffdxq")
        tree = WorkTree(root=self.root, git_dir=self.git_dir, head=commit, branch=self.branch)
        if commit is not None:
            self._fill_pointers()
        return tree

    def _fill_pointers(self) -> None:
        """Put the content that Git LFS keeps beside the repository in place of its pointers, where it is there."""
        common = line(self._lender.root, "rev-parse", "--git-common-dir")
        store = self._lender.root / common / "lfs" / "objects"
        if not store.is_dir():
            return
        for folder, folders, names in os.walk(self.root):
            if Path(folder) == self.root:
                folders.remove(".git")
            for path in (Path(folder, name) for name in names):
                if path.is_symlink() or path.stat().st_size > 1024:
                    continue
                pointer = _POINTER.match(path.read_bytes())
                digest = pointer[1].decode() if pointer else ""
                kept = store / digest[:2] / digest[2:4] / digest
                if digest and kept.is_file():
                    data = kept.read_bytes()
                    if hashlib.sha256(data).hexdigest() == digest:
                        path.write_bytes(data)


def _path(tree: WorkTree, name: str) -> str:
    return os.path.join(tree.root, line(tree.root, "rev-parse", "--git-path", name))


def _quoted(text: bytes) -> bytes:
    for plain, escaped in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\t", b"\\t")):
        text = text.replace(plain, escaped)
    return b'"' + text + b'"'


def _setting(name: str, value: str) -> bytes:
    section, _, key = name.rpartition(".")
    return f"[{section}]\n\t{key} = ".encode() + _quoted(os.fsencode(value)) + b"\n"
