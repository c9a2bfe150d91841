"""Log lines of the recorder, each kind printed once."""

from __future__ import annotations

from collections.abc import Callable

_MAX_KINDS = 200


class LogOnce:
    """Prints one line per kind.

    Args:
        write: prints a line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._kinds: set[str] = set()

    def once(self, kind: str, text: str) -> None:
        """Print a line unless one of its kind was printed; the number of kinds is limited, since clients cause them."""
        if kind not in self._kinds and len(self._kinds) < _MAX_KINDS:
            self._kinds.add(kind)
            self._write(text)
