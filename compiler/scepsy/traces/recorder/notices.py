"""What the recorder tells the person who runs it."""

from __future__ import annotations

from collections.abc import Callable

_MAX_KINDS = 200


class Notices:
    """Says things once.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def once(self, kind: str, text: str) -> None:
        """Say a text unless one of its kind has been said; the kinds are bounded, strangers may cause them."""
        if kind not in self._said and len(self._said) < _MAX_KINDS:
            self._said.add(kind)
            self._say(text)
