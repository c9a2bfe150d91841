"""Single files that a command writes to the path that the user gives."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from scepsy.errors import ScepsyError


def checked_target(given: Path, option: str, inputs: Iterable[Path] = ()) -> Path:
    """Return the real path of a file to be written, checked before anything takes time.

    Args:
        given: what the user named.
        option: how, such as `-o`.
        inputs: files that are read, and so not overwritten.

    Raises:
        ScepsyError: it is a directory or an input, or lies in no directory.
    """
    target = Path(os.path.realpath(given))
    if target.is_dir():
        raise ScepsyError(f"{given} is a directory", f"name the file to write: {option} FILE")
    if any(Path(os.path.realpath(file)) == target for file in inputs):
        raise ScepsyError(f"{given} is an input of this command", f"name another file: {option} FILE")
    if not target.parent.is_dir():
        raise ScepsyError(f"there is no directory {target.parent}", "create it first")
    return target


def write_at_once(target: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file: to the side, then renamed, so that it is there as a whole or not at all. Its directory is made.

    Raises:
        ScepsyError: it cannot be written, or exists and is not to be replaced.
    """
    aside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(exist_ok=True)
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not replace and target.exists():
            raise ScepsyError(f"{target} exists", "name another file, or replace it with --force")
        os.replace(aside, target)
    except OSError as error:
        raise ScepsyError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink()
